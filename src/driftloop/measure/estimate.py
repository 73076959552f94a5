"""Performance as it is believed to be, labels that are still to come included.

What a row adds is what was expected of it, and where its label is here how wrong that was, weighted
by how likely the label was to be here: right if either the expectation or the delay is (augmented
inverse probability weighting; Robins and Rotnitzky 1995). Where all labels are here it is the plain
metric.

It is told with a 90 % interval that has in it the noise of labels, here and to come, what may be
wrong with the expectations, and by how much blocks of time differ from what was expected of them;
and that is widened where intervals like it were too narrow for the labels that came since. Or it is
not told at all: too few labels, inputs that no label tells of, or labels that came lately and deny
what was expected of them.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache, partial

import numpy as np
import pyarrow as pa

from driftloop.measure.believed import Believed, Known, believed, known
from driftloop.measure.columns import Floats, Unmeasurable
from driftloop.measure.decay import CONFIDENCE, interval, within
from driftloop.measure.delays import Mask, overdue
from driftloop.measure.expected import beyond, outside
from driftloop.measure.pseudo import Scored, scored
from driftloop.measure.reference import Reference
from driftloop.records import DOUBTED, Kind, Reading, Task
from driftloop.rows import Rows, chosen
from driftloop.spec import DecayPolicy, Family

UNKNOWN = "UNKNOWN: "
NEWEST = "age=newest"
"""The rows that are younger than half of the labels take to arrive."""
DAY = "age=day"
"""The rows that are younger than a day."""
TOLD = 10
"""A block with fewer labels tells nothing of what blocks have in common."""
BLOCKS = 3
"""With fewer blocks that have labels nothing is known of how much they differ."""
MANY = 8
"""From so many blocks on certainty is that between them alone."""
RECENT = 2
"""So many of the newest blocks with labels must agree with what was expected of them."""
SURE = 0.99
"""So sure it must be that they do not."""
LITTLE = 0.2
"""Where a smaller share of labels is still to come, it matters little what their inputs are."""
STEP = 0.1
"""By how much an interval that was too narrow once is widened (Gibbs and Candes 2021)."""
WIDEST = 3.0
DUE = 50
"""So many labels must have been expected before it is said that they are overdue."""
MOST = 20_000
"""Rows that are looked at: more of them make no interval narrower that days make wide."""
IN_PROPORTION = ("mae", "rmse", "mape", "mape_abs")
"""Metrics of errors, which vary the more the larger they are expected to be."""


def estimate_readings(
    family: Family,
    own: Rows,
    reference: Reference,
    baselines: Mapping[str, float],
    now: datetime,
    holdout: Rows | None = None,
) -> Iterator[Reading]:
    """Yield the judged metric as it is believed to be: of all rows, and of the newest ones.

    Args:
        family: the model's; scores have no performance, and yield nothing.
        own: the rows that the champion itself predicted, with `label` and `labelled_at`.
        reference: the champion's training rows, `prepared`.
        baselines: the champion's metrics at its gate, by name.
        now: at which labels are known.
        holdout: rows that the champion was not trained on, with `event_time`, `label` and what it
            answers to them as `candidate`.

    Where all labels are here there is nothing to estimate, and nothing is yielded.

    `n` of a reading counts the labels that are here; of more than `MOST` rows every second, third
    or so is looked at, and they are those of these. A reading that cannot be had has no value and
    a problem that begins with "UNKNOWN: ".
    """
    if family.decay is None or not own.num_rows:
        return
    if own.num_rows > MOST:
        every = -(-own.num_rows // MOST)
        own = chosen(own, pa.chunked_array([np.arange(own.num_rows) % every == 0]))
    yield from _Telling(family, family.decay, own, reference, baselines).readings(now, holdout)


@dataclass(frozen=True, slots=True)
class _Telling:
    """What all readings of one model have in common."""

    family: Family
    limits: DecayPolicy
    own: Rows
    reference: Reference
    baselines: Mapping[str, float]

    def readings(self, now: datetime, holdout: Rows | None) -> Iterator[Reading]:
        metric = self.limits.metric
        try:
            rows = known(self.family, metric, self.own, now)
        except Unmeasurable as problem:
            yield self._unknown(problem, problem.n, None)
            return
        every = np.ones(len(rows.age), dtype=np.bool_)
        try:
            if rows.here.all():
                return
            found = believed(self.family, metric, self.own, self.reference, rows, holdout)
        except Unmeasurable as problem:
            yield self._unknown(problem, int(np.count_nonzero(rows.here)), None)
            return
        doubts = _Doubts(
            overdue=overdue(found.delays, rows.delay, rows.age),
            beyond=cache(partial(beyond, self.family, self.own, self.reference)),
        )
        parts: list[tuple[str | None, Mask]] = [(None, every)]
        if np.isfinite(found.delays.median):
            parts.append((NEWEST, rows.age <= found.delays.median))
        parts.append((DAY, rows.age <= timedelta(days=1).total_seconds()))
        for segment, part in parts:
            n = int(np.count_nonzero(rows.here & part))
            try:
                yield self._reading(segment, n, self._told(rows, found, part, doubts))
            except Unmeasurable as problem:
                yield self._unknown(problem, n, segment)
                if isinstance(problem, _Doubted) and segment is None:
                    yield self._doubted(problem, n)

    def _reading(self, segment: str | None, n: int, told: tuple[float, float, float]) -> Reading:
        metric = self.limits.metric
        value, low, high = told
        return Reading(
            kind=Kind.ESTIMATE,
            metric=metric,
            column=None,
            value=value,
            n=n,
            low=within(low, metric),
            high=within(high, metric),
            baseline=self.baselines.get(metric),
            segment=segment,
        )

    def _unknown(self, problem: Unmeasurable, n: int, segment: str | None) -> Reading:
        return Reading(
            kind=Kind.ESTIMATE,
            metric=self.limits.metric,
            column=None,
            value=None,
            n=n,
            baseline=self.baselines.get(self.limits.metric),
            problem=f"{UNKNOWN}{problem}",
            segment=segment,
        )

    def _told(
        self, rows: Known, found: Believed, part: Mask, doubts: "_Doubts"
    ) -> tuple[float, float, float]:
        from scipy.special import stdtrit

        family, least = self.family, self.family.window.min_rows
        n = int(np.count_nonzero(part))
        if n < least:
            raise Unmeasurable(f"{n} rows, at least {least} are needed")
        if rows.here[part].all():
            return _plain(family, self.limits.metric, rows, part)
        seen = (found.weight > 0.0)[part]
        expected = found.expected[part]
        wrong = np.where(seen[:, None], rows.outcome[part] - expected, 0.0)
        pseudo = expected + found.weight[part][:, None] * wrong
        said = scored(family, self.limits.metric, rows.prediction[part], pseudo)
        past = _past(family, said, found, rows.prediction[part])
        self._doubt(said, past, rows, found, part, doubts)
        error = _error(family, self.limits.metric, said, found, rows, part, past)
        half = float(stdtrit(max(past.count - 1, 2), (1.0 + CONFIDENCE) / 2.0))
        half *= error * past.widened
        return said.value, said.value - half, said.value + half

    def _doubted(self, problem: "_Doubted", n: int) -> Reading:
        return Reading(
            kind=Kind.ESTIMATE,
            metric=DOUBTED,
            column=None,
            value=problem.waiting,
            n=n,
            problem=str(problem),
        )

    def _doubt(
        self,
        said: Scored,
        past: "_Past",
        rows: Known,
        found: Believed,
        part: Mask,
        doubts: "_Doubts",
    ) -> None:
        """Refuse to tell of labels to come what those that came, or the inputs, speak against."""
        waiting = float(np.mean(found.waits[part]))
        matters = self.limits.warn / 2.0 * abs(said.value)
        if past.sure and abs(past.wrong) * waiting > matters:
            raise _Doubted(
                f"labels that came last are off what was expected of them by {past.wrong:+.3g}:"
                " what the inputs mean may have changed",
                waiting,
            )
        came, due = doubts.overdue
        if due >= DUE and came < due / 2.0:
            raise _Doubted(
                f"labels are overdue: {came} are here of newer rows, {due} were expected", waiting
            )
        if waiting <= LITTLE:
            return
        unlabelled = np.zeros(len(rows.used), dtype=np.bool_)
        unlabelled[rows.used] = part & ~rows.here
        name, share = outside(doubts.beyond(), unlabelled)
        if share > self.family.estimate.outside:
            raise Unmeasurable(f"{share:.0%} of {name} lie beyond what the champion was trained on")


@dataclass(frozen=True, slots=True)
class _Doubts:
    """What all parts have in common of it: labels that are here and were due, and `beyond`."""

    overdue: tuple[int, int]
    beyond: Callable[[], Mapping[str, Mask]]


class _Doubted(Unmeasurable):
    """What was expected is not to be believed now, of the share of rows that `waiting` is."""

    def __init__(self, problem: str, waiting: float) -> None:
        self.waiting = waiting
        super().__init__(problem)


def _plain(family: Family, metric: str, rows: Known, part: Mask) -> tuple[float, float, float]:
    found = scored(family, metric, rows.prediction[part], rows.outcome[part])
    block = np.unique(rows.block[part], return_inverse=True)[1]
    low, high = interval(found.value, found.influence, block)
    if low is None or high is None:
        raise Unmeasurable("its labels are of a single block of time", n=len(block))
    return found.value, low, high


# -- how wrong it was -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Past:
    """How wrong was what was expected of rows whose labels came since, in the metric's unit.

    `between` is the variance of blocks about what was expected of them, `count` how many blocks
    tell it, `noise` the variance of one row, `widened` by what factor intervals were too narrow.
    `wrong` is by how much the newest blocks were off, and `sure` whether it is sure that they were.
    """

    between: float
    count: int
    noise: float
    widened: float
    wrong: float
    sure: bool


def _past(family: Family, said: Scored, found: Believed, prediction: Floats) -> _Past:
    learnt = found.learnt
    blind = np.isfinite(learnt.blind[:, 0])
    slope = _slopes(family, said, learnt.answer[blind], prediction)
    left = ((learnt.outcome - learnt.blind)[blind] * slope).sum(axis=1)
    stands = learnt.stands[blind]
    block = np.unique(learnt.block[blind], return_inverse=True)[1]
    labels, mass = np.bincount(block), np.bincount(block, weights=stands)
    mean = np.bincount(block, weights=stands * left) / mass
    own = np.bincount(block, weights=(stands * (left - mean[block])) ** 2) / mass**2
    usable = labels >= TOLD
    count = int(np.count_nonzero(usable))
    if count < BLOCKS:
        raise Unmeasurable(
            f"labels of {count} blocks of time, at least {BLOCKS} are needed to tell how much they"
            " differ"
        )
    mean, own = mean[usable], (own * labels / np.maximum(labels - 1, 1))[usable]
    wrong, sure = _recently(mean, own)
    between = _between(mean, own)
    return _Past(
        between=between,
        count=count,
        noise=float(np.average((left - left.mean()) ** 2, weights=stands)),
        widened=_widened(mean, own + between, count),
        wrong=wrong,
        sure=sure,
    )


def _slopes(family: Family, said: Scored, answer: Floats, prediction: Floats) -> Floats:
    """Return how much the metric changes with the outcomes of rows that were answered so."""
    if family.task is Task.REGRESSION:
        return np.broadcast_to(said.slope.mean(axis=0), (len(answer), said.slope.shape[1]))
    # The slope depends on the answer alone: it is that of the nearest one here.
    order = np.argsort(prediction, kind="stable")
    at = np.searchsorted(prediction[order], answer)
    found: Floats = said.slope[order[np.clip(at, 0, len(order) - 1)]]
    return found


def _between(mean: Floats, own: Floats) -> float:
    """Return the variance of blocks about 0 that their own noise does not explain."""
    return max(float(np.mean(mean**2 - own)), 0.0)


def _recently(mean: Floats, own: Floats) -> tuple[float, bool]:
    """Return by how much the newest blocks are off, and whether that is sure, given the others."""
    from scipy.special import stdtrit

    newest = min(RECENT, len(mean) - 2)
    wrong = float(np.mean(mean[-newest:]))
    before, noise = mean[:-newest], own[:-newest]
    error = np.sqrt(own[-newest:].sum() / newest**2 + _between(before, noise) / newest)
    return wrong, bool(abs(wrong) > float(stdtrit(len(before) - 1, (1.0 + SURE) / 2.0)) * error)


def _widened(mean: Floats, variance: Floats, count: int) -> float:
    """Return by what factor intervals were too narrow, followed from block to block."""
    from scipy.special import stdtrit

    half = float(stdtrit(count - 1, (1.0 + CONFIDENCE) / 2.0)) * np.sqrt(variance)
    factor, miss = 1.0, 1.0 - CONFIDENCE
    for off in (np.abs(mean) / np.maximum(half, 1e-300)).tolist():
        factor += STEP * ((off > factor) - miss) * factor
        factor = min(max(factor, 1.0), WIDEST)
    return factor


def _error(
    family: Family,
    metric: str,
    said: Scored,
    found: Believed,
    rows: Known,
    part: Mask,
    past: _Past,
) -> float:
    """Return the standard error: of rows, of what was learnt, and of labels that are not here."""
    n = int(np.count_nonzero(part))
    pull = np.zeros(len(part))
    pull[part] = said.influence / n
    learnt = found.learnt
    # What was learnt moves the metric by as much as it is not held by the labels of these rows.
    free = said.slope * (1.0 - found.weight[part])[:, None] / n
    moves = found.fit.inverse @ (found.design.effects[part].T @ free)
    left = learnt.outcome - found.fit.expected(learnt.design)
    pulls = learnt.stands * ((learnt.design.effects @ moves) * left).sum(axis=1)
    held = len(pulls) - len(learnt.place)
    pull[learnt.place] += pulls[held:]
    block = np.unique(np.concatenate([rows.block, learnt.block[:held]]), return_inverse=True)[1]
    waits = found.waits[part]
    share = np.bincount(rows.block[part] - rows.block.min()) / n
    missing = np.bincount(rows.block[part] - rows.block.min(), weights=waits) / n
    variance = float(_noise(family, metric, said, found, part, past)[waits].sum()) / n**2
    every = np.concatenate([pull, pulls[:held]])
    if np.count_nonzero(share) >= MANY:
        sums = np.bincount(block, weights=every)
        count = len(sums)
        variance += count / (count - 1) * float(np.sum(sums**2))
        variance += past.between * float(np.sum(missing**2))
    else:
        variance += float(np.sum(every**2)) + past.between * float(np.sum(share**2))
    return float(np.sqrt(variance))


def _noise(
    family: Family, metric: str, said: Scored, found: Believed, part: Mask, past: _Past
) -> Floats:
    """Return the variance that the label of each row of the part will add."""
    expected = found.expected[part]
    if family.task is not Task.REGRESSION:
        told: Floats = (said.slope**2 * expected * (1.0 - expected)).sum(axis=1)
        return told
    if metric not in IN_PROPORTION:
        return np.full(len(expected), past.noise)
    learnt = found.fit.expected(found.learnt.design)[:, 0]
    usual = float(np.average(learnt**2, weights=found.learnt.stands))
    return past.noise * expected[:, 0] ** 2 / max(usual, 1e-300)
