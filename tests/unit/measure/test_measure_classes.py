"""Classes and scores, measured: by Evidently's numbers, and drift of a class as of a category."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftloop.measure import EvidentlyMeasure, decay
from driftloop.measure.decay import interval
from driftloop.records import Kind, LogSummary
from driftloop.spec import Family

Make = Callable[..., Any]
NAMES = ("red", "green", "blue", "off white")
OURS = ("accuracy", "f1", "precision", "recall")


def stock(label: np.ndarray, prediction: np.ndarray) -> dict[str, float]:
    """Evidently's own numbers of classes that are told by name."""
    import pandas as pd
    from evidently import DataDefinition, Dataset, MulticlassClassification, Report, metrics

    columns = {"label": label, "prediction": prediction}
    names = {name: np.array(NAMES)[side.astype(int)] for name, side in columns.items()}
    definition = DataDefinition(
        classification=[MulticlassClassification(target="label", prediction_labels="prediction")],
        numerical_columns=[],
        categorical_columns=["label", "prediction"],
        **{f"{kind}_columns": [] for kind in ("datetime", "text", "unknown", "list")},
    )
    theirs = {"accuracy": "Accuracy", "f1": "F1Score", "precision": "Precision", "recall": "Recall"}
    run = Report([getattr(metrics, name)() for name in theirs.values()]).run(
        Dataset.from_pandas(pd.DataFrame(names), data_definition=definition), None
    )
    values = [float(metric["value"]) for metric in run.dict()["metrics"]]
    return dict(zip(theirs, values, strict=True))


@pytest.fixture
def classes(binary: Make) -> Make:
    """Makes rows of colour: seven of ten are predicted right; `shares` are those of the labels."""

    def table(n: int, *, seed: int, shares: tuple[float, ...] = (0.4, 0.3, 0.2, 0.1)) -> pa.Table:
        rng = np.random.default_rng(seed)
        label = rng.choice(4, n, p=shares) * 1.0
        right = rng.random(n) < 0.7
        prediction = np.where(right, label, (label + rng.integers(1, 4, n)) % 4)
        made = binary(n, seed=seed)
        for name, values in (("label", label), ("prediction", prediction)):
            made = made.set_column(made.column_names.index(name), name, pa.array(values))
        return made

    return table


@pytest.mark.filterwarnings("ignore")  # scikit-learn, which Evidently asks, warns of empty classes
@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=60).filter(
        lambda rows: len({each for row in rows for each in row}) != 2  # a trap, tested below
    )
)
def test_numbers_of_classes_are_evidentlys_own(rows: list[tuple[int, int]]) -> None:
    """Whatever is predicted and true, classes that are only one of the two included."""
    label, prediction = (np.array(side, dtype=np.float64) for side in zip(*rows, strict=True))
    expected = stock(label, prediction)
    for name, ours in decay.classes(label, prediction).items():
        value, influence = ours()
        assert value == pytest.approx(expected[name], rel=1e-12, abs=1e-12), name
        assert influence.mean() == pytest.approx(0.0, abs=1e-9), name


def test_two_classes_break_evidently_and_not_us() -> None:
    """The trap: it takes them for a binary model, and looks for a class called 1."""
    label, prediction = np.array([0.0, 1.0, 1.0, 1.0]), np.array([0.0, 1.0, 1.0, 0.0])
    with pytest.raises(KeyError, match="1"):
        stock(label, prediction)
    ours = decay.classes(label, prediction)
    assert ours["recall"]()[0] == pytest.approx((1 + 2 / 3) / 2)
    assert ours["precision"]()[0] == pytest.approx((1 / 2 + 1) / 2)


def test_readings_of_a_multiclass_model(
    colour: Family, classes: Make, measured: Make, pick: Make
) -> None:
    """Its four metrics with an interval and a baseline, and no distance of indexes."""
    current, reference = classes(600, seed=1), classes(900, seed=2)
    got = measured(colour, current, reference, baselines={"accuracy": 0.7})
    expected = stock(current["label"].to_numpy(), current["prediction"].to_numpy())
    for name, value in expected.items():
        reading = pick(got, name)
        assert reading.value == pytest.approx(value, rel=1e-12), name
        assert reading.low < reading.value < reading.high
    assert pick(got, "accuracy").baseline == 0.7
    judged = [r.metric for r in got.readings if r.column == "prediction"]
    assert judged == ["jensenshannon"]
    beside = {r.metric for r in got.measured if r.column == "prediction"}
    assert beside == {"jensenshannon", "psi", "chisquare"}


@pytest.mark.parametrize("metric", OURS)
def test_the_90_percent_interval_covers_the_truth_that_often(metric: str) -> None:
    """Of 400 windows of 14 unremarkable days, 85 to 95 % have the true value in the interval."""
    rng = np.random.default_rng(5)
    day, size = np.repeat(np.arange(14), 50), 14 * 50

    def world(n: int) -> tuple[np.ndarray, np.ndarray]:
        label = rng.choice(3, n, p=[0.5, 0.3, 0.2]) * 1.0
        return label, np.where(rng.random(n) < 0.8, label, rng.integers(0, 3, n))

    truth, _ = decay.classes(*world(2_000_000))[metric]()
    covered = 0
    for _ in range(400):
        low, high = interval(*decay.classes(*world(size))[metric](), day)
        covered += low < truth < high
    assert 0.85 < covered / 400 < 0.95


def test_drift_of_a_class_is_that_of_a_category(
    colour: Family, classes: Make, measured: Make, pick: Make
) -> None:
    """Other shares of the same classes are seen, and sampling noise is not."""
    reference = classes(2000, seed=2)
    still = pick(measured(colour, classes(800, seed=1), reference), "jensenshannon", "prediction")
    assert still.value < 0.1
    assert still.p_value > 1e-3
    other = classes(800, seed=1, shares=(0.1, 0.2, 0.3, 0.4))
    moved = pick(measured(colour, other, reference), "jensenshannon", "prediction")
    assert moved.value > 0.15
    assert moved.p_value < 1e-9
    assert moved.n == 800


@pytest.mark.parametrize("odd", [4.0, -1.0, 0.5])
def test_an_index_of_no_class_is_not_measured(
    colour: Family, classes: Make, measured: Make, pick: Make, put: Make, odd: float
) -> None:
    """Nor taken for a class of its own: a class was taken out of the list."""
    current, reference = classes(300, seed=1), classes(900, seed=2)
    values = current["prediction"].to_numpy().copy()
    values[7] = odd
    got = measured(colour, put(current, "prediction", values), reference)
    assert pick(got, "accuracy").problem == "1 of 300 predictions are none of the 4 classes"
    drift = pick(got, "jensenshannon", "prediction")
    assert drift.problem == "1 of 300 predictions are none of the 4 classes in the window"
    got = measured(colour, current, put(reference.slice(0, 300), "prediction", values))
    assert "classes in the reference" in pick(got, "jensenshannon", "prediction").problem
    labels = put(current, "label", values)
    assert "labels are none" in pick(measured(colour, labels, reference), "f1").problem


@pytest.fixture
def file(tmp_path: Path, classes: Make) -> Path:
    """A reference on the disk."""
    found = tmp_path / "model" / "first" / "reference.parquet"
    found.parent.mkdir(parents=True)
    pq.write_table(classes(900, seed=2), found)
    return found


def test_evidently_agrees_with_every_number(
    colour: Family, classes: Make, measured: Make, file: Path
) -> None:
    """And where one is not its own, it is disputed with both numbers."""
    current = classes(400, seed=1, shares=(0.1, 0.2, 0.3, 0.4))
    readings = measured(colour, current, classes(900, seed=2)).measured

    def disputed(changed: float) -> tuple[str, ...]:
        spoilt = [
            replace(r, value=r.value * changed)
            for r in readings
            if r.kind in (Kind.DECAY, Kind.DRIFT) and r.value is not None
        ]
        return EvidentlyMeasure().disputed(
            family=colour, readings=spoilt, current=current, own=current, reference=file
        )

    assert disputed(1.0) == ()
    said = [each.split(" is ")[0] for each in disputed(1.0 + 1e-6)]
    assert {*OURS, "jensenshannon of prediction", "psi of prediction"} <= set(said)


def test_a_prepared_reference_is_of_these_classes(
    colour: Family, classes: Make, file: Path
) -> None:
    """With other classes it is prepared anew: what is kept has their names in it."""
    given: dict[str, Any] = {"current": classes(400, seed=1), "baselines": {}}
    given |= {"own": given["current"], "reference": file}
    summary = LogSummary(rows=400, duplicates=0, labels=400, newest_event=None)
    more = colour.model_copy(update={"classes": ("rouge", *colour.classes[1:], "black")})
    measure = EvidentlyMeasure()
    now = datetime(2026, 3, 1, tzinfo=UTC)
    found = [
        reading
        for family in (colour, more)
        for reading in measure.measure(family=family, summary=summary, now=now, **given).readings
        if reading.column == "prediction" and reading.kind is Kind.DRIFT
    ]
    assert found[0].value == found[1].value


@pytest.mark.filterwarnings("ignore")
def test_the_report_names_the_classes(colour: Family, classes: Make, tmp_path: Path) -> None:
    """Of many, of two (which Evidently draws as binary), and not where the sides differ in that."""
    file = tmp_path / "report.html"

    def drawn(current: pa.Table, reference: pa.Table) -> str:
        EvidentlyMeasure().report(
            family=colour, title="t", current=current, reference=reference, file=file
        )
        return file.read_text(encoding="utf-8")

    many = drawn(classes(300, seed=1), classes(400, seed=2))
    assert "off white" in many
    assert "Left out" not in many
    pair = [
        each.filter(pa.array((each["label"].to_numpy() < 2) & (each["prediction"].to_numpy() < 2)))
        for each in (classes(400, seed=1), classes(400, seed=2))
    ]
    assert "Left out" not in drawn(*pair)
    assert "performance, because Evidently cannot draw two classes" in drawn(
        pair[0], classes(400, seed=2)
    )


def test_scores_have_drift_and_quality_alone(
    risk: Family, binary: Make, measured: Make, pick: Make, tmp_path: Path, put: Make
) -> None:
    """No performance in the readings or the report, and nobody counts labels."""
    current, reference = (binary(400, seed=seed, shift=shift) for seed, shift in ((1, 3), (2, 0)))
    current = put(current, "label", pa.nulls(400, pa.float64()))
    got = measured(risk, current, reference)
    assert {r.kind for r in got.readings} == {Kind.DRIFT, Kind.QUALITY}
    assert "labelled" not in {r.metric for r in got.readings}
    moved = pick(got, "wasserstein", "prediction")
    assert moved.value > 0.5
    assert moved.p_value < 1e-9
    file = tmp_path / "report.html"
    EvidentlyMeasure().report(
        family=risk, title="t", current=current, reference=reference, file=file
    )
    said = file.read_text(encoding="utf-8")
    assert "A score has no right answer" in said
    assert "Left out" not in said
