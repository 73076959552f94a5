from collections.abc import Sequence
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from driftloop.errors import BadRequest
from driftloop.records import ModelId, Prediction
from driftloop.serve.batch import (
    Checker,
    Content,
    answer_table,
    completed,
    log_table,
    shown_table,
    with_ids,
)
from driftloop.serve.request import Row
from driftloop.serve.slot import Held
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
    """Score a table, cut into pieces, with the model "sloped" as eta-de."""
    service = serving(made["sloped"].head(MODEL, epoch=5, version=4))
    service.logged = []

    def run(table: pa.Table, *, family: Family = eta, chunk: int = 10_000) -> pa.Table:
        held = service.slots.slot(MODEL).hand()
        checker = Checker(family, MODEL, clock.now(), family.features)
        starts = range(0, table.num_rows, chunk) or (0,)
        checked = [checker.check(table.slice(n, chunk), first=n) for n in starts]
        content = Content(MODEL)
        for rows in checked:
            content.add(rows)
        shown = []
        for start, given in zip(starts, checked, strict=True):
            rows = with_ids(given, content.stem(), first=start)
            answers = pa.array(answer_table(held, family, rows))
            shown.append(shown_table(held, family, rows, answers))
            service.logged += records(log_table(held, family, rows, answers, now=clock.now()))
        return pa.concat_tables(shown)

    run.service = service
    return run


def records(log: pa.Table) -> list[Prediction]:
    """Return rows for the log's table as the online service hands them to a spool."""
    own = {f.name for f in fields(Prediction)} & {*log.column_names}
    return [
        Prediction(
            **{n: row[n] for n in own - {"fallbacks"}},
            fallbacks=tuple(row["fallbacks"] or ()),
            features={n: value for n, value in row.items() if n not in own},
        )
        for row in log.to_pylist()
    ]


def test_batch_answers_as_online_does(score: Any) -> None:
    """The same rows get the same predictions from a table and over HTTP, and the same log rows."""
    table = trips(200)
    scored = score(table, chunk=64)
    rows = [{**row, "asked_at": row["asked_at"].isoformat()} for row in table.to_pylist()]
    reply = score.service.http.post(f"/v1/models/{MODEL}/predict", json={"rows": rows}).json()
    assert scored["id"].to_pylist() == [each["id"] for each in reply["predictions"]]
    assert scored["prediction"].to_pylist() == [each["prediction"] for each in reply["predictions"]]
    assert score.service.spool.kept == score.service.logged


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
    """No rows in, no rows out, of the same types."""
    assert score(trips(0)).schema == score(trips(2)).schema
    assert score(trips(0)).num_rows == 0


def test_the_same_table_gets_the_same_ids(score: Any) -> None:
    """Ids that are made are the same for the same rows, however cut, and unlike for others."""
    table = trips(20).drop_columns(["id"])
    ids = score(table)["id"].to_pylist()
    assert len(set(ids)) == 20
    again = pa.concat_tables([trips(25).drop_columns(["id"]).slice(0, 7), table.slice(7)])
    loads = [None if n % 5 == 0 else n / 20 for n in range(20)]
    again = again.set_column(again.column_names.index("load"), "load", pa.array(loads))
    assert score(again, chunk=3)["id"].to_pylist() == ids
    other = table.set_column(
        table.column_names.index("distance"), "distance", pa.array([1, *range(7, 20 * 7, 7)])
    )
    assert not set(score(other)["id"].to_pylist()) & set(ids)
    assert not set(score(table.slice(1))["id"].to_pylist()) & set(ids)
    halves = pa.array(["own", *[None] * 19], pa.string())
    assert score(table.append_column("id", halves))["id"].to_pylist() == ["own", *ids[1:]]


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
        ({"id": pa.array(["a", ""])}, r"column id, row 2: is empty"),
        ({"id": pa.array([1, 2])}, r"column id: should be strings, and is int64"),
    ],
)
def test_a_table_at_fault_is_refused(score: Any, change: dict[str, Any], said: str) -> None:
    """The column and, where there is one, the row of the whole table are named."""
    with pytest.raises(BadRequest, match=rf"eta-de: {said}"):
        score(two_rows(**change), chunk=1)


def test_a_required_column_must_be_there(score: Any) -> None:
    """A required feature or the time missing as a whole is named; an optional one is null."""
    with pytest.raises(BadRequest, match="column distance: the column is missing"):
        score(trips(2).drop_columns(["distance"]))
    with pytest.raises(BadRequest, match="column asked_at: the column is missing"):
        score(trips(2).drop_columns(["asked_at"]))
    assert score(trips(2).drop_columns(["vehicle", "load"])).num_rows == 2
    assert {row.features["vehicle"] for row in score.service.logged} == {None}


def test_texts_are_logged_and_no_business_of_the_model(score: Any, eta: Family) -> None:
    """A model that knows nothing of a text answers rows with one; what is too long is refused."""
    family = eta.model_copy(update={"features": {**eta.features, "said": Feature(kind="text")}})
    said = pa.array(["", "größe"], pa.string())
    table = trips(2).append_column("said", said)
    scored = score(table, family=family)
    assert [row.features["said"] for row in score.service.logged] == said.to_pylist()
    assert scored["prediction"] == score(trips(2))["prediction"]
    long = table.set_column(table.num_columns - 1, "said", pa.array(["ok", "x" * 10_001]))
    with pytest.raises(BadRequest, match="column said, row 2: has more than 10,000 characters"):
        score(long, family=family)


def test_a_category_that_is_too_long_is_refused(score: Any) -> None:
    """As over HTTP, with its row."""
    table = trips(2)
    place = table.column_names.index("vehicle")
    with pytest.raises(BadRequest, match="column vehicle, row 2: has more than 500 characters"):
        score(table.set_column(place, "vehicle", pa.array(["van", "x" * 501])))
    assert score.service.logged == []


def test_a_model_that_takes_no_columns_answers_rows_alike(score: Any, eta: Family) -> None:
    """What has `predict` alone, as a model behind a process of its own, gives the same answers."""
    held = score.service.slots.slot(MODEL).hand()

    class Rows:
        digest = held.model.digest
        predict = held.model.predict

    rows = Checker(eta, MODEL, START, eta.features).check(trips(50))
    plain = answer_table(Held(held.head, Rows()), eta, rows)
    assert plain.tolist() == answer_table(held, eta, rows).tolist()


def test_what_is_looked_up_is_filled_in_as_for_a_request(eta: Family) -> None:
    """Row by row, by the same step; its fallbacks and its stream position are logged."""
    load = eta.features["load"].model_copy(update={"source": "table"})
    family = eta.model_copy(update={"features": {**eta.features, "load": load}})
    sent = trips(3).drop_columns(["load"])
    rows = Checker(family, MODEL, START, family.requested).check(sent)

    def complete(_: Family, asked: Sequence[Row]) -> list[Row]:
        assert [row.features["load"] for row in asked] == [None] * 3
        return [
            replace(row, features={**row.features, "load": 0.5}, fallbacks=("load",), position=7)
            for row in asked
        ]

    found = completed(rows, family, complete, model=MODEL)
    assert found["load"].to_pylist() == [0.5] * 3
    assert found["distance"].to_pylist() == [0.0, 7.0, 14.0]
    assert found["fallbacks"].to_pylist() == [["load"]] * 3
    assert found["position"].to_pylist() == [7] * 3
    with pytest.raises(BadRequest, match="column load: is looked up or computed"):
        Checker(family, MODEL, START, family.requested).check(trips(3))


def test_a_row_that_lacks_what_refuses_rows_without_is_named(eta: Family) -> None:
    """By the column of its key, and its place in the source; nothing is answered."""
    load = {"source": "trucks", "key": "vehicle", "of": "load", "fallback": "refuse"}
    feature = eta.features["load"].model_copy(update=load)
    family = eta.model_copy(update={"features": {**eta.features, "load": feature}})
    rows = Checker(family, MODEL, START, family.requested).check(trips(3).drop_columns(["load"]))

    def complete(_: Family, asked: Sequence[Row]) -> list[Row]:
        return [replace(row, lacking=("load",)[: row.features["distance"] == 7.0]) for row in asked]

    with pytest.raises(BadRequest, match="eta-de: column vehicle, row 12: load has no value for"):
        completed(rows, family, complete, model=MODEL, first=10)


def test_an_id_is_no_longer_than_that_of_a_request(eta: Family) -> None:
    """Two hundred characters pass; with one more the row is named."""
    checker = Checker(eta, MODEL, START, eta.features)
    rows = trips(2).drop_columns(["id"])
    fits = rows.append_column("id", pa.array(["a", "ü" * 200]))
    assert checker.check(fits)["id"][1].as_py() == "ü" * 200
    beyond = rows.append_column("id", pa.array(["a", "ü" * 201]))
    with pytest.raises(BadRequest, match="column id, row 2: has more than 200 characters"):
        checker.check(beyond)
