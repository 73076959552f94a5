"""The lake's DuckLake store: opened at first use, asked, written; every fault told as ours."""

import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from driftloop.errors import LogError
from driftloop.prediction_log.place import Place

if TYPE_CHECKING:
    import duckdb

SPILLED = "spilled"
"""Folder of what is spilled, in that of the log."""


class Reads:
    """Asks a DuckDB in which `lake` stands; every fault is told as ours."""

    @contextmanager
    def cursor(self) -> Iterator["duckdb.DuckDBPyConnection"]:
        """Give a cursor of its own, closed at the end."""
        raise NotImplementedError
        yield  # type: ignore[unreachable]  # makes it a generator, as those below are

    @contextmanager
    def apart(self, scratch: Path) -> Iterator["duckdb.DuckDBPyConnection"]:
        """Give a DuckDB of its own, which spills into `scratch`; its memory is free at the end."""
        raise NotImplementedError(scratch)
        yield  # type: ignore[unreachable]  # as above

    @property
    def scratch(self) -> Path:
        """The folder in which folders are made for what is spilled."""
        raise NotImplementedError

    def unread(self, error: Exception) -> LogError:
        """Return `error` of a read as ours."""
        raise NotImplementedError

    def fetch(self, sql: str, params: Mapping[str, object]) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""
        with self.cursor() as con:
            try:
                return con.execute(sql, dict(params)).fetchall()
            except faults() as error:
                raise self.unread(error) from error

    def arrow(self, sql: str, params: Mapping[str, object]) -> pa.Table:
        """Return the rows of a query as Arrow, times in UTC."""
        with self.cursor() as con:
            try:
                return in_utc(con.execute(sql, dict(params)).to_arrow_table())
            except faults() as error:
                raise self.unread(error) from error


class Store(Reads):
    """DuckLake at `place`, attached as `lake`; safe to use from several threads.

    Args:
        place: where; a folder holds `catalog.sqlite`, and the Parquet files under `data`.
        read_only: False for an ingester; everybody else reads.
    """

    def __init__(self, place: Path | Place, *, read_only: bool) -> None:
        self.place = Place.of(place) if isinstance(place, Path) else place
        self.folder = self.place.folder
        self._read_only = read_only
        self._connecting = threading.Lock()
        self._connection: duckdb.DuckDBPyConnection | None = None

    def close(self) -> None:
        """Close the store; the next use opens it again."""
        with self._connecting:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def keep_catalog(self, ending: str) -> None:
        """Keep a copy of the catalog beside it; the files it names stay for a day at least.

        Raises:
            LogError: it could not be written.
        """
        # DuckDB's SQLite is not Python's: closing a file here takes locks away there.
        self.close()
        self.place.catalog.keep(ending)

    @contextmanager
    def cursor(self) -> Iterator["duckdb.DuckDBPyConnection"]:
        """Give a cursor of its own, closed at the end."""
        with interruptible():
            with self._connecting:
                if self._connection is None:
                    self._connection = self._connect()
                cursor = self._connection.cursor()
            try:
                # It is drawn on stdout, into what programs read, once a query takes two seconds.
                cursor.execute("SET enable_progress_bar = false")
                yield cursor
            except BaseException:
                # Another thread of its may be at the query still, and closing would wait for it.
                cursor.interrupt()
                raise
            finally:
                cursor.close()

    @contextmanager
    def apart(self, scratch: Path) -> Iterator["duckdb.DuckDBPyConnection"]:
        """Give a DuckDB of its own, which spills into `scratch`; its memory is free at the end."""
        with interruptible(), closing(self._connect(**spilling(scratch))) as con:
            con.execute("SET enable_progress_bar = false")
            try:
                yield con
            except BaseException:
                con.interrupt()  # as above
                raise

    @property
    def scratch(self) -> Path:
        """The folder in which folders are made for what is spilled."""
        return self.folder / SPILLED

    @contextmanager
    def transaction(self) -> Iterator["duckdb.DuckDBPyConnection"]:
        """Give a cursor in a transaction, committed at the end or rolled back."""
        import duckdb

        with self.cursor() as con:
            try:
                con.begin()
                yield con
                self.place.catalog.check_turn()
                con.commit()
            except duckdb.Error as error:
                raise self.unwritten(error) from error
            # Closing the cursor rolls back what was not committed.

    def unread(self, error: Exception) -> LogError:
        """Return `error` of a read as ours."""
        return LogError(
            f"the log cannot be read: {self.place.told(error)}",
            where=self.place.catalog.where,
            hint="the ingester makes tables and columns; is it running with these monitors?",
        )

    def unwritten(self, error: Exception) -> LogError:
        """Return `error` of a write as ours."""
        said = self.place.told(error)
        return LogError(f"the log cannot be written: {said}", where=self.place.catalog.where)

    def _connect(self, **config: str) -> "duckdb.DuckDBPyConnection":
        import duckdb

        catalog = self.place.catalog
        if self._read_only and not catalog.is_made():
            raise LogError(
                "there is no prediction log here yet",
                where=catalog.where,
                hint="start the ingester: `driftloop up` does",
            )
        con = duckdb.connect(config={**configured(self.folder), **config})
        try:
            con.execute("SET GLOBAL TimeZone = 'UTC'")
            with nullcontext() if self._read_only else catalog.turn():
                self.place.attach(con, read_only=self._read_only)
        except (duckdb.Error, sqlite3.Error, OSError) as error:
            con.close()
            said = self.place.told(error)
            raise LogError(f"cannot be opened: {said}", where=catalog.where) from error
        except BaseException:
            con.close()
            raise
        return con


def named_files(catalog: Path) -> tuple[str, ...]:
    """Return the files under `data` that a catalog names, for itself and its older snapshots.

    They are never changed, and stay for a day at least after they are replaced.

    Raises:
        sqlite3.Error: `catalog` is not DuckLake's.
    """
    named = """
        SELECT s.path || t.path || f.path FROM {} f
        JOIN ducklake_table t USING (table_id) JOIN ducklake_schema s USING (schema_id)
        WHERE f.path_is_relative
    """
    with closing(sqlite3.connect(catalog)) as con:
        found = [
            path
            for table in ("ducklake_data_file", "ducklake_delete_file")
            for (path,) in con.execute(named.format(table))
        ]
    return tuple(sorted(set(found)))


def configured(folder: Path) -> dict[str, str | bool | int | float | list[str]]:
    """Return how DuckDB is opened; what does not fit in memory is put in `folder`."""
    return {
        "threads": 2,
        "memory_limit": "2GB",
        "temp_directory": str(folder / "tmp"),
        # It keeps blocks of local files too, and forgets none whose file is gone: an ingester
        # grew by 170 MiB an hour. The operating system caches the files anyway.
        "enable_external_file_cache": False,
        "autoinstall_known_extensions": False,
        # No variable of ours is a table; and looking for one, DuckDB would swallow a Ctrl-C.
        "python_enable_replacements": False,
    }


def spilling(scratch: Path) -> dict[str, str]:
    """Return what is otherwise for a DuckDB that is to spill early, into a folder of its own."""
    # DuckDB clears a folder that it shares with others of their files, too.
    return {"memory_limit": "1GB", "temp_directory": str(scratch / "tmp")}


def faults() -> type[Exception]:
    """Return what DuckDB raises, without its being imported before it is used."""
    import duckdb

    return duckdb.Error


@contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C be KeyboardInterrupt in DuckDB too, which makes an error of its own of it."""
    # DuckDB would import it with the first parameter, and take a Ctrl-C meanwhile for its absence.
    import pandas  # noqa: F401, ICN001

    try:
        yield
    except RuntimeError as error:
        if str(error) == "Query interrupted":
            raise KeyboardInterrupt from error
        raise


def utc(at: datetime | None) -> datetime | None:
    """Return `at` in UTC."""
    return None if at is None else at.astimezone(UTC)


def in_utc(table: pa.Table) -> pa.Table:
    """Return `table` with its zoned times labelled UTC, whatever DuckDB calls that zone."""
    fields = [
        field.with_type(pa.timestamp(field.type.unit, tz="UTC"))
        if pa.types.is_timestamp(field.type) and field.type.tz is not None
        else field
        for field in table.schema
    ]
    return table.cast(pa.schema(fields))
