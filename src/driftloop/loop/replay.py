"""The judge on the past: what another policy would have decided on the same readings. Pure.

Nothing is measured, trained or told again: champions and causes are those that were found, and
what a policy orders is counted. `relive` does it from the rows, candidates trained and answering.
"""

import hashlib
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

import msgspec

from driftloop.errors import BadRequest
from driftloop.judge import (
    can_page,
    decide,
    denied_pages,
    explains,
    heeded,
    is_decisive,
    rates,
    unlooked,
    worsening,
)
from driftloop.loop.watch import ordered
from driftloop.ports import Ledger
from driftloop.records import (
    REMEMBERED,
    Acted,
    Decided,
    Decision,
    Explained,
    Head,
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
    that could tell. `digest` is the SHA-256 of each model's decisions in their order, and of these.
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

    digests: "dict[ModelId, hashlib._Hash]" = field(default_factory=dict)
    decisions: int = 0
    pages: list[Decision] = field(default_factory=list)
    retrains: list[Decision] = field(default_factory=list)
    worse: float = 0.0
    told: int = 0

    def add(self, decision: Decision, readings: Sequence[Reading], family: Family) -> None:
        """Count a decision and what it rests on."""
        digest = self.digests.setdefault(decision.model, hashlib.sha256())
        digest.update(msgspec.json.encode(decision))
        self.decisions += 1
        if decision.opens:
            self.pages.append(decision)
        if decision.retrain:
            self.retrains.append(decision)
        if (worse := _worse(readings, family)) is not None:
            self.worse += worse
            self.told += 1

    @property
    def part(self) -> "Part":
        """All that was added, to be joined with what others added of other models."""
        return Part(
            digests={model: digest.hexdigest() for model, digest in self.digests.items()},
            decisions=self.decisions,
            pages=tuple(self.pages),
            retrains=tuple(self.retrains),
            worse=self.worse,
            told=self.told,
        )

    @property
    def outcome(self) -> Outcome:
        """All that was added."""
        return joined([self.part])


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What came of some of the models."""

    digests: Mapping[ModelId, str]
    decisions: int
    pages: tuple[Decision, ...]
    retrains: tuple[Decision, ...]
    worse: float
    told: int


def joined(parts: Sequence[Part]) -> Outcome:
    """Return what came of all models."""
    digests = {model: digest for part in parts for model, digest in part.digests.items()}
    whole = "".join(f"{model} {digests[model]}\n" for model in sorted(digests))
    told = sum(part.told for part in parts)
    return Outcome(
        decisions=sum(part.decisions for part in parts),
        pages=_by_time(page for part in parts for page in part.pages),
        retrains=_by_time(each for part in parts for each in part.retrains),
        worse=sum(part.worse for part in parts) / told if told else None,
        digest=hashlib.sha256(whole.encode()).hexdigest(),
    )


class Shard:
    """Some models of a fleet, gone through pass by pass; see `replayed`.

    Args:
        fleet: all of it: what one model may page depends on the others.
        models: those that are judged here.
        ledger: of the past.
        start: of the first pass.
        end: before it the last.
    """

    def __init__(
        self,
        fleet: Fleet,
        models: Sequence[ModelId],
        ledger: Ledger,
        *,
        start: datetime,
        end: datetime,
    ) -> None:
        """Read what the models' past was at the start."""
        self._fleet = fleet
        self._families = {model: fleet.family(model) for model in models}
        self._lives = {model: _Life.of(model, ledger, start) for model in models}
        self._looks = (_look(fact) for fact in ledger.passes(start, end, models))
        self._next = next(self._looks, None)
        self._acts = ledger.facts(Acted, before=end)
        self._pasts: dict[ModelId, ModelHistory] = {}
        self._tally = Tally()

    @property
    def at(self) -> datetime | None:
        """The time of the next pass in which one of its models was looked at; None after all."""
        return None if self._next is None else self._next.at

    def able(self, at: datetime) -> list[ModelId]:
        """Return the models that could page at a pass."""
        self._pasts = {model: life.at(at) for model, life in self._lives.items()}
        return [
            model for model, past in self._pasts.items() if can_page(self._families[model], past)
        ]

    def go(self, at: datetime, able: Collection[ModelId]) -> None:
        """Judge what was looked at in the pass at `at`, for which `able` was asked just before.

        `able` are all models of the fleet that could page then.
        """
        shares = rates(self._fleet, able, denied_pages(self._acts, at))
        while self._next is not None and self._next.at == at:
            look, self._next = self._next, next(self._looks, None)
            family, life = self._families[look.model], self._lives[look.model]
            decision = decide(
                family=family,
                window=look.window,
                readings=look.readings,
                history=self._pasts[look.model],
                now=at,
                rate=shares[look.model],
            )
            decision = life.heeding(decision)
            life.add(decision, ordered(family, decision) if decision.retrain else None)
            self._tally.add(decision, look.readings, family)

    @property
    def part(self) -> Part:
        """What has come of its models."""
        return self._tally.part


class Shards(Protocol):
    """Shards of one fleet, here or in processes of their own, each asked the same at once."""

    def at(self) -> Sequence[datetime | None]:
        """Return each one's next pass."""
        ...

    def able(self, at: datetime) -> Sequence[Sequence[ModelId]]:
        """Return which of each one's models can page."""
        ...

    def go(self, at: datetime, able: Collection[ModelId]) -> None:
        """Let each judge a pass."""
        ...

    def parts(self) -> Sequence[Part]:
        """Return what has come of each."""
        ...


@dataclass(frozen=True, slots=True)
class Alone:
    """One shard, in this process."""

    shard: Shard

    def at(self) -> Sequence[datetime | None]:
        """Return its next pass."""
        return [self.shard.at]

    def able(self, at: datetime) -> Sequence[Sequence[ModelId]]:
        """Return which of its models can page."""
        return [self.shard.able(at)]

    def go(self, at: datetime, able: Collection[ModelId]) -> None:
        """Let it judge a pass."""
        self.shard.go(at, able)

    def parts(self) -> Sequence[Part]:
        """Return what has come of it."""
        return [self.shard.part]


def replayed(shards: Shards) -> Outcome:
    """Return what policies come to on the readings that were kept, pass by pass.

    The same readings and policies give the same decisions, to the byte, in however many shards.

    Raises:
        BadRequest: nothing was measured in that time.
    """
    while (at := min((each for each in shards.at() if each is not None), default=None)) is not None:
        shards.go(at, [model for able in shards.able(at) for model in able])
    outcome = joined(shards.parts())
    if not outcome.decisions:
        raise BadRequest(
            "no reading of that time is kept",
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
        before = self.decisions[-1] if self.decisions else None
        if unlooked(decision) is not None or not explains(decision, before):
            return decision
        known = [fact.cause for fact in self.causes if fact.at <= decision.at]
        return heeded(decision, known[-1]) if known else decision

    def add(self, decision: Decision, order: Order | None) -> None:
        self.decisions.append(decision)
        if order is not None:
            self.orders.append(order)


def _by_time(decisions: Iterable[Decision]) -> tuple[Decision, ...]:
    return tuple(sorted(decisions, key=lambda each: (each.at, each.model)))


def _worse(readings: Sequence[Reading], family: Family) -> float | None:
    if family.decay is None:
        return None
    for reading in readings:
        if is_decisive(reading, family):
            if reading.value is None or reading.baseline is None:
                return None
            return worsening(reading, reading.value, reading.baseline)[0]
    return None


def _said(value: object) -> str:
    return f"{value.total_seconds():g}s" if isinstance(value, timedelta) else repr(value)
