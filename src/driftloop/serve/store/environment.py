"""One LMDB environment, opened once in a process however many ask for it."""

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import lmdb

from driftloop.errors import DriftloopError

READERS = 1024
"""Threads that may read at once, over all processes."""
Database = Any
"""A handle of LMDB's, which has no name of its own."""
LONGEST_KEY = 511
"""Bytes, as LMDB is built."""


class StoreError(DriftloopError):
    """The online store could not be written or read; what it held before is still there."""


class Environment:
    """The databases of one folder, which is made if there is none.

    Closing it gives up this handle of it; those of others in the process stay usable.

    Args:
        folder: where its files are.
        databases: the names of its databases.
        most_bytes: how large its file may grow; it takes only what it needs.

    Raises:
        StoreError: it cannot be opened.
    """

    def __init__(self, folder: Path, databases: Sequence[str], *, most_bytes: int) -> None:
        self.folder = folder
        self._most = most_bytes
        self._key, self._lmdb, self._databases = _share(folder, databases, most_bytes)
        self._closed = False

    def begin(self) -> lmdb.Transaction:
        """Return a transaction that sees one moment, to be aborted by who asked for it.

        What it gives lies in the file, and cannot be read after that.

        Raises:
            StoreError: it cannot be read.
        """
        try:
            return self._lmdb.begin(buffers=True)
        except lmdb.Error as error:
            raise self.told("read", error) from error

    @contextmanager
    def writing(self) -> Iterator[lmdb.Transaction]:
        """Yield a transaction that is durable once the block ends, and as if never begun if not.

        Raises:
            StoreError: it could not be written: the disk is full, or the file as large as it may
                be.
        """
        try:
            with self._lmdb.begin(write=True) as txn:
                yield txn
        except lmdb.Error as error:
            raise self.told("written", error) from error

    def __getitem__(self, name: str) -> Database:
        """Return the database called `name`."""
        return self._databases[name]

    def forget_dead_readers(self) -> int:
        """Return how many readers died without a word; what only they saw can be used again."""
        return self._lmdb.reader_check()

    def size(self) -> int:
        """Return how many bytes its file has."""
        return (self.folder / "data.mdb").stat().st_size

    def close(self) -> None:
        """Give it up; twice does nothing."""
        if not self._closed:
            self._closed = True
            _give_up(self._key)

    def told(self, done: str, error: lmdb.Error) -> StoreError:
        """Return what is told of an error of LMDB's."""
        if isinstance(error, lmdb.MapFullError):
            return StoreError(
                f"is full: it may take {self._most / 2**30:g} GiB",
                where=str(self.folder),
                hint="let it grow with the setting store_gib, and restart what uses it",
            )
        return StoreError(
            f"could not be {done}: {error}",
            where=str(self.folder),
            hint="see that the disk has room and the folder can be written",
        )


class Reading:
    """Reads one environment as it is at one moment, for as long as a `with` block lasts.

    No generator makes it: a request has a few microseconds for all that it looks up.
    """

    __slots__ = ("_env", "_txn")

    def __init__(self, env: Environment) -> None:
        self._env = env

    def __enter__(self) -> Self:
        """See all as it is now.

        Raises:
            StoreError: it cannot be read.
        """
        self._txn = self._env.begin()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Look no more; an error of LMDB's is told as ours."""
        self._txn.abort()
        if isinstance(error, lmdb.Error):
            raise self._env.told("read", error) from error


_Key = tuple[int, Path]
_Shared = tuple[lmdb.Environment, dict[str, Database]]
_lock = threading.Lock()
_shared: dict[_Key, _Shared] = {}
_users: dict[_Key, int] = {}


def _share(
    folder: Path, databases: Sequence[str], most_bytes: int
) -> tuple[_Key, lmdb.Environment, dict[str, Database]]:
    # LMDB must not open a file twice in one process, nor use what was opened before a fork.
    key = (os.getpid(), Path(os.path.realpath(folder)))
    with _lock:
        if key not in _shared:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                opened = lmdb.open(
                    str(key[1]),
                    map_size=most_bytes,
                    max_dbs=len(databases),
                    max_readers=READERS,
                )
                named = {name: opened.open_db(name.encode()) for name in databases}
            except (lmdb.Error, OSError) as error:
                raise StoreError(
                    f"cannot be opened: {error}",
                    where=str(folder),
                    hint="it holds copies only: with `driftloop up` stopped, remove the folder and"
                    " start it again",
                ) from error
            _shared[key] = (opened, named)
        _users[key] = _users.get(key, 0) + 1
        return key, *_shared[key]


def _give_up(key: _Key) -> None:
    with _lock:
        _users[key] -= 1
        if not _users[key]:
            del _users[key]
            _shared.pop(key)[0].close()
