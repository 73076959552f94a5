"""The replay against a real HTTP server that notes what it is sent, and when."""

import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from driftloop.clock import Clock
from driftloop.demo.replay import Happenings, Tally, Traffic, happenings, replay, traffic
from driftloop.records import ModelId
from driftloop.spec import Family, Source, load_fleet

MONITORS = Path(__file__).parents[3] / "monitors"
MODEL = ModelId("late-arrival-jfk-dl")
START = datetime(2013, 6, 1, tzinfo=UTC)
DAYS = 10
END = START + timedelta(days=DAYS)


@dataclass
class Noted:
    """A server's notes: what came, in order, and the loop's time at which it came."""

    clock: Clock
    url: str = ""
    came: list[tuple[datetime, str, dict[str, Any]]] = field(default_factory=list)
    refuses: set[int] = field(default_factory=set)
    """Numbers of the requests that are answered with 500."""


@pytest.fixture
def server() -> Iterator[Noted]:
    """A server that runs through ten days in a second and a half."""
    speed = DAYS * 86400 / 1.5
    noted = Noted(Clock(origin=START, started=datetime.now(UTC), speed=speed))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            refused = len(noted.came) in noted.refuses
            noted.came.append((noted.clock.now(), self.path, body))
            self.send_response(500 if refused else 200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    noted.url = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield noted
    http.shutdown()
    thread.join()
    http.server_close()


@pytest.fixture
def late() -> Family:
    """The demo's binary family."""
    return load_fleet(MONITORS).family_named("late-arrival")


@pytest.fixture
def stream(late: Family) -> Traffic:
    """A departure every hour of ten days and of the days around; every tenth never lands."""
    return traffic(departures(late), late, MODEL, start=START, end=END)


@pytest.fixture
def source() -> Source:
    """The events that the demo feeds."""
    return load_fleet(MONITORS).sources["departures"]


@pytest.fixture
def happening(source: Source) -> Happenings:
    """A departure each half hour, from a day before the start to a day after the end."""
    at = pd.date_range(START - timedelta(days=1), END + timedelta(days=1), freq="30min")
    delays = [None if n % 5 == 0 else float(n % 7) for n in range(len(at))]
    ids = [f"e{n:04d}" for n in range(len(at))]
    events = pd.DataFrame({"id": ids, "departed_at": at, "origin": "JFK", "delay": delays})
    return happenings(events, source, start=START, end=END)


def departures(family: Family) -> pd.DataFrame:
    """Rows of two markets, hourly from a day before the start to a day after the end."""
    hours = 24 * (DAYS + 2)
    at = [START + timedelta(hours=n - 24) for n in range(hours)]
    frame = pd.DataFrame(
        {
            "id": [f"f{n:04d}" for n in range(hours)],
            "market": ["jfk-dl" if n % 4 else "jfk-aa" for n in range(hours)],
            "scheduled_departure": pd.to_datetime(at, utc=True),
            # Of three in a row the first lands last: labels come in another order than requests.
            "landed": pd.to_datetime(
                [
                    None if n % 10 == 0 else at[n] + timedelta(hours=5 - 2 * (n % 3))
                    for n in range(hours)
                ],
                utc=True,
            ),
            "late": [None if n % 10 == 0 else float(n % 2) for n in range(hours)],
        }
    )
    for name, feature in family.requested.items():
        frame[name] = "LAX" if feature.kind == "categorical" else 1.0
    frame.loc[frame.index % 7 == 0, "temp"] = float("nan")
    return frame


def test_traffic_is_the_market_between_start_and_end(late: Family, stream: Traffic) -> None:
    """Its departures in order, nulls as null, no outcome in a row; labels of the landed alone."""
    frame = departures(late)
    mine = frame[(frame["market"] == "jfk-dl")]
    mine = mine[(mine["scheduled_departure"] >= START) & (mine["scheduled_departure"] < END)]
    assert [row["id"] for row in stream.rows] == mine["id"].tolist()
    assert all(set(row) == {"id", "scheduled_departure", *late.requested} for row in stream.rows)
    assert {row["temp"] for row in stream.rows} == {None, 1.0}
    landed = mine[mine["landed"].notna()]
    assert sorted(label["id"] for label in stream.labels) == landed["id"].tolist()
    assert list(stream.known_at) == sorted(stream.known_at)
    assert json.loads(json.dumps([*stream.rows, *stream.labels], allow_nan=False))


def test_each_row_and_label_is_sent_once_in_order_and_not_before_its_time(
    server: Noted, stream: Traffic
) -> None:
    """Nothing is sent that is not known yet, nothing twice, and of what is due nothing is left."""
    tally = Tally()
    replay([stream], url=server.url, clock=server.clock, end=END, tally=tally, stop=lambda: False)
    rows = [
        (at, row) for at, path, body in server.came if "predict" in path for row in body["rows"]
    ]
    labels = [
        (at, one) for at, path, body in server.came if "labels" in path for one in body["labels"]
    ]
    assert [row for _, row in rows] == list(stream.rows)
    due = sum(at <= END for at in stream.known_at)
    assert 0 < due < len(stream.labels)
    assert [one for _, one in labels] == list(stream.labels[:due])
    assert all(at >= datetime.fromisoformat(row["scheduled_departure"]) for at, row in rows)
    assert all(at >= datetime.fromisoformat(one["observed_at"]) for at, one in labels)
    assert len(server.came) > 4
    assert {path for _, path, _ in server.came} == {
        f"/v1/models/{MODEL}/predict",
        f"/v1/models/{MODEL}/labels",
    }
    assert (tally.rows, tally.labels) == (len(rows), len(labels))
    assert (tally.requests, tally.failures) == (len(server.came), [])


def test_events_are_those_between_start_and_end(happening: Happenings) -> None:
    """In order, with their ids; what is not known is null."""
    assert happening.happened_at[0] == START
    assert happening.happened_at[-1] == END - timedelta(minutes=30)
    assert len(happening.events) == DAYS * 48
    assert set(happening.events[0]) == {"id", "departed_at", "origin", "delay"}
    assert None in {event["delay"] for event in happening.events}
    assert json.loads(json.dumps(happening.events, allow_nan=False))


def test_a_row_is_sent_after_all_that_happened_and_before_what_makes_it_late(
    server: Noted, stream: Traffic, happening: Happenings
) -> None:
    """Each event once; a row finds those up to its time, and none newer by the lateness or more.

    So it is however much falls due at once: between two looks more time passes than that.
    """
    tally = Tally()
    replay(
        [stream],
        [happening],
        url=server.url,
        clock=server.clock,
        end=END,
        tally=tally,
        stop=lambda: False,
    )
    came: list[str] = []
    for at, path, body in server.came:
        for event in body.get("events", []):
            assert path == "/v1/events/departures"
            assert datetime.fromisoformat(event["departed_at"]) <= at
            came.append(event["departed_at"])
        for row in body.get("rows", []):
            asked = datetime.fromisoformat(row["scheduled_departure"])
            newest = datetime.fromisoformat(came[-1])
            assert asked <= newest < asked + happening.source.late_after
    assert came == [event["departed_at"] for event in happening.events]
    assert tally.events == len(came)
    assert tally.rows == len(stream.rows)
    assert (tally.requests, tally.failures) == (len(server.came), [])


def test_events_that_are_refused_are_a_failure(
    server: Noted, stream: Traffic, happening: Happenings
) -> None:
    """They are told with path and status, and do not count as sent."""
    server.refuses = {0}
    tally = Tally()
    replay(
        [stream],
        [happening],
        url=server.url,
        clock=server.clock,
        end=END,
        tally=tally,
        stop=lambda: False,
    )
    assert len(tally.failures) == 1
    assert "/v1/events/departures: 500" in tally.failures[0]
    assert tally.events == len(happening.events) - len(server.came[0][2]["events"])


def test_a_failed_request_is_counted_and_not_repeated(server: Noted, stream: Traffic) -> None:
    """One 500 is one failure that names path and status; its rows do not count as answered."""
    server.refuses = {0}
    tally = Tally()
    replay([stream], url=server.url, clock=server.clock, end=END, tally=tally, stop=lambda: False)
    sent = [row["id"] for _, path, body in server.came if "predict" in path for row in body["rows"]]
    assert sent == [row["id"] for row in stream.rows]
    assert len(tally.failures) == 1
    assert f"/v1/models/{MODEL}/predict: 500" in tally.failures[0]
    assert tally.rows == len(stream.rows) - len(server.came[0][2]["rows"])


def test_a_service_that_is_gone_is_told_as_failures(stream: Traffic) -> None:
    """Nobody listens: every request is a failure, and the replay comes to its end."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    clock = Clock(origin=END, started=datetime.now(UTC), speed=1.0)
    tally = Tally()
    replay(
        [stream],
        url=f"http://127.0.0.1:{port}",
        clock=clock,
        end=END,
        tally=tally,
        stop=lambda: False,
    )
    assert (tally.requests, tally.rows, tally.labels) == (2, 0, 0)
    assert all("ConnectError" in failure for failure in tally.failures)
    assert len(tally.failures) == 2


def test_a_replay_that_is_told_to_stop_stops(server: Noted, stream: Traffic) -> None:
    """After the first look nothing more is sent."""
    looks = iter([False, True])
    replay(
        [stream],
        url=server.url,
        clock=server.clock,
        end=END,
        tally=Tally(),
        stop=lambda: next(looks),
    )
    assert sum(len(body["rows"]) for _, path, body in server.came if "predict" in path) < len(
        stream.rows
    )
