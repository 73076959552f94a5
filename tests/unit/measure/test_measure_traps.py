from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from driftloop import judge
from driftloop.errors import MeasureError
from driftloop.measure import snapshot
from driftloop.records import Kind, Task
from driftloop.spec import Family

Make = Callable[..., Any]

Fault = Callable[[pa.Table, pa.Table, Callable[..., pa.Table]], tuple[pa.Table, pa.Table]]

ONE_COLUMN: dict[str, tuple[str, str, Fault]] = {
    "all null": (
        "distance",
        "distance has no values in the window",
        lambda cur, ref, put: (put(cur, "distance", pa.nulls(len(cur), pa.float64())), ref),
    ),
    "all null without a type": (
        "distance",
        "distance has no values in the window",
        lambda cur, ref, put: (put(cur, "distance", pa.nulls(len(cur))), ref),
    ),
    "all NaN": (
        "distance",
        "distance has no values in the window",
        lambda cur, ref, put: (put(cur, "distance", [float("nan")] * len(cur)), ref),
    ),
    "all infinite": (
        "distance",
        "distance has no values in the window",
        lambda cur, ref, put: (put(cur, "distance", [float("inf")] * len(cur)), ref),
    ),
    "missing in the window": (
        "distance",
        "distance is missing in the window",
        lambda cur, ref, put: (cur.drop_columns("distance"), ref),
    ),
    "missing in the reference": (
        "distance",
        "distance is missing in the reference",
        lambda cur, ref, put: (cur, ref.drop_columns("distance")),
    ),
    "reference all null": (
        "distance",
        "distance has no values in the reference",
        lambda cur, ref, put: (cur, put(ref, "distance", pa.nulls(len(ref), pa.float64()))),
    ),
    "reference constant": (
        "distance",
        (
            "distance is constant in the reference (7), so a distance has no unit;"
            " 300 of 300 values differ from it"
        ),
        lambda cur, ref, put: (cur, put(ref, "distance", [7.0] * len(ref))),
    ),
    "a single value": (
        "distance",
        "distance has a single value in the window",
        lambda cur, ref, put: (put(cur, "distance", [1.0] + [None] * (len(cur) - 1)), ref),
    ),
    "text for a number": (
        "distance",
        "distance is string in the window, not a number",
        lambda cur, ref, put: (put(cur, "distance", ["far"] * len(cur)), ref),
    ),
    "categories all null": (
        "vehicle",
        "vehicle has no values in the window",
        lambda cur, ref, put: (put(cur, "vehicle", pa.nulls(len(cur), pa.string())), ref),
    ),
    "categories missing": (
        "vehicle",
        "vehicle is missing in the window",
        lambda cur, ref, put: (cur.drop_columns("vehicle"), ref),
    ),
    "categories all null in the reference": (
        "vehicle",
        "vehicle has no values in the reference",
        lambda cur, ref, put: (cur, put(ref, "vehicle", pa.nulls(len(ref), pa.string()))),
    ),
    "lists for categories": (
        "vehicle",
        "vehicle is list<item: int64> in the window, not text",
        lambda cur, ref, put: (put(cur, "vehicle", [[1]] * len(cur)), ref),
    ),
    "no predictions": (
        "prediction",
        "prediction has no values in the window",
        lambda cur, ref, put: (put(cur, "prediction", pa.nulls(len(cur), pa.float64())), ref),
    ),
}


@pytest.mark.parametrize("fault", ONE_COLUMN)
def test_one_bad_column_never_costs_the_others(
    eta: Family, regression: Make, measured: Make, put: Make, fault: str
) -> None:
    """The column's drift has no value and says why; drift of all others is untouched."""
    column, problem, break_it = ONE_COLUMN[fault]
    sound = (regression(300, seed=1), regression(600, seed=2))
    good = measured(eta, *sound)
    bad = measured(eta, *break_it(*sound, put), own=sound[0])

    def others(got: Any) -> list[Any]:
        return [r for r in got.readings if r.column != column]

    (broken,) = (r for r in bad.readings if r.kind is Kind.DRIFT and r.column == column)
    assert (broken.value, broken.p_value, broken.problem) == (None, None, problem)
    assert others(bad) == others(good)


@pytest.mark.parametrize(
    ("fault", "values", "value"),
    [("null_share", "null", 1.0), ("out_of_range", "inf", 1.0), ("unseen", "ship", 1.0)],
)
def test_a_column_that_is_all_fault_is_still_counted(
    eta: Family,
    regression: Make,
    measured: Make,
    pick: Make,
    put: Make,
    fault: str,
    values: str,
    value: float,
) -> None:
    """Where no distance can be had, the data-quality reading still tells how bad it is."""
    table = regression(50, seed=1)
    column = "vehicle" if values == "ship" else "distance"
    filled = {"null": None, "inf": float("inf"), "ship": "ship"}[values]
    table = put(
        table, column, pa.array([filled] * 50, pa.string() if column == "vehicle" else pa.float64())
    )
    assert pick(measured(eta, table, regression(80, seed=2)), fault, column).value == value


def test_an_empty_window_measures_only_that_it_is_empty(
    eta: Family, regression: Make, measured: Make
) -> None:
    """Volume is 0; everything else is unmeasured, and says why."""
    got = measured(eta, regression(0, seed=1), regression(600, seed=2))
    valued = {r.metric: r.value for r in got.readings if r.value is not None}
    assert valued == {"volume": 0.0}
    problems = {r.metric: r.problem for r in got.readings}
    assert problems["wasserstein"] == "the window has no rows"
    assert problems["mae"] == "no labels"
    assert problems["freshness"] == problems["duplicates"] == "no rows"


def test_one_row_has_no_drift(eta: Family, regression: Make, measured: Make) -> None:
    """A single row is no distribution: Evidently would see drift in most columns."""
    got = measured(eta, regression(1, seed=1), regression(600, seed=2))
    drift = [r for r in got.readings if r.kind is Kind.DRIFT]
    assert {r.value for r in drift} == {None}
    assert {r.n for r in drift} == {1}
    assert all("single value" in r.problem for r in drift)


@pytest.mark.parametrize(
    ("labels", "problems"),
    [
        ([None] * 40, {"roc_auc": "no labels", "f1": "no labels", "log_loss": "no labels"}),
        ([1.0] * 40, {"roc_auc": "roc_auc needs both classes; all 40 labels are 1"}),
        ([0.0] * 40, {"roc_auc": "roc_auc needs both classes; all 40 labels are 0"}),
        ([2.0] + [1.0] * 39, {"f1": "1 of 40 labels are neither 0 nor 1"}),
    ],
    ids=["no labels", "only ones", "only zeros", "not a class"],
)
def test_labels_that_break_evidentlys_classification(
    churn: Family,
    binary: Make,
    measured: Make,
    pick: Make,
    put: Make,
    labels: list[float | None],
    problems: dict[str, str],
) -> None:
    """Each metric that cannot be had says why, and its baseline is still told."""
    table = put(binary(40, seed=1), "label", pa.array(labels, pa.float64()))
    got = measured(churn, table, binary(600, seed=2), baselines={"roc_auc": 0.8})
    for metric, problem in problems.items():
        assert (pick(got, metric).value, pick(got, metric).problem) == (None, problem)
    assert pick(got, "roc_auc").baseline == 0.8
    assert pick(got, "roc_auc").n == sum(label is not None for label in labels)
    if labels[0] in (0.0, 1.0):
        assert pick(got, "log_loss").value is not None


def test_a_prediction_that_is_no_probability_costs_the_log_loss_alone(
    churn: Family, binary: Make, measured: Make, pick: Make, put: Make
) -> None:
    """1.5 still ranks and still is above one half."""
    table = binary(40, seed=1)
    table = put(table, "prediction", [1.5, *table["prediction"].to_pylist()[1:]])
    got = measured(churn, table, binary(600, seed=2))
    assert pick(got, "log_loss").problem == "1 of 40 predictions are not probabilities"
    assert None not in {pick(got, metric).value for metric in ("roc_auc", "f1", "accuracy")}


def test_f1_without_any_one_is_unmeasured(
    churn: Family, binary: Make, measured: Make, pick: Make, put: Make
) -> None:
    """Nothing to find and nothing found is not a score of 0."""
    table = put(put(binary(40, seed=1), "label", [0.0] * 40), "prediction", [0.1] * 40)
    got = measured(churn, table, binary(600, seed=2))
    assert pick(got, "f1").problem == "f1 needs a label or a prediction of 1"
    assert pick(got, "accuracy").value == 1.0


def test_labels_that_do_not_differ_cost_r2_alone(
    eta: Family, regression: Make, measured: Make, pick: Make, put: Make
) -> None:
    """R2 divides by their spread; the errors are there all the same."""
    table = put(regression(40, seed=1), "label", [30.0] * 40)
    got = measured(eta, table, regression(600, seed=2))
    assert pick(got, "r2").problem == "r2 needs labels that differ"
    assert pick(got, "mae").value > 0


def test_one_outlier_does_not_pass_for_a_shift(
    eta: Family, regression: Make, measured: Make, pick: Make, put: Make
) -> None:
    """1e9 among 300 makes the distance huge, but the p-value is not moved by it."""
    table, reference = regression(300, seed=1), regression(600, seed=2)
    before = pick(measured(eta, table, reference), "wasserstein", "distance")
    table = put(table, "distance", [1e9, *table["distance"].to_pylist()[1:]])
    after = pick(measured(eta, table, reference), "wasserstein", "distance")
    assert after.value > 1000
    assert after.p_value == pytest.approx(before.p_value, abs=0.05)


def test_evidently_itself_breaking_is_named(
    eta: Family, regression: Make, measured: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A report that will not run is an error of ours with Evidently's name in it."""

    def broken(*_: Any, **__: Any) -> Any:
        raise TypeError("no such thing")

    monkeypatch.setattr(snapshot, "snapshot", broken)
    got = measured(eta, regression(30, seed=1), regression(60, seed=2))
    with pytest.raises(MeasureError, match=r"Evidently could not .* TypeError: no such thing"):
        got.snapshot()


# -- anything at all --------------------------------------------------------------------------

FLOATS = st.one_of(st.none(), st.floats(), st.sampled_from([0.0, 1.0, 1e9, 1e308, -1e308, 5e-324]))
TEXTS = st.one_of(st.none(), st.text(max_size=3), st.sampled_from(["a", "b"]))


@st.composite
def nasty(draw: st.DrawFn) -> pa.Table:
    """A churn table with any values, possibly lacking columns, possibly empty."""
    n = draw(st.integers(0, 12))
    kinds = {
        "tenure": (FLOATS, pa.float64()),
        "spend": (FLOATS, pa.float64()),
        "plan": (TEXTS, pa.string()),
        "prediction": (st.one_of(FLOATS, st.floats(0, 1)), pa.float64()),
        "label": (st.one_of(FLOATS, st.sampled_from([0.0, 1.0])), pa.float64()),
        "event_time": (
            st.one_of(st.none(), st.integers(0, 10**15)),
            pa.timestamp("us", tz="UTC"),
        ),
    }
    kept = draw(st.sets(st.sampled_from(sorted(kinds)), min_size=3))
    columns = {
        name: pa.array(draw(st.lists(values, min_size=n, max_size=n)), kind)
        for name, (values, kind) in kinds.items()
        if name in kept
    }
    return pa.table(columns)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(current=nasty(), own=nasty(), reference=nasty(), task=st.sampled_from(Task))
def test_no_data_ever_raise(
    churn: Family,
    measured: Make,
    current: pa.Table,
    own: pa.Table,
    reference: pa.Table,
    task: Task,
) -> None:
    """Whatever the tables hold, every reading has either a finite value or a problem."""
    family = churn.model_copy(update={"task": task})
    got = measured(family, current, reference, own=own)
    got.snapshot(judge.judged(got.readings, family))
    for reading in got.measured:
        assert (reading.value is None) == (reading.problem is not None)
        assert reading.value is None or np.isfinite(reading.value)
        assert reading.low is None or reading.low <= reading.value <= reading.high
        assert reading.p_value is None or 0.0 <= reading.p_value <= 1.0
