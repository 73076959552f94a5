import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from evidently import BinaryClassification, DataDefinition, Dataset, Regression, Report
from evidently.legacy.calculations.stattests import (
    chi_stat_test,
    jensenshannon_stat_test,
    ks_stat_test,
    psi_stat_test,
    wasserstein_stat_test,
)
from evidently.legacy.core import ColumnType
from evidently.metrics import MAPE, Accuracy, R2Score
from evidently.presets import ClassificationPreset, DataDriftPreset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from driftloop import judge
from driftloop.errors import MeasureError
from driftloop.measure import snapshot
from driftloop.measure.distances import chi_square_p_value
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


# -- the closed list: what Evidently really does, and what ours does --------------------------


def evidently(metrics: list[Any], current: pa.Table, reference: pa.Table | None = None) -> Any:
    """What Evidently itself says of the metrics, drift of `distance` and `load` or performance."""
    kinds: dict[str, Any] = {
        f"{kind}_columns": [] for kind in ("datetime", "text", "unknown", "list")
    }
    if reference is not None:
        kinds |= {"numerical_columns": ["distance", "load"], "categorical_columns": []}
    elif isinstance(metrics[0], ClassificationPreset | Accuracy):
        one = BinaryClassification(target="label", prediction_probas="prediction", pos_label=1)
        kinds |= {"numerical_columns": ["prediction"], "categorical_columns": ["label"]}
        kinds["classification"] = [one]
    else:
        kinds["regression"] = [Regression(target="label", prediction="prediction")]
        kinds |= {"numerical_columns": ["prediction", "label"], "categorical_columns": []}
    defined = DataDefinition(**kinds)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        sides = [
            None if side is None else Dataset.from_pandas(side.to_pandas(), data_definition=defined)
            for side in (current, reference)
        ]
        found = Report(metrics).run(*sides).dict()["metrics"]
    values = [each["value"] for each in found]
    return [
        value["mean"] if isinstance(value, dict) and "mean" in value else value for value in values
    ]


def drifted(test: Any, reference: Any, current: Any, *, kind: str = "num") -> tuple[float, bool]:
    """What one of Evidently's tests says, at its own threshold."""
    of = ColumnType.Numerical if kind == "num" else ColumnType.Categorical
    with np.errstate(all="ignore"):
        found = test(pd.Series(reference), pd.Series(current), of, None)
    return float(found.drift_score), bool(found.drifted)


@pytest.mark.parametrize(
    ("fault", "raises"),
    [
        ("all null", "An empty column"),
        ("missing", "partially present"),
        ("no rows", "empty column"),
    ],
)
def test_trap_one_empty_column_costs_evidently_the_whole_report(
    eta: Family, regression: Make, measured: Make, pick: Make, put: Make, fault: str, raises: str
) -> None:
    """It raises; ours has the other columns, or says of each that there are no rows."""
    current, reference = regression(300, seed=1), regression(600, seed=2)
    broken = {
        "all null": put(current, "distance", pa.nulls(300, pa.float64())),
        "missing": current.drop_columns("distance"),
        "no rows": current.slice(0, 0),
    }[fault]
    with pytest.raises(ValueError, match=raises):
        evidently([DataDriftPreset(columns=["distance", "load"])], broken, reference)
    got = measured(eta, broken, reference)
    assert pick(got, "wasserstein", "distance").value is None
    assert (pick(got, "wasserstein", "load").value is None) == (fault == "no rows")


def test_trap_null_labels_break_evidentlys_classification(
    churn: Family, binary: Make, measured: Make, pick: Make, put: Make
) -> None:
    """It raises; ours counts the rows that have a label."""
    current = binary(300, seed=1)
    current = put(current, "label", [None] * 10 + current["label"].to_pylist()[10:])
    with pytest.raises(ValueError, match="mix of binary and continuous"):
        evidently([Accuracy()], current)
    got = pick(measured(churn, current, binary(600, seed=2)), "accuracy")
    assert (got.n, got.problem) == (290, None)
    assert (
        got.value
        == evidently(
            [Accuracy()],
            put(
                current.slice(10),
                "label",
                pa.array([int(v) for v in current["label"].to_pylist()[10:]]),
            ),
        )[0]
    )


@pytest.mark.parametrize("only", [0, 1])
def test_trap_a_single_class_breaks_evidentlys_preset(
    churn: Family, binary: Make, measured: Make, pick: Make, put: Make, only: int
) -> None:
    """It raises KeyError; ours has each metric that needs no other class."""
    current = put(binary(300, seed=1), "label", [only] * 300)
    with pytest.raises(KeyError):
        evidently([ClassificationPreset()], current)
    got = measured(churn, current, binary(600, seed=2))
    lacking = {r.metric for r in got.readings if r.kind is Kind.DECAY and r.value is None}
    without = {0: {"recall", "tpr", "fnr"}, 1: {"tnr", "fpr"}}
    assert lacking == {"roc_auc", *without[only]}


def test_trap_one_outlier_blinds_evidentlys_bins(
    eta: Family, regression: Make, measured: Make, pick: Make, put: Make
) -> None:
    """A shift of a deviation is drift to PSI and JS until one value is 1e9, which W1 sees alone.

    Ours asks for a Kolmogorov-Smirnov p-value besides, which one value moves neither way.
    """
    reference, current = regression(600, seed=2), regression(300, seed=1, shift=1.0)
    struck = put(current, "distance", [1e9, *current["distance"].to_pylist()[1:]])
    was, moved, hit = (each["distance"].to_numpy() for each in (reference, current, struck))
    for test in (psi_stat_test, jensenshannon_stat_test):
        assert drifted(test, was, moved)[1]
        assert not drifted(test, was, hit)[1]
    still = put(
        regression(300, seed=3),
        "distance",
        [1e9, *regression(300, seed=3)["distance"].to_pylist()[1:]],
    )
    assert drifted(wasserstein_stat_test, was, still["distance"].to_numpy())[0] > 1e4
    seen = {
        name: pick(measured(eta, table, reference), "wasserstein", "distance").p_value
        for name, table in {"shift": struck, "outlier alone": still}.items()
    }
    assert seen["shift"] < 1e-5
    assert seen["outlier alone"] > 1e-3


def test_trap_a_small_unit_never_drifts_in_evidently(
    eta: Family, regression: Make, measured: Make, pick: Make, put: Make
) -> None:
    """It divides by no deviation below 0.001; ours is what it is in any other unit."""
    current, reference = regression(300, seed=1, shift=2.0), regression(600, seed=2)
    usual = pick(measured(eta, current, reference), "wasserstein", "distance").value
    tiny = [
        put(each, "distance", each["distance"].to_numpy() * 2.0**-40)
        for each in (current, reference)
    ]
    assert not drifted(
        wasserstein_stat_test, tiny[1]["distance"].to_numpy(), tiny[0]["distance"].to_numpy()
    )[1]
    assert pick(measured(eta, *tiny), "wasserstein", "distance").value == pytest.approx(
        usual, rel=1e-12
    )


def test_trap_a_negative_label_is_1e17_percent_in_evidently(
    eta: Family, regression: Make, measured: Make, pick: Make, put: Make
) -> None:
    """It divides by the label, at least 2e-16: ours has none there, and `mape_abs` beside it."""
    current, reference = regression(300, seed=1), regression(600, seed=2)
    label, prediction = (current[name].to_numpy() + 100.0 for name in ("label", "prediction"))
    above = put(put(current, "label", label), "prediction", prediction)
    below = put(put(current, "label", -label), "prediction", -prediction)
    assert evidently([MAPE()], below)[0] > 1e17
    (theirs,) = evidently([MAPE()], above)
    assert pick(measured(eta, above, reference), "mape").value == pytest.approx(theirs, rel=1e-12)
    got = measured(eta, below, reference)
    assert pick(got, "mape").problem == "300 of 300 labels are negative; mape_abs takes them"
    assert pick(got, "mape_abs").value == pytest.approx(theirs, rel=1e-12)


def test_trap_labels_that_do_not_differ(
    eta: Family, regression: Make, measured: Make, pick: Make, put: Make
) -> None:
    """Evidently's R2 is 0 whatever the errors, and zeros alone break its report; ours has none."""
    current, reference = regression(40, seed=1), regression(600, seed=2)
    assert evidently([R2Score()], put(current, "label", [30.0] * 40))[0] == 0.0
    zeros = put(current, "label", [0.0] * 40)
    with pytest.raises(IndexError):
        evidently([R2Score()], zeros)
    got = measured(eta, zeros, reference)
    assert pick(got, "r2").problem == "r2 needs labels that differ"
    assert (pick(got, "mape").value, pick(got, "mape_abs").value) == (100.0, 100.0)


def test_trap_infinity_is_drift_to_one_test_and_not_to_another(
    eta: Family, regression: Make, measured: Make, pick: Make, put: Make
) -> None:
    """A third of the values: Evidently's KS fires, its W1 is NaN and fine, its PSI raises.

    Ours leaves infinities out of the distance, and counts them as out of range.
    """
    current, reference = regression(300, seed=1), regression(600, seed=2)
    values = current["distance"].to_numpy().copy()
    values[:100] = np.inf
    was = reference["distance"].to_numpy()
    assert drifted(ks_stat_test, was, values)[1]
    score, fired = drifted(wasserstein_stat_test, was, values)
    assert np.isnan(score)
    assert not fired
    with pytest.raises(ValueError, match="not finite"):
        drifted(psi_stat_test, was, values)
    got = measured(eta, put(current, "distance", values), reference)
    assert pick(got, "wasserstein", "distance").n == 200
    assert pick(got, "out_of_range", "distance").value == pytest.approx(1 / 3)


def test_trap_nulls_are_dropped_silently(
    eta: Family, regression: Make, measured: Make, pick: Make, put: Make
) -> None:
    """Half of a column is gone: Evidently's distance is that of the rest. Ours too, and a fault."""
    current, reference = regression(300, seed=1), regression(600, seed=2)
    # Every second value, so that what is left is as it was.
    halved = put(
        current, "load", [None if at % 2 else v for at, v in enumerate(current["load"].to_pylist())]
    )
    preset = DataDriftPreset(columns=["distance", "load"], num_method="wasserstein")
    alarmed, *distances = evidently([preset], halved, reference)
    assert alarmed["count"] == 0
    got = measured(eta, halved, reference)
    assert pick(got, "wasserstein", "load").value == pytest.approx(distances[1], rel=1e-12)
    assert pick(got, "null_share", "load").value == 0.5


def test_trap_evidentlys_chi_square_forgets_the_references_noise() -> None:
    """Of 200 windows without drift, as large as their reference, it flags 20 % and more at 0.05.

    Ours is two-sample, and stays near 5 %.
    """
    rng = np.random.default_rng(5)
    flagged, ours = 0, 0
    for _ in range(200):
        sides = rng.choice(4, 800), rng.choice(4, 800)
        flagged += drifted(chi_stat_test, *sides, kind="cat")[1]
        ours += chi_square_p_value(*(np.bincount(side, minlength=4) for side in sides)) < 0.05
    assert flagged / 200 > 0.2
    assert ours / 200 < 0.1


def test_trap_many_levels_always_drift_in_evidently(
    churn: Family, binary: Make, measured: Make, pick: Make, put: Make
) -> None:
    """500 rows of 2,000 levels without drift: its Jensen-Shannon distance is far above its 0.1.

    Ours tells the 100 most frequent apart, has the very number that Evidently has of those, and
    asks for a p-value besides, which is that of no drift.
    """
    rng = np.random.default_rng(6)
    share = 1.0 / np.arange(1.0, 2001.0)
    drawn = [rng.choice(2000, n, p=share / share.sum()) for n in (5000, 500)]
    names = [[f"c{code}" for code in side] for side in drawn]
    assert drifted(jensenshannon_stat_test, *names, kind="cat")[0] > 0.25
    reference, current = binary(5000, seed=1), binary(500, seed=2)
    reference, current = (
        put(table, "plan", side) for table, side in zip((reference, current), names, strict=True)
    )
    got = pick(measured(churn, current, reference), "jensenshannon", "plan")
    kept = set(pd.Series(names[0]).value_counts(sort=True).index[:100])
    # A tie at the hundredth place may go either way: the distance is that of some such choice.
    pooled = [[name if name in kept else "(other)" for name in side] for side in names]
    assert got.value == pytest.approx(
        drifted(jensenshannon_stat_test, *pooled, kind="cat")[0], rel=2e-2
    )
    assert got.value < 0.22
    assert got.p_value > 1e-3


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
