"""Where a lake is: its catalog here or in PostgreSQL, its files in a folder or in S3."""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self
from urllib.parse import urlsplit

from driftloop.errors import BadRequest, LogError
from driftloop.settings import masked
from driftloop.sqlite import copy_sqlite

if TYPE_CHECKING:
    import duckdb

CATALOG = "catalog.sqlite"
CONNECT_WITHIN = 10
"""Seconds that a host may take to answer at all."""
TURN_WITHIN = 60
"""Seconds that an ingester waits for its turn; then it says so, and waits again."""
_LOST_SOON = {"tcp_keepalives_idle": 10, "tcp_keepalives_interval": 10, "tcp_keepalives_count": 3}
"""A machine that lost its power ends no session: PostgreSQL asks after so many seconds, and would
after two hours."""
_TURN = 727_212
"""What PostgreSQL's advisory lock is called by us."""


class Catalog(Protocol):
    """What says which rows the lake has, and in which files they are."""

    where: str
    """For people: without a password."""
    shared: bool
    """Whether several ingesters may write to it."""
    extension: str
    """DuckDB's, for it."""

    def is_made(self) -> bool:
        """Return whether there is one yet."""
        ...

    def address(self, con: "duckdb.DuckDBPyConnection") -> tuple[str, str]:
        """Return the address that DuckLake attaches, and options; `con` is told the password."""
        ...

    def prepare(self) -> None:
        """Do what is to be done once after DuckLake has made it."""
        ...

    def keep(self, ending: str) -> None:
        """Keep a copy of it beside it."""
        ...

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Keep every other writer out for the length of the block."""
        yield

    def check_turn(self) -> None:
        """Raise where the turn was lost meanwhile."""
        ...

    def told(self, error: Exception) -> str:
        """Return what an error says, without any password."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class S3:
    """S3-compatible storage; `endpoint` is as in https://host:9000, empty for Amazon's own."""

    endpoint: str
    region: str
    key: str
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a lake is.

    Args:
        folder: on this machine; what does not fit in memory is put here, and all that has no
            other place.
        catalog: SQLite's in `folder`, or PostgreSQL's.
        files: the folder, or s3://bucket/prefix, of the Parquet files.
        s3: how S3 is reached, where `files` is there.
    """

    folder: Path
    catalog: Catalog
    files: str
    s3: S3 | None = None

    @classmethod
    def of(cls, folder: Path, *, catalog: str = "", files: str = "", s3: S3 | None = None) -> Self:
        """Return the place of a lake whose `catalog` (an address) and `files` may be elsewhere."""
        folder = folder.absolute()
        if not files:
            files = str(folder / "data")
        return cls(
            folder=folder,
            catalog=PostgresCatalog(catalog) if catalog else SqliteCatalog(folder),
            files=files if s3 is not None else str(Path(files).absolute()),
            s3=s3,
        )

    def attach(self, con: "duckdb.DuckDBPyConnection", *, read_only: bool) -> None:
        """Let `con` see the lake as `lake`; without `read_only` it is made where there is none.

        Raises:
            BadRequest: an extension that it takes is not installed, or the files of its catalog
                are elsewhere.
            duckdb.Error: it could not be attached.
        """
        import duckdb

        self.folder.mkdir(parents=True, exist_ok=True)
        needed = [self.catalog.extension, *(["httpfs"] if self.s3 is not None else [])]
        for extension in (*needed, "ducklake"):
            _load(extension, con)
        if self.s3 is not None:
            self._tell_s3(con, self.s3)
        address, options = self.catalog.address(con)
        # A home may have moved with its files. What machines share lies where its catalog says,
        # and a machine that puts its files elsewhere is refused: nobody else would find them.
        if not self.catalog.shared:
            options += ", OVERRIDE_DATA_PATH true"
        if read_only:
            options += ", READ_ONLY"
        try:
            con.execute(
                f"ATTACH {_text(f'ducklake:{address}')} AS lake"
                f" (DATA_PATH {_text(self.files)}{options})"
            )
        except duckdb.Error as error:
            if "does not match existing data path" in str(error):
                raise BadRequest(
                    f"its files are not where lake_files says: {str(error).splitlines()[0]}",
                    where=self.catalog.where,
                    hint="every machine that shares a catalog has the same lake_files",
                ) from error
            raise
        if not read_only:
            self.catalog.prepare()

    def told(self, error: Exception) -> str:
        """Return what an error says, without any secret."""
        said = self.catalog.told(error)
        return said.replace(self.s3.secret, "***") if self.s3 is not None else said

    def _tell_s3(self, con: "duckdb.DuckDBPyConnection", s3: S3) -> None:
        options = f"KEY_ID {_text(s3.key)}, SECRET {_text(s3.secret)}, REGION {_text(s3.region)}"
        if s3.endpoint:
            parts = urlsplit(s3.endpoint)
            options += f", ENDPOINT {_text(parts.netloc + parts.path.rstrip('/'))}"
            options += f", URL_STYLE 'path', USE_SSL {parts.scheme == 'https'}"
        con.execute(f"CREATE OR REPLACE SECRET lake_files (TYPE s3, {options})")


class SqliteCatalog:
    """A catalog in `catalog.sqlite` of a folder: one writer, many readers."""

    shared = False
    extension = "sqlite_scanner"

    def __init__(self, folder: Path) -> None:
        self.where = str(folder)
        self._file = folder / CATALOG

    def is_made(self) -> bool:
        """Return whether there is one yet."""
        return self._file.exists()

    def address(self, con: "duckdb.DuckDBPyConnection") -> tuple[str, str]:  # noqa: ARG002 - it has no password
        """Return the address that DuckLake attaches, and options."""
        return f"sqlite:{self._file}", ""

    def prepare(self) -> None:
        """Put SQLite into WAL mode, in which readers and the writer do not wait for each other."""
        con = sqlite3.connect(self._file)
        try:
            con.execute("PRAGMA journal_mode = wal")
        finally:
            con.close()

    def keep(self, ending: str) -> None:
        """Keep a copy beside it, as `catalog.sqlite.ENDING`.

        Raises:
            LogError: it could not be written.
        """
        try:
            copy_sqlite(self._file, self._file.with_name(f"{CATALOG}.{ending}"))
        except (sqlite3.Error, OSError) as error:
            raise LogError(f"the log cannot be written: {error}", where=self.where) from error

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Do nothing: the spool's lock lets one ingester in."""
        yield

    def check_turn(self) -> None:
        """Do nothing, as `turn`."""

    def told(self, error: Exception) -> str:
        """Return what an error says."""
        return str(error)


class PostgresCatalog:
    """A catalog in a PostgreSQL database: ingesters of several machines take turns.

    Args:
        address: postgresql://user:password@host/database.
    """

    shared = True
    extension = "postgres_scanner"

    def __init__(self, address: str) -> None:
        """Connect to nothing yet."""
        self.where = masked(address)
        self._address = f"postgresql:{address.partition(':')[2]}"
        self._mine = threading.RLock()
        self._held: Any = None

    def is_made(self) -> bool:
        """Return whether there is one yet.

        Raises:
            LogError: the database cannot be reached.
        """
        with self._connected() as con:
            asked = "SELECT to_regclass('ducklake_snapshot') IS NOT NULL"
            return bool(con.execute(asked).fetchone()[0])

    def address(self, con: "duckdb.DuckDBPyConnection") -> tuple[str, str]:
        """Return the address that DuckLake attaches, and options; `con` is told the password."""
        parts = self._parts()
        from psycopg.conninfo import make_conninfo

        password = parts.pop("password", None)
        options = ""
        if password is not None:
            # Not in the address: DuckDB repeats that in its errors.
            con.execute(
                f"CREATE OR REPLACE SECRET lake_catalog (TYPE postgres, PASSWORD {_text(password)})"
            )
            options = ", META_SECRET 'lake_catalog'"
        return f"postgres:{make_conninfo('', **parts)}", options

    def prepare(self) -> None:
        """Do nothing: PostgreSQL's readers and writers do not wait for each other."""

    def keep(self, ending: str) -> None:
        """Keep a copy of its tables in the same database, in the schema `ducklake_ENDING`.

        Raises:
            LogError: it could not be written; nothing of it is left then.
        """
        from psycopg import sql

        copy = f"ducklake_{ending}"
        tables = r"""
            SELECT tablename FROM pg_tables
            WHERE schemaname = current_schema() AND tablename LIKE 'ducklake\_%'
        """
        with self._connected() as con, con.transaction():
            con.execute(
                sql.SQL("DROP SCHEMA IF EXISTS {0} CASCADE; CREATE SCHEMA {0}").format(
                    sql.Identifier(copy)
                )
            )
            for (table,) in con.execute(tables).fetchall():
                con.execute(
                    sql.SQL("CREATE TABLE {} AS TABLE {}").format(
                        sql.Identifier(copy, table), sql.Identifier(table)
                    )
                )

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Keep every other ingester out for the length of the block, by an advisory lock.

        PostgreSQL gives it to the next one when this process dies, and within a minute of the whole
        machine's death. It is a session's: a pooler that shares sessions may not stand in between.

        Raises:
            LogError: it is not our turn within `TURN_WITHIN`, or the database cannot be reached.
        """
        with self._mine:
            if self._held is not None:
                yield
                return
            with self._connected() as con:
                con.execute(f"SET lock_timeout = '{TURN_WITHIN}s'")
                for name, value in _LOST_SOON.items():
                    con.execute(f"SET {name} = {value}")
                con.execute("SELECT pg_advisory_lock(%s)", [_TURN])
                self._held = con
                try:
                    yield
                finally:
                    self._held = None

    def check_turn(self) -> None:
        """Make sure that the turn is ours still: without it another ingester may be at it.

        Raises:
            psycopg.Error: its connection is gone; `turn` tells it as a LogError.
        """
        if self._held is not None:
            self._held.execute("SELECT 1")

    def told(self, error: Exception) -> str:
        """Return what an error says, without the password."""
        password = self._parts().get("password")
        return str(error).replace(password, "***") if password else str(error)

    @contextmanager
    def _connected(self) -> Iterator[Any]:
        """Give a connection of our own; what fails in it is told as ours."""
        parts = self._parts()
        import psycopg
        from psycopg.conninfo import make_conninfo

        try:
            con = psycopg.connect(make_conninfo("", **parts), autocommit=True)
            try:
                yield con
            finally:
                con.close()
        except psycopg.errors.LockNotAvailable as error:
            raise LogError(
                f"another ingester had its turn for {TURN_WITHIN} s",
                where=self.where,
                hint="a maintenance of a large lake may take as long; rows wait in the spool",
            ) from error
        except psycopg.Error as error:
            raise LogError(
                f"the catalog does not answer: {self.told(error)}",
                where=self.where,
                hint="is PostgreSQL running there, and may this user in?",
            ) from error

    def _parts(self) -> dict[str, str]:
        """Return what the address says, part by part."""
        try:
            from psycopg.conninfo import conninfo_to_dict
        except ImportError as error:
            raise _missing("psycopg") from error

        parts = {name: str(value) for name, value in conninfo_to_dict(self._address).items()}
        return {"connect_timeout": str(CONNECT_WITHIN)} | parts


def _load(extension: str, con: "duckdb.DuckDBPyConnection") -> None:
    from duckdb_extensions import import_extension

    try:
        import_extension(extension, con=con)
    except ImportError as error:
        raise _missing(f"duckdb-extension-{extension.replace('_', '-')}") from error


def _missing(package: str) -> BadRequest:
    extra = "s3" if package.endswith("httpfs") else "postgres"
    return BadRequest(
        f"{package} is not installed",
        where="catalog" if extra == "postgres" else "lake_files",
        hint=f"pip install 'driftloop[{extra}]'",
    )


def _text(said: str) -> str:
    """Return `said` as SQL has it."""
    return "'" + said.replace("'", "''") + "'"
