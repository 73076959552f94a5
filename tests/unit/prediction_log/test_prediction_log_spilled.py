"""Windows too large to hold: what is read of them, a column at a time, and what is left behind."""

import fcntl
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from driftloop.errors import LogError
from driftloop.measure import EvidentlyMeasure
from driftloop.prediction_log import ForeignLog, Ingester, Lake, SegmentSpool, store
from driftloop.prediction_log import windows as windows_of
from driftloop.prediction_log.store import spilling
from driftloop.records import Kind, ModelId
from driftloop.rows import Rows, chosen
from driftloop.spec import Family, LogSource

ROWS = 400
FRENCH = ModelId("eta-fr")
Make = Callable[..., Any]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Sets how many rows are large."""

    def bound(rows: int) -> None:
        monkeypatch.setattr(windows_of, "LARGE", rows)
        monkeypatch.setattr(windows_of, "TOGETHER", rows)

    return bound


@pytest.fixture
def filled(
    lake: Lake, spool: SegmentSpool, ingester: Ingester, clock: Any, prediction: Make, label: Make
) -> Lake:
    """ROWS ids of eta-de, some sent again, some without answer, label or value; ten of eta-fr.

    A fifth are of version 2, events come in no order and many at one time, labels are corrected.
    """
    rng = np.random.default_rng(7)
    values = rng.gamma(2.0, 100.0, ROWS).tolist()
    for n, value in enumerate(values):
        event = prediction("x").event_time - timedelta(minutes=int(rng.integers(0, 600)))
        features = {
            "distance": None if n % 11 == 0 else value,
            "load": value / 5000,
            "vehicle": None if n % 13 == 0 else ["van", "bike", "ship"][n % 3],
        }
        given = {"version": 1 + (n % 5 == 0), "event_time": event, "features": features}
        spool.predictions("eta", [prediction(f"r{n}", prediction=value / 10, **given)])
        if n % 7 == 0:
            spool.predictions("eta", [prediction(f"r{n}", prediction=-1.0, **given)])
        if n % 3:
            spool.labels("eta", [label(f"r{n}", value / 10 + float(rng.normal()))])
    spool.predictions("eta", [prediction(f"r{n}", model=FRENCH) for n in range(10)])
    spool.seal()
    ingester.ingest()
    clock.shown += timedelta(minutes=1)
    spool.predictions("eta", [prediction(f"r{n}", prediction=-2.0) for n in range(5)])
    spool.labels("eta", [label(f"r{n}", 1.5) for n in range(0, ROWS, 9)])
    spool.labels("eta", [label("never", 3.0)])
    spool.seal()
    ingester.ingest()
    return lake


def whole(rows: Rows) -> pa.Table:
    """All columns of `rows`."""
    return pa.table({name: rows.column(name) for name in rows.column_names})


@pytest.mark.parametrize("version", [None, 1, 2, 77])
def test_a_spilled_window_is_the_same_window(
    filled: Lake, window: Make, eta: Family, small: Make, version: int | None
) -> None:
    """Rows, order, types and counts are those of one that is held; so are the models beside it."""
    asked = [window(version=version), window(version=version, model=FRENCH)]
    small(100)
    looks = dict(filled.looks(eta, asked))
    spilled = looks[asked[0].model]
    assert not isinstance(spilled.rows, pa.Table)
    assert isinstance(looks[FRENCH].rows, pa.Table)
    for each in asked:
        held = filled.rows(eta, each)
        assert whole(looks[each.model].rows).combine_chunks().equals(held.combine_chunks())
        assert looks[each.model].summary == filled.summary(eta, each)
    assert spilled.rows.num_rows == filled.rows(eta, asked[0]).num_rows


def test_what_is_measured_of_a_spilled_window_is_the_same_to_the_bit(
    filled: Lake, window: Make, eta: Family, small: Make, tmp_path: Path
) -> None:
    """Every reading, of all rows and of the champion's own, and Evidently's second opinion."""
    file = tmp_path / "eta-de" / "first" / "reference.parquet"
    file.parent.mkdir(parents=True)
    held = filled.rows(eta, window())
    pq.write_table(held.slice(0, 250), file)
    found = []
    for large in (10**6, 100):
        small(large)
        ((_, look),) = filled.looks(eta, [window()])
        assert isinstance(look.rows, pa.Table) == (large == 10**6)
        own = chosen(look.rows, pc.equal(look.rows.column("version"), 1))
        sides = {"current": look.rows, "own": own, "reference": file}
        measure = EvidentlyMeasure()
        readings = measure.measure(
            family=eta,
            summary=look.summary,
            baselines={"mae": 1.0},
            now=window().end,
            **sides,
        ).readings
        found.append(readings)
        assert measure.disputed(family=eta, readings=readings, **sides) == ()
    assert found[0] == found[1]
    assert all(reading.n for reading in found[1])
    kinds = {Kind.DRIFT, Kind.DECAY, Kind.ESTIMATE, Kind.QUALITY}
    assert kinds == {reading.kind for reading in found[1]}


def test_a_spilled_window_of_somebody_elses_log_is_the_same_window(
    tmp_path: Path, filled: Lake, window: Make, eta: Family, small: Make
) -> None:
    """A DuckDB file, open to its writer again while the rows are measured."""
    rows = filled.rows(eta, window()).append_column("model", pa.array(["eta-de"] * ROWS))
    file = tmp_path / "theirs.duckdb"
    with duckdb.connect(str(file)) as con:
        con.register("rows", rows)
        con.execute("CREATE TABLE scored AS FROM rows UNION ALL FROM (FROM rows LIMIT 20)")
    log = LogSource(source="theirs.duckdb", table="scored", columns={eta.time: "event_time"})
    away = eta.model_copy(update={"log": log, "markets": ("de",)})
    theirs = ForeignLog(away, folder=tmp_path, scratch=tmp_path / "scratch", moves=lambda model: ())
    held, summary = theirs.rows(away, window()), theirs.summary(away, window())
    small(100)
    for _, look in theirs.looks(away, [window()]):
        with duckdb.connect(str(file)) as con:
            con.execute("CREATE OR REPLACE TABLE scored AS SELECT 1 AS gone")
        assert not isinstance(look.rows, pa.Table)
        assert whole(look.rows).combine_chunks().equals(held.combine_chunks())
        assert look.summary == summary


def test_a_spilled_row_that_no_log_can_hold_is_told(
    tmp_path: Path, churn: Family, window: Make, small: Make
) -> None:
    """As it is of rows that are held, with its id."""
    features = ", ".join(
        f"{'1.0' if feature.kind == 'numeric' else repr('a')} AS {name}"
        for name, feature in churn.features.items()
    )
    sql = f"""
        SELECT 'r' || i AS id, 'uk' AS model, TIMESTAMP '2026-02-28' AS {churn.time}, 1 AS label,
               CASE WHEN i = 37 THEN 1.5 ELSE 0.5 END AS prediction, {features} FROM range(60) t(i)
    """
    log = LogSource(source=sql)
    away = churn.model_copy(update={"log": log})
    theirs = ForeignLog(away, folder=tmp_path, scratch=tmp_path / "scratch", moves=lambda model: ())
    small(50)
    ((_, look),) = theirs.looks(away, [window(model=away.models[0])])
    assert "the prediction 1.5 is no probability of 1" in str(look.fault)
    assert "id r37" in str(look.fault)


def test_rows_outlive_their_look_and_leave_no_name(
    filled: Lake, window: Make, eta: Family, small: Make, tmp_path: Path
) -> None:
    """They can be read while anyone holds them, and nothing of them is to be cleared away."""
    small(5)
    looks = dict(filled.looks(eta, [window(), window(model=FRENCH)]))
    assert list((tmp_path / "lake" / "spilled").iterdir()) == []
    for model, count in ((window().model, ROWS), (FRENCH, 10)):
        assert len(looks[model].rows.column("distance")) == count


def test_a_window_that_does_not_fit_on_the_disk_is_that_models_trouble(
    filled: Lake,
    window: Make,
    eta: Family,
    small: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It says so, the next model is looked at, and what was begun is gone."""
    small(100)
    with monkeypatch.context() as patch:
        no_room = {"memory_limit": "4MB", "max_temp_directory_size": "0KB"}
        patch.setattr(store, "spilling", lambda scratch: spilling(scratch) | no_room)
        looks = dict(filled.looks(eta, [window(), window(model=FRENCH)]))
    fault = looks[window().model].fault
    assert isinstance(fault, LogError)
    assert "its rows cannot be spilled" in str(fault)
    assert str(tmp_path / "lake" / "spilled") in str(fault)
    assert looks[FRENCH].fault is None
    assert looks[FRENCH].rows.num_rows == 10
    assert list((tmp_path / "lake" / "spilled").iterdir()) == []
    ((_, again),) = filled.looks(eta, [window()])
    assert again.fault is None


def test_what_a_killed_process_left_is_cleared(
    filled: Lake, window: Make, eta: Family, small: Make, tmp_path: Path
) -> None:
    """With the next window that is spilled; a folder that another process is at stays."""
    small(100)
    left, at_work = (tmp_path / "lake" / "spilled" / name for name in ("left", "work"))
    for folder in (left, at_work):
        folder.mkdir(parents=True)
        (folder / "rows.parquet").write_text("half")
    held = os.open(at_work, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        list(filled.looks(eta, [window()]))
        assert not left.exists()
        assert (at_work / "rows.parquet").exists()
    finally:
        os.close(held)


def test_a_damaged_file_is_told(
    filled: Lake, window: Make, eta: Family, small: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A column that cannot be read any more is a fault of the log, not of the program."""
    small(100)
    ((_, look),) = filled.looks(eta, [window()])

    def broken(*_: object, **__: object) -> pa.Table:
        raise OSError("Input/output error")

    monkeypatch.setattr(pq.ParquetFile, "read", broken)
    with pytest.raises(LogError, match="what was spilled cannot be read: Input/output error"):
        look.rows.column("load")


def test_a_sample_is_of_ids(
    filled: Lake, window: Make, eta: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    """About as many rows as asked for, the same each time, settled as all are; few are all."""
    held = filled.rows(eta, window())
    rows, of = filled.sample(eta, window())
    assert (rows, of) == (held, ROWS)
    monkeypatch.setattr(windows_of, "SAMPLE", 100)
    rows, of = filled.sample(eta, window())
    assert of == ROWS
    assert 60 < rows.num_rows < 140
    assert rows.equals(filled.sample(eta, window())[0])
    asked = pc.is_in(held["id"], value_set=rows["id"].combine_chunks())
    assert held.filter(asked).combine_chunks().equals(rows.combine_chunks())
    with pytest.raises(ValueError, match="of all versions"):
        filled.sample(eta, window(version=1))
