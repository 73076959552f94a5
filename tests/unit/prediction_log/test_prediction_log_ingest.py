import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from driftloop.errors import LogError
from driftloop.prediction_log import DamagedSegment, Ingester, IngestReport, Lake, SegmentSpool
from driftloop.spec import Family

Make = Callable[..., Any]


def report(**given: int) -> IngestReport:
    """A report of nothing but what is given."""
    return IngestReport(**({"segments": 0, "rows": 0, "labels": 0, "bad": 0} | given))


def test_segments_come_in_and_are_deleted(
    tmp_path: Path,
    lake: Lake,
    ingester: Ingester,
    spool: SegmentSpool,
    prediction: Make,
    label: Make,
) -> None:
    """Sealed rows of all kinds come in, stamped with the clock; open segments stay."""
    spool.predictions("eta", [prediction("a"), prediction("b")])
    spool.labels("eta", [label("a", 1.0)])
    spool.seal()
    spool.predictions("eta", [prediction("c")])
    assert ingester.ingest() == report(segments=2, rows=2, labels=1)
    assert ingester.ingest() == report()
    names = [path.name for path in (tmp_path / "spool" / "one").iterdir()]
    assert sorted(name.partition(".")[2].rpartition(".")[2] for name in names) == ["lock", "open"]
    counted = lake.query("SELECT rows FROM lake.segments ORDER BY rows").to_pydict()
    assert counted == {"rows": [1, 2]}


def test_a_segment_enters_once_whenever_the_ingester_dies(
    tmp_path: Path,
    lake: Lake,
    ingester: Ingester,
    spool: SegmentSpool,
    prediction: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Committed but not deleted, as after a crash, a segment is deleted and not read again."""
    spool.predictions("eta", [prediction("a")])
    spool.seal()
    (segment,) = (tmp_path / "spool" / "one").glob("*.ndjson")
    kept = segment.read_bytes()
    ingester.ingest()
    segment.write_bytes(kept)
    assert ingester.ingest() == report()
    assert not segment.exists()
    assert lake.query("SELECT id FROM lake.eta_predictions").num_rows == 1


def test_a_failed_commit_leaves_the_segment(
    lake: Lake,
    ingester: Ingester,
    spool: SegmentSpool,
    prediction: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """When the names cannot be written the rows are not either, and the next time both are."""
    spool.predictions("eta", [prediction("a")])
    spool.seal()
    with lake._store.transaction() as con:
        con.execute("ALTER TABLE lake.segments RENAME TO hidden")
        con.execute("CREATE TABLE lake.segments (name VARCHAR)")
    with pytest.raises(LogError, match="cannot be written"):
        ingester.ingest()
    assert lake.query("SELECT id FROM lake.eta_predictions").num_rows == 0
    with lake._store.transaction() as con:
        con.execute("DROP TABLE lake.segments")
        con.execute("ALTER TABLE lake.hidden RENAME TO segments")
    assert ingester.ingest() == report(segments=1, rows=1)


def test_a_spool_has_one_ingester(
    tmp_path: Path, lake: Lake, ingester: Ingester, clock: Any
) -> None:
    """A second ingester is refused for as long as the first lives."""
    with pytest.raises(LogError, match="another ingester"):
        Ingester(tmp_path / "spool", lake, clock)
    ingester.close()
    Ingester(tmp_path / "spool", lake, clock).close()


def test_two_writers_share_a_spool(
    tmp_path: Path, ingester: Ingester, lake: Lake, spool: SegmentSpool, prediction: Make
) -> None:
    """Each writing process has its folder, and the rows of both come in."""
    with SegmentSpool(tmp_path / "spool" / "two") as other:
        other.predictions("eta", [prediction("theirs")])
        spool.predictions("eta", [prediction("ours")])
        other.seal()
        spool.seal()
        assert ingester.ingest() == report(segments=2, rows=2)
    found = lake.query("SELECT id FROM lake.eta_predictions ORDER BY id").to_pydict()
    assert found == {"id": ["ours", "theirs"]}


def test_a_dead_writers_rows_are_recovered(
    tmp_path: Path, lake: Lake, ingester: Ingester, spool: SegmentSpool, prediction: Make
) -> None:
    """Open segments nobody owns are sealed without their torn line; the folder goes."""
    spool.predictions("eta", [prediction("a"), prediction("b")])
    (open_,) = (tmp_path / "spool" / "one").glob("*.open")
    dead = tmp_path / "spool" / "dead"
    dead.mkdir()
    (dead / "predictions.eta.0000.open").write_bytes(open_.read_bytes() + b'{"id":"torn","mo')
    (dead / "predictions.eta.0001.open").touch()
    (dead / "owner.lock").touch()
    assert ingester.ingest() == report(segments=1, rows=2)
    assert ingester.ingest() == report()
    assert not dead.exists()
    assert open_.exists()


@pytest.mark.parametrize(
    "damage",
    [
        ("predictions.eta.bad", b"no json\n", "cannot be parsed"),
        ("predictions.eta.bad", b'{"id":"x","version":"many"}\n', "cannot be parsed"),
        ("predictions.eta.bad", b'{"id":"\xff"}\n', "cannot be parsed"),
        ("predictions.eta.bad", b'{"id":"x","model":"eta-de"}\n', "lacks a value"),
        (
            "labels.eta.bad",
            b'{"id":"x","model":"eta-xx","value":1,"observed_at":"2026-03-01T00:00:00Z"}\n',
            "eta-xx",
        ),
        ("labels.gone.bad", b'{"id":"x"}\n', "gone"),
        ("notes.bad", b"{}\n", "not the name of a segment"),
    ],
)
def test_a_damaged_segment_is_set_aside(
    tmp_path: Path,
    lake: Lake,
    ingester: Ingester,
    spool: SegmentSpool,
    prediction: Make,
    damage: tuple[str, bytes, str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It moves to quarantine with its reason, whole, and costs none of its neighbours."""
    name, line, reason = damage
    folder = tmp_path / "spool" / "one"
    for i in range(4):
        spool.predictions("eta", [prediction(str(i))])
        spool.seal()
        if i == 1:
            (folder / f"{name}.ndjson").write_bytes(line)
    with caplog.at_level(logging.CRITICAL):
        assert ingester.ingest() == report(segments=4, rows=4, bad=1)
    aside = tmp_path / "spool" / "quarantine"
    assert (aside / f"{name}.ndjson").read_bytes() == line
    assert reason in (aside / f"{name}.reason").read_text()
    assert lake.query("SELECT DISTINCT id FROM lake.eta_predictions").num_rows == 4
    assert ingester.ingest() == report()


def test_the_lake_refuses_damage_whole(
    tmp_path: Path, lake: Lake, ingester: Ingester, spool: SegmentSpool, prediction: Make
) -> None:
    """Lake.append takes all segments it is given, or none."""
    spool.predictions("eta", [prediction("a")])
    spool.seal()
    (good,) = (tmp_path / "spool" / "one").glob("*.ndjson")
    bad = tmp_path / "labels.eta.bad.ndjson"
    bad.write_bytes(b"no json\n")
    with pytest.raises(DamagedSegment):
        lake.append([good, bad], arrived_at=datetime(2026, 3, 1, tzinfo=UTC))
    assert lake.query("SELECT id FROM lake.eta_predictions").num_rows == 0
    assert lake.holds([good.stem, bad.stem]) == frozenset()


def test_many_segments_go_in_several_transactions(
    tmp_path: Path, lake: Lake, clock: Any, spool: SegmentSpool, prediction: Make
) -> None:
    """A backlog beyond batch_bytes comes in by parts, all of it."""
    for i in range(6):
        spool.predictions("eta", [prediction(f"{i}-{n}") for n in range(10)])
        spool.seal()
    with Ingester(tmp_path / "spool", lake, clock, batch_bytes=4000) as ingester:
        before = lake.snapshot()
        assert ingester.ingest() == report(segments=6, rows=60)
        assert lake.snapshot() - before > 1


def test_run_ingests_until_stopped(
    tmp_path: Path,
    lake: Lake,
    clock: Any,
    spool: SegmentSpool,
    prediction: Make,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The loop ingests, survives errors and maintenance that fails, and ends with a last turn."""
    failures = iter([LogError("the disk is full")])
    ingest = Ingester.ingest

    def sometimes(self: Ingester) -> IngestReport:
        for error in failures:
            raise error
        return ingest(self)

    monkeypatch.setattr(Ingester, "ingest", sometimes)
    monkeypatch.setattr(
        Lake, "maintain", lambda *_, **__: (_ for _ in ()).throw(LogError("cannot merge"))
    )
    stop = threading.Event()
    with Ingester(tmp_path / "spool", lake, clock, maintain_every=0.001) as ingester:
        thread = threading.Thread(target=ingester.run, args=(stop, 0.01))
        thread.start()
        spool.predictions("eta", [prediction("a")])
        spool.seal()
        end = time.monotonic() + 10
        while not count(lake):
            assert time.monotonic() < end
        spool.predictions("eta", [prediction("b")])
        spool.seal()
        stop.set()
        thread.join(10)
        assert not thread.is_alive()
    assert count(lake) == 2
    assert "the disk is full" in caplog.text
    assert "cannot merge" in caplog.text


def test_maintenance_forgets_old_names_and_keeps_rows(
    lake: Lake,
    ingester: Ingester,
    spool: SegmentSpool,
    clock: Any,
    prediction: Make,
    window: Make,
    eta: Family,
) -> None:
    """Names a week old are forgotten, younger ones and all rows stay."""
    for i in range(3):
        spool.predictions("eta", [prediction(str(i))])
        spool.seal()
        ingester.ingest()
        clock.shown += timedelta(days=5)
    ingester.maintain()
    assert lake.query("SELECT name FROM lake.segments").num_rows == 2
    assert lake.rows(eta, window()).num_rows == 3


def count(lake: Lake) -> int:
    """How many predictions the lake holds."""
    return lake.query("SELECT id FROM lake.eta_predictions").num_rows
