import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftloop.errors import BadRequest, LedgerError, LogError, TooNew
from driftloop.prediction_log import Expired, Expiry, Ingester, Lake, SegmentSpool, tables, upkeep
from driftloop.records import Label, ModelId, Window
from driftloop.spec import Family, Fleet

Make = Callable[..., Any]
DAY = timedelta(days=1)
FIRST = datetime(2026, 1, 1, 12, tzinfo=UTC)
AT_ONCE = timedelta(0)


@pytest.fixture
def fill(
    spool: SegmentSpool, ingester: Ingester, clock: Any, prediction: Make, label: Make
) -> Callable[..., None]:
    """Log `count` labelled rows of eta-de for each of `days` since the first of January."""

    def fill(days: range, count: int = 10) -> None:
        for day in days:
            at = FIRST + day * DAY
            clock.shown = at + timedelta(hours=1)
            spool.predictions(
                "eta",
                [
                    prediction(
                        f"{day}-{n}",
                        event_time=at,
                        predicted_at=at,
                        prediction=n * 0.37,
                        features={"distance": n / 7, "load": 1 / (n + 1), "vehicle": "van"},
                    )
                    for n in range(count)
                ],
            )
            spool.labels("eta", [label(f"{day}-{n}", float(n)) for n in range(count)])
            spool.seal()
            ingester.ingest()
            spool.labels("eta", [label(f"{day}-0", 100.0)])
            spool.seal()
            ingester.ingest()

    return fill


def span(start: int, end: int, **given: Any) -> Window:
    """The window of eta-de from noon of one day of January to noon of another."""
    usual = {"model": ModelId("eta-de"), "known_at": FIRST + 90 * DAY}
    return Window(**(usual | given), start=FIRST + start * DAY, end=FIRST + end * DAY)


def days(lake: Lake) -> list[int]:
    """The days that the log has predictions of."""
    found = lake.query("SELECT DISTINCT split_part(id, '-', 1)::INT d FROM lake.eta_predictions")
    return sorted(found["d"].to_pylist())


def bytes_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*.parquet"))


def test_old_rows_and_their_labels_go_and_files_with_them(
    tmp_path: Path, lake: Lake, fill: Make, eta: Family
) -> None:
    """What is old leaves the lake, and once replaced for long enough the disk too."""
    fill(range(10), 2000)
    lake.maintain(pending=frozenset(), replaced=AT_ONCE)
    data = tmp_path / "lake" / "data"
    before = bytes_of(data)
    younger = lake.rows(eta, span(8, 20))
    expiry = Expiry(family=eta, before=FIRST + 8 * DAY)
    told = lake.expiring([expiry])
    gone = lake.maintain(pending=frozenset(), expiries=[expiry])
    assert told == gone == Expired(rows=16_000, labels=16_008, pinned=0)
    assert days(lake) == [8, 9]
    assert lake.query("SELECT id FROM lake.eta_labels").num_rows == 4002
    # Replaced a moment ago, the files are there still for whoever reads them.
    assert bytes_of(data) >= before
    assert lake.maintain(pending=frozenset(), expiries=[expiry], replaced=AT_ONCE).rows == 0
    assert bytes_of(data) < before / 2
    assert lake.rows(eta, span(8, 20)) == younger


def test_what_is_pinned_stays_to_the_row(lake: Lake, fill: Make, eta: Family) -> None:
    """The rows, duplicates and labels of a pinned window read as before; its neighbours go."""
    fill(range(10))
    pins = (span(2, 3), span(5, 7, known_at=FIRST + 5 * DAY), span(6, 8, version=3))
    read = [lake.rows(eta, span(*one)) for one in ((2, 3), (5, 8), (9, 20))]
    counted = [lake.summary(eta, span(*one)) for one in ((2, 3), (5, 8), (9, 20))]
    expiry = Expiry(family=eta, before=FIRST + 9 * DAY, pins=pins)
    gone = lake.maintain(pending=frozenset(), expiries=[expiry], replaced=AT_ONCE)
    assert gone == Expired(rows=50, labels=55, pinned=40)
    assert days(lake) == [2, 5, 6, 7, 9]
    assert [lake.rows(eta, span(*one)) for one in ((2, 3), (5, 8), (9, 20))] == read
    assert [lake.summary(eta, span(*one)) for one in ((2, 3), (5, 8), (9, 20))] == counted
    assert read[0]["label"].to_pylist().count(100.0) == 1


def test_a_pin_of_one_model_holds_no_other(
    lake: Lake, fill: Make, eta: Family, spool: SegmentSpool, ingester: Ingester, prediction: Make
) -> None:
    """eta-fr's rows of the same days go."""
    fill(range(3))
    rows = [prediction(f"fr{n}", model="eta-fr", event_time=FIRST + n * DAY) for n in range(3)]
    spool.predictions("eta", rows)
    spool.seal()
    ingester.ingest()
    expiry = Expiry(family=eta, before=FIRST + 50 * DAY, pins=(span(0, 3),))
    assert lake.maintain(pending=frozenset(), expiries=[expiry]).rows == 3
    assert lake.models(eta) == {"eta-de": 30}


def test_what_was_handed_in_lately_is_not_old(
    lake: Lake,
    fill: Make,
    eta: Family,
    clock: Any,
    ingester: Ingester,
    spool: SegmentSpool,
    prediction: Make,
) -> None:
    """History of long ago that arrived yesterday stays as if it were of yesterday."""
    fill(range(3))
    spool.predictions("eta", [prediction("history", event_time=FIRST - 900 * DAY)])
    spool.seal()
    ingester.ingest()
    expiry = Expiry(family=eta, before=FIRST + 2 * DAY)
    lake.maintain(pending=frozenset(), expiries=[expiry])
    assert lake.query("SELECT id FROM lake.eta_predictions WHERE id = 'history'").num_rows == 1


def test_snapshots_out_of_use_go_and_young_ones_stay(lake: Lake, fill: Make) -> None:
    """A day after it is replaced a snapshot can be read no more; before that it can."""
    fill(range(3))
    first = lake.snapshot()
    fill(range(3, 6))

    def rows(at: int) -> int:
        asked = f"SELECT id FROM lake.eta_predictions AT (VERSION => {at})"
        return lake.query(asked).num_rows

    lake.maintain(pending=frozenset())
    assert rows(first) == 30
    lake.close()
    with closing(sqlite3.connect(lake._store.folder / "catalog.sqlite")) as catalog:
        catalog.execute(
            "UPDATE ducklake_snapshot SET snapshot_time = '2020-01-01 00:00:00+00'"
            " WHERE snapshot_id <= ?",
            [first],
        )
        catalog.commit()
    lake.maintain(pending=frozenset())
    with pytest.raises(BadRequest, match="No snapshot found"):
        rows(first)
    assert rows(lake.snapshot()) == 60


def test_the_ingester_lets_go_what_it_is_told_is_old(
    tmp_path: Path, lake: Lake, clock: Any, eta: Family, fill: Make, ingester: Ingester
) -> None:
    """At each maintenance what is old now is asked for anew; an error there drops nothing."""
    fill(range(4))
    ingester.close()

    def unknown(now: datetime) -> list[Expiry]:
        raise LedgerError("the ledger cannot be read")

    with Ingester(tmp_path / "spool", lake, clock, expiries=unknown) as blind:
        with pytest.raises(LedgerError):
            blind.maintain()
        assert days(lake) == [0, 1, 2, 3]
    asked = []

    def old(now: datetime) -> list[Expiry]:
        asked.append(now)
        return [Expiry(family=eta, before=now - timedelta(hours=47))]

    with Ingester(tmp_path / "spool", lake, clock, expiries=old) as told:
        told.maintain()
        assert days(lake) == [2, 3]
        clock.shown += DAY
        told.maintain()
        assert days(lake) == [3]
    assert asked[1] - asked[0] == DAY


def test_rows_do_not_age_by_a_clock_that_was_set_ahead(
    tmp_path: Path, lake: Lake, clock: Any, eta: Family, fill: Make, ingester: Ingester
) -> None:
    """Neither while nothing arrives nor once rows do; what is old by the days at work goes."""
    fill(range(4))
    ingester.close()
    kept = timedelta(days=2, hours=12)

    def old(now: datetime) -> list[Expiry]:
        return [Expiry(family=eta, before=now - kept)]

    def arrive(day: int) -> None:
        clock.shown = FIRST + day * DAY
        with SegmentSpool(tmp_path / "spool" / f"late-{day}") as late:
            late.labels(
                "eta", [Label(id="x", model=ModelId("eta-de"), value=1.0, observed_at=FIRST)]
            )
        told.ingest()
        told.maintain()

    with Ingester(tmp_path / "spool", lake, clock, expiries=old) as told:
        clock.shown = FIRST + 800 * DAY
        told.maintain()
        assert days(lake) == [0, 1, 2, 3]
        arrive(800)
        # The last row before the silence came an hour after noon of day 3.
        assert days(lake) == [1, 2, 3]
        arrive(801)
        assert days(lake) == [2, 3]


@given(
    st.lists(
        st.tuples(st.sampled_from(["a", "b"]), st.integers(0, 20), st.integers(1, 6)), max_size=12
    )
)
def test_spans_cover_what_pins_cover_and_no_more(pins: list[tuple[str, int, int]]) -> None:
    """Joined spans hold exactly the moments that a pin holds, and do not touch."""
    windows = [span(start, start + length, model=ModelId(m)) for m, start, length in pins]
    joined = upkeep.spans(windows)
    for model in ("a", "b"):
        for half in range(60):
            at = FIRST + half * DAY / 2
            held = any(w.model == model and w.start <= at < w.end for w in windows)
            assert held == any(m == model and s <= at < e for m, s, e in joined)
    for (one, _, end), (other, start, _) in pairwise(joined):
        assert one != other or end < start


def test_an_older_lake_is_brought_up_and_a_newer_one_refused(
    lake: Lake, fill: Make, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step runs once, in a transaction with the number; the catalog before is kept."""
    fill(range(2))
    assert lake.layout() == tables.SCHEMA
    steps = (*tables.STEPS, lambda con: con.execute("CREATE TABLE lake.notes (text VARCHAR)"))
    with monkeypatch.context() as newer:
        newer.setattr(tables, "STEPS", steps)
        newer.setattr(tables, "SCHEMA", tables.SCHEMA + 1)
        lake.migrate()
        lake.migrate()
        assert lake.layout() == tables.SCHEMA
        assert lake.query("SELECT * FROM lake.notes").num_rows == 0
        assert days(lake) == [0, 1]
    kept = lake._store.folder / f"catalog.sqlite.v{tables.SCHEMA}"
    with closing(sqlite3.connect(kept)) as catalog:
        names = catalog.execute("SELECT table_name FROM ducklake_table").fetchall()
    assert ("notes",) not in names
    assert ("layout",) in names
    with pytest.raises(TooNew, match=f"layout {tables.SCHEMA + 1}"):
        lake.migrate()
    with pytest.raises(TooNew):
        lake.layout()


def test_a_step_that_fails_leaves_the_lake(
    lake: Lake, fill: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of a step is none of it."""
    fill(range(1))

    def fails(con: Any) -> None:
        con.execute("CREATE TABLE lake.notes (text VARCHAR)")
        con.execute("SELECT no_such_thing")

    with monkeypatch.context() as newer:
        newer.setattr(tables, "STEPS", (*tables.STEPS, fails))
        newer.setattr(tables, "SCHEMA", tables.SCHEMA + 1)
        with pytest.raises(LogError, match="no_such_thing"):
            lake.migrate()
    assert lake.layout() == tables.SCHEMA
    assert days(lake) == [0]
