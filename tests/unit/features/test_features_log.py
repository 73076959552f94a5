"""Features and the log: history is made whole, and what was served is held against it."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from driftloop.errors import BadRequest, LogError
from driftloop.features.completion import Completion
from driftloop.features.operator import State, layouts, windowed
from driftloop.loop.consistency import Consistency
from driftloop.prediction_log import history_rows, past_events, past_mark, without_made
from driftloop.records import Compared, Event, ModelId, Prediction
from driftloop.settings import Settings
from driftloop.spec import Family, Fleet
from driftloop.vitals import CONSISTENT
from driftloop.wiring import System

NOON = datetime(2026, 2, 28, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
MODEL = ModelId("eta-de")
SENT = {"origin": "a", "tailnum": None, "age": 1.5, "distance": 3.0, "load": 0.5, "vehicle": "van"}


@pytest.fixture
def system(tmp_path: Path, looking: Fleet) -> Iterator[System]:
    """An installation without services, of the fleet that looks features up."""
    monitors = Path(shutil.copytree(looking.folder, tmp_path / "monitors"))
    made = System(Settings(home=tmp_path / "home", monitors=monitors))
    yield made
    made.ledger.close()


def events(count: int) -> list[Event]:
    """One departure a minute, from position 1 on."""
    return [
        Event(
            id=f"e{n}",
            source="departures",
            position=n,
            event_time=NOON + n * MINUTE,
            received_at=NOON + n * MINUTE,
            fields={"origin": "a", "delay": float(n), "carrier": f"c{n % 3}"},
        )
        for n in range(1, count + 1)
    ]


def served(family: Family, fleet: Fleet, stream: Sequence[Event]) -> list[Prediction]:
    """A row after every event, as the serving process makes it."""
    place = ("departures", "origin")
    state, completion = State(layouts(fleet)[place]), Completion(family)
    rows = []
    for event in stream:
        at = round(event.event_time.timestamp() * 1e6)
        state.add(at, event.position, event.fields)
        found = state.values(at + 1_000_000, windowed(family)[place]) | {"age": SENT["age"]}
        whole = completion.of(dict.fromkeys(family.features) | SENT, found)
        rows.append(
            Prediction(
                id=f"r{event.position}",
                model=MODEL,
                version=1,
                epoch=1,
                event_time=event.event_time + timedelta(seconds=1),
                predicted_at=event.event_time + timedelta(seconds=1),
                prediction=1.0,
                features=whole.features,
                fallbacks=whole.fallbacks,
                position=event.position,
            )
        )
    return rows


def logged(system: System, stream: Sequence[Event], rows: Sequence[Prediction] = ()) -> None:
    """Bring events and rows into the log as services do."""
    with system.spool("test") as spool:
        if stream:
            spool.events("departures", stream)
        if rows:
            spool.predictions("eta", rows)
    with system.ingester() as ingester:
        ingester.ingest()


def consistency(system: System) -> Consistency:
    return Consistency(fleet=system.fleet, log=system.log, ledger=system.ledger, clock=system.clock)


def test_what_was_served_is_what_the_log_makes(system: System, eta: Family) -> None:
    """Replay and SQL give what was served; what has been compared is not compared again."""
    stream = events(90)
    logged(system, stream, served(eta, system.fleet, stream))
    (found,) = consistency(system).check(until=NOON + 60 * MINUTE)
    assert (found.value, found.n, found.column, found.problem) == (0.0, 59, "eta", None)
    (rest,) = consistency(system).check(until=NOON + 100 * MINUTE)
    assert (rest.value, rest.n) == (0.0, 31)
    (none,) = consistency(system).check(until=NOON + 100 * MINUTE)
    assert none.value is None
    assert len(system.ledger.facts(Compared)) == 3


def test_what_could_not_be_compared_is_the_next_time(system: System, eta: Family) -> None:
    """As where there was no log yet: the reading says why, and no row is passed over for it."""
    (none,) = consistency(system).check(until=NOON + 100 * MINUTE)
    assert none.value is None
    assert "no prediction log here yet" in str(none.problem)
    stream = events(5)
    logged(system, stream, served(eta, system.fleet, stream))
    (found,) = consistency(system).check(until=NOON + 100 * MINUTE)
    assert (found.value, found.n) == (0.0, 5)


@pytest.mark.parametrize(
    ("name", "value", "size"),
    [("delay_mean_30m", 41.0, 4.5 / 41.0), ("carrier_last", "c9", 1.0), ("share", None, 1.0)],
)
def test_a_row_that_was_served_otherwise_is_named(
    system: System, eta: Family, name: str, value: float | str | None, size: float
) -> None:
    """With its feature, what was served and what it should have been."""
    stream = events(60)
    rows = served(eta, system.fleet, stream)
    odd = replace(rows[50], features={**rows[50].features, name: value})
    logged(system, stream, [*rows[:50], odd, *rows[51:]])
    (found,) = consistency(system).check(until=NOON + 100 * MINUTE)
    assert found.value == pytest.approx(size)
    assert str(found.problem).startswith(f"{name} of row r51 was served as {value!r}, and is ")


def test_what_fell_back_is_passed_over(system: System, eta: Family) -> None:
    """The row itself says that its value is no feature's, as while states are made anew."""
    stream = events(40)
    rows = served(eta, system.fleet, stream)
    place = ("departures", "origin")
    names = tuple(each.name for each in windowed(eta)[place])
    features = Completion(eta).of(dict.fromkeys(eta.features) | SENT, {"age": 1.5}).features
    logged(system, stream, [*rows[:20], replace(rows[20], features=features, fallbacks=names)])
    (found,) = consistency(system).check(until=NOON + 100 * MINUTE)
    assert (found.value, found.n) == (0.0, 21)


def test_an_event_that_was_counted_twice_shows(system: System, eta: Family) -> None:
    """Here: the state that served had one event more than the log has."""
    stream = events(30)
    rows = served(eta, system.fleet, stream)
    logged(system, stream[:20] + stream[21:], rows)
    (found,) = consistency(system).check(until=NOON + 100 * MINUTE)
    assert found.value is not None
    assert found.value > 0.001


def history(count: int) -> pa.Table:
    """What happened before driftloop: a departure every five minutes, out of order in the file."""
    order = [(7 * n) % count for n in range(count)]
    return pa.table(
        {
            "departed_at": pa.array(
                [NOON - n * 5 * MINUTE for n in order], pa.timestamp("us", "UTC")
            ),
            "origin": ["a"] * count,
            "delay": [float(n) for n in order],
            "carrier": ["x"] * count,
            "gate": ["B7"] * count,
        }
    )


def test_history_is_made_whole_of_past_events(system: System, eta: Family) -> None:
    """Rows get the features that they would have been served with, each event counted once."""
    source = system.fleet.sources["departures"]
    past = past_events(source, history(30), now=NOON)
    assert past == past_events(source, history(30), now=NOON)
    assert all(event.position < 0 for event in past)
    assert [e.event_time for e in past] == sorted(e.event_time for e in past)
    logged(system, past)
    logged(system, past)
    rows = pa.table(
        {
            "id": ["h1", "h2"],
            "model": [MODEL, MODEL],
            "asked_at": pa.array([NOON, NOON - 400 * MINUTE], pa.timestamp("us", "UTC")),
            **{name: [value] * 2 for name, value in SENT.items()},
            "label": [5.0, None],
            "observed_at": pa.array([NOON, None], pa.timestamp("us", "UTC")),
        }
    )
    table, made = without_made(eta, rows)
    predictions, _ = history_rows(eta, table, now=NOON)
    first, second = system.with_features(eta, predictions)["features"].to_pylist()
    assert "delay_mean_30m" in made
    assert "age" not in made
    assert (first["delay_count_60m"], first["delay_mean_30m"]) == (12.0, 2.5)
    assert (first["share"], first["carrier_last"]) == (15.0 / 12.0, "x")
    assert (second["delay_count_60m"], second["delay_mean_30m"]) == (0.0, None)
    assert (second["share"], second["carrier_last"]) == (None, "none")


def test_past_events_of_another_file_are_kept_beside_those_of_the_same_time(
    system: System,
) -> None:
    """An event is known by what it says: the same again changes nothing, others are added."""
    source = system.fleet.sources["departures"]

    def departures(*delays: float) -> pa.Table:
        one = history(1)
        place = one.column_names.index("delay")
        return pa.concat_tables([one.set_column(place, "delay", [[each]]) for each in delays])

    def held() -> list[float]:
        with system.ingester() as ingester:
            ingester.ingest()
        return system.log.events(source)["delay"].to_pylist()

    assert system.take_past(source, departures(1.0, 2.0)) == 2
    # Those wait in the spool, and are known all the same.
    assert system.take_past(source, departures(3.0, 2.0, 3.0)) == 2
    assert held() == [1.0, 2.0, 3.0, 3.0]
    assert system.take_past(source, departures(2.0, 3.0, 4.0, 1.0, 3.0)) == 1
    assert held() == [1.0, 2.0, 3.0, 3.0, 4.0]
    assert system.take_past(source, departures(4.0, 3.0, 3.0, 2.0, 1.0)) == 0


def test_rows_that_were_served_without_past_events_are_not_blamed(
    system: System, eta: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compared are those that were served once the states had them, and nothing before it."""
    stream, source = events(40), system.fleet.sources["departures"]
    logged(system, stream, served(eta, system.fleet, stream))
    assert system.take_past(source, history(30)) == 30
    (found,) = system.consistency.check(until=NOON + 100 * MINUTE)
    assert found.value is None
    assert "not made of all past events yet" in str(found.problem)
    monkeypatch.setattr("driftloop.serve.process.run_stream", lambda *_, **__: None)
    system.run_stream(ready=lambda: None, alive=lambda: None)
    (found,) = system.consistency.check(until=NOON + 41 * MINUTE)
    assert found.value is None
    assert "40 rows were served before past events were in the states" in str(found.problem)
    more = events(60)[41:]
    past = past_events(source, history(30), now=NOON)
    rows = served(eta, system.fleet, [*past, *stream, *more])[-len(more) :]
    logged(system, more, rows)
    (found,) = system.consistency.check(until=NOON + 100 * MINUTE)
    assert found.value is not None
    assert found.value < CONSISTENT
    assert found.n == 19


def test_a_backfill_of_events_that_was_broken_off_is_seen(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until it is done again the states wait for it; then it is whole, and told."""
    source, spool = system.fleet.sources["departures"], system.settings.spool
    assert past_mark(spool, source) is None
    with monkeypatch.context() as patch:
        patch.setattr("driftloop.prediction_log.SegmentSpool.seal", broken)
        with pytest.raises(LogError):
            system.take_past(source, history(30))
    assert past_mark(spool, source) == ""
    system.take_past(source, history(30))
    assert (whole := past_mark(spool, source))
    assert system.take_past(source, history(30)) == 0
    assert past_mark(spool, source) == whole
    logged(system, ())
    assert len(system.log.events(source)) == 30


def broken(_: object) -> None:
    raise LogError("no space left on device")


def test_some_features_of_events_are_not_enough(eta: Family) -> None:
    """All as they were served, or none: a mixture would be of two makings."""
    with pytest.raises(BadRequest, match="it has some of the features"):
        without_made(eta, pa.table({"delay_mean_30m": [1.0]}))


@pytest.mark.parametrize(
    ("column", "values", "said"),
    [
        (
            "departed_at",
            pa.array([None], pa.timestamp("us", "UTC")),
            "row 1, column departed_at: is missing",
        ),
        ("departed_at", pa.array(["soon"]), "departed_at"),
        ("delay", pa.array(["much"]), "delay"),
        ("origin", None, "it has no column origin"),
    ],
)
def test_past_events_that_cannot_be_used_are_refused(
    looking: Fleet, column: str, values: pa.Array | None, said: str
) -> None:
    """The message names column and row."""
    table = history(1)
    place = table.column_names.index(column)
    spoilt = table.remove_column(place)
    if values is not None:
        spoilt = spoilt.append_column(column, values)
    with pytest.raises(BadRequest) as caught:
        past_events(looking.sources["departures"], spoilt, now=NOON)
    assert said in str(caught.value)


def test_more_events_of_one_time_than_have_places_are_refused(looking: Fleet) -> None:
    """Rather than lost: places are made of times."""
    one = history(1)
    table = pa.concat_tables([one] * 1025)
    with pytest.raises(BadRequest, match="more than 1024 events have the time"):
        past_events(looking.sources["departures"], table, now=NOON)
