"""A lake that machines share: catalog in PostgreSQL, files in S3, an ingester on each machine."""

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pyarrow as pa
import pytest
import stores

from driftloop.errors import BadRequest, LogError
from driftloop.prediction_log import S3, Ingester, Lake, Place, SegmentSpool, place, spool, windows
from driftloop.prediction_log import tables as layouts
from driftloop.spec import Family, Fleet

if TYPE_CHECKING:
    from conftest import StoppedClock
    from stores import Postgres

Make = Callable[..., Any]
DAY = timedelta(days=1)


@dataclass
class Machine:
    """One home: its spool, its ingester and its view of the lake."""

    home: Path
    lake: Lake
    ingester: Ingester
    spool: SegmentSpool

    def take(self, *rows: Any) -> None:
        """Log `rows`, and bring them into the lake."""
        self.spool.predictions("eta", rows)
        self.spool.seal()
        self.ingester.ingest()


@pytest.fixture
def at(tmp_path: Path, database: str, s3_endpoint: str) -> Callable[[str], Place]:
    """What a machine of this name knows of where the lake is."""
    s3 = S3(endpoint=s3_endpoint, region="us-east-1", key=stores.KEY, secret=stores.SECRET)
    files = f"s3://{stores.BUCKET}/{database.rpartition('/')[2]}"
    return lambda name: Place.of(tmp_path / name / "lake", catalog=database, files=files, s3=s3)


@pytest.fixture
def machine(
    tmp_path: Path, at: Callable[[str], Place], fleet: Fleet, clock: "StoppedClock"
) -> Iterator[Callable[..., Machine]]:
    """Start a machine; its writer's folder is called the same on each."""
    with ExitStack() as stack:

        def start(name: str, *, clock: Any = clock, **given: Any) -> Machine:
            home = tmp_path / name
            lake = stack.enter_context(Lake(at(name), fleet, read_only=False))
            ingester = stack.enter_context(Ingester(home / "spool", lake, clock, **given))
            spool = stack.enter_context(
                SegmentSpool(home / "spool" / "online-7", seal_rows=10**6, seal_every=3600.0)
            )
            return Machine(home, lake, ingester, spool)

        yield start


@pytest.fixture
def reader(at: Callable[[str], Place], fleet: Fleet) -> Iterator[Lake]:
    """A third machine, which only reads."""
    with Lake(at("reader"), fleet, read_only=True) as lake:
        yield lake


class Behind:
    """The wall clock, so many seconds late."""

    def __init__(self, seconds: float) -> None:
        self.behind = timedelta(seconds=seconds)

    def now(self) -> datetime:
        return datetime.now(UTC) - self.behind


def write_a_file(lake: Lake) -> None:
    """Make the tables, and write more than the catalog keeps in itself."""
    lake.migrate()
    with lake._store.transaction() as con:
        con.execute("INSERT INTO lake.segments SELECT 'x', range, now() FROM range(99999)")


def ids(lake: Lake) -> list[str]:
    found = lake.query("SELECT id FROM lake.eta_predictions ORDER BY id")
    return [str(each) for each in found["id"].to_pylist()]


def test_what_each_machine_logs_all_machines_read(
    machine: Callable[..., Machine], reader: Lake, prediction: Make
) -> None:
    """Two ingesters, one lake: each row once, small commits and merged files alike."""
    assert not reader.is_made()
    with pytest.raises(LogError, match="there is no prediction log here yet"):
        reader.horizon()
    one, two = machine("one"), machine("two")
    assert reader.is_made()
    for n in range(3):
        one.take(prediction(f"one-{n}"))
        two.take(prediction(f"two-{n}"))
    expected = sorted(f"{who}-{n}" for who in ("one", "two") for n in range(3))
    assert ids(reader) == expected
    one.ingester.maintain()
    two.ingester.maintain()
    one.take(prediction("one-3"))
    assert ids(reader) == ids(two.lake) == sorted([*expected, "one-3"])


def test_a_window_at_a_horizon_never_changes(
    tmp_path: Path,
    machine: Callable[..., Machine],
    reader: Lake,
    eta: Family,
    prediction: Make,
    window: Make,
) -> None:
    """Whatever two ingesters do at once, one's clock behind: what was read is read again, equal."""
    machines = [machine("one", clock=Behind(0.0)), machine("two", clock=Behind(0.2))]
    stop = threading.Event()

    def write(number: int) -> None:
        for n in range(15):
            machines[number].take(*(prediction(f"{number}-{n}-{m}") for m in range(20)))
            if n == 7:
                machines[number].ingester.maintain()

    seen: dict[datetime, pa.Table] = {}

    def read() -> None:
        while not stop.is_set():
            known_at = reader.horizon()
            if known_at is not None and known_at not in seen:
                seen[known_at] = reader.rows(eta, window(known_at=known_at))

    with ThreadPoolExecutor(3) as pool:
        looking = pool.submit(read)
        writers = [pool.submit(write, number) for number in range(2)]
        wait(writers)
        stop.set()
        for thread in (*writers, looking):
            thread.result()
    assert len(ids(reader)) == 2 * 15 * 20
    assert len(seen) > 5
    for known_at, rows in seen.items():
        assert reader.rows(eta, window(known_at=known_at)) == rows
    stamps = reader.query("SELECT ingested_at FROM lake.segments")["ingested_at"].to_pylist()
    assert len(set(stamps)) == len(stamps) == 30


def test_a_window_too_large_to_hold_is_spilled_here(
    machine: Callable[..., Machine],
    reader: Lake,
    eta: Family,
    prediction: Make,
    window: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its rows come from where all machines have them, and are those of a window held at once."""
    machine("one").take(*(prediction(f"{n:03}") for n in range(200)))
    expected = reader.rows(eta, window())
    monkeypatch.setattr(windows, "LARGE", 100)
    monkeypatch.setattr(windows, "TOGETHER", 100)
    ((_, look),) = reader.looks(eta, [window()])
    assert not isinstance(look.rows, pa.Table)
    assert look.rows.num_rows == expected.num_rows == 200
    assert look.rows.column("id").to_pylist() == expected["id"].to_pylist()


def test_an_arrival_is_after_all_that_could_be_read(
    machine: Callable[..., Machine], clock: "StoppedClock", prediction: Make
) -> None:
    """Also where the clock stands still, or is behind another's."""
    one, two = machine("one"), machine("two")
    one.take(prediction("a"))
    first = one.lake.horizon()
    clock.shown -= DAY
    two.take(prediction("b"))
    second = one.lake.horizon()
    assert first is not None
    assert second is not None
    assert first < second < first + timedelta(seconds=1)


_DIES = """
import os, sys
from pathlib import Path
from driftloop.prediction_log import Lake, Place
from driftloop.spec import load_fleet
where = Place.of(Path(sys.argv[1]), catalog=sys.argv[2], files=sys.argv[3])
with Lake(where, load_fleet(Path(sys.argv[4])), read_only=False).turn():
    print("mine", flush=True)
    sys.stdin.read()
"""


def test_a_turn_ends_with_the_process_that_had_it(
    tmp_path: Path,
    machine: Callable[..., Machine],
    database: str,
    prediction: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Until then others wait, say so, and lose nothing; after a SIGKILL the next has its turn."""
    one = machine("one")
    monitors = Path(__file__).parents[2] / "monitors"
    argv = [sys.executable, "-c", _DIES, str(tmp_path / "x"), database, "/nowhere", str(monitors)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"mine\n"
        monkeypatch.setattr(place, "TURN_WITHIN", 1)
        with pytest.raises(LogError, match="another ingester had its turn for 1 s"):
            one.take(prediction("a"))
        assert ids(one.lake) == []
        other.kill()
    monkeypatch.undo()
    one.ingester.ingest()
    assert ids(one.lake) == ["a"]


def test_a_turn_that_was_lost_commits_nothing(
    machine: Callable[..., Machine], database: str, prediction: Make
) -> None:
    """Its connection is ended from outside, before the commit: the rows come with the next turn."""
    one = machine("one")
    really = one.lake.append

    def cut(*given: Any, **more: Any) -> tuple[int, int]:
        with psycopg.connect(database, autocommit=True) as con:
            con.execute("""
                SELECT pg_terminate_backend(pid) FROM pg_locks
                WHERE locktype = 'advisory' AND granted
            """)
        return really(*given, **more)

    one.lake.append = cut  # type: ignore[method-assign]
    with pytest.raises(LogError, match="the catalog does not answer"):
        one.take(prediction("a"))
    assert ids(one.lake) == []
    one.lake.append = really  # type: ignore[method-assign]
    one.ingester.ingest()
    assert ids(one.lake) == ["a"]


def test_a_server_that_was_away_costs_no_row(
    postgresql: "Postgres", machine: Callable[..., Machine], reader: Lake, prediction: Make
) -> None:
    """Meanwhile rows wait in the spool; afterwards readers and ingester go on by themselves."""
    one = machine("one")
    one.take(prediction("a"))
    assert ids(reader) == ["a"]
    postgresql.stop()
    try:
        with pytest.raises(LogError) as refused:
            one.take(prediction("b"))
        with pytest.raises(LogError) as unread:
            reader.horizon()
    finally:
        postgresql.start()
    assert "s3cret" not in f"{refused.value}{unread.value}"
    one.ingester.ingest()
    assert ids(reader) == ["a", "b"]


def test_segments_of_two_machines_never_have_one_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prediction: Make
) -> None:
    """Not even of writers whose folders are called the same, in the same moment."""
    monkeypatch.setattr(time, "time_ns", lambda: 1)
    monkeypatch.setattr(spool.secrets, "token_hex", _tokens())
    names = set()
    for home in ("one", "two"):
        with SegmentSpool(tmp_path / home / "online-7", seal_every=3600.0) as writer:
            writer.predictions("eta", [prediction("a")])
        (sealed,) = (tmp_path / home / "online-7").glob("*.ndjson")
        assert spool.identity(tmp_path / home) in sealed.name
        names.add(sealed.name)
    assert len(names) == 2


def _tokens() -> Callable[[int], str]:
    """Chance, which for four bytes has bad luck each time."""
    return lambda size: "0" * 8 if size == 4 else os.urandom(size).hex()


def test_an_ingester_forgets_only_what_it_wrote_itself(
    machine: Callable[..., Machine],
    clock: "StoppedClock",
    prediction: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A segment that another took up and died before it deleted it enters once, weeks later too."""
    one, two = machine("one"), machine("two")
    with monkeypatch.context() as dying:
        dying.setattr(Path, "unlink", lambda path, **more: None)
        two.take(prediction("a"))
    for day in range(10):
        clock.shown += DAY
        one.take(prediction(f"b{day}-0"))
        one.take(prediction(f"b{day}-1"))
    count = "SELECT name FROM lake.segments"
    before = one.lake.query(count).num_rows
    one.ingester.maintain()
    assert one.lake.query(count).num_rows < before
    two.ingester.ingest()
    assert ids(two.lake).count("a") == 1


def test_a_machine_whose_files_go_elsewhere_is_refused(
    tmp_path: Path, machine: Callable[..., Machine], database: str, fleet: Fleet
) -> None:
    """Nobody else would find them."""
    machine("one")
    wrong = Place.of(tmp_path / "two", catalog=database, files=str(tmp_path / "files"))
    with (
        Lake(wrong, fleet, read_only=False) as lake,
        pytest.raises(BadRequest, match="its files are not where lake_files says") as refused,
    ):
        lake.migrate()
    assert "s3://" in str(refused.value)


def test_an_older_lake_is_kept_beside_in_the_database(
    machine: Callable[..., Machine],
    database: str,
    prediction: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before the first step the catalog's tables are copied into a schema of their own."""
    one = machine("one")
    one.take(prediction("a"))
    steps = (*layouts.STEPS, lambda con: con.execute("CREATE TABLE lake.notes (text VARCHAR)"))
    monkeypatch.setattr(layouts, "STEPS", steps)
    monkeypatch.setattr(layouts, "SCHEMA", layouts.SCHEMA + 1)
    one.lake.migrate()
    assert one.lake.query("SELECT * FROM lake.notes").num_rows == 0
    named = "SELECT table_name FROM {}.ducklake_table WHERE table_name IN ('notes', 'segments')"
    with psycopg.connect(database) as con:
        before = con.execute(named.format(f"ducklake_v{layouts.SCHEMA - 1}")).fetchall()  # type: ignore[arg-type]
        after = con.execute(named.format("public")).fetchall()  # type: ignore[arg-type]
    assert before == [("segments",)]
    assert sorted(after) == [("notes",), ("segments",)]


def test_secrets_are_in_no_error_and_no_log(
    tmp_path: Path, database: str, fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither the catalog's password nor the key's secret, whatever fails."""
    caplog.set_level(logging.DEBUG)
    nowhere = S3(endpoint="http://127.0.0.1:1", region="r", key="k", secret="hush-hush")
    files = f"s3://{stores.BUCKET}/x"
    said = []
    for address in (database.replace("s3cret", "s3cret-wrong"), database):
        where = Place.of(tmp_path / "one", catalog=address, files=files, s3=nowhere)
        said.append(repr(where))
        with Lake(where, fleet, read_only=False) as lake:
            with pytest.raises(LogError) as refused:
                write_a_file(lake)
            said.append(str(refused.value))
    told = "".join(said) + caplog.text
    assert "127.0.0.1:1" in told
    assert "s3cret" not in told
    assert "hush" not in told


@pytest.mark.parametrize(
    ("module", "extra"),
    [
        ("psycopg", "postgres"),
        ("duckdb_extension_postgres_scanner", "postgres"),
        ("duckdb_extension_httpfs", "s3"),
    ],
)
def test_without_an_extra_the_extra_is_named(
    at: Callable[[str], Place],
    fleet: Fleet,
    module: str,
    extra: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who sets the address without what it takes is told what to install."""
    monkeypatch.setitem(sys.modules, module, None)
    if module == "psycopg":
        monkeypatch.setitem(sys.modules, "psycopg.conninfo", None)
    with (
        Lake(at("one"), fleet, read_only=False) as lake,
        pytest.raises(BadRequest, match="is not installed") as refused,
    ):
        lake.migrate()
    assert f"driftloop[{extra}]" in refused.value.hint


def test_a_lake_of_one_machine_may_have_its_files_in_s3(
    tmp_path: Path, at: Callable[[str], Place], fleet: Fleet, clock: Any, prediction: Make
) -> None:
    """SQLite's catalog stays in the home, and no Parquet file comes into it."""
    there = at("one")
    where = Place.of(tmp_path / "alone", files=there.files, s3=there.s3)
    with Lake(where, fleet, read_only=False) as lake:
        with Ingester(tmp_path / "spool", lake, clock) as ingester:
            with SegmentSpool(tmp_path / "spool" / "online-7") as writer:
                writer.predictions("eta", [prediction("a")])
            ingester.ingest()
            ingester.maintain()
        assert ids(lake) == ["a"]
    assert (tmp_path / "alone" / "catalog.sqlite").is_file()
    assert not list(tmp_path.rglob("*.parquet"))
