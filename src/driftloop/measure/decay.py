"""How well the champion does on its own labelled rows, and how sure that is.

Each metric is given with its influence values: how much each row pulls the metric away from
where it stands. Their sum over a day is what that day contributes to the error, whatever the
metric, so one interval serves all of them.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from driftloop.measure.columns import (
    Codes,
    Floats,
    Unmeasurable,
    blocks,
    check_outcomes,
    numbers,
    texts,
)
from driftloop.records import Kind, Reading, Task
from driftloop.rows import Rows
from driftloop.spec import METRICS, Family

CONFIDENCE = 0.9
THRESHOLD = 0.5
OF = "the champion's rows"
FEWEST = 2
"""Fewer days, or fewer labels of a class, have no spread to speak of."""

NEAR_ZERO = float(np.finfo(np.float64).eps)
"""A label this near to 0 has no percentage error: it counts as 100 %, as in Evidently."""
SEGMENTS = 20
"""Levels of a column that are measured by themselves; the others are measured together."""

Mask = NDArray[np.bool_]
Estimate = tuple[float, Floats | None]
"""A metric's value, and the influence of each row on it (their mean is 0).

None for the influence where one row decides alone: no variance can be told.
"""
Estimates = Mapping[str, Callable[[], Estimate]]
"""How to measure each metric of a task; raises Unmeasurable where it has no value."""


def decay_readings(family: Family, own: Rows, baselines: Mapping[str, float]) -> Iterator[Reading]:
    """Yield one reading for each metric of the family's task, over rows with a label.

    Values are Evidently's own, but for what `regression`, `binary` and `classes` say. Scores have
    none. `n` counts the rows with both a label and a prediction; `low` and `high` are the interval
    of `interval`. Then the judged metric follows for each segment that has labels enough: see
    `_segments`.
    """
    try:
        rows = _labelled(own, family)
    except Unmeasurable as problem:
        for metric in METRICS[family.task]:
            yield _unmeasured(metric, problem, problem.n, baselines)
        return
    yield from _measured(family, METRICS[family.task], rows, baselines)
    yield from _segments(family, own, rows)


def interval(
    value: float, influence: Floats | None, block: Codes | None
) -> tuple[float, float] | tuple[None, None]:
    """Return a 90 % interval of an estimate whose rows are correlated within a block of time.

    The variance is clustered by block, a day if the family says nothing else (Liang and Zeger
    1986, with the correction G/(G-1) of Cameron and Miller 2015), of the estimate linearised in
    its rows (Deville 1999; for ROC AUC Obuchowski 1997); the quantile is Student's with G-1
    degrees of freedom. With 14 days it covers 85 to 90 %, where the percentiles of a bootstrap
    over days cover 80 to 85 %.

    Args:
        value: the estimate.
        influence: shape (rows,), in the unit of `value`, mean 0; None when it is unknown.
        block: shape (rows,), the cluster of each row, numbered from 0 without a gap; None when it
            is unknown.

    Returns:
        Low and high; None twice where there are fewer than two blocks, or no spread at all.

    >>> low, high = interval(0.0, np.array([-1.0, 1.0, -1.0, 1.0]), np.array([0, 1, 2, 3]))
    >>> round(high, 3)
    1.359
    """
    from scipy.special import stdtrit

    if block is None or influence is None:
        return None, None
    pull = np.bincount(block, weights=influence)
    count = len(pull)
    if count < FEWEST:
        return None, None
    with np.errstate(over="ignore", invalid="ignore"):
        error = float(np.sqrt(count / (count - 1) * np.sum(pull**2))) / len(influence)
    if not 0.0 < error < np.inf:
        return None, None
    half = float(stdtrit(count - 1, (1.0 + CONFIDENCE) / 2.0)) * error
    return value - half, value + half


def within(bound: float | None, metric: str) -> float | None:
    """Return a bound of an interval within what a metric can be.

    No error is below 0 and no share above 1, whatever the normal approximation says.
    """
    if bound is None:
        return None
    floor, ceiling = _LIVES.get(metric, (0.0, 1.0))
    return float(min(max(bound, floor), ceiling))


def estimates(task: Task, label: Floats, prediction: Floats) -> Estimates:
    """Return how to measure each metric of `task`.

    Args:
        task: which metrics.
        label: shape (rows,), finite; 0 or 1 for binary, indexes of classes for multiclass.
        prediction: shape (rows,), finite, in the label's unit or as probabilities of 1.
    """
    match task:
        case Task.REGRESSION:
            return regression(label, prediction)
        case Task.BINARY:
            return binary(label, prediction)
        case Task.MULTICLASS:
            return classes(label, prediction)
        case Task.SCORE:
            return {}
        case _:
            assert_never(task)


def classes(label: Floats, prediction: Floats) -> Estimates:
    """Return how to measure each metric of a model of classes.

    All are Evidently's: accuracy, and macro averages over the classes that are predicted or true
    somewhere. Where these are two it breaks, looking for a class called 1; ours are what they are
    of any other number.
    """
    return {
        "accuracy": lambda: _mean((prediction == label).astype(np.float64)),
        "f1": lambda: _macro(label, prediction, of_label=0.5, of_prediction=0.5),
        "precision": lambda: _macro(label, prediction, of_label=0.0, of_prediction=1.0),
        "recall": lambda: _macro(label, prediction, of_label=1.0, of_prediction=0.0),
    }


def regression(label: Floats, prediction: Floats) -> Estimates:
    """Return how to measure each metric of a regression.

    All but one are those of Evidently's `RegressionPreset`, `mean_error` being prediction less
    label. Two have no value where Evidently's mean nothing: `r2` where all labels are the same
    (Evidently says 0 or 1), and `mape`, in percent, where a label is negative: Evidently divides by
    the label, at least 2e-16, and calls any error at it some 1e17 percent. `mape_abs` divides by
    the label's size, and is the same where both can be had. `abs_max_error` has no interval.
    """
    error = prediction - label
    size = np.abs(error)
    squared = error**2
    return {
        "mae": lambda: _mean(size),
        "rmse": lambda: _root(squared),
        "r2": lambda: _r2(label, squared),
        "mean_error": lambda: _mean(error),
        "mape": lambda: _mape(label, size, below=False),
        "mape_abs": lambda: _mape(label, size, below=True),
        "abs_max_error": lambda: (float(np.max(size)), None),
    }


def binary(label: Floats, prediction: Floats) -> Estimates:
    """Return how to measure each metric of a binary classification, 1 predicted from 0.5 on.

    All are those of Evidently's `ClassificationPreset`, of the class 1; `tpr` is `recall` by its
    other name. What is a share of nothing has no value, where Evidently says NaN or 0 or raises:
    each needs the class, or the prediction, that it is a share of.
    """
    actual, predicted = label == 1.0, prediction >= THRESHOLD
    hit, idle = actual & predicted, ~actual
    return {
        "roc_auc": lambda: _roc_auc(actual, prediction),
        "f1": lambda: _share(
            hit,
            (actual.astype(np.float64) + predicted) / 2.0,
            "f1 needs a label or a prediction of 1",
        ),
        "log_loss": lambda: _log_loss(actual, prediction),
        "accuracy": lambda: _mean((actual == predicted).astype(np.float64)),
        "precision": lambda: _share(hit, predicted, "precision needs a prediction of 1"),
        "recall": lambda: _share(hit, actual, "recall needs a label of 1"),
        "tpr": lambda: _share(hit, actual, "tpr needs a label of 1"),
        "tnr": lambda: _share(idle & ~predicted, idle, "tnr needs a label of 0"),
        "fpr": lambda: _share(idle & predicted, idle, "fpr needs a label of 0"),
        "fnr": lambda: _share(actual & ~predicted, actual, "fnr needs a label of 1"),
    }


# -- metrics --------------------------------------------------------------------------------


def _mean(rows: Floats) -> Estimate:
    value = float(np.mean(rows))
    return value, rows - value


def _root(squared: Floats) -> Estimate:
    value = float(np.sqrt(np.mean(squared)))
    if value == 0.0:
        return 0.0, np.zeros_like(squared)
    return value, (squared - value**2) / (2.0 * value)


def _r2(label: Floats, squared: Floats) -> Estimate:
    spread = (label - np.mean(label)) ** 2
    if len(label) < FEWEST or not np.sum(spread) > 0.0:
        raise Unmeasurable("r2 needs labels that differ")
    with np.errstate(over="ignore", invalid="ignore"):
        value = float(1.0 - np.sum(squared) / np.sum(spread))
        if not np.isfinite(value):  # as Evidently's, but minus infinity is no reading
            raise Unmeasurable("r2 needs labels that differ")
        return value, ((1.0 - value) * spread - squared) / np.mean(spread)


def _mape(label: Floats, size: Floats, *, below: bool) -> Estimate:
    if not below and (negative := int(np.count_nonzero(label < -NEAR_ZERO))):
        raise Unmeasurable(f"{negative} of {len(label)} labels are negative; mape_abs takes them")
    told = np.abs(label) > NEAR_ZERO
    return _mean(100.0 * np.divide(size, np.abs(label), out=np.ones_like(size), where=told))


def _share(part: Mask, whole: Mask | Floats, needed: str) -> Estimate:
    """Return how much of `whole` is `part`; `needed` says what a whole of nothing lacks."""
    if not whole.any():
        raise Unmeasurable(needed)
    value = float(np.sum(part)) / float(np.sum(whole))
    return value, (part - value * whole) / np.mean(whole)


def _log_loss(actual: Mask, prediction: Floats) -> Estimate:
    outside = int(np.count_nonzero((prediction < 0.0) | (prediction > 1.0)))
    if outside:
        raise Unmeasurable(f"{outside} of {len(prediction)} predictions are not probabilities")
    # The same clipping as scikit-learn's, which Evidently calls.
    eps = float(np.finfo(np.float64).eps)
    likely = np.where(actual, prediction, 1.0 - prediction)
    return _mean(-np.log(np.clip(likely, eps, 1.0 - eps)))


def _roc_auc(actual: Mask, prediction: Floats) -> Estimate:
    """Return the area under the ROC curve, ties counting half (Mann and Whitney 1947).

    It is the mean of the areas of p and of 1 - p, as in Evidently: probabilities below 1e-16
    differ in the one and are ties in the other.
    """
    n = len(actual)
    if actual.all() or not actual.any():
        raise Unmeasurable(f"roc_auc needs both classes; all {n} labels are {int(actual[0])}")
    values, rank = np.unique(prediction, return_inverse=True)
    value, influence = _area(actual, rank)
    if (tied := np.diff(1.0 - values) == 0.0).any():
        coarse, also = _area(actual, np.append(0, np.cumsum(~tied))[rank])
        value, influence = (value + coarse) / 2.0, (influence + also) / 2.0
    return value, influence


def _area(actual: Mask, rank: Codes) -> tuple[float, Floats]:
    """Return the area under the ROC curve and each row's influence on it."""
    of_ones, of_all = np.bincount(rank, weights=actual), np.bincount(rank)
    n, ones = len(actual), int(np.count_nonzero(actual))
    # Placements (DeLong 1988): for each row the share of the other class that it beats.
    beaten = _midway(of_all - of_ones) / (n - ones)
    lost = 1.0 - _midway(of_ones) / ones
    placed = np.where(actual, beaten[rank], lost[rank])
    value = float(np.mean(placed[actual]))
    return value, (placed - value) * np.where(actual, n / ones, n / (n - ones))


def _midway(counts: Floats | Codes) -> Floats:
    """Return how many stand below each rank, and half of those in it."""
    counts = counts.astype(np.float64)
    found: Floats = np.cumsum(counts) - counts / 2.0
    return found


def _macro(label: Floats, prediction: Floats, *, of_label: float, of_prediction: float) -> Estimate:
    """Return the mean over classes of hits / base, and its influence values.

    A row counts `of_label` in the base of its true class and `of_prediction` in that of its
    predicted one. A class with nothing in its base, as of one never predicted the precision,
    counts 0, as scikit-learn has it.
    """
    classes, codes = np.unique(np.concatenate([label, prediction]), return_inverse=True)
    true, said = codes[: len(label)], codes[len(label) :]
    hit = (true == said).astype(np.float64)
    count = len(classes)
    hits = np.bincount(true, weights=hit, minlength=count)
    base = of_label * np.bincount(true, minlength=count)
    base += of_prediction * np.bincount(said, minlength=count)
    ratio = np.divide(hits, base, out=np.zeros(count), where=base > 0.0)
    # A mean of ratios, each linearised like any other: (hit - ratio * base) / mean(base).
    weight = np.divide(len(label), base, out=np.zeros(count), where=base > 0.0) / count
    pull = of_label * weight[true] * (hit - ratio[true])
    pull += of_prediction * weight[said] * (hit - ratio[said])
    return float(ratio.mean()), pull


# -- readings -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Labelled:
    """The rows that can be scored; `usable` says which of the table's they are."""

    label: Floats
    prediction: Floats
    block: Codes | None
    usable: Mask

    def part(self, at: Codes) -> "_Labelled":
        """Return the rows at these places."""
        block = None if self.block is None else _numbered(self.block[at])
        return _Labelled(self.label[at], self.prediction[at], block, self.usable)


def _labelled(own: Rows, family: Family) -> _Labelled:
    if not own.num_rows:
        raise Unmeasurable("no labels")
    label = numbers(own, "label", of=OF)
    prediction = numbers(own, "prediction", of=OF)
    usable: Mask = np.isfinite(label) & np.isfinite(prediction)
    n = int(np.count_nonzero(usable))
    if not n:
        raise Unmeasurable("no labels")
    block = blocks(own, family.window.block)
    label, prediction = label[usable], prediction[usable]
    check_outcomes(family, label, prediction, n)
    return _Labelled(label, prediction, None if block is None else _numbered(block[usable]), usable)


def _numbered(block: Codes) -> Codes:
    found: Codes = np.unique(block, return_inverse=True)[1]
    return found


def _measured(
    family: Family,
    metrics: tuple[str, ...],
    rows: _Labelled,
    baselines: Mapping[str, float],
    *,
    segment: str | None = None,
) -> Iterator[Reading]:
    """Yield the readings of `metrics`."""
    with np.errstate(over="ignore", invalid="ignore"):
        found = estimates(family.task, rows.label, rows.prediction)
    for metric in metrics:
        try:
            value, influence = _finite(metric, found[metric])
        except Unmeasurable as problem:
            yield _unmeasured(metric, problem, len(rows.label), baselines, segment=segment)
            continue
        low, high = interval(value, influence, rows.block)
        yield Reading(
            kind=Kind.DECAY,
            metric=metric,
            column=None,
            value=value,
            n=len(rows.label),
            low=within(low, metric),
            high=within(high, metric),
            baseline=baselines.get(metric),
            segment=segment,
        )


def _segments(family: Family, own: Rows, rows: _Labelled) -> Iterator[Reading]:
    """Yield the judged metric of each segment with `window.min_labels` rows, the largest first.

    Of a column at most `SEGMENTS` levels are told apart. What is left is measured together, as
    "carrier (other)"; rows without a value are a level too, "carrier (null)". A segment has no
    baseline: the gate's rows are too few for one.
    """
    if family.decay is None:
        return
    judged, least = (family.decay.metric,), family.window.min_labels
    for column in family.segments:
        try:
            codes, names = texts(own, column, of=OF)
        except Unmeasurable as problem:
            yield _unmeasured(*judged, problem, len(rows.label), {}, segment=column)
            continue
        level = codes[rows.usable] + 1  # 0 is null
        size = np.bincount(level, minlength=len(names) + 1)
        largest = np.argsort(-size, kind="stable")[:SEGMENTS]
        alone = largest[size[largest] >= least]
        group = np.full(len(size), len(alone))
        group[alone] = np.arange(len(alone))
        group = group[level]
        ends = np.cumsum(np.bincount(group, minlength=len(alone) + 1))
        called = [
            f"{column}={names[at - 1]}" if at else f"{column} (null)" for at in alone.tolist()
        ]
        places = np.split(np.argsort(group, kind="stable"), ends[:-1])
        for segment, at in zip((*called, f"{column} (other)"), places, strict=True):
            if len(at) >= least:
                yield from _measured(family, judged, rows.part(at), {}, segment=segment)


def _finite(metric: str, estimate: Callable[[], Estimate]) -> Estimate:
    with np.errstate(over="ignore", invalid="ignore"):
        value, influence = estimate()
    if not np.isfinite(value):
        raise Unmeasurable(f"{metric} is {value}: a label or a prediction is too large")
    return value, influence


def _unmeasured(
    metric: str,
    problem: Unmeasurable,
    n: int,
    baselines: Mapping[str, float],
    *,
    segment: str | None = None,
) -> Reading:
    return Reading(
        kind=Kind.DECAY,
        metric=metric,
        column=None,
        value=None,
        n=n,
        baseline=baselines.get(metric),
        problem=str(problem),
        segment=segment,
    )


_LIVES: Mapping[str, tuple[float, float]] = {
    **dict.fromkeys(
        ("mae", "rmse", "mape", "mape_abs", "abs_max_error", "log_loss"), (0.0, np.inf)
    ),
    "mean_error": (-np.inf, np.inf),
    "r2": (-np.inf, 1.0),
}
"""Between what a metric can be; the others are shares."""
