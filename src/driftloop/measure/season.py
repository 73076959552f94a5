"""Usual levels by hour of the week, shrunk towards coarser ones where rows are few.

Between the middles of two hours the level is a straight line, with a step at the full hour where
the slices round it surely show one: where a weekday begins, in whatever time zone.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from driftloop.measure.columns import Floats

HOURS = 168
HOUR, DAY = 3600.0, 86_400.0
FEWEST_DAYS = 3
"""From so many days on there is something to tell hours of the day apart by."""
FEWEST_WEEKS = 2
TURNS = 3
SURE_OF_STEPS = 3.5
"""A step is taken to be there from so many standard errors on: there are 168 places for one."""


@dataclass(frozen=True, slots=True)
class Season:
    """Levels (336, k), the variances of their errors, and that of the error they share (k,).

    The first 168 levels are those of the hours, at their middle; the others how much higher than
    a straight line an hour begins, than the one before it ends. The shared error is infinite where
    all is of one day: of how days differ that tells nothing.
    """

    levels: Floats
    errors: Floats
    common: Floats


def middles(times: Floats, cadence: float) -> Floats:
    """Return the middles of the slices that moments lie in, of an hour at most: as in training."""
    grain = min(cadence, HOUR)
    found: Floats = (np.floor(times / grain) + 0.5) * grain
    return found


def positions(times: Floats, slices: NDArray[np.int64] | None = None, count: int = 0) -> Floats:
    """Return how moments lie between the middles of the hours of the week, and by the full hours.

    Times the levels of `Season` it is the usual level. The first 168 of a row sum to 1. Of the
    others, one for the beginning of each hour, those of a moment are all 0 but for the full hour
    that is next to it: there it is the part of the way from the nearest middle of an hour, of 1/2
    at the full hour, negative before it. So a straight line over a step is bent up to the step.

    Args:
        times: shape (n,), seconds since 1970.
        slices: shape (n,), the slice of each moment; each is one itself if that is not given.
        count: how many slices there are.

    Returns:
        Shape (slices, 336), means over the moments of each; without any all is 0.

    >>> positions(np.array([1800.0]))[0, :2], positions(np.array([3600.0]))[0, :2]
    (array([1., 0.]), array([0.5, 0.5]))
    >>> positions(np.array([3540.0, 3660.0]))[:, HOURS + 1].round(2)
    array([-0.48,  0.48])
    """
    at = times / HOUR - 0.5
    first = np.floor(at)
    part = at - first
    hour = first.astype(np.int64) % HOURS
    if slices is None:
        slices, count = np.arange(len(times)), len(times)
    size, begin, following = count * 2 * HOURS, slices * 2 * HOURS, (hour + 1) % HOURS
    found = np.bincount(begin + hour, weights=1.0 - part, minlength=size)
    found += np.bincount(begin + following, weights=part, minlength=size)
    found += np.bincount(begin + HOURS + following, weights=_bent(part), minlength=size)
    found = found.reshape(count, 2 * HOURS)
    whole = found[:, :HOURS].sum(axis=1, keepdims=True)
    shares: Floats = np.divide(found, whole, out=found, where=whole > 0.0)
    return shares


def season(means: Floats, weights: Floats, times: Floats) -> Season:
    """Return the levels of hours of the week as hour of the day + day of the week + what is left.

    Each of the three is shrunk by the share of its variance that is no noise (empirical Bayes;
    Morris 1983, "Parametric Empirical Bayes Inference"). Noise is what differs between days, for
    hours of the day, and between weeks for the others: no correlation within a day hides it.

    Args:
        means: shape (slices, k).
        weights: shape (slices, k), how much each tells; 0 for what is not there.
        times: shape (slices,), seconds since 1970, ascending.
    """
    hour, value, weight = _grouped(np.floor(times / HOUR).astype(np.int64), means, weights)
    day = hour // 24
    overall = (weight * value).sum(axis=0) / np.maximum(weight.sum(axis=0), 1e-300)
    k, span = means.shape[1], (day[-1] - day[0] + 1 if len(day) else 0)
    of_week = np.arange(HOURS)
    parts = []
    if span >= FEWEST_DAYS:
        parts.append((hour % 24, of_week % 24, 24, hour))
    if span >= 7 * FEWEST_WEEKS:
        parts.append((day % 7, of_week // 24, 7, day))
        parts.append((hour % HOURS, of_week, HOURS, hour))
    told = [np.zeros((count, k)) for _, _, count, _ in parts]
    wrong = list(told)
    # In turns, each of what the others leave: their differences are then no noise to it.
    for _ in range(TURNS if len(parts) > 1 else 1):
        for at, (key, _, count, unit) in enumerate(parts):
            others = (told[other][each[0]] for other, each in enumerate(parts) if other != at)
            left = value - overall - sum(others)
            told[at], wrong[at] = _level(key, unit, left, weight, count)
    levels, errors = np.zeros((HOURS, k)) + overall, np.zeros((HOURS, k))
    for (_, of_hour, _, _), shrunk, error in zip(parts, told, wrong, strict=True):
        levels += shrunk[of_hour]
        errors += error[of_hour]
    left = value - overall - sum(each[part[0]] for part, each in zip(parts, told, strict=True))
    _, of_days, day_weight = _grouped(day, left, weight)
    steps, unsure = _steps(means - positions(times)[:, :HOURS] @ levels, weights, times, span)
    return Season(
        np.concatenate([levels, steps]),
        np.concatenate([errors, unsure]),
        _spread_of_mean(of_days, day_weight),
    )


def _bent(part: Floats) -> Floats:
    found: Floats = np.floor(part + 0.5) - part
    return found


def _steps(left: Floats, weights: Floats, times: Floats, span: int) -> tuple[Floats, Floats]:
    """Return the steps of levels at the full hours of a week, and the variances of their errors.

    Each time that a full hour goes by tells of its step. By how much these differ from each other,
    one full hour with the next, says how sure their mean is, however the noise goes on. First come
    the steps of every day, then what weekdays have beside these.

    Args:
        left: shape (slices, k), what is left of the means where levels are straight lines.
        weights: shape (slices, k).
        times: shape (slices,).
        span: in days.
    """
    at = times / HOUR - 0.5
    begins = np.floor(at).astype(np.int64) + 1
    bent = _bent(at - np.floor(at))[:, None]
    starts = np.flatnonzero(np.diff(begins, prepend=begins[:1] - 1))
    weight = np.add.reduceat(weights * bent**2, starts, axis=0)
    sums = np.add.reduceat(weights * bent * left, starts, axis=0)
    each = np.divide(sums, weight, out=np.zeros_like(sums), where=weight > 0.0)
    steps, unsure = np.zeros((HOURS, left.shape[1])), np.zeros((HOURS, left.shape[1]))
    of_week, begins = np.arange(HOURS), begins[starts]
    for count, fewest in ((24, FEWEST_DAYS), (HOURS, 7 * FEWEST_WEEKS)):
        if span < fewest:
            continue
        _, mean, error = _means(begins % count, each - steps[begins % HOURS], weight, count)
        sure = mean**2 > SURE_OF_STEPS**2 * error
        steps += np.where(sure, mean, 0.0)[of_week % count]
        unsure += np.where(sure, error, 0.0)[of_week % count]
    return steps, unsure


def _means(
    key: NDArray[np.int64], value: Floats, weight: Floats, count: int
) -> tuple[Floats, Floats, Floats]:
    """Return the weight of each of `count` groups, their means, and the variances of these."""
    which = np.zeros((count, len(key)))
    which[key, np.arange(len(key))] = 1.0
    whole: Floats = which @ weight
    mean = np.divide(which @ (weight * value), whole, out=np.zeros_like(whole), where=whole > 0)
    free = np.maximum((weight > 0.0).sum(axis=0) - (whole > 0.0).sum(axis=0), 1)
    within = (weight * (value - mean[key]) ** 2).sum(axis=0) / free
    return whole, mean, np.divide(within, whole, out=np.zeros_like(whole), where=whole > 0)


def _grouped(
    key: NDArray[np.int64], values: Floats, weights: Floats
) -> tuple[NDArray[np.int64], Floats, Floats]:
    """Return keys, which ascend, each once, with the mean of its values and their weight."""
    starts = np.flatnonzero(np.diff(key, prepend=key[:1] - 1))
    whole = np.add.reduceat(weights, starts, axis=0)
    sums = np.add.reduceat(weights * values, starts, axis=0)
    return key[starts], np.divide(sums, whole, out=np.zeros_like(sums), where=whole > 0), whole


def _spread_of_mean(left: Floats, weights: Floats) -> Floats:
    """Return the variance of a weighted mean, of how far its parts lie from it; inf of one part."""
    count = (weights > 0.0).sum(axis=0)
    whole = np.maximum(weights.sum(axis=0), 1e-300)
    pull = (weights**2 * left**2).sum(axis=0) / whole**2
    found: Floats = np.where(count > 1, pull * count / np.maximum(count - 1, 1), np.inf)
    return found


def _level(
    key: NDArray[np.int64],
    unit: NDArray[np.int64],
    left: Floats,
    weight: Floats,
    count: int,
) -> tuple[Floats, Floats]:
    """Return the shrunk mean of each of `count` groups of hours, and its error's variance.

    Hours of one `unit` of time are not independent of each other: each counts once.
    """
    _, value, weight = _grouped(unit, left, weight)
    starts = np.flatnonzero(np.diff(unit, prepend=unit[:1] - 1))
    whole, mean, noise = _means(key[starts], value, weight, count)
    groups = (whole > 0.0).sum(axis=0)
    told = np.where(whole > 0.0, mean, 0.0)
    middle = told.sum(axis=0) / np.maximum(groups, 1)
    told = np.where(whole > 0.0, told - middle, 0.0)
    true = (told**2 - noise).sum(axis=0) / np.maximum(groups - 1, 1)
    true = np.where(groups > 1, np.maximum(true, 0.0), 0.0)
    kept = np.divide(true, true + noise, out=np.zeros_like(noise), where=true + noise > 0.0)
    kept = np.where(whole > 0.0, kept, 0.0)
    # An hour that was never seen is as its kind is, give or take what they differ.
    error = np.where(whole > 0.0, kept * noise, true)
    return kept * told, error
