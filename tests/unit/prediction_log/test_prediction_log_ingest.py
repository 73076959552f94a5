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


@pytest.mark.parametrize(
    ("kind", "line", "reason"),
    [
        ("predictions", b"no json\n", "cannot be parsed"),
        ("predictions", b'{"id":"x","version":"many"}\n', "cannot be parsed"),
        ("predictions", b'{"id":"\xff"}\n', "cannot be parsed"),
        ("predictions", b'{"id":"x","model":"eta-de"}\n', "lacks a value"),
        (
            "labels",
            b'{"id":"x","model":"eta-xx","value":1,"observed_at":"2026-03-01T00:00:00Z"}\n',
            "eta-xx",
        ),
    ],
)
def test_bad_lines_cost_no_good_ones(  # noqa: PLR0913, PLR0917 - fixtures
    tmp_path: Path,
    lake: Lake,
    ingester: Ingester,
    spool: SegmentSpool,
    prediction: Make,
    label: Make,
    kind: str,
    line: bytes,
    reason: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Of a damaged segment all whole rows come in, once; the bad lines alone are set aside."""
    if kind == "predictions":
        spool.predictions("eta", [prediction(str(n)) for n in range(300)])
    else:
        spool.labels("eta", [label(str(n), 1.0) for n in range(300)])
    spool.seal()
    (segment,) = (tmp_path / "spool" / "one").glob("*.ndjson")
    lines = segment.read_bytes().splitlines(keepends=True)
    lines[7:7], lines[250:250] = [line], [line, line]
    segment.write_bytes(b"".join(lines))
    damaged = segment.read_bytes()
    with caplog.at_level(logging.CRITICAL):
        done = ingester.ingest()
        segment.write_bytes(damaged)  # as after a crash before it was deleted
        assert ingester.ingest() == report()
    assert done.bad == 1
    assert done.rows + done.labels == 300
    assert lake.query(f"SELECT DISTINCT id FROM lake.eta_{kind}").num_rows == 300
    assert lake.query(f"SELECT id FROM lake.eta_{kind}").num_rows == 300
    aside = tmp_path / "spool" / "quarantine"
    assert (aside / segment.name).read_bytes() == line * 3
    reasons = (aside / f"{segment.stem}.reason").read_text().splitlines()
    assert [said.split(":")[0] for said in reasons] == ["line 8", "line 251", "line 252"]
    assert all(reason in said for said in reasons)
    assert {path.name for path in aside.iterdir()} == {segment.name, f"{segment.stem}.reason"}


def test_a_segment_that_is_wrong_throughout_is_set_aside_soon(
    tmp_path: Path, lake: Lake, ingester: Ingester, caplog: pytest.LogCaptureFixture
) -> None:
    """One of 5,000 wrong lines is given up after the first hundred, whole, in seconds."""
    folder = tmp_path / "spool" / "one"
    folder.mkdir()
    segment = folder / "predictions.eta.bad.ndjson"
    text = b'{"id":"x","version":"many"}\n' * 5000
    segment.write_bytes(text)
    began = time.monotonic()
    with caplog.at_level(logging.CRITICAL):
        assert ingester.ingest() == report(bad=1)
    assert time.monotonic() - began < 10
    assert (tmp_path / "spool" / "quarantine" / segment.name).read_bytes() == text
    assert lake.query("SELECT name FROM lake.segments").num_rows == 0


def test_arrivals_never_go_back(  # noqa: PLR0913, PLR0917 - fixtures
    tmp_path: Path,
    lake: Lake,
    ingester: Ingester,
    spool: SegmentSpool,
    clock: Any,
    prediction: Make,
    label: Make,
    window: Make,
    eta: Family,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """With the clock set back, in a new process too, what was read up to the horizon stays so."""
    spool.predictions("eta", [prediction("a")])
    spool.labels("eta", [label("a", 1.0)])
    spool.seal()
    ingester.ingest()
    horizon = lake.horizon()
    known = window(known_at=horizon)
    before = lake.rows(eta, known)
    clock.shown -= timedelta(days=3)
    spool.predictions("eta", [prediction("b")])
    spool.labels("eta", [label("a", 2.0)])
    spool.seal()
    with caplog.at_level(logging.WARNING):
        ingester.ingest()
    assert "it was set back" in caplog.text
    ingester.close()
    with Ingester(tmp_path / "spool", lake, clock) as restarted:
        clock.shown -= timedelta(days=3)
        spool.predictions("eta", [prediction("c")])
        spool.seal()
        restarted.ingest()
    assert lake.rows(eta, known) == before
    found = lake.query("SELECT id FROM lake.eta_predictions ORDER BY arrived_at").to_pydict()
    assert found == {"id": ["a", "b", "c"]}
    later = lake.rows(eta, window(known_at=horizon + timedelta(seconds=1)))
    assert later.select(["id", "label"]).to_pydict() == {
        "id": ["a", "b", "c"],
        "label": [2.0, None, None],
    }


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
    """Of names a week old the last of each day stays, as do younger ones and all rows."""
    for i in range(6):
        spool.predictions("eta", [prediction(str(i))])
        spool.seal()
        ingester.ingest()
        clock.shown += timedelta(hours=1) if i % 2 == 0 else timedelta(days=5)
    ingester.maintain()
    held = lake.query("SELECT ingested_at FROM lake.segments ORDER BY 1")["ingested_at"].to_pylist()
    assert [(held[-1] - at) / timedelta(hours=1) for at in held] == [242, 122, 121, 1, 0]
    assert lake.rows(eta, window()).num_rows == 6


def count(lake: Lake) -> int:
    """How many predictions the lake holds."""
    return lake.query("SELECT id FROM lake.eta_predictions").num_rows
