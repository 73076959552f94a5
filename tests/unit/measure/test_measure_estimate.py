"""Performance before its labels are there: right, sure enough, or UNKNOWN."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from driftloop.measure import prepared
from driftloop.measure.believed import believed, known
from driftloop.measure.estimate import estimate_readings
from driftloop.records import DOUBTED, Kind, Reading
from driftloop.spec import Family

NOW = datetime(2026, 3, 1, tzinfo=UTC)
DAY = 86400.0
Make = Callable[..., Any]


def late(table: pa.Table, *, mean: float = 1.0, seed: int = 0, by: Make | None = None) -> pa.Table:
    """Return rows over 14 days whose labels take days, `mean` on average or by label."""
    rng = np.random.default_rng(seed)
    happened = table["event_time"].cast(pa.timestamp("us", "UTC")).cast(pa.int64()).to_numpy()
    label = table["label"].to_numpy()
    scale = np.full(len(label), mean) if by is None else by(label)
    arrived = happened + rng.exponential(scale) * DAY * 1e6
    here = arrived <= NOW.timestamp() * 1e6
    when = pa.array(arrived.astype(np.int64), pa.timestamp("us", "UTC"), mask=~here)
    rows = table.drop_columns("label").append_column("label", pa.array(label, mask=~here))
    return rows.append_column("labelled_at", when)


def told(family: Family, own: pa.Table, reference: pa.Table, **other: Any) -> list[Reading]:
    baselines = {family.decay.metric: 0.5} if family.decay else {}
    found = estimate_readings(family, own, prepared(family, reference), baselines, NOW, **other)
    return list(found)


def of_all(readings: list[Reading]) -> Reading:
    (found,) = (r for r in readings if r.segment is None and r.metric != DOUBTED)
    return found


def bought_soon(label: np.ndarray) -> np.ndarray:
    return np.where(label == 1.0, 0.2, 2.5)


def test_it_is_nothing_where_all_labels_are_here(churn: Family, binary: Make) -> None:
    """Then decay says it all."""
    table = binary(1000, seed=1)
    own = table.append_column("labelled_at", table["event_time"])
    assert told(churn, own, binary(500, seed=2)) == []


def test_outcomes_that_are_known_late_are_corrected_for(churn: Family, binary: Make) -> None:
    """Those that are bought are known first: labels alone are far off, the estimate is not."""
    off, alone, covered = [], [], []
    for seed in range(12):
        table = binary(3000, seed=seed)
        own = late(table, by=bought_soon, seed=seed)
        reading = of_all(told(churn, own, binary(1000, seed=99)))
        label, score = table["label"].to_numpy(), table["prediction"].to_numpy()
        score = np.clip(score, 2.3e-16, 1 - 2.3e-16)
        loss = -np.log(np.where(label == 1.0, score, 1.0 - score))
        here = own["label"].is_valid().to_numpy()
        off.append(reading.value - loss.mean())
        alone.append(loss[here].mean() - loss.mean())
        covered.append(reading.low <= loss.mean() <= reading.high)
        assert reading.n == here.sum()
    assert np.mean(covered) >= 0.88
    assert abs(np.mean(off)) < 0.35 * abs(np.mean(alone))


def test_the_newest_rows_are_told_apart(eta: Family, regression: Make) -> None:
    """There is one reading for all rows, one of the newest, and one of the last day."""
    found = told(eta, late(regression(4000, seed=3)), regression(800, seed=4))
    assert [r.segment for r in found] == [None, "age=newest", "age=day"]
    assert {r.kind for r in found} == {Kind.ESTIMATE}
    widths = [r.high - r.low for r in found]
    assert widths[0] < widths[1]


def test_few_labels_are_unknown(eta: Family, regression: Make) -> None:
    """Of fewer labels than `estimate.min_labels` nothing is learnt, and so nothing said."""
    (found,) = told(eta, late(regression(150, seed=5)), regression(800, seed=6))
    assert found.value is None
    assert found.problem is not None
    assert found.problem.startswith("UNKNOWN: ")
    assert "at least 200 are needed" in found.problem


def test_the_gates_rows_are_labels_too(eta: Family, regression: Make) -> None:
    """A champion whose own labels have yet to come is told of by what it was gated on."""
    own = late(regression(3000, seed=7), mean=300.0)
    own = own.set_column(
        own.column_names.index("label"), "label", pa.nulls(3000, pa.float64())
    ).set_column(
        own.column_names.index("labelled_at"),
        "labelled_at",
        pa.nulls(3000, pa.timestamp("us", "UTC")),
    )
    held = regression(1000, seed=8).rename_columns({"prediction": "candidate"})
    never = eta.model_copy(
        update={"window": eta.window.model_copy(update={"label_expiry": timedelta(days=30)})}
    )
    found = of_all(told(never, own, regression(800, seed=9), holdout=held))
    assert found.n == 0
    assert found.value == pytest.approx(4.0, abs=0.4)


def test_a_relation_that_changed_is_unknown_and_in_doubt(eta: Family, regression: Make) -> None:
    """Labels that came last deny what was expected: nothing is told, and the judge is."""
    table = regression(4000, seed=10)
    happened = table["event_time"].cast(pa.timestamp("us", "UTC")).cast(pa.int64()).to_numpy()
    new = happened > (NOW.timestamp() - 4 * DAY) * 1e6
    label = table["label"].to_numpy() + 25.0 * new
    changed = table.set_column(table.column_names.index("label"), "label", pa.array(label))
    own = late(changed, mean=2.0)
    found = told(eta, own, regression(800, seed=11))
    assert of_all(found).value is None
    assert "what the inputs mean may have changed" in (of_all(found).problem or "")
    assert [r.metric for r in found if r.metric == DOUBTED] == [DOUBTED]


def test_labels_that_stop_are_unknown(eta: Family, regression: Make) -> None:
    """No label of the last five days came, where most take hours: silence is not health."""
    own = late(regression(4000, seed=12), mean=0.2)
    old = own["event_time"].cast(pa.timestamp("us", "UTC")).cast(pa.int64()).to_numpy() < (
        (NOW.timestamp() - 5 * DAY) * 1e6
    )
    for name in ("label", "labelled_at"):
        kept = pa.array(
            [v if k else None for v, k in zip(own[name].to_pylist(), old, strict=True)],
            own[name].type,
        )
        own = own.set_column(own.column_names.index(name), name, kept)
    found = told(eta, own, regression(800, seed=13))
    assert "labels are overdue" in (of_all(found).problem or "")
    assert [r.metric for r in found if r.metric == DOUBTED] == [DOUBTED]


def test_inputs_that_no_label_tells_of_are_unknown(eta: Family, regression: Make) -> None:
    """Of the last day's rows the inputs lie beyond all that the champion was trained on."""
    table = regression(4000, seed=14)
    happened = table["event_time"].cast(pa.timestamp("us", "UTC")).cast(pa.int64()).to_numpy()
    new = happened > (NOW.timestamp() - DAY) * 1e6
    distance = pa.array(table["distance"].to_numpy() + 1e4 * new)
    moved = table.set_column(table.column_names.index("distance"), "distance", distance)
    found = {r.segment: r for r in told(eta, late(moved, mean=3.0), regression(800, seed=15))}
    assert found["age=day"].value is None
    assert "100% of distance lie beyond what the champion was trained on" in (
        found["age=day"].problem or ""
    )


def test_when_labels_arrived_must_be_known(eta: Family, regression: Make) -> None:
    """A log that does not tell leaves nothing to learn delays of."""
    own = late(regression(3000, seed=16)).drop_columns("labelled_at")
    found = of_all(told(eta, own, regression(800, seed=17)))
    assert found.value is None
    assert "arrived is not known" in (found.problem or "")


def test_what_is_expected_of_a_row_is_near_what_it_costs(eta: Family, regression: Make) -> None:
    """Rows whose errors are large are expected to have large ones, label or none."""
    table = regression(6000, seed=18)
    wide = table["load"].to_numpy() > 0.5
    error = (table["label"].to_numpy() - table["prediction"].to_numpy()) * np.where(wide, 3.0, 1.0)
    label = pa.array(table["prediction"].to_numpy() + error)
    own = late(table.set_column(table.column_names.index("label"), "label", label))
    rows = known(eta, "mae", own, NOW)
    found = believed(eta, "mae", own, prepared(eta, regression(800, seed=19)), rows, None)
    losses = found.expected[:, 0]
    for part in (wide & ~rows.here, ~wide & ~rows.here):
        assert losses[part].mean() == pytest.approx(np.abs(error)[part].mean(), rel=0.2)


def test_of_very_many_rows_a_part_is_looked_at(eta: Family, regression: Make) -> None:
    """Every third of 50,000 rows tells as much as days let it; the labels are those of these."""
    table = regression(50_000, seed=20)
    found = of_all(told(eta, late(table, mean=2.0), regression(800, seed=21)))
    assert found.n == pytest.approx(50_000 / 3 * 0.86, rel=0.02)
    error = np.abs(table["label"].to_numpy() - table["prediction"].to_numpy()).mean()
    assert found.low <= error <= found.high
