"""A window too large to hold: its rows are kept in a file and read one column at a time.

DuckDB writes the columns as they stand, then settles and sorts the ids alone, spilling what does
not fit: a third of what sorting whole rows costs. What comes of it, each row's place and label, is
all of the window that stays in memory.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from driftloop.errors import LogError
from driftloop.prediction_log import queries
from driftloop.prediction_log.store import Reads, faults, in_utc, utc
from driftloop.records import LogSummary
from driftloop.rows import Rows
from driftloop.spec import Family


def spilled(store: Reads, family: Family, asked: Mapping[str, object]) -> tuple[Rows, LogSummary]:
    """Return the rows of one model's window, and counts of them as they arrived.

    The rows are those of `queries.rows`, by event time and id. Their file has no name any more:
    the disk has its room back once they are let go, however the process ends.

    Args:
        store: where the rows are.
        family: of the model.
        asked: the window, as `queries.bound` returns it.

    Raises:
        LogError: the rows cannot be read, or do not fit on the disk.
    """
    window = {name: value for name, value in asked.items() if name != "version"}
    known = {name: asked[name] for name in ("models", "known_at")}
    version = {"version": asked["version"]}
    try:
        with _scratch(store.scratch) as folder, store.apart(folder) as con:
            file = folder / "rows.parquet"
            address = str(file).replace("'", "''")
            con.execute(f"COPY ({queries.every_arrival(family)}) TO '{address}'", window)
            # One after the other: at once they would not fit.
            con.execute(f"CREATE TEMP TABLE arrived AS {queries.FIRST}", {"file": str(file)})
            con.execute(f"CREATE TEMP TABLE known AS {queries.newest_labels(family)}", known)
            places = in_utc(con.execute(queries.PLACES, version).to_arrow_table())
            counted = con.execute(queries.COUNT, {"file": str(file), **version}).fetchall()
            rows = _Spilled(file, family, places)
    except (OSError, pa.ArrowException, faults()) as error:
        raise LogError(
            f"its rows cannot be spilled: {str(error).partition(chr(10))[0]}",
            where=str(store.scratch),
            hint="a window this large takes some ten bytes a value there while it is measured",
        ) from error
    ((arrived, newest),) = counted
    summary = LogSummary(
        rows=arrived,
        duplicates=arrived - rows.num_rows,
        labels=rows.num_rows - rows.column("label").null_count,
        newest_event=utc(newest),
    )
    return rows, summary


class _Spilled:
    """Implements `Rows`; `places` has each row's place in the file and its label."""

    def __init__(self, file: Path, family: Family, places: pa.Table) -> None:
        self._file = pq.ParquetFile(pa.OSFile(str(file)))
        self._places = places
        self.num_rows: int = places.num_rows
        self.column_names = [
            *("id", "version", "event_time", "arrived_at", "prediction", "label", "labelled_at"),
            *family.features,
        ]

    def column(self, name: str) -> pa.ChunkedArray:
        if name in {"label", "labelled_at"}:
            return self._places.column(name)
        try:
            read = self._file.read(columns=[name], use_threads=False)
        except (OSError, pa.ArrowException) as error:
            raise LogError(f"what was spilled cannot be read: {error}", where=name) from error
        return read.column(name).combine_chunks().take(self._places.column("place"))


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """Give a new folder in `folder`, gone at the end, and clear what a killed process left."""
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder, fcntl.LOCK_EX):
        for left in folder.iterdir():
            with suppress(OSError), _locked(left, fcntl.LOCK_EX | fcntl.LOCK_NB):
                shutil.rmtree(left)
        # Not at random: a fault that names it is the same fault in the next pass.
        made = next(each for n in count() if not (each := folder / str(n)).exists())
        made.mkdir()
        at_work = os.open(made, os.O_RDONLY)
        fcntl.flock(at_work, fcntl.LOCK_EX)
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)
        os.close(at_work)


@contextmanager
def _locked(folder: Path, how: int) -> Iterator[None]:
    held = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(held, how)
        yield
    finally:
        os.close(held)
