"""How an older ledger is brought up: step by step, each in a transaction that nobody else is in."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from driftloop.errors import LedgerError, TooNew
from driftloop.sqlite import copy_sqlite

_LOCK = 727_211
"""What PostgreSQL's advisory lock is called by us."""


def bring_up(engine: Any, tables: Any) -> None:  # noqa: ANN401 - SQLAlchemy's engine and metadata
    """Make the `tables` of an empty database, or bring those of an older driftloop up.

    A copy of an SQLite file is kept beside it, as `ledger.db.v1`, before anything is changed.
    Processes that start at once wait for each other: one migrates, the others find it done.

    Raises:
        TooNew: the ledger was written by a newer driftloop; nothing was changed.
    """
    if _version(engine) == SCHEMA_VERSION:
        return
    with _alone(engine) as connection:
        found = _version(connection)
        if found is None:
            tables.create_all(connection)
            _note(connection, SCHEMA_VERSION)
            return
        if found < SCHEMA_VERSION and engine.dialect.name == "sqlite":
            _copy(Path(engine.url.database), found)
    for version in range(found, SCHEMA_VERSION):
        with _alone(engine) as connection:
            if _version(connection) == version:
                try:
                    STEPS[version - 1](connection)
                except (msgspec.DecodeError, LookupError, TypeError) as error:
                    raise LedgerError(
                        f"schema {version} cannot be brought up, and was left: {error!r}",
                        where=engine.url.render_as_string(),
                        hint="a fact in it is damaged; a backup may have it whole",
                    ) from error
                _note(connection, version + 1)


def _version(bind: Any) -> int | None:  # noqa: ANN401 - SQLAlchemy's engine or connection
    """Return the schema found, None in an empty database."""
    import sqlalchemy as sa

    if not sa.inspect(bind).has_table("ledger_meta"):
        return None
    query = sa.text("SELECT max(version) FROM ledger_meta")
    if isinstance(bind, sa.Engine):
        with bind.connect() as connection:
            found = connection.execute(query).scalar()
    else:
        found = bind.execute(query).scalar()
    if found is not None and found > SCHEMA_VERSION:
        url = bind.engine.url.render_as_string()
        raise TooNew(
            f"the ledger has schema {found}, this driftloop knows {SCHEMA_VERSION}",
            where=url,
            hint="run the newer driftloop, or restore a backup made by this one",
        )
    # Made and not yet noted: a driftloop of version 1 made tables before it wrote its version.
    return 1 if found is None else int(found)


def _note(connection: Any, version: int) -> None:  # noqa: ANN401 - SQLAlchemy's connection
    import sqlalchemy as sa

    connection.execute(sa.text("DELETE FROM ledger_meta"))
    connection.execute(sa.text("INSERT INTO ledger_meta VALUES (:v)"), {"v": version})


@contextmanager
def _alone(engine: Any) -> Iterator[Any]:  # noqa: ANN401 - SQLAlchemy's engine and connection
    """Give a transaction that no other process writes beside."""
    if engine.dialect.name == "postgresql":
        with engine.begin() as connection:
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
            yield connection
        return
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        # Left to itself Python's sqlite3 begins at the first write, and never for a table.
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        try:
            yield connection
        except BaseException:
            connection.exec_driver_sql("ROLLBACK")
            raise
        connection.exec_driver_sql("COMMIT")


def _copy(file: Path, version: int) -> None:
    try:
        copy_sqlite(file, file.with_name(f"{file.name}.v{version}"))
    except (sqlite3.Error, OSError) as error:
        raise LedgerError(
            f"no copy could be made before it is brought up, so nothing was changed: {error}",
            where=str(file),
            hint="is the disk full?",
        ) from error


# -- the steps: never changed once released ---------------------------------------------------


def _trace_facts(connection: Any) -> None:  # noqa: ANN401 - SQLAlchemy's connection
    """From 1 to 2: each fact knows the decision, or order, that it belongs to."""
    import sqlalchemy as sa

    connection.execute(sa.text("ALTER TABLE facts ADD COLUMN trace VARCHAR"))
    connection.execute(sa.text("CREATE INDEX facts_by_trace ON facts (trace, id)"))
    orders: dict[str, str | None] = {}
    released: set[str] = set()
    fill = sa.text("UPDATE facts SET trace = :trace WHERE id = :id")
    # By parts: a year of facts is gigabytes.
    some = sa.text("SELECT id, kind, key, body FROM facts WHERE id > :last ORDER BY id LIMIT 1000")
    last = 0
    while rows := connection.execute(some, {"last": last}).all():
        last = rows[-1][0]
        filled = []
        for id_, kind, key, body in rows:
            trace = _trace_in_1(kind, key, msgspec.json.decode(body), orders, released)
            if trace is not None:
                filled.append({"id": id_, "trace": trace})
        if filled:
            connection.execute(fill, filled)


def _trace_in_1(
    kind: str,
    key: str | None,
    body: Any,  # noqa: ANN401 - JSON
    orders: dict[str, str | None],
    released: set[str],
) -> str | None:
    """Return a fact's trace as its JSON tells it: records may be others by the time this runs."""
    if kind == "Measured":
        return key
    if kind == "Paged":
        notice = body["notice"]
        rest = notice["key"].removeprefix(f"{notice['incident']}/{notice['stage']}").lstrip("/")
        return str(rest or notice["incident"])
    if kind == "Moved":
        version = f"{body['model']}#{body['head']['version']}"
        first = version not in released
        released.add(version)
        return orders.get(version) if first else None
    if kind not in _TRACE_IN_1:
        return None
    for name in _TRACE_IN_1[kind]:
        body = body[name]
    if kind == "Trained" and key is not None:
        orders[key] = body
    return str(body)


_TRACE_IN_1 = {
    "Decided": ("decision", "key"),
    "Ordered": ("order", "key"),
    "Trained": ("candidate", "order", "key"),
    "Gated": ("order_key",),
    "Failed": ("order_key",),
}


def _one_epoch(connection: Any) -> None:  # noqa: ANN401 - SQLAlchemy's connection
    """From 2 to 3: a champion's moves and a rollout's steps share one counter."""
    import sqlalchemy as sa

    connection.execute(
        sa.text("CREATE UNIQUE INDEX one_epoch ON facts (key) WHERE kind IN ('Moved', 'Advanced')")
    )


def _live_intents(connection: Any) -> None:  # noqa: ANN401 - SQLAlchemy's connection
    """From 3 to 4: what nobody finished is found without looking at all that is."""
    import sqlalchemy as sa

    connection.execute(sa.text("CREATE INDEX live_intents ON intents (key) WHERE outcome IS NULL"))


STEPS: tuple[Callable[[Any], None], ...] = (_trace_facts, _one_epoch, _live_intents)
"""Step n brings a ledger of schema n to n + 1."""
SCHEMA_VERSION = 1 + len(STEPS)
