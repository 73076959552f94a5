"""When Slack is out of reach for long: incidents are told the second way, and that is said."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from driftloop.errors import PagerError
from driftloop.incident import NEEDS_A_PERSON
from driftloop.incident.unreached import OF_OUTAGE, outage, reached, relayed, unreached, why
from driftloop.loop.standing import INCIDENT
from driftloop.loop.tell import Teller
from driftloop.ports import Clock, Ledger, SecondWay
from driftloop.records import PLATFORM, Fact, Incident, Relayed, Status, Unsent
from driftloop.route import platform_owner
from driftloop.spec import Owner

LEASE = timedelta(seconds=60)
"""What could not be told is tried again so much later; longer than any way takes to give up."""
PREFIX = "relay/"
NEWEST = 1000
"""So many of the newest that could not be told at first are looked at."""
LONGEST = 60.0
"""Wall seconds after which a round ends; what is left comes in the next."""
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Memory:
    """What one process need not find out again."""

    over: set[tuple[str, str]] = field(default_factory=set)
    rests: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Relay:
    """Tells the second way what could not be told in Slack for `down` wall seconds.

    `ways` may be none: then the platform's owner is told of the outage alone, once it is over.
    """

    ledger: Ledger
    clock: Clock
    teller: Teller
    ways: Sequence[SecondWay]
    down: float
    wall: Callable[[], float] = time.time
    memory: Memory = field(default_factory=Memory)

    def relay(self) -> tuple[Relayed, ...]:
        """Return what was told another way now; cheap where there is nothing, as is usual.

        Each incident is told once by each way that reaches its owner. A process that dies
        between sending and recording may send again: a way gives what is the same the same id.
        """
        now = self.wall()
        known = self._known()
        waiting = unreached(_every(known), wall=now, down=0.0)
        self._forget(known, waiting)
        late = [each for each in waiting if now - each.wall >= self.down]
        found = [*self._outage(known, waiting, late)]
        for each in late:
            if self.wall() - now < LONGEST:
                found += self._told(known[each.incident], each)
        return tuple(found)

    def late(self) -> tuple[str, ...]:
        """Return the incidents that could not be told for longer than Slack may be away."""
        late = unreached(_every(self._known()), wall=self.wall(), down=self.down)
        return tuple(dict.fromkeys(each.incident for each in late))

    def _known(self) -> dict[str, tuple[Fact, ...]]:
        """Return the facts of incidents that are not over and could not be told at first."""
        newest = self.ledger.facts(Unsent, last=NEWEST)
        if not newest:
            return {}
        live = {key.removeprefix(INCIDENT) for key, _ in self.ledger.live(INCIDENT)}
        failed = {each.incident for each in newest if _key(each) not in self.memory.over}
        asked = sorted(each for each in live if each in failed or each.startswith(OF_OUTAGE))
        return {incident: self.ledger.incident(incident) for incident in asked}

    def _forget(self, known: Mapping[str, Sequence[Fact]], waiting: Sequence[Unsent]) -> None:
        left = {_key(each) for each in waiting}
        failed = {_key(each) for each in _every(known) if isinstance(each, Unsent)}
        self.memory.over |= failed - left

    def _outage(
        self,
        known: Mapping[str, Sequence[Fact]],
        waiting: Sequence[Unsent],
        late: Sequence[Unsent],
    ) -> Iterator[Relayed]:
        """Tell the platform's owner of an outage once, and of its end."""
        fleet = self.teller.fleet
        name = platform_owner(fleet)
        owner = fleet.owners.get(name)
        if owner is None:
            return
        open_ones = [each for each in known if each.startswith(OF_OUTAGE)]
        away = [each for each in waiting if each.away and not each.incident.startswith(OF_OUTAGE)]
        if not open_ones and (lasts := [each for each in late if each in away]):
            notice = outage(lasts, owner, name, now=self.clock.now())
            self.teller.tell(notice)
            open_ones = [notice.incident]
        for each in open_ones:
            facts = known.get(each) or self.ledger.incident(each)
            if away:
                yield from self._told(facts, _of_outage(each, owner, away[0], self.wall()))
            else:
                self._over(facts)

    def _over(self, facts: Sequence[Fact]) -> None:
        incident = self._stands(facts)
        if incident is None or incident.status is Status.RESOLVED:
            return
        # An outage is found late: what waited since it began was noted before it.
        waited = self.ledger.facts(Unsent, since=incident.since)
        told = self.ledger.facts(Relayed, since=incident.since)
        self.teller.tell(reached(incident, waited, told, now=self.clock.now()))

    def _told(self, facts: Sequence[Fact], unsent: Unsent) -> Iterator[Relayed]:
        """Yield what was told by each way that reaches who should have read it in the channel."""
        if not unreached((*facts, unsent), wall=self.wall(), down=0.0):
            return
        incident = self._stands(facts)
        if incident is None or not _is_to_be_told(incident):
            return
        owners = self.teller.standing.told_to(incident)
        owner = next((each for each in owners if each.channel == unsent.channel), None)
        for way in self.ways:
            to = way.reaches(owner) if owner is not None else ""
            if owner is None or not to or self.wall() < self.memory.rests.get(way.name, 0.0):
                continue
            key = f"{incident.id}/{unsent.channel}/{way.name}"
            if not self.ledger.claim(f"{PREFIX}{key}", lease=LEASE).mine:
                continue
            said = why(unsent, of=self._called_next(incident, owner))
            try:
                way.send(incident, owner, why=said)
            except PagerError as error:
                # Not given back: the claim's end is when it is tried again.
                _log.error("not told by %s: %s", way.name, error, extra={"trace": incident.id})
                if error.away:
                    self.memory.rests[way.name] = self.wall() + LEASE.total_seconds()
                continue
            yield self._recorded(incident, unsent, key=key, way=way.name, to=to, said=said)

    def _called_next(self, incident: Incident, owner: Owner) -> str:
        """Return whose incident it is, where `owner` is called as nobody acknowledged it."""
        theirs = self.teller.fleet.owners.get(incident.owner)
        mine = theirs is not None and theirs.channel == owner.channel
        return "" if mine or not incident.level else incident.owner

    def _recorded(
        self, incident: Incident, unsent: Unsent, *, key: str, said: str, way: str, to: str
    ) -> Relayed:
        fact = Relayed(
            model=unsent.model,
            at=self.clock.now(),
            incident=incident.id,
            way=way,
            to=to,
            why=said,
        )
        self.ledger.append(fact, key=key)
        self.ledger.finish(f"{PREFIX}{key}", "told")
        _log.info("told by %s: %s", way, to, extra={"trace": incident.id})
        self.teller.tell(relayed(incident, unsent, fact))
        return fact

    def _stands(self, facts: Sequence[Fact]) -> Incident | None:
        return self.teller.standing.of(facts, self.clock.now())


def _is_to_be_told(incident: Incident) -> bool:
    """Say whether it is open, or began as what is over at once and needs somebody all the same.

    That is a rollout that was rolled back.
    """
    if incident.status is Status.RESOLVED and not incident.acts:
        newest = max(incident.members, key=lambda member: member.at)
        return newest.over is not None and newest.stage in NEEDS_A_PERSON
    return incident.status is Status.OPEN


def _every(known: Mapping[str, Sequence[Fact]]) -> list[Fact]:
    return [fact for facts in known.values() for fact in facts]


def _key(unsent: Unsent) -> tuple[str, str]:
    return unsent.incident, unsent.channel


def _of_outage(incident: str, owner: Owner, first: Unsent, wall: float) -> Unsent:
    """Return that an outage could not be told: by its nature it cannot."""
    return Unsent(
        model=PLATFORM,
        at=first.at,
        incident=incident,
        channel=owner.channel,
        error=first.error,
        away=True,
        wall=wall,
    )
