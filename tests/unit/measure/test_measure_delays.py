"""How late labels are, and for how many rows an early one stands."""

import numpy as np
import pytest
from numpy.typing import NDArray

from driftloop.measure.columns import Unmeasurable
from driftloop.measure.delays import learnt, overdue, strata, weights

Floats = NDArray[np.float64]
DAY = 86400.0
WEEK = 7 * DAY


def world(n: int, *, seed: int, slow: float = 2.0, never: float = 0.0) -> tuple[Floats, ...]:
    """Return age, label and delay of rows over 14 days; ones come fast, zeros `slow` days later."""
    rng = np.random.default_rng(seed)
    age = rng.uniform(0.0, 14 * DAY, n)
    label = (rng.random(n) < 0.3).astype(np.float64)
    delay = rng.exponential(np.where(label == 1.0, 0.3, slow)) * DAY
    delay[rng.random(n) < never] = np.inf
    return age, label, np.where(delay <= age, delay, np.nan)


def test_each_outcome_has_its_own_delay() -> None:
    """Labels that are seen only because they came fast do not make the others look fast."""
    age, label, delay = world(20_000, seed=1)
    label[np.isnan(delay)] = np.nan
    found = learnt(delay, age, strata(label, classes=True), WEEK)
    ages = np.array([0.5, 1.0, 3.0]) * DAY
    for outcome, mean in ((0, 2.0), (1, 0.3)):
        true = -np.expm1(-ages / DAY / mean) / -np.expm1(-7.0 / mean)
        known = found.known(ages, np.full(3, outcome)) / found.ever
        assert known == pytest.approx(true, abs=0.03)


def test_rows_that_never_have_a_label_are_no_late_ones() -> None:
    """A fifth without labels shows as such, although young rows have none yet either."""
    age, label, delay = world(20_000, seed=2, never=0.2)
    found = learnt(delay, age, strata(label, classes=True), WEEK)
    assert found.ever == pytest.approx(0.8 * (1 - 0.7 * np.exp(-3.5)), abs=0.02)


def test_early_labels_stand_for_those_like_them() -> None:
    """The mean of what is here is far off; weighted it is right, and the weights are the rows."""
    errors, raw = [], []
    for seed in range(10):
        age, label, delay = world(8000, seed=seed)
        here = np.isfinite(delay)
        outcome = strata(np.where(here, label, np.nan), classes=True)
        found = learnt(delay, age, outcome, WEEK)
        told = found.told(age)
        weight = weights(found, here, age, outcome)
        errors.append(np.average(label[here], weights=weight[here]) - label[told].mean())
        raw.append(label[here].mean() - label.mean())
        assert weight.sum() == pytest.approx(told.sum(), rel=0.06)
    assert np.mean(raw) > 0.02
    assert abs(np.mean(errors)) < 0.006


def test_labels_that_are_all_here_stand_for_themselves() -> None:
    """Where nothing is missing nothing is weighted, whatever the delays were."""
    age, label, delay = world(2000, seed=3)
    delay = np.minimum(np.nan_to_num(delay, nan=np.inf), age)
    found = learnt(delay, age, strata(label, classes=True), 14 * DAY)
    every = np.ones(2000, dtype=bool)
    usable = found.told(age)
    assert set(weights(found, every, age, strata(label, classes=True))[usable]) == {1.0}


def test_labels_that_stop_are_overdue() -> None:
    """Of rows that are old enough none has come since three days ago."""
    age, label, delay = world(8000, seed=4, slow=0.5)
    outcome = strata(label, classes=True)
    came, due = overdue(learnt(delay, age, outcome, WEEK), delay, age)
    assert came > 0.8 * due
    delay[age < 3 * DAY] = np.nan
    found = learnt(delay, age, outcome, WEEK)
    came, due = overdue(found, delay, age)
    assert came < 0.2 * due


def test_labels_that_come_in_bulk_are_late_when_the_next_bulk_is() -> None:
    """Every night, for rows that are a day old: not overdue before it, and overdue without it."""
    age = np.random.default_rng(8).uniform(0.0, 14 * DAY, 8000)
    outcome = np.zeros(len(age), np.int64)
    for since, late in ((0.9, False), (2.5, True)):
        # The night in which a row was old enough, counted back from the last one.
        nights = np.floor((age - (1.0 + since) * DAY) / DAY)
        delay = np.where(nights >= 0.0, age - (nights + since) * DAY, np.nan)
        came, due = overdue(learnt(delay, age, outcome, WEEK), delay, age)
        assert (came < due / 2.0) is late


def test_of_one_arrival_nothing_is_expected() -> None:
    """A log that was handed over as a whole does not tell how long labels take."""
    age = np.random.default_rng(9).uniform(0.0, 9 * DAY, 4000)
    delay = np.where(age > DAY, age, np.nan)
    outcome = np.zeros(len(age), np.int64)
    assert overdue(learnt(delay, age, outcome, WEEK), delay, age) == (0, 0)


def test_no_labels_at_all_are_only_late_if_rows_are_young() -> None:
    """Rows older than a label may be, and none of them has one: nothing is told of that."""
    none = np.full(500, np.nan)
    young = learnt(none, np.full(500, DAY), np.zeros(500, np.int64), WEEK)
    assert not young.told(np.array([0.0, WEEK])).any()
    with pytest.raises(Unmeasurable, match="older than a label may be"):
        learnt(none, np.full(500, 8 * DAY), np.zeros(500, np.int64), WEEK)
