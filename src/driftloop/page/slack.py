"""The pager on Slack's Web API, through slack_sdk.

chat.postMessage has no idempotency key: after a lost reply nobody knows whether the message
stands. So nothing is sent again blindly: the caller comes back with `reconcile`, and the
message is looked for by the key in its metadata before another is posted.

The bot's scopes: chat:write, channels:read, groups:read, channels:history and, where it posts to
private channels, groups:history; files:write and files:read for pictures; users:read and
usergroups:read for buttons.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from driftloop.errors import PagerError
from driftloop.page import blocks
from driftloop.page.asking import BURST, Line, Refused
from driftloop.page.people import People
from driftloop.page.pictures import Pictures, illustrated
from driftloop.page.standing import (
    Messages,
    Standing,
    metadata_of,
    newest,
    payload_of,
    told_at,
)
from driftloop.records import Address, Digest, Entry, Incident, Receipt

if TYPE_CHECKING:
    from slack_sdk.web import SlackResponse

_log = logging.getLogger(__name__)

PAGES = 5
"""Pages of a channel's newest messages that are searched for one of ours."""
TRIES = 8
"""So often the history may be unreadable before something is posted without a look at it."""
TRIES_REFUSED, TRIES_AWAY = 3, 30
"""Likewise, where Slack says that the bot may not read it; and where Slack is out of reach, when
a post would most likely fail too."""

_PAGES_OF_THREAD = 25
_SHORT = 500
_SCOPES = ("missing_scope", "not_in_channel", "no_permission", "channel_not_found")
_LOOKS = ("invalid_blocks", "invalid_blocks_format", "msg_blocks_too_long", "msg_too_long")

Block = dict[str, Any]
_Message = Mapping[str, Any]
_Look = Callable[[], Receipt | None]


class Bot(NamedTuple):
    """Who the token belongs to."""

    name: str
    team: str


class SlackPager:
    """A `ports.Pager` and `ports.People` that speaks as the bot of `token`.

    Args:
        token: a bot token; never shown, in no error and no log.
        base_url: address of the Web API, as in https://slack.com/api/.
        timeout: seconds to wait for each answer.
        burst: messages that a channel takes at once, before one a second.

    Raises:
        PagerError: the token cannot be one.
    """

    def __init__(
        self, token: str, base_url: str, *, timeout: float = 5.0, burst: float = BURST
    ) -> None:
        self._slack = Line(token, base_url, timeout=timeout, burst=burst)
        self._messages = Messages()
        self._pictures = Pictures(self._slack, read=self._read, show=self._show)
        self._people = People(self._slack)
        self._ids: dict[str, str] = {}
        self._unread: dict[str, int] = {}

    def check(self) -> Bot:
        """Return the bot's name and its workspace.

        Raises:
            PagerError: Slack does not answer, or does not know the token.
        """
        answer = self._slack.ask("auth_test", where="auth.test")
        return Bot(name=str(answer.get("user", "")), team=str(answer.get("team", "")))

    def post(self, incident: Incident, to: Address, *, reconcile: bool) -> Receipt:
        """Post the incident's message and return where it stands.

        With `reconcile` the channel's newest messages are searched first, and a message that
        already stands for the incident is brought up to date instead. `Receipt.blind` says that
        they could not be read, again and again: then it may stand twice. The picture follows.

        Raises:
            PagerError: Slack did not take it; with `retry`, come again with `reconcile`.
        """
        look = partial(self._in_channel, to.channel, incident.id) if reconcile else None
        receipt, blind = self._looked(f"{incident.id} in {to.channel}", look)
        if receipt is not None:
            return self.update(incident, receipt)
        carried = metadata_of(incident, blind=blind)
        if to.mention:
            carried["event_payload"]["mention"] = to.mention
        ways = (blocks.message(incident, to),)
        answer = self._posted(to.channel, ways, metadata=carried)
        receipt = Receipt(channel=answer["channel"], ts=answer["ts"], blind=blind)
        standing = self._messages.of(receipt)
        with standing.lock:
            standing.at, standing.mention, standing.read = newest(incident), to.mention, True
        self._illustrate(standing, incident, ours=True)
        return receipt

    def update(self, incident: Incident, receipt: Receipt) -> Receipt:
        """Let the message at `receipt` show the incident as it is now; harmless when repeated.

        A message that already shows something later is left alone.

        Raises:
            PagerError: Slack did not take it. `gone` says that somebody deleted the message.
        """
        standing = self._messages.of(receipt)
        with standing.lock:
            if not standing.read or _lacks_picture(standing, incident):
                self._read(standing)
            if standing.at is not None and standing.at > newest(incident):
                return receipt
            standing.incident = incident
            self._show(standing)
        self._illustrate(standing, incident, ours=False)
        return receipt

    def reply(self, entry: Entry, receipt: Receipt, *, reconcile: bool) -> None:
        """Write into the thread of `receipt`; with `reconcile` unless `entry.key` is there.

        Raises:
            PagerError: Slack did not take it; with `retry`, come again with `reconcile`.
        """
        look = partial(self._in_thread, receipt, entry.key) if reconcile else None
        found, blind = self._looked(entry.key, look)
        if found is not None:
            return
        self._posted(
            receipt.channel,
            (blocks.entry(entry),),
            metadata=metadata_of(entry, blind=blind),
            thread_ts=receipt.ts,
            **({"reply_broadcast": True} if entry.broadcast else {}),
        )

    def summarize(self, digest: Digest, to: Address, *, reconcile: bool) -> Receipt:
        """Post a digest and return where it stands; with `reconcile` look for it first.

        Raises:
            PagerError: Slack did not take it; with `retry`, come again with `reconcile`.
        """
        look = partial(self._in_channel, to.channel, digest.key) if reconcile else None
        found, blind = self._looked(f"{digest.key} in {to.channel}", look)
        if found is not None:
            return found
        ways = (blocks.summary(digest, to),)
        answer = self._posted(to.channel, ways, metadata=metadata_of(digest, blind=blind))
        return Receipt(channel=answer["channel"], ts=answer["ts"], blind=blind)

    def members(self, group: str) -> frozenset[str]:
        """Return the ids of the users in a user group, as it was within the last minute.

        Raises:
            PagerError: it cannot be asked.
        """
        return self._people.members(group)

    def name(self, user: str) -> str:
        """Return what a user is called; the id itself where that cannot be told."""
        return self._people.name(user)

    def settle(self, timeout: float) -> bool:
        """Wait until every picture is where it belongs; False if that takes longer."""
        return self._pictures.settle(timeout)

    # -- writing ---------------------------------------------------------------------------

    def _posted(
        self,
        channel: str,
        ways: Sequence[tuple[str, list[Block]]],
        **asked: Any,  # noqa: ANN401 - what Slack takes
    ) -> "SlackResponse":
        place = self._ids.get(channel, channel)
        try:
            answer = _in_some_way(partial(self._slack.post, place, **asked), channel, ways)
        except Refused as refused:
            if refused.code == "channel_not_found":
                # There may be another of its name by now.
                self._ids.pop(channel, None)
            raise
        self._name(channel, answer["channel"])
        return answer

    def _name(self, channel: str, place: str) -> None:
        if channel != place:
            self._ids[channel], self._slack.names[place] = place, channel

    def _show(self, standing: Standing, *, strictly: bool = False) -> None:
        """Bring a message to what it should show, `strictly` in no plainer way."""
        incident, receipt = standing.incident, standing.receipt
        if incident is None:
            return
        to = Address(channel=receipt.channel, mention=standing.mention)
        ways = [blocks.message(incident, to)]
        if standing.image is not None:
            ways.insert(0, blocks.message(incident, to, picture=standing.image))
        send = partial(
            self._slack.ask,
            "chat_update",
            where=receipt.channel,
            channel=receipt.channel,
            ts=receipt.ts,
            metadata=standing.metadata,
        )
        if strictly:
            text, shown = ways[0]
            send(text=text, blocks=shown)
        else:
            _in_some_way(send, receipt.channel, ways)
        standing.at = newest(incident)

    def _illustrate(self, standing: Standing, incident: Incident, *, ours: bool) -> None:
        """See to it that the message has the incident's picture, some time soon."""
        with standing.lock:
            if standing.incident is None or newest(standing.incident) <= newest(incident):
                standing.incident = incident
            if _lacks_picture(standing, incident):
                self._pictures.add(standing, ours=ours)

    # -- reading ---------------------------------------------------------------------------

    def _looked(self, key: str, look: _Look | None) -> tuple[Receipt | None, bool]:
        """Return what stands under `key`, and whether nobody could find out.

        Raises:
            PagerError: it could not be read this time.
        """
        if look is None:
            return None, False
        try:
            found = look()
        except PagerError as error:
            if error.gone:
                raise
            self._unread[key] = tries = self._unread.get(key, 0) + 1
            refused = isinstance(error, Refused) and error.code in _SCOPES
            away = error.away and not refused
            if tries < (TRIES_REFUSED if refused else TRIES_AWAY if away else TRIES):
                raise PagerError(
                    f"whether {key} stands already cannot be read: {error.what}",
                    where=error.where,
                    hint=error.hint,
                    retry=True,
                    away=away,
                    after=error.after,
                ) from error
            _log.error("%s is posted unseen, and may stand twice: %s", key, error)
            found, blind = None, True
        else:
            blind = False
        self._unread.pop(key, None)
        return found, blind

    def _in_channel(self, channel: str, key: str) -> Receipt | None:
        place = self._channel_id(channel)
        if place is None:
            return None
        found = self._search("conversations_history", key, where=channel, most=PAGES, channel=place)
        if found is None:
            return None
        payload = payload_of(found)
        receipt = Receipt(channel=place, ts=found["ts"], blind=bool(payload.get("blind")))
        _learn(self._messages.of(receipt), payload)
        return receipt

    def _in_thread(self, receipt: Receipt, key: str) -> Receipt | None:
        found = self._search(
            "conversations_replies",
            key,
            where=receipt.channel,
            most=_PAGES_OF_THREAD,
            channel=receipt.channel,
            ts=receipt.ts,
        )
        return None if found is None else Receipt(channel=receipt.channel, ts=found["ts"])

    def _search(
        self,
        method: str,
        key: str,
        *,
        where: str,
        most: int,
        **asked: Any,  # noqa: ANN401 - what Slack takes
    ) -> _Message | None:
        pages = self._slack.pages(
            method, where=where, most=most, include_all_metadata=True, **asked
        )
        messages: Iterator[_Message] = (one for page in pages for one in page["messages"])
        return next((one for one in messages if payload_of(one).get("key") == key), None)

    def _channel_id(self, channel: str) -> str | None:
        if not channel.startswith("#"):
            return channel
        if channel not in self._ids:
            pages = self._slack.pages(
                "conversations_list",
                where=channel,
                most=None,
                exclude_archived=True,
                types="public_channel,private_channel",
            )
            for page in pages:
                for one in page["channels"]:
                    self._name(f"#{one['name']}", one["id"])
        return self._ids.get(channel)

    def _read(self, standing: Standing) -> None:
        """Learn what Slack knows of a message; what cannot be read stays as it was.

        Raises:
            PagerError: it is gone.
        """
        receipt = standing.receipt
        try:
            page = self._slack.ask(
                "conversations_replies",
                where=receipt.channel,
                patient=False,
                channel=receipt.channel,
                ts=receipt.ts,
                limit=1,
                include_all_metadata=True,
            )
        except PagerError as error:
            if error.gone:
                raise
            _log.debug("%s could not be read: %s", receipt.ts, error)
            return
        messages = page.get("messages") or [{}]
        _learn(standing, payload_of(messages[0]))


def _in_some_way(
    send: Callable[..., "SlackResponse"], where: str, ways: Sequence[tuple[str, list[Block]]]
) -> "SlackResponse":
    """Send what is told in the first way that Slack takes: a page is not lost for its looks."""
    text, _ = ways[-1]
    for said, shown in [*ways, (text, []), (text[:_SHORT], [])]:
        try:
            return send(text=said, blocks=shown)
        except Refused as refused:
            if refused.code not in _LOOKS:
                raise
            _log.error("%s: %s; it is told more plainly: %s", where, refused, refused.said)
            last = refused
    raise last


def _learn(standing: Standing, payload: Mapping[str, Any]) -> None:
    with standing.lock:
        standing.read = True
        standing.at = told_at(payload) or standing.at
        standing.mention = str(payload.get("mention") or standing.mention)
        standing.picture = payload.get("picture") or standing.picture


def _lacks_picture(standing: Standing, incident: Incident) -> bool:
    return standing.picture is None and not standing.tried and illustrated(incident) is not None
