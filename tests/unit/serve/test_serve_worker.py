"""A worker on a real socket: callers that keep it waiting, and its end."""

import asyncio
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from driftloop.serve.door import ABSENT, Counted, Door
from driftloop.serve.worker import Patience, Worker

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


class App:
    """Answers `ok`; `/slow` once it may."""

    def __init__(self) -> None:
        self.may = threading.Event()
        self.begun = threading.Event()
        self.ended = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            assert (await receive())["type"] == "lifespan.startup"
            await send({"type": "lifespan.startup.complete"})
            await receive()
            self.ended = True
            await send({"type": "lifespan.shutdown.complete"})
            return
        while (await receive()).get("more_body"):
            pass
        if scope["path"] == "/slow":
            self.begun.set()
            await asyncio.to_thread(self.may.wait, 20)
        headers = [(b"content-length", b"2")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"ok"})


class Running:
    """A worker in a thread, and how to reach it."""

    def __init__(self, patience: Patience, alive: int | None = None) -> None:
        self.app = App()
        self.door = socket.create_server(("127.0.0.1", 0))
        self.port = self.door.getsockname()[1]
        self.worker = Worker(self.app, self.door, patience=patience, alive=alive)
        self.thread = threading.Thread(target=self.worker.answer)
        self.thread.start()

    def call(self, sent: bytes = GET) -> socket.socket:
        caller = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        caller.sendall(sent)
        return caller

    def stop(self) -> None:
        self.app.may.set()
        self.worker.should_exit = True
        self.thread.join(10)
        assert not self.thread.is_alive()


@pytest.fixture
def start() -> Iterator[Callable[..., Running]]:
    running: list[Running] = []

    def begin(alive: int | None = None, **patience: float) -> Running:
        running.append(Running(Patience(**patience), alive))
        return running[-1]

    yield begin
    for each in running:
        each.stop()


def told(caller: socket.socket) -> bytes:
    """Return what comes until the connection is closed."""
    parts = []
    while part := caller.recv(65536):
        parts.append(part)
    return b"".join(parts)


HEAD, BODY = (
    b"POST / HTTP/1.1\r\nHo",
    GET.replace(b"GET", b"POST").replace(b"\r\n\r\n", b"\r\nContent-Length: 9\r\n\r\n{"),
)


@pytest.mark.parametrize(
    ("before", "sent"),
    [(b"", b""), (b"", HEAD), (b"", BODY), (GET, HEAD), (GET, BODY)],
    ids=["nothing", "half a head", "half a body", "half a second head", "half a second body"],
)
def test_a_request_that_does_not_come_whole_is_ended(
    start: Any, before: bytes, sent: bytes
) -> None:
    """Whoever sends a part and no more is told 408, on a kept connection too, and it is closed."""
    running = start(arrival=0.2)
    caller = running.call(before)
    if before:
        assert caller.recv(65536).endswith(b"ok")
    caller.sendall(sent)
    said = told(caller)
    assert said.startswith(b"HTTP/1.1 408 Request Timeout\r\nconnection: close")
    assert said.endswith(b"}")
    assert b"the request did not come in time" in said


def test_a_caller_that_rests_between_requests_is_left_alone(start: Any) -> None:
    """The limit is for a request that has begun: an idle connection answers again."""
    running = start(arrival=0.1)
    caller = running.call()
    for _ in range(2):
        assert caller.recv(65536).endswith(b"ok")
        time.sleep(0.4)
        caller.sendall(GET)
    assert caller.recv(65536).endswith(b"ok")


def test_a_slow_answer_is_no_slow_request(start: Any) -> None:
    """A request that came whole may take longer to answer than the limit is for it to come."""
    running = start(arrival=0.1)
    caller = running.call(GET.replace(b"GET / ", b"GET /slow "))
    assert running.app.begun.wait(10)
    time.sleep(0.4)
    running.app.may.set()
    assert caller.recv(65536).endswith(b"ok")


def test_what_is_in_hand_is_finished_at_the_end(start: Any) -> None:
    """Told to end it accepts nothing more, answers what it has, says so, and then closes."""
    running = start()
    caller = running.call(GET.replace(b"GET / ", b"GET /slow "))
    assert running.app.begun.wait(10)
    running.worker.should_exit = True
    patience = time.monotonic() + 10
    while running.door.fileno() != -1:
        assert time.monotonic() < patience
        time.sleep(0.01)
    with pytest.raises(ConnectionRefusedError):
        running.call()
    assert not running.app.ended
    running.app.may.set()
    said = told(caller)
    assert b"connection: close" in said
    assert said.endswith(b"ok")
    running.thread.join(10)
    assert running.app.ended


def test_who_asks_again_at_the_end_is_answered_and_told(start: Any) -> None:
    """A kept connection that asks while the worker ends has its answer, with Connection: close."""
    running = start()
    idle, slow = running.call(), running.call(GET.replace(b"GET / ", b"GET /slow "))
    assert idle.recv(65536).endswith(b"ok")
    assert running.app.begun.wait(10)
    running.worker.should_exit = True
    while running.door.fileno() != -1:
        time.sleep(0.001)
    idle.sendall(GET)
    said = told(idle)
    assert b"200 OK" in said
    assert b"connection: close" in said
    running.app.may.set()
    assert told(slow).endswith(b"ok")


def test_what_takes_too_long_is_left(start: Any) -> None:
    """It does not wait for ever: after its limit it ends, and what is in hand with it."""
    running = start(drain=1.0)
    caller = running.call(GET.replace(b"GET / ", b"GET /slow "))
    assert running.app.begun.wait(10)
    running.worker.should_exit = True
    assert b"200 OK" not in told(caller)
    running.app.may.set()
    running.thread.join(10)
    assert running.app.ended


def test_it_does_not_outlive_who_started_it(start: Any) -> None:
    """When the other end of its pipe is closed, by whatever death, it ends as if told to."""
    reading, writing = os.pipe()
    running = start(alive=reading)
    assert told(running.call(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")))
    os.close(writing)
    running.thread.join(10)
    assert not running.thread.is_alive()
    assert running.app.ended
    os.close(reading)


def test_connections_are_shared_out(tmp_path: Any) -> None:
    """Of two workers on one socket each has about half of those that stay."""
    import asyncio

    from driftloop.serve.door import Door

    class Kept(asyncio.Protocol):
        def __init__(self, kept: list[Any]) -> None:
            self._kept = kept

        def connection_made(self, transport: Any) -> None:
            self._kept.append(transport)

    file = tmp_path / "connections"
    Counted.make(file, 3)  # the third is not there: nobody waits for it

    async def share() -> list[int]:
        kept: list[list[Any]] = [[], []]
        with socket.create_server(("127.0.0.1", 0)) as listening:
            doors = [
                Door(
                    listening.dup(),
                    lambda mine=mine: Kept(mine),
                    lambda mine=mine: len(mine),
                    Counted(file, place),
                )
                for place, mine in enumerate(kept)
            ]
            for door in doors:
                door.open()
            callers = [await asyncio.open_connection(*listening.getsockname()) for _ in range(20)]
            while sum(map(len, kept)) < len(callers):  # noqa: ASYNC110 - the doors' callbacks
                await asyncio.sleep(0.001)
            for door in doors:
                door.close()
            for _, writer in callers:
                writer.close()
            for transport in (*kept[0], *kept[1]):
                transport.abort()
            await asyncio.sleep(0)
            return [len(mine) for mine in kept]

    had = asyncio.run(share())
    assert sum(had) == 20
    assert min(had) >= 8
    assert Counted(file, 2).is_most() is False
    Counted(file, 0).say(3)
    Counted(file, 1).say(2)
    assert (Counted(file, 0).is_most(), Counted(file, 1).is_most()) == (True, False)
    Counted(file, 1).say(ABSENT)
    assert not Counted(file, 0).is_most()


def test_who_waits_at_the_door_is_let_in_before_it_closes() -> None:
    """Callers whom the system connected, and nobody accepted yet, are not cut off."""

    async def closed() -> int:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            callers = [socket.create_connection(listening.getsockname()) for _ in range(3)]
            let_in: list[asyncio.Protocol] = []

            def protocol() -> asyncio.Protocol:
                let_in.append(asyncio.Protocol())
                return let_in[-1]

            door = Door(listening, protocol, lambda: 0, None)
            door.open()
            door.close()
            await asyncio.gather(*door._handed)
            for caller in callers:
                caller.close()
            return len(let_in)

    assert asyncio.run(closed()) == 3
