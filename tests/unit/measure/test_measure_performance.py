"""Every metric of performance beside Evidently's own, on columns meant to break them."""

import warnings

import numpy as np
import pandas as pd
import pytest
from evidently.legacy.calculations.classification_performance import (
    calculate_matrix,
    calculate_metrics,
    get_prediction_data,
)
from evidently.legacy.calculations.regression_performance import _calculate_quality_metrics
from evidently.legacy.pipeline.column_mapping import ColumnMapping
from evidently.legacy.utils.data_operations import process_columns
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn.metrics import r2_score, root_mean_squared_error

from driftloop.measure.columns import Floats, Unmeasurable
from driftloop.measure.decay import NEAR_ZERO, estimates, interval
from driftloop.records import Task
from driftloop.retrain import score
from driftloop.spec import METRICS


def stock(task: Task, label: Floats, prediction: Floats) -> dict[str, float]:
    """What Evidently calculates, by the functions that all its metrics call."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # scikit-learn's, of what is ill-defined
        found = (_regression if task is Task.REGRESSION else _binary)(label, prediction)
    return {name: float(value) for name, value in found.items()}


def _regression(label: Floats, prediction: Floats) -> dict[str, float]:
    frame = pd.DataFrame({"label": label, "prediction": prediction})
    found = _calculate_quality_metrics(
        frame, "prediction", "label", mape_zero_handling="replace", mape_replace_value=1.0
    )
    return {
        "mae": found["mean_abs_error"],
        "mean_error": found["mean_error"],
        "mape": found["mean_abs_perc_error"],
        "abs_max_error": found["abs_error_max"],
        # As in its RegressionQualityMetric.calculate.
        "rmse": root_mean_squared_error(y_true=frame["label"], y_pred=frame["prediction"]),
        "r2": r2_score(y_true=frame["label"], y_pred=frame["prediction"]),
    }


def _binary(label: Floats, prediction: Floats) -> dict[str, float]:
    frame = pd.DataFrame({"label": label.astype(int), "prediction": prediction})
    mapping = ColumnMapping(target="label", prediction="prediction", pos_label=1)
    predicted = get_prediction_data(frame, process_columns(frame, mapping), 1)
    matrix = calculate_matrix(frame["label"], predicted.predictions, predicted.labels)
    found = calculate_metrics(mapping, matrix, frame["label"], predicted)
    return {name: getattr(found, name) for name in METRICS[Task.BINARY]}


def ours(task: Task, label: Floats, prediction: Floats) -> dict[str, float | str]:
    """Our values, or why there is none."""
    found: dict[str, float | str] = {}
    for name, estimate in estimates(task, label, prediction).items():
        try:
            found[name] = estimate()[0]
        except Unmeasurable as problem:
            found[name] = str(problem)
    return found


NUMBER = st.one_of(
    st.floats(-1e6, 1e6, allow_subnormal=False),
    st.integers(-3, 3).map(float),
    st.sampled_from([0.0, 1e-9, -1e-9, 0.1, 0.1 + 1e-9, 1e9, -1e9, 1e-300]),
)
ROWS = st.lists(st.tuples(NUMBER, NUMBER), min_size=1, max_size=60)
PROBABILITY = st.one_of(st.floats(0.0, 1.0), st.sampled_from([0.0, 0.25, 0.5, 1.0, 1e-300]))
OUTCOMES = st.lists(st.tuples(st.sampled_from([0.0, 1.0]), PROBABILITY), min_size=1, max_size=60)


def columns(rows: list[tuple[float, float]]) -> tuple[Floats, Floats]:
    label, prediction = zip(*rows, strict=True)
    return np.array(label), np.array(prediction)


@settings(max_examples=300, deadline=None)
@given(rows=ROWS)
@example(rows=[(0.0, 0.0), (3.7e-150, 34854.0)])
def test_metrics_of_a_regression_are_evidentlys(rows: list[tuple[float, float]]) -> None:
    """Ties, constants, one row, huge and tiny: each is Evidently's own number.

    But for what the traps say: a percentage of a negative label, an R2 of labels that are all the
    same.
    """
    label, prediction = columns(rows)
    expected, found = (each(Task.REGRESSION, label, prediction) for each in (stock, ours))
    if (label < -NEAR_ZERO).any():
        assert "labels are negative" in str(found["mape"])
        del expected["mape"]
    else:
        assert found["mape"] == found["mape_abs"]
    if isinstance(found["r2"], str):
        assert found["r2"] == "r2 needs labels that differ"
        assert np.isnan(expected.pop("r2")) or np.ptp(label) < 1e-140
    for name, value in expected.items():
        # Rounding is to be measured by what was added up, not by what is left after it.
        scale = float(np.abs(prediction - label).max()) if name == "mean_error" else 0.0
        assert found[name] == pytest.approx(value, rel=1e-12, abs=1e-12 * scale), name


@settings(max_examples=120, deadline=None)
@given(rows=OUTCOMES)
@example(rows=[(0.0, 1e-17), (1.0, 1e-300), (1.0, 0.3)])
def test_metrics_of_a_binary_classification_are_evidentlys(
    rows: list[tuple[float, float]],
) -> None:
    """Ties, one class, one row, certainty: each is Evidently's own number.

    Where ours has none, a class or a prediction is lacking and Evidently's is NaN, or the 0 that
    scikit-learn sets what is ill-defined to.
    """
    label, prediction = columns(rows)
    expected, found = (each(Task.BINARY, label, prediction) for each in (stock, ours))
    for name, value in expected.items():
        if isinstance(found[name], str):
            assert " needs " in str(found[name])
            assert np.isnan(value) or value == 0.0
        else:
            assert found[name] == pytest.approx(value, rel=1e-12), name


@settings(max_examples=80, deadline=None)
@given(rows=st.one_of(ROWS, OUTCOMES))
def test_the_gate_and_the_pass_mean_the_same(rows: list[tuple[float, float]]) -> None:
    """What a candidate scored is the baseline that a window is judged against."""
    label, prediction = columns(rows)
    outcomes = np.isin(label, (0.0, 1.0)) & (prediction >= 0.0) & (prediction <= 1.0)
    task = Task.BINARY if outcomes.all() else Task.REGRESSION
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of an R2 of one row
        baselines = {metric.name: metric.value for metric in score(task, label, prediction)}
    largest = float(np.abs(prediction - label).max())
    for name, value in ours(task, label, prediction).items():
        if not isinstance(value, str):
            scale = largest if name == "mean_error" else 0.0
            assert baselines[name] == pytest.approx(value, rel=1e-12, abs=1e-12 * scale), name


@pytest.mark.parametrize("task", list(Task))
def test_every_metric_that_is_named_is_measured(task: Task) -> None:
    """The list of the monitor files, and no other."""
    some = np.array([0.0, 1.0])
    assert tuple(estimates(task, some, some)) == METRICS[task]


@pytest.mark.parametrize("task", list(Task))
def test_influence_is_the_slope(task: Task) -> None:
    """A row that counts a little more moves each metric by its influence on it."""
    rng = np.random.default_rng(3)
    prediction = np.round(rng.uniform(size=40), 1)
    label = (rng.uniform(size=40) < prediction).astype(float)
    if task is Task.REGRESSION:
        label = 10.0 + rng.normal(size=40)
    for name, estimate in estimates(task, label, prediction).items():
        value, influence = estimate()
        if influence is None:
            assert name == "abs_max_error"
            continue
        assert np.mean(influence) == pytest.approx(0.0, abs=1e-12)
        # The whole sample 50 times over, and one row of it once more.
        for row in (0, 7, 21):
            again = [np.append(np.tile(each, 50), each[row]) for each in (label, prediction)]
            moved = estimates(task, *again)[name]()[0]
            assert (moved - value) * 2001 == pytest.approx(influence[row], rel=2e-2, abs=2e-3), name


def test_the_largest_error_has_no_interval() -> None:
    """One row decides it: no spread between days tells how sure it is."""
    value, influence = estimates(Task.REGRESSION, np.zeros(40), np.arange(40.0))["abs_max_error"]()
    assert (value, interval(value, influence, np.arange(40))) == (39.0, (None, None))
