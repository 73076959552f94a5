"""Tell a notice once: it is noted, and Slack is brought to what the notes say."""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from driftloop.errors import LedgerError, named
from driftloop.incident import explainer
from driftloop.loop.noting import Noter
from driftloop.loop.pauses import Pauses
from driftloop.loop.settle import Settled, Settler, Told
from driftloop.loop.standing import Standing, noted
from driftloop.ports import Clock, Ledger, Pager
from driftloop.records import PLATFORM, Incident, ModelId, Notice, Paged, Rollout
from driftloop.spec import Fleet

BROKEN = 60.0
"""Wall seconds after which an incident is tried again that a fault of ours kept from being told."""
LONGEST = 60.0
"""Wall seconds after which a look ends though more is to be told: the next goes on."""
_log = logging.getLogger(__name__)

__all__ = ["Teller", "Told", "noted"]


@dataclass(slots=True)
class _Known:
    """A live incident: how it stood when it was looked at last, and when to look again.

    `again` and `looked`, when that was, are of the wall clock.
    """

    incident: Incident
    explained_by: str | None = None
    due: datetime | None = None
    again: float | None = None
    looked: float = 0.0

    def is_due(self, now: datetime, wall: float) -> bool:
        """Say whether to look at it; a wall clock that was put back keeps nothing waiting."""
        if self.due is not None and self.due <= now:
            return True
        return self.again is not None and not self.looked <= wall < self.again


@dataclass(slots=True)
class _Memory:
    """What a process remembers of live incidents, so that it looks only at what changed."""

    upto: int = -1
    known: dict[str, _Known] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass(frozen=True, slots=True, kw_only=True)
class Teller:
    """Tells notices through a pager, remembered in the ledger.

    Args:
        fleet: has the owners and the routes.
        ledger: what was noted, told and done.
        pager: a channel where owners read.
        clock: the loop's time.
        wall: seconds since 1970, for how long a pager is left in peace.
    """

    fleet: Fleet
    ledger: Ledger
    pager: Pager
    clock: Clock
    wall: Callable[[], float] = time.time
    _pauses: Pauses = field(default_factory=Pauses)
    _memory: _Memory = field(default_factory=_Memory)

    @property
    def standing(self) -> Standing:
        """What reads incidents as they stand."""
        return Standing(fleet=self.fleet, ledger=self.ledger)

    def tell(self, notice: Notice) -> Told:
        """Return what came of telling `notice`; never raises for the pager's trouble.

        What could not be told stays noted in the ledger: `tell_unsent` goes on from there, in
        this process or in another. So does what waits for others like it, or for quiet hours.
        """
        return self.tell_all((notice,))[0]

    def tell_all(self, notices: Sequence[Notice]) -> tuple[Told, ...]:
        """Return what came of each of `notices`, noted all before any is told: see `tell`."""
        if not notices:
            return ()
        before = self.ledger.appended(Paged, [notice.key for notice in notices])
        homes = self._noter.note(notices)
        settled = {home: self._settle(home) for home in dict.fromkeys(homes.values())}
        after = self.ledger.appended(Paged, [notice.key for notice in notices])
        return tuple(
            Told(
                notice,
                told=notice.key in after - before,
                why=_why(notice, before, after, homes, settled),
            )
            for notice in notices
        )

    def tell_unsent(self) -> tuple[Told, ...]:
        """Return what came of telling what waited, and of what time made due.

        It costs one look at what is new in the ledger where nothing is.
        """
        memory = self._memory
        with memory.lock:
            changes = self.ledger.changes(memory.upto)
            touched = set(changes.incidents)
            if memory.upto < 0:
                self._noter.take_up_old()
                touched |= set(self.standing.live_ids())
                touched |= {fact.incident for fact in self.ledger.untold()}
            touched |= {
                name
                for name, known in memory.known.items()
                if changes.models & set(known.incident.models)
            }
            self._refresh(touched)
            memory.upto = changes.upto
            told, until = list[Told](), time.monotonic() + LONGEST
            for name in self._due():
                if time.monotonic() < until:
                    told += self._settled(name)
            return tuple(told)

    def waiting(self) -> int:
        """Return how many notices are not told yet, for whatever reason."""
        return len(self.ledger.untold()) + len(self.ledger.live("early/"))

    @property
    def _noter(self) -> Noter:
        return Noter(standing=self.standing, ledger=self.ledger, clock=self.clock)

    @property
    def _settler(self) -> Settler:
        return Settler(
            standing=self.standing,
            ledger=self.ledger,
            pager=self.pager,
            clock=self.clock,
            wall=self.wall,
            pauses=self._pauses,
        )

    def _settle(self, name: str) -> Settled:
        try:
            return self._settler.settle(name)
        except LedgerError:
            raise
        except Exception as error:  # noqa: BLE001 - the others are told all the same
            _log.exception("telling %s broke", name, extra={"trace": name})
            return Settled(again=self.wall() + BROKEN, why=f"it broke on {named(error)}")

    def _refresh(self, touched: Iterable[str]) -> None:
        """Read again what changed, and find which incident explains which."""
        known, now = self._memory.known, self.clock.now()
        names = list(touched)
        rollouts: Mapping[ModelId, Rollout] = (
            {each.model: each for each in self.ledger.rollouts()} if names else {}
        )
        begun: set[str] = set()
        for name in names:
            found = self.standing.folded(self.ledger.incident(name), now, rollouts)
            if found is None:
                continue
            if found.told is not None and (name not in known or known[name].incident.told is None):
                begun.add(name)
            known[name] = _Known(found, due=now)
        if not names:
            return
        near: dict[str, list[Incident]] = {}
        for each in known.values():
            for model in each.incident.models:
                near.setdefault(model, []).append(each.incident)
        for each in known.values():
            left = [m.model for m in each.incident.members if m.over is None]
            others = [*near.get(left[0] if left else "", ()), *near.get(PLATFORM, ())]
            by = explainer(each.incident, others)
            # What was explained by one that did not stand yet is told with it once it does.
            if by != each.explained_by or by in begun:
                each.explained_by, each.due = by, now

    def _due(self) -> list[str]:
        now, wall, known = self.clock.now(), self.wall(), self._memory.known
        due = [name for name, each in known.items() if each.is_due(now, wall)]
        return sorted(due, key=lambda name: (known[name].incident.opened, name))

    def _settled(self, name: str) -> tuple[Told, ...]:
        found, known = self._settle(name), self._memory.known
        if found.again is None and (found.incident is None or found.is_over):
            known.pop(name, None)
        elif (mine := known.get(name)) is not None:
            mine.due, mine.again, mine.looked = found.due, found.again, self.wall()
        return found.told


def _why(
    notice: Notice,
    before: frozenset[str],
    after: frozenset[str],
    homes: Mapping[str, str],
    settled: Mapping[str, Settled],
) -> str:
    if notice.key in before:
        return "told before"
    if notice.key in after:
        return "told"
    home = homes.get(notice.key)
    return settled[home].why if home is not None else "what came before it is not told yet"
