"""The judge on the past: what another policy would have decided on the same readings. Pure.

Nothing is measured, trained or told again: champions and causes are those that were found, and
what a policy orders is counted. `relive` does it from the rows, candidates trained and answering.
"""

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import groupby

import msgspec

from driftloop.errors import BadRequest
from driftloop.judge import can_page, decide, explains, heeded, rates, worsening
from driftloop.loop.watch import ordered
from driftloop.ports import Ledger
from driftloop.records import (
    Decided,
    Decision,
    Explained,
    Head,
    Kind,
    Measured,
    ModelHistory,
    ModelId,
    Moved,
    Order,
    Ordered,
    Reading,
    Trained,
    Window,
    version_key,
)
from driftloop.spec import Family, Fleet

REMEMBERED = 20
"""How many decisions and orders of a model a decision may look back on, as in the ledger."""
FIXED = (
    ("window", ("span", "cadence", "block")),
    ("drift", ("numeric", "categorical")),
    ("decay", ("metric",)),
)
"""What a reading was made by: another policy of these needs other readings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one policy came to.

    `worse` is by what share of its baseline the judged metric was worse, on average over all looks
    that could tell; `delays` is how long after its first alarm each incident was paged. `digest`
    is the SHA-256 of all decisions, in their order.
    """

    decisions: int
    pages: tuple[Decision, ...]
    retrains: tuple[Decision, ...]
    worse: float | None
    digest: str

    @property
    def delay(self) -> timedelta | None:
        """The median time from the first alarm to the page; None without a page."""
        told = sorted(page.at - (page.since or page.at) for page in self.pages)
        return told[len(told) // 2] if told else None


@dataclass(slots=True)
class Tally:
    """Adds decisions up to an `Outcome`."""

    _digest: "hashlib._Hash" = field(default_factory=hashlib.sha256)
    _decisions: int = 0
    _pages: list[Decision] = field(default_factory=list)
    _retrains: list[Decision] = field(default_factory=list)
    _worse: float = 0.0
    _told: int = 0

    def add(self, decision: Decision, readings: Sequence[Reading], family: Family) -> None:
        """Count a decision and what it rests on."""
        self._digest.update(msgspec.json.encode(decision))
        self._decisions += 1
        if decision.opens:
            self._pages.append(decision)
        if decision.retrain:
            self._retrains.append(decision)
        if (worse := _worse(readings, family)) is not None:
            self._worse += worse
            self._told += 1

    @property
    def outcome(self) -> Outcome:
        """All that was added."""
        return Outcome(
            decisions=self._decisions,
            pages=tuple(self._pages),
            retrains=tuple(self._retrains),
            worse=self._worse / self._told if self._told else None,
            digest=self._digest.hexdigest(),
        )


def replayed(fleet: Fleet, ledger: Ledger, *, start: datetime, end: datetime) -> Outcome:
    """Return what the policies of `fleet` come to on the readings kept from `start` to `end`.

    The same readings and policies give the same decisions, to the byte.

    Raises:
        BadRequest: nothing was measured in that time.
    """
    families = {model: family for family in fleet.families for model in family.models}
    lives = {model: _Life.of(model, ledger, start) for model in families}
    tally = Tally()
    for at, looks in _passes(ledger, start, end):
        pasts = {model: life.at(at) for model, life in lives.items()}
        shares = rates(fleet, [m for m, past in pasts.items() if can_page(families[m], past)])
        for look in looks:
            if (family := families.get(look.model)) is None:
                continue
            decision = decide(
                family=family,
                window=look.window,
                readings=look.readings,
                history=pasts[look.model],
                now=at,
                rate=shares[look.model],
            )
            decision = lives[look.model].heeding(decision)
            order = ordered(family, decision) if decision.retrain else None
            lives[look.model].add(decision, order)
            tally.add(decision, look.readings, family)
    outcome = tally.outcome
    if not outcome.decisions:
        raise BadRequest(
            f"no reading is kept from {start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC",
            where="replay",
            hint="retention.measured says how long readings are kept; --rows reads the log instead",
        )
    return outcome


def refuse_other_readings(now: Fleet, then: Fleet, *, where: str) -> None:
    """Refuse a policy that the readings which are kept cannot tell of.

    Raises:
        BadRequest: it says otherwise what a reading is made of.
    """
    for before, family in zip(now.families, then.families, strict=True):
        for table, keys in FIXED:
            for key in keys:
                old, new = (getattr(getattr(f, table), key, None) for f in (before, family))
                if old != new:
                    raise BadRequest(
                        f"{family.name} has other readings where {table}.{key} is {_said(new)}"
                        f" and not {_said(old)}",
                        where=where,
                        hint="--rows makes them anew",
                    )


# -- the past -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Look:
    model: ModelId
    at: datetime
    window: Window
    readings: tuple[Reading, ...]


def _passes(
    ledger: Ledger, start: datetime, end: datetime
) -> Iterator[tuple[datetime, Iterable[_Look]]]:
    looks = (_look(fact) for fact in ledger.passes(start, end))
    return groupby(looks, key=lambda look: look.at)


def _look(fact: Measured | Decided) -> _Look:
    if isinstance(fact, Measured):
        return _Look(fact.model, fact.at, fact.window, fact.readings)
    decision = fact.decision
    readings = tuple(verdict.reading for verdict in decision.verdicts)
    return _Look(fact.model, fact.at, decision.window, readings)


@dataclass(slots=True)
class _Life:
    """A model's past as the ledger has it before the replay, and as the replay goes on."""

    decisions: deque[Decision]
    orders: deque[Order]
    moves: tuple[Moved, ...]
    trained: Mapping[int, Trained]
    causes: tuple[Explained, ...]

    @classmethod
    def of(cls, model: ModelId, ledger: Ledger, start: datetime) -> "_Life":
        decided = ledger.facts(Decided, model=model, before=start, last=REMEMBERED)
        begun = ledger.facts(Ordered, model=model, before=start, last=REMEMBERED)
        moves = ledger.facts(Moved, model=model)
        made = {
            move.head.version: ledger.fact(Trained, key=version_key(model, move.head.version))
            for move in moves
        }
        return cls(
            deque((fact.decision for fact in decided), REMEMBERED),
            deque((fact.order for fact in begun), REMEMBERED),
            moves,
            {version: fact for version, fact in made.items() if fact is not None},
            ledger.facts(Explained, model=model),
        )

    def at(self, now: datetime) -> ModelHistory:
        moves = tuple(move for move in self.moves if move.at <= now)
        head: Head | None = moves[-1].head if moves else None
        return ModelHistory(
            decisions=tuple(self.decisions),
            orders=tuple(self.orders),
            moves=moves,
            champion=None if head is None else self.trained.get(head.version),
            head=head,
        )

    def heeding(self, decision: Decision) -> Decision:
        """Return what the cause leaves of a decision; it is known where the loop looked for it."""
        if not explains(decision, self.decisions[-1] if self.decisions else None):
            return decision
        known = [fact.cause for fact in self.causes if fact.at <= decision.at]
        return heeded(decision, known[-1]) if known else decision

    def add(self, decision: Decision, order: Order | None) -> None:
        self.decisions.append(decision)
        if order is not None:
            self.orders.append(order)


def _worse(readings: Sequence[Reading], family: Family) -> float | None:
    if family.decay is None:
        return None
    for reading in readings:
        if (
            reading.kind is Kind.DECAY
            and reading.metric == family.decay.metric
            and reading.segment is None
        ):
            if reading.value is None or reading.baseline is None:
                return None
            return worsening(reading, reading.value, reading.baseline)[0]
    return None


def _said(value: object) -> str:
    return f"{value.total_seconds():g}s" if isinstance(value, timedelta) else repr(value)
