"""Metrics of rows whose outcome is known in part: of outcomes that stand for what is to come.

A pseudo-outcome is a number where a label would stand: the label itself, a probability, or a label
weighted for those that are not here yet. Each metric is linear in them, or a smooth function of
sums that are; of labels that are all here it is the plain metric. With all of them expected the
metrics of a binary model are those of confidence-based performance estimation (CBPE).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from driftloop.measure.columns import Floats, Unmeasurable
from driftloop.measure.decay import NEAR_ZERO, THRESHOLD
from driftloop.records import Task
from driftloop.spec import Family

CLASSES = 30
"""Of more classes no average over classes is estimated."""
EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, slots=True)
class Scored:
    """A metric of pseudo-outcomes.

    `influence`, shape (rows,), is how far each row pulls it from where it stands; their mean is 0.
    `slope`, shape (rows, outcomes), is how much it changes, times the rows, with each outcome.
    """

    value: float
    influence: Floats
    slope: Floats


def outcomes(family: Family, metric: str, label: Floats, prediction: Floats) -> Floats:
    """Return the outcomes that `metric` is made of, shape (rows, outcomes); NaN without a label.

    Raises:
        Unmeasurable: the metric is no sum over rows, so nothing can be said of those to come.
    """
    if family.task is Task.BINARY:
        return label[:, None]
    if family.task is Task.MULTICLASS:
        if metric == "accuracy":
            return np.where(np.isnan(label), np.nan, prediction == label)[:, None]
        count = len(family.classes)
        if count > CLASSES:
            raise Unmeasurable(f"{metric} of {count} classes is not estimated before its labels")
        each = (label[:, None] == np.arange(count)).astype(np.float64)
        return np.where(np.isnan(label)[:, None], np.nan, each)
    return _of_numbers(metric, label, prediction)


def scored(family: Family, metric: str, prediction: Floats, outcome: Floats) -> Scored:
    """Return `metric` of pseudo-outcomes as `outcomes` has them, all finite.

    Raises:
        Unmeasurable: it has no value, as a share of nothing.
    """
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        if family.task is Task.BINARY:
            found = _binary(metric, prediction, outcome[:, 0])
        elif family.task is Task.MULTICLASS and metric != "accuracy":
            found = _macro(metric, prediction, outcome)
        else:
            found = _numbers(metric, outcome)
    if not np.isfinite(found.value):
        raise Unmeasurable(f"{metric} is {found.value}")
    return found


def _of_numbers(metric: str, label: Floats, prediction: Floats) -> Floats:
    error = prediction - label
    size = np.abs(error)
    if metric in ("mape", "mape_abs"):
        told = np.abs(label) > NEAR_ZERO
        if metric == "mape" and (label < -NEAR_ZERO).any():
            raise Unmeasurable("labels are negative; mape_abs takes them")
        share = np.divide(size, np.abs(label), out=np.ones_like(size), where=told)
        return np.where(np.isnan(label), np.nan, 100.0 * share)[:, None]
    match metric:
        case "mae":
            return size[:, None]
        case "mean_error":
            return error[:, None]
        case "rmse":
            return (error**2)[:, None]
        case "r2":
            return np.stack([error**2, label, label**2], axis=1)
    raise Unmeasurable(f"{metric} is no sum over rows: nothing is known of labels to come")


def _numbers(metric: str, outcome: Floats) -> Scored:
    mean = outcome.mean(axis=0)
    away = outcome - mean
    if metric == "rmse":
        value = float(np.sqrt(max(mean[0], 0.0)))
        slope = np.full_like(outcome, 0.5 / value if value else 0.0)
    elif metric == "r2":
        squares, middle, spread = mean[0], mean[1], mean[2] - mean[1] ** 2
        if not spread > 0.0:
            raise Unmeasurable("r2 needs labels that differ")
        value = float(1.0 - squares / spread)
        pulls = [-1.0 / spread, -2.0 * middle * squares / spread**2, squares / spread**2]
        slope = np.tile(pulls, (len(outcome), 1))
    else:
        value, slope = float(mean[0]), np.ones_like(outcome)
    return Scored(value, (slope * away).sum(axis=1), slope)


def _binary(metric: str, prediction: Floats, one: Floats) -> Scored:
    said = (prediction >= THRESHOLD).astype(np.float64)
    if metric == "roc_auc":
        return _area(prediction, one)
    if metric == "accuracy":
        return _line(one * said + (1.0 - one) * (1.0 - said), 2.0 * said - 1.0)
    if metric == "log_loss":
        score = np.clip(prediction, EPS, 1.0 - EPS)
        loss = -(one * np.log(score) + (1.0 - one) * np.log(1.0 - score))
        return _line(loss, np.log((1.0 - score) / score))
    # A share: part over whole, and how each changes with the outcome.
    zero, unsaid, n = 1.0 - one, 1.0 - said, np.zeros_like(one)
    parts: Mapping[str, tuple[Floats, Floats, Floats, Floats]] = {
        "f1": (one * said, said, (one + said) / 2.0, n + 0.5),
        "precision": (one * said, said, said, n),
        "recall": (one * said, said, one, n + 1.0),
        "tpr": (one * said, said, one, n + 1.0),
        "tnr": (zero * unsaid, -unsaid, zero, n - 1.0),
        "fpr": (zero * said, -said, zero, n - 1.0),
        "fnr": (one * unsaid, unsaid, one, n + 1.0),
    }
    part, of_part, whole, of_whole = parts[metric]
    base = float(whole.mean())
    if not base > 0.0:
        raise Unmeasurable(f"{metric} is a share of nothing")
    value = float(part.mean()) / base
    return Scored(
        value, (part - value * whole) / base, ((of_part - value * of_whole) / base)[:, None]
    )


def _line(rows: Floats, slope: Floats) -> Scored:
    value = float(rows.mean())
    return Scored(value, rows - value, slope[:, None])


def _area(prediction: Floats, one: Floats) -> Scored:
    """Return the area under the ROC curve: the share of pairs in order, ties counting half."""
    rank = np.unique(prediction, return_inverse=True)[1]
    ones = np.bincount(rank, weights=one)
    zeros = np.bincount(rank, weights=1.0 - one)
    total, others = float(ones.sum()), float(zeros.sum())
    if not (total > 0.0 and others > 0.0):
        raise Unmeasurable("roc_auc needs both classes")
    below = (np.cumsum(zeros) - zeros / 2.0)[rank]
    above = (total - np.cumsum(ones) + ones / 2.0)[rank]
    value = float(np.sum(one * below)) / (total * others)
    n = len(one)
    pull = one * (below / others - value) * n / total
    pull += (1.0 - one) * (above / total - value) * n / others
    slope = n * ((below - above) / (total * others) - value * (1.0 / total - 1.0 / others))
    return Scored(value, pull, slope[:, None])


def _macro(metric: str, prediction: Floats, outcome: Floats) -> Scored:
    """Return a mean over the classes that are predicted or, somewhere, true."""
    of_label, of_said = {"f1": (0.5, 0.5), "precision": (0.0, 1.0), "recall": (1.0, 0.0)}[metric]
    n, count = outcome.shape
    said = np.zeros_like(outcome)
    said[np.arange(n), prediction.astype(np.int64)] = 1.0
    seen = said.any(axis=0) | (outcome.sum(axis=0) >= 0.5)  # noqa: PLR2004 - half a row
    hits, base = outcome * said, of_label * outcome + of_said * said
    whole = base.mean(axis=0)
    there = seen & (whole > 0.0)
    ratio = np.divide(hits.mean(axis=0), whole, out=np.zeros(count), where=there)
    weight = np.divide(1.0 / seen.sum(), whole, out=np.zeros(count), where=there)
    pull = ((hits - ratio * base) * weight).sum(axis=1)
    return Scored(float(ratio[seen].mean()), pull, (said - ratio * of_label) * weight)
