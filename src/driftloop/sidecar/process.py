"""The sidecar at work: one loop that reads and writes, and threads that answer batches."""

import asyncio
import fcntl
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path

import msgspec

from driftloop.errors import BadRequest
from driftloop.serve.frames import Ask, Frames, Refused, Reply, Request, frame, listen
from driftloop.sidecar.answering import Answering
from driftloop.sidecar.forked import STOPPING, keep_forked
from driftloop.sidecar.gather import Gather, Waiting

PRELOADED = ("sklearn.ensemble", "sklearn.compose", "sklearn.pipeline", "skops.io", "pandas")
"""Imported before the first model asks for them."""
LOADED_WITHIN = 60.0
"""Seconds that a request to load may wait for its turn."""
MOST_UNREAD = 64 * 2**20
"""Bytes of replies that an asker may leave unread."""
LOOK_EVERY = 1.0
ENDED_WITHIN = 1.0
CLOSED_WITHIN = 5.0
"""Seconds that batches have to end once it is told to stop."""

_log = logging.getLogger(__name__)
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Request).decode


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much is done at once."""

    threads: int = 2
    """So many batches run side by side, each of another model."""
    batch_rows: int = 4096
    waiting_rows: int = 20_000
    """Of one model; who comes with more is told to come again later."""
    most_bytes: int = 512 * 2**20
    """Of model files whose models are kept."""
    stuck: float = 60.0
    """Seconds after which a batch is taken to hang, and the process shows no more life."""


def serve(
    folder: Path,
    *,
    limits: Limits = Limits(),
    ready: Callable[[], None] = lambda: None,
    alive: Callable[[], None] = lambda: None,
) -> None:
    """Answer whoever connects to the socket in `folder`, until SIGTERM or SIGINT; main thread only.

    `ready` is called once it works, and `alive` every second while no batch hangs. A child does the
    work: one that a model takes down is replaced, and who connects meanwhile only waits.

    Raises:
        BadRequest: another process serves there.
        OSError: the socket cannot be had.
    """
    with _alone(folder), listen(folder) as listening:
        _preload()
        keep_forked(partial(_serve, listening, limits, alive), ready=ready)


def attend(
    connected: socket.socket,
    *,
    limits: Limits = Limits(),
) -> None:
    """Answer whoever holds the other end of `connected`, until that is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who asked; then the end is closed
    _preload()

    async def work() -> None:
        process = _Process(limits)
        gone = asyncio.Event()
        talk = partial(_Talk, process.gather, gone.set)
        await asyncio.get_running_loop().create_unix_connection(talk, sock=connected)
        process.start()
        await gone.wait()
        await process.close()

    asyncio.run(work())


def _serve(listening: socket.socket, limits: Limits, alive: Callable[[], None], ended: int) -> None:
    """Answer whoever connects, until SIGTERM, or until the pipe `ended` is."""

    async def work() -> None:
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        for number in STOPPING:
            loop.add_signal_handler(number, stop.set)
        loop.add_reader(ended, os._exit, 1)
        process = _Process(limits)
        server = await loop.create_unix_server(partial(_Talk, process.gather), sock=listening)
        process.start()
        while not stop.is_set():
            if not process.hangs():
                alive()
            await _either(stop, LOOK_EVERY)
        server.close()
        await process.close()

    asyncio.run(work())


class _Talk(asyncio.Protocol):
    """One connection: requests in, replies out in whatever order they come to be."""

    def __init__(self, gather: Gather, gone: Callable[[], None] = lambda: None) -> None:
        self._gather = gather
        self._gone = gone
        self._frames = Frames()
        self._loop = asyncio.get_running_loop()
        self._out: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - what a stream has
        self._out = transport

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._out = None
        self._gone()

    def data_received(self, data: bytes) -> None:
        try:
            for body in self._frames.feed(data):
                self._take(_decode(body))
        except (ValueError, msgspec.MsgspecError) as error:
            _log.error("a connection is closed: what came is no request: %s", error)
            if self._out is not None:
                self._out.abort()

    def _take(self, request: Request) -> None:
        rows, within = 0, LOADED_WITHIN
        if isinstance(request, Ask):
            rows = max(map(len, request.columns.values()), default=0)
            within = request.within
        waiting = Waiting(request, rows, time.monotonic() + within, self._reply)
        if not self._gather.add(waiting):
            what = "too many rows wait for the model"
            self._write(frame(_encode(Refused(request.number, what, busy=True))))

    def _reply(self, reply: Reply) -> None:
        """Write `reply`, from any thread."""
        body = frame(_encode(reply))
        self._loop.call_soon_threadsafe(self._write, body)

    def _write(self, body: bytes) -> None:
        if self._out is None:
            return  # whoever asked is gone
        self._out.write(body)
        if self._out.get_write_buffer_size() > MOST_UNREAD:
            _log.error("a connection is closed: its replies are not read")
            self._out.abort()


class _Process:
    """The threads that answer, and what they share."""

    def __init__(self, limits: Limits) -> None:
        self.gather = Gather(most_rows=limits.batch_rows, most_waiting=limits.waiting_rows)
        self._limits = limits
        self._answering = Answering(most_bytes=limits.most_bytes)
        self._since: dict[int, float] = {}
        self._threads = [
            threading.Thread(target=self._work, args=(n,), name=f"batch-{n}", daemon=True)
            for n in range(limits.threads)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def hangs(self) -> bool:
        """Return whether a batch runs for longer than any should."""
        now = time.monotonic()
        return any(now - since > self._limits.stuck for since in [*self._since.values()])

    async def close(self) -> None:
        """Answer what waits, if that can be done in time."""
        self.gather.close()
        until = time.monotonic() + CLOSED_WITHIN
        for thread in self._threads:
            await asyncio.to_thread(thread.join, max(0.0, until - time.monotonic()))
        await asyncio.sleep(0)  # the last replies are written

    def _work(self, number: int) -> None:
        while batch := self.gather.take():
            self._since[number] = time.monotonic()
            try:
                self._answering.answer(batch)
            except BaseException:  # noqa: BLE001 - see below
                # Nobody is left without a word, whatever an estimator raised.
                _log.exception("a batch of %s failed", batch[0].request.file)
                for waiting in batch:
                    waiting.reply(Refused(waiting.request.number, "the sidecar failed"))
            finally:
                del self._since[number]
                self.gather.done(batch[0].request.digest)


def _preload() -> None:
    for module in PRELOADED:
        import_module(module)


async def _either(event: asyncio.Event, seconds: float) -> None:
    """Wait for `event`, but only so long."""
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the lock of `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "sidecar.lock").open("wb") as file:
        until = time.monotonic() + ENDED_WITHIN
        while not _locked(file.fileno()):
            # The child of one that was killed holds it for the moment that it needs to end.
            if time.monotonic() > until:
                raise BadRequest("another sidecar serves here", where=str(folder))
            time.sleep(0.05)
        yield


def _locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
