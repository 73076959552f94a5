import io
import sqlite3
import subprocess
import sys
import tarfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import msgspec
import pytest

from driftloop.errors import ArtifactError, BadRequest, TooNew
from driftloop.keep import Backup, backup, restore
from driftloop.records import ModelId, Moved, Trained
from driftloop.serve.model import load_model

DE = ModelId("eta-de")
MONITORS = Path(__file__).parents[2] / "monitors"
Change = Callable[[dict[str, bytes]], None]


def contents(file: Path) -> dict[str, bytes]:
    with tarfile.open(file) as tar:
        return {m.name: tar.extractfile(m).read() for m in tar}  # type: ignore[union-attr]


def rewritten(saved: Path, to: Path, change: Change) -> Path:
    """The backup with something in it changed behind its back."""
    files = contents(saved)
    change(files)
    with tarfile.open(to, "w") as tar:
        for name, body in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(body)
            tar.addfile(info, io.BytesIO(body))
    return to


def test_a_backup_restores_under_another_path(
    house_at: Any, house: Any, saved: Path, tmp_path: Path
) -> None:
    """Log, ledger, model files and MLflow are as they were, and all paths are the new home's."""
    home = tmp_path / "with a space" / "elsewhere"
    found = restore(saved, home)
    other = house_at(home)
    assert found.champions == other.system.ledger.heads()
    assert found.facts == house.system.ledger.count() == other.system.ledger.count()
    eta = house.system.fleet.family_named("eta")
    trained = house.system.ledger.facts(Trained)[0]
    window = trained.candidate.order.window
    assert other.system.log.rows(eta, window) == house.system.log.rows(eta, window)
    for move in other.system.ledger.facts(Moved):
        assert Path(move.head.artifact).is_relative_to(home)
        load_model(Path(move.head.artifact), move.head.digest)
    assert str(house.home) not in str(other.system.ledger.facts(Trained))
    versions = other.system.registry.versions(DE)
    assert [version.version for version in versions] == [2, 1]
    with other.system.registry._asked("test", DE) as client:
        for version in ("1", "2"):
            run = client.get_run(client.get_model_version(DE, version).run_id)
            folder = Path(unquote(urlparse(run.info.artifact_uri).path))
            assert folder.is_relative_to(home)
            assert (folder / "model.onnx").is_file()
            assert "model.onnx" in [file.path for file in client.list_artifacts(run.info.run_id)]
    with closing(sqlite3.connect(home / "mlflow" / "mlflow.db")) as database:
        assert str(house.home) not in "".join(database.iterdump())
    assert other.system.clock.now() == house.system.clock.now()
    assert {path.name for path in (home / "monitors").iterdir()} >= {"eta.toml", "owners.toml"}


def test_a_restored_home_goes_on(house_at: Any, saved: Path, tmp_path: Path) -> None:
    """It trains, registers, releases, rolls back and logs as any other."""
    restore(saved, tmp_path / "home")
    other = house_at(tmp_path / "home")
    assert other.version("third/eta-de", seed=3) == 3
    head = other.system.roll_back(DE, to=1, who="me")
    assert (head.version, head.epoch) == (1, 4)
    with other.spool("online") as spool:
        spool.predictions("eta", other.predictions(["after"]))
    other.ingest()
    found = other.system.log.query("SELECT id FROM lake.eta_predictions WHERE id = 'after'")
    assert found.num_rows == 1


def test_what_was_answered_before_is_in_a_backup_made_at_work(
    house_at: Any, house: Any, load: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """While rows are written and taken up a backup has each answered one, and none twice."""
    with load:
        before = []
        for n in range(3):
            before.append(load.until(1000 * (n + 1)))
            # A process of its own, as always: this one has the catalog open.
            command = [sys.executable, "-m", "driftloop", "--home", house.home]
            done = subprocess.run(
                [*command, "--monitors", MONITORS, "backup", tmp_path / f"{n}.tar"],
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            assert "champions 1," in done.stdout
    assert not [record for record in caplog.records if record.name.startswith("driftloop")]
    waiting = 0
    for n, expected in enumerate(before):
        waiting += restore(tmp_path / f"{n}.tar", tmp_path / f"home{n}").waiting
        other = house_at(tmp_path / f"home{n}")
        other.ingest()
        other.ingest()
        asked = other.system.log.query
        ids = asked("SELECT id FROM lake.eta_predictions WHERE id LIKE 'load-%'")["id"].to_pylist()
        assert len(ids) == len(set(ids))
        assert set(expected) <= set(ids) <= set(load.answered)
        names = asked("SELECT name FROM lake.segments")["name"].to_pylist()
        assert len(names) == len(set(names))
        assert not list((other.home / "spool").rglob("*.ndjson"))
    assert waiting > 0


def test_a_home_that_is_not_empty_is_left_alone(house: Any, saved: Path) -> None:
    """What is there is never written over."""
    before = sorted(house.home.rglob("*"))
    with pytest.raises(BadRequest, match="something here already"):
        restore(saved, house.home)
    assert sorted(house.home.rglob("*")) == before


@pytest.mark.parametrize("part", ["model.onnx", ".parquet", "ledger.db", "mlflow.db"])
def test_a_damaged_backup_is_refused_by_name(saved: Path, tmp_path: Path, part: str) -> None:
    """One wrong byte anywhere: the file is named, and there is no home."""

    def damage(files: dict[str, bytes]) -> None:
        name = next(name for name in files if name.endswith(part))
        middle = len(files[name]) // 2
        body = bytearray(files[name])
        body[middle] ^= 1
        files[name] = bytes(body)

    file = rewritten(saved, tmp_path / "bad.tar", damage)
    with pytest.raises(BadRequest, match=f"{part} is not what was backed up"):
        restore(file, tmp_path / "home")
    assert [path.name for path in tmp_path.iterdir()] == ["bad.tar"]


@pytest.mark.parametrize("length", [0.0, 0.3, 0.9])
def test_a_backup_cut_short_is_refused(saved: Path, tmp_path: Path, length: float) -> None:
    """Of half a file nothing is restored."""
    file = tmp_path / "cut.tar"
    body = saved.read_bytes()
    file.write_bytes(body[: int(len(body) * length)])
    with pytest.raises(BadRequest, match="cut short"):
        restore(file, tmp_path / "home")
    assert [path.name for path in tmp_path.iterdir()] == ["cut.tar"]


@pytest.mark.parametrize("what", ["missing", "strange", "outside"])
def test_a_backup_holds_what_it_lists_and_no_more(saved: Path, tmp_path: Path, what: str) -> None:
    """A file that is missing, or one that nobody listed, or one for elsewhere: refused."""

    def change(files: dict[str, bytes]) -> None:
        if what == "missing":
            del files["clock.json"]
        else:
            files["strange" if what == "strange" else "../outside"] = b""

    file = rewritten(saved, tmp_path / "bad.tar", change)
    with pytest.raises(BadRequest, match=r"clock\.json is missing|is not of it"):
        restore(file, tmp_path / "home")
    assert not (tmp_path / "outside").exists()


@pytest.mark.parametrize("what", ["format", "ledger", "lake"])
def test_a_backup_of_a_newer_driftloop_is_refused(saved: Path, tmp_path: Path, what: str) -> None:
    """Before anything is written it is said which version is too new."""

    def change(files: dict[str, bytes]) -> None:
        manifest = msgspec.json.decode(files["manifest.json"])
        manifest[what] = 99
        if what == "format":
            del manifest["files"]
        files["manifest.json"] = msgspec.json.encode(manifest)

    file = rewritten(saved, tmp_path / "new.tar", change)
    with pytest.raises(TooNew, match="99"):
        restore(file, tmp_path / "home")
    assert not (tmp_path / "home").exists()


def test_a_backup_needs_an_installation_and_a_new_file(
    house_at: Any, house: Any, saved: Path, tmp_path: Path
) -> None:
    """Nothing to back up, or a file that is there: exit code 2, and the file stays as it was."""
    nothing = house_at(tmp_path / "nothing").system
    with pytest.raises(BadRequest, match="nothing to back up"):
        backup(nothing.settings, tmp_path / "new.tar")
    # As `driftloop trace` leaves it where nothing was ever started.
    assert nothing.ledger.count() == 0
    with pytest.raises(BadRequest, match="nothing was ever started here"):
        backup(nothing.settings, tmp_path / "new.tar")
    assert [path.name for path in tmp_path.iterdir()] == ["nothing"]
    with pytest.raises(BadRequest, match=f"{tmp_path}/no: there is no such folder"):
        backup(house.system.settings, tmp_path / "no" / "new.tar")
    before = saved.read_bytes()
    with pytest.raises(BadRequest, match="is there already"):
        backup(house.system.settings, saved)
    assert saved.read_bytes() == before


def test_a_champion_without_its_file_stops_a_backup(
    house_at: Any, saved: Path, tmp_path: Path
) -> None:
    """A backup that could not answer is none: it says whose file, and leaves nothing behind."""
    restore(saved, tmp_path / "home")
    other = house_at(tmp_path / "home")
    artifact = Path(other.system.ledger.heads()[0].artifact)
    artifact.rename(tmp_path / "model.onnx")
    with pytest.raises(ArtifactError, match="version 2 of eta-de"):
        backup(other.system.settings, tmp_path / "backup.tar")
    assert {path.name for path in tmp_path.iterdir()} == {"home", "model.onnx"}


def test_one_damaged_champion_does_not_cost_the_others(
    house_at: Any, saved: Path, tmp_path: Path
) -> None:
    """It is copied as it is, and named when that is done and when the copy is restored."""
    restore(saved, tmp_path / "home")
    other = house_at(tmp_path / "home")
    artifact = Path(other.system.ledger.heads()[0].artifact)
    artifact.write_bytes(artifact.read_bytes()[:100])
    made = backup(other.system.settings, tmp_path / "backup.tar")
    assert made.damaged == ("eta-de#2",)
    found = restore(tmp_path / "backup.tar", tmp_path / "again")
    assert found.backup.damaged == ("eta-de#2",)
    assert found.facts == made.facts


def test_a_backup_tells_what_it_is(house: Any, saved: Path) -> None:
    """The manifest lists every file with its size."""
    files = contents(saved)
    made = msgspec.json.decode(files.pop("manifest.json"), type=Backup)
    assert {item.name: item.size for item in made.files} == {n: len(b) for n, b in files.items()}
    assert (made.champions, made.home) == (1, str(house.home))
    assert not [name for name in files if name.endswith(("-wal", "-shm", ".part", ".lock"))]
