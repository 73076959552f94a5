"""The other way by which Slack brings clicks: a WebSocket that we open, with no port of ours."""

import logging
import threading
from http.client import HTTPException
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import proxy_bypass

from slack_sdk import WebClient
from slack_sdk.errors import SlackClientError
from slack_sdk.socket_mode import SocketModeClient
from slack_sdk.socket_mode.response import SocketModeResponse

from driftloop.errors import BadRequest
from driftloop.page.payloads import read
from driftloop.page.reception import Reception, named

if TYPE_CHECKING:
    from slack_sdk.socket_mode.client import BaseSocketModeClient
    from slack_sdk.socket_mode.request import SocketModeRequest

TIMEOUT = 10
"""Seconds that Slack may take to say where to connect."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
PING_EVERY = 3.0
"""Seconds between looks whether the connection stands; one that is lost is opened anew."""

_log = logging.getLogger(__name__)


class SocketMode:
    """Receives clicks by Socket Mode.

    Slack sends again what was not acknowledged, so what the desk has not answered is not
    acknowledged before its time is over: a click outlives a process that is killed with it.

    Args:
        reception: who takes them to the desk.
        app_token: an app token (xapp-...).
        base_url: address of the Web API, as in https://slack.com/api/.
    """

    def __init__(self, reception: Reception, *, app_token: str, base_url: str) -> None:
        self._reception = reception
        self._client = SocketModeClient(
            app_token,
            web_client=WebClient(base_url=base_url, timeout=TIMEOUT),
            ping_interval=PING_EVERY,
        )
        if proxy_bypass(urlsplit(base_url).hostname or ""):
            self._client.proxy = None  # slack_sdk asks the environment for the proxy alone
        self._client.socket_mode_request_listeners.append(self._received)

    def is_connected(self) -> bool:
        """Return whether clicks can come this way now."""
        return self._client.is_connected()

    def run(self, stop: threading.Event) -> None:
        """Receive until `stop` is set, then close; connect again whenever that is needed."""
        pause = FIRST_PAUSE
        while not stop.is_set() and not self._connected():
            stop.wait(pause)
            pause = min(pause * 2, LONGEST_PAUSE)
        stop.wait()  # from here on slack_sdk keeps it connected
        try:
            self._client.close()
        except AttributeError:
            # Two of slack_sdk's threads closed one socket; the second call ends what is left.
            self._client.close()

    def _connected(self) -> bool:
        try:
            self._client.connect_to_new_endpoint()
        except (SlackClientError, OSError, HTTPException, ValueError) as error:
            _log.error("no Socket Mode connection: %s", named(error))
            return False
        _log.info("clicks come by Socket Mode")
        return True

    def _received(self, client: "BaseSocketModeClient", request: "SocketModeRequest") -> None:
        body = None
        if request.type == "interactive":
            try:
                body = dict(self._reception.answer_waiting(read(request.payload)))
            except BadRequest as error:
                _log.warning("turned away, by Socket Mode: %s", error)
        response = SocketModeResponse(request.envelope_id, payload=body or None)
        try:
            client.send_socket_mode_response(response)
        except (SlackClientError, OSError) as error:
            # It comes again, over the next connection, and is not done again.
            _log.warning("not acknowledged, by Socket Mode: %s", named(error))
