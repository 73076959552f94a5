"""Everything of an installation in one file, consistent while it goes on working.

The order makes it so: what is copied later knows all that was copied before. First the ledger,
then the spool, whose rows are in the lake copied after it if they are not in their segments any
more; then the catalog and the files that it names, which nobody changes; last the model files.
"""

import hashlib
import io
import os
import sqlite3
import tarfile
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from driftloop import __version__
from driftloop.errors import ArtifactError, BadRequest, DriftloopError
from driftloop.keep.moved import settle
from driftloop.ledger import SCHEMA_VERSION, SqlLedger
from driftloop.records import Head, Trained, version_key
from driftloop.settings import Settings
from driftloop.spec import Fleet
from driftloop.sqlite import copy_sqlite

FORMAT = 1
"""Version of the backup's own layout."""
MANIFEST = "manifest.json"
NO_FLEET = Fleet(families=(), owners={})
"""The lake is copied whatever the monitors declare."""


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """One file of a backup."""

    name: str
    size: int
    sha256: str


class Backup(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup says of itself: versions, the home it is of, and every file."""

    format: int
    driftloop: str
    ledger: int
    lake: int
    home: str
    made_at: float
    facts: int
    champions: int
    files: tuple[Item, ...]
    damaged: tuple[str, ...] = ()
    """Champions, as model#version, whose file was not what its digest says when it was copied."""

    @property
    def bytes(self) -> int:
        """The size of all files together."""
        return sum(item.size for item in self.files)


def backup(settings: Settings, file: Path) -> Backup:
    """Write everything of the installation that cannot be made again to `file`, a tar archive.

    A champion whose file is damaged already is copied as it is, and named: the others are worth
    it. It may be at work meanwhile: every prediction that was answered before is in the backup, and
    each model's champion with its files. Reports, logs and Prefect's runs are not.

    Call it in a process that does not write the lake: SQLite's locks are a process's, and DuckDB
    brings an SQLite of its own, so that closing the copy would take the writer's locks away.

    Raises:
        BadRequest: there is no installation, or nothing in it yet, or part of it is elsewhere; or
            `file` is there already, or its folder is not.
        ArtifactError: the file of a champion is not there.
        DriftloopError: something could not be copied; no file is left behind.
    """
    refuse_elsewhere(settings)
    home = settings.home.absolute()
    if not (home / "ledger.db").is_file():
        raise _nothing(home)
    if file.exists():
        raise BadRequest("is there already", where=str(file), hint="name a new file")
    folder = file.absolute().parent
    if not folder.is_dir():
        raise BadRequest("there is no such folder", where=str(folder), hint="make it first")
    part = file.with_name(f"{file.name}.part")
    try:
        with tempfile.TemporaryDirectory(prefix=f".{file.name}.", dir=folder) as at:
            with part.open("wb") as raw:
                with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as tar:
                    made = _Writer(tar, home, Path(at)).write(settings.monitors)
                raw.flush()
                os.fsync(raw.fileno())
            part.replace(file)
    except (OSError, sqlite3.Error, tarfile.TarError) as error:
        raise DriftloopError(
            f"the backup could not be made: {error}",
            where=str(file),
            hint="it needs room for a copy of the home, and twice that of its databases",
        ) from error
    finally:
        part.unlink(missing_ok=True)
    return made


def refuse_elsewhere(settings: Settings) -> None:
    """Refuse an installation of which a home does not hold all.

    Raises:
        BadRequest: a store of it is elsewhere; says by which setting.
    """
    if settings.elsewhere:
        raise BadRequest(
            "a backup holds what is in the home, and by these settings part of it is not",
            where=", ".join(settings.elsewhere),
            hint="pg_dump each database, then copy the files, or let the bucket keep versions: in"
            " this order, because the databases name the files",
        )


@dataclass(slots=True)
class _Writer:
    """Writes one archive; `scratch` takes the copies of databases."""

    tar: tarfile.TarFile
    home: Path
    scratch: Path
    items: list[Item] = field(default_factory=list)

    def write(self, monitors: Path) -> Backup:
        facts, heads, folders = self._ledger()
        self._spool()
        layout = self._lake()
        for folder in folders:
            self._tree(self.home / folder)
        self._mlflow()
        if (self.home / "slack.db").is_file():
            self._file(self._copied("slack.db"), name="slack.db")
        self._file(self.home / "clock.json", needed=False)
        # Any command makes an empty ledger on its way.
        if not facts and len(self.items) == 1:
            raise _nothing(self.home)
        for one in sorted(monitors.glob("*.toml")):
            self._file(one, name=f"monitors/{one.name}")
        made = Backup(
            format=FORMAT,
            driftloop=__version__,
            ledger=SCHEMA_VERSION,
            lake=layout,
            home=str(self.home),
            made_at=time.time(),
            facts=facts,
            champions=len(heads),
            files=tuple(self.items),
            damaged=self._damaged(heads),
        )
        body = msgspec.json.format(msgspec.json.encode(made))
        info = tarfile.TarInfo(MANIFEST)
        info.size, info.mtime = len(body), int(made.made_at)
        self.tar.addfile(info, io.BytesIO(body))
        return made

    def _damaged(self, heads: tuple[Head, ...]) -> tuple[str, ...]:
        digests = {item.name: item.sha256 for item in self.items}
        return tuple(
            version_key(head.model, head.version)
            for head in heads
            if digests.get(str(Path(head.artifact).relative_to(self.home))) != head.digest
        )

    def _ledger(self) -> tuple[int, tuple[Head, ...], list[Path]]:
        """Copy the ledger; return its number of facts, its heads, and the folders it names."""
        copy, registry = self._copied("ledger.db"), self.scratch / "mlflow.db"
        if (self.home / "mlflow" / "mlflow.db").is_file():
            self._copied("mlflow/mlflow.db")
        ledger = SqlLedger(f"sqlite:///{copy}")
        try:
            settle(ledger, registry, self.home)
            heads = ledger.heads()
            for head in heads:
                artifact = Path(head.artifact)
                if not (artifact.is_relative_to(self.home) and artifact.is_file()):
                    raise ArtifactError(
                        f"the file of version {head.version} of {head.model} is not in this home",
                        where=head.artifact,
                        hint="roll back to a version that has its file, then back up",
                    )
            folders = {
                Path(trained.candidate.folder).relative_to(self.home)
                for trained in ledger.facts(Trained)
                if Path(trained.candidate.folder).is_relative_to(self.home)
            } | {Path(head.artifact).parent.relative_to(self.home) for head in heads}
            counted = ledger.count()
        finally:
            ledger.close()
        self._file(copy, name="ledger.db")
        return counted, heads, sorted(folders)

    def _spool(self) -> None:
        """Copy every segment: sealed, still open, or set aside."""
        copied: set[str] = set()
        # Twice: one that is sealed while its folder is listed might be seen under neither name.
        for _ in range(2):
            for path in sorted((self.home / "spool").glob("*/*")):
                if (
                    path.suffix in {".ndjson", ".parquet", ".open", ".reason"}
                    and path.stem not in copied
                ):
                    copied |= self._segment(path)

    def _segment(self, path: Path) -> set[str]:
        """Copy a segment under the name that it has now; none when the lake has it meanwhile."""
        for name in (path, path.with_suffix(".ndjson")):
            try:
                body = name.read_bytes()
            except FileNotFoundError:
                continue
            held = self.scratch / "segment"
            held.write_bytes(body)
            self._file(held, name=str(name.relative_to(self.home)))
            return set() if name.suffix == ".reason" else {name.stem}
        return set()

    def _lake(self) -> int:
        """Copy the catalog and the files that it names; return the layout's version."""
        from driftloop.prediction_log import Lake, named_files

        folder = self.home / "lake"
        if not (folder / "catalog.sqlite").is_file():
            return 0
        copy = self.scratch / "lake" / "catalog.sqlite"
        copy.parent.mkdir()
        copy_sqlite(folder / "catalog.sqlite", copy)
        for name in named_files(copy):
            self._file(folder / "data" / name)
        self._file(copy, name="lake/catalog.sqlite")
        with Lake(folder, NO_FLEET, read_only=True) as lake:
            return lake.layout() or 0

    def _mlflow(self) -> None:
        from driftloop.registry import version_folders

        copy = self.scratch / "mlflow.db"
        if copy.is_file():
            self._file(copy, name="mlflow/mlflow.db")
            for folder in version_folders(copy):
                if folder.is_relative_to(self.home):
                    self._tree(folder)

    def _copied(self, name: str) -> Path:
        """Return a copy of a database as it is now."""
        copy = self.scratch / Path(name).name
        copy_sqlite(self.home / name, copy)
        return copy

    def _tree(self, folder: Path) -> None:
        for file in _files(folder):
            self._file(file, needed=False)

    def _file(self, file: Path, *, name: str = "", needed: bool = True) -> None:
        """Add one file; what is not `needed` may have been pruned a moment ago."""
        name = name or str(file.relative_to(self.home))
        try:
            source = file.open("rb")
        except FileNotFoundError:
            if needed:
                raise
            return
        with source:
            info = self.tar.gettarinfo(arcname=name, fileobj=source)
            hashed = _Hashed(source)
            self.tar.addfile(info, hashed)
        self.items.append(Item(name=name, size=info.size, sha256=hashed.digest.hexdigest()))


class _Hashed:
    """A file that is hashed as it is read."""

    def __init__(self, source: "io.BufferedReader") -> None:
        self._source = source
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        body = self._source.read(size)
        self.digest.update(body)
        return body


def _nothing(home: Path) -> BadRequest:
    return BadRequest(
        "there is nothing to back up",
        where=str(home),
        hint="nothing was ever started here; is --home the one you mean?",
    )


def _files(folder: Path) -> Iterator[Path]:
    # What is hidden was prepared of the others, and can be again.
    return (
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    )
