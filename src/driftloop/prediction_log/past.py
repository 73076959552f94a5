"""Events from before driftloop, checked and given places in the stream."""

import os
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from driftloop.errors import BadRequest, LogError
from driftloop.prediction_log.source import AHEAD, Columns
from driftloop.records import Event, FeatureValue
from driftloop.spec import Source

TIES = 1024
"""So many events of one source may have one time."""
BEFORE = -(2**62)
"""All of history stands before position 0, in the order of its times."""


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
Known = Callable[[datetime, datetime], Iterable[Event]]
"""Tells the past events of a source that are known already, of times from one to another."""


def past_events(
    source: Source, table: pa.Table, *, now: datetime, known: Known = lambda *_: ()
) -> list[Event]:
    """Return what of `table` is not `known`, as events before any that was streamed, by time.

    It has the source's time column (a time without a zone is taken as UTC) and fields; others are
    passed over. An event is known by its time and fields, and one that is in the table twice
    counts twice. A new one stands after those of its time that are known, in the table's order.

    Raises:
        BadRequest: there are no rows, a column is missing or of the wrong type, a time is missing
            or impossible, or too many events have one time; names column and row (from 1).
    """
    where = f"history of {source.name}"
    time = str(source.time)
    given = Columns(table, where=where)
    given.need(time, *source.fields)
    if not table.num_rows:
        raise BadRequest("it has no rows", where=where)
    times = given.times(time)
    given.refuse(time, times.is_null(), "is missing")
    given.timely(time, times, now + AHEAD)
    fields = {
        name: given.numbers(name) if kind == "numeric" else given.texts(name)
        for name, kind in source.fields.items()
    }
    found = pa.table({"_at": times, **fields})
    found = found.take(pc.sort_indices(found, [("_at", "ascending")]))
    values = zip(*(found[name].to_pylist() for name in source.fields), strict=True)
    whens, ats = found["_at"].to_pylist(), found["_at"].cast(pa.int64()).to_pylist()
    held, free = _held(source, known(whens[0], whens[-1]))
    events: list[Event] = []
    for when, at, value in zip(whens, ats, values, strict=True):
        if held[at, value]:
            held[at, value] -= 1
            continue
        tie = free[at]
        free[at] += 1
        if tie == TIES:
            raise BadRequest(
                f"more than {TIES} events have the time {when.isoformat()}",
                where=f"{where}: {time}",
                hint="give finer times, or fewer of these events",
            )
        events.append(
            Event(
                id=f"past-{at}-{tie}",
                source=source.name,
                position=BEFORE + at * TIES + tie,
                event_time=when,
                received_at=when,
                fields=dict(zip(source.fields, value, strict=True)),
            )
        )
    return events


def past_mark(spool: Path, source: Source) -> str | None:
    """Return what stands for all past events of `source` that `spool` was given, None for none.

    It is empty while they are given some, and stays so when that is broken off.

    Raises:
        LogError: it cannot be read.
    """
    try:
        return _mark(spool, source).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise LogError(f"the spool cannot be read: {error}", where=str(spool)) from error


def set_past_mark(spool: Path, source: Source, mark: str) -> None:
    """Say so durably: empty before past events are given, another one than ever after it.

    Raises:
        LogError: it cannot be written.
    """
    file = _mark(spool, source)
    part = file.with_suffix(".part")
    try:
        with part.open("w", encoding="utf-8") as written:
            written.write(mark)
            written.flush()
            os.fsync(written.fileno())
        part.replace(file)
    except OSError as error:
        raise LogError(f"the spool cannot be written: {error}", where=str(spool)) from error


def _mark(spool: Path, source: Source) -> Path:
    return spool / f"{source.name}.past"


def _held(
    source: Source, known: Iterable[Event]
) -> tuple[Counter[tuple[int, tuple[FeatureValue, ...]]], Counter[int]]:
    """Return how often each event is known, and the first place that is free at each time."""
    held: Counter[tuple[int, tuple[FeatureValue, ...]]] = Counter()
    free: Counter[int] = Counter()
    for event in known:
        at = (event.event_time - _EPOCH) // _MICROSECOND
        held[at, tuple(event.fields.get(name) for name in source.fields)] += 1
        free[at] = max(free[at], event.position - BEFORE - at * TIES + 1)
    return held, free
