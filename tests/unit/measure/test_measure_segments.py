"""The judged metric, level by level of the columns that a monitor file names."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from driftloop.records import Kind, Reading
from driftloop.spec import Family

Make = Callable[..., Any]


@pytest.fixture
def by_vehicle(eta: Family) -> Family:
    """The regression family, with its one category as segments; 30 labels are enough."""
    return eta.model_copy(update={"segments": ("vehicle",)})


def segments(got: Any) -> dict[str, Reading]:
    return {r.segment: r for r in got.readings if r.segment is not None}


def test_a_segment_is_measured_as_its_rows_alone(
    by_vehicle: Family, eta: Family, regression: Make, measured: Make, pick: Make
) -> None:
    """Value, interval and count of each level are those of a window of its rows; no baseline."""
    current, reference = regression(400, seed=1), regression(500, seed=2)
    got = measured(by_vehicle, current, reference, baselines={"mae": 3.0})
    assert list(segments(got)) == ["vehicle=van", "vehicle=bike", "vehicle=truck"]
    for name in ("van", "bike", "truck"):
        mine = current.filter(pc.equal(current["vehicle"], name))
        alone = pick(measured(eta, mine, reference), "mae")
        found = segments(got)[f"vehicle={name}"]
        assert (found.kind, found.metric, found.n) == (Kind.DECAY, "mae", mine.num_rows)
        assert (found.value, found.low, found.high) == pytest.approx(
            (alone.value, alone.low, alone.high), rel=1e-12
        )
        assert (found.column, found.baseline) == (None, None)


def test_without_segments_nothing_else_changes(
    by_vehicle: Family, eta: Family, regression: Make, measured: Make
) -> None:
    """All other readings are the same to the bit."""
    tables = regression(400, seed=1), regression(500, seed=2)
    whole = [r for r in measured(by_vehicle, *tables).readings if r.segment is None]
    assert tuple(whole) == measured(eta, *tables).readings


def test_small_levels_are_measured_together(
    by_vehicle: Family, regression: Make, measured: Make, put: Make
) -> None:
    """Levels with fewer than 30 labels make one, if they have as many together; so does null."""
    names = ["van"] * 100 + ["a"] * 20 + ["b"] * 20 + [None] * 40 + ["(other)"] * 60
    current = put(regression(240, seed=1), "vehicle", pa.array(names, pa.string()))
    got = segments(measured(by_vehicle, current, regression(500, seed=2)))
    assert {name: r.n for name, r in got.items()} == {
        "vehicle=van": 100,
        "vehicle=(other)": 60,
        "vehicle (null)": 40,
        "vehicle (other)": 40,
    }
    few = current.slice(0, 120)
    assert list(segments(measured(by_vehicle, few, regression(500, seed=2)))) == ["vehicle=van"]


def test_at_most_twenty_levels_are_told_apart(
    by_vehicle: Family, regression: Make, measured: Make, put: Make
) -> None:
    """The largest are; all others are measured together, and every row once."""
    names = np.repeat([f"v{n}" for n in range(25)], np.arange(40, 65))
    current = put(regression(len(names), seed=1), "vehicle", names)
    got = segments(measured(by_vehicle, current, regression(500, seed=2)))
    assert list(got) == [*(f"vehicle=v{n}" for n in range(24, 4, -1)), "vehicle (other)"]
    assert sum(r.n for r in got.values()) == len(names)
    assert got["vehicle (other)"].n == 40 + 41 + 42 + 43 + 44


def test_only_labelled_rows_count(
    by_vehicle: Family, regression: Make, measured: Make, put: Make
) -> None:
    """A level whose labels have not come is too small, whatever its rows."""
    current = regression(300, seed=1)
    label = pc.if_else(pc.equal(current["vehicle"], "van"), None, current["label"])
    got = segments(measured(by_vehicle, put(current, "label", label.combine_chunks()), current))
    assert "vehicle=van" not in got
    assert got["vehicle=bike"].n == pc.sum(pc.equal(current["vehicle"], "bike")).as_py()


def test_a_column_that_is_not_there_says_so(
    by_vehicle: Family, regression: Make, measured: Make
) -> None:
    """Its reading has no value and the reason; the model's own metric is untouched."""
    tables = regression(300, seed=1), regression(500, seed=2)
    got = segments(measured(by_vehicle, *tables, own=tables[0].drop_columns("vehicle")))
    assert {name: (r.value, r.problem) for name, r in got.items()} == {
        "vehicle": (None, "vehicle is missing in the champion's rows")
    }


def test_evidentlys_snapshot_holds_each_segment(
    by_vehicle: Family, regression: Make, measured: Make
) -> None:
    """Each is a metric of its own there, with its own value."""
    got = measured(by_vehicle, regression(400, seed=1), regression(500, seed=2))
    held = {
        result["metric_value_location"]["metric"]["params"]["segment"]: result["value"]
        for result in json.loads(got.snapshot())["metric_results"].values()
        if result["metric_value_location"]["metric"]["params"].get("segment")
    }
    assert held == {name: r.value for name, r in segments(got).items()}
    assert len(set(held.values())) == 3
