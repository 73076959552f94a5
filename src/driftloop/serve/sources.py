"""What is asked of the sources over HTTP: events are taken, and what is held of a key is shown."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from driftloop.errors import LogError, UnknownSource
from driftloop.features.operator import Layout, Windowed, layouts, windowed
from driftloop.ports import Clock
from driftloop.serve.events import EventReader, Posted
from driftloop.serve.exchange import Reply, told
from driftloop.serve.request import nearest
from driftloop.serve.store import Named, StateStore, Stored, TableStore
from driftloop.serve.stream import Taken, state_of
from driftloop.spec import Fleet, Source

INLINE_BYTES = 32 * 1024
"""A larger body is read in a thread so that others need not wait."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Stream(Protocol):
    """The stream process, wherever it is."""

    async def post(self, source: str, events: list[Posted]) -> Taken:
        """Return what became of `events`, once they are durable.

        Raises:
            NotTaken: it is away, or took nothing; the same may be sent again.
        """
        ...


class Sources:
    """The sources of a fleet, as callers see them.

    Args:
        fleet: whose sources.
        tables: where batch tables are.
        states: where the states of streams are.
        stream: what takes events.
        clock: ages are told by its time, and events may not lie far ahead of it.
    """

    def __init__(
        self,
        fleet: Fleet,
        *,
        tables: TableStore,
        states: StateStore,
        stream: Stream,
        clock: Clock,
    ) -> None:
        self._fleet = fleet
        self._tables, self._states = tables, states
        self._stream = stream
        self._clock = clock
        self._kept = layouts(fleet)
        self._readers = {
            name: EventReader(source)
            for name, source in fleet.sources.items()
            if source.kind == "events"
        }

    def takes(self, source: str) -> bool:
        """Return whether events of `source` are taken."""
        return source in self._readers

    def read(self, source: str, body: bytes) -> list[Posted]:
        """Return the events of `body`; see `events.parse_events`.

        Raises:
            UnknownSource: no source of events has that name.
        """
        reader = self._readers.get(source)
        if reader is None:
            raise _unknown(source, "no source of events", self._readers)
        return reader.read(body, now=self._clock.now())

    async def take(self, source: str, body: bytes) -> Reply:
        """Return the reply to events of `source`, once they are durable.

        Raises:
            UnknownSource: no source of events has that name.
            NotJson, BadRows: see `events.parse_events`; nothing was taken.
            NotTaken: the stream process is away; the same may be sent again.
        """
        if len(body) > INLINE_BYTES:
            events = await asyncio.to_thread(self.read, source, body)
        else:
            events = self.read(source, body)
        taken = await self._stream.post(source, events)
        return told(
            202,
            {
                "accepted": taken.accepted,
                "repeated": taken.repeated,
                "late": taken.late,
                "position": taken.position,
            },
        )

    def show(self, source: str, key: str) -> Reply:
        """Return the reply that tells what the online store holds of `key`, and how old it is.

        Raises:
            UnknownSource: there is no such source.
            StoreError: the store cannot be read.
        """
        declared = self._fleet.sources.get(source)
        if declared is None:
            raise _unknown(source, "no source", self._fleet.sources)
        now = self._clock.now()
        if declared.kind == "table":
            shown = self._of_table(declared, key, now)
        else:
            shown = self._of_events(declared, key, now)
        return told(200, {"source": source, "key": key, "kind": declared.kind, **shown})

    def _of_table(self, source: Source, key: str, now: datetime) -> dict[str, Any]:
        with self._tables.reading() as view:
            loaded, row = view.loaded(source.name), view.row(source.name, key)
        if loaded is None:
            return {"loaded_at": None, "age_seconds": None, "rows": 0, "row": None}
        return {
            "loaded_at": loaded.loaded_at,
            "age_seconds": (now - loaded.loaded_at).total_seconds(),
            "rows": loaded.rows,
            "row": None if row is None else dict(zip(loaded.columns, row, strict=True)),
        }

    def _of_events(self, source: Source, key: str, now: datetime) -> dict[str, Any]:
        held = []
        with self._states.reading() as view:
            position = view.position
            for (of, field), layout in self._kept.items():
                if of == source.name:
                    stored = view.state(Named(of, field, key))
                    held.append({"field": field, **self._of_state(layout, stored, now)})
        return {"position": position, "states": held}

    def _of_state(self, layout: Layout, stored: Stored | None, now: datetime) -> dict[str, Any]:
        """Return what is held of one key by one field, and what its features are now."""
        try:
            state = state_of(layout, stored)
        except LogError:
            return {"newest": None, "age_seconds": None, "events": 0, "features": {}}
        newest = _EPOCH + state.newest * _MICROSECOND if len(state) else None
        at = (now - _EPOCH) // _MICROSECOND
        features = {
            family.name: state.values(at, features)
            for family in self._fleet.families
            if (features := _features(windowed(family), layout))
        }
        return {
            "newest": newest,
            "age_seconds": (now - newest).total_seconds() if newest is not None else None,
            "events": len(state),
            "features": features,
        }


def _features(
    of_family: Mapping[tuple[str, str], tuple[Windowed, ...]], layout: Layout
) -> tuple[Windowed, ...]:
    return of_family.get((layout.source, layout.key), ())


def _unknown(source: str, what: str, known: Mapping[str, object]) -> UnknownSource:
    hint = nearest(source, known) if known else "declare it in sources.toml"
    return UnknownSource(f"there is {what} {source[:100]!r}", hint=hint)
