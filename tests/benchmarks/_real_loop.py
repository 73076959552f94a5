"""Driftloop's own decisions over the rows of a data set: the pure code, fed step by step.

Judged are readings of performance and of volume: of faults that others put into the data, or of
their drift, nothing is retrained by default.
"""

from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, timedelta

import numpy as np
import pyarrow as pa

from driftloop.errors import TrainingFailed
from driftloop.gate import Beside, Span, compare, uses
from driftloop.judge import decide, expected_gain, memories_to_try, window_at
from driftloop.loop.memories import remembering
from driftloop.loop.watch import order as ordered
from driftloop.measure.decay import decay_readings
from driftloop.records import (
    Candidate,
    Decision,
    GateResult,
    Head,
    Kind,
    Memory,
    ModelHistory,
    Order,
    Reading,
    Trained,
    Tried,
)
from driftloop.retrain import score
from driftloop.sequential import losses
from tests.benchmarks._real_fits import Fits, Floats
from tests.benchmarks._real_sets import Steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewal:
    """What came of one order."""

    step: int
    why: str
    memory: Memory
    tried: int
    result: GateResult


@dataclass(slots=True)
class Ours:
    """The loop of one model over the rows of `data`."""

    data: Steps
    fits: Fits
    renewals: list[Renewal] = field(default_factory=list)
    fitted: int = 0
    decisions: list[Decision] = field(default_factory=list)
    orders: list[Order] = field(default_factory=list)
    trained: list[Trained] = field(default_factory=list)
    used: list[Span] = field(default_factory=list)
    refused: bool = False
    champion: Trained | None = None
    _answers: dict[int, Floats] = field(default_factory=dict)

    def run(self) -> Floats:
        """Return what was answered to each row, NaN before the first step."""
        data = self.data
        answered = np.full(data.rows.num_rows, np.nan)
        by = np.zeros(data.rows.num_rows, np.int32)
        self._renew(0, "first version", lost=False)
        for step in range(data.steps):
            a, b = data.edges[step], data.edges[step + 1]
            version = self._champion.version
            answered[a:b] = self._answers[version][a:b]
            by[a:b] = version
            if step + 1 == data.steps:
                break
            decision = self._look(step + 1, answered, by)
            self.decisions.append(decision)
            if decision.retrain:
                worse = data.family.decay is not None and (
                    expected_gain(decision) >= data.family.decay.warn
                )
                lost = decision.incident is not None or worse or self.refused
                self._renew(step + 1, decision.reason, lost=lost)
        return answered

    @property
    def changes(self) -> int:
        """How often another version came to answer, after the first."""
        return sum(renewal.result.passed for renewal in self.renewals[1:])

    @property
    def _champion(self) -> Trained:
        if self.champion is None:
            raise RuntimeError("nothing answers yet")
        return self.champion

    def _look(self, step: int, answered: Floats, by: np.ndarray) -> Decision:
        data, now = self.data, self.data.moment(step)
        window = window_at(data.family, data.model, now=now)
        a, b = data.since(window.start), data.edges[step]
        seen = data.rows.slice(a, b - a)
        own = by[a:b] == self._champion.version
        mine = seen.append_column("prediction", pa.array(answered[a:b])).filter(pa.array(own))
        baselines = {each.name: each.value for each in self._champion.candidate.metrics}
        readings = (
            Reading(kind=Kind.QUALITY, metric="volume", column=None, value=float(b - a), n=b - a),
            *decay_readings(data.family, mine, baselines),
        )
        return decide(
            family=data.family, window=window, readings=readings, history=self._history(), now=now
        )

    def _history(self) -> ModelHistory:
        version = self._champion.version
        head = Head(model=self.data.model, epoch=version, version=version, digest="", artifact="")
        return ModelHistory(
            decisions=tuple(self.decisions[-20:]),
            orders=tuple(self.orders[-20:]),
            champion=self.champion,
            head=head,
        )

    def _renew(self, step: int, why: str, *, lost: bool) -> None:
        data, family, now = self.data, self.data.family, self.data.moment(step)
        order = ordered(family, data.model, key=f"{data.model}/{step}", reason=why, now=now)
        self.orders.append(order)
        memories = memories_to_try(family.retrain.memory, self.trained, lost=lost)
        made: dict[Memory, tuple[float, Candidate, Floats]] = {}
        for memory in memories:
            with suppress(TrainingFailed):  # as after a gap: the others go on
                made[memory] = self._made(remembering(order, memory, family))
        self.fitted += len(made)
        if not made:
            return
        best = min(made, key=lambda memory: made[memory][0])
        tried = tuple(
            Tried(memory=memory, loss=loss, rows=candidate.rows)
            for memory, (loss, candidate, _) in made.items()
        )
        _, candidate, answers = made[best]
        trained = Trained(
            model=data.model,
            at=now,
            version=len(self.trained) + 1,
            candidate=candidate,
            tried=tried if len(made) > 1 else (),
        )
        self.trained.append(trained)
        result = self._gated(order, answers, tried=len(made))
        self.refused = not result.passed
        self._answers[trained.version] = answers
        # A model answers already when the data begin, as it does for everybody else.
        if result.passed or self.champion is None:
            self.champion = trained
        self.renewals.append(
            Renewal(step=step, why=why, memory=best, tried=len(made), result=result)
        )

    def _made(self, order: Order) -> tuple[float, Candidate, Floats]:
        """Return the held-out loss, the candidate, and what it answers to every row."""
        data, task = self.data, self.data.family.task
        answers, rows = self.fits.of(data, order)
        a, b = self._held_out(order)
        candidate = Candidate(
            order=order,
            digest="",
            folder="",
            rows=rows,
            holdout_rows=b - a,
            metrics=score(task, data.label[a:b], answers[a:b]),
            parity=0.0,
            fit_seconds=0.0,
            lower_seconds=0.0,
        )
        return float(losses(data.label[a:b], answers[a:b], task=task)[1].mean()), candidate, answers

    def _gated(self, order: Order, answers: Floats, *, tried: int) -> GateResult:
        data, family = self.data, self.data.family
        a, b = self._held_out(order)
        champion = None if self.champion is None else self._answers[self.champion.version][a:b]
        at, length = data.at[a:b].astype("datetime64[us]"), family.window.block
        result = compare(
            data.label[a:b],
            champion,
            answers[a:b],
            at.astype(np.int64) // (length // timedelta(microseconds=1)),
            task=family.task,
            policy=family.gate,
            beside=Beside(uses=uses(at, self.used, block=length), tried=tried),
        )
        if result.low is not None:
            first, last = (moment.item().replace(tzinfo=UTC) for moment in (at[0], at[-1]))
            self.used.append(Span(start=first, end=last))
        return result

    def _held_out(self, order: Order) -> tuple[int, int]:
        return self.data.since(order.holdout_from), self.data.since(order.window.end)
