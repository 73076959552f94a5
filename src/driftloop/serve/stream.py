"""The stream process's work: events in; positions, states and the log out, each event once.

One process of a home does it. A batch of events goes through four steps:

1. Each new event gets the next position, and is added to the states of its keys.
2. States, position, ids, sequences of JetStream and the events themselves (the outbox) are
   written to the online store in ONE durable transaction. It alone decides whether the batch
   happened.
3. The events are appended to the spool, from where they reach the log.
4. Whoever sent them is told. The next transaction takes them out of the outbox.

A death before the end of step 2 leaves nothing: nobody was told, and what is sent again is new.
After it the events are taken: an event that comes again, because nobody was told, is known by its
id (or by its sequence in JetStream) and changes nothing. What the outbox has is appended to the
spool at the next start; it may be in the log by then, under the same position, and the log reads
a position once. So states and log agree, and hold each event that was acknowledged exactly once.
An event over HTTP without an id of its own cannot be known again: sent twice it counts twice.

Ids are held for the longest lateness of any source, an hour at least, by the wall clock. The
spool's disk may be full: then the outbox keeps the events, and once it is long nothing more is
taken.

The states are made anew from the log where they are not what the log tells: when the monitors ask
for other windows or fields (`mark`), and when the log has positions that the store does not know,
as after the store was removed or a backup was brought back. When the log was given past events
(`past`) they are made anew too, while rows are served of them, in one transaction. It takes a
position of its own: rows that were read before it were read without those events, and show it.

Nothing is kept of a key to which no event came for its longest window, the lateness, and another
lateness (a day at least), by the time of its source's newest event: who sends late what had
gathered finds the states as they were. An event that is older than that finds no newest event of
its key to be late against.
"""

import logging
import time
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import NamedTuple, Protocol

import msgspec

from driftloop.errors import DriftloopError, LogError
from driftloop.features.operator import Layout, State
from driftloop.ports import Clock, Spool
from driftloop.records import Event
from driftloop.serve.events import Posted
from driftloop.serve.store import Later, Named, Sequences, StateChange, StateStore, Stored
from driftloop.serve.store.states import LARGE
from driftloop.spec import Source

IDS_FOR = timedelta(hours=1)
"""Ids are held at least so long, by the wall clock."""
FORGET_AFTER = timedelta(days=1)
"""The lateness that is allowed for, at least, when keys are forgotten."""
MOST_UNLOGGED = 1000
"""So many batches may wait for the spool; then nothing more is taken."""
MOST_HELD = 256 * 2**20
"""Bytes of states that are held in memory, as they are packed."""
MOST_BESIDE = 64
"""So often events are put beside a large state before it is written anew, and so many events at
least: who reads it adds them to what was packed."""
SWEPT = 2_000
"""States that one look at old ones looks at."""
REPLAYED = 20_000
"""Events of the log that are taken in one transaction."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_log = logging.getLogger(__name__)


class NotTaken(DriftloopError):
    """The stream process took nothing; the same events may be sent again."""


class Post(NamedTuple):
    """Events of one source that came together.

    From JetStream `sequences` has the place of each in `stream`; `done` are those of messages that
    held no event, and all up to `floor` were taken.
    """

    source: str
    events: Sequence[Posted]
    stream: str = ""
    sequences: Sequence[int] = ()
    done: Sequence[int] = ()
    floor: int = 0


class Taken(msgspec.Struct, frozen=True, array_like=True):
    """What became of a post.

    `accepted` events are in the log, of which `late` ones are not aggregated by some key;
    `repeated` ones were known already. `position` is that of the newest event of all.
    """

    accepted: int
    repeated: int
    late: int
    position: int


class EventLog(Protocol):
    """What the log has of events."""

    def newest(self, source: Source) -> int:
        """Return the largest position of the source's events, 0 where there are none."""
        ...

    def since(self, source: Source, time: datetime) -> Iterable[Event]:
        """Return the source's events that happened at `time` or later, by position, each once."""
        ...

    def past_mark(self, source: Source) -> str | None:
        """Return a mark of all past events that the log was given; empty while it is given some."""
        ...


def mark_of(layouts: Mapping[tuple[str, str], Layout], source: str) -> str:
    """Return what tells states of `source` that were made for `layouts` from any other."""
    digests = [f"{key}:{each.digest}" for (of, key), each in layouts.items() if of == source]
    return " ".join(sorted(digests)) or "no key"


def state_of(layout: Layout, stored: Stored | None) -> State:
    """Return the state that is held of a key, an empty one where nothing is.

    Raises:
        LogError: it was packed for another layout, or is damaged.
    """
    if stored is None:
        return State(layout)
    state = State.unpack(layout, stored.packed)
    for events in stored.later:
        for event in events:
            state.add(event.time, event.position, event.fields)
    return state


class Stream:
    """Takes events, one batch after the other.

    Args:
        sources: the sources of events, by name.
        layouts: what is kept of them, by source and key.
        store: of the states; nobody else writes it.
        spool: of this process.
        clock: when events were received is its time.

    Raises:
        StoreError: the store cannot be read.
        LogError: what was taken before the last end could not be logged.
    """

    def __init__(
        self,
        *,
        sources: Mapping[str, Source],
        layouts: Mapping[tuple[str, str], Layout],
        store: StateStore,
        spool: Spool,
        clock: Clock,
    ) -> None:
        self._sources = sources
        self._store = store
        self._spool = spool
        self._clock = clock
        self._names = {name: tuple(source.fields) for name, source in sources.items()}
        self._keys: dict[str, list[tuple[str, Layout]]] = {name: [] for name in sources}
        for (source, key), layout in layouts.items():
            self._keys[source].append((key, layout))
        self._marks = {name: mark_of(layouts, name) for name in sources}
        lateness = max((s.late_after for s in sources.values()), default=timedelta())
        self._ids_for = max(lateness, IDS_FOR).total_seconds()
        self._held: OrderedDict[Named, _Held] = OrderedDict()
        self._held_bytes = 0
        self._newest: dict[str, datetime] = {}
        self._past: dict[str, str] = {}
        self._sent: list[int] = []
        self._unsent = 0
        self._place = b""
        self._log_left()

    def check(self, post: Post) -> None:
        """Refuse a post that whoever sent it made by other monitor files.

        Raises:
            NotTaken: its source is unknown, or has other fields.
        """
        names = self._names.get(post.source)
        if names is None or any(len(event.fields) != len(names) for event in post.events):
            raise NotTaken(
                "the stream process reads other monitor files than the service that this came to",
                where=post.source,
                hint="restart both: `driftloop up`",
            )

    def take(self, posts: Sequence[Post]) -> list[Taken]:
        """Return what became of each of `posts`, once it is durable.

        Raises:
            StoreError: the store took nothing of it.
            NotTaken: the log has taken nothing for long.
        """
        if self._unsent:
            self._try_log_left()
        if self._unsent >= MOST_UNLOGGED:
            raise NotTaken(
                "the log takes no more events", where="stream", hint="is the spool's disk full?"
            )
        batch = _Batch(logged=len(self._sent))
        try:
            with self._store.writing() as change:
                self._begin(change, batch)
                taken = [self._take(change, batch, post) for post in posts]
                self._finish(change, batch)
        except BaseException:
            # In memory they are ahead of the store now.
            for named in batch.touched:
                self._drop(named)
            raise
        self._committed(batch)
        return taken

    def tend(self) -> None:
        """Do what need not be done at once; call it every second or so.

        Raises:
            StoreError: the store could not be written.
        """
        if self._unsent:
            self._try_log_left()
        self._store.forget_dead_readers()
        now = self._clock.now()
        older = {
            # Until an event came nothing is known of its source's time, and all is kept.
            name: _micros(self._forgotten(name, min(now, self._newest.get(name, _EPOCH))))
            for name in self._sources
        }
        logged = len(self._sent)
        with self._store.writing() as change:
            self._clear_outbox(change)
            self._place = change.sweep(self._place, older, SWEPT)
        del self._sent[:logged]
        while self._held_bytes > MOST_HELD and self._held:
            _, old = self._held.popitem(last=False)
            self._held_bytes -= old.size

    def lacks_past(self, log: EventLog) -> bool:
        """Return whether `log` has past events that the states were not made of: then `agree`."""
        return bool(self._lacking(log)) and not self._unsent

    def agree(self, log: EventLog, *, alive: Callable[[], None] = lambda: None) -> tuple[str, ...]:
        """Make the states anew that are not what `log` tells, and return their sources.

        `log` has all that was taken. `alive` is called now and then.

        Raises:
            LogError: the log cannot be read.
            StoreError: the store could not be written; it is done again at the next start.
        """
        with self._store.reading() as view:
            position = view.position
            marks = {name: view.mark(name) for name in self._sources}
            past = {name: view.past(name) for name in self._sources}
        self._past = {name: taken[0] for name, taken in past.items() if taken is not None}
        # Before the log is read: what is given meanwhile has another mark.
        lacking = self._lacking(log)
        stale = [name for name in self._sources if marks[name] != self._marks[name]]
        # Nothing is logged before the store has it, durably: it is not behind the log.
        if stale or not position:
            stale = self._catch_up(log, stale, position)
        for name, mark in lacking.items():
            self._take_past(log, name, mark, made=name in stale, alive=alive)
        return tuple(name for name in self._sources if name in stale or name in lacking)

    # -- a batch ----------------------------------------------------------------------------

    def _begin(self, change: StateChange, batch: "_Batch") -> None:
        batch.now = self._clock.now()
        batch.position = change.position
        self._clear_outbox(change)
        self._turn(change)

    def _take(self, change: StateChange, batch: "_Batch", post: Post) -> Taken:
        done = self._done(change, post) if post.stream else None
        names, keys = self._names[post.source], self._keys[post.source]
        accepted = late = 0
        for index, event in enumerate(post.events):
            if done is not None:
                sequence = post.sequences[index]
                if _among(done.taken, sequence):
                    continue
                done.taken = _with(done.taken, sequence, sequence)
            if event.given and not change.note(post.source, event.id):
                continue
            batch.position += 1
            fields = dict(zip(names, event.fields, strict=True))
            at = _micros(event.time)
            in_time = True
            for key, layout in keys:
                value = fields[key]
                if value is not None:
                    named = Named(post.source, key, str(value))
                    batch.touched[named] = held = self._hold(change, layout, named)
                    held.new.append(Later(at, batch.position, fields))
                    in_time &= held.state.add(at, batch.position, fields)
            accepted += 1
            late += not in_time
            self._newest[post.source] = max(event.time, self._newest.get(post.source, _EPOCH))
            batch.events.append(
                Event(
                    id=event.id,
                    source=post.source,
                    position=batch.position,
                    event_time=event.time,
                    received_at=batch.now,
                    fields=fields,
                )
            )
        if done is not None:
            for sequence in post.done:
                done.taken = _with(done.taken, sequence, sequence)
            change.set_sequences(post.source, done)
        return Taken(accepted, len(post.events) - accepted, late, batch.position)

    def _finish(self, change: StateChange, batch: "_Batch") -> None:
        if not batch.events:
            return
        for named, held in batch.touched.items():
            self._put(change, named, held)
        change.set_position(batch.position)
        change.send(batch.position, batch.events)

    def _committed(self, batch: "_Batch") -> None:
        del self._sent[: batch.logged]
        if not batch.events:
            return
        try:
            self._append(batch.events)
        except LogError as error:
            # They are in the outbox, and it is tried again.
            _log.error("%s", error)
            self._unsent += 1
        else:
            self._sent.append(batch.position)

    def _done(self, change: StateChange, post: Post) -> Sequences:
        known = change.sequences(post.source)
        if known is None or known.stream != post.stream:
            known = Sequences(post.stream, [])
        if post.floor > 0:
            known.taken = _with(known.taken, 1, post.floor)
        return known

    def _turn(self, change: StateChange) -> None:
        change.turn(int(time.time() // self._ids_for))

    # -- states -----------------------------------------------------------------------------

    def _hold(self, change: StateChange, layout: Layout, named: Named) -> "_Held":
        held = self._held.get(named)
        if held is not None:
            self._held.move_to_end(named)
            return held
        stored = change.state(named)
        held = self._held[named] = _Held(state_of(layout, stored))
        if stored is not None:
            held.size, held.beside = len(stored.packed), len(stored.later)
            self._held_bytes += held.size
        return held

    def _put(self, change: StateChange, named: Named, held: "_Held") -> None:
        new, held.new = held.new, []
        if held.size >= LARGE and held.beside < MOST_BESIDE and 0 < len(new) < MOST_BESIDE:
            change.put_beside(named, held.state.newest, new)
            held.beside += 1
            return
        held.beside = 0
        packed = held.state.pack()
        change.put(named, Stored(held.state.newest, packed))
        self._held_bytes += len(packed) - held.size
        held.size = len(packed)

    def _drop(self, named: Named) -> None:
        held = self._held.pop(named, None)
        if held is not None:
            self._held_bytes -= held.size

    def _forgotten(self, source: str, now: datetime) -> datetime:
        """Return the time that the newest event of a key must not be before."""
        span = max((layout.span for _, layout in self._keys[source]), default=0)
        return now - span * _MICROSECOND - max(self._sources[source].late_after, FORGET_AFTER)

    # -- the log ----------------------------------------------------------------------------

    def _log_left(self) -> None:
        """Append what the outbox has: it may not be in the log."""
        with self._store.reading() as view:
            left = list(view.outbox())
        for number, events in left:
            if number not in self._sent:
                self._append(events)
                self._sent.append(number)
        self._unsent = 0

    def _try_log_left(self) -> None:
        try:
            self._log_left()
        except LogError as error:
            _log.warning("%s", error)

    def _append(self, events: Sequence[Event]) -> None:
        by_source: dict[str, list[Event]] = {}
        for event in events:
            by_source.setdefault(event.source, []).append(event)
        for source, rows in by_source.items():
            try:
                self._spool.events(source, rows)
            except OSError as error:
                raise LogError(f"the events could not be logged: {error}", where=source) from error

    def _clear_outbox(self, change: StateChange) -> None:
        for number in self._sent:
            change.sent(number)

    def _lacking(self, log: EventLog) -> dict[str, str]:
        """Return the marks of past events that the states of sources were not made of."""
        given = {name: log.past_mark(source) for name, source in self._sources.items()}
        return {name: mark for name, mark in given.items() if mark and mark != self._past.get(name)}

    def _catch_up(self, log: EventLog, stale: list[str], position: int) -> list[str]:
        """Make the states of `stale` sources anew; of all, if the store is behind the log."""
        newest = max((log.newest(source) for source in self._sources.values()), default=0)
        if newest > position:
            stale = list(self._sources)
        for name in stale:
            self._replay(log, name, known=position)
        if newest > position:
            with self._store.writing() as change:
                change.set_position(newest)
        return stale

    def _take_past(
        self, log: EventLog, source: str, mark: str, *, made: bool, alive: Callable[[], None]
    ) -> None:
        """Make the states of a source anew, if they are not `made` yet, and note it: as one."""
        try:
            with self._store.writing() as change:
                if not made:
                    self._forget(change, source)
                    for part in self._logged(log, source):
                        self._add(change, source, part)
                        alive()
                change.set_position(change.position + 1)
                change.set_past(source, mark, change.position)
        except BaseException:
            self._drop_all(source)  # as in `take`
            raise
        self._past[source] = mark
        _log.info("the states of %s were made anew: the log was given past events", source)

    def _replay(self, log: EventLog, source: str, *, known: int) -> None:
        with self._store.writing() as change:
            change.set_mark(source, "")
            self._forget(change, source)
        recent = self._clock.now() - timedelta(seconds=self._ids_for)
        replayed = 0
        for part in self._logged(log, source):
            replayed += len(part)
            with self._store.writing() as change:
                self._turn(change)
                for event in part:
                    if event.position > known and event.received_at >= recent:
                        change.note(source, event.id)
                self._add(change, source, part)
        with self._store.writing() as change:
            change.set_mark(source, self._marks[source])
        _log.info("the states of %s were made anew from %d events of the log", source, replayed)

    def _logged(self, log: EventLog, source: str) -> Iterator[list[Event]]:
        """Yield what the log has that states may need, some events at a time."""
        now = self._clock.now()
        since = self._forgotten(source, min(now, self._newest.get(source, now)))
        events = iter(log.since(self._sources[source], since) if self._keys[source] else ())
        while part := list(islice(events, REPLAYED)):
            yield part

    def _add(self, change: StateChange, source: str, events: Sequence[Event]) -> None:
        """Add events of the log to the states of their keys."""
        touched: dict[Named, _Held] = {}
        for event in events:
            at = _micros(event.event_time)
            for key, layout in self._keys[source]:
                value = event.fields.get(key)
                if value is not None:
                    named = Named(source, key, str(value))
                    touched[named] = held = self._hold(change, layout, named)
                    held.state.add(at, event.position, event.fields)
        for named, held in touched.items():
            self._put(change, named, held)

    def _forget(self, change: StateChange, source: str) -> None:
        self._drop_all(source)
        change.forget_states(source)

    def _drop_all(self, source: str) -> None:
        for named in [each for each in self._held if each.source == source]:
            self._drop(named)


@dataclass(slots=True)
class _Held:
    """A state in memory.

    It had `size` bytes when it was last packed; then events were put beside it so often, and the
    `new` ones are in no store yet.
    """

    state: State
    size: int = 0
    beside: int = 0
    new: list[Later] = field(default_factory=list)


@dataclass(slots=True)
class _Batch:
    """What one transaction gathers; with it `logged` batches leave the outbox."""

    logged: int = 0
    now: datetime = _EPOCH
    position: int = 0
    touched: dict[Named, _Held] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)


def _micros(time: datetime) -> int:
    return (time - _EPOCH) // _MICROSECOND


def _among(ranges: Sequence[tuple[int, int]], number: int) -> bool:
    """Return whether `number` is in one of `ranges`.

    >>> _among([(1, 4), (7, 9)], 5), _among([(1, 4), (7, 9)], 9)
    (False, True)
    """
    place = bisect_right(ranges, (number, 2**63)) - 1
    return place >= 0 and ranges[place][0] <= number <= ranges[place][1]


def _with(ranges: list[tuple[int, int]], first: int, last: int) -> list[tuple[int, int]]:
    """Return `ranges` with all from `first` to `last`; it may be changed in place.

    >>> _with([(1, 4), (7, 9)], 5, 6), _with([(1, 4), (7, 9)], 11, 11)
    ([(1, 9)], [(1, 4), (7, 9), (11, 11)])
    """
    if ranges and ranges[-1][1] + 1 == first:
        ranges[-1] = (ranges[-1][0], last)
        return ranges
    merged: list[tuple[int, int]] = []
    for low, high in sorted([*ranges, (first, last)]):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], high))
        else:
            merged.append((low, high))
    return merged
