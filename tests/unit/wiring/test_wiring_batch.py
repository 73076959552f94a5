"""Batches of an installation: on a schedule, killed, published, and as they come into the lake."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fakes.batch import MODEL as DE
from fakes.batch import START as NOW
from fakes.batch import multiplying, trips
from fakes.streamed import FEATURES, write_monitors

from driftloop.batch import Batches, Job, Progress
from driftloop.errors import BadRequest, LogError

MONITORS = Path(__file__).parents[2] / "monitors"
BATCH = """
[batch]
source = "in/{market}.parquet"
out = "out/{model}/{date}.parquet"
every = "1d"
publish = true
"""


@pytest.fixture
def made(place: Callable[..., Any], tmp_path: Path) -> Any:
    """An installation in which eta has a batch a day, and eta-de a champion."""
    monitors = Path(shutil.copytree(MONITORS, tmp_path / "monitors"))
    with (monitors / "eta.toml").open("a") as file:
        file.write(BATCH)
    (monitors / "in").mkdir()
    made = place(monitors)
    made.system.ledger.move(
        multiplying(tmp_path, 2, epoch=1), at=NOW, previous=None, reason="first"
    )
    return made


def in_the_lake(made: Any) -> pa.Table:
    made.ingest()
    sql = "SELECT id, distance, prediction, version, epoch, vehicle FROM lake.eta_predictions"
    return made.system.log.query(f"{sql} ORDER BY distance", {})


def test_a_turn_is_scored_once(made: Any, tmp_path: Path) -> None:
    """Answers in the file, in the lake and by id; a model that cannot be scored stays open."""
    system = made.system
    pq.write_table(trips(50), tmp_path / "monitors/in/de.parquet")
    de, fr = system.batches_due()
    scored = system.score_due(de)
    assert scored is not None
    assert scored.rows == 50
    written = pq.read_table(tmp_path / "monitors/out/eta-de/2026-03-01.parquet")
    assert written["prediction"].to_pylist() == [2.0 * n for n in range(50)]
    assert system.score_due(de) is None
    assert in_the_lake(made)["prediction"].to_pylist() == [2.0 * n for n in range(50)]
    last = written["id"].to_pylist()[-1]
    answer = system.answers.get(DE, last)
    assert answer is not None
    assert (answer.prediction, answer.version) == (98.0, 2)
    for _ in range(2):
        with pytest.raises(BadRequest, match="no such file"):
            system.score_due(fr)
    made.stand_at(NOW + timedelta(days=1))
    assert system.batches_due()[0].key == "batch/eta-de/20260302T000000"


def test_old_answers_are_pruned(made: Any, tmp_path: Path) -> None:
    """After `answers_days`, and batches that nobody went on with."""
    system = made.system
    pq.write_table(trips(5), tmp_path / "rows.parquet")
    job = Job(
        model=DE, source=str(tmp_path / "rows.parquet"), out=tmp_path / "o.parquet", publish=True
    )
    system.predict_batch(job)
    left = system.settings.batches / "eta-de-0123456789ab"
    left.mkdir()
    (left / "owner.lock").touch()
    long_ago = time.time() - 31 * 86_400
    os.utime(left, (long_ago, long_ago))
    made.stand_at(NOW + timedelta(days=8))
    for dry_run in (True, False):
        said = [str(each) for each in system.prune(dry_run=dry_run)]
        assert said[-2:] == ["1 batches left undone", "5 published answers"]
    assert not left.exists()
    assert str(system.prune()[-1]) == "0 published answers"


def test_a_source_is_not_overwritten_by_its_answers(made: Any, tmp_path: Path) -> None:
    """Not even one of many that a pattern names."""
    pq.write_table(trips(5), tmp_path / "rows.parquet")
    for source in ("rows.parquet", "*.parquet"):
        job = Job(model=DE, source=source, out=tmp_path / "rows.parquet", folder=tmp_path)
        with pytest.raises(BadRequest, match="overwrite its own source"):
            made.system.predict_batch(job)


@pytest.fixture
def refusing(
    place: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Any, Path]:
    """An installation whose rows need the age of their plane, and its monitors; ten rows a part."""
    said = FEATURES.replace('fallback = "null"', 'fallback = "refuse"')
    monitors = write_monitors(tmp_path / "monitors", features=said)
    made = place(monitors)
    head = multiplying(tmp_path, 2, epoch=1)
    made.system.ledger.move(head, at=NOW, previous=None, reason="first")
    monkeypatch.setattr("driftloop.batch.Batches", partial(Batches, part_rows=10, at_once=1))
    made.system.refresh("planes")
    return made, monitors


def flights(folder: Path, size: int, **planes: str) -> Job:
    """Return a batch of so many flights of N1, but those of `planes` in their rows, from 0."""
    numbers = [planes.get(f"row_{n}", "N1") for n in range(size)]
    origins = pa.array(["JFK"] * size)
    table = trips(size, tailnum=pa.array(numbers), origin=origins)
    pq.write_table(table, folder / "rows.parquet")
    return Job(model=DE, source=str(folder / "rows.parquet"), out=folder / "out.parquet")


def test_rows_that_a_feature_refuses_are_told_before_one_is_logged(
    refusing: tuple[Any, Path], tmp_path: Path
) -> None:
    """By column and row; mended in the file or in the table, the same command answers them all."""
    made, monitors = refusing
    with pytest.raises(BadRequest, match="eta-de: column tailnum, row 36: plane_age has no value"):
        made.system.predict_batch(flights(tmp_path, 40, row_35="N9"))
    assert not in_the_lake(made).num_rows
    (monitors / "planes.csv").write_text("tailnum,age\nN1,3\nN9,4\n")
    made.system.refresh("planes")
    assert made.system.predict_batch(flights(tmp_path, 41, row_35="N9")).rows == 41
    assert in_the_lake(made).num_rows == 41


def test_what_goes_missing_while_a_batch_is_scored_stops_it_and_it_goes_on(
    refusing: tuple[Any, Path], tmp_path: Path
) -> None:
    """It says how many rows are logged; when the key is back each row is in the lake once."""
    made, monitors = refusing

    def told(now: Progress) -> None:
        if (now.what, now.done) == ("scored", 20):
            (monitors / "planes.csv").write_text("tailnum,age\nN2,3\n")
            made.system.refresh("planes")

    job = flights(tmp_path, 40)
    with pytest.raises(LogError, match=r"20 of 40 rows were logged.*column tailnum, row 21"):
        made.system.predict_batch(job, told=told)
    (monitors / "planes.csv").write_text("tailnum,age\nN1,3\n")
    made.system.refresh("planes")
    assert made.system.predict_batch(job).before == 20
    assert in_the_lake(made)["distance"].to_pylist() == [float(n) for n in range(40)]


def test_a_killed_command_goes_on_where_it_stood(made: Any, tmp_path: Path) -> None:
    """With kill -9 while it scores: each row is in the lake once, by the version it began with."""
    count, settings = 300_000, made.system.settings
    source, out = tmp_path / "rows.parquet", tmp_path / "scored.parquet"
    pq.write_table(trips(count), source)
    words = [
        *(sys.executable, "-m", "driftloop", "--home", str(settings.home)),
        *("--monitors", str(settings.monitors)),
        *("predict-batch", "eta-de", str(source), "--out", str(out)),
    ]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        while not list(settings.batches.glob("*/part-*.parquet")):
            assert run.poll() is None, run.communicate()
            time.sleep(0.001)
        os.kill(run.pid, signal.SIGKILL)
    assert not out.exists()
    champion = multiplying(tmp_path, 7, epoch=2)
    made.system.ledger.move(champion, at=NOW, previous=made.system.ledger.head(DE), reason="better")
    ran = subprocess.run(words, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert f"{count} rows scored into {out} by version 2" in ran.stdout
    assert "by now version 7 answers" in ran.stdout
    found = in_the_lake(made)
    assert found.num_rows == count
    assert found["version"].unique().to_pylist() == [2]
    assert found["distance"].equals(trips(count)["distance"])
    assert found["id"].equals(pq.read_table(out)["id"])
