"""The stream process's work: each event once, in the states and in the log, whatever breaks."""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from conftest import StoppedClock
from fakes.streamed import FEATURES, NOON, departure, streamed_fleet

from driftloop.errors import LogError
from driftloop.features.operator import State, layouts, windowed
from driftloop.records import Event, FeatureValue
from driftloop.serve.events import Posted
from driftloop.serve.store import StateStore, StoreError
from driftloop.serve.store.states import Named
from driftloop.serve.stream import (
    MOST_BESIDE,
    MOST_UNLOGGED,
    NotTaken,
    Post,
    Stream,
    Taken,
    state_of,
)
from driftloop.spec import Fleet, Source


@dataclass
class KeptEvents:
    """A spool, and the log that is made of it; `broken` makes it fail as a full disk would."""

    rows: list[Event] = field(default_factory=list)
    broken: bool = False
    mark: str | None = None

    def events(self, source: str, rows: Sequence[Event]) -> None:
        if self.broken:
            raise LogError("no space left on device", where=source)
        self.rows.extend(rows)

    def newest(self, source: Source) -> int:
        return max((row.position for row in self.rows if row.source == source.name), default=0)

    def since(self, source: Source, time: datetime) -> Iterator[Event]:
        found = {row.position: row for row in reversed(self.rows) if row.event_time >= time}
        return iter(found[position] for position in sorted(found))

    def past_mark(self, source: Source) -> str | None:
        return self.mark if source.name == "departures" else None

    def give_past(self, mark: str, *delays: float) -> None:
        """Give it departures of before, a minute apart, the last one a minute before noon."""
        for number, delay in enumerate(reversed(delays), start=1):
            time = NOON - timedelta(minutes=number)
            fields = {"origin": "JFK", "delay": delay}
            self.rows.append(
                Event(
                    id=f"p{number}",
                    source="departures",
                    position=-number,
                    event_time=time,
                    received_at=time,
                    fields=fields,
                )
            )
        self.mark = mark

    @property
    def read(self) -> dict[int, str]:
        """The id at each position, as the log is read."""
        return {row.position: row.id for row in reversed(self.rows)}


@dataclass
class Here:
    """A store, a spool and a clock, for one stream process after another."""

    fleet: Fleet
    store: StateStore
    log: KeptEvents
    clock: StoppedClock

    def stream(self, fleet: Fleet | None = None) -> Stream:
        fleet = fleet or self.fleet
        events = {n: source for n, source in fleet.sources.items() if source.kind == "events"}
        spool: Any = self.log
        stream = Stream(
            sources=events, layouts=layouts(fleet), store=self.store, spool=spool, clock=self.clock
        )
        stream.agree(self.log)
        return stream

    def features(self, origin: str, minutes: float = 0.0) -> dict[str, FeatureValue]:
        """Return what the store makes of the events of `origin`, so long after noon."""
        (layout,) = layouts(self.fleet).values()
        with self.store.reading() as view:
            state = state_of(layout, view.state(Named("departures", "origin", origin)))
            at = round((NOON.timestamp() + minutes * 60) * 1e6)
            (made,) = windowed(self.fleet.families[0]).values()
            return state.values(at, made)

    @property
    def position(self) -> int:
        with self.store.reading() as view:
            return view.position


@pytest.fixture(params=["states whole", "events beside states"])
def here(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Here]:
    """A home, and one to which every state is a large one: each promise holds there too."""
    if request.param == "events beside states":
        for module in ("store.states", "stream"):
            monkeypatch.setattr(f"driftloop.serve.{module}.LARGE", 1)
    store = StateStore(tmp_path / "store", most_bytes=2**26)
    yield Here(streamed_fleet(tmp_path / "monitors"), store, KeptEvents(), StoppedClock(NOON))
    store.close()


def post(*events: Posted, **more: Any) -> Post:
    return Post("departures", events, **more)


def test_events_get_positions_and_are_in_state_and_log(here: Here) -> None:
    """Positions rise by one; the time they were received at is the clock's."""
    stream = here.stream()
    taken = stream.take(
        [
            post(departure("a", "JFK", 4.0), departure("b", "LGA", 6.0)),
            post(departure("c", "JFK", 8.0, minutes=1)),
        ]
    )
    assert taken == [Taken(2, 0, 0, 2), Taken(1, 0, 0, 3)]
    assert here.features("JFK", 1) == {"delay_mean": 6.0, "departures_60m": 2.0}
    assert here.features("LGA") == {"delay_mean": 6.0, "departures_60m": 1.0}
    assert here.log.read == {1: "a", 2: "b", 3: "c"}
    assert here.log.rows[0].received_at == NOON
    assert here.log.rows[0].fields == {"origin": "JFK", "delay": 4.0}


def test_an_id_that_comes_again_counts_once(here: Here) -> None:
    """In the same batch, in a later one, and by another process after a death."""
    stream = here.stream()
    first = departure("a", "JFK", 4.0)
    assert stream.take([post(first), post(first)])[1] == Taken(0, 1, 0, 1)
    assert stream.take([post(first, departure("b", "JFK", 6.0))]) == [Taken(1, 1, 0, 2)]
    assert here.stream().take([post(first)]) == [Taken(0, 1, 0, 2)]
    assert here.features("JFK") == {"delay_mean": 5.0, "departures_60m": 2.0}
    assert here.log.read == {1: "a", 2: "b"}


def test_an_event_without_an_id_of_its_own_counts_each_time(here: Here) -> None:
    """Its id was made, and means nothing."""
    made = departure("x", "JFK", 4.0, given=False)
    assert here.stream().take([post(made), post(made)]) == [Taken(1, 0, 0, 1), Taken(1, 0, 0, 2)]


def test_a_late_event_is_logged_and_not_aggregated(here: Here) -> None:
    """Against the newest of its key; within the lateness it counts."""
    stream = here.stream()
    stream.take([post(departure("a", "JFK", 4.0, minutes=20))])
    late, in_time = departure("b", "JFK", 9.0, minutes=4), departure("c", "JFK", 8.0, minutes=5)
    assert stream.take([post(late, in_time)]) == [Taken(2, 0, 1, 3)]
    assert stream.take([post(departure("d", "LGA", 1.0))]) == [Taken(1, 0, 0, 4)]
    assert here.features("JFK", 20) == {"delay_mean": 6.0, "departures_60m": 2.0}
    assert set(here.log.read.values()) == {"a", "b", "c", "d"}


def test_an_event_without_a_key_is_logged(here: Here) -> None:
    """It belongs to nobody."""
    assert here.stream().take([post(departure("a", None, 4.0))]) == [Taken(1, 0, 0, 1)]
    assert here.log.read == {1: "a"}


def test_a_batch_that_the_store_does_not_take_never_happened(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not in memory either: the same events are new when they come again."""
    stream = here.stream()
    stream.take([post(departure("a", "JFK", 4.0))])
    writing = here.store.writing

    @contextmanager
    def full() -> Iterator[Any]:
        with writing() as change:
            yield change
            raise StoreError("disk full")

    monkeypatch.setattr(here.store, "writing", full)
    with pytest.raises(StoreError):
        stream.take([post(departure("b", "JFK", 8.0), departure("c", "LGA", 8.0))])
    monkeypatch.undo()
    assert here.features("JFK") == {"delay_mean": 4.0, "departures_60m": 1.0}
    assert stream.take([post(departure("b", "JFK", 8.0))]) == [Taken(1, 0, 0, 2)]
    assert here.features("JFK") == {"delay_mean": 6.0, "departures_60m": 2.0}
    assert here.log.read == {1: "a", 2: "b"}


def test_what_the_log_does_not_take_is_taken_and_logged_later(here: Here) -> None:
    """By the next batch, or when it is looked after; nothing is lost and nothing told twice."""
    stream = here.stream()
    here.log.broken = True
    assert stream.take([post(departure("a", "JFK", 4.0))]) == [Taken(1, 0, 0, 1)]
    stream.tend()
    assert here.log.rows == []
    here.log.broken = False
    stream.tend()
    stream.take([post(departure("b", "JFK", 6.0))])
    stream.tend()
    assert [row.id for row in here.log.rows] == ["a", "b"]
    with here.store.reading() as view:
        assert list(view.outbox()) == []


def test_nothing_more_is_taken_once_the_log_is_away_for_long(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk that is full is told; what was taken before is kept for it."""
    monkeypatch.setattr("driftloop.serve.stream.MOST_UNLOGGED", 2)
    assert MOST_UNLOGGED > 2
    stream = here.stream()
    here.log.broken = True
    for id_ in "ab":
        stream.take([post(departure(id_, "JFK", 4.0))])
    with pytest.raises(NotTaken, match="disk full"):
        stream.take([post(departure("c", "JFK", 4.0))])
    here.log.broken = False
    stream.take([post(departure("c", "JFK", 4.0))])
    assert here.log.read == {1: "a", 2: "b", 3: "c"}


def test_what_was_not_logged_before_a_death_is_logged_after_it(here: Here) -> None:
    """Under the same position: logged twice it is read once."""
    stream = here.stream()
    stream.take([post(departure("a", "JFK", 4.0))])
    here.log.broken = True
    stream.take([post(departure("b", "JFK", 4.0))])
    here.log.broken = False
    here.stream()
    assert here.log.read == {1: "a", 2: "b"}
    here.stream()
    assert here.log.read == {1: "a", 2: "b"}
    assert here.position == 2


def test_other_windows_are_made_of_what_the_log_has(here: Here, tmp_path: Path) -> None:
    """A declaration that changed finds its states made anew at the next start."""
    stream = here.stream()
    for minute in range(0, 100, 20):
        stream.take([post(departure(f"e{minute}", "JFK", float(minute), minutes=minute))])
    here.clock.shown = NOON + timedelta(minutes=100)
    assert here.features("JFK", 100)["departures_60m"] == 2
    wider = FEATURES.replace('window = "60m"', 'window = "90m"')
    here.fleet = streamed_fleet(tmp_path / "wider", features=wider)
    here.stream()
    assert here.features("JFK", 100)["departures_60m"] == 4
    assert here.position == 5


def test_a_lost_store_is_made_anew_of_the_log(here: Here, tmp_path: Path) -> None:
    """States and positions: none is given twice, and an event that comes again is known."""
    stream = here.stream()
    stream.take([post(*(departure(f"e{n}", "JFK", float(n), minutes=n) for n in range(5)))])
    here.store = StateStore(tmp_path / "new", most_bytes=2**26)
    stream = here.stream()
    assert here.features("JFK", 5) == {"delay_mean": 2.0, "departures_60m": 5.0}
    again = departure("e4", "JFK", 4.0, minutes=4)
    assert stream.take([post(again, departure("f", "JFK", 8.0))]) == [Taken(1, 1, 0, 6)]
    here.store.close()


def test_a_death_while_states_are_made_anew_costs_nothing(
    here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next start begins again; positions are not given twice meanwhile."""
    here.stream().take([post(*(departure(f"e{n}", "JFK", float(n)) for n in range(5)))])
    here.store = StateStore(tmp_path / "new", most_bytes=2**26)
    monkeypatch.setattr("driftloop.serve.stream.REPLAYED", 2)
    since = here.log.since

    def breaks(source: Source, time: datetime) -> Iterator[Event]:
        yield from list(since(source, time))[:3]
        raise LogError("gone")

    monkeypatch.setattr(here.log, "since", breaks)
    with pytest.raises(LogError):
        here.stream()
    monkeypatch.undo()
    here.stream()
    assert here.features("JFK")["departures_60m"] == 5
    assert here.position == 5
    here.store.close()


def test_past_events_are_in_the_states_from_a_position_on(here: Here) -> None:
    """It is no event's: what was read before it was read without them."""
    stream = here.stream()
    stream.take([post(departure("a", "JFK", 4.0))])
    here.log.give_past("", 1.0, 7.0)
    assert not stream.lacks_past(here.log)  # they are given it still
    here.log.mark = "one"
    assert stream.lacks_past(here.log)
    assert stream.agree(here.log) == ("departures",)
    assert here.features("JFK") == {"delay_mean": 4.0, "departures_60m": 3.0}
    assert here.position == 2
    with here.store.reading() as view:
        assert view.past("departures") == ("one", 2)
    assert not stream.lacks_past(here.log)
    assert stream.take([post(departure("b", "JFK", 8.0))]) == [Taken(1, 0, 0, 3)]
    stream = here.stream()
    assert not stream.lacks_past(here.log)
    assert here.position == 3
    assert here.features("JFK") == {"delay_mean": 5.0, "departures_60m": 4.0}


def test_past_events_are_taken_at_the_next_start(here: Here, tmp_path: Path) -> None:
    """By a store that lacks them, and by one that lacks all."""
    here.stream().take([post(departure("a", "JFK", 4.0))])
    here.log.give_past("one", 6.0)
    here.stream()
    assert here.features("JFK") == {"delay_mean": 5.0, "departures_60m": 2.0}
    here.store = StateStore(tmp_path / "new", most_bytes=2**26)
    here.stream()
    assert here.features("JFK") == {"delay_mean": 5.0, "departures_60m": 2.0}
    with here.store.reading() as view:
        assert view.past("departures") == ("one", 2)
    here.store.close()


def test_states_are_served_as_they_were_until_all_past_events_are_in(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They change in one transaction; one that fails leaves nothing, in memory neither."""
    stream = here.stream()
    stream.take([post(departure("a", "JFK", 4.0))])
    here.log.give_past("one", 1.0, 7.0)
    monkeypatch.setattr("driftloop.serve.stream.REPLAYED", 1)
    since, seen = here.log.since, []

    def breaks(source: Source, time: datetime) -> Iterator[Event]:
        for event in list(since(source, time))[:2]:
            yield event
            seen.append(here.features("JFK")["departures_60m"])
        raise LogError("gone")

    monkeypatch.setattr(here.log, "since", breaks)
    with pytest.raises(LogError):
        stream.agree(here.log)
    assert seen == [1.0, 1.0]
    assert stream.lacks_past(here.log)
    stream.take([post(departure("b", "JFK", 8.0))])
    assert here.features("JFK") == {"delay_mean": 6.0, "departures_60m": 2.0}
    monkeypatch.undo()
    stream.agree(here.log)
    assert here.features("JFK") == {"delay_mean": 5.0, "departures_60m": 4.0}


def test_states_are_not_made_of_a_log_that_lacks_what_was_taken(here: Here) -> None:
    """As while the spool's disk is full: past events wait until the outbox is logged."""
    stream = here.stream()
    here.log.broken = True
    stream.take([post(departure("a", "JFK", 4.0))])
    here.log.give_past("one", 6.0)
    assert not stream.lacks_past(here.log)
    here.log.broken = False
    stream.tend()
    assert stream.lacks_past(here.log)


def test_messages_of_jetstream_count_once(here: Here) -> None:
    """Known by their places, in whatever order they come again; a gap is still taken."""
    stream = here.stream()

    def came(*places: int, done: Sequence[int] = (), name: str = "one", floor: int = 0) -> Taken:
        events = [departure(f"m{place}", "JFK", 1.0, given=False) for place in places]
        more = {"stream": name, "sequences": places, "done": done, "floor": floor}
        return stream.take([post(*events, **more)])[0]

    assert came(1, 2, 5) == Taken(3, 0, 0, 3)
    assert came(2, 3, 5, done=[4]) == Taken(1, 2, 0, 4)
    stream = here.stream()
    assert came(3, 4, 5, 6) == Taken(1, 3, 0, 5)
    assert came(9, 9) == Taken(1, 1, 0, 6)
    assert came(7, 8, 10, floor=8) == Taken(1, 2, 0, 7)
    assert came(1, 2, name="another of that name") == Taken(2, 0, 0, 9)


def test_keys_without_events_are_forgotten(here: Here) -> None:
    """After their longest window, the lateness and a day; from the disk and from memory.

    It is the source's time: while no event comes at all the clock alone makes nothing forgotten.
    """
    stream = here.stream()
    stream.take([post(departure("a", "JFK", 1.0), departure("b", "LGA", 1.0))])
    here.clock.shown = NOON + timedelta(days=30)
    stream.tend()
    assert here.features("JFK") == {"delay_mean": 1.0, "departures_60m": 1.0}
    here.clock.shown = NOON + timedelta(days=1, minutes=76)
    stream.take([post(departure("c", "LGA", 1.0, minutes=24 * 60 + 76))])
    stream.tend()
    with here.store.reading() as view:
        assert view.counts()["keys"] == 1
        assert view.state(Named("departures", "origin", "JFK")) is None


def test_states_beyond_what_memory_may_hold_are_read_again(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store has them all: what was let go counts on."""
    monkeypatch.setattr("driftloop.serve.stream.MOST_HELD", 0)
    stream = here.stream()
    stream.take([post(departure("a", "JFK", 2.0))])
    stream.tend()
    stream.take([post(departure("b", "JFK", 4.0))])
    assert here.features("JFK") == {"delay_mean": 3.0, "departures_60m": 2.0}


def test_a_large_state_is_what_it_would_be_if_it_were_written_whole(here: Here) -> None:
    """However often events were put beside it, late and out of order; read anew at any time."""
    stream = here.stream()
    seeded = random.Random(7)
    named = Named("departures", "origin", "JFK")
    (layout,) = layouts(here.fleet).values()
    whole = State(layout)
    for number in range(3 * MOST_BESIDE):
        minutes = number / 10 + seeded.uniform(-20, 0)
        stream.take([post(departure(f"e{number}", "JFK", float(number), minutes=minutes))])
        at = round((NOON + timedelta(minutes=minutes)).timestamp() * 1e6)
        whole.add(at, number + 1, {"delay": float(number)})
        if number % 20 == 0:
            stream = here.stream()
        with here.store.reading() as view:
            assert state_of(layout, view.state(named)).pack() == whole.pack()
    with here.store.reading() as view:
        stored = view.state(named)
        assert stored is not None
        assert len(stored.later) <= MOST_BESIDE


def test_events_of_other_monitor_files_are_refused(here: Here) -> None:
    """A worker that reads other files sends what does not fit: nobody else's events suffer."""
    stream = here.stream()
    with pytest.raises(NotTaken, match="other monitor files"):
        stream.check(Post("arrivals", ()))
    with pytest.raises(NotTaken, match="other monitor files"):
        stream.check(post(replace_fields(departure("a", "JFK", 1.0), ("JFK",))))
    stream.check(post(departure("a", "JFK", 1.0)))


def replace_fields(event: Posted, fields: tuple[FeatureValue, ...]) -> Posted:
    return Posted(event.id, event.given, event.time, fields)
