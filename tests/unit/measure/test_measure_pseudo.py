"""Metrics of outcomes that are known in part."""

import numpy as np
import pytest

from driftloop.measure.columns import Unmeasurable
from driftloop.measure.decay import estimates
from driftloop.measure.pseudo import outcomes, scored
from driftloop.records import Task
from driftloop.spec import METRICS, Family

NO_SUMS = ("abs_max_error",)


def rows(task: Task, n: int = 400) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    if task is Task.BINARY:
        prediction = np.round(rng.beta(1.0, 1.5, n), 2)
        return (rng.random(n) < prediction).astype(float), prediction
    if task is Task.MULTICLASS:
        label = rng.integers(0, 4, n).astype(float)
        return label, np.where(rng.random(n) < 0.6, label, rng.integers(0, 4, n))
    prediction = rng.gamma(2.0, 10.0, n)
    return np.abs(prediction + rng.normal(0.0, 3.0, n)), prediction


@pytest.mark.parametrize(
    ("task", "metric"), [(t, m) for t in METRICS for m in METRICS[t] if m not in NO_SUMS]
)
def test_of_labels_that_are_all_there_it_is_the_plain_metric(
    colour: Family, task: Task, metric: str
) -> None:
    """Value and influence are those that decay is measured by."""
    family = colour.model_copy(update={"task": task})
    label, prediction = rows(task)
    value, influence = estimates(task, label, prediction)[metric]()
    found = scored(family, metric, prediction, outcomes(family, metric, label, prediction))
    assert found.value == pytest.approx(value, abs=1e-12)
    assert found.influence == pytest.approx(influence, abs=1e-9)


@pytest.mark.parametrize(
    ("task", "metric"), [(t, m) for t in METRICS for m in METRICS[t] if m not in NO_SUMS]
)
def test_its_slope_is_what_a_changed_outcome_changes(
    colour: Family, task: Task, metric: str
) -> None:
    """A small change of all outcomes moves the metric by the mean of slope times change."""
    family = colour.model_copy(update={"task": task})
    label, prediction = rows(task)
    outcome = outcomes(family, metric, label, prediction)
    found = scored(family, metric, prediction, outcome)
    change = 1e-6 * np.random.default_rng(6).normal(size=outcome.shape)
    moved = scored(family, metric, prediction, outcome + change).value - found.value
    expected = (found.slope * change).sum(axis=1).mean()
    assert moved == pytest.approx(expected, rel=1e-3, abs=1e-12)


def test_of_probabilities_it_is_cbpe(churn: Family) -> None:
    """Accuracy is the mean probability to be right, as confidence-based estimation has it."""
    _, prediction = rows(Task.BINARY)
    found = scored(churn, "accuracy", prediction, prediction[:, None])
    right = np.where(prediction >= 0.5, prediction, 1.0 - prediction)
    assert found.value == pytest.approx(right.mean(), abs=1e-12)


def test_what_is_no_sum_over_rows_is_not_estimated(eta: Family) -> None:
    """Of the largest error nothing is known before all labels are there."""
    with pytest.raises(Unmeasurable, match="no sum over rows"):
        outcomes(eta, "abs_max_error", *rows(Task.REGRESSION))
