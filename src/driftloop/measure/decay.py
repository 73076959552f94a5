"""How well the champion does on its own labelled rows, and how sure that is.

Each metric is given with its influence values: how much each row pulls the metric away from
where it stands. Their sum over a day is what that day contributes to the error, whatever the
metric, so one interval serves them all.
"""

from collections.abc import Callable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from driftloop.measure.columns import Codes, Floats, Unmeasurable, blocks, no_class, numbers
from driftloop.records import Kind, Reading, Task
from driftloop.rows import Rows
from driftloop.spec import LOSSES, METRICS, Family

CONFIDENCE = 0.9
THRESHOLD = 0.5
FEWEST = 2
"""Fewer days, or fewer labels of a class, have no spread to speak of."""

Estimate = tuple[float, Floats]
"""A metric's value, and the influence of each row on it (their mean is 0)."""


def decay_readings(family: Family, own: Rows, baselines: Mapping[str, float]) -> Iterator[Reading]:
    """Yield one reading for each metric of the family's task, over rows with a label.

    Values are Evidently's: MAE, RMSE and R2, or ROC AUC, F1, log loss and accuracy with 1
    predicted from 0.5 on, or of many classes accuracy and the macro averages of F1, precision and
    recall, over the classes that are predicted or true somewhere. Scores have none. `n` counts the
    rows with both a label and a prediction; `low` and `high` are the interval of `interval`.
    """
    try:
        label, prediction, block = _labelled(own, family)
    except Unmeasurable as problem:
        for metric in METRICS[family.task]:
            yield _unmeasured(metric, problem, problem.n, baselines)
        return
    for metric in METRICS[family.task]:
        try:
            value, influence = _estimate(family.task, metric, label, prediction)
        except Unmeasurable as problem:
            yield _unmeasured(metric, problem, len(label), baselines)
            continue
        low, high = interval(value, influence, block)
        yield Reading(
            kind=Kind.DECAY,
            metric=metric,
            column=None,
            value=value,
            n=len(label),
            low=_within(low, metric),
            high=_within(high, metric),
            baseline=baselines.get(metric),
        )


def interval(
    value: float, influence: Floats, block: Codes | None
) -> tuple[float, float] | tuple[None, None]:
    """Return a 90 % interval of an estimate whose rows are correlated within a block of time.

    The variance is clustered by block, a day if the family says nothing else (Liang and Zeger
    1986, with the correction G/(G-1) of Cameron and Miller 2015), of the estimate linearised in
    its rows (Deville 1999; for ROC AUC Obuchowski 1997); the quantile is Student's with G-1
    degrees of freedom. With 14 days it covers 85 to 90 %, where the percentiles of a bootstrap
    over days cover 80 to 85 %.

    Args:
        value: the estimate.
        influence: shape (rows,), in the unit of `value`, mean 0.
        block: shape (rows,), the cluster of each row; None when it is unknown.

    Returns:
        Low and high; None twice where there are fewer than two blocks, or no spread at all.

    >>> low, high = interval(0.0, np.array([-1.0, 1.0, -1.0, 1.0]), np.array([1, 2, 3, 4]))
    >>> round(high, 3)
    1.359
    """
    from scipy.special import stdtrit

    if block is None:
        return None, None
    _, cluster = np.unique(block, return_inverse=True)
    pull = np.bincount(cluster, weights=influence)
    count = len(pull)
    if count < FEWEST:
        return None, None
    with np.errstate(over="ignore", invalid="ignore"):
        error = float(np.sqrt(count / (count - 1) * np.sum(pull**2))) / len(influence)
    if not 0.0 < error < np.inf:
        return None, None
    half = float(stdtrit(count - 1, (1.0 + CONFIDENCE) / 2.0)) * error
    return value - half, value + half


def mae(label: Floats, prediction: Floats) -> Estimate:
    """Return the mean absolute error."""
    return _mean(np.abs(label - prediction))


def rmse(label: Floats, prediction: Floats) -> Estimate:
    """Return the root of the mean squared error."""
    squared = (label - prediction) ** 2
    value = float(np.sqrt(np.mean(squared)))
    if value == 0.0:
        return 0.0, np.zeros_like(squared)
    return value, (squared - value**2) / (2.0 * value)


def r2(label: Floats, prediction: Floats) -> Estimate:
    """Return the coefficient of determination."""
    spread = (label - np.mean(label)) ** 2
    if len(label) < FEWEST or not np.sum(spread) > 0.0:
        raise Unmeasurable("r2 needs labels that differ")
    squared = (label - prediction) ** 2
    value = float(1.0 - np.sum(squared) / np.sum(spread))
    return value, ((1.0 - value) * spread - squared) / np.mean(spread)


def accuracy(label: Floats, prediction: Floats) -> Estimate:
    """Return the share of rows predicted right."""
    return _mean(((prediction >= THRESHOLD) == (label == 1.0)).astype(np.float64))


def log_loss(label: Floats, prediction: Floats) -> Estimate:
    """Return the mean logistic loss, natural logarithm, probabilities kept off 0 and 1."""
    outside = int(np.count_nonzero((prediction < 0.0) | (prediction > 1.0)))
    if outside:
        raise Unmeasurable(f"{outside} of {len(label)} predictions are not probabilities")
    # The same clipping as scikit-learn's, which Evidently calls.
    eps = float(np.finfo(np.float64).eps)
    likely = np.where(label == 1.0, prediction, 1.0 - prediction)
    return _mean(-np.log(np.clip(likely, eps, 1.0 - eps)))


def f1(label: Floats, prediction: Floats) -> Estimate:
    """Return the harmonic mean of precision and recall for the label 1."""
    actual, predicted = label == 1.0, prediction >= THRESHOLD
    hit = (actual & predicted).astype(np.float64)
    base = (actual.astype(np.float64) + predicted) / 2.0
    if not base.any():
        raise Unmeasurable("f1 needs a label or a prediction of 1")
    value = float(np.sum(hit) / np.sum(base))
    return value, (hit - value * base) / np.mean(base)


def roc_auc(label: Floats, prediction: Floats) -> Estimate:
    """Return the area under the ROC curve, ties counting half (Mann and Whitney 1947)."""
    actual = label == 1.0
    positives, negatives = np.sort(prediction[actual]), np.sort(prediction[~actual])
    if not len(positives) or not len(negatives):
        raise Unmeasurable(f"roc_auc needs both classes; all {len(label)} labels are {label[0]:g}")
    # Placements (DeLong 1988): for each row the share of the other class that it beats.
    placed = np.where(
        actual, _share_below(prediction, negatives), 1.0 - _share_below(prediction, positives)
    )
    value = float(np.mean(placed[actual]))
    weight = np.where(actual, len(label) / len(positives), len(label) / len(negatives))
    return value, (placed - value) * weight


def agreement(label: Floats, prediction: Floats) -> Estimate:
    """Return the share of rows whose class is predicted right."""
    return _mean((prediction == label).astype(np.float64))


def macro_precision(label: Floats, prediction: Floats) -> Estimate:
    """Return the mean over classes of the share of a class's predictions that are right."""
    return _macro(label, prediction, of_label=0.0, of_prediction=1.0)


def macro_recall(label: Floats, prediction: Floats) -> Estimate:
    """Return the mean over classes of the share of a class's rows that are predicted right."""
    return _macro(label, prediction, of_label=1.0, of_prediction=0.0)


def macro_f1(label: Floats, prediction: Floats) -> Estimate:
    """Return the mean over classes of the harmonic mean of precision and recall."""
    return _macro(label, prediction, of_label=0.5, of_prediction=0.5)


_OF_CLASSES: Mapping[str, Callable[[Floats, Floats], Estimate]] = {
    "accuracy": agreement,
    "f1": macro_f1,
    "precision": macro_precision,
    "recall": macro_recall,
}
_ESTIMATES: Mapping[str, Callable[[Floats, Floats], Estimate]] = {
    "mae": mae,
    "rmse": rmse,
    "r2": r2,
    "roc_auc": roc_auc,
    "f1": f1,
    "log_loss": log_loss,
    "accuracy": accuracy,
}


def _labelled(own: Rows, family: Family) -> tuple[Floats, Floats, Codes | None]:
    if not own.num_rows:
        raise Unmeasurable("no labels")
    label = numbers(own, "label", of="the champion's rows")
    prediction = numbers(own, "prediction", of="the champion's rows")
    usable: NDArray[np.bool_] = np.isfinite(label) & np.isfinite(prediction)
    n = int(np.count_nonzero(usable))
    if not n:
        raise Unmeasurable("no labels")
    block = blocks(own, family.window.block)
    label, prediction = label[usable], prediction[usable]
    if family.task is Task.BINARY and (
        odd := int(np.count_nonzero((label != 0.0) & (label != 1.0)))
    ):
        raise Unmeasurable(f"{odd} of {n} labels are neither 0 nor 1", n=n)
    if family.task is Task.MULTICLASS:
        for name, values in (("labels", label), ("predictions", prediction)):
            if odd := int(np.count_nonzero(no_class(values, family))):
                raise Unmeasurable(
                    f"{odd} of {n} {name} are none of the {len(family.classes)} classes", n=n
                )
    return label, prediction, None if block is None else block[usable]


def _estimate(task: Task, metric: str, label: Floats, prediction: Floats) -> Estimate:
    estimates = _OF_CLASSES if task is Task.MULTICLASS else _ESTIMATES
    with np.errstate(over="ignore", invalid="ignore"):
        value, influence = estimates[metric](label, prediction)
    if not np.isfinite(value):
        raise Unmeasurable(f"{metric} is {value}: a label or a prediction is too large")
    return value, influence


def _unmeasured(
    metric: str, problem: Unmeasurable, n: int, baselines: Mapping[str, float]
) -> Reading:
    return Reading(
        kind=Kind.DECAY,
        metric=metric,
        column=None,
        value=None,
        n=n,
        baseline=baselines.get(metric),
        problem=str(problem),
    )


def _within(bound: float | None, metric: str) -> float | None:
    # No error is below 0 and no share above 1, whatever the normal approximation says.
    if bound is None:
        return None
    floor = -np.inf if metric == "r2" else 0.0
    ceiling = np.inf if metric in LOSSES else 1.0
    return float(min(max(bound, floor), ceiling))


def _mean(rows: Floats) -> Estimate:
    value = float(np.mean(rows))
    return value, rows - value


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


def _share_below(values: Floats, others: Floats) -> Floats:
    left = np.searchsorted(others, values, side="left")
    right = np.searchsorted(others, values, side="right")
    share: Floats = (left + right) / (2.0 * len(others))
    return share
