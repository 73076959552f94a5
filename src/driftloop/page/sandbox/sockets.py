"""The stand-in's Socket Mode: connections that clicks go down, each to be acknowledged.

A click goes down one connection. Where it is not acknowledged in time, or the connection ends
first, it goes down another (or the same) once more: a receiver sees it at least once.
"""

import asyncio
import json
import secrets
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

from fastapi import WebSocket, WebSocketDisconnect

from driftloop.page.sandbox.asked import APP, Body, Refused

CONNECTIONS = 10
"""So many connections an app may have."""
TICKET_LASTS = 30.0

_ATTEMPTS = 3
_LASTS = 18_060


@dataclass(slots=True, eq=False)
class _Connection:
    socket: WebSocket
    waiting: dict[str, asyncio.Future[Any]] = field(default_factory=dict)
    retiring: bool = False


class Sockets:
    """All connections there are; true where there is one."""

    def __init__(self) -> None:
        self._connections: list[_Connection] = []
        self._tickets: dict[str, float] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._turn = 0
        self._arrivals: list[asyncio.Future[None]] = []

    def __bool__(self) -> bool:
        """Whether there is a connection."""
        return bool(self._connections)

    def __len__(self) -> int:
        """How many there are."""
        return len(self._connections)

    def ticket(self) -> str:
        """Return what a connection is opened with, once and soon."""
        now = time.monotonic()
        self._tickets = {one: until for one, until in self._tickets.items() if until > now}
        ticket = secrets.token_hex(16)
        self._tickets[ticket] = now + TICKET_LASTS
        return ticket

    async def attend(self, socket: WebSocket) -> None:
        """Keep one connection until it ends."""
        until = self._tickets.pop(socket.query_params.get("ticket", ""), 0.0)
        if until < time.monotonic() or len(self._connections) >= CONNECTIONS:
            await socket.close(1008)
            return
        await socket.accept()
        connection = _Connection(socket)
        self._connections.append(connection)
        for arrival in self._arrivals:
            if not arrival.done():
                arrival.set_result(None)
        self._arrivals.clear()
        try:
            await socket.send_json(self._hello())
            while True:
                self._acknowledged(connection, await socket.receive_text())
        except (WebSocketDisconnect, RuntimeError):
            pass  # it ended
        finally:
            self._connections.remove(connection)
            for waiting in connection.waiting.values():
                if not waiting.done():
                    waiting.set_exception(ConnectionError("the connection ended"))

    async def deliver(self, payload: Body, within: float) -> tuple[str, Any]:
        """Send a click down and return what was wrong, "" for nothing, and what it was answered.

        Where nobody acknowledges it `within` seconds it is delivered again later.
        """
        if not self._connections:
            return "has no Socket Mode connection", None
        task = asyncio.create_task(self._attempts(payload, within))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            return "", await asyncio.wait_for(asyncio.shield(task), within)
        except (TimeoutError, ConnectionError):
            return "didn't respond in time", None

    async def disconnect(
        self, reason: Literal["warning", "refresh_requested", "link_disabled", "drop"], after: float
    ) -> int:
        """Tell all connections that they end, and end them `after` so many seconds.

        With `drop` they end at once and nobody is told. Returns how many there were.
        """
        ending = tuple(self._connections)
        for one in ending:
            one.retiring = True
            if reason != "drop":
                told = {"type": "disconnect", "reason": reason, "debug_info": {"host": "local"}}
                with suppress(RuntimeError, WebSocketDisconnect):
                    await one.socket.send_json(told)
        task = asyncio.create_task(self._end(ending, 0.0 if reason == "drop" else after))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return len(ending)

    def _hello(self) -> Body:
        return {
            "type": "hello",
            "num_connections": len(self._connections),
            "debug_info": {
                "host": "local",
                "build_number": 1,
                "approximate_connection_time": _LASTS,
            },
            "connection_info": {"app_id": APP},
        }

    def _acknowledged(self, connection: _Connection, said: str) -> None:
        with suppress(ValueError):
            answer = json.loads(said)
            if isinstance(answer, dict):
                waiting = connection.waiting.pop(str(answer.get("envelope_id")), None)
                if waiting is not None and not waiting.done():
                    waiting.set_result(answer.get("payload"))

    async def _attempts(self, payload: Body, within: float) -> Any:  # noqa: ANN401 - an answer's payload is anything
        last: Exception = ConnectionError("there is no connection")
        for attempt in range(_ATTEMPTS):
            connection = await self._next(within)
            if connection is None:
                break
            try:
                return await self._attempt(connection, payload, attempt, last, within)
            except (TimeoutError, ConnectionError, RuntimeError, WebSocketDisconnect) as error:
                last = error if isinstance(error, TimeoutError) else ConnectionError(str(error))
        raise ConnectionError("nobody acknowledged it")

    async def _attempt(
        self, to: _Connection, payload: Body, attempt: int, last: Exception, within: float
    ) -> Any:  # noqa: ANN401 - as above
        id_ = str(uuid.uuid4())
        envelope = {
            "envelope_id": id_,
            "type": "interactive",
            "payload": payload,
            "accepts_response_payload": payload["type"] == "view_submission",
        }
        if attempt:
            why = "timeout" if isinstance(last, TimeoutError) else "connection_closed"
            envelope |= {"retry_attempt": attempt, "retry_reason": why}
        waiting: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        to.waiting[id_] = waiting
        try:
            await to.socket.send_json(envelope)
            return await asyncio.wait_for(waiting, within)
        finally:
            to.waiting.pop(id_, None)

    async def _next(self, within: float) -> _Connection | None:
        """Return whose turn it is; where all connections ended, wait a while for a new one."""
        if not self._connections:
            arrival: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._arrivals.append(arrival)
            with suppress(TimeoutError):
                await asyncio.wait_for(arrival, within)
        choice = [one for one in self._connections if not one.retiring] or self._connections
        self._turn += 1
        return choice[self._turn % len(choice)] if choice else None

    async def _end(self, ending: tuple[_Connection, ...], after: float) -> None:
        await asyncio.sleep(after)
        for one in ending:
            with suppress(RuntimeError, WebSocketDisconnect):
                await one.socket.close(1001)


def opened(sockets: Sockets, asked: Body) -> Body:
    """Return the answer of apps.connections.open: where to connect to.

    Raises:
        Refused: the token is not an app's.
    """
    if not str(asked["token"]).startswith("xapp-"):
        raise Refused("not_allowed_token_type")
    base = str(asked["_base"])
    address = base.replace("http", "ws", 1)  # https to wss, likewise
    return {"url": f"{address}link/?ticket={sockets.ticket()}&app_id={APP}"}
