"""The log through the operator again: features of rows, as they were or would have been served."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from driftloop.features.completion import Completion
from driftloop.features.operator import Layout, State, Windowed, layouts, windowed
from driftloop.records import FeatureValue
from driftloop.spec import Family, Fleet

Event = tuple[int, int, str, Mapping[str, FeatureValue]]
"""Position, event time, key, fields."""


def replayed(
    family: Family,
    fleet: Fleet,
    rows: pa.Table,
    events: Mapping[str, pa.Table],
    *,
    looked_up: Collection[str] | None = None,
) -> pa.Table:
    """Return `row` and the features of `family` that are made of events, or computed.

    It is the query of `bulk_sql` by the operator, and takes the same columns: times (`at`) are
    microseconds since 1970; a row without a `position` counts all events by their time alone.

    Args:
        family: whose features.
        fleet: knows the sources.
        rows: `row`, `at`, `position`, and the features that are not replayed.
        events: of each source, by its name: `position`, `at` and the fields; each event once.
        looked_up: only these are replayed; by default all that are made of events.
    """
    known = layouts(fleet)
    wanted: set[str] = set()
    found: list[dict[str, FeatureValue]] = [{} for _ in range(rows.num_rows)]
    for place, features in windowed(family).items():
        mine = [each for each in features if looked_up is None or each.name in looked_up]
        wanted |= {feature.name for feature in mine}
        if mine:
            _replay(rows, events[place[0]], known[place], mine, found)
    whole = Completion(family, looked_up=wanted)
    given = [name for name in family.features if name not in {*wanted, *family.computed}]
    columns = zip(*(rows[name].to_pylist() for name in given), strict=True)
    sent = (
        [dict(zip(given, values, strict=True)) for values in columns]
        if given
        else [{}] * len(found)
    )
    made = [whole.of(features, each).features for features, each in zip(sent, found, strict=True)]
    answered = [name for name in family.features if name in {*wanted, *family.computed}]
    kinds = {name: family.features[name].kind for name in answered}
    return pa.table(
        {
            "row": rows["row"],
            **{
                name: pa.array(
                    (row[name] for row in made),
                    pa.float64() if kinds[name] == "numeric" else pa.string(),
                    size=len(made),
                )
                for name in answered
            },
        }
    ).sort_by("row")


def filled(
    family: Family, fleet: Fleet, predictions: pa.Table, events: Mapping[str, pa.Table]
) -> pa.Table:
    """Return rows of history with the features that are made of events, or computed.

    Args:
        family: whose features.
        fleet: knows the sources.
        predictions: `event_time` and the struct `features`, as `history_rows` makes them.
        events: as for `replayed`.
    """
    given = predictions["features"].combine_chunks()
    rows = {name: given.field(name) for name in family.features}
    at = predictions["event_time"].cast(pa.int64())
    rows |= {
        "row": pa.array(range(len(given))),
        "at": at,
        "position": pa.nulls(len(given), pa.int64()),
    }
    made = replayed(family, fleet, pa.table(rows), events)
    columns = {**rows, **{name: made[name].combine_chunks() for name in made.column_names}}
    features = [columns[name] for name in family.features]
    whole = pa.StructArray.from_arrays(features, names=list(family.features))
    return predictions.set_column(predictions.column_names.index("features"), "features", whole)


def _replay(
    rows: pa.Table,
    events: pa.Table,
    layout: Layout,
    features: Sequence[Windowed],
    found: list[dict[str, FeatureValue]],
) -> None:
    """Add to `found`, in the order of `rows`, what the operator makes of the events."""
    events = events.filter(pc.is_valid(events[layout.key])).sort_by("position")
    columns = (rows[name].to_pylist() for name in ("position", "at", layout.key))
    asked = [_Asked(place, *row) for place, row in enumerate(zip(*columns, strict=True))]
    served = [each for each in asked if each.position is not None]
    others = [each for each in asked if each.position is None]
    stream = _Stream(layout, _events(events, layout))
    for each in sorted(served, key=lambda each: each.position or 0):
        stream.up_to(lambda event, at=each.position: event[0] <= at)  # type: ignore[misc]
        found[each.place].update(stream.values(each, features))
    if not others:
        return
    stream.up_to(lambda _: True)
    in_time = events.filter(pa.array(stream.in_time, pa.bool_()))
    # Again, in the order of time: of what was in time, nothing is late that way.
    in_time = in_time.sort_by([("at", "ascending"), ("position", "ascending")])
    in_time = in_time.set_column(
        in_time.column_names.index("position"), "position", pa.array(range(len(in_time)))
    )
    stream = _Stream(layout, _events(in_time, layout))
    for each in sorted(others, key=lambda each: each.at):
        stream.up_to(lambda event, at=each.at: event[1] <= at)  # type: ignore[misc]
        found[each.place].update(stream.values(each, features))


class _Asked(NamedTuple):
    """One row: its place in the table, the position it was read at, its time and its key."""

    place: int
    position: int | None
    at: int
    key: str | None


class _Stream:
    """Events as they come, and the state of each key."""

    def __init__(self, layout: Layout, events: Iterator[Event]) -> None:
        self.in_time: list[bool] = []
        """Of each event that was taken, in their order."""
        self._layout = layout
        self._events = events
        self._next = next(events, None)
        self._states: dict[str, State] = {}
        self._nothing = State(layout)

    def up_to(self, reached: Callable[[Event], bool]) -> None:
        """Take events while they are `reached`."""
        while self._next is not None and reached(self._next):
            position, at, key, fields = self._next
            state = self._states.get(key)
            if state is None:
                state = self._states[key] = State(self._layout)
            self.in_time.append(state.add(at, position, fields))
            self._next = next(self._events, None)

    def values(self, row: _Asked, features: Sequence[Windowed]) -> Mapping[str, FeatureValue]:
        """Return the row's features as of now; none without a key."""
        if row.key is None:
            return {}
        return self._states.get(row.key, self._nothing).values(row.at, features)


def _events(events: pa.Table, layout: Layout) -> Iterator[Event]:
    names = (*layout.numeric, *layout.categorical)
    columns = [events[name].to_pylist() for name in names]
    positions, times = events["position"].to_pylist(), events["at"].to_pylist()
    keys = events[layout.key].to_pylist()
    for number, (position, at, key) in enumerate(zip(positions, times, keys, strict=True)):
        yield position, at, key, {n: c[number] for n, c in zip(names, columns, strict=True)}
