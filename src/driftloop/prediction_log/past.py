"""Events from before driftloop, checked and given places in the stream."""

from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from driftloop.errors import BadRequest
from driftloop.prediction_log.source import AHEAD, Columns
from driftloop.records import Event
from driftloop.spec import Source

TIES = 1024
"""So many events of one source may have one time."""
BEFORE = -(2**62)
"""All of history stands before position 0, in the order of its times."""


def past_events(source: Source, table: pa.Table, *, now: datetime) -> list[Event]:
    """Return `table` as events that happened before any that was streamed, in order of time.

    It has the source's time column (a time without a zone is taken as UTC) and fields; others are
    passed over. An event's position and id are made of its time, and of its place among those of
    the same time: the same table gives the same events again.

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
    columns = [found[name].to_pylist() for name in source.fields]
    whens, ats = found["_at"].to_pylist(), found["_at"].cast(pa.int64()).to_pylist()
    events: list[Event] = []
    tie = 0
    for number, (when, at) in enumerate(zip(whens, ats, strict=True)):
        tie = tie + 1 if number and ats[number - 1] == at else 0
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
                fields={n: c[number] for n, c in zip(source.fields, columns, strict=True)},
            )
        )
    return events
