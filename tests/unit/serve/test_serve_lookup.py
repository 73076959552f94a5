"""Rows made whole: looked up, as all was at one moment, or what their fallbacks say."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from conftest import StoppedClock
from fakes.streamed import FEATURES, NOON, departure, streamed_fleet

from driftloop.features.operator import layouts
from driftloop.records import FeatureValue
from driftloop.serve.lookup import Lookups, NothingFresh
from driftloop.serve.request import Row
from driftloop.serve.store import StateStore, TableStore
from driftloop.serve.stream import Post, Stream
from driftloop.spec import Fleet


class Here:
    """Stores of one home, what looks up in them, and a stream that writes them."""

    def __init__(self, folder: Path, features: str) -> None:
        self.fleet = streamed_fleet(folder / "monitors", features=features)
        self.family = self.fleet.families[0]
        self.clock = StoppedClock(NOON)
        self.tables = TableStore(folder / "tables", most_bytes=2**26)
        self.states = StateStore(folder / "states", most_bytes=2**26)
        self.lookups = Lookups(self.fleet, tables=self.tables, states=self.states, clock=self.clock)

    def stream(self, fleet: Fleet | None = None) -> Stream:
        """Return a stream whose states agree with what it has to keep."""
        fleet = fleet or self.fleet
        events = {n: source for n, source in fleet.sources.items() if source.kind == "events"}
        stream = Stream(
            sources=events,
            layouts=layouts(fleet),
            store=self.states,
            spool=_NoSpool(),
            clock=self.clock,
        )
        stream.agree(_NoLog())
        return stream

    def planes(self, *rows: tuple[str, float | None]) -> None:
        self.tables.replace("planes", ["age"], [(k, [v]) for k, v in rows], loaded_at=NOON)

    def complete(self, *, minutes: float = 0.0, **given: FeatureValue) -> Row:
        """Return one row whole; what is not given is null."""
        features: dict[str, FeatureValue] = {**dict.fromkeys(self.family.features), **given}
        row = Row("r", NOON + timedelta(minutes=minutes), features)
        (whole,) = self.lookups.complete(self.family, [row])
        return whole


class _NoSpool:
    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: None


class _NoLog:
    def newest(self, _: object) -> int:
        return 0

    def since(self, *_: object) -> list[object]:
        return []

    def past_mark(self, _: object) -> None:
        return None


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Callable[..., Here]]:
    """Make a home with such features."""
    homes: list[Here] = []

    def make(features: str = FEATURES) -> Here:
        homes.append(Here(tmp_path, features))
        return homes[-1]

    yield make
    for home in homes:
        home.tables.close()
        home.states.close()


def test_a_row_gets_what_is_looked_up_and_computed(made: Callable[..., Here]) -> None:
    """By its own keys, at its own time; with the stream's position, and no fallback."""
    here = made()
    here.planes(("N1", 3.0))
    events = [departure("a", "JFK", 4.0), departure("b", "JFK", 8.0, minutes=10)]
    here.stream().take([Post("departures", [*events, departure("c", "LGA", 1.0)])])
    row = here.complete(minutes=10, origin="JFK", tailnum="N1", distance=5.0)
    assert row.features == {
        "distance": 5.0,
        "load": None,
        "vehicle": None,
        "origin": "JFK",
        "tailnum": "N1",
        "delay_mean": 6.0,
        "departures_60m": 2.0,
        "plane_age": 3.0,
        "delay_each": 3.0,
    }
    assert tuple(row.features) == tuple(here.family.features)
    assert row.fallbacks == ()
    assert row.position == 3


def test_where_nothing_is_found_the_fallbacks_stand_and_are_named(
    made: Callable[..., Here],
) -> None:
    """A number, or null; what is computed is computed of them. A count of nothing is 0."""
    here = made()
    here.planes(("N2", None))
    here.stream()
    for tailnum in (None, "N1", "N2"):
        row = here.complete(origin="JFK", tailnum=tailnum)
        assert row.fallbacks == ("delay_mean", "plane_age")
        assert row.features["delay_mean"] == 0.0
        assert row.features["plane_age"] is None
        assert row.features["departures_60m"] == 0.0
        assert row.features["delay_each"] == 0.0
        assert row.position == 0


def test_a_table_that_is_too_old_has_no_values(made: Callable[..., Here]) -> None:
    """Older than the feature's `max_age`, by the loop's clock, and not before."""
    here = made()
    here.planes(("N1", 3.0))
    here.clock.shown = NOON + timedelta(days=2)
    assert here.complete(origin="JFK", tailnum="N1").features["plane_age"] == 3.0
    here.clock.shown += timedelta(microseconds=1)
    row = here.complete(origin="JFK", tailnum="N1")
    assert row.features["plane_age"] is None
    assert "plane_age" in row.fallbacks


REFUSING = FEATURES.replace('fallback = "null"', 'fallback = "refuse"')


def test_a_feature_that_refuses_is_lacking_in_its_row_alone(made: Callable[..., Here]) -> None:
    """Where the table has no such key, or null there, or the row has no key."""
    here = made(REFUSING)
    here.planes(("N1", 3.0), ("N2", None))
    assert here.complete(origin="JFK", tailnum="N1").features["plane_age"] == 3.0
    assert here.complete(origin="JFK", tailnum="N1").lacking == ()
    for tailnum in ("N2", "N3", None):
        assert here.complete(origin="JFK", tailnum=tailnum).lacking == ("plane_age",)


def test_what_is_away_refuses_all_rows_for_now(made: Callable[..., Here]) -> None:
    """A table that was never read or is too old, of rows that have a key."""
    here = made(REFUSING)
    with pytest.raises(NothingFresh, match="eta, plane_age: its table was not read yet"):
        here.complete(origin="JFK", tailnum="N1")
    assert here.complete(origin="JFK").lacking == ("plane_age",)
    here.planes(("N1", 3.0))
    here.clock.shown = NOON + timedelta(days=2, seconds=1)
    with pytest.raises(NothingFresh, match="longer than its max_age"):
        here.complete(origin="JFK", tailnum="N1")
    here.tables.replace("planes", ["seats"], [("N1", [5.0])], loaded_at=here.clock.shown)
    with pytest.raises(NothingFresh, match="not read yet with age"):
        here.complete(origin="JFK", tailnum="N1")


def test_a_stream_without_its_state_refuses_all_rows_for_now(made: Callable[..., Here]) -> None:
    """Once the state is there, a key without events is a matter of its row."""
    here = made(FEATURES.replace("fallback = 0.0", 'fallback = "refuse"'))
    with pytest.raises(NothingFresh, match="eta, delay_mean: its state is being made anew"):
        here.complete(origin="JFK")
    here.stream().take([Post("departures", [departure("a", "JFK", 4.0)])])
    assert here.complete(origin="JFK").lacking == ()
    assert here.complete(origin="LGA").lacking == ("delay_mean",)


def test_states_that_were_not_made_for_these_features_are_not_read(
    made: Callable[..., Here], tmp_path: Path
) -> None:
    """As before the stream process was started anew: no value, and not a count of 0."""
    here = made()
    row = here.complete(origin="JFK")
    assert row.fallbacks == ("delay_mean", "departures_60m", "plane_age")
    wider = streamed_fleet(tmp_path / "wider", features=FEATURES.replace("60m", "90m"))
    here.stream(wider).take([Post("departures", [departure("a", "JFK", 4.0)])])
    row = here.complete(origin="JFK")
    assert row.fallbacks == ("delay_mean", "departures_60m", "plane_age")


def test_a_row_that_is_older_than_lateness_allows_has_no_values(
    made: Callable[..., Here],
) -> None:
    """What its window held may be forgotten already."""
    here = made()
    here.stream().take([Post("departures", [departure("a", "JFK", 4.0, minutes=20)])])
    assert here.complete(minutes=4, origin="JFK").features["departures_60m"] is None
    assert here.complete(minutes=5, origin="JFK").features["departures_60m"] == 0.0


def test_a_request_sees_what_was_taken_before_it(made: Callable[..., Here]) -> None:
    """At once: each look-up sees the newest state that is durable."""
    here = made()
    stream = here.stream()
    for number in range(1, 20):
        stream.take([Post("departures", [departure(f"e{number}", "JFK", 1.0)])])
        row = here.complete(origin="JFK")
        assert (row.features["departures_60m"], row.position) == (number, number)
