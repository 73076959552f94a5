"""A backup into a new home: checked whole before the home is there at all."""

import fcntl
import hashlib
import os
import shutil
import sqlite3
import tarfile
from dataclasses import dataclass
from pathlib import Path

import msgspec

from driftloop.errors import BadRequest, DriftloopError, TooNew
from driftloop.keep.backup import FORMAT, MANIFEST, NO_FLEET, Backup
from driftloop.ledger import SCHEMA_VERSION, SqlLedger
from driftloop.records import Head, version_key

_COPIED = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What a restored home holds."""

    backup: Backup
    champions: tuple[Head, ...]
    facts: int
    rows: int
    """Of predictions and labels, in the lake."""
    waiting: int
    """Segments that the ingester will take up, or delete if the lake has them."""


def restore(file: Path, home: Path) -> Restored:
    """Make `home` of the backup in `file`, whole or not at all, and return what it holds.

    Every file is checked against its SHA-256, every champion's model file against the ledger;
    paths are those of the new home, wherever it is. A backup of an older driftloop is brought up.

    Raises:
        BadRequest: `home` is not empty, or the backup is damaged: says which file of it.
        TooNew: a newer driftloop made it.
        DriftloopError: it could not be written.
    """
    home = home.absolute()
    _check_empty(home)
    part = home.with_name(f".{home.name}.restoring")
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
        with tarfile.open(file, mode="r:") as tar:
            made = _manifest(tar, file)
            _check_versions(made, file)
            _extract(tar, made, part, file)
        restored = _settled(made, part, home)
        # What the name promises is on the disk before the name is.
        os.sync()
        part.rename(home)
    except tarfile.TarError as error:
        raise _damaged(file, f"it is cut short, or no backup: {error}") from error
    except FileNotFoundError as error:
        raise BadRequest("there is no such file", where=str(error.filename)) from error
    except (OSError, sqlite3.Error) as error:
        raise DriftloopError(f"could not be restored: {error}", where=str(home)) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return restored


def _check_empty(home: Path) -> None:
    if not home.exists():
        return
    if not home.is_dir() or any(home.iterdir()):
        running = " and `driftloop up` runs in it" if _runs(home) else ""
        raise BadRequest(
            f"there is something here already{running}",
            where=str(home),
            hint="restore into a home of its own: --home NEW",
        )


def _runs(home: Path) -> bool:
    try:
        with (home / "up.lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _manifest(tar: tarfile.TarFile, file: Path) -> Backup:
    try:
        body = tar.extractfile(MANIFEST)
    except KeyError:
        body = None
    if body is None:
        raise _damaged(file, f"it has no {MANIFEST}: it is cut short, or no backup")
    try:
        text = body.read()
        version = msgspec.json.decode(text, type=dict[str, object]).get("format")
        if isinstance(version, int) and version > FORMAT:
            raise TooNew(
                f"the backup has format {version}, this driftloop knows {FORMAT}",
                where=str(file),
                hint="run a newer driftloop",
            )
        return msgspec.json.decode(text, type=Backup)
    except msgspec.DecodeError as error:
        raise _damaged(file, f"{MANIFEST} cannot be read: {error}") from error


def _check_versions(made: Backup, file: Path) -> None:
    from driftloop.prediction_log import LAYOUT

    for what, found, known in (
        ("ledger", made.ledger, SCHEMA_VERSION),
        ("lake", made.lake, LAYOUT),
    ):
        if found > known:
            raise TooNew(
                f"the {what} in it has version {found}, this driftloop knows {known}",
                where=str(file),
                hint=f"run driftloop {made.driftloop} or newer",
            )


def _extract(tar: tarfile.TarFile, made: Backup, into: Path, file: Path) -> None:
    wanted = {item.name: item for item in made.files}
    for member in tar:
        if member.name == MANIFEST:
            continue
        item = wanted.pop(member.name, None)
        source = tar.extractfile(member) if member.isfile() else None
        target = into / member.name
        if item is None or source is None or not target.resolve().is_relative_to(into.resolve()):
            raise _damaged(file, f"{member.name} is not of it")
        target.parent.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256()
        with source, target.open("wb") as out:
            while body := source.read(_COPIED):
                digest.update(body)
                out.write(body)
        if digest.hexdigest() != item.sha256 or target.stat().st_size != item.size:
            raise _damaged(file, f"{item.name} is not what was backed up")
    if wanted:
        raise _damaged(file, f"{min(wanted)} is missing")


def _settled(made: Backup, part: Path, home: Path) -> Restored:
    """Make what was extracted to `part` the home that it will be, and check it."""
    from driftloop.prediction_log import Lake
    from driftloop.registry import re_root

    ledger = SqlLedger(f"sqlite:///{part / 'ledger.db'}")
    try:
        ledger.re_root(Path(made.home), home)
        heads, facts = ledger.heads(), ledger.count()
    finally:
        ledger.close()
    for head in heads:
        if version_key(head.model, head.version) in made.damaged:
            continue  # it was when it was copied, and the others are whole
        _check_artifact(head, part / Path(head.artifact).relative_to(home))
    if (part / "mlflow" / "mlflow.db").is_file():
        re_root(part / "mlflow" / "mlflow.db", Path(made.home), home)
    rows = 0
    if made.lake:
        with Lake(part / "lake", NO_FLEET, read_only=True) as lake:
            rows = sum(lake.sizes().values())
    waiting = [
        item
        for item in made.files
        if item.name.startswith("spool/") and not item.name.startswith("spool/quarantine/")
    ]
    return Restored(backup=made, champions=heads, facts=facts, rows=rows, waiting=len(waiting))


def _check_artifact(head: Head, file: Path) -> None:
    if hashlib.sha256(file.read_bytes()).hexdigest() != head.digest:
        raise BadRequest(
            f"is not the file of version {head.version} of {head.model}: its digest differs",
            where=head.artifact,
        )


def _damaged(file: Path, what: str) -> BadRequest:
    return BadRequest(what, where=str(file), hint="use another backup")
