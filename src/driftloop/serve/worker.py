"""One process that answers on a socket: nobody keeps it waiting, and it ends without a loss."""

import asyncio
import logging
import resource
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import FrameType
from typing import Any

import uvicorn

from driftloop.errors import BadRequest
from driftloop.serve.door import Counted, Door
from driftloop.serve.exchange import Asked, refusal

SWEEPS = 4
"""How often within a limit is looked whether it is over."""
LINGER = 1.0
"""Seconds that idle connections are kept at the end: who asks on one is answered, and told."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """Wall seconds that a worker waits: for a request to be whole, and for its end.

    `arrival` is from a connection, or a request's first byte, to the request's last byte, and how
    long a caller may leave its answer unread; `idle` is between requests; `drain` is for what is
    in hand when the worker is told to end.
    """

    arrival: float = 30.0
    # Longer than clients keep what is idle: closed by us, it may be just as they ask again.
    idle: float = 75.0
    drain: float = 5.0


class Worker(uvicorn.Server):
    """Answers on `door` until told to end; `run` returns once all that was in hand is answered.

    SIGTERM or SIGINT end it, and so does `alive`: a pipe that whoever started it holds open, so
    that it does not outlive them.

    Args:
        app: an ASGI application.
        door: a listening socket, which other workers may share.
        patience: how long is waited.
        alive: the reading end of a pipe; None for nobody's.
        counted: the connections of the workers that share the door; None for one that is alone.
    """

    def __init__(
        self,
        app: Any,  # noqa: ANN401 - uvicorn's own types are not public
        door: socket.socket,
        *,
        patience: Patience,
        alive: int | None = None,
        counted: Counted | None = None,
    ) -> None:
        config = uvicorn.Config(
            app,
            http="httptools",
            ws="none",
            log_config=None,  # ours is set
            access_log=False,
            timeout_keep_alive=round(patience.idle),
            timeout_graceful_shutdown=max(1, round(patience.drain)),
        )
        super().__init__(config)
        self._socket = door
        self._counted = counted
        self._door: Door | None = None
        self._patience = patience
        self._alive = alive
        self._since: dict[tuple[Any, Any], float] = {}

    def answer(self) -> None:
        """Answer until told to end."""
        _allow_connections()
        self.run(sockets=[])

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application, then accept; called by uvicorn."""
        await super().startup(sockets)

        def protocol() -> asyncio.Protocol:
            made: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg] # as uvicorn does
                config=self.config, server_state=self.server_state, app_state=self.lifespan.state
            )
            return made

        connections: Any = self.server_state.connections
        self._door = Door(self._socket, protocol, lambda: len(connections), self._counted)
        self._door.open()

    async def main_loop(self) -> None:
        """Answer until told to end; called by uvicorn."""
        loop = asyncio.get_running_loop()
        if self._alive is not None:
            loop.add_reader(self._alive, self._left_alone)
        sweeping = loop.create_task(self._sweep())
        try:
            await super().main_loop()
        finally:
            sweeping.cancel()
            if self._alive is not None:
                loop.remove_reader(self._alive)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept nothing more, finish what is in hand, close what is idle; called by uvicorn."""
        if self._door is not None:
            self._door.close()
        self._socket.close()
        state = self.server_state
        # uvicorn closes a connection after an answer that says so.
        state.default_headers = [*state.default_headers, (b"connection", b"close")]
        for connection in [*state.connections]:
            if _in_hand(connection):
                connection.shutdown()
        until = time.monotonic() + min(LINGER, self._patience.drain)
        while state.connections and time.monotonic() < until:  # noqa: ASYNC110 - uvicorn's set
            await asyncio.sleep(0.02)
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - uvicorn's
        """End as asked; called by uvicorn, which would then die of the signal all the same."""
        self.should_exit = True

    def _left_alone(self) -> None:
        _log.warning("whoever started this worker is gone: it ends")
        self.should_exit = True
        if self._alive is not None:
            asyncio.get_running_loop().remove_reader(self._alive)

    async def _sweep(self) -> None:
        """End the connections of callers that keep us waiting.

        Looking at all of them now and then costs a request nothing; a timer for each would cost it
        a tenth of its time.
        """
        while True:
            await asyncio.sleep(min(1.0, self._patience.arrival / SWEEPS))
            if self._door is not None:
                self._door.say()
            now = time.monotonic()
            since, self._since = self._since, {}
            connections: list[Any] = [*self.server_state.connections]
            for connection in connections:
                end = _awaited(connection)
                if end is None:
                    continue
                key = (connection, connection.cycle)
                began = since.get(key, now)
                if now - began < self._patience.arrival:
                    self._since[key] = began
                else:
                    with suppress(OSError, RuntimeError):
                        end(connection)


def _awaited(connection: Any) -> Callable[[Any], None] | None:  # noqa: ANN401 - uvicorn's
    """Return how to end the wait for the caller of `connection`, None if none is waited for."""
    cycle = connection.cycle
    if connection.flow.write_paused:
        return _abort
    if _in_hand(connection):
        return _tell_late if cycle.more_body and not cycle.response_started else None
    # Between requests uvicorn has a timer of its own.
    return _tell_late if connection.timeout_keep_alive_task is None else None


def _in_hand(connection: Any) -> bool:  # noqa: ANN401 - uvicorn's
    return connection.cycle is not None and not connection.cycle.response_complete


def _abort(connection: Any) -> None:  # noqa: ANN401 - uvicorn's
    connection.transport.abort()


def _tell_late(connection: Any) -> None:  # noqa: ANN401 - uvicorn's
    late = BadRequest("the request did not come in time", where="request")
    reply = refusal(late, 408)
    lines = [b"HTTP/1.1 408 Request Timeout", b"connection: close"]
    lines += [b": ".join(header) for header in reply.headers(Asked())]
    connection.transport.write(b"\r\n".join((*lines, b"", reply.body)))
    connection.transport.close()


def _allow_connections() -> None:
    """Let this process have as many connections open as the system lets it."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
