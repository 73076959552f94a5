import subprocess
import sys
from pathlib import Path

import pytest

MONITORS = Path(__file__).parents[2] / "monitors"

PREAMBLE = """
import resource, sys
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from driftloop.errors import DriftloopError, LedgerError, LogError
from driftloop.ledger import SqlLedger
from driftloop.prediction_log import Ingester, Lake, SegmentSpool
from driftloop.records import Failed, Prediction
from driftloop.settings import Settings
from driftloop.spec import load_fleet

home, fleet = Path(sys.argv[1]), load_fleet(Path(sys.argv[2]))
AT = datetime(2026, 3, 1, tzinfo=UTC)

class Clock:
    def now(self):
        return AT

@contextmanager
def full(limit):
    # As on a full disk no file can grow beyond what it may have: EFBIG for ENOSPC.
    free = resource.RLIM_INFINITY
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, free))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (free, free))

def refused(error, act):
    try:
        act()
    except error as told:
        return str(told)
    raise AssertionError("it was not refused")

def row(n):
    features = {"distance": n / 7, "load": 0.5, "vehicle": "van"}
    return Prediction(id=f"r{n}", model="eta-de", version=1, epoch=1, event_time=AT,
                      predicted_at=AT, prediction=n / 3, features=features)

def fact(n):
    return Failed(model="eta-de", at=AT, order_key=f"o{n}", error="x" * 3000)
"""

INGESTER = """
with SegmentSpool(home / "spool" / "one") as spool, \\
     Lake(home / "lake", fleet, read_only=False) as lake, \\
     Ingester(home / "spool", lake, Clock()) as ingester:
    limit = int(sys.argv[3])
    for turn in range(2):
        spool.predictions("eta", [row(turn * 30_000 + n) for n in range(30_000)])
        spool.predictions("eta", [row(100_000 + turn)])
        spool.seal()
        with full(limit):
            print(refused(LogError, ingester.ingest))
            print(refused(LogError, ingester.ingest))
        done = ingester.ingest()
        assert done.bad == 0, done
    found = lake.query("SELECT count(*) n, count(DISTINCT id) d FROM lake.eta_predictions")
    assert found.to_pydict() == {"n": [60_002], "d": [60_002]}, found
    with full(limit):
        print(refused(LogError, ingester.maintain))
    ingester.maintain()
    found = lake.query("SELECT count(*) n, count(DISTINCT id) d FROM lake.eta_predictions")
    assert found.to_pydict() == {"n": [60_002], "d": [60_002]}, found
    assert not list((home / "spool").rglob("*.ndjson"))
"""

LEDGER = """
from driftloop.keep import backup
home.mkdir()
ledger = SqlLedger(f"sqlite:///{home / 'ledger.db'}")
kept = []
for n in range(20):
    assert ledger.append(fact(n), key=f"k{n}")
    kept.append(fact(n))
with full(20_000):
    for n in range(20, 23):
        print(refused(LedgerError, lambda: ledger.append(fact(n), key=f"k{n}")))
    print(refused(LedgerError, lambda: ledger.claim("act", lease=timedelta(seconds=1))))
    assert ledger.facts(Failed) == tuple(kept)
    print(refused(DriftloopError, lambda: backup(Settings(home=home), home.parent / "b.tar")))
assert not list(home.parent.glob("*b.tar*"))
for n in range(20, 23):
    assert ledger.append(fact(n), key=f"k{n}")
    kept.append(fact(n))
assert ledger.facts(Failed) == tuple(kept)
assert ledger.claim("act", lease=timedelta(seconds=1)).mine
"""


@pytest.mark.parametrize(
    ("script", "limit"),
    [(INGESTER, 1000), (INGESTER, 300_000), (LEDGER, 0)],
    ids=["the catalog", "the rows", "the ledger"],
)
def test_a_full_disk_loses_and_doubles_nothing(tmp_path: Path, script: str, limit: int) -> None:
    """What cannot be written is told; once there is room the same process goes on, all of it."""
    done = subprocess.run(
        [sys.executable, "-c", PREAMBLE + script, tmp_path / "home", MONITORS, str(limit)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # The catalog is SQLite's, the rows are in Parquet: each was the first that did not fit.
    assert ("parquet" in done.stdout) == (limit > 1000), done.stdout
