"""Batch tables: the newest copy of each, whole, by key."""

import fcntl
import os
import struct
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path

import msgspec

from driftloop.records import FeatureValue
from driftloop.serve.store.environment import LONGEST_KEY, Environment, Reading, StoreError
from driftloop.serve.store.keys import short

AT_ONCE = 5_000
"""Rows in one transaction, so that other tables' writers need not wait long."""
_GENERATION = struct.Struct(">Q")
_encode = msgspec.msgpack.Encoder().encode
_values: "msgspec.msgpack.Decoder[tuple[FeatureValue, ...]]" = msgspec.msgpack.Decoder(
    tuple[FeatureValue, ...]
)


@dataclass(frozen=True, slots=True)
class Loaded:
    """What is held of a table: its columns, how many rows, and when they were read (loop time)."""

    columns: tuple[str, ...]
    rows: int
    loaded_at: datetime
    generation: int


_loaded = msgspec.msgpack.Decoder(Loaded)


class TableStore:
    """The tables of one home; any process may write one, and any read.

    Args:
        folder: of its environment.
        most_bytes: how large its file may grow; about twice what its tables take.

    Raises:
        StoreError: it cannot be opened.
    """

    def __init__(self, folder: Path, *, most_bytes: int) -> None:
        self._env = Environment(folder, ("rows", "meta"), most_bytes=most_bytes)

    def replace(
        self,
        source: str,
        columns: Sequence[str],
        rows: Iterable[tuple[str, Sequence[FeatureValue]]],
        *,
        loaded_at: datetime,
    ) -> int:
        """Put `rows` (key, values of `columns`) in the place of all that was held of `source`.

        Who reads sees the old rows until the last new one is there, and then the new ones.

        Returns:
            How many keys there are; of a key that stands twice the last row is kept.

        Raises:
            StoreError: it could not be written, or another process writes this table; the old
                rows stay.
        """
        generation = time.time_ns()
        prefix = _prefix(source, generation)
        with self._alone(source):
            self._remove_others(source, self._generation(source))
            kept, left = 0, iter(rows)
            try:
                while part := list(islice(left, AT_ONCE)):
                    with self._env.writing() as txn:
                        for key, values in part:
                            at = prefix + short(key, LONGEST_KEY - len(prefix))
                            kept += not txn.replace(
                                at, _encode(tuple(values)), db=self._env["rows"]
                            )
                said = Loaded(tuple(columns), kept, loaded_at, generation)
                with self._env.writing() as txn:
                    txn.put(source.encode(), _encode(said), db=self._env["meta"])
            finally:
                self._remove_others(source, self._generation(source))
        return kept

    def reading(self) -> "TableView":
        """Return what sees the tables as they are at one moment, in a `with` block.

        Raises:
            StoreError: they cannot be read; on entering.
        """
        return TableView(self._env)

    def close(self) -> None:
        """Give it up."""
        self._env.close()

    def _generation(self, source: str) -> int:
        with self.reading() as view:
            held = view.loaded(source)
        return held.generation if held is not None else 0

    def _remove_others(self, source: str, generation: int) -> None:
        """Remove the rows of `source` that are not of `generation`, some at a time."""
        whole, current = _prefix(source, None), _prefix(source, generation)
        after = _prefix(source, generation + 1)
        while True:
            with self._env.writing() as txn, txn.cursor(self._env["rows"]) as cursor:
                removed = 0
                found = cursor.set_range(whole)
                while found and removed < AT_ONCE:
                    key = bytes(cursor.key())
                    if not key.startswith(whole):
                        break
                    if key.startswith(current):
                        found = cursor.set_range(after)
                        continue
                    found = cursor.delete()
                    removed += 1
            if removed < AT_ONCE:
                return

    @contextmanager
    def _alone(self, source: str) -> Iterator[None]:
        file = self._env.folder / f"{source}.lock"
        try:
            lock = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise StoreError(f"could not be written: {error}", where=str(file)) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(lock)
            raise StoreError(
                "another refresh of it is under way", where=source, hint="wait for its end"
            ) from error
        try:
            yield
        finally:
            os.close(lock)


class TableView(Reading):
    """All tables as they were when it was entered."""

    __slots__ = ("_loaded", "_meta", "_rows")

    def __init__(self, env: Environment) -> None:
        super().__init__(env)
        self._rows, self._meta = env["rows"], env["meta"]
        self._loaded: dict[str, tuple[Loaded, bytes] | None] = {}

    def loaded(self, source: str) -> Loaded | None:
        """Return what is held of `source`; None when it was never read."""
        found = self._of(source)
        return found[0] if found is not None else None

    def row(self, source: str, key: str) -> tuple[FeatureValue, ...] | None:
        """Return the row of `key`, in the order of the table's columns; None when it has none."""
        found = self._of(source)
        if found is None:
            return None
        prefix = found[1]
        packed = self._txn.get(prefix + short(key, LONGEST_KEY - len(prefix)), db=self._rows)
        return _values.decode(packed) if packed is not None else None

    def _of(self, source: str) -> tuple[Loaded, bytes] | None:
        if source not in self._loaded:
            packed = self._txn.get(source.encode(), db=self._meta)
            if packed is None:
                self._loaded[source] = None
            else:
                held = _loaded.decode(packed)
                self._loaded[source] = held, _prefix(source, held.generation)
        return self._loaded[source]


def _prefix(source: str, generation: int | None) -> bytes:
    said = source.encode() + b"\0"
    return said if generation is None else said + _GENERATION.pack(generation)
