"""Answers of batches, read by id: asynchronous prediction. In LMDB: many read while one writes.

The newest answer to an id stays. The door to LMDB for answers; what features are looked up from is
another store.
"""

import hashlib
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from driftloop.errors import LogError
from driftloop.records import ModelId

if TYPE_CHECKING:
    import lmdb

_AT_ONCE = 20_000
"""Answers in one transaction: others that publish wait no longer than for these."""
_VALUE = struct.Struct("<qqqqd")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a batch answered; `prediction` is as the log has it: of classes the place."""

    version: int
    epoch: int
    event_time: datetime
    predicted_at: datetime
    prediction: float


class Answers:
    """The published answers of an installation, in `folder`; safe to use from several threads.

    Args:
        folder: made when something is published.
        gib: how large it may grow.
    """

    def __init__(self, folder: Path, *, gib: float) -> None:
        self._folder = folder
        self._size = int(gib * 2**30)
        self._opening = threading.Lock()
        self._env: lmdb.Environment | None = None

    def publish(self, model: ModelId, answers: pa.Table) -> None:
        """Let `answers` be read, unless there is a newer one to the same id.

        `answers` has id, event_time, predicted_at, version, epoch, and `value`, the prediction as
        the log has it.

        Raises:
            LogError: there is no room left, or they could not be written.
        """
        for start in range(0, answers.num_rows, _AT_ONCE):
            some = answers.slice(start, _AT_ONCE)
            columns = (
                some["version"].to_pylist(),
                some["epoch"].to_pylist(),
                some["event_time"].cast(pa.int64()).to_pylist(),
                some["predicted_at"].cast(pa.int64()).to_pylist(),
                some["value"].to_pylist(),
            )
            keys = [_key(model, id_) for id_ in some["id"].to_pylist()]
            values = map(_VALUE.pack, *columns)
            # In the order of the tree a page is written once.
            pairs = sorted(zip(keys, values, columns[3], strict=True))
            with self._write() as transaction:
                for key, value, at in pairs:
                    held = transaction.get(key)
                    if held is None or _VALUE.unpack(held)[3] <= at:
                        transaction.put(key, value)

    def get(self, model: ModelId, id_: str) -> Answer | None:
        """Return the newest answer to `id_`, None when none is kept.

        Raises:
            LogError: the store cannot be read.
        """
        import lmdb

        if not self._is_made():
            return None
        env = self._opened()
        try:
            with env.begin() as transaction:
                held = transaction.get(_key(model, id_))
        except lmdb.Error as error:
            raise _unread(self._folder, error) from error
        if held is None:
            return None
        version, epoch, event_time, predicted_at, prediction = _VALUE.unpack(held)
        return Answer(version, epoch, _time(event_time), _time(predicted_at), prediction)

    def expire(self, before: datetime, *, dry_run: bool = False) -> int:
        """Return how many answers were predicted before a time, removed unless `dry_run`.

        Raises:
            LogError: the store cannot be written.
        """
        if not self._is_made():
            return 0
        limit = _micros(before)
        gone = 0
        after = b""
        while True:
            with self._write() as transaction:
                cursor = transaction.cursor()
                going = cursor.set_range(after) if after else cursor.first()
                seen = 0
                while going and seen < _AT_ONCE:
                    seen += 1
                    if _VALUE.unpack(cursor.value())[3] < limit:
                        gone += 1
                        going = cursor.next() if dry_run else _delete(cursor)
                    else:
                        going = cursor.next()
                if not going:
                    return gone
                after = bytes(cursor.key())

    def close(self) -> None:
        """Close the store; the next use opens it again."""
        with self._opening:
            if self._env is not None:
                self._env.close()
                self._env = None

    @contextmanager
    def _write(self) -> "Iterator[lmdb.Transaction]":
        import lmdb

        env = self._opened()
        try:
            with env.begin(write=True) as transaction:
                yield transaction
        except lmdb.MapFullError as error:
            raise LogError(
                f"the published answers take all of the {self._size / 2**30:.3g} GiB they may have",
                where=str(self._folder),
                hint="raise the setting answers_gib, or lower answers_days",
            ) from error
        except lmdb.Error as error:
            raise _unread(self._folder, error) from error

    def _is_made(self) -> bool:
        return self._env is not None or (self._folder / "data.mdb").exists()

    def _opened(self) -> "lmdb.Environment":
        import lmdb

        with self._opening:
            if self._env is None:
                try:
                    self._folder.mkdir(parents=True, exist_ok=True)
                    # Not read-only for readers: they note there what they read, too.
                    self._env = lmdb.open(str(self._folder), map_size=self._size, max_readers=512)
                except (lmdb.Error, OSError) as error:
                    raise _unread(self._folder, error) from error
            return self._env


def _key(model: ModelId, id_: str) -> bytes:
    """Return a key of one length: an id may be longer than LMDB's longest key."""
    return hashlib.blake2b(f"{model}\0{id_}".encode(), digest_size=16).digest()


def _delete(cursor: "lmdb.Cursor") -> bool:
    """Delete what `cursor` is at; return whether it is at another one then."""
    cursor.delete()
    return bool(cursor.key())


def _micros(at: datetime) -> int:
    return (at - _EPOCH) // timedelta(microseconds=1)


def _time(micros: int) -> datetime:
    return _EPOCH + timedelta(microseconds=micros)


def _unread(folder: Path, error: Exception) -> LogError:
    return LogError(f"the published answers cannot be used: {error}", where=str(folder))
