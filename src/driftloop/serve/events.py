"""What happened, as callers tell it: events of a source, parsed once; every fault is gathered."""

import uuid
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Annotated, Any

import msgspec

from driftloop.records import FeatureValue
from driftloop.serve.request import (
    LARGEST,
    LONGEST_ID,
    LONGEST_WORD,
    Faults,
    check_unique,
    decoded,
    items_of,
    nearest,
    not_a_number,
    one_or_many,
    read_id,
    read_time,
    shown_of,
    time_of,
    too_long,
    untimely,
)
from driftloop.spec import Source

LEAST_AHEAD = timedelta(minutes=1)
"""How far ahead of the service's clock an event may lie at least: clocks differ."""


class Posted(msgspec.Struct, array_like=True, gc=False):
    """One event as it was told; `fields` has the values of the source's, in its order.

    An id that was `given` counts once however often it comes; one that was not is made.
    """

    id: str
    given: bool
    time: datetime
    fields: tuple[FeatureValue, ...]


class EventReader:
    """Reads the events of one source as `parse_events` does, what is without fault more quickly."""

    def __init__(self, source: Source) -> None:
        self._source = source
        one, many = _shapes(source)
        self._one: msgspec.json.Decoder[Any] = msgspec.json.Decoder(one)
        self._many: msgspec.json.Decoder[Any] = msgspec.json.Decoder(many)
        self._ahead = _ahead(source)

    def read(self, body: bytes, *, now: datetime) -> list[Posted]:
        """Return what `parse_events` returns, or raise what it raises."""
        try:
            try:
                given = [self._one.decode(body)]
            except msgspec.ValidationError:
                given = self._many.decode(body).events
            events = [self._event(each, now) for each in given]
        except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
            events = []
        if not events or (len(events) > 1 and len({each.id for each in events}) < len(events)):
            return parse_events(self._source, body, now=now)
        return events

    def _event(self, given: msgspec.Struct, now: datetime) -> Posted:
        id_, said, *values = msgspec.structs.astuple(given)
        time = read_time(said)
        if what := untimely(time, now=now, ahead=self._ahead):
            raise ValueError(what)
        fields = tuple(None if value == "" else value for value in values)
        return Posted(id_ or uuid.uuid4().hex, id_ is not None, time, fields)


def parse_events(source: Source, body: bytes, *, now: datetime) -> list[Posted]:
    """Return the events of `body`: one event object, or {"events": [...]}.

    An event is flat: the source's time (ISO 8601 with a zone), each of its fields, of which any
    may be null, and an `id` if the caller has one. An empty category is null. A time that lies
    further ahead of `now` than the source's lateness (and a minute) is refused: what really
    happens meanwhile would be late.

    Raises:
        NotJson: the body is not JSON.
        BadRows: with the faults of all events.
    """
    given, doubt = decoded(body)
    faults = Faults("events")
    items = items_of(given, "events", faults)
    events = [
        event
        for number, item in enumerate(items)
        if (event := _event(source, number, item, faults, now))
    ]
    check_unique(items, faults)
    faults.check()
    if doubt is not None:
        raise doubt
    return events


def _event(
    source: Source, number: int, given: object, faults: Faults, now: datetime
) -> Posted | None:
    if not isinstance(given, dict):
        faults.add(number, "", f"should be an object, got {shown_of(given)}")
        return None
    known = ("id", str(source.time), *source.fields)
    for name in given.keys() - set(known):
        faults.add(number, name, "unknown field", nearest(name, known) if faults.room else "")
    fields = tuple(_field(source, name, number, given, faults) for name in source.fields)
    id_ = read_id(number, given, faults)
    time = str(source.time)
    at = time_of(number, time, given.get(time), faults, (now, _ahead(source)))
    if at is None:
        return None
    return Posted(id_ or uuid.uuid4().hex, id_ is not None, at, fields)


def _field(
    source: Source, name: str, number: int, given: Mapping[str, Any], faults: Faults
) -> FeatureValue:
    value = given.get(name)
    if name not in given:
        faults.add(number, name, "is missing", "if it is not known send null")
    elif value is None:
        return None
    elif source.fields[name] == "numeric":
        if not (what := not_a_number(value)):
            return float(value)
        faults.add(number, name, what, "if it is not known send null")
    elif not isinstance(value, str):
        faults.add(number, name, f"should be a string, got {shown_of(value)}")
    elif what := too_long(value):
        faults.add(number, name, what)
    else:
        return value or None
    return None


def _ahead(source: Source) -> timedelta:
    return max(source.late_after, LEAST_AHEAD)


def _shapes(source: Source) -> tuple[type[msgspec.Struct], type[msgspec.Struct]]:
    """Return the types of requests without fault: one event, and `events`."""
    kinds: dict[str, Any] = {
        "numeric": Annotated[float, msgspec.Meta(ge=-LARGEST, le=LARGEST)],
        "categorical": Annotated[str, msgspec.Meta(max_length=LONGEST_WORD)],
    }
    id_: Any = Annotated[str, msgspec.Meta(min_length=1, max_length=LONGEST_ID)]
    fields: dict[str, Any] = {"id": (id_ | None, None), str(source.time): (str,)}
    fields |= {name: (kinds[kind] | None,) for name, kind in source.fields.items()}
    return one_or_many(fields, "events")
