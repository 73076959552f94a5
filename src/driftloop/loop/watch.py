"""Measure every model that is due, judge it, record the decision, and say what follows."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import pyarrow.compute as pc

from driftloop.errors import DriftloopError, UnknownModel, named
from driftloop.judge import (
    COUNTED,
    LOOKED,
    can_page,
    decide,
    denied_pages,
    expected_gain,
    explains,
    heeded,
    is_due,
    rates,
    unlooked,
    window_at,
)
from driftloop.loop.budget import DAY, Ask, Cap, afforded, caps_of
from driftloop.loop.called_for import notices_of
from driftloop.loop.causes import found_cause, kept
from driftloop.loop.charts import with_charts
from driftloop.loop.notices import Places
from driftloop.loop.quarantine import Quarantine
from driftloop.loop.standing import noted
from driftloop.ports import Clock, Ledger, Look, Measure, Measurement, PredictionLog
from driftloop.records import (
    REFERENCE_FILE,
    Acted,
    Cause,
    Decided,
    Decision,
    Disputed,
    Explained,
    Failed,
    Head,
    Kind,
    Level,
    Measured,
    ModelHistory,
    ModelId,
    Notice,
    Order,
    Ordered,
    Passed,
    Reading,
    Trained,
    Window,
)
from driftloop.rows import Rows, chosen
from driftloop.spec import Family, Fleet

_log = logging.getLogger(__name__)
NO_CHAMPION = "no champion yet"
"""The problem of a model that was never trained, as a pass notes it."""


@dataclass(frozen=True, slots=True)
class Watched:
    """What one pass saw of one model: a decision, or the problem that made it blind.

    Without either it is what an earlier decision called for and nobody has done yet.
    """

    model: ModelId
    decision: Decision | None = None
    order: Order | None = None
    notices: tuple[Notice, ...] = ()
    problem: str | None = None
    waits: str | None = None
    """Why a renewal that is asked for is not started yet."""
    rows: int = 0
    labels: int = 0
    cause: Cause | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Watcher:
    """Everything a pass needs of the world.

    `budget` is the seconds of fitting it may start. Snapshots of what was measured go into the
    folder `reports`: of the decisions that call for something, or `every` one. Pages have `charts`
    where somebody reads them.
    """

    fleet: Fleet
    log: PredictionLog
    measure: Measure
    ledger: Ledger
    clock: Clock
    places: Places
    budget: float | None = None
    reports: Path | None = None
    every: bool = False
    quarantine: Quarantine | None = None
    charts: bool = False

    def watch(self) -> tuple[Watched, ...]:
        """Return what was seen of each model that was due; one model's trouble stays its own.

        Decisions are in the ledger on return; pages and retrainings are the caller's to carry
        out, each under the key it brings, so that a pass repeated does nothing twice. What an
        earlier pass decided and did not come to carry out, as when it was killed, comes again.
        """
        began = time.perf_counter()
        now = self.clock.now()
        left: list[Watched] = []
        seen: list[Watched] = []
        past: dict[ModelId, ModelHistory] = {}
        for model in self.fleet.models:
            past[model] = self.ledger.history(model)
        able = [m for f in self.fleet.families for m in f.models if can_page(f, past[m])]
        denied = denied_pages(self.ledger.facts(Acted, since=now - COUNTED), now)
        shares = rates(self.fleet, able, denied)
        for family in self.fleet.families:
            histories = {model: past[model] for model in family.models}
            left += self._left(family, histories)
            seen += self._family(family, histories, now, shares)
        seen = self._charted(self._explained(seen, past, now))
        if self.quarantine is not None:
            left += [
                Watched(model=notice.model, notices=(notice,)) for notice in self.quarantine.sweep()
            ]
        passed = Passed(
            at=now,
            looked=len(seen),
            seconds=time.perf_counter() - began,
            problems=tuple(f"{each.model}: {each.problem}" for each in seen if each.problem),
        )
        self.ledger.append(passed)
        return self._within_budget((*left, *seen), past)

    def _within_budget(
        self, watched: Sequence[Watched], past: Mapping[ModelId, ModelHistory]
    ) -> tuple[Watched, ...]:
        """Return `watched` without the orders that have to wait; they come again.

        That is those this pass, or this day, cannot afford, and those of models with a rollout
        under way.
        """
        under_way = {each.model: each for each in self.ledger.rollouts()}
        watched = [
            replace(each, order=None, waits=f"a rollout is under way ({rollout.named})")
            if each.order is not None
            and (rollout := under_way.get(each.model)) is not None
            and rollout.order != each.order.key
            else each
            for each in watched
        ]
        asks = [
            Ask(
                order=each.order,
                gain=expected_gain(decision) if decision is not None else 0.0,
                seconds=_fitted_in(past[each.model]),
            )
            for each in watched
            if each.order is not None
            for decision in [each.decision or _asked(past[each.model], each.order)]
        ]
        _, waits = afforded(asks, self.budget, self._caps() if asks else ())
        return tuple(
            replace(each, order=None, waits=waits[each.order.key])
            if each.order is not None and each.order.key in waits
            else each
            for each in watched
        )

    def _caps(self) -> tuple[Cap, ...]:
        """Return how long fits may take in a day, with what they took in the last one."""
        if not caps_of(self.fleet, ()):
            return ()
        since = self.clock.now() - DAY
        trained = self.ledger.facts(Trained, since=since)
        ended = {each.candidate.order.key for each in trained}
        ended |= {each.order_key for each in self.ledger.facts(Failed, since=since)}
        under_way = [
            (each, _fitted_in(self.ledger.history(each.model)))
            for each in self.ledger.facts(Ordered, since=since)
            if each.order.key not in ended
        ]
        return caps_of(self.fleet, trained, under_way)

    def _left(self, family: Family, histories: Mapping[ModelId, ModelHistory]) -> list[Watched]:
        """Return what earlier decisions called for and the ledger knows nothing of."""
        left: list[Watched] = []
        for model, history in histories.items():
            called_for = {
                notice.key: (decision, before)
                for before, decision in pairwise((None, *history.decisions))
                if decision is not None
                for notice in self._notices(decision, before)
            }
            told = noted(self.ledger, called_for.keys())
            notices = tuple(
                notice
                for decision, before in dict.fromkeys(
                    called for key, called in called_for.items() if key not in told
                )
                for notice in self._notices(decision, before, self._cause_of(decision))
                if notice.key not in told
            )
            order = self._not_begun(family, history)
            if notices or order is not None:
                left.append(Watched(model=model, order=order, notices=notices))
        return left

    def _not_begun(self, family: Family, history: ModelHistory) -> Order | None:
        """Return the newest order of a model, if nobody began it and it still makes sense."""
        asked = next((each for each in reversed(history.decisions) if each.retrain), None)
        if asked is None or history.head is None or history.head.version != asked.version:
            return None
        if asked.incident is not None and asked.incident != history.decisions[-1].incident:
            return None
        if any(self.ledger.fact(kind, key=asked.key) for kind in (Ordered, Failed)):
            return None
        return ordered(family, asked)

    def _cause_of(self, decision: Decision) -> Cause | None:
        """Return the cause that was found when a decision was taken, if it was looked for."""
        fact = self.ledger.fact(Explained, key=decision.key)
        return None if fact is None else fact.cause

    def _explained(
        self, seen: Sequence[Watched], past: Mapping[ModelId, ModelHistory], now: datetime
    ) -> list[Watched]:
        """Return what was seen with the causes that models share, in their notices too."""
        found = {
            each.model: (each.decision, each.cause)
            for each in seen
            if each.decision is not None and each.cause is not None
        }
        causes = kept(self.fleet, self.ledger, found, now)
        return [
            each
            if each.decision is None or each.model not in causes
            else replace(
                each,
                cause=causes[each.model],
                notices=self._notices(
                    each.decision,
                    past[each.model].decisions[-1] if past[each.model].decisions else None,
                    causes[each.model],
                ),
            )
            for each in seen
        ]

    def _charted(self, seen: Sequence[Watched]) -> list[Watched]:
        """Return what was seen, with charts in what is told of it first."""
        if not self.charts:
            return list(seen)
        drawn: set[tuple[str, str]] = set()
        return [
            each
            if each.decision is None
            else replace(
                each,
                notices=with_charts(
                    each.notices, self.ledger, each.decision, self.fleet.family(each.model), drawn
                ),
            )
            for each in seen
        ]

    def _notices(
        self, decision: Decision, before: Decision | None, cause: Cause | None = None
    ) -> tuple[Notice, ...]:
        return notices_of(self.fleet, self.ledger, self.places, decision, before, cause)

    def _family(
        self,
        family: Family,
        histories: Mapping[ModelId, ModelHistory],
        now: datetime,
        shares: Mapping[ModelId, float],
    ) -> list[Watched]:
        due = [model for model, past in histories.items() if is_due(family, past, now=now)]
        heads = [model for model in due if histories[model].head is not None]
        nobody = str(UnknownModel(NO_CHAMPION, hint="`driftloop train` makes one"))
        seen: dict[ModelId, Watched] = {}
        windows = {model: window_at(family, model, now=now) for model in heads}
        unseen = ""
        try:
            # Only what had wholly arrived counts as known: the same rows can then be read again.
            known_at = self.log.horizon(family)
            for model in heads:
                windows[model] = window_at(family, model, now=now, known_at=known_at)
            for model, look in self.log.looks(family, tuple(windows.values())):
                seen[model] = self._one(
                    family, histories[model], windows[model], look, shares[model]
                )
        except DriftloopError as error:
            unseen = str(error)
        for model in heads:
            if model not in seen:
                seen[model] = self._unseen(family, histories[model], windows[model], unseen)
        return [seen.get(model, Watched(model=model, problem=nobody)) for model in due]

    def _one(
        self, family: Family, history: ModelHistory, window: Window, look: Look, rate: float
    ) -> Watched:
        """Return what was seen of one model, whatever went wrong with it."""
        model, head = window.model, history.head
        if head is None:
            raise ValueError(model)
        if look.fault is not None:
            return self._unseen(family, history, window, str(look.fault))
        # Only now: windows that are read together differ in their models alone.
        window = replace(window, since=_looked_until(history))
        try:
            return self._model(family, head, history, window, look, rate)
        except DriftloopError as error:
            return self._unseen(family, history, window, str(error))
        except Exception as error:  # noqa: BLE001 - a fault of ours: the others are watched all the same
            _log.exception("%s: looking at it broke", model)
            return self._unseen(family, history, window, f"it broke on {named(error)}")

    def _unseen(
        self, family: Family, history: ModelHistory, window: Window, problem: str
    ) -> Watched:
        """Return that a model could not be looked at: BLIND from now on, until it can be again."""
        seen = Watched(model=window.model, problem=problem)
        last = history.decisions[-1] if history.decisions else None
        if last is not None and unlooked(last) == problem:
            return seen
        blind = Reading(
            kind=Kind.QUALITY, metric=LOOKED, column=None, value=None, n=0, problem=problem
        )
        decision = decide(
            family=family, window=window, readings=[blind], history=history, now=window.end
        )
        fact = Decided(model=window.model, at=window.end, decision=decision)
        try:
            if not self.ledger.append(fact, key=decision.key):
                return seen
        except DriftloopError as error:
            _log.error("that %s is blind could not be kept: %s", seen.model, error)
            return seen
        _log.info("%s: %s", seen.model, decision.reason, extra={"trace": decision.key})
        return replace(seen, decision=decision)

    def _model(
        self,
        family: Family,
        head: Head,
        history: ModelHistory,
        window: Window,
        look: Look,
        rate: float,
    ) -> Watched:
        model, now = window.model, window.end
        measurement = measurement_of(self.measure, family, head, history.champion, window, look)
        decision = decide(
            family=family,
            window=window,
            readings=measurement.readings,
            history=history,
            now=now,
            rate=rate,
        )
        before = history.decisions[-1] if history.decisions else None
        cause = None
        if explains(decision, before):
            own = _answered_by(head, look.rows)
            cause = found_cause(self.measure, family, head, decision, own)
            decision = heeded(decision, cause)
        rows, labels = look.summary.rows, look.summary.labels
        self.ledger.append(
            Measured(
                model=model,
                at=now,
                window=window,
                rows=rows,
                labels=labels,
                readings=measurement.readings,
            ),
            key=decision.key,
        )
        if not self.ledger.append(
            Decided(model=model, at=now, decision=decision), key=decision.key
        ):
            return Watched(model=model, problem="another pass decided at the same moment")
        _log.info("%s: %s", model, decision.reason, extra={"trace": decision.key})
        if decision.opens:
            self._check(family, head, decision, look)
        notices = self._notices(decision, before, cause)
        if self.every or notices or decision.retrain:
            self._keep(measurement, decision)
        return Watched(
            model=model,
            decision=decision,
            order=ordered(family, decision) if decision.retrain else None,
            notices=notices,
            rows=rows,
            labels=labels,
            cause=cause,
        )

    def _keep(self, measurement: Measurement, decision: Decision) -> None:
        """Keep Evidently's snapshot; nothing depends on it."""
        if self.reports is None:
            return
        try:
            measurement.keep(self.reports / f"{decision.key}.json", decision.verdicts)
        except DriftloopError as error:
            _log.error("the snapshot of %s was not kept: %s", decision.key, error)

    def _check(self, family: Family, head: Head, decision: Decision, look: Look) -> None:
        """Have what an incident opens for measured again, independently; a dispute is a fact."""
        try:
            said = self.measure.disputed(
                family=family,
                readings=[v.reading for v in decision.verdicts if v.level is Level.ALARM],
                current=look.rows,
                own=_answered_by(head, look.rows),
                reference=Path(head.artifact).with_name(REFERENCE_FILE),
            )
        except DriftloopError as error:
            # The page goes out all the same.
            _log.error("%s could not be measured again: %s", decision.model, error)
            return
        if said:
            _log.error("%s: %s", decision.model, "; ".join(said), extra={"trace": decision.key})
            self.ledger.append(Disputed(model=decision.model, at=decision.at, said=said))


def measurement_of(
    measure: Measure,
    family: Family,
    head: Head,
    trained: Trained | None,
    window: Window,
    look: Look,
) -> Measurement:
    """Return what is measured of one model: all that was looked at, and what `head` answered.

    `trained` is the fact of the head's training, whose figures are the baseline.

    Raises:
        ArtifactError: the head's reference is lost or damaged.
    """
    return measure.measure(
        family=family,
        current=look.rows,
        own=_answered_by(head, look.rows),
        reference=Path(head.artifact).with_name(REFERENCE_FILE),
        summary=look.summary,
        baselines=(
            {metric.name: metric.value for metric in trained.candidate.metrics}
            if trained is not None
            else {}
        ),
        now=window.end,
        window=window,
    )


def _answered_by(head: Head, rows: Rows) -> Rows:
    return chosen(rows, pc.equal(rows.column("version"), head.version))


def _looked_until(history: ModelHistory) -> datetime | None:
    """Return up to when rows had arrived that a look has seen; None where there was no look."""
    looks = (each for each in reversed(history.decisions) if unlooked(each) is None)
    last = next(looks, None)
    return None if last is None else last.window.known_at


def _asked(history: ModelHistory, order: Order) -> Decision | None:
    return next((each for each in history.decisions if each.key == order.key), None)


def _fitted_in(history: ModelHistory) -> float:
    """Return the seconds that the champion's fits took; nothing is known where there is none."""
    return 0.0 if history.champion is None else history.champion.fit_seconds


def ordered(family: Family, decision: Decision) -> Order:
    """Return the order for the candidate that `decision` asks for."""
    made = order(family, decision.model, key=decision.key, reason=decision.reason, now=decision.at)
    return replace(made, incident=decision.incident)


def first_orders(fleet: Fleet, heads: Sequence[Head], now: datetime) -> tuple[Order, ...]:
    """Return an order for each model that has no champion yet."""
    served = {head.model for head in heads}
    return tuple(
        order(
            family,
            model,
            key=f"first/{model}/{now:%Y%m%dT%H%M%S.%f}",
            reason="first version",
            now=now,
        )
        for family in fleet.families
        for model in family.models
        if model not in served
    )


def order(family: Family, model: ModelId, *, key: str, reason: str, now: datetime) -> Order:
    """Return an order on the family's training span up to `now`, its newest part held out."""
    return Order(
        key=key,
        model=model,
        at=now,
        reason=reason,
        window=Window(model=model, start=now - family.retrain.span, end=now, known_at=now),
        holdout_from=now - family.gate.holdout,
        seed=family.retrain.seed,
    )
