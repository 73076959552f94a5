import multiprocessing
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from driftloop.errors import LedgerError
from driftloop.ledger import SCHEMA_VERSION, SqlLedger
from driftloop.records import (
    Candidate,
    Decided,
    Decision,
    Fact,
    Failed,
    Gated,
    GateResult,
    Head,
    Measured,
    ModelId,
    Moved,
    Notice,
    Order,
    Ordered,
    Paged,
    Passed,
    Receipt,
    Stage,
    State,
    Trained,
    Window,
)

DE = ModelId("eta-de")
AT = datetime(2026, 3, 1, tzinfo=UTC)
WINDOW = Window(model=DE, start=AT - timedelta(days=1), end=AT, known_at=AT)
FIRST, OPENS, LATER = "first/eta-de/0", "eta-de/20260301T000000", "eta-de/20260301T060000"
VERSION_1 = """
    CREATE TABLE ledger_meta (version INTEGER NOT NULL);
    CREATE TABLE facts (id INTEGER NOT NULL, kind VARCHAR NOT NULL, model VARCHAR NOT NULL,
        at VARCHAR NOT NULL, written FLOAT NOT NULL, "key" VARCHAR, body TEXT NOT NULL,
        PRIMARY KEY (id), UNIQUE (kind, "key"));
    CREATE INDEX facts_by_model ON facts (kind, model, id);
    CREATE TABLE intents ("key" VARCHAR NOT NULL, body TEXT NOT NULL, lease_until FLOAT NOT NULL,
        attempts INTEGER NOT NULL, outcome TEXT, PRIMARY KEY ("key"));
    INSERT INTO ledger_meta VALUES (1);
    INSERT INTO intents VALUES ('act', 'what', 0, 1, 'told');
"""


def order(key: str) -> Order:
    return Order(key=key, model=DE, at=AT, reason="worse", window=WINDOW, holdout_from=AT, seed=1)


def trained(key: str, version: int) -> tuple[Fact, str]:
    candidate = Candidate(
        order=order(key),
        digest=f"d{version}",
        folder=f"/f/{version}",
        rows=10,
        holdout_rows=5,
        metrics=(),
        parity=0.0,
        fit_seconds=1.0,
        lower_seconds=1.0,
    )
    return Trained(model=DE, at=AT, version=version, candidate=candidate), f"{DE}#{version}"


def moved(epoch: int, version: int, previous: int | None, reason: str) -> tuple[Fact, str]:
    head = Head(model=DE, epoch=epoch, version=version, digest="d", artifact="a")
    return Moved(model=DE, at=AT, head=head, previous=previous, reason=reason), f"{DE}#{epoch}"


def decided(key: str, *, incident: str | None, resolves: str | None = None) -> tuple[Fact, str]:
    decision = Decision(
        key=key,
        model=DE,
        at=AT,
        state=State.DECAYING,
        reason="worse",
        version=1,
        window=WINDOW,
        verdicts=(),
        incident=incident,
        resolves=resolves,
    )
    return Decided(model=DE, at=AT, decision=decision), key


def paged(key: str, stage: Stage) -> tuple[Fact, str]:
    notice = Notice(
        key=key,
        incident=OPENS,
        model=DE,
        stage=stage,
        at=AT,
        since=AT,
        channel="#c",
        mention="",
        headline="h",
        doing="d",
    )
    return Paged(model=DE, at=AT, notice=notice, receipt=Receipt(channel="C", ts="1")), key


def gated(key: str, version: int, *, passed: bool) -> tuple[Fact, str]:
    result = GateResult(
        passed=passed,
        reason="r",
        loss="mae",
        n=5,
        champion_loss=None,
        candidate_loss=1.0,
        gain=None,
        low=None,
        high=None,
        confidence=0.8,
    )
    return Gated(model=DE, at=AT, order_key=key, version=version, result=result), key


def story() -> list[tuple[Fact, str | None, str | None]]:
    """Facts, the keys they are kept under, and the decision or order each belongs to."""
    measured = Measured(model=DE, at=AT, window=WINDOW, rows=1, labels=1, readings=())
    failed = Failed(model=DE, at=AT, order_key=OPENS, error="no")
    traced: list[tuple[tuple[Fact, str | None], str | None]] = [
        ((Ordered(model=DE, at=AT, order=order(FIRST)), FIRST), FIRST),
        (trained(FIRST, 1), FIRST),
        (gated(FIRST, 1, passed=True), FIRST),
        (moved(1, 1, None, "first"), FIRST),
        ((Passed(at=AT, looked=1, seconds=0.1), None), None),
        ((measured, OPENS), OPENS),
        (decided(OPENS, incident=OPENS), OPENS),
        (paged(f"{OPENS}/opened", Stage.OPENED), OPENS),
        ((failed, OPENS), OPENS),
        (paged(f"{OPENS}/failed/{OPENS}", Stage.FAILED), OPENS),
        ((measured, LATER), LATER),
        (decided(LATER, incident=OPENS), LATER),
        (paged(f"{OPENS}/blocked/{LATER}", Stage.BLOCKED), LATER),
        ((Ordered(model=DE, at=AT, order=order(LATER)), LATER), LATER),
        (paged(f"{OPENS}/retraining/{LATER}", Stage.RETRAINING), LATER),
        (trained(LATER, 2), LATER),
        (gated(LATER, 2, passed=True), LATER),
        (moved(2, 2, 1, "better"), LATER),
        (paged(f"{OPENS}/promoted/{LATER}", Stage.PROMOTED), LATER),
        (moved(3, 1, 2, "rolled back by me"), None),
        (paged(f"{OPENS}/recovered", Stage.RECOVERED), OPENS),
    ]
    return [(fact, key, trace) for (fact, key), trace in traced]


def belonging(key: str) -> tuple[Fact, ...]:
    return tuple(fact for fact, _, trace in story() if trace == key)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
def old(file: Path) -> Path:
    """A ledger of version 1 with the whole story in it, in WAL mode as it left it."""
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA journal_mode = wal")
        connection.executescript(VERSION_1)
        connection.executemany(
            "INSERT INTO facts (kind, model, at, written, key, body) VALUES (?, ?, ?, 5.0, ?, ?)",
            [
                (
                    type(fact).__name__,
                    fact.model,
                    fact.at.isoformat(timespec="microseconds"),
                    key,
                    msgspec.json.encode(fact).decode(),
                )
                for fact, key, _ in story()
            ],
        )
        connection.commit()
    return file


@pytest.fixture
def ledger(old: Path) -> Iterator[SqlLedger]:
    made = SqlLedger(f"sqlite:///{old}")
    yield made
    made.close()


def versions(file: Path) -> list[int]:
    with closing(sqlite3.connect(file)) as connection:
        return [row[0] for row in connection.execute("SELECT version FROM ledger_meta")]


def test_an_old_ledger_is_brought_up_with_all_its_facts(ledger: SqlLedger, old: Path) -> None:
    """Every fact, key and intent of version 1 reads as it was, and goes on being written to."""
    assert versions(old) == [SCHEMA_VERSION]
    kinds = {type(fact) for fact, _, _ in story()}
    for kind in kinds:
        assert ledger.facts(kind) == tuple(fact for fact, *_ in story() if type(fact) is kind)
    assert ledger.written(Decided) == 5.0
    assert ledger.claim("act", lease=timedelta(0)).outcome == "told"
    assert ledger.head(DE) == Head(model=DE, epoch=3, version=1, digest="d", artifact="a")
    assert not ledger.append(story()[5][0], key=OPENS)
    assert ledger.append(story()[5][0], key="new")
    assert ledger.trace("new") == (story()[5][0],)


@pytest.mark.parametrize("key", [FIRST, OPENS, LATER])
def test_facts_brought_up_are_found_by_their_decision(ledger: SqlLedger, key: str) -> None:
    """A decision's or order's facts come together, oldest first; a rollback is nobody's."""
    assert ledger.trace(key) == belonging(key)
    assert ledger.trace("nobody") == ()


@pytest.mark.parametrize("key", [FIRST, OPENS, LATER])
def test_facts_appended_are_found_as_those_brought_up_are(file: Path, key: str) -> None:
    """What is appended now is traced as a migration traces what was before."""
    ledger = SqlLedger(f"sqlite:///{file}")
    for fact, kept_under, _ in story():
        assert ledger.append(fact, key=kept_under)
    assert ledger.trace(key) == belonging(key)
    ledger.close()


def test_the_old_ledger_is_kept_beside(ledger: SqlLedger, old: Path) -> None:
    """`ledger.db.v1` is version 1 still, whole; a new ledger leaves no such copy."""
    copy = old.with_name("ledger.db.v1")
    assert versions(copy) == [1]
    with closing(sqlite3.connect(copy)) as connection:
        columns = [row[1] for row in connection.execute("PRAGMA table_info(facts)")]
        count = connection.execute("SELECT count(*) FROM facts").fetchone()[0]
    assert "trace" not in columns
    assert count == len(story())
    new = old.with_name("new.db")
    SqlLedger(f"sqlite:///{new}").close()
    assert sorted(path.name for path in old.parent.glob("new*")) == ["new.db"]


def test_a_step_that_fails_changes_nothing(old: Path) -> None:
    """With a damaged fact in it the ledger stays at version 1, and the fault is told."""
    with closing(sqlite3.connect(old)) as connection:
        connection.execute("UPDATE facts SET body = '{' WHERE kind = 'Gated'")
        connection.commit()
    with pytest.raises(LedgerError, match="cannot be brought up, and was left"):
        SqlLedger(f"sqlite:///{old}")
    assert versions(old) == [1]
    with closing(sqlite3.connect(old)) as connection:
        columns = [row[1] for row in connection.execute("PRAGMA table_info(facts)")]
    assert "trace" not in columns


def _open(url: str, barrier: "multiprocessing.synchronize.Barrier") -> None:
    barrier.wait(60)
    ledger = SqlLedger(url)
    assert ledger.trace(LATER) == belonging(LATER)
    ledger.close()


@pytest.mark.parametrize("start", ["old", "file"])
def test_processes_that_start_at_once_bring_it_up_once(
    start: str, request: pytest.FixtureRequest
) -> None:
    """Four processes open an old ledger, or none, in the same moment: none fails, one migrates."""
    file = request.getfixturevalue(start)
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(4)
    target = _open if start == "old" else _open_empty
    openers = [
        context.Process(target=target, args=(f"sqlite:///{file}", barrier)) for _ in range(4)
    ]
    for opener in openers:
        opener.start()
    for opener in openers:
        opener.join(60)
    assert [opener.exitcode for opener in openers] == [0] * 4
    assert versions(file) == [SCHEMA_VERSION]


def _open_empty(url: str, barrier: "multiprocessing.synchronize.Barrier") -> None:
    barrier.wait(60)
    ledger = SqlLedger(url)
    assert ledger.facts(Decided) == ()
    ledger.close()


def test_a_ledger_brought_up_has_the_indexes_of_a_new_one(ledger: SqlLedger, old: Path) -> None:
    """Whatever step made them: one that lacks `live_intents` reads all that was ever finished."""
    assert ledger.live("act") == ()
    new = old.with_name("new.db")
    SqlLedger(f"sqlite:///{new}").close()
    found = []
    for file in (old, new):
        with closing(sqlite3.connect(file)) as connection:
            rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'index'")
            found.append({name for (name,) in rows})
    assert found[0] == found[1] >= {"live_intents", "one_epoch"}
