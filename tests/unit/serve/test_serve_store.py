"""The online store: whole tables at once, states and positions together, and full disks."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from driftloop.serve.store import StateStore, Stored, StoreError, TableStore
from driftloop.serve.store.states import Named, Sequences

NOW = datetime(2026, 3, 1, tzinfo=UTC)
JFK = Named("departures", "origin", "JFK")


@pytest.fixture
def tables(tmp_path: Path) -> Iterator[TableStore]:
    store = TableStore(tmp_path / "tables", most_bytes=2**26)
    yield store
    store.close()


@pytest.fixture
def states(tmp_path: Path) -> Iterator[StateStore]:
    store = StateStore(tmp_path / "states", most_bytes=2**26)
    yield store
    store.close()


def test_a_table_is_replaced_whole(tables: TableStore) -> None:
    """What a new copy has not is gone; other tables stay as they are."""
    tables.replace("planes", ["age"], [("N1", [3.0]), ("N2", [None])], loaded_at=NOW)
    tables.replace("airports", ["name"], [("JFK", ["Kennedy"])], loaded_at=NOW)
    kept = tables.replace("planes", ["seats", "age"], [("N2", [9.0, 4.0])], loaded_at=NOW)
    assert kept == 1
    with tables.reading() as view:
        assert view.row("planes", "N1") is None
        assert view.row("planes", "N2") == (9.0, 4.0)
        assert view.row("airports", "JFK") == ("Kennedy",)
        loaded = view.loaded("planes")
        assert loaded is not None
        assert (loaded.columns, loaded.rows, loaded.loaded_at) == (("seats", "age"), 1, NOW)
        assert view.loaded("nothing") is None
        assert view.row("nothing", "N1") is None


def test_readers_see_the_old_table_until_the_new_one_is_whole(tables: TableStore) -> None:
    """However long its rows take to come; one that reads on sees the old one after that too."""
    tables.replace("planes", ["age"], [("N1", [1.0])], loaded_at=NOW)
    seen = []

    def rows() -> Iterator[tuple[str, list[float]]]:
        for number in range(12_000):
            yield f"N{number}", [2.0]
            if number in (0, 6_000, 11_000):
                with tables.reading() as view:
                    seen.append((view.row("planes", "N1"), view.row("planes", "N5")))

    with tables.reading() as before:
        tables.replace("planes", ["age"], rows(), loaded_at=NOW)
        assert before.row("planes", "N1") == (1.0,)
        assert before.row("planes", "N5") is None
    assert seen == [((1.0,), None)] * 3
    with tables.reading() as view:
        assert view.row("planes", "N5") == (2.0,)


def test_a_table_that_breaks_off_leaves_the_old_one(tables: TableStore) -> None:
    """And nothing of its own: the file does not grow by what failed again and again."""
    tables.replace("planes", ["age"], [("N1", [1.0])], loaded_at=NOW)

    def broken() -> Iterator[tuple[str, list[float]]]:
        yield from ((f"N{number}", [2.0]) for number in range(6_000))
        raise ConnectionError

    with pytest.raises(ConnectionError):
        tables.replace("planes", ["age"], broken(), loaded_at=NOW)
    with tables.reading() as view:
        assert view.row("planes", "N1") == (1.0,)
        assert view.row("planes", "N7") is None


def test_a_table_that_is_too_large_is_told_and_the_old_one_kept(tmp_path: Path) -> None:
    """The error names the setting; smaller tables can be written afterwards."""
    tables = TableStore(tmp_path, most_bytes=2**20)
    tables.replace("planes", ["age"], [("N1", [1.0])], loaded_at=NOW)
    large = ((f"N{number}", ["x" * 100]) for number in range(50_000))
    with pytest.raises(StoreError, match="store_gib"):
        tables.replace("planes", ["name"], large, loaded_at=NOW)
    with tables.reading() as view:
        assert view.row("planes", "N1") == (1.0,)
    assert tables.replace("planes", ["age"], [("N1", [2.0])], loaded_at=NOW) == 1
    tables.close()


def test_keys_of_any_length_and_letters(tables: TableStore) -> None:
    """Long ones that begin alike are different keys, and so is the empty one."""
    keys = ["", "x" * 600, "x" * 601, "é" * 300, "\0a", "a\0b", "😀"]
    rows = [(key, [float(number)]) for number, key in enumerate(keys)]
    assert tables.replace("t", ["n"], rows, loaded_at=NOW) == len(keys)
    with tables.reading() as view:
        assert [view.row("t", key) for key in keys] == [(float(n),) for n in range(len(keys))]


def test_two_refreshes_of_one_table_do_not_mix(tables: TableStore) -> None:
    """The second is refused while the first is under way; another table's is not."""

    def rows() -> Iterator[tuple[str, list[float]]]:
        yield "N1", [1.0]
        with pytest.raises(StoreError, match="under way"):
            tables.replace("planes", ["age"], [("N1", [2.0])], loaded_at=NOW)
        tables.replace("airports", ["age"], [("N1", [2.0])], loaded_at=NOW)

    tables.replace("planes", ["age"], rows(), loaded_at=NOW)
    with tables.reading() as view:
        assert view.row("planes", "N1") == (1.0,)


def test_a_change_of_states_happens_whole_or_not_at_all(states: StateStore) -> None:
    """State, position, id and outbox go together."""

    def broken() -> None:
        with states.writing() as change:
            change.put(JFK, Stored(5, b"state"))
            change.set_position(7)
            change.note("departures", "a")
            change.send(7, [])
            raise ConnectionError

    with pytest.raises(ConnectionError):
        broken()
    with states.reading() as view:
        assert view.position == 0
        assert view.state(JFK) is None
        assert list(view.outbox()) == []
    with states.writing() as change:
        assert change.note("departures", "a")
        change.put(JFK, Stored(5, b"state"))
        change.set_position(7)
    with states.reading() as view:
        assert view.position == 7
        stored = view.state(JFK)
        assert stored is not None
        assert (stored.newest, bytes(stored.packed)) == (5, b"state")


def test_an_id_is_held_for_a_span_at_least_and_two_at_most(states: StateStore) -> None:
    """Spans may be passed over; a clock that is set back forgets nothing that it held."""

    def note(span: int, id_: str) -> bool:
        with states.writing() as change:
            change.turn(span)
            return change.note("departures", id_)

    assert note(10, "a")
    assert not note(10, "a")
    assert not note(11, "a")
    assert note(11, "b")
    assert note(12, "a")  # two spans later it is new
    assert not note(12, "b")
    assert note(99, "b")
    assert not note(98, "b")
    assert note(99, "c")


def test_ids_of_different_sources_are_different(states: StateStore) -> None:
    """Two sources may number their events alike; ids may be long."""
    with states.writing() as change:
        change.turn(1)
        assert change.note("one", "x" * 600)
        assert change.note("two", "x" * 600)
        assert not change.note("one", "x" * 600)


def test_old_states_are_swept_some_at_a_time(states: StateStore) -> None:
    """Those before their source's limit, and all of sources that are no more."""
    with states.writing() as change:
        for number in range(10):
            change.put(Named("departures", "origin", f"K{number}"), Stored(number, b""))
            change.put(Named("gone", "origin", f"K{number}"), Stored(100, b""))
    place, rounds = b"", 0
    while rounds == 0 or place:
        with states.writing() as change:
            place = change.sweep(place, {"departures": 4}, most=3)
        rounds += 1
    assert rounds > 3
    with states.reading() as view:
        left = [n for n in range(10) if view.state(Named("departures", "origin", f"K{n}"))]
        assert left == [4, 5, 6, 7, 8, 9]
        assert view.counts()["keys"] == 6


def test_what_was_taken_of_jetstream_is_kept(states: StateStore) -> None:
    """With the stream that it is of."""
    with states.writing() as change:
        assert change.sequences("departures") is None
        change.set_sequences("departures", Sequences("one", [(1, 4), (6, 6)]))
    with states.reading() as view:
        assert view.sequences("departures") == Sequences("one", [(1, 4), (6, 6)])


def test_a_store_is_opened_once_in_a_process(tmp_path: Path) -> None:
    """LMDB must not open a file twice: both handles are of the same one, and live apart."""
    one, other = (TableStore(tmp_path, most_bytes=2**26) for _ in range(2))
    one.replace("t", ["n"], [("a", [1.0])], loaded_at=NOW)
    one.close()
    one.close()
    with other.reading() as view:
        assert view.row("t", "a") == (1.0,)
    other.close()


def test_a_store_that_cannot_be_opened_is_told(tmp_path: Path) -> None:
    """With what to do: it holds copies only."""
    (tmp_path / "data.mdb").write_bytes(b"x" * 10_000)
    with pytest.raises(StoreError, match="remove the folder"):
        TableStore(tmp_path, most_bytes=2**26)
