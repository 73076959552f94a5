"""What is done of a batch, told by which files lie in its folder: no other book is kept.

A part is scored first into `log-N.parquet`, what the log is to have of it, then into
`part-N.parquet`, its answers. Once both are there the first is handed to the spool by a rename: so
long as it lies here it was not handed over, and once it is gone it was, whatever died in between.
"""

import hashlib
import os
import shutil
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from driftloop.errors import BadRequest, LogError
from driftloop.prediction_log import own
from driftloop.records import Head, ModelId

_PLAN = "plan.json"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What was settled when a batch began, and stays until it is done.

    `fingerprint` is of the source, `stem` begins the ids that were not given, and `head` is the
    version that answers all of it.
    """

    model: ModelId
    source: str
    out: str
    fingerprint: str
    stem: str
    rows: int
    part_rows: int
    head: Head
    begun_at: datetime


def folder_of(runs: Path, *, model: ModelId, source: str, out: Path, turn: str = "") -> Path:
    """Return the folder among `runs` that says what is done of a batch; gone when it is done."""
    named = "\0".join((model, source, str(out.absolute()), turn))
    return runs / f"{model}-{hashlib.sha256(named.encode()).hexdigest()[:12]}"


def left_behind(runs: Path, *, older: timedelta, dry_run: bool) -> int:
    """Return how many batches nobody went on with for so long, removed unless `dry_run`."""
    limit = time.time() - older.total_seconds()
    left = 0
    for folder in runs.glob("*"):
        lock = own(folder) if folder.stat().st_mtime < limit else None
        if lock is not None:
            left += 1
            if not dry_run:
                _remove(folder)
            os.close(lock)
    return left


class Journal:
    """One batch's `folder`, held by this process until it is closed.

    Raises:
        BadRequest: another process is at the same batch.
        LogError: the folder cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            lock = own(self.folder)
        except OSError as error:
            raise LogError(f"cannot be written: {error}", where=str(self.folder)) from error
        if lock is None:
            raise BadRequest("another process is at just this batch", where=str(folder))
        self._lock = lock

    @property
    def copy(self) -> Path:
        """Where the rows of a source lie that is not Parquet."""
        return self.folder / "source.parquet"

    @property
    def plan(self) -> Plan | None:
        """What was settled when the batch began; None when it is a new one.

        Raises:
            LogError: what was noted is damaged.
        """
        try:
            return msgspec.json.decode(self._plan.read_bytes(), type=Plan)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError) as error:
            raise LogError(
                f"the notes of a batch cannot be read: {error}",
                where=str(self._plan),
                hint="--anew begins again; what was logged stays in the log",
            ) from error

    def begin(self, plan: Plan) -> None:
        """Note what is settled; nothing is scored before."""
        _write(self._plan, lambda part: part.write_bytes(msgspec.json.encode(plan)))

    def forget(self) -> None:
        """Throw away what was done; what was handed to the spool is in the log all the same."""
        self._plan.unlink(missing_ok=True)  # first: without it the rest means nothing
        for file in self.folder.iterdir():
            if file.is_dir():
                shutil.rmtree(file)
            elif file.name != "owner.lock":
                file.unlink()

    def done(self) -> dict[int, Path]:
        """Return the files of the parts that are scored, in order."""
        return {int(file.stem.partition("-")[2]): file for file in sorted(self._files("part"))}

    def keep(self, part: int, answers: pa.Table, log: pa.Table) -> None:
        """Note what was answered in a part, and what the log is to have of it.

        Raises:
            OSError: they could not be written.
        """
        _write(self._file("log", part), lambda file: _write_rows(log, file))
        _write(self._file("part", part), lambda file: _write_rows(answers, file))

    def hand_over(self, part: int, take: Callable[[Path], None]) -> None:
        """Let `take` move what the log is to have of a part that is kept, unless it did before."""
        file = self._file("log", part)
        if file.exists():
            take(file)

    def close(self, *, done: bool) -> None:
        """Give the batch up; when it is `done` nothing of it stays."""
        if self._lock >= 0:
            if done:
                _remove(self.folder)
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> Self:
        """Return the journal, to be given up at the end of the block."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the batch up; a new one of which nothing is noted leaves nothing behind."""
        self.close(done=not self._plan.exists())

    @property
    def _plan(self) -> Path:
        return self.folder / _PLAN

    def _files(self, kind: str) -> list[Path]:
        return list(self.folder.glob(f"{kind}-*.parquet"))

    def _file(self, kind: str, part: int) -> Path:
        return self.folder / f"{kind}-{part:09}.parquet"


def _remove(folder: Path) -> None:
    (folder / _PLAN).unlink(missing_ok=True)  # first, as when it is forgotten
    shutil.rmtree(folder)


def _write_rows(table: pa.Table, file: Path) -> None:
    # Numbers seldom repeat: looking whether they do costs more than all the rest.
    repeats = ["model", "version", "epoch", "predicted_at"]
    repeats += [f.name for f in table.schema if pa.types.is_string(f.type) and f.name != "id"]
    found = sorted({*repeats} & {*table.column_names})
    pq.write_table(table, file, compression="lz4", use_dictionary=found, write_statistics=False)


def _write(file: Path, write: Callable[[Path], object]) -> None:
    """Have `write` make a file that gets its name once it is whole and durable."""
    part = file.with_suffix(".new")
    write(part)
    with part.open("rb") as written:
        os.fsync(written.fileno())
    part.replace(file)
