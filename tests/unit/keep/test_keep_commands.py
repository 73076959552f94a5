import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from driftloop.clock import Clock
from driftloop.keep import backup, restore
from driftloop.prediction_log import Lake
from driftloop.spec import Fleet

MONITORS = Path(__file__).parents[2] / "monitors"


def driftloop(home: Path, *words: str | Path) -> "subprocess.CompletedProcess[str]":
    clean = {n: v for n, v in os.environ.items() if not n.startswith("DRIFTLOOP_")}
    command = [sys.executable, "-m", "driftloop", "--home", home, "--monitors", MONITORS]
    return subprocess.run(
        [*command, *words], capture_output=True, text=True, timeout=60, check=False, env=clean
    )


@pytest.fixture
def home(house: Any, tmp_path: Path) -> Path:
    """A home of one's own, as the house is."""
    backup(house.system.settings, tmp_path / "backup.tar")
    restore(tmp_path / "backup.tar", tmp_path / "home")
    return tmp_path / "home"


@pytest.mark.parametrize("what", ["ledger", "lake"])
def test_up_refuses_what_a_newer_driftloop_wrote(home: Path, fleet: Fleet, what: str) -> None:
    """Before a service is started it is said what is too new: exit code 2."""
    if what == "ledger":
        with closing(sqlite3.connect(home / "ledger.db")) as ledger:
            ledger.execute("UPDATE ledger_meta SET version = 99")
            ledger.commit()
    else:
        with Lake(home / "lake", fleet, read_only=False) as lake, lake._store.transaction() as con:
            con.execute("UPDATE lake.layout SET version = 99")
    done = driftloop(home, "up")
    assert done.returncode == 2
    assert f"the {what} has" in done.stderr
    assert "newer driftloop" in done.stderr
    assert not (home / "logs").exists()


def test_restore_says_what_it_found_and_where_it_may_not(home: Path, tmp_path: Path) -> None:
    """A summary on success; exit code 2, and nothing changed, where something is already."""
    done = driftloop(tmp_path / "new", "restore", tmp_path / "backup.tar")
    assert (done.returncode, done.stderr) == (0, "")
    assert "champions 1, facts 8, predictions and labels in the log 1920" in done.stdout
    again = driftloop(tmp_path / "new", "restore", tmp_path / "backup.tar")
    assert again.returncode == 2
    assert "something here already" in again.stderr
    missing = driftloop(tmp_path / "other", "restore", tmp_path / "no.tar")
    assert missing.returncode == 2
    assert "no such file" in missing.stderr
    assert not (tmp_path / "other").exists()


def test_a_dry_run_says_what_would_go_and_what_is_pinned(home: Path, house: Any) -> None:
    """Two years on all rows are old; those that versions were trained on are pinned, and stay."""
    later = house.system.clock.now() + timedelta(days=730)
    Clock(origin=later, started=datetime(9999, 1, 1, tzinfo=UTC), speed=1.0).write(
        home / "clock.json"
    )
    before = sorted(path for path in home.rglob("*") if path.is_file())
    done = driftloop(home, "prune", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "version 1, which is kept, was trained on them" in done.stdout
    assert "let go: 48 predictions and 48 labels; 912 old predictions are pinned" in done.stdout
    assert "would go: 0 folders" in done.stdout
    assert set(before) <= set(home.rglob("*"))
