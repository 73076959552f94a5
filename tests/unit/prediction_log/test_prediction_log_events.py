"""Events read back from the log: in the lake, or sealed and about to be read into it."""

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from conftest import StoppedClock
from fakes.streamed import NOON, streamed_fleet

from driftloop.prediction_log import EventLog, Ingester, Lake, SegmentSpool
from driftloop.records import Event
from driftloop.spec import Fleet


def event(position: int, *, source: str = "departures", minutes: float = 0.0) -> Event:
    """One event; those of before driftloop have positions below 0."""
    return Event(
        id=f"e{position}",
        source=source,
        position=position,
        event_time=NOON + timedelta(minutes=minutes),
        received_at=NOON,
        fields={"origin": "JFK", "delay": float(position)},
    )


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    """A fleet with a source of events."""
    return streamed_fleet(tmp_path / "monitors")


def write(folder: Path, rows: Sequence[Event]) -> None:
    with SegmentSpool(folder / "spool" / "stream") as spool:
        spool.events("departures", rows)


def test_events_are_read_from_lake_and_spool_by_position_each_once(
    tmp_path: Path, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever they are, and if they were logged twice; those before a time are left out."""
    monkeypatch.setattr("driftloop.prediction_log.events.PAGE", 2)
    source = fleet.sources["departures"]
    lake = Lake(tmp_path / "lake", fleet, read_only=False)
    log = EventLog(tmp_path / "spool", lake)
    assert log.newest(source) == 0
    assert list(log.since(source, NOON)) == []
    early = event(3, minutes=-1)
    write(tmp_path, [event(1), event(2), early, event(4), event(5)])
    assert log.newest(source) == 5
    with Ingester(tmp_path / "spool", lake, StoppedClock(NOON)) as ingester:
        ingester.ingest()
    write(tmp_path, [event(5), event(6), event(7)])
    assert log.newest(source) == 7
    assert list(log.since(source, NOON)) == [event(n) for n in (1, 2, 4, 5, 6, 7)]
    lake.close()


def test_past_events_come_before_those_that_were_streamed(tmp_path: Path, fleet: Fleet) -> None:
    """Their positions are far below 0; by themselves they can be had for a span of time."""
    source = fleet.sources["departures"]
    lake = Lake(tmp_path / "lake", fleet, read_only=False)
    log = EventLog(tmp_path / "spool", lake)
    first, second, third = -(2**62), -(2**62) + 1024, -(2**62) + 2048
    write(tmp_path, [event(1), event(second), event(first, minutes=-1)])
    with Ingester(tmp_path / "spool", lake, StoppedClock(NOON)) as ingester:
        ingester.ingest()
    write(tmp_path, [event(2), event(third), event(second)])
    assert [each.position for each in log.since(source, NOON)] == [second, third, 1, 2]
    past = [event(first, minutes=-1), event(second), event(third)]
    assert list(log.past(source, NOON - timedelta(minutes=1), NOON)) == past
    assert log.newest(source) == 2
    lake.close()


def test_an_event_that_comes_again_is_in_the_log_once(tmp_path: Path, fleet: Fleet) -> None:
    """As after a death before it was known to be logged: at the same time, or later."""
    with Lake(tmp_path / "lake", fleet, read_only=False) as lake:
        for rows in ([event(2), event(1)], [event(2), event(3)]):
            write(tmp_path, rows)
        with Ingester(tmp_path / "spool", lake, StoppedClock(NOON)) as ingester:
            ingester.ingest()
            write(tmp_path, [event(1), event(3), event(4)])
            ingester.ingest()
            assert ingester.ingest().segments == 0
        held = lake.query("SELECT id FROM lake.departures_events ORDER BY position")
        assert held["id"].to_pylist() == ["e1", "e2", "e3", "e4"]
