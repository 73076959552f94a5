from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from driftloop.errors import BadRequest, LogError
from driftloop.records import ModelId
from driftloop.serve.batch import predict_batch
from driftloop.serve.slot import NoChampion, Slots
from driftloop.spec import Family, Feature, Fleet

MODEL = ModelId("eta-de")
START = datetime(2026, 3, 1, tzinfo=UTC)


def trips(size: int) -> pa.Table:
    """Return a table of `size` good rows, its columns in no special order."""
    times = [START + timedelta(minutes=n) for n in range(size)]
    return pa.table(
        {
            "vehicle": pa.array([("van", "bike", None)[n % 3] for n in range(size)]),
            "asked_at": pa.array(times, pa.timestamp("us", tz="UTC")),
            "distance": pa.array([n * 7 % 5000 for n in range(size)], pa.int64()),
            "load": pa.array([None if n % 5 == 0 else n / size for n in range(size)], pa.float64()),
            "id": pa.array([f"trip-{n}" for n in range(size)]),
        }
    )


def two_rows(**change: pa.Array) -> pa.Table:
    """Return two good rows with some columns changed."""
    columns = {name: trips(2)[name] for name in trips(2).column_names}
    return pa.table({**columns, **change})


@pytest.fixture
def score(fleet: Fleet, eta: Family, made: Any, clock: Any, serving: Any) -> Any:
    """Score a table with the model "sloped" as eta-de."""
    service = serving(made["sloped"].head(MODEL, epoch=5, version=4))

    def run(table: pa.Table, **options: int) -> pa.Table:
        slot = service.slots.slot(MODEL)
        return predict_batch(
            table, family=eta, model=MODEL, slot=slot, spool=service.spool, clock=clock, **options
        )

    run.service = service
    return run


def test_batch_answers_as_online_does(score: Any) -> None:
    """The same rows get the same predictions from a table and over HTTP, and the same log rows."""
    table = trips(200)
    scored = score(table, chunk=64)
    logged = list(score.service.spool.kept)
    score.service.spool.kept.clear()
    rows = [{**row, "asked_at": row["asked_at"].isoformat()} for row in table.to_pylist()]
    reply = score.service.http.post(f"/v1/models/{MODEL}/predict", json={"rows": rows}).json()
    assert scored["id"].to_pylist() == [each["id"] for each in reply["predictions"]]
    assert scored["prediction"].to_pylist() == [each["prediction"] for each in reply["predictions"]]
    assert logged == score.service.spool.kept


def test_the_table_that_comes_back_is_in_order(score: Any) -> None:
    """Input order, one version, and the types of the log."""
    scored = score(trips(25), chunk=10)
    assert scored.schema == pa.schema(
        [
            ("id", pa.string()),
            ("event_time", pa.timestamp("us", tz="UTC")),
            ("prediction", pa.float64()),
            ("version", pa.int32()),
            ("epoch", pa.int64()),
        ]
    )
    assert scored["id"].to_pylist() == [f"trip-{n}" for n in range(25)]
    assert scored["event_time"].to_pylist() == trips(25)["asked_at"].to_pylist()
    assert set(scored["version"].to_pylist()) == {4}
    assert set(scored["epoch"].to_pylist()) == {5}


def test_a_swap_in_the_middle_changes_nothing(score: Any, made: Any) -> None:
    """The whole job is answered by the version in hand at its start."""
    write = score.service.spool.predictions

    def swap(family: str, rows: Any) -> None:
        score.service.slots.refresh([made["ten"].head(MODEL, epoch=6)])
        write(family, rows)

    score.service.spool.predictions = swap
    scored = score(trips(30), chunk=10)
    assert set(scored["epoch"].to_pylist()) == {5}
    assert score.service.slots.slot(MODEL).hand().head.epoch == 6


def test_types_that_files_come_in_are_read(score: Any) -> None:
    """Decimals, dictionaries, text times and columns of nulls are read as what they mean."""
    table = pa.table(
        {
            "asked_at": ["2026-03-01T01:00:00+01:00", "2026-03-01T00:01:00Z"],
            "distance": pa.array([Decimal("0.0"), Decimal("7.0")]),
            "load": pa.nulls(2),
            "vehicle": pa.array(["van", "bike"]).dictionary_encode(),
        }
    )
    plain = trips(2).set_column(3, "load", pa.nulls(2, pa.float64())).drop_columns(["id"])
    scored, same = score(table), score(plain)
    assert scored["prediction"].to_pylist() == same["prediction"].to_pylist()
    assert scored["event_time"].to_pylist() == same["event_time"].to_pylist()
    assert scored["id"].to_pylist() == same["id"].to_pylist()
    assert len(set(scored["id"].to_pylist())) == 2


def test_an_empty_table_scores_to_an_empty_table(score: Any) -> None:
    """No rows in, no rows out, nothing logged."""
    assert score(trips(0)).num_rows == 0
    assert score.service.spool.kept == []


def test_the_same_table_gets_the_same_ids(score: Any) -> None:
    """Ids that are made are the same for the same rows, however cut, and unlike for others."""
    table = trips(20).drop_columns(["id"])
    ids = score(table)["id"].to_pylist()
    assert len(set(ids)) == 20
    again = pa.concat_tables([trips(25).drop_columns(["id"]).slice(0, 7), table.slice(7)])
    loads = [None if n % 5 == 0 else n / 20 for n in range(20)]
    again = again.set_column(again.column_names.index("load"), "load", pa.array(loads))
    assert score(again)["id"].to_pylist() == ids
    other = table.set_column(
        table.column_names.index("distance"), "distance", pa.array([1, *range(7, 20 * 7, 7)])
    )
    assert not set(score(other)["id"].to_pylist()) & set(ids)
    assert not set(score(table.slice(1))["id"].to_pylist()) & set(ids)
    halves = pa.array(["own", *[None] * 19], pa.string())
    assert score(table.append_column("id", halves))["id"].to_pylist() == ["own", *ids[1:]]


def test_a_batch_that_broke_off_may_be_scored_again(score: Any) -> None:
    """The error says how many rows are logged; scored again, these have the ids they had."""
    spool, table = score.service.spool, trips(30).drop_columns(["id"])
    write = spool.predictions

    def full(family: str, rows: Any) -> None:
        spool.broken = len(spool.kept) >= 20
        write(family, rows)

    spool.predictions = full
    with pytest.raises(LogError, match="eta-de: 20 of 30 rows were logged, and then no more"):
        score(table, chunk=10)
    logged = [row.id for row in spool.kept]
    spool.kept.clear()
    spool.predictions, spool.broken = write, False
    score(table, chunk=10)
    assert len(logged) == 20
    assert [row.id for row in spool.kept][:20] == logged


UTC_US = pa.timestamp("us", tz="UTC")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"distnace": pa.array([1.0, 2.0])}, r"column distnace: unknown column .*'distance'"),
        ({"distance": pa.array(["1", "2"])}, r"column distance: should be numbers, and is string"),
        ({"distance": pa.array([True, False])}, r"column distance: should be numbers, and is bool"),
        ({"distance": pa.array([1.0, None])}, r"column distance, row 2: is required and null"),
        ({"load": pa.array([0.1, float("nan")])}, r"column load, row 2: is NaN .*null stands for"),
        ({"distance": pa.array([float("nan"), 1])}, r"column distance, row 1: is NaN .*required"),
        ({"load": pa.array([float("inf"), 0.1])}, r"column load, row 1: is infinite"),
        ({"vehicle": pa.array([1, 2])}, r"column vehicle: should be strings, and is int64"),
        ({"asked_at": pa.array([START, None], UTC_US)}, r"column asked_at, row 2: is required"),
        (
            {"asked_at": pa.array([0, 1], pa.timestamp("us"))},
            r"column asked_at: the times have no time zone",
        ),
        (
            {"asked_at": pa.array(["2026-03-01T00:00Z", "soon"])},
            r"column asked_at, row 2: should be an ISO 8601 time",
        ),
        (
            {"asked_at": pa.array([START, START + timedelta(days=366, seconds=1)], UTC_US)},
            r"column asked_at, row 2: is more than 366 days after the service's clock",
        ),
        (
            {"asked_at": pa.array([2**60, 0], UTC_US)},
            r"column asked_at, row 1: is more than 366 days after",
        ),
        (
            {"asked_at": pa.array(["2026-03-01T00:00Z", "1899-12-31T23:59Z"])},
            r"column asked_at, row 2: is before the year 1900",
        ),
        ({"id": pa.array(["a", "a"])}, r"column id, row 2: 'a' stands twice"),
        ({"id": pa.array([1, 2])}, r"column id: should be strings, and is int64"),
    ],
)
def test_a_table_at_fault_is_refused_before_a_row_is_logged(
    score: Any, change: dict[str, Any], said: str
) -> None:
    """The column and, where there is one, the row are named; nothing was logged."""
    with pytest.raises(BadRequest, match=rf"eta-de: {said}"):
        score(two_rows(**change), chunk=1)
    assert score.service.spool.kept == []


def test_a_required_column_must_be_there(score: Any) -> None:
    """A required feature or the time missing as a whole is named; an optional one is null."""
    with pytest.raises(BadRequest, match="column distance: the column is missing"):
        score(trips(2).drop_columns(["distance"]))
    with pytest.raises(BadRequest, match="column asked_at: the column is missing"):
        score(trips(2).drop_columns(["asked_at"]))
    assert score(trips(2).drop_columns(["vehicle", "load"])).num_rows == 2
    assert {row.features["vehicle"] for row in score.service.spool.kept} == {None}


def test_without_a_champion_nothing_is_scored(fleet: Fleet, eta: Family, clock: Any) -> None:
    """A model without a champion says so before anything is read."""
    slot = Slots(fleet).slot(MODEL)
    with pytest.raises(NoChampion):
        predict_batch(trips(1), family=eta, model=MODEL, slot=slot, spool=None, clock=clock)


def test_texts_are_logged_and_no_business_of_the_model(
    eta: Family, made: Any, clock: Any, serving: Any
) -> None:
    """A model that knows nothing of a text answers rows with one; what is too long is refused."""
    family = eta.model_copy(update={"features": {**eta.features, "said": Feature(kind="text")}})
    service = serving(made["sloped"].head(MODEL, epoch=5, version=4))
    slot, spool = service.slots.slot(MODEL), service.spool
    said = pa.array(["", "größe"], pa.string())
    table = trips(2).append_column("said", said)
    scored = predict_batch(table, family=family, model=MODEL, slot=slot, spool=spool, clock=clock)
    assert [row.features["said"] for row in spool.kept] == said.to_pylist()
    assert (
        scored["prediction"]
        == predict_batch(trips(2), family=eta, model=MODEL, slot=slot, spool=spool, clock=clock)[
            "prediction"
        ]
    )
    long = table.set_column(table.num_columns - 1, "said", pa.array(["ok", "x" * 10_001]))
    with pytest.raises(BadRequest, match="column said, row 2: has more than 10,000 characters"):
        predict_batch(long, family=family, model=MODEL, slot=slot, spool=spool, clock=clock)
