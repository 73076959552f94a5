"""The connections of a ledger: SQLite tuned for several processes, or PostgreSQL."""

import sqlite3
import time
from typing import Any

from driftloop.errors import BadRequest

BUSY = 30.0
"""Seconds that a process waits for another that writes the ledger."""


def engine_of(url: str) -> Any:  # noqa: ANN401 - SQLAlchemy's
    """Return SQLAlchemy's engine for an address.

    Raises:
        BadRequest: it is PostgreSQL, and psycopg is not installed.
    """
    import sqlalchemy as sa

    address = sa.make_url(url)
    if address.get_backend_name() == "sqlite":
        engine = sa.create_engine(address)
        sa.event.listen(engine, "connect", _tune_sqlite)
        return engine
    try:
        return sa.create_engine(
            address.set(drivername="postgresql+psycopg"),
            # One that was closed meanwhile, as by a restart over there, is opened anew.
            pool_pre_ping=True,
            connect_args={} if "connect_timeout" in address.query else {"connect_timeout": 10},
        )
    except ImportError as error:
        raise BadRequest(
            "psycopg is not installed", where="ledger", hint="pip install 'driftloop[postgres]'"
        ) from error


def _tune_sqlite(connection: Any, _record: object) -> None:  # noqa: ANN401 - sqlite3's connection
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={BUSY * 1000:.0f}")
    until = time.monotonic() + BUSY
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            break
        except sqlite3.OperationalError:
            # SQLite does not wait for others that change the mode of a new file just then.
            if time.monotonic() > until:
                raise
            time.sleep(0.01)
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()
