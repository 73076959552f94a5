"""What the log holds beside predictions and labels, and predictions in bulk."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from driftloop.errors import LogError
from driftloop.prediction_log import Expiry, Ingester, IngestReport, Lake, SegmentSpool, tables
from driftloop.prediction_log.spool import BULK, waiting
from driftloop.records import Event, ModelId, Role, Served, Shadow
from driftloop.spec import Family, Fleet, Source

NOON = datetime(2026, 2, 28, 12, tzinfo=UTC)
MODEL = ModelId("eta-de")

Make = Callable[..., Any]


@pytest.fixture
def fleet(fleet: Fleet) -> Fleet:
    """The fleet, and a source of departures."""
    departures = Source(
        name="air-departures",
        kind="events",
        time="departed_at",
        fields={"origin": "categorical", "delay": "numeric"},
    )
    return replace(fleet, sources={"air-departures": departures})


def event(position: int, **given: Any) -> Event:
    usual = {
        "id": f"e{position}",
        "source": "air-departures",
        "event_time": NOON,
        "received_at": NOON,
        "fields": {"origin": "JFK", "delay": 4.5},
    }
    return Event(position=position, **(usual | given))


def shadow(id_: str, prediction: float | None, **given: Any) -> Shadow:
    usual = {
        "model": MODEL,
        "version": 2,
        "epoch": 3,
        "event_time": NOON,
        "predicted_at": NOON,
    }
    return Shadow(id=id_, prediction=prediction, **(usual | given))


def served(**given: Any) -> Served:
    usual = {
        "model": MODEL,
        "version": 2,
        "role": Role.CANARY,
        "start": NOON,
        "end": NOON + timedelta(seconds=5),
        "requests": 7,
        "errors": 1,
        "seconds": (0, 6, 1),
    }
    return Served(**(usual | given))


def test_events_shadows_and_what_was_served_come_in(
    lake: Lake, ingester: Ingester, spool: SegmentSpool
) -> None:
    """Each has its table, and every value comes back as it was given."""
    spool.events("air-departures", [event(1), event(2, fields={"origin": None, "delay": None})])
    spool.shadows("eta", [shadow("a", 20.5), shadow("b", None)])
    spool.served("eta", [served()])
    spool.seal()
    assert ingester.ingest() == IngestReport(segments=3, rows=0, labels=0, bad=0)
    rows = lake.query(
        "SELECT id, position, origin, delay FROM lake.air_departures_events ORDER BY position"
    )
    assert rows.to_pylist() == [
        {"id": "e1", "position": 1, "origin": "JFK", "delay": 4.5},
        {"id": "e2", "position": 2, "origin": None, "delay": None},
    ]
    rows = lake.query("SELECT id, version, epoch, prediction FROM lake.eta_shadows ORDER BY id")
    assert rows.to_pydict() == {
        "id": ["a", "b"],
        "version": [2, 2],
        "epoch": [3, 3],
        "prediction": [20.5, None],
    }
    (row,) = lake.query(
        'SELECT role, requests, errors, seconds, "end" FROM lake.eta_served'
    ).to_pylist()
    assert (row["role"], row["requests"], row["errors"]) == ("canary", 7, 1)
    assert row["seconds"] == [0, 6, 1]
    assert row["end"] == NOON + timedelta(seconds=5)


def test_predictions_tell_what_fell_back_and_what_the_stream_knew(
    lake: Lake, ingester: Ingester, spool: SegmentSpool, prediction: Make
) -> None:
    """Names of features and the position are kept; without lookups there are none."""
    spool.predictions("eta", [prediction("a", fallbacks=("load",), position=41), prediction("b")])
    spool.seal()
    ingester.ingest()
    rows = lake.query("SELECT id, fallbacks, position FROM lake.eta_predictions ORDER BY id")
    assert rows.to_pylist() == [
        {"id": "a", "fallbacks": ["load"], "position": 41},
        {"id": "b", "fallbacks": [], "position": None},
    ]


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("events.air-departures", b'{"id": "e1", "event_time": "2026-02-28T12:00:00Z"}'),
        ("events.no-such-source", b"{}"),
        ("shadows.eta", b'{"id": "a", "model": "eta-xx"}'),
        ("served.eta", b'{"model": "eta-de"}'),
    ],
)
def test_what_lacks_a_value_is_set_aside(
    tmp_path: Path, ingester: Ingester, kind: str, line: bytes
) -> None:
    """A row without its position, model or version, and one of nobody, reach no table."""
    folder = tmp_path / "spool" / "two"
    folder.mkdir()
    (folder / f"{kind}.01.ndjson").write_bytes(line + b"\n")
    assert ingester.ingest().bad == 1
    assert (tmp_path / "spool" / "quarantine" / f"{kind}.01.reason").read_text()


def bulk(size: int, **given: list[Any]) -> pa.Table:
    """Predictions of eta-de as a table of many rows."""
    columns: dict[str, Any] = {
        "id": [f"b{n}" for n in range(size)],
        "model": [MODEL] * size,
        "version": pa.array([3] * size, pa.int32()),
        "epoch": pa.array([4] * size, pa.int32()),
        "event_time": pa.array([NOON] * size, pa.timestamp("us", tz="UTC")),
        "predicted_at": pa.array([NOON] * size, pa.timestamp("us", tz="UTC")),
        "prediction": [float(n) for n in range(size)],
        "fallbacks": pa.nulls(size, pa.list_(pa.string())),
        "position": pa.nulls(size, pa.int64()),
        "distance": [n / 7 for n in range(size)],
        "load": pa.nulls(size, pa.float64()),
        "vehicle": ["van"] * size,
    }
    return pa.table({**columns, **given})


def test_bulk_predictions_come_in_once_beside_lines(
    tmp_path: Path,
    lake: Lake,
    ingester: Ingester,
    spool: SegmentSpool,
    prediction: Make,
    eta: Family,
) -> None:
    """A Parquet segment is sealed as it is written, waits, and enters once, as lines do."""
    spool.bulk("eta", bulk(1000))
    spool.predictions("eta", [prediction("a")])
    spool.seal()
    (segment,) = (tmp_path / "spool" / "one").glob(f"*{BULK}")
    kept = segment.read_bytes()
    asked = pa.table({"id": ["b999", "zz"], "model": [MODEL, MODEL]})
    assert waiting(tmp_path / "spool", eta, asked)["id"].to_pylist() == ["b999"]
    assert ingester.ingest() == IngestReport(segments=2, rows=1001, labels=0, bad=0)
    segment.write_bytes(kept)
    assert ingester.ingest().rows == 0
    assert not segment.exists()
    (row,) = lake.query("SELECT * FROM lake.eta_predictions WHERE id = 'b7'").to_pylist()
    assert (row["prediction"], row["distance"], row["load"]) == (7.0, 1.0, None)


@pytest.mark.parametrize("what", ["torn", "foreign", "without"])
def test_damaged_bulk_is_set_aside_whole(
    tmp_path: Path, lake: Lake, ingester: Ingester, spool: SegmentSpool, prediction: Make, what: str
) -> None:
    """What cannot be read, names a foreign model or lacks a column costs no other segment."""
    table = bulk(3, model=["eta-xx"] * 3) if what == "foreign" else bulk(3)
    spool.bulk("eta", table.drop_columns(["version"]) if what == "without" else table)
    (segment,) = (tmp_path / "spool" / "one").glob(f"*{BULK}")
    if what == "torn":
        segment.write_bytes(segment.read_bytes()[:100])
    spool.predictions("eta", [prediction("a")])
    spool.seal()
    assert ingester.ingest() == IngestReport(segments=1, rows=1, labels=0, bad=1)
    aside = tmp_path / "spool" / "quarantine"
    assert (aside / segment.name).exists()
    assert (aside / f"{segment.stem}.reason").read_text()
    assert lake.query("SELECT id FROM lake.eta_predictions")["id"].to_pylist() == ["a"]


def test_bulk_that_cannot_be_written_leaves_nothing(
    tmp_path: Path, spool: SegmentSpool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk is told, and neither a part nor a segment stays."""

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(LogError, match="No space left"):
        spool.bulk("eta", bulk(3))
    assert [path.name for path in (tmp_path / "spool" / "one").iterdir()] == ["owner.lock"]


def test_a_lake_of_layout_1_gets_the_new_columns(
    lake: Lake, ingester: Ingester, spool: SegmentSpool, prediction: Make, fleet: Fleet
) -> None:
    """Rows from before stay, null in what they could not say; new ones say it."""
    spool.predictions("eta", [prediction("old")])
    spool.seal()
    ingester.ingest()
    with lake._store.transaction() as con:
        for family in fleet.families:
            con.execute(f"ALTER TABLE lake.{family.table}_predictions DROP COLUMN fallbacks")
            con.execute(f"ALTER TABLE lake.{family.table}_predictions DROP COLUMN position")
        con.execute("DROP TABLE lake.eta_shadows")
        con.execute("UPDATE lake.layout SET version = 1")
    lake.migrate()
    assert lake.layout() == tables.SCHEMA
    spool.predictions("eta", [prediction("new", fallbacks=("load",), position=5)])
    spool.seal()
    ingester.ingest()
    rows = lake.query("SELECT id, fallbacks, position FROM lake.eta_predictions ORDER BY id")
    assert rows.to_pylist() == [
        {"id": "new", "fallbacks": ["load"], "position": 5},
        {"id": "old", "fallbacks": None, "position": None},
    ]
    assert lake.query("SELECT * FROM lake.eta_shadows").num_rows == 0


def test_what_is_old_goes_beside_predictions_too(
    lake: Lake, ingester: Ingester, spool: SegmentSpool, eta: Family, clock: Any
) -> None:
    """Events, shadows and counts leave the log at the age that predictions do, and not before."""
    for days in (0, 10):
        at = NOON + timedelta(days=days)
        clock.shown = at
        spool.events("air-departures", [event(days + 1, event_time=at, received_at=at)])
        spool.shadows("eta", [shadow(f"s{days}", 1.0, predicted_at=at)])
        spool.served("eta", [served(model=ModelId("eta-de"), start=at, end=at)])
        spool.seal()
        ingester.ingest()
    lake.maintain(
        pending=frozenset(), expiries=[Expiry(family=eta, before=NOON + timedelta(days=5))]
    )
    assert lake.query("SELECT position FROM lake.air_departures_events")[
        "position"
    ].to_pylist() == [11]
    assert lake.query("SELECT id FROM lake.eta_shadows")["id"].to_pylist() == ["s10"]
    assert lake.query("SELECT * FROM lake.eta_served").num_rows == 1


def test_a_field_that_changes_its_kind_is_refused(
    lake: Lake, ingester: Ingester, fleet: Fleet
) -> None:
    """The log holds what the source declared first; another kind needs another name."""
    departures = fleet.sources["air-departures"]
    changed = departures.model_copy(
        update={"fields": {**departures.fields, "delay": "categorical"}}
    )
    with (
        Lake(
            lake._store.folder, replace(fleet, sources={changed.name: changed}), read_only=False
        ) as other,
        pytest.raises(LogError, match=r"sources\.toml: air-departures\.fields\.delay"),
    ):
        other.migrate()
