"""Takes clicks to the desk, by whichever way they come, and tells who clicked what came of it.

Slack waits three seconds for an answer. The desk is waited for a little less, so that what was
answered was done: of a process that is killed meanwhile Slack says that it did not answer. What
takes longer goes on, and who clicked is told of it afterwards.
"""

import asyncio
import logging
import re
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from http.client import HTTPException
from threading import Lock, Thread
from typing import Any
from urllib.parse import urlsplit

from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError, SlackClientError
from slack_sdk.webhook import WebhookClient

from driftloop.errors import DriftloopError
from driftloop.page.buttons import why_view
from driftloop.page.clicks import WHY_BLOCK
from driftloop.page.payloads import Asked, Asks, Nothing, Pressed, Unclear
from driftloop.ports import Desk
from driftloop.records import Answer, Click

PATIENCE = 2.0
"""Seconds in which the desk may answer, of the three that Slack waits."""
LOOK = 1.0
"""Seconds for which it is looked whether who clicked may, before they are asked for a reason."""
TIMEOUT = 5
"""Seconds that Slack may take over an answer of ours."""
THREADS = 16
LONGEST = 3000
"""Characters that are told to who clicked, at most."""

Body = Mapping[str, Any]
"""What Slack is answered with, as JSON would hold it; empty for nothing."""

_SLACKS = re.compile(r"(.+\.)?slack(-gov)?\.com")
_ENTITY = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_log = logging.getLogger(__name__)


class Reception:
    """Hands what is asked to the desk; used from any thread.

    Args:
        desk: where clicks are taken.
        token: a bot token.
        base_url: address of the Web API, as in https://slack.com/api/.
        patience: seconds in which the desk may answer before Slack is.
    """

    def __init__(
        self, desk: Desk, *, token: str, base_url: str, patience: float = PATIENCE
    ) -> None:
        self._desk = desk
        self._base = base_url
        self._patience = patience
        self._client = WebClient(token=token, base_url=base_url, timeout=TIMEOUT)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="clicks")

    async def answer(self, asked: Asked) -> Body:
        """Return what Slack is to be answered with, in time; what takes longer goes on."""
        turn = self._begun(asked)
        await asyncio.wait({asyncio.wrap_future(turn.reply)}, timeout=self._patience)
        return turn.due()

    def answer_waiting(self, asked: Asked) -> Body:
        """Return what `answer` does, to a thread that waits for it."""
        turn = self._begun(asked)
        wait({turn.reply}, timeout=self._patience)
        return turn.due()

    def close(self) -> None:
        """Return once everything that was begun has come to its end; nothing more may begin."""
        self._threads.shutdown()

    def _begun(self, asked: Asked) -> "_Turn":
        turn = _Turn()
        self._threads.submit(self._attend, asked, turn)
        return turn

    def _attend(self, asked: Asked, turn: "_Turn") -> None:
        try:
            match asked:
                case Pressed():
                    self._press(asked, turn)
                case Asks():
                    self._ask(asked, turn)
                case Unclear():
                    told = turn.answer(_refusal(asked.said) if asked.field else {})
                    if not (told and asked.field):
                        self._tell(asked, asked.user, asked.said)
                case Nothing():
                    pass
        except Exception:  # noqa: BLE001 - of a thread nobody would hear
            _log.exception("a click was not answered")
        finally:
            turn.answer({})

    def _press(self, asked: Pressed, turn: "_Turn") -> None:
        answer = self._taken(asked.click)
        # A form stays open, and says itself why it was refused.
        refused = asked.submits and not answer.done
        in_time = turn.answer(_refusal(answer.said) if refused else {})
        if not (refused and in_time):
            self._tell(asked, asked.click.user or "", answer.said)

    def _taken(self, click: Click) -> Answer:
        about = {"trace": click.incident}
        try:
            answer = self._desk.take(click)
        except DriftloopError as error:
            _log.error("%s of %s was not done: %s", click.act, click.user, error, extra=about)
            return Answer(done=False, said=f"It could not be done: {_first(error)}. Try again.")
        except Exception:  # noqa: BLE001 - who clicked is told all the same
            _log.exception("%s of %s was not done", click.act, click.user, extra=about)
            return Answer(done=False, said="It could not be done: see desk.log.")
        said = "done" if answer.done else "refused"
        _log.info("%s by %s: %s", click.act, click.user, said, extra=about)
        return answer

    def _ask(self, asked: Asks, turn: "_Turn") -> None:
        """Open the modal; what opened it is good for three seconds, and once.

        Who may not is told so, and need give no reason. What cannot be looked at in time is
        looked at when the modal comes back.
        """
        if refusal := self._refusal(asked.click):
            turn.answer({})
            self._tell(asked, asked.user, refusal)
            return
        view = why_view(asked.metadata)
        try:
            self._client.views_open(trigger_id=asked.trigger, view=view)
        except (SlackClientError, OSError, HTTPException, ValueError) as error:
            _log.warning("no form could be opened: %s", named(error))
            turn.answer({})
            self._tell(asked, asked.user, "The form could not be opened. Click once more.")

    def _refusal(self, click: Click) -> str:
        looked: Future[str] = Future()

        def look() -> None:
            try:
                looked.set_result(self._desk.refusal(click))
            except Exception as error:  # noqa: BLE001 - it is looked at again
                looked.set_exception(error)

        Thread(target=look, name="right", daemon=True).start()
        try:
            return looked.result(timeout=LOOK)
        except Exception as error:  # noqa: BLE001 - it is looked at again
            _log.warning("whether %s may is not known yet: %s", click.user, type(error).__name__)
            return ""

    def _tell(self, to: "Pressed | Asks | Unclear", user: str, said: str) -> None:
        """Say something to who clicked, and to nobody else."""
        text = "".join(_ENTITY.get(c, c) for c in said[:LONGEST])
        try:
            if not self._sent_back(to.response_url, text) and to.channel and user:
                self._client.chat_postEphemeral(channel=to.channel, user=user, text=text)
        except (SlackClientError, OSError, HTTPException, ValueError) as error:
            _log.warning("%s was not told what came of a click: %s", user, named(error))

    def _sent_back(self, url: str, text: str) -> bool:
        """Return whether Slack took `text` at the address that it gave for it."""
        if not url:
            return False
        if not _is_slacks(url, self._base):
            _log.warning("not answered at an address that is not Slack's: %s", urlsplit(url).netloc)
            return False
        hook = WebhookClient(url, timeout=TIMEOUT)
        try:
            answer = hook.send(text=text, response_type="ephemeral", replace_original=False)
        except (SlackClientError, OSError, HTTPException, ValueError) as error:
            _log.info("not answered at the click's own address: %s", named(error))
            return False
        return answer.status_code == 200  # noqa: PLR2004 - HTTP's own


def named(error: Exception) -> str:
    """Return what went wrong with a call of Slack, without what should be in no log.

    An error of slack_sdk quotes whole answers, one of urllib the address.
    """
    told = error.response.get("error") if isinstance(error, SlackApiError) else None
    return str(told or type(error).__name__)


class _Turn:
    """One answer to Slack: what the desk says if it is in time, else nothing."""

    def __init__(self) -> None:
        self.reply: Future[Body] = Future()
        self._lock = Lock()

    def answer(self, body: Body) -> bool:
        """Return whether `body` is what Slack is answered with."""
        with self._lock:
            if self.reply.done():
                return False
            self.reply.set_result(body)
            return True

    def due(self) -> Body:
        """Return the answer; whoever comes with one from now on is late."""
        self.answer({})
        return self.reply.result()


def _refusal(said: str) -> Body:
    return {"response_action": "errors", "errors": {WHY_BLOCK: said[:LONGEST]}}


def _is_slacks(url: str, base_url: str) -> bool:
    """Return whether an address is Slack's, or of the server that stands in for it."""
    asked, ours = urlsplit(url), urlsplit(base_url)
    try:
        ports = asked.port, ours.port
    except ValueError:  # one is none
        return False
    if asked.scheme == "https" and _SLACKS.fullmatch(asked.hostname or ""):
        return ports[0] in {None, 443}
    hosts = {asked.hostname, ours.hostname}
    same = len(hosts) == 1 or hosts <= _LOOPBACK
    return same and asked.scheme == ours.scheme and ports[0] == ports[1]


def _first(error: DriftloopError) -> str:
    return str(error).splitlines()[0].rstrip(".")
