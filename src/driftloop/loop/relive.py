"""The whole loop on the past, from the rows: measured again, trained again, answered again.

Champions that the replay makes answer, in its log, what they would have been asked: their
answers are put in the place of those that were given. Nobody is told, and nothing is handed over.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from driftloop.errors import BadRequest
from driftloop.loop.renew import Renewer
from driftloop.loop.replay import Outcome, Tally
from driftloop.loop.watch import Watcher
from driftloop.ports import Ledger, Look, PredictionLog
from driftloop.records import (
    REMEMBERED,
    Address,
    Candidate,
    Decided,
    Digest,
    Entry,
    Explained,
    Gated,
    GateResult,
    Head,
    Incident,
    LogSummary,
    Measured,
    ModelId,
    Moved,
    Order,
    Ordered,
    Partition,
    Quarantined,
    Receipt,
    Released,
    Trained,
    Window,
    version_key,
)
from driftloop.spec import Family, Fleet

KNOWN: Sequence[tuple[type[Any], Callable[[Any], str | None], int | None]] = (
    (Moved, lambda fact: f"{fact.model}#{fact.head.epoch}", None),
    (Trained, lambda fact: version_key(fact.model, fact.version), None),
    (Gated, lambda fact: str(fact.order_key), None),
    (Decided, lambda fact: str(fact.decision.key), REMEMBERED),
    (Ordered, lambda fact: str(fact.order.key), REMEMBERED),
    (Explained, lambda fact: str(fact.decision), None),
    (Quarantined, lambda _: None, None),
    (Released, lambda _: None, None),
)
"""The facts that a replay begins with, the keys they are kept under, and how many of a model's."""
Answer = Callable[[Head, Family, pa.Table], Sequence[float]]
"""What a version answers to some rows."""


@dataclass(slots=True)
class Stepped:
    """A clock that shows what the replay sets; implements `ports.Clock`."""

    shown: datetime

    def now(self) -> datetime:
        """Return the time that the replay has come to."""
        return self.shown


@dataclass(slots=True)
class RelivedLog:
    """A log as it would be, had the champions of `ledger` answered; see `ports.PredictionLog`.

    Rows that arrived since `start` are answered by who is champion in `ledger` when they did.
    Nothing is known that arrives after the `clock`.
    """

    log: PredictionLog
    ledger: Ledger
    clock: Stepped
    start: datetime
    answer: Answer

    def rows(self, family: Family, window: Window) -> pa.Table:
        """Return one row for each id; see `ports.PredictionLog`."""
        if window.version is not None:
            raise ValueError("a replay reads windows of all versions")
        return self._answered(family, window.model, self.log.rows(family, window))

    def sample(self, family: Family, window: Window) -> tuple[pa.Table, int]:
        """Return rows, or a part of them if they are many; see `ports.PredictionLog`."""
        rows, of = self.log.sample(family, window)
        return self._answered(family, window.model, rows), of

    def summary(self, family: Family, window: Window) -> LogSummary:
        """Return counts over the window's rows; see `ports.PredictionLog`."""
        return self.log.summary(family, window)

    def looks(self, family: Family, windows: Sequence[Window]) -> Iterator[tuple[ModelId, Look]]:
        """Yield `rows` and `summary` of many models; see `ports.PredictionLog`."""
        for model, look in self.log.looks(family, windows):
            if look.fault is not None or not look.rows.num_rows:
                yield model, look
                continue
            if not isinstance(look.rows, pa.Table):
                raise BadRequest(
                    f"a window of {look.rows.num_rows} rows cannot be answered again",
                    where=model,
                    hint="replay from the kept readings, without --rows",
                )
            yield model, replace(look, rows=self._answered(family, model, look.rows))

    def partitions(
        self, family: Family, windows: Sequence[Window]
    ) -> Mapping[ModelId, Sequence[Partition]]:
        """Return the partitions of many models, counted; see `ports.PredictionLog`."""
        return self.log.partitions(family, windows)

    def horizon(self, family: Family) -> datetime | None:
        """Return when the newest rows arrived that were known then."""
        newest = self.log.horizon(family)
        return None if newest is None else min(newest, self.clock.now())

    def _answered(self, family: Family, model: ModelId, rows: pa.Table) -> pa.Table:
        moves = self.ledger.facts(Moved, model=model)
        before = [move for move in moves if move.at < self.start][-1:]
        lives = [*before, *(move for move in moves if move.at >= self.start)]
        for move, following in zip(lives, [*lives[1:], None], strict=True):
            since = max(move.at, self.start)
            until = following.at if following is not None else None
            rows = self._by(move.head, family, rows, since, until)
        return rows

    def _by(
        self, head: Head, family: Family, rows: pa.Table, since: datetime, until: datetime | None
    ) -> pa.Table:
        arrived = rows["arrived_at"]
        mine = pc.greater_equal(arrived, pa.scalar(since, arrived.type))
        if until is not None:
            mine = pc.and_(mine, pc.less(arrived, pa.scalar(until, arrived.type)))
        # What was history, without an answer, stays so.
        mine = pc.and_(mine, pc.is_valid(rows["prediction"]))
        others = pc.and_(mine, pc.not_equal(rows["version"], head.version))
        if not pc.any(others).as_py():
            return rows
        if head.found:
            raise BadRequest(
                f"version {head.version} was found answering elsewhere: there is no file of it that"
                " could answer again",
                where=head.model,
                hint="replay from the kept readings, without --rows",
            )
        given = pa.array(self.answer(head, family, rows.filter(others)), pa.float64())
        mask = pc.fill_null(others, pa.scalar(value=False)).combine_chunks()
        answers = pc.replace_with_mask(rows["prediction"].combine_chunks(), mask, given)
        version = pc.if_else(others, pa.scalar(head.version, pa.int32()), rows["version"])
        for name, column in (("prediction", answers), ("version", version)):
            rows = rows.set_column(rows.schema.get_field_index(name), name, column)
        return rows


@dataclass(slots=True)
class Numbered:
    """Numbers versions, and forgets them with the replay; implements `ports.Registry`."""

    newest: dict[ModelId, int]
    """The highest number that each model's versions had before."""
    _orders: dict[str, int] = field(default_factory=dict)

    def register(self, candidate: Candidate) -> int:
        """Return the candidate's version; the same order registered again gets the same one."""
        order = candidate.order
        if order.key not in self._orders:
            self.newest[order.model] = self.newest.get(order.model, 0) + 1
            self._orders[order.key] = self.newest[order.model]
        return self._orders[order.key]

    def record_gate(self, model: ModelId, version: int, result: GateResult) -> None:
        """Leave it to the ledger."""

    def point(self, model: ModelId, version: int) -> bool:  # noqa: ARG002 - the port's
        """Have no alias that could disagree."""
        return False


@dataclass(slots=True)
class Unheard:
    """Takes every incident, and tells nobody; implements `ports.Pager`."""

    def post(self, incident: Incident, to: Address, *, reconcile: bool) -> Receipt:  # noqa: ARG002 - the port's
        """Return that it was told."""
        return Receipt(channel=to.channel, ts=incident.id)

    def update(self, incident: Incident, receipt: Receipt) -> Receipt:  # noqa: ARG002 - the port's
        """Return where it was told."""
        return receipt

    def reply(self, entry: Entry, receipt: Receipt, *, reconcile: bool) -> None:
        """Let it be."""

    def summarize(self, digest: Digest, to: Address, *, reconcile: bool) -> Receipt:  # noqa: ARG002 - the port's
        """Return that it was told."""
        return Receipt(channel=to.channel, ts=digest.key)


@dataclass(slots=True)
class Nobody:
    """Takes every version over at once; implements `ports.Handover`."""

    def hand_over(self, family: Family, head: Head, *, previous: Head | None, key: str) -> None:
        """Let it be."""


def seeded(fleet: Fleet, past: Ledger, own: Ledger, *, start: datetime) -> dict[ModelId, int]:
    """Copy into `own` what the loop knew at `start`; return each model's newest version number."""
    for model in fleet.models:
        for kind, key_of, last in KNOWN:
            for fact in past.facts(kind, model=model, before=start, last=last):
                own.append(fact, key=key_of(fact))
    made = [fact for model in fleet.models for fact in past.facts(Trained, model=model)]
    return {
        model: max(fact.version for fact in made if fact.model == model)
        for model in {fact.model for fact in made}
    }


def relived(
    watcher: Watcher,
    renewer: Renewer,
    clock: Stepped,
    *,
    start: datetime,
    end: datetime,
    step: timedelta,
    say: Callable[[datetime, Order], object] = lambda *_: None,
) -> Outcome:
    """Return what the loop comes to that looks every `step` from `start` on, before `end`.

    An order is carried out before the next look. The same rows and policies give the same
    decisions, to the byte.

    Raises:
        BadRequest: there was nothing to look at.
    """
    while clock.shown < end:
        for seen in watcher.watch():
            if seen.order is not None:
                say(clock.shown, seen.order)
                renewer.renew(seen.order)
        clock.shown += step
    return _tallied(watcher.fleet, watcher.ledger, start, end)


def _tallied(fleet: Fleet, ledger: Ledger, start: datetime, end: datetime) -> Outcome:
    tally = Tally()
    decided = {
        fact.decision.key: fact.decision
        for model in fleet.models
        for fact in ledger.facts(Decided, model=model, since=start, before=end)
    }
    measured = {
        (fact.model, fact.at): fact.readings
        for fact in ledger.passes(start, end)
        if isinstance(fact, Measured)
    }
    for decision in sorted(decided.values(), key=lambda each: (each.at, each.model)):
        readings = measured.get((decision.model, decision.at), ())
        tally.add(decision, readings, fleet.family(decision.model))
    if not decided:
        raise BadRequest(
            f"no model had a champion to look at from {start:%Y-%m-%d %H:%M} UTC on",
            where="replay",
            hint="retention.log says how long rows are kept",
        )
    return tally.outcome
