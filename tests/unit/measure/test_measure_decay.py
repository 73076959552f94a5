from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from driftloop.measure.decay import estimates, interval
from driftloop.records import Kind, Task
from driftloop.spec import METRICS, Family

Make = Callable[..., Any]

STOCK = {
    "mae": "MAE",
    "rmse": "RMSE",
    "r2": "R2Score",
    "roc_auc": "RocAuc",
    "f1": "F1Score",
    "log_loss": "LogLoss",
    "accuracy": "Accuracy",
}


def stock(table: pa.Table, names: list[str]) -> dict[str, float]:
    """Evidently's own metrics of the labelled rows."""
    from evidently import BinaryClassification, DataDefinition, Dataset, Regression, Report, metrics

    frame = table.select(["prediction", "label"]).to_pandas().dropna()
    shared = {f"{kind}_columns": [] for kind in ("datetime", "text", "unknown", "list")}
    if "mae" in names:
        task = {"regression": [Regression(target="label", prediction="prediction")]}
        columns = {"numerical_columns": ["prediction", "label"], "categorical_columns": []}
    else:
        frame["label"] = frame["label"].astype(int)
        probabilities = BinaryClassification(
            target="label", prediction_probas="prediction", pos_label=1
        )
        task = {"classification": [probabilities]}
        columns = {"numerical_columns": ["prediction"], "categorical_columns": ["label"]}
    data = Dataset.from_pandas(frame, data_definition=DataDefinition(**shared, **task, **columns))
    run = Report([getattr(metrics, STOCK[name])() for name in names]).run(data, None)
    values = [metric["value"] for metric in run.dict()["metrics"]]
    return {
        name: float(value["mean"] if isinstance(value, dict) else value)
        for name, value in zip(names, values, strict=True)
    }


@pytest.mark.parametrize("every", [0, 3])
def test_regression_metrics_are_evidentlys_own(
    eta: Family, regression: Make, measured: Make, pick: Make, put: Make, every: int
) -> None:
    """MAE, RMSE and R2 equal stock Evidently's over the rows that have a label."""
    table = regression(400, seed=1)
    if every:
        labels = table["label"].to_pylist()
        table = put(table, "label", [None if i % every else v for i, v in enumerate(labels)])
    expected = stock(table, ["mae", "rmse", "r2"])
    got = measured(eta, table, regression(500, seed=2), baselines={"mae": 3.5})
    for name, value in expected.items():
        reading = pick(got, name)
        assert reading.value == pytest.approx(value, rel=1e-12)
        assert (reading.kind, reading.n) == (Kind.DECAY, 400 if not every else 134)
        assert reading.low < reading.value < reading.high
    assert (pick(got, "mae").baseline, pick(got, "rmse").baseline) == (3.5, None)


@pytest.mark.parametrize("seed", range(3))
def test_binary_metrics_are_evidentlys_own(
    churn: Family, binary: Make, measured: Make, pick: Make, put: Make, seed: int
) -> None:
    """ROC AUC with ties, F1 and accuracy at 0.5, log loss with certain and wrong rows."""
    table = binary(400, seed=seed)
    table = put(
        table, "prediction", [0.0, 1.0, 0.0, 1.0, 0.5, *table["prediction"].to_pylist()[5:]]
    )
    table = put(table, "label", [0.0, 1.0, 1.0, 0.0, 0.0, *table["label"].to_pylist()[5:]])
    expected = stock(table, ["roc_auc", "f1", "log_loss", "accuracy"])
    got = measured(churn, table, binary(500, seed=9))
    for name, value in expected.items():
        reading = pick(got, name)
        assert reading.value == pytest.approx(value, rel=1e-12), name
        assert reading.low < reading.value < reading.high


def test_only_the_champions_own_rows_count(
    eta: Family, regression: Make, measured: Make, pick: Make
) -> None:
    """Decay is measured on `own`, drift on `current`."""
    current, own = regression(400, seed=1), regression(60, seed=3)
    got = measured(eta, current, regression(500, seed=2), own=own)
    assert (pick(got, "mae").n, pick(got, "wasserstein", "load").n) == (60, 400)
    assert pick(got, "mae").value == pytest.approx(stock(own, ["mae"])["mae"])


@pytest.mark.parametrize(
    ("metric", "truth"),
    [
        ("mae", 5.0 * np.sqrt(2 / np.pi)),
        ("rmse", 5.0),
        ("r2", 1.0 - 25.0 / 125.0),
        ("roc_auc", 5.0 / 6.0),
        ("accuracy", 0.75),
        ("f1", 0.75),
        ("log_loss", 0.5),
        ("mean_error", 0.0),
        ("precision", 0.75),
        ("recall", 0.75),
        ("fpr", 0.25),
    ],
)
def test_the_90_percent_interval_covers_the_truth_that_often(metric: str, truth: float) -> None:
    """Of 600 windows of 14 unremarkable days, 85 to 95 % have the true value in the interval."""
    rng = np.random.default_rng(11)
    day = np.repeat(np.arange(14), 40)
    task = Task.REGRESSION if metric in METRICS[Task.REGRESSION] else Task.BINARY
    covered = 0
    for _ in range(600):
        if task is Task.REGRESSION:
            prediction = rng.normal(0.0, 10.0, len(day))
            label = prediction + rng.normal(0.0, 5.0, len(day))
        else:
            # A uniform probability that is right: every truth above is an integral over it.
            prediction = rng.uniform(size=len(day))
            label = (rng.uniform(size=len(day)) < prediction).astype(float)
        low, high = interval(*estimates(task, label, prediction)[metric](), day)
        covered += low < truth < high
    assert 0.85 < covered / 600 < 0.95


def test_a_bad_day_widens_the_interval() -> None:
    """With errors shared by a day the interval still covers; one that ignores days would not."""
    rng = np.random.default_rng(12)
    day = np.repeat(np.arange(14), 100)
    clustered, naive = 0, 0
    for _ in range(400):
        error = np.repeat(rng.normal(0.0, 1.0, 14), 100) + rng.normal(0.0, 2.0, len(day))
        low, high = interval(float(error.mean()), error - error.mean(), day)
        clustered += low < 0.0 < high
        low, high = interval(float(error.mean()), error - error.mean(), np.arange(len(day)))
        naive += low < 0.0 < high
    assert 0.85 < clustered / 400 < 0.95
    assert naive / 400 < 0.6


def test_one_day_gives_a_value_without_an_interval(
    eta: Family, regression: Make, measured: Make, pick: Make
) -> None:
    """The spread between days is unknown on the first day, and is not made up."""
    table = regression(400, seed=1).slice(0, 20)
    reading = pick(measured(eta, table, regression(500, seed=2)), "mae")
    assert reading.value is not None
    assert (reading.n, reading.low, reading.high) == (20, None, None)


def test_bounds_stay_where_the_metric_lives(
    churn: Family, binary: Make, measured: Make, pick: Make, put: Make
) -> None:
    """One error in a hundred: accuracy's upper bound is not above 1."""
    table = binary(100, seed=1)
    label = (table["prediction"].to_numpy() >= 0.5).astype(float)
    label[7] = 1.0 - label[7]
    reading = pick(measured(churn, put(table, "label", label), binary(500, seed=2)), "accuracy")
    assert (reading.value, reading.high) == (0.99, 1.0)


def test_a_perfect_model_has_no_interval(
    eta: Family, regression: Make, measured: Make, pick: Make, put: Make
) -> None:
    """No error at all tells nothing about its spread."""
    table = regression(100, seed=1)
    table = put(table, "label", table["prediction"].combine_chunks())
    reading = pick(measured(eta, table, regression(500, seed=2)), "rmse")
    assert (reading.value, reading.low, reading.high) == (0.0, None, None)
