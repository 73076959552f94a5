"""A pager in memory, for tests of the loop; held to the same promises as Slack's."""

from dataclasses import dataclass, field

from driftloop.errors import PagerError
from driftloop.records import Notice, Receipt


@dataclass
class Told:
    """One incident's message: the notice that opened it, the one it shows now, its thread."""

    receipt: Receipt
    opened: Notice
    shown: Notice
    thread: list[Notice] = field(default_factory=list)


@dataclass
class FakePager:
    """Keeps what it is told in `told`; a channel that has no "#name" is unknown.

    The next `lose_reply` writes are kept but answered with an error; the next `refuse` calls
    are refused and nothing is kept; the next `limit` calls would be waited for and count in
    `waited`.
    """

    told: list[Told] = field(default_factory=list)
    lose_reply: int = 0
    refuse: int = 0
    limit: int = 0
    waited: int = 0

    def open(self, notice: Notice, *, reconcile: bool) -> Receipt:
        self._asked(notice)
        for message in self.told if reconcile else ():
            if message.opened.incident == notice.incident:
                return message.receipt
        receipt = Receipt(channel=notice.channel, ts=f"{len(self.told) + 1}")
        self.told.append(Told(receipt=receipt, opened=notice, shown=notice))
        self._written(notice)
        return receipt

    def follow(self, notice: Notice, receipt: Receipt, *, reconcile: bool) -> None:
        self._asked(notice)
        found = [message for message in self.told if message.receipt == receipt]
        if not found:
            raise PagerError("no such message", where=notice.channel, retry=False)
        (message,) = found
        if message.shown.at <= notice.at:
            message.shown = notice
        if reconcile and any(one.key == notice.key for one in message.thread):
            return
        message.thread.append(notice)
        self._written(notice)

    def _asked(self, notice: Notice) -> None:
        if not notice.channel.startswith("#"):
            raise PagerError("unknown channel", where=notice.channel, retry=False)
        if self.refuse:
            self.refuse -= 1
            raise PagerError("refused on request", where=notice.channel, retry=True)
        if self.limit:
            self.limit -= 1
            self.waited += 1

    def _written(self, notice: Notice) -> None:
        if self.lose_reply:
            self.lose_reply -= 1
            raise PagerError("reply lost on request", where=notice.channel, retry=True)
