"""The ledger in PostgreSQL: brought up, back after a restart, and no password in what it says."""

import multiprocessing
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec
import psycopg
import pytest

from driftloop.errors import BadRequest, LedgerError
from driftloop.ledger import SCHEMA_VERSION, SqlLedger
from driftloop.records import Failed, ModelId

if TYPE_CHECKING:
    from multiprocessing.synchronize import Barrier

    from stores import Postgres

AT = datetime(2026, 3, 1, tzinfo=UTC)
FACT = Failed(model=ModelId("eta-de"), at=AT, order_key="eta-de/1", error="no")
VERSION_1 = """
    CREATE TABLE ledger_meta (version INTEGER NOT NULL);
    CREATE TABLE facts (id SERIAL NOT NULL, kind VARCHAR NOT NULL, model VARCHAR NOT NULL,
        at VARCHAR NOT NULL, written FLOAT NOT NULL, key VARCHAR, body TEXT NOT NULL,
        PRIMARY KEY (id), UNIQUE (kind, key));
    CREATE INDEX facts_by_model ON facts (kind, model, id);
    CREATE TABLE intents (key VARCHAR NOT NULL, body TEXT NOT NULL, lease_until FLOAT NOT NULL,
        attempts INTEGER NOT NULL, outcome TEXT, PRIMARY KEY (key));
    INSERT INTO ledger_meta VALUES (1);
"""


@pytest.fixture
def old(database: str) -> str:
    """A ledger of version 1 with one fact in it."""
    with psycopg.connect(database) as con:
        con.execute(VERSION_1)
        con.execute(
            "INSERT INTO facts (kind, model, at, written, body) VALUES ('Failed', %s, %s, 5.0, %s)",
            [FACT.model, FACT.at.isoformat(), msgspec.json.encode(FACT).decode()],
        )
    return database


def _open(url: str, expected: int, barrier: "Barrier") -> None:
    barrier.wait(60)
    ledger = SqlLedger(url)
    assert len(ledger.trace(FACT.order_key)) == expected
    ledger.close()


@pytest.mark.parametrize(("start", "expected"), [("old", 1), ("database", 0)])
def test_processes_that_start_at_once_bring_it_up_once(
    start: str, expected: int, request: pytest.FixtureRequest
) -> None:
    """Four processes open an old ledger, or none, in the same moment: none fails, one migrates."""
    url = request.getfixturevalue(start)
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(4)
    openers = [context.Process(target=_open, args=(url, expected, barrier)) for _ in range(4)]
    for opener in openers:
        opener.start()
    for opener in openers:
        opener.join(60)
    assert [opener.exitcode for opener in openers] == [0] * 4
    with psycopg.connect(url) as con:
        assert con.execute("SELECT version FROM ledger_meta").fetchall() == [(SCHEMA_VERSION,)]


def test_a_server_that_was_away_is_asked_again(postgresql: "Postgres", database: str) -> None:
    """Meanwhile each call fails with what and where; afterwards all is as it was."""
    ledger = SqlLedger(database)
    ledger.append(FACT)
    postgresql.stop()
    try:
        with pytest.raises(LedgerError, match="cannot be read") as refused:
            ledger.facts(Failed)
    finally:
        postgresql.start()
    assert "is PostgreSQL running there" in refused.value.hint
    assert ledger.facts(Failed) == (FACT,)
    ledger.close()


def test_a_password_that_does_not_fit_is_not_shown(database: str) -> None:
    """The error has the address without it."""
    wrong = database.replace("s3cret", "guessed")
    with pytest.raises(LedgerError, match="password authentication failed") as refused:
        SqlLedger(wrong)
    assert "ours:***@127.0.0.1" in str(refused.value)
    assert "guessed" not in str(refused.value)


def test_without_psycopg_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who sets the address without the extra is told what to install."""
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(BadRequest, match="psycopg is not installed") as refused:
        SqlLedger("postgresql://ours@127.0.0.1/ledger")
    assert "driftloop[postgres]" in refused.value.hint
