"""Events over HTTP: taken by a stream process over its socket, and seen by the next request."""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from conftest import StoppedClock
from fakes.streamed import NOON, streamed_fleet, written_model

from driftloop.features.operator import layouts
from driftloop.prediction_log import SegmentSpool
from driftloop.records import Prediction
from driftloop.serve.channel import StreamClient, StreamServer, socket_path
from driftloop.serve.lookup import Lookups
from driftloop.serve.online import online_app
from driftloop.serve.service import Service
from driftloop.serve.slot import Slots
from driftloop.serve.sources import Sources
from driftloop.serve.store import StateStore, TableStore
from driftloop.serve.stream import Stream
from driftloop.spec import Fleet

MODEL = "/v1/models/eta-de/predict"
EVENTS = "/v1/events/departures"
AT = "2026-03-01T12:00:00Z"


class KeptSpool:
    """A spool in memory."""

    def __init__(self) -> None:
        self.kept: list[Prediction] = []

    def predictions(self, family: str, rows: Any) -> None:
        self.kept.extend(rows)


@dataclass
class StreamProcess:
    """What the stream process does, in a thread of this one; it can be away."""

    fleet: Fleet
    home: Path
    states: StateStore
    clock: StoppedClock

    def start(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,))
        self._thread.start()
        assert ready.wait(10)

    def end(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        self._loop.close()

    def _run(self, ready: threading.Event) -> None:
        with SegmentSpool(self.home / "spool" / "stream") as spool:
            stream = Stream(
                sources={"departures": self.fleet.sources["departures"]},
                layouts=layouts(self.fleet),
                store=self.states,
                spool=spool,
                clock=self.clock,
            )
            stream.agree(self)
            server = StreamServer(stream)
            path = socket_path(self.home)
            self._loop.run_until_complete(server.run(path, self._stop, ready=ready.set))

    def newest(self, _: object) -> int:
        return 0

    def since(self, *_: object) -> list[object]:
        return []

    def past_mark(self, _: object) -> None:
        return None


@dataclass
class Running:
    """The online service, and what stands behind it."""

    http: httpx.Client
    spool: KeptSpool
    stream: StreamProcess
    tables: TableStore
    clock: StoppedClock

    def tell(self, *events: dict[str, Any], **one: Any) -> httpx.Response:
        body = {"events": list(events)} if events else {"departed_at": AT, **one}
        return self.http.post(EVENTS, json=body)

    def ask(self, **row: Any) -> httpx.Response:
        return self.http.post(MODEL, json={"asked_at": AT, "distance": 100.0, **row})


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def running(home: Path) -> Iterator[Running]:
    """One service for the module, whose model answers `distance + delay_mean`."""
    fleet, clock = streamed_fleet(home / "monitors"), StoppedClock(NOON)
    tables = TableStore(home / "tables", most_bytes=2**26)
    states = StateStore(home / "states", most_bytes=2**26)
    stream = StreamProcess(fleet, home, states, clock)
    stream.start()
    spool = KeptSpool()
    as_spool: Any = spool
    client = StreamClient(socket_path(home))
    service = Service(
        fleet=fleet,
        slots=Slots(fleet),
        spool=as_spool,
        clock=clock,
        complete=Lookups(fleet, tables=tables, states=states, clock=clock).complete,
        sources=Sources(fleet, tables=tables, states=states, stream=client, clock=clock),
    )
    head = written_model(home / "model.onnx")
    app = online_app(service, heads=lambda: (head,), poll_every=0.05)
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", access_log=False))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    with httpx.Client(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=30) as http:
        yield Running(http, spool, stream, tables, clock)
    server.should_exit = True
    thread.join(10)
    stream.end()
    states.close()
    tables.close()


def until(true: Callable[[], bool]) -> None:
    for _ in range(200):
        if true():
            return
        threading.Event().wait(0.05)
    pytest.fail("it did not become true in time")


def test_a_request_sees_the_event_that_was_accepted_before_it(running: Running) -> None:
    """At once; the answer is of it, and its log row has the stream's position."""
    for number in range(1, 11):
        told = running.tell(id=f"s{number}", origin="SEES", delay=float(number))
        assert told.status_code == 202
        answer = running.ask(origin="SEES")
        assert answer.json()["predictions"][0]["prediction"] == 100 + (number + 1) / 2
        logged = running.spool.kept[-1]
        assert logged.features["departures_60m"] == number
        assert logged.position == told.json()["position"]
        assert logged.fallbacks == ("plane_age",)


def test_what_became_of_events_is_told(running: Running) -> None:
    """How many were taken, were known already, and are late."""
    first = {"id": "t1", "departed_at": AT, "origin": "TOLD", "delay": 1}
    late = {"id": "t2", "departed_at": "2026-03-01T11:00:00Z", "origin": "TOLD", "delay": 1}
    told = running.tell(first, late).json()
    assert (told["accepted"], told["repeated"], told["late"]) == (2, 0, 1)
    again = running.tell(first, late).json()
    assert again == {"accepted": 0, "repeated": 2, "late": 0, "position": told["position"]}


def test_faults_are_told_as_those_of_rows_are(running: Running) -> None:
    """Row and field; nothing of such a request is taken."""
    good = {"id": "f1", "departed_at": AT, "origin": "FAULT", "delay": 1}
    refused = running.tell(good, {**good, "id": "f2", "delay": "x"})
    assert refused.status_code == 422
    (fault,) = refused.json()["error"]["faults"]
    assert (fault["row"], fault["field"]) == (1, "delay")
    assert running.http.post(EVENTS, content=b"nonsense").status_code == 400
    held = running.http.get("/v1/features/departures/FAULT").json()
    assert held["states"][0]["events"] == 0


def test_an_unknown_source_is_404(running: Running) -> None:
    """A table takes no events; what there is, is said."""
    for path in ("/v1/events/nothing", "/v1/events/planes"):
        refused = running.http.post(path, json={})
        assert refused.status_code == 404
        assert "departures" in refused.json()["error"]["hint"]
    assert running.http.get("/v1/features/nothing/JFK").status_code == 404


def test_while_the_stream_process_is_away_events_are_refused_and_requests_answered(
    running: Running,
) -> None:
    """503 with Retry-After; what is sent again once it is back counts once."""
    running.tell(id="a1", origin="AWAY", delay=4.0)
    running.stream.end()
    try:
        refused = running.tell(id="a2", origin="AWAY", delay=8.0)
        assert refused.status_code == 503
        assert refused.headers["retry-after"] == "1"
        assert "count once" in refused.json()["error"]["hint"]
        answer = running.ask(origin="AWAY")
        assert answer.json()["predictions"][0]["prediction"] == 104
    finally:
        running.stream.start()
    until(lambda: running.tell(id="a2", origin="AWAY", delay=8.0).status_code == 202)
    running.tell(id="a2", origin="AWAY", delay=8.0)
    assert running.ask(origin="AWAY").json()["predictions"][0]["prediction"] == 106


def test_many_events_are_taken_as_one_request(running: Running) -> None:
    """More than are read on the loop, and none twice."""
    events = [
        {"id": f"m{n}", "departed_at": AT, "origin": "MANY", "delay": n % 10} for n in range(3_000)
    ]
    assert running.tell(*events).json()["accepted"] == 3_000
    assert running.tell(*events).json()["repeated"] == 3_000
    assert running.ask(origin="MANY").json()["predictions"][0]["prediction"] == 104.5


def test_a_feature_that_is_looked_up_cannot_be_sent(running: Running) -> None:
    """It is named as such."""
    refused = running.ask(origin="JFK", delay_mean=1.0)
    assert refused.status_code == 422
    assert refused.json()["error"]["faults"][0]["what"] == "is looked up"


def test_what_is_held_of_a_key_is_shown_with_its_age(running: Running) -> None:
    """Of a stream with what it makes now, of a table with its row; a key may hold a slash."""
    running.tell(id="h1", origin="A/B", delay=3.0)
    running.tables.replace("planes", ["age"], [("N1", [7.0])], loaded_at=NOON)
    running.clock.shown = NOON + timedelta(minutes=40)
    try:
        (held,) = running.http.get("/v1/features/departures/A/B").json()["states"]
        assert held["newest"] == "2026-03-01T12:00:00Z"
        assert (held["field"], held["events"], held["age_seconds"]) == ("origin", 1, 2400)
        assert held["features"] == {"eta": {"delay_mean": None, "departures_60m": 1.0}}
        table = running.http.get("/v1/features/planes/N1").json()
        assert (table["row"], table["rows"], table["age_seconds"]) == ({"age": 7.0}, 1, 2400)
        assert running.http.get("/v1/features/planes/N2").json()["row"] is None
    finally:
        running.clock.shown = NOON


def test_the_routes_are_described(running: Running) -> None:
    """With an example that can be sent as it is."""
    described = running.http.get("/openapi.json").json()
    body = described["paths"]["/v1/events/{source}"]["post"]["requestBody"]
    example = body["content"]["application/json"]["examples"]["departures"]["value"]
    assert running.http.post(EVENTS, json=example).status_code == 202
    assert "/v1/features/{source}/{key}" in described["paths"]
