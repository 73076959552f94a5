"""What callers do not send: looked up in the online store, or computed of what is there."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from driftloop.errors import DriftloopError, LogError
from driftloop.features.completion import Completion
from driftloop.features.operator import Layout, Windowed, layouts, windowed
from driftloop.ports import Clock
from driftloop.records import FeatureValue
from driftloop.serve.request import Row
from driftloop.serve.store import Named, StateStore, StateView, TableStore, TableView
from driftloop.serve.stream import mark_of, state_of
from driftloop.spec import Family, Fleet

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class NothingFresh(DriftloopError):
    """What a feature is looked up in is away or too old, and the feature refuses rows without."""


@dataclass(frozen=True, slots=True)
class _Column:
    """A feature that is a column of a table."""

    name: str
    of: str
    max_age: timedelta | None


@dataclass(frozen=True, slots=True)
class _Streamed:
    """The features that are made of one source's events by one key."""

    source: str
    key: str
    layout: Layout
    features: tuple[Windowed, ...]


class Lookups:
    """Makes the rows of a fleet's families whole.

    Args:
        fleet: whose rows.
        tables: where batch tables are.
        states: where the states of streams are.
        clock: the age of tables is told by its time.
    """

    def __init__(
        self, fleet: Fleet, *, tables: TableStore, states: StateStore, clock: Clock
    ) -> None:
        kept = layouts(fleet)
        self._clock = clock
        self._of = {
            family.name: Lookup(family, kept=kept, tables=tables, states=states)
            for family in fleet.families
            if family.looked_up or family.computed
        }
        self._needed = {
            family.name: Lookup(needed, kept=kept, tables=tables, states=states)
            for family in fleet.families
            if (needed := _needed(family)) is not None
        }

    def complete(self, family: Family, rows: Sequence[Row]) -> Sequence[Row]:
        """Return `rows`, in their order, with every feature of `family`; see `Lookup.complete`.

        Raises:
            NothingFresh: what a feature is looked up in is away, and it refuses rows without.
            StoreError: the store cannot be read.
        """
        lookup = self._of.get(family.name)
        return rows if lookup is None else lookup.complete(rows, now=self._clock.now())

    def needs(self, family: Family) -> bool:
        """Return whether a feature of `family` refuses rows for which it has no value."""
        return family.name in self._needed

    def look(self, family: Family, rows: Sequence[Row]) -> Sequence[Row]:
        """Return `rows` as `complete` does, with no more looked up than what refuses rows.

        Raises:
            NothingFresh: what a feature is looked up in is away, and it refuses rows without.
            StoreError: the store cannot be read.
        """
        lookup = self._needed.get(family.name)
        return rows if lookup is None else lookup.complete(rows, now=self._clock.now())


class Lookup:
    """Makes the rows of one family whole.

    Args:
        family: whose rows.
        kept: what the whole fleet keeps of events, by source and key.
        tables: where batch tables are.
        states: where the states of streams are.
    """

    def __init__(
        self,
        family: Family,
        *,
        kept: Mapping[tuple[str, str], Layout],
        tables: TableStore,
        states: StateStore,
    ) -> None:
        self._tables, self._states = tables, states
        self._family = family
        self._completion = Completion(family)
        self._refusing = {name: f for name, f in family.looked_up.items() if f.refuses}
        self._columns: dict[tuple[str, str], list[_Column]] = {}
        for name, feature in family.looked_up.items():
            if feature.aggregate is None:
                place = (str(feature.source), str(feature.key))
                column = _Column(name, str(feature.of), feature.max_age)
                self._columns.setdefault(place, []).append(column)
        self._streamed = [
            _Streamed(source, key, kept[source, key], features)
            for (source, key), features in windowed(family).items()
        ]
        self._marks = {each.source: mark_of(kept, each.source) for each in self._streamed}

    def complete(self, rows: Sequence[Row], *, now: datetime) -> list[Row]:
        """Return `rows` with every feature, as all was at one moment.

        Where nothing is found the feature's fallback stands, and the row says so; it says too what
        it is `lacking`, and is not to be answered then.

        Raises:
            NothingFresh: what a feature is looked up in was never read, is too old, or is being
                made anew, and it refuses rows without; names the feature.
            StoreError: the store cannot be read.
        """
        whole = []
        with (
            self._tables.reading() if self._columns else nullcontext() as tables,
            self._states.reading() if self._streamed else nullcontext() as states,
        ):
            position = states.position if states is not None else None
            ready = [
                source
                for source, mark in self._marks.items()
                if states is not None and states.mark(source) == mark
            ]
            away = self._away(tables, ready, now) if self._refusing else {}
            for row in rows:
                found: dict[str, FeatureValue] = {}
                if tables is not None:
                    self._look_in_tables(tables, row, now, found)
                if states is not None:
                    self._look_in_streams(states, row, ready, found, away)
                made = self._completion.of(row.features, found)
                for name in made.refused:
                    if name in away and row.features[str(self._refusing[name].key)] is not None:
                        raise self._nothing_fresh(name, away[name])
                whole.append(
                    Row(
                        *(row.id, row.event_time, made.features, made.fallbacks, position),
                        lacking=made.refused,
                    )
                )
        return whole

    def _away(
        self, tables: TableView | None, ready: Collection[str], now: datetime
    ) -> dict[str, str]:
        """Return why no row has a value of these features, whatever its key."""
        away: dict[str, str] = {}
        for (source, _), columns in self._columns.items():
            loaded = tables.loaded(source) if tables is not None else None
            for column in columns:
                if loaded is None:
                    away[column.name] = "its table was not read yet"
                elif column.of not in loaded.columns:
                    away[column.name] = f"its table was not read yet with {column.of}"
                elif column.max_age is not None and now - loaded.loaded_at > column.max_age:
                    away[column.name] = "its table was not read for longer than its max_age"
        for each in self._streamed:
            if each.source not in ready:
                away |= {one.name: "its state is being made anew" for one in each.features}
        return away

    def _nothing_fresh(self, name: str, why: str) -> NothingFresh:
        return NothingFresh(
            f"{why}, and rows without a value are refused",
            where=f"{self._family.name}, {name}",
            hint=f"GET /v1/features/{self._refusing[name].source}/KEY shows what is held",
        )

    def _look_in_tables(
        self, view: TableView, row: Row, now: datetime, found: dict[str, FeatureValue]
    ) -> None:
        for (source, key), columns in self._columns.items():
            given, loaded = row.features[key], view.loaded(source)
            if given is None or loaded is None:
                continue
            values = view.row(source, str(given))
            if values is None:
                continue
            age = now - loaded.loaded_at
            for column in columns:
                fresh = column.max_age is None or age <= column.max_age
                if fresh and column.of in loaded.columns:
                    found[column.name] = values[loaded.columns.index(column.of)]

    def _look_in_streams(
        self,
        view: StateView,
        row: Row,
        ready: Collection[str],
        found: dict[str, FeatureValue],
        away: dict[str, str],
    ) -> None:
        at = (row.event_time - _EPOCH) // _MICROSECOND
        for each in self._streamed:
            given = row.features[each.key]
            if given is None or each.source not in ready:
                continue  # or its states are being made anew
            stored = view.state(Named(each.source, each.key, str(given)))
            try:
                state = state_of(each.layout, stored)
            except LogError:
                away |= {one.name: "its state cannot be read" for one in each.features}
                continue
            found.update(state.values(at, each.features))


def _needed(family: Family) -> Family | None:
    """Return `family` with what refuses rows, and its keys, alone; None without any."""
    refusing = {name: feature for name, feature in family.looked_up.items() if feature.refuses}
    keys = {str(feature.key) for feature in refusing.values()}
    kept = {n: f for n, f in family.features.items() if n in keys or n in refusing}
    return family.model_copy(update={"features": kept}) if refusing else None
