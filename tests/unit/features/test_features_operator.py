"""The state of one key: what is late, what is forgotten, what survives being packed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftloop.errors import LogError
from driftloop.features.operator import Layout, State, Windowed, layouts, windowed
from driftloop.spec import Family, Fleet

LAYOUT = Layout("departures", "origin", ("delay",), ("carrier",), span=100, lateness=10)
FEATURES = [
    Windowed("count", "count", None, 50),
    Windowed("rate", "rate", None, 50),
    *(
        Windowed(each, each, "delay", 90)
        for each in ("sum", "mean", "min", "max", "last", "distinct", "std")
    ),
    Windowed("carrier", "last", "carrier", 50),
    Windowed("carriers", "distinct", "carrier", 90),
]


def state_of(*events: tuple[int, float | None]) -> State:
    state = State(LAYOUT)
    for position, (at, delay) in enumerate(events):
        state.add(at, position, {"delay": delay, "carrier": f"c{position}"})
    return state


def test_what_is_kept_serves_every_family(looking: Fleet, eta: Family) -> None:
    """One layout a source and key, as long as the longest window and the lateness."""
    ((place, layout),) = layouts(looking).items()
    assert place == ("departures", "origin")
    assert (layout.numeric, layout.categorical) == (("delay",), ("carrier",))
    assert layout.span == 70 * 60_000_000
    assert len(windowed(eta)[place]) == 20


def test_a_window_is_open_at_its_beginning_and_closed_at_its_end() -> None:
    """An event counts in (t - window, t]."""
    state = state_of((100, 1.0), (105, 2.0))
    assert state.values(105, FEATURES[:1]) == {"count": 2.0}
    assert state.values(104, FEATURES[:1]) == {"count": 1.0}
    assert state.values(149, FEATURES[:1]) == {"count": 2.0}
    assert state.values(150, FEATURES[:1]) == {"count": 1.0}
    assert state.values(155, FEATURES[:1]) == {"count": 0.0}


def test_without_events_counts_are_zero_and_the_rest_has_no_value() -> None:
    """So it is for a key that never occurred, and for one whose events are all too old."""
    expected = {
        **dict.fromkeys(("count", "rate", "sum", "distinct", "carriers"), 0.0),
        **dict.fromkeys(("mean", "min", "max", "last", "std", "carrier"), None),
    }
    assert State(LAYOUT).values(5, FEATURES) == expected
    assert state_of((100, 1.0)).values(1_000, FEATURES) == expected


def test_nulls_are_passed_over() -> None:
    """A null is no value: the last is the last that is known, and counts are of events."""
    found = state_of((100, 4.0), (101, None)).values(110, FEATURES)
    assert (found["last"], found["mean"], found["count"]) == (4.0, 4.0, 2.0)
    assert found["std"] is None  # of one value nothing is told


def test_late_events_change_nothing() -> None:
    """One older than the newest by more than the lateness is refused; one at the limit is not."""
    state = state_of((100, 1.0))
    assert not state.add(89, 1, {"delay": 9.0, "carrier": "x"})
    assert state.add(90, 2, {"delay": 9.0, "carrier": "x"})
    assert state.values(100, FEATURES)["count"] == 2.0


def test_an_event_that_comes_again_changes_nothing() -> None:
    """A redelivered event has the position it had."""
    state = state_of((100, 1.0))
    assert state.add(100, 0, {"delay": 1.0, "carrier": "c0"})
    assert state.values(100, FEATURES)["count"] == 1.0


def test_of_a_tie_the_later_position_is_the_last() -> None:
    """Also where a third event is newer than both."""
    state = state_of((100, 1.0), (105, 2.0), (100, 3.0))
    assert state.values(104, FEATURES)["last"] == 3.0
    assert state.values(105, FEATURES)["last"] == 2.0


def test_a_row_too_far_behind_has_no_values() -> None:
    """What it would need may be forgotten: no count of it is right."""
    state = state_of((100, 1.0))
    assert set(state.values(89, FEATURES).values()) == {None}
    assert state.values(90, FEATURES)["count"] == 0.0


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(0, 300),
    pack_at=st.sets(st.integers(0, 299), max_size=5),
)
def test_packing_anywhere_changes_no_value(seed: int, count: int, pack_at: set[int]) -> None:
    """A state that was packed and unpacked, as in a restart, goes on as one that never was."""
    rng = np.random.default_rng(seed)
    kept, packed = State(LAYOUT), State(LAYOUT)
    at = 0
    for position in range(count):
        at += int(rng.integers(-6, 9))
        delay = None if rng.random() < 0.1 else float(rng.integers(0, 50))
        carrier = None if rng.random() < 0.1 else f"c{rng.integers(0, count)}"
        event = (at, position, {"delay": delay, "carrier": carrier})
        if position in pack_at:
            packed = State.unpack(LAYOUT, packed.pack())
        assert kept.add(*event) == packed.add(*event)
        asked = at + int(rng.integers(-15, 40))
        assert kept.values(asked, FEATURES) == packed.values(asked, FEATURES)
    again = State.unpack(LAYOUT, packed.pack())
    assert (again.newest, again.position) == (kept.newest, kept.position)
    assert again.pack() == packed.pack()


def test_what_no_row_can_reach_is_forgotten() -> None:
    """A state does not grow with the length of the stream, nor with the texts in it."""
    state = State(LAYOUT)
    for number in range(5_000):
        state.add(number, number, {"delay": 1.0, "carrier": f"c{number}"})
    assert len(state) < 100 + 2 * 64
    assert len(state.pack()) < 8_000
    assert state.values(5_000, FEATURES)["carrier"] == "c4999"


def test_a_state_of_another_layout_is_refused() -> None:
    """As after a change of the declaration: then it is made again from the log."""
    other = Layout("departures", "origin", ("delay",), ("carrier",), span=200, lateness=10)
    with pytest.raises(LogError, match="another layout"):
        State.unpack(other, State(LAYOUT).pack())


@pytest.mark.parametrize("cut", [0, 7, 40, -1])
def test_a_damaged_state_is_refused(cut: int) -> None:
    """Rather than read as if it were whole."""
    packed = state_of((100, 1.0), (101, 2.0)).pack()
    with pytest.raises(LogError, match="damaged"):
        State.unpack(LAYOUT, packed[:cut])
