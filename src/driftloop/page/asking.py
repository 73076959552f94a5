"""How Slack's Web API is asked: its limits kept, and what it refuses said in our words."""

import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import HTTPException
from socket import gaierror
from typing import TYPE_CHECKING, Any

from driftloop.errors import PagerError

if TYPE_CHECKING:
    from slack_sdk import WebClient
    from slack_sdk.web import SlackResponse

BURST = 3.0
"""Messages that a channel takes at once. Slack allows "short bursts" beyond one a second, without
a number."""
PATIENCE = 3.0
"""Seconds of a Retry-After that are waited for; who is asked to wait longer comes again."""
PAGE = 200
"""Messages, or channels, that are asked for at once."""

_WAITS = 2
_SERVER_FAULT = 500
_TOO_MANY = 429
_CODE = re.compile(r"[a-z][a-z0-9_]*")
_TOKEN = re.compile(r"[!-~]+")
_LIMITED = frozenset({"ratelimited", "rate_limited", "message_limit_exceeded"})
_PASSING = _LIMITED | {
    *("internal_error", "fatal_error", "request_timeout", "service_unavailable"),
    *("team_added_to_org", "external_channel_migrating"),
}
_NOBODY = frozenset(
    {"not_authed", "invalid_auth", "account_inactive", "token_revoked", "token_expired"}
    | {"not_allowed_token_type", "team_access_not_granted", "org_login_required", "access_denied"}
    | {"no_permission", "missing_scope", "ekm_access_denied", "team_not_found"}
)
"""What is refused whatever the channel, until somebody mends the bot or its token."""
_GONE = frozenset({"message_not_found", "thread_not_found", "cannot_reply_to_message"})
_TOKEN_HINT = "set DRIFTLOOP_SLACK_TOKEN to a bot token (xoxb-...) of this workspace"  # noqa: S105 - a hint, not a token
_DELETED = "somebody deleted the incident's message"
_HINTS = {
    "channel_not_found": "create the channel, or correct it in owners.toml; "
    "a private channel is named by its id and the bot must be in it",
    "not_in_channel": "invite the bot: /invite in the channel",
    "is_archived": "unarchive the channel, or name another in owners.toml",
    "is_inactive": "unarchive the channel, or name another in owners.toml",
    "restricted_action": "let the bot post in the channel, or name another in owners.toml",
    "not_authed": _TOKEN_HINT,
    "invalid_auth": _TOKEN_HINT,
    "account_inactive": _TOKEN_HINT,
    "token_revoked": _TOKEN_HINT,
    "token_expired": _TOKEN_HINT,
    "not_allowed_token_type": _TOKEN_HINT,
    "missing_scope": "give the bot the scopes that README.md lists and install it again",
    "message_not_found": _DELETED,
    "thread_not_found": _DELETED,
    "cannot_reply_to_message": _DELETED,
    "edit_window_closed": "allow bots to edit their messages in the workspace's settings",
    "no_such_subteam": "correct the user group in owners.toml",
}


class Refused(PagerError):
    """Slack answered, with an error's `code`; `said` is what it says of it besides."""

    code = ""
    said: tuple[str, ...] = ()


class Line:
    """Slack's Web API as the bot of `token`: paced, and limits honoured.

    Safe to share among threads. Messages of a channel go out one a second, after a short burst;
    nothing is sent again by itself but what was surely not accepted.

    Args:
        token: a bot token; never shown, in no error and no log.
        base_url: address of the Web API, as in https://slack.com/api/.
        timeout: seconds to wait for each answer.
        burst: messages that a channel takes at once.

    Raises:
        PagerError: the token cannot be one.
    """

    def __init__(
        self,
        token: str,
        base_url: str,
        *,
        timeout: float,
        burst: float = BURST,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        # http.client would quote a token with a line break in its error.
        if not _TOKEN.fullmatch(token.strip()):
            raise PagerError("the Slack token is not one", hint=_TOKEN_HINT, retry=False)
        self.client = _client(token.strip(), base_url, timeout)
        self.names: dict[str, str] = {}
        """What people call a channel, by its id: errors name it so."""
        self._burst, self._now, self._sleep = burst, now, sleep
        self._lock = threading.Lock()
        self._limited: dict[tuple[str, str], float] = {}
        self._buckets: dict[str, _Bucket] = {}

    def ask(
        self,
        method: str,
        *,
        where: str,
        patient: bool = True,
        **asked: Any,  # noqa: ANN401 - what Slack takes
    ) -> "SlackResponse":
        """Return Slack's answer to one call; `where` is the channel, or what else is asked.

        A limit that ends soon is waited for, unless not `patient`; until one ends that does not,
        nothing is sent.

        Raises:
            PagerError: there is no answer, or a refusal (`Refused`).
        """
        for waited in range(_WAITS + 1):
            self._heed((method, where), patient=patient)
            try:
                return _asked(getattr(self.client, method), self._named(where), asked)
            except Refused as refused:
                if refused.code not in _LIMITED:
                    raise
                last = not patient or waited == _WAITS or refused.after > PATIENCE
                with self._lock:
                    self._limited[method, where] = self._now() + refused.after
                if last:
                    raise
        raise AssertionError  # pragma: no cover - the last round raises

    def post(self, channel: str, **asked: Any) -> "SlackResponse":  # noqa: ANN401 - what Slack takes
        """Return Slack's answer to a new message in `channel`, in its turn.

        Raises:
            PagerError: as `ask`.
        """
        self._heed(("chat_postMessage", channel), patient=True)
        with self._lock:
            bucket = self._buckets.setdefault(
                channel, _Bucket(self._burst, self._burst, self._now())
            )
            wait = bucket.take(self._now())
        if wait > 0.0:
            self._sleep(wait)
        return self.ask(
            "chat_postMessage", where=channel, channel=channel, unfurl_links=False, **asked
        )

    def pages(
        self,
        method: str,
        *,
        where: str,
        most: int | None,
        **asked: Any,  # noqa: ANN401 - what Slack takes
    ) -> "Iterator[SlackResponse]":
        """Yield the pages of a listing, at most so many; None for all.

        Raises:
            PagerError: as `ask`.
        """
        cursor, read = "", 0
        while most is None or read < most:
            more: dict[str, Any] = {"cursor": cursor} if cursor else {}
            page = self.ask(method, where=where, limit=PAGE, **asked, **more)
            yield page
            cursor, read = (page.get("response_metadata") or {}).get("next_cursor", ""), read + 1
            if not cursor:
                return

    def _named(self, where: str) -> str:
        return self.names.get(where, where)

    def _heed(self, limit: tuple[str, str], *, patient: bool) -> None:
        """Wait for the end of a limit, or raise if that is far."""
        with self._lock:
            left = self._limited.get(limit, 0.0) - self._now()
            if left <= 0.0:
                self._limited.pop(limit, None)
                return
        if not patient or left > PATIENCE:
            raise _limited(self._named(limit[1]), left)
        self._sleep(left)


@dataclass(slots=True)
class _Bucket:
    """Messages that may go out at once; it fills by one a second."""

    size: float
    left: float
    at: float

    def take(self, now: float) -> float:
        """Return how many seconds the next message has to wait."""
        self.left = min(self.size, self.left + now - self.at) - 1.0
        self.at = now
        return max(0.0, -self.left)


def _client(token: str, base_url: str, timeout: float) -> "WebClient":
    from slack_sdk import WebClient

    # None of its own retries: they wait as long as Slack asks, or send what may stand already.
    return WebClient(
        token=token,
        base_url=base_url,
        timeout=timeout,  # type: ignore[arg-type]  # declared int, handed to a socket
        retry_handlers=[],
    )


def _asked(
    method: Callable[..., "SlackResponse"], where: str, asked: dict[str, Any]
) -> "SlackResponse":
    from slack_sdk.errors import SlackApiError, SlackClientError

    try:
        return method(**asked)
    except SlackApiError as error:
        raise _refusal(error.response, where) from error
    except (SlackClientError, OSError, HTTPException, ValueError) as error:
        raise PagerError(
            f"no answer of Slack: {type(error).__name__}: {error}",
            where=where,
            hint="is Slack's address reachable from here?",
            retry=True,
            away=True,
            # Timeouts, resets, replies cut short: what was asked may still have happened.
            lost=not isinstance(getattr(error, "reason", error), ConnectionRefusedError | gaierror),
        ) from error


def _refusal(response: "SlackResponse", where: str) -> PagerError:
    status, code = response.status_code, str(response.get("error") or "")
    if status == _TOO_MANY or code in _LIMITED:
        return _limited(where, _retry_after(response), code or "ratelimited")
    if status >= _SERVER_FAULT or not _CODE.fullmatch(code):
        lost = status >= _SERVER_FAULT or status < 400  # noqa: PLR2004 - HTTP's own border
        said = f"HTTP {status} instead of an answer of Slack"
        hint = "look at Slack's address"
        return PagerError(said, where=where, hint=hint, retry=True, away=True, lost=lost)
    refused = Refused(
        f"Slack answered {code}",
        where=where,
        hint=_HINTS.get(code, ""),
        # Nobody loses a page to a token: it waits for another one.
        retry=code in _PASSING or code in _NOBODY,
        away=code in _NOBODY,
        gone=code in _GONE,
        lost=code in _PASSING,
    )
    told = (response.get("response_metadata") or {}).get("messages") or response.get("errors") or ()
    refused.code, refused.said = code, tuple(str(each) for each in told)
    return refused


def _limited(where: str, after: float, code: str = "ratelimited") -> Refused:
    refused = Refused(f"Slack answered {code}", where=where, retry=True, after=after)
    refused.code = code
    return refused


def _retry_after(response: "SlackResponse") -> float:
    for name, value in dict(response.headers or {}).items():
        if name.lower() == "retry-after":
            said = str(value[0] if isinstance(value, list | tuple) else value)
            return float(said) if said.isdecimal() else 1.0
    return 1.0
