"""The pager on Slack's Web API, through slack_sdk.

chat.postMessage has no idempotency key: after a lost reply nobody knows whether the message
stands. So nothing is sent again blindly: the caller comes back with `reconcile`, and the
message is looked for by the key in its metadata before another is posted.

The bot's scopes: chat:write, channels:read, groups:read, channels:history and, where it posts to
private channels, groups:history.
"""

import re
from collections.abc import Callable, Iterator
from datetime import datetime
from http.client import HTTPException
from typing import TYPE_CHECKING, Any, NamedTuple

from driftloop.errors import PagerError
from driftloop.page.blocks import opening, reply, updated
from driftloop.records import Address, Digest, Entry, Incident, Notice, Receipt

if TYPE_CHECKING:
    from slack_sdk import WebClient
    from slack_sdk.web import SlackResponse

EVENT = "driftloop_notice"
"""The metadata's event type on every message of ours."""

_PAGE = 200
_PAGES = 5
_WAITS = 2
_SERVER_FAULT = 500
_TOO_MANY = 429
_CODE = re.compile(r"[a-z][a-z0-9_]*")
_PASSING = frozenset(
    {"ratelimited", "rate_limited", "internal_error", "fatal_error", "request_timeout"}
    | {"service_unavailable", "team_added_to_org"}
)
_TOKEN_HINT = "set DRIFTLOOP_SLACK_TOKEN to a bot token (xoxb-...) of this workspace"  # noqa: S105 - a hint, not a token
_HINTS = {
    "channel_not_found": "create the channel, or correct it in owners.toml; "
    "a private channel is named by its id and the bot must be in it",
    "not_in_channel": "invite the bot: /invite in the channel",
    "is_archived": "unarchive the channel, or name another in owners.toml",
    "not_authed": _TOKEN_HINT,
    "invalid_auth": _TOKEN_HINT,
    "account_inactive": _TOKEN_HINT,
    "token_revoked": _TOKEN_HINT,
    "token_expired": _TOKEN_HINT,
    "missing_scope": "give the bot chat:write, channels:read, groups:read, channels:history "
    "(and groups:history for private channels) and install it again",
    "message_not_found": "somebody deleted the incident's message",
    "thread_not_found": "somebody deleted the incident's message",
}

_Message = dict[str, Any]


class Bot(NamedTuple):
    """Who the token belongs to."""

    name: str
    team: str


class SlackPager:
    """A `ports.Pager` that posts as the bot of `token`.

    Args:
        token: a bot token; never shown, in no error and no log.
        base_url: address of the Web API, as in https://slack.com/api/.
        timeout: seconds to wait for each answer.

    Raises:
        PagerError: the token cannot be one.
    """

    def __init__(self, token: str, base_url: str, *, timeout: float = 5.0) -> None:
        # http.client would quote a token with a line break in its error.
        if not re.fullmatch(r"[!-~]+", token.strip()):
            raise PagerError("the Slack token is not one", hint=_TOKEN_HINT, retry=False)
        self._client = _client(token.strip(), base_url, timeout)
        self._ids: dict[str, str] = {}

    def check(self) -> Bot:
        """Return the bot's name and its workspace.

        Raises:
            PagerError: Slack does not answer, or does not know the token.
        """
        answer = _asked(self._client.auth_test, where="auth.test")
        return Bot(name=str(answer.get("user", "")), team=str(answer.get("team", "")))

    def open(self, notice: Notice, *, reconcile: bool) -> Receipt:
        """Post the incident's message and return where it stands.

        With `reconcile` the channel's newest messages are searched first, and a message that
        already stands for the incident is returned instead.

        Raises:
            PagerError: Slack did not take it; with `retry`, come again with `reconcile`.
        """
        if reconcile and (standing := self._standing(notice)) is not None:
            return standing
        text, blocks = opening(notice)
        answer = _asked(
            self._client.chat_postMessage,
            where=notice.channel,
            channel=notice.channel,
            text=text,
            blocks=blocks,
            metadata=_metadata(notice, notice.incident),
            unfurl_links=False,
        )
        self._ids[notice.channel] = answer["channel"]
        return Receipt(channel=answer["channel"], ts=answer["ts"])

    def follow(self, notice: Notice, receipt: Receipt, *, reconcile: bool) -> None:
        """Bring the incident's message up to date, then tell `notice` in its thread.

        The update can be repeated freely and comes first; a message that already shows
        something later is left alone. With `reconcile` the thread is searched for `notice.key`
        before it is written to.

        Raises:
            PagerError: Slack did not take it; with `retry`, come again with `reconcile`.
        """
        thread = self._messages(
            self._client.conversations_replies,
            where=notice.channel,
            channel=receipt.channel,
            ts=receipt.ts,
        )
        main = next(thread)
        standing = main.get("blocks", [])
        shown = _told_at(main)
        if shown is None or shown <= notice.at:
            text, blocks = updated(notice, standing)
            _asked(
                self._client.chat_update,
                where=notice.channel,
                channel=receipt.channel,
                ts=receipt.ts,
                text=text,
                blocks=blocks,
                metadata=_metadata(notice, notice.incident),
            )
        replies = (message for message in thread if message["ts"] != receipt.ts)
        if reconcile and any(_key(message) == notice.key for message in replies):
            return
        text, blocks = reply(notice, standing)
        _asked(
            self._client.chat_postMessage,
            where=notice.channel,
            channel=receipt.channel,
            thread_ts=receipt.ts,
            text=text,
            blocks=blocks,
            metadata=_metadata(notice, notice.key),
            unfurl_links=False,
        )

    def post(self, incident: Incident, to: Address, *, reconcile: bool) -> Receipt:
        """Post the incident's message."""
        raise NotImplementedError

    def update(self, incident: Incident, receipt: Receipt) -> Receipt:
        """Let the message show the incident as it is now."""
        raise NotImplementedError

    def reply(self, entry: Entry, receipt: Receipt, *, reconcile: bool) -> None:
        """Write into the thread."""
        raise NotImplementedError

    def summarize(self, digest: Digest, to: Address, *, reconcile: bool) -> Receipt:
        """Post a digest."""
        raise NotImplementedError

    def _standing(self, notice: Notice) -> Receipt | None:
        channel = self._channel_id(notice.channel)
        if channel is None:
            return None
        messages = self._messages(
            self._client.conversations_history, where=notice.channel, channel=channel
        )
        found = (message for message in messages if _key(message) == notice.incident)
        return next((Receipt(channel=channel, ts=message["ts"]) for message in found), None)

    def _channel_id(self, channel: str) -> str | None:
        if not channel.startswith("#"):
            return channel
        if channel not in self._ids:
            pages = _pages(
                self._client.conversations_list,
                where=channel,
                pages=None,
                exclude_archived=True,
                types="public_channel,private_channel",
            )
            for page in pages:
                self._ids |= {f"#{one['name']}": one["id"] for one in page["channels"]}
        return self._ids.get(channel)

    def _messages(
        self, method: Callable[..., "SlackResponse"], *, where: str, **asked: object
    ) -> Iterator[_Message]:
        for page in _pages(method, where=where, pages=_PAGES, include_all_metadata=True, **asked):
            yield from page["messages"]


def _client(token: str, base_url: str, timeout: float) -> "WebClient":
    from slack_sdk import WebClient
    from slack_sdk.http_retry.builtin_handlers import RateLimitErrorRetryHandler

    # Only what was surely not accepted is sent again; the default would resend after a reset.
    waits = RateLimitErrorRetryHandler(max_retry_count=_WAITS)
    return WebClient(
        token=token,
        base_url=base_url,
        timeout=timeout,  # type: ignore[arg-type]  # declared int, handed to a socket
        retry_handlers=[waits],
    )


def _pages(
    method: Callable[..., "SlackResponse"], *, where: str, pages: int | None, **asked: object
) -> "Iterator[SlackResponse]":
    cursor, read = "", 0
    while pages is None or read < pages:
        more = {"cursor": cursor} if cursor else {}
        page = _asked(method, where=where, limit=_PAGE, **asked, **more)
        yield page
        cursor, read = (page.get("response_metadata") or {}).get("next_cursor", ""), read + 1
        if not cursor:
            return


def _asked(
    method: Callable[..., "SlackResponse"], *, where: str, **asked: object
) -> "SlackResponse":
    from slack_sdk.errors import SlackApiError, SlackClientError

    try:
        return method(**asked)
    except SlackApiError as error:
        raise _refusal(error.response, where) from error
    except (SlackClientError, OSError, HTTPException, ValueError) as error:
        # Timeouts, resets, replies cut short: what was asked may still have happened.
        raise PagerError(
            f"no answer of Slack: {type(error).__name__}: {error}",
            where=where,
            hint="is Slack's address reachable from here?",
            retry=True,
        ) from error


def _refusal(response: "SlackResponse", where: str) -> PagerError:
    status, code = response.status_code, str(response.get("error") or "")
    if status >= _SERVER_FAULT or not _CODE.fullmatch(code):
        lost = status >= _SERVER_FAULT or status < 400  # noqa: PLR2004 - HTTP's own border
        said = f"HTTP {status} instead of an answer of Slack"
        return PagerError(said, where=where, hint="look at Slack's address", retry=lost)
    return PagerError(
        f"Slack answered {code}",
        where=where,
        hint=_HINTS.get(code, ""),
        retry=status == _TOO_MANY or code in _PASSING,
    )


def _metadata(notice: Notice, key: str) -> dict[str, Any]:
    told = {"key": key, "stage": notice.stage.value, "at": notice.at.isoformat()}
    return {"event_type": EVENT, "event_payload": told}


def _told(message: _Message) -> dict[str, Any]:
    metadata = message.get("metadata") or {}
    return dict(metadata.get("event_payload") or {}) if metadata.get("event_type") == EVENT else {}


def _key(message: _Message) -> str | None:
    return _told(message).get("key")


def _told_at(message: _Message) -> datetime | None:
    at = _told(message).get("at")
    return datetime.fromisoformat(at) if at else None
