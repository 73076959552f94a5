"""MLflow's database is made once, whoever comes first."""

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

MONITORS = Path(__file__).parents[2] / "monitors"
ASKS = """
from driftloop.settings import Settings
from driftloop.wiring import System
assert System(Settings()).registry.versions("eta-de") == ()
"""


def test_the_server_and_a_first_training_may_start_at_once(tmp_path: Path) -> None:
    """Neither finds half of the other's database: all end well, and the tables are there."""
    env = {**os.environ, "DRIFTLOOP_HOME": str(tmp_path), "DRIFTLOOP_MONITORS": str(MONITORS)}
    server = (sys.executable, "-m", "driftloop", "_mlflow", "--", "--help")
    asked = (sys.executable, "-c", ASKS)
    started = [
        subprocess.Popen(
            words, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for words in (server, asked)
    ]
    said = [each.communicate(timeout=120)[0] for each in started]
    assert [each.returncode for each in started] == [0, 0], said
    assert "--backend-store-uri" in said[0]
    with closing(sqlite3.connect(tmp_path / "mlflow" / "mlflow.db")) as connection:
        (count,) = connection.execute("SELECT count(*) FROM alembic_version").fetchone()
    assert count == 1
