"""A pager in memory, for tests of the loop; held to the same promises as Slack's."""

from dataclasses import dataclass, field

from driftloop.errors import PagerError
from driftloop.incident import OF_TELLING, turn
from driftloop.records import Address, Digest, Entry, Incident, Notice, Receipt


@dataclass
class Told:
    """One incident's message: as it was posted, as it is now, and its thread."""

    receipt: Receipt
    to: Address
    posted: Incident
    incident: Incident
    entries: list[Entry] = field(default_factory=list)

    @property
    def opened(self) -> Notice:
        """The notice that it was opened with."""
        return self.posted.notices[0]

    @property
    def shown(self) -> Notice:
        """The newest notice about a model that it shows."""
        about = [each for each in self.incident.notices if each.stage not in OF_TELLING]
        return max(about, key=turn)

    @property
    def thread(self) -> list[Notice]:
        """The notices in its thread."""
        return [notice for entry in self.entries for notice in entry.notices]


@dataclass
class FakePager:
    """Keeps what it is told in `told`, and digests; a channel that has no "#name" is unknown.

    The next `lose_reply` writes are kept but answered with an error; the next `refuse` calls
    are refused and nothing is kept, all of them while it is `away`; the next `limit` calls would
    be waited for and count in `waited`. Channels in `archived` refuse for good.
    """

    told: list[Told] = field(default_factory=list)
    digests: list[tuple[Digest, Address]] = field(default_factory=list)
    archived: set[str] = field(default_factory=set)
    lose_reply: int = 0
    refuse: int = 0
    limit: int = 0
    waited: int = 0
    away: bool = False
    asked: int = 0
    deleted: int = 0

    def post(self, incident: Incident, to: Address, *, reconcile: bool) -> Receipt:
        self._asked(to.channel)
        for message in self.told if reconcile else ():
            if (message.incident.id, message.to.channel) == (incident.id, to.channel):
                return message.receipt
        receipt = Receipt(channel=to.channel, ts=f"{len(self.told) + self.deleted + 1}")
        self.told.append(Told(receipt=receipt, to=to, posted=incident, incident=incident))
        self._written(to.channel)
        return receipt

    def update(self, incident: Incident, receipt: Receipt) -> Receipt:
        self._asked(receipt.channel)
        self._message(receipt).incident = incident
        return receipt

    def reply(self, entry: Entry, receipt: Receipt, *, reconcile: bool) -> None:
        self._asked(receipt.channel)
        message = self._message(receipt)
        if reconcile and any(one.key == entry.key for one in message.entries):
            return
        message.entries.append(entry)
        self._written(receipt.channel)

    def summarize(self, digest: Digest, to: Address, *, reconcile: bool) -> Receipt:
        self._asked(to.channel)
        receipt = Receipt(channel=to.channel, ts=f"digest-{digest.key}")
        if reconcile and any(one.key == digest.key for one, _ in self.digests):
            return receipt
        self.digests.append((digest, to))
        self._written(to.channel)
        return receipt

    def delete(self, message: Told) -> None:
        """Let a message be one that somebody deleted."""
        self.told.remove(message)
        self.deleted += 1

    def _message(self, receipt: Receipt) -> Told:
        found = [message for message in self.told if message.receipt == receipt]
        if not found:
            raise PagerError("no such message", where=receipt.channel, retry=False, gone=True)
        return found[0]

    def _asked(self, channel: str) -> None:
        self.asked += 1
        if self.away:
            raise PagerError("away on request", where=channel, retry=True, away=True)
        if not channel.startswith("#") or channel in self.archived:
            raise PagerError("unknown channel", where=channel, retry=False)
        if self.refuse:
            self.refuse -= 1
            raise PagerError("refused on request", where=channel, retry=True)
        if self.limit:
            self.limit -= 1
            self.waited += 1

    def _written(self, channel: str) -> None:
        if self.lose_reply:
            self.lose_reply -= 1
            raise PagerError("reply lost on request", where=channel, retry=True, lost=True)
