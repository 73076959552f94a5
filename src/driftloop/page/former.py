"""How a notice was told before incidents had messages of their own; nobody new calls it."""

from collections.abc import Iterator
from functools import partial
from typing import Any

from driftloop.page.asking import Line
from driftloop.page.blocks import opening, reply, updated
from driftloop.page.standing import EVENT, payload_of, told_at
from driftloop.records import Notice, Receipt

_PAGES = 5


class Former:
    """`open` and `follow` of a pager that has a `Line`."""

    _slack: Line

    def open(self, notice: Notice, *, reconcile: bool) -> Receipt:
        """Post the incident's message and return where it stands."""
        if reconcile and (standing := self._standing_of(notice)) is not None:
            return standing
        text, blocks = opening(notice)
        metadata = _metadata(notice, notice.incident)
        answer = self._slack.post(notice.channel, text=text, blocks=blocks, metadata=metadata)
        return Receipt(channel=answer["channel"], ts=answer["ts"])

    def follow(self, notice: Notice, receipt: Receipt, *, reconcile: bool) -> None:
        """Bring the incident's message up to date, then tell `notice` in its thread."""
        thread = self._read_all(
            "conversations_replies", notice.channel, channel=receipt.channel, ts=receipt.ts
        )
        main = next(thread)
        standing = main.get("blocks", [])
        shown = told_at(payload_of(main))
        if shown is None or shown <= notice.at:
            text, blocks = updated(notice, standing)
            self._slack.ask(
                "chat_update",
                where=notice.channel,
                channel=receipt.channel,
                ts=receipt.ts,
                text=text,
                blocks=blocks,
                metadata=_metadata(notice, notice.incident),
            )
        replies = (message for message in thread if message["ts"] != receipt.ts)
        if reconcile and any(payload_of(each).get("key") == notice.key for each in replies):
            return
        text, blocks = reply(notice, standing)
        metadata = _metadata(notice, notice.key)
        post = partial(self._slack.post, receipt.channel, thread_ts=receipt.ts)
        post(text=text, blocks=blocks, metadata=metadata)

    def _channel_id(self, channel: str) -> str | None:
        raise NotImplementedError

    def _standing_of(self, notice: Notice) -> Receipt | None:
        channel = self._channel_id(notice.channel)
        if channel is None:
            return None
        for message in self._read_all("conversations_history", notice.channel, channel=channel):
            if payload_of(message).get("key") == notice.incident:
                return Receipt(channel=channel, ts=message["ts"])
        return None

    def _read_all(self, method: str, where: str, **asked: Any) -> Iterator[dict[str, Any]]:  # noqa: ANN401 - what Slack takes
        for page in self._slack.pages(
            method, where=where, most=_PAGES, include_all_metadata=True, **asked
        ):
            yield from page["messages"]


def _metadata(notice: Notice, key: str) -> dict[str, Any]:
    told = {"key": key, "stage": notice.stage.value, "at": notice.at.isoformat()}
    return {"event_type": EVENT, "event_payload": told}
