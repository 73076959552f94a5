from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from driftloop.records import Kind, LogSummary
from driftloop.spec import Family, Feature

Make = Callable[..., Any]

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def faulty(eta: Family, regression: Make, measured: Make, put: Make) -> Any:
    """Ten rows with known faults, against a reference of which a tenth has no load."""
    inf, nan = float("inf"), float("nan")
    current = regression(10, seed=1)
    current = put(current, "distance", [-1.0, 5000.0, 5000.1, inf, -inf, None, nan, 0.0, 1.0, 2.0])
    current = put(current, "load", [0.5] * 5 + [None] * 5)
    current = put(current, "vehicle", ["van"] * 5 + ["ship", "ship", None, None, "bike"])
    current = put(current, "label", [1.0] * 4 + [None] * 6)
    reference = regression(100, seed=2)
    reference = put(reference, "load", [None] * 10 + reference["load"].to_pylist()[10:])
    summary = LogSummary(rows=12, duplicates=2, labels=4, newest_event=NOW - timedelta(minutes=90))
    return measured(eta, current, reference, summary=summary, now=NOW)


@pytest.mark.parametrize(
    ("metric", "column", "value", "n", "baseline"),
    [
        ("null_share", "distance", 0.2, 10, 0.0),
        ("null_share", "load", 0.5, 10, 0.1),
        ("null_share", "vehicle", 0.2, 10, 0.0),
        ("out_of_range", "distance", 0.5, 8, None),
        ("out_of_range", "load", 0.0, 5, None),
        ("unseen", "vehicle", 0.25, 8, 0.0),
        ("duplicates", None, 1 / 6, 12, None),
        ("volume", None, 12.0, 12, None),
        ("freshness", None, 1.5, 12, None),
        ("labelled", None, 0.4, 10, None),
    ],
)
def test_each_fault_is_counted(
    faulty: Any, pick: Make, metric: str, column: str, value: float, n: int, baseline: float | None
) -> None:
    """Shares over the right rows: infinities are out of range, nulls are in no range at all."""
    got = pick(faulty, metric, column)
    assert (got.kind, got.n, got.baseline, got.problem) == (Kind.QUALITY, n, baseline, None)
    assert got.value == pytest.approx(value)


def test_a_key_is_not_measured(churn: Family, binary: Make, measured: Make) -> None:
    """It is logged to be looked up by, and the rows measured need not have it."""
    keyed = churn.model_copy(
        update={"features": {**churn.features, "customer": Feature(kind="key")}}
    )
    got = measured(keyed, binary(20, seed=1), binary(50, seed=2))
    assert {r.column for r in got.readings} == {*churn.features, "prediction", None}


def test_a_feature_without_a_range_has_none_to_leave(
    churn: Family, binary: Make, measured: Make
) -> None:
    """`spend` declares no range, so nothing is said about one."""
    got = measured(churn, binary(20, seed=1), binary(50, seed=2))
    assert [r.column for r in got.readings if r.metric == "out_of_range"] == ["tenure"]


def test_every_reading_of_quality_is_there_once(
    eta: Family, regression: Make, measured: Make
) -> None:
    """The set of readings depends on the monitor alone, never on the data, but for segments."""
    full = measured(eta, regression(50, seed=1), regression(50, seed=2))
    empty = measured(eta, regression(0, seed=1), regression(50, seed=2))
    names = [(r.kind, r.metric, r.column) for r in full.readings]
    assert names == [(r.kind, r.metric, r.column) for r in empty.readings]
    assert len(names) == len(set(names)) == 4 + 7 + 3 + 2 + 1 + 4
