"""The stream process: one loop on which events come in, from the socket and from NATS."""

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from driftloop.serve.channel import StreamServer, socket_path
from driftloop.serve.stream import Post, Stream, Taken

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from driftloop.serve.jetstream import JetStream


def run_stream(
    stream: Stream,
    home: Path,
    *,
    bus: "Callable[[Callable[[Post], Awaitable[Taken]]], JetStream] | None",
    between: Callable[[], None],
    ready: Callable[[], None],
    alive: Callable[[], None],
) -> None:
    """Have `stream` take events until SIGTERM or SIGINT.

    Args:
        stream: nobody else uses it.
        home: whose socket to listen on.
        bus: makes what reads from NATS, given what takes its posts; None where nothing does.
        between: called every second or so, when no batch is under way.
        ready: called once events are taken.
        alive: called every second.

    Raises:
        ServiceError: it cannot listen.
    """

    async def run() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        server = StreamServer(stream)
        beside = () if bus is None else (bus(server.taken).run,)
        await server.run(
            socket_path(home), stop, beside=beside, between=between, ready=ready, alive=alive
        )

    asyncio.run(run())
