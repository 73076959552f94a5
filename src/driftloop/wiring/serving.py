"""What answers: the online service, what it looks up, and the stream process."""

import secrets
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import cached_property, partial
from typing import TYPE_CHECKING

from driftloop.errors import BadRequest, UnknownSource
from driftloop.loop.consistency import Consistency
from driftloop.records import Reading
from driftloop.spec import Source
from driftloop.wiring.parts import Parts

if TYPE_CHECKING:
    import socket

    import pyarrow as pa
    from fastapi import FastAPI

    from driftloop.serve.answers import Answers
    from driftloop.serve.jetstream import JetStream
    from driftloop.serve.lookup import Lookups
    from driftloop.serve.refresh import Rows
    from driftloop.serve.sources import Sources
    from driftloop.serve.store import StateStore, TableStore
    from driftloop.serve.stream import Post, Taken
    from driftloop.serve.worker import Worker


LOOK_EVERY = timedelta(minutes=1)
"""How long a table that is due waits at most."""
SETTLED = timedelta(minutes=1)
"""So long after it was served, by the wall clock, a row's events are in the log."""
PAST_AT_ONCE = 10_000
"""Past events that are written at a time."""


class Serving(Parts):
    """What answers: the online service, what it looks up, and the stream process. See `System`."""

    @cached_property
    def answers(self) -> "Answers":
        """The answers of batches that are readable by id."""
        from driftloop.serve.answers import Answers

        return Answers(self.settings.answers, gib=self.settings.answers_gib)

    @cached_property
    def tables(self) -> "TableStore":
        """The copies of batch tables that features are looked up in."""
        from driftloop.serve.store import TableStore

        return TableStore(self.settings.online_store / "tables", most_bytes=self._store_bytes)

    @cached_property
    def states(self) -> "StateStore":
        """The state of streams that features are looked up in."""
        from driftloop.serve.store import StateStore

        return StateStore(self.settings.online_store / "streams", most_bytes=self._store_bytes)

    @property
    def _store_bytes(self) -> int:
        return int(self.settings.store_gib * 2**30)

    @cached_property
    def lookups(self) -> "Lookups | None":
        """What makes rows whole; None where no family has anything looked up or computed."""
        if not any(family.looked_up or family.computed for family in self.fleet.served.families):
            return None
        from driftloop.serve.lookup import Lookups

        return Lookups(self.fleet.served, tables=self.tables, states=self.states, clock=self.clock)

    @property
    def refresh_every(self) -> timedelta | None:
        """How often to look for tables that are due, None where there are none."""
        every = [each.refresh for each in self.fleet.sources.values() if each.refresh is not None]
        # One that could not be read, or is new, does not wait long.
        return min(*every, LOOK_EVERY) if every else None

    def due_tables(self) -> tuple[str, ...]:
        """Return the sources whose copies in the online store are older than their `refresh`.

        Raises:
            StoreError: the store cannot be read.
        """
        now = self.clock.now()
        due = []
        with self.tables.reading() as view:
            for name, source in self.fleet.sources.items():
                if source.refresh is not None:
                    loaded = view.loaded(name)
                    # Who asks comes a moment early now and then.
                    if loaded is None or now - loaded.loaded_at >= source.refresh * 0.95:
                        due.append(name)
        return tuple(due)

    def refresh(self, name: str) -> int:
        """Return how many keys of the table `name` are in the online store, read anew.

        Raises:
            UnknownSource: there is no such table.
            BadRequest: it cannot be read, or does not fit; the store keeps what it had.
            StoreError: the store could not be written; it keeps what it had.
        """
        source = self.fleet.sources.get(name)
        if source is None or source.source is None:
            known = [each.name for each in self.fleet.sources.values() if each.kind == "table"]
            raise UnknownSource(
                f"there is no table {name!r}",
                where="sources.toml",
                hint=f"known: {', '.join(known) or 'none'}",
            )
        now = self.clock.now()
        columns, rows = self._table(source, now)
        return self.tables.replace(name, columns, rows, loaded_at=now)

    def unfit_tables(self) -> tuple[BadRequest, ...]:
        """Return why tables that are declared could not be read into the online store."""
        unfit = []
        for source in self.fleet.sources.values():
            if source.source is None:
                continue
            try:
                self._table(source, self.clock.now())
            except BadRequest as error:
                where = f"sources.toml: {source.name}, {error.where}"
                unfit.append(BadRequest(error.what, where=where, hint=error.hint))
        return tuple(unfit)

    def _table(self, source: Source, now: datetime) -> "tuple[tuple[str, ...], Rows]":
        from driftloop.prediction_log import read_source
        from driftloop.serve.refresh import current_rows, wanted_columns

        wanted = wanted_columns(self.fleet, source.name)
        table = read_source(str(source.source), folder=self.fleet.folder)
        return tuple(wanted), current_rows(source, wanted, table, now=now)

    def run_stream(self, *, ready: Callable[[], None], alive: Callable[[], None]) -> None:
        """Take events until SIGTERM or SIGINT.

        Raises:
            ServiceError: it cannot listen.
            LogError: another process takes the events of this home, or the log cannot be read.
            StoreError: the online store cannot be read or written.
        """
        from driftloop.features.operator import layouts
        from driftloop.prediction_log import EventLog, SegmentSpool
        from driftloop.serve.process import run_stream
        from driftloop.serve.stream import Stream

        settings, fleet = self.settings, self.fleet.served
        events = {n: source for n, source in fleet.sources.items() if source.kind == "events"}
        # Always the same folder: it is the stream process's lock, and what a death left in it is
        # sealed before the log is asked.
        folder = settings.spool / "stream"
        with SegmentSpool(
            folder, seal_rows=settings.seal_rows, seal_every=settings.seal_every
        ) as spool:
            stream = Stream(
                sources=events,
                layouts=layouts(fleet),
                store=self.states,
                spool=spool,
                clock=self.clock,
            )
            log = EventLog(settings.spool, self.log)
            stream.agree(log)
            self.log.close()

            def between() -> None:
                if stream.lacks_past(log):
                    spool.seal()  # the log is asked for all that was taken
                    stream.agree(log, alive=alive)
                    self.log.close()

            named = any(each.nats for each in events.values())
            bus = (lambda take: self._jetstream(events, take)) if named else None
            run_stream(stream, settings.home, bus=bus, between=between, ready=ready, alive=alive)

    @property
    def consistency(self) -> Consistency:
        """What compares features as they were served with the log."""
        return Consistency(
            fleet=self.fleet,
            log=self.log,
            ledger=self.ledger,
            clock=self.clock,
            whole_from=self._whole_from,
        )

    def compare_features(self) -> tuple[Reading, ...]:
        """Return how far served features are from the log's; see `Consistency.check`.

        Rows of the last minute wait for the next time: their events may not be in the log yet.
        """
        settled = datetime.now(UTC) - SETTLED
        return self.consistency.check(until=self.clock.clock.at(settled))

    def _whole_from(self, name: str) -> int | None:
        """Return from which position on states have all past events of a source.

        None while they are given some.
        """
        from driftloop.prediction_log import past_mark

        given = past_mark(self.settings.spool, self.fleet.sources[name])
        if given is None:
            return 0
        with self.states.reading() as view:
            mark, position = view.past(name) or ("", 0)
        return position if given and mark == given else None

    def take_past(self, source: Source, table: "pa.Table") -> int:
        """Give the log the past events of `table` that it does not have; return how many.

        The stream process makes its states anew of them. When this is broken off, do it again.

        Raises:
            BadRequest: they cannot be used; see `past_events`.
            LogError: the log cannot be read or written, or others give it past events now.
        """
        from driftloop.prediction_log import EventLog, SegmentSpool, past_events, set_past_mark

        spooled = self.settings.spool
        # Always the same folder, as above: what others gave is sealed, and so is what a death left.
        with SegmentSpool(spooled / "past") as spool:
            log = EventLog(spooled, self.log)
            known = partial(log.past, source)
            events = past_events(source, table, now=self.clock.now(), known=known)
            if not events and log.past_mark(source):
                return 0
            set_past_mark(spooled, source, "")
            for start in range(0, len(events), PAST_AT_ONCE):
                spool.events(source.name, events[start : start + PAST_AT_ONCE])
            spool.seal()
            set_past_mark(spooled, source, secrets.token_hex(8))
        return len(events)

    def _jetstream(
        self, events: Mapping[str, Source], take: "Callable[[Post], Awaitable[Taken]]"
    ) -> "JetStream":
        from driftloop.serve.jetstream import JetStream

        return JetStream(
            url=self.settings.nats_url,
            sources=events,
            clock=self.clock,
            aside=self.settings.spool / "quarantine",
            take=take,
        )

    def online_app(self, place: int | None = None) -> "FastAPI":
        """Return the online service; with a `place`, one of its several workers."""
        from driftloop.serve.exchange import Bounds
        from driftloop.serve.online import online_app
        from driftloop.serve.peers import Peers
        from driftloop.serve.rollouts import Challengers
        from driftloop.serve.service import Service
        from driftloop.serve.sidecar import loader
        from driftloop.serve.slot import Memory, Slots
        from driftloop.serve.tokens import Guard, own_token

        settings = self.settings
        tokens = settings.tokens
        fleet, spool = self.fleet.served, self.spool("online")
        memory, load = Memory(settings.models_mib * 2**20), loader(self.sidecar)
        challengers = Challengers(
            slots=Slots(fleet, memory=memory, load=load),
            rollouts=self.ledger.rollouts,
            spool=spool,
            clock=self.clock,
        )

        def closing() -> None:
            challengers.close()
            spool.close()

        service = Service(
            fleet=fleet,
            slots=Slots(fleet, memory=memory, lazy=True, load=load),
            spool=spool,
            clock=self.clock,
            bounds=Bounds(
                requests=settings.most_requests,
                body=settings.most_body_mib * 2**20,
                seconds=settings.answer_within,
            ),
            peers=Peers() if place is None else Peers(settings.workers_shown, place),
            rollouts=challengers,
            complete=self.lookups.complete if self.lookups is not None else None,
            sources=self._sources() if fleet.sources else None,
        )
        return online_app(
            service,
            heads=self.ledger.heads,
            poll_every=settings.poll_every,
            closing=closing,
            guard=None if tokens is None else Guard(tokens, own=own_token(settings.own_token)),
            answers=self.answers.get,
        )

    def online_worker(
        self, door: "socket.socket", *, place: int | None = None, alive: int | None = None
    ) -> "Worker":
        """Return what answers online on `door`, alone or, with a `place`, beside others."""
        from driftloop.serve.door import COUNTED, Counted
        from driftloop.serve.worker import Patience, Worker

        settings = self.settings
        return Worker(
            self.online_app(place),
            door,
            patience=Patience(arrival=settings.arrive_within, drain=settings.drain_within),
            alive=alive,
            counted=None if place is None else Counted(settings.workers_shown / COUNTED, place),
        )

    def _sources(self) -> "Sources":
        from driftloop.serve.channel import StreamClient, socket_path
        from driftloop.serve.sources import Sources

        return Sources(
            self.fleet.served,
            tables=self.tables,
            states=self.states,
            stream=StreamClient(socket_path(self.settings.home)),
            clock=self.clock,
        )
