"""Where a service writes before it answers: segments of JSON lines in a folder of its own.

A segment `<kind>.<family>.<stamp>.open` (of events: `events.<source>...`) grows by whole lines and
is sealed by fsync and a rename to `.ndjson`; one of many rows at once is written whole, as
`.parquet`. The ingester takes sealed segments only. While its process lives, a folder's
`owner.lock` is held by flock, so that a dead writer's open segments can be told from live ones.
"""

import fcntl
import glob
import logging
import os
import secrets
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from math import isfinite
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from driftloop.errors import BadRequest, LogError
from driftloop.prediction_log.source import history_rows, write_lines
from driftloop.records import Event, Label, Prediction, Served, Shadow
from driftloop.spec import Family

SegmentKind = Literal["predictions", "labels", "shadows", "served", "events"]

QUARANTINE = "quarantine"
"""The folder of a spool in which the ingester keeps what it cannot take up."""
_OPEN = ".open"
_SEALED = ".ndjson"
BULK = ".parquet"
"""The ending of a sealed segment that was never open: a table that was written whole."""
ENDINGS = (_SEALED, BULK)
"""Of sealed segments."""
_PART = ".part"
_HISTORY_ROWS = 100_000
_PATIENCE = 2.0
_RETRY = 1.0
_log = logging.getLogger(__name__)
# Features may come as any mapping; a number that is not finite becomes null.
_encoder = msgspec.json.Encoder(enc_hook=dict)


class _Row(msgspec.Struct):
    id: str
    model: str


_row = msgspec.json.Decoder(_Row)


def own(folder: Path) -> int | None:
    """Return a descriptor that owns `folder` until it is closed; None when another one owns it.

    The folder is made if there is none. Close the descriptor with `os.close`.

    Raises:
        OSError: the folder cannot be made or locked.
    """
    file = folder / "owner.lock"
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError:  # the ingester removed the folder in between
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(lock), file.stat()):
                return lock
        except BlockingIOError:
            os.close(lock)
            return None
        except FileNotFoundError:
            pass
        os.close(lock)


def identity(spool: Path) -> str:
    """Return what tells `spool`, the folder of the spools of one home, from those of other homes.

    Every segment that is written in it has it in its name.

    Raises:
        OSError: it cannot be read, or noted where it is new.
    """
    file = spool / "identity"
    while True:
        with suppress(FileNotFoundError):
            return file.read_text(encoding="ascii")
        spool.mkdir(parents=True, exist_ok=True)
        part = spool / f".{secrets.token_hex(8)}.part"
        try:
            part.write_text(f"-{secrets.token_hex(8)}-", encoding="ascii")
            # Of processes that start at once one notes its own, whole, and all read that one.
            with suppress(FileExistsError):
                file.hardlink_to(part)
        finally:
            part.unlink(missing_ok=True)


def recover(folder: Path) -> int:
    """Seal the segments that a dead writer left open in `folder`; return how many there were.

    A torn last line, which nobody was promised, is cut off. Call it only as the folder's owner.

    Raises:
        OSError: a segment cannot be read, cut or renamed.
    """
    for part in folder.glob(f"*{_PART}"):
        part.unlink()
    left = sorted(folder.glob(f"*{_OPEN}"))
    for path in left:
        size = path.read_bytes().rfind(b"\n") + 1
        descriptor = os.open(path, os.O_WRONLY)
        try:
            os.ftruncate(descriptor, size)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        _rename(path, size)
    return len(left)


def sealed(spool: Path, kind: str = "*", family: str = "*") -> list[Path]:
    """Return the sealed segments that wait for the ingester under `spool`, in no order.

    One may be gone a moment later: then the lake has it.
    """
    names = [
        name
        for ending in ENDINGS
        for name in glob.glob(f"*/{kind}.{family}.*{ending}", root_dir=spool)  # noqa: PTH207 - pathlib raises when a folder goes
    ]
    return [spool / name for name in names if not name.startswith(f"{QUARANTINE}/")]


def is_waiting(spool: Path) -> bool:
    """Return whether rows wait under `spool`, in segments that are still written too."""
    return bool(sealed(spool)) or any(glob.iglob(f"*/*{_OPEN}", root_dir=spool))  # noqa: PTH207 - as above


def waiting(spool: Path, family: Family, rows: pa.Table) -> pa.Table:
    """Return id and model of those of `rows` that wait under `spool` in sealed segments.

    Ask this before the lake: what the ingester takes up in between is in the lake then.

    Raises:
        LogError: a segment cannot be read.
    """
    asked = rows.select(["id", "model"])
    segments = sealed(spool, "predictions", family.name)
    if not segments:
        return asked.slice(0, 0)
    pairs = list(zip(asked["id"].to_pylist(), asked["model"].to_pylist(), strict=True))
    wanted = set(pairs)
    found: set[tuple[str, str]] = set()
    for segment in segments:
        try:
            found.update(wanted.intersection(_pairs(segment)))
        except FileNotFoundError:
            continue
        except (OSError, pa.ArrowException) as error:
            raise LogError(f"the spool cannot be read: {error}", where=str(segment)) from error
    return asked.filter(pa.array([pair in found for pair in pairs], pa.bool_()))


class SegmentSpool:
    """The spool of one process; safe to use from its threads.

    Args:
        folder: this process's own folder under the spool, such as `spool/online-4711`.
        seal_rows: a segment with this many rows is sealed.
        seal_every: a segment is sealed when its first row is this many seconds old.

    Raises:
        LogError: another living process owns the folder, or it cannot be written.
    """

    def __init__(self, folder: Path, *, seal_rows: int = 5000, seal_every: float = 2.0) -> None:
        self._folder = folder
        self._seal_rows = seal_rows
        self._seal_every = seal_every
        self._open: dict[tuple[SegmentKind, str], _Segment] = {}
        self._full: list[_Segment] = []
        self._wake = threading.Condition()
        self._sealing = threading.Lock()
        self._closed = False
        self._owner = self._own()
        self._sealer = threading.Thread(target=self._tend, name="spool-sealer", daemon=True)
        self._sealer.start()

    def predictions(self, family: str, rows: Sequence[Prediction]) -> None:
        """Append `rows` of one family; on return the operating system has them, or none of them.

        A number that is not finite is written as null, which is how the log says "missing".

        Raises:
            LogError: the rows could not be written, as on a full disk.
            BadRequest: a text in them is not valid Unicode.
        """
        self._append("predictions", family, rows)

    def labels(self, family: str, rows: Sequence[Label]) -> None:
        """Append `rows` of one family; on return the operating system has them, or none of them.

        Raises:
            LogError: the rows could not be written, as on a full disk.
            BadRequest: a value is not finite, or a text is not valid Unicode.
        """
        for row in rows:
            if not isfinite(row.value):
                raise BadRequest(f"the label {row.value} is not a finite number", where=row.id)
        self._append("labels", family, rows)

    def events(self, source: str, rows: Sequence[Event]) -> None:
        """Append `rows` of one source; on return the operating system has them, or none of them.

        Raises:
            LogError: the rows could not be written, as on a full disk.
            BadRequest: a text in them is not valid Unicode.
        """
        self._append("events", source, rows)

    def shadows(self, family: str, rows: Sequence[Shadow]) -> None:
        """Append `rows` of one family; see `predictions`."""
        self._append("shadows", family, rows)

    def served(self, family: str, rows: Sequence[Served]) -> None:
        """Append `rows` of one family; see `predictions`."""
        self._append("served", family, rows)

    def bulk(self, family: str, table: pa.Table) -> None:
        """Write many predictions of one family as one sealed segment; whole, or not at all.

        `table` has the columns of the lake's table, in any order, without `arrived_at`: those of
        `Prediction`, with a column for each feature in place of `features`.

        Raises:
            LogError: the rows could not be written, as on a full disk.
        """
        part = self._path("predictions", family, BULK + _PART)
        try:
            pq.write_table(table, part)
            with part.open("rb") as written:
                os.fsync(written.fileno())
            part.rename(part.with_suffix(""))
        except (OSError, pa.ArrowException) as error:
            part.unlink(missing_ok=True)
            raise _unwritten(self._folder, error) from error

    def adopt(self, family: str, file: Path) -> None:
        """Take a Parquet file, whole and durable, of what `bulk` takes, as a sealed segment.

        It is renamed: it is taken if and only if it is no longer where it was.

        Raises:
            LogError: it could not be taken, as from another file system.
        """
        try:
            file.rename(self._path("predictions", family, BULK))
        except OSError as error:
            raise _unwritten(self._folder, error) from error

    def history(
        self, family: Family, table: pa.Table, *, now: datetime | None = None
    ) -> tuple[int, int]:
        """Write known outcomes from before driftloop as sealed segments.

        They become rows of version 0 and epoch 0 whose prediction is null; see `history_rows`
        for the columns of `table` and for `now`. Return the numbers of rows and of labels.

        Raises:
            BadRequest: the table does not fit the family; names row and column.
            LogError: as for `checked_history`.
        """
        return self.checked_history(family, *history_rows(family, table, now=now))

    def checked_history(
        self, family: Family, predictions: pa.Table, labels: pa.Table
    ) -> tuple[int, int]:
        """Write what `history_rows` returned as sealed segments; return how many rows and labels.

        After an error do it again: what had come through is in the log once all the same.

        Raises:
            LogError: the segments could not be written.
        """
        parts: list[Path] = []
        kinds: tuple[tuple[SegmentKind, pa.Table], ...] = (
            ("predictions", predictions),
            ("labels", labels),
        )
        try:
            for kind, rows in kinds:
                for start in range(0, rows.num_rows, _HISTORY_ROWS):
                    parts.append(self._path(kind, family.name, _PART))
                    write_lines(rows.slice(start, _HISTORY_ROWS), parts[-1])
            # Labels first: a row that came through is not let in again, and has its label then.
            for part in reversed(parts):
                _rename(part, part.stat().st_size)
        except (OSError, LogError) as error:
            for part in parts:
                part.unlink(missing_ok=True)
            raise _unwritten(self._folder, error) from error
        return predictions.num_rows, labels.num_rows

    def seal(self) -> None:
        """Seal every segment that has rows, now.

        Raises:
            LogError: a segment could not be sealed; its rows stay and it is tried again.
        """
        with self._wake:
            self._full.extend(self._open.values())
            self._open.clear()
        try:
            self._seal_full()
        except OSError as error:
            raise _unwritten(self._folder, error) from error

    def close(self) -> None:
        """Seal every segment and give the folder up; closing twice does nothing.

        Raises:
            LogError: a segment could not be sealed; the ingester will recover it.
        """
        with self._wake:
            if self._closed:
                return
            self._closed = True
            self._wake.notify_all()
        self._sealer.join()
        try:
            self.seal()
        finally:
            for segment in self._full:
                segment.close()
            os.close(self._owner)

    def __enter__(self) -> Self:
        """Return the spool, to be closed at the end of the block."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the spool."""
        self.close()

    def _own(self) -> int:
        patience = time.monotonic() + _PATIENCE
        try:
            while (owner := own(self._folder)) is None:
                # The ingester owns a dead writer's folder for the moment that recovery takes.
                if time.monotonic() > patience:
                    raise LogError(
                        "another process writes to this folder",
                        where=str(self._folder),
                        hint="give each writing process a folder of its own",
                    )
                time.sleep(0.01)
        except OSError as error:
            raise _unwritten(self._folder, error) from error
        try:
            recover(self._folder)
            self._identity = identity(self._folder.parent)
        except OSError as error:
            os.close(owner)
            raise _unwritten(self._folder, error) from error
        return owner

    def _append(self, kind: SegmentKind, family: str, rows: Sequence[Any]) -> None:
        if not rows:
            return
        try:
            lines = _encoder.encode_lines(rows)
        except UnicodeEncodeError as error:
            raise BadRequest(f"a text is not valid Unicode: {error}", where=family) from error
        with self._wake:
            if self._closed:
                raise LogError("the spool is closed", where=str(self._folder))
            key = (kind, family)
            try:
                if key not in self._open:
                    self._open[key] = _Segment(self._path(kind, family, _OPEN))
                    self._wake.notify_all()
                segment = self._open[key]
                segment.append(lines, len(rows))
            except OSError as error:
                if key in self._open and self._open[key].broken:
                    self._full.append(self._open.pop(key))
                raise _unwritten(self._folder, error) from error
            if segment.rows >= self._seal_rows:
                self._full.append(self._open.pop(key))
                self._wake.notify_all()

    def _path(self, kind: SegmentKind, family: str, ending: str) -> Path:
        # Unlike any other's, over restarts and machines too; sorted by name they are sorted by age.
        stamp = f"{time.time_ns():016x}{self._identity}{secrets.token_hex(4)}"
        return self._folder / f"{kind}.{family}.{stamp}{ending}"

    def _tend(self) -> None:
        """Seal what is full or old, until closed: appenders never wait for an fsync."""
        while True:
            with self._wake:
                while not (self._closed or self._full or self._retire_old()):
                    self._wake.wait(self._rest())
                if self._closed:
                    return
            try:
                self._seal_full()
            except OSError as error:
                _log.warning("%s", _unwritten(self._folder, error))
                with self._wake:
                    self._wake.wait_for(lambda: self._closed, _RETRY)

    def _retire_old(self) -> bool:
        now = time.monotonic()
        old = [key for key, s in self._open.items() if s.began + self._seal_every <= now]
        self._full.extend(self._open.pop(key) for key in old)
        return bool(old)

    def _rest(self) -> float | None:
        began = [segment.began for segment in self._open.values()]
        return min(began) + self._seal_every - time.monotonic() if began else None

    def _seal_full(self) -> None:
        with self._sealing:
            while True:
                with self._wake:
                    if not self._full:
                        return
                    segment = self._full[0]
                segment.seal()
                with self._wake:
                    self._full.remove(segment)


class _Segment:
    """One open file of whole lines."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("ab", buffering=0)
        self._size = 0
        self.rows = 0
        self.began = time.monotonic()
        self.broken = False

    def append(self, lines: bytes, rows: int) -> None:
        """Write all of `lines` in one call, or leave nothing of them."""
        written = 0
        try:
            written = os.write(self._file.fileno(), lines)
        finally:
            if written < len(lines):
                self.broken = True  # unless what was half written can be taken back
                self._cut()
        if written < len(lines):
            raise OSError(f"only {written} of {len(lines)} bytes were taken: disk full?")
        self._size += len(lines)
        self.rows += rows

    def seal(self) -> None:
        """Make the file durable and give it its final name; may be tried again."""
        if not self._file.closed:
            if self.broken:
                self._cut()
            os.fsync(self._file.fileno())
            self._file.close()
        _rename(self._path, self._size)

    def close(self) -> None:
        self._file.close()

    def _cut(self) -> None:
        os.ftruncate(self._file.fileno(), self._size)
        self.broken = False


def _pairs(segment: Path) -> Iterator[tuple[str, str] | None]:
    """Yield id and model of each row of a segment of predictions."""
    if segment.suffix == BULK:
        for batch in pq.ParquetFile(segment).iter_batches(columns=["id", "model"]):
            yield from zip(batch["id"].to_pylist(), batch["model"].to_pylist(), strict=True)
        return
    with segment.open("rb") as lines:
        yield from map(_pair, lines)


def _pair(line: bytes) -> tuple[str, str] | None:
    try:
        row = _row.decode(line)
    except msgspec.MsgspecError:
        return None  # the ingester sets such a line aside: it will not be in the log
    return row.id, row.model


def _rename(path: Path, size: int) -> None:
    if size:
        path.rename(path.with_suffix(_SEALED))
    else:
        path.unlink()


def _unwritten(folder: Path, error: Exception) -> LogError:
    return LogError(
        f"the rows could not be written: {error}",
        where=str(folder),
        hint="see that the disk has room and the folder can be written",
    )
