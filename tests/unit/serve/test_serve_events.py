"""Events as callers send them: read, or refused with every fault named."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fakes.streamed import NOON, streamed_fleet

from driftloop.serve.events import EventReader, Posted, parse_events
from driftloop.serve.request import BadRows, NotJson
from driftloop.spec import Source

GOOD: dict[str, Any] = {
    "id": "a",
    "departed_at": "2026-03-01T13:00:00+01:00",
    "origin": "JFK",
    "delay": 7,
}


@pytest.fixture(scope="module")
def departures(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """A source of events, whose events may be 15 minutes late."""
    return streamed_fleet(tmp_path_factory.mktemp("fleet") / "monitors").sources["departures"]


def read(source: Source, given: object, now: datetime = NOON) -> list[Posted]:
    """Return what the quick reader makes of it, which is what the careful one does."""
    body = given if isinstance(given, bytes) else json.dumps(given).encode()
    found = EventReader(source).read(body, now=now)
    assert parse_events(source, body, now=now)[0].time == found[0].time
    return found


def faults(source: Source, given: object, now: datetime = NOON) -> list[tuple[int | None, str]]:
    """Return row and field of each fault, in order."""
    with pytest.raises(BadRows) as caught:
        EventReader(source).read(json.dumps(given).encode(), now=now)
    return sorted((fault.row or 0, fault.field) for fault in caught.value.faults)


def test_an_event_is_read(departures: Source) -> None:
    """One alone or many; its time in UTC, its fields in the source's order, empty ones null."""
    assert read(departures, GOOD) == [Posted(id="a", given=True, time=NOON, fields=("JFK", 7.0))]
    many = {"events": [GOOD, {**GOOD, "id": "b", "origin": "", "delay": None}]}
    assert [each.fields for each in read(departures, many)] == [("JFK", 7.0), (None, None)]


def test_an_id_is_made_where_none_is_given(departures: Source) -> None:
    """Such an event cannot be known again, and says so."""
    bare = {name: value for name, value in GOOD.items() if name != "id"}
    found = read(departures, {"events": [bare, bare]})
    assert [each.given for each in found] == [False, False]
    assert len({each.id for each in found}) == 2


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"delay": "7"}, "delay"),
        ({"delay": True}, "delay"),
        ({"delay": 1e39}, "delay"),
        ({"origin": 7}, "origin"),
        ({"origin": "x" * 501}, "origin"),
        ({"gate": "B"}, "gate"),
        ({"id": ""}, "id"),
        ({"id": "x" * 201}, "id"),
        ({"departed_at": None}, "departed_at"),
        ({"departed_at": "2026-03-01T12:00:00"}, "departed_at"),
        ({"departed_at": 1772366400}, "departed_at"),
        ({"departed_at": "1850-01-01T00:00:00Z"}, "departed_at"),
    ],
)
def test_a_fault_names_row_and_field(
    departures: Source, change: dict[str, Any], field: str
) -> None:
    """Among many as well as alone."""
    assert faults(departures, {**GOOD, **change}) == [(0, field)]
    assert faults(departures, {"events": [{**GOOD, "id": "z"}, {**GOOD, **change}]}) == [(1, field)]


def test_every_fault_is_told(departures: Source) -> None:
    """Missing fields too: what is not known is sent as null."""
    given = {"events": [{"id": "a"}, {**GOOD, "id": "b", "delay": "x", "origin": 1}]}
    told = [(0, "delay"), (0, "departed_at"), (0, "origin"), (1, "delay"), (1, "origin")]
    assert faults(departures, given) == told
    assert faults(departures, {"events": [GOOD, GOOD]}) == [(1, "id")]
    assert faults(departures, {"events": []}) == [(0, "events")]


def test_an_event_may_not_lie_further_ahead_than_others_may_be_late(departures: Source) -> None:
    """Else what really happens meanwhile would count as late, for that key, until then."""
    at = datetime(2026, 3, 1, 12, tzinfo=UTC)
    assert read(departures, GOOD, now=at - timedelta(minutes=15))
    assert faults(departures, GOOD, now=at - timedelta(minutes=16)) == [(0, "departed_at")]
    with pytest.raises(BadRows) as caught:
        EventReader(departures).read(json.dumps(GOOD).encode(), now=at - timedelta(minutes=16))
    assert "is more than 15 minutes after the service's clock" in str(caught.value.faults)
    instant = departures.model_copy(update={"lateness": None})
    assert read(instant, GOOD, now=at - timedelta(seconds=60))
    assert faults(instant, GOOD, now=at - timedelta(seconds=61)) == [(0, "departed_at")]


@pytest.mark.parametrize("body", [b"", b"nonsense", b'{"delay": \xff}', b"[" * 100_000])
def test_what_is_no_json_is_told_apart(departures: Source, body: bytes) -> None:
    """It is no fault of a field."""
    with pytest.raises(NotJson):
        EventReader(departures).read(body, now=NOON)
