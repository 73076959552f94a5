"""Between the online service and the stream process: a Unix socket of this home.

A message is its length in four bytes and msgpack: asked `Ask`, answered `Told` with the same
number, in any order. What comes while a batch is written is the next batch: nobody waits for a
timer, and the more there is to do the less each event costs.
"""

import asyncio
import hashlib
import logging
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import msgspec

from driftloop.errors import DriftloopError, ServiceError
from driftloop.serve.events import Posted
from driftloop.serve.stream import NotTaken, Post, Stream, Taken

LONGEST_PATH = 100
"""Bytes; the operating system takes 107."""
LARGEST_MESSAGE = 128 * 2**20
AT_ONCE = 10_000
"""Events in one transaction, more or less."""
MOST_WAITING = 50_000
"""More events than this wait for no transaction: they are refused."""
TEND_EVERY = 1.0
PATIENCE = 5.0
"""Seconds within which the stream process must have taken what it was given."""
AWAY = "send the same events again, with the ids they have: they count once"

_log = logging.getLogger(__name__)


class Ask(msgspec.Struct, array_like=True):
    """Events of one source to be taken."""

    number: int
    source: str
    events: list[Posted]


class Told(msgspec.Struct, array_like=True):
    """What became of them; without `taken`, what went wrong and a hint."""

    number: int
    taken: Taken | None
    what: str = ""
    hint: str = ""


_encode = msgspec.msgpack.Encoder().encode
_ask = msgspec.msgpack.Decoder(Ask)
_told = msgspec.msgpack.Decoder(Told)


def socket_path(home: Path) -> Path:
    """Return where the stream process of `home` listens: in it, unless its name is too long."""
    path = home.absolute() / "run" / "stream.sock"
    if len(str(path).encode()) <= LONGEST_PATH:
        return path
    name = hashlib.sha256(str(home.resolve()).encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"driftloop-{name}.sock"


class StreamServer:
    """Has a stream take what comes, from the socket and from whoever else calls `taken`."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._waiting: list[tuple[Post, asyncio.Future[Taken]]] = []
        self._events = 0
        self._wake = asyncio.Event()
        self._answers: set[asyncio.Task[None]] = set()
        self._connections: set[asyncio.StreamWriter] = set()

    async def run(
        self,
        path: Path,
        stop: asyncio.Event,
        *,
        beside: Sequence[Callable[[], Awaitable[None]]] = (),
        between: Callable[[], None] = lambda: None,
        ready: Callable[[], None] = lambda: None,
        alive: Callable[[], None] = lambda: None,
    ) -> None:
        """Listen on `path` until `stop` is set; what was given by then is taken.

        Args:
            path: of the socket, which this user alone may use; one that a dead process left is
                replaced.
            stop: to be set from this loop.
            beside: what else runs meanwhile; if one of them ends by an error, so does this.
            between: called every second or so, in the thread that takes events.
            ready: called once events are taken.
            alive: called every second.

        Raises:
            ServiceError: it cannot listen.
        """
        server = await self._listen(path)
        with ThreadPoolExecutor(1, thread_name_prefix="stream") as thread:
            work = [
                asyncio.create_task(self._commit(thread)),
                asyncio.create_task(self._tend(thread, between, alive)),
                *(asyncio.ensure_future(each()) for each in beside),
            ]
            stopped = asyncio.create_task(stop.wait())
            ready()
            try:
                await asyncio.wait([stopped, *work], return_when=asyncio.FIRST_COMPLETED)
                server.close()
                if self._answers and stop.is_set():
                    await asyncio.wait(self._answers, timeout=PATIENCE)
            finally:
                server.close()
                for writer in self._connections:
                    writer.close()
                _remove(path)
                for task in (stopped, *work):
                    task.cancel()
                ended = await asyncio.gather(*work, return_exceptions=True)
        for error in ended:
            if isinstance(error, Exception):
                raise error

    async def taken(self, post: Post) -> Taken:
        """Return what became of `post`, once it is durable.

        Raises:
            NotTaken: too much waits already, or it does not fit the sources.
            DriftloopError: the store or the log took nothing.
        """
        self._stream.check(post)
        if self._events > MOST_WAITING:
            raise NotTaken("more events come than can be taken", where="stream", hint=AWAY)
        done: asyncio.Future[Taken] = asyncio.get_running_loop().create_future()
        self._waiting.append((post, done))
        self._events += len(post.events)
        self._wake.set()
        return await done

    async def _listen(self, path: Path) -> asyncio.Server:
        try:
            # The caller holds the home's lock: whose socket this was is dead.
            _remove(path)
            server = await asyncio.start_unix_server(self._serve, path)
            _keep_to_ourselves(path)
        except OSError as error:
            raise ServiceError(f"cannot listen: {error}", where=str(path)) from error
        return server

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.add(writer)
        try:
            while True:
                task = asyncio.create_task(self._answer(_ask.decode(await _read(reader)), writer))
                self._answers.add(task)
                task.add_done_callback(self._answers.discard)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        except ValueError:  # msgspec's errors are ValueErrors
            _log.exception("a message could not be read")
        finally:
            self._connections.discard(writer)
            writer.close()

    async def _answer(self, ask: Ask, writer: asyncio.StreamWriter) -> None:
        try:
            told = Told(ask.number, await self.taken(Post(ask.source, ask.events)))
        except DriftloopError as error:
            told = Told(ask.number, None, str(error), error.hint)
        except Exception as error:  # noqa: BLE001 - told to who asked
            _log.exception("events of %s could not be taken", ask.source)
            told = Told(ask.number, None, f"the stream process failed: {type(error).__name__}")
        with suppress(ConnectionError):
            _write(writer, told)
            await writer.drain()

    async def _commit(self, thread: ThreadPoolExecutor) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._wake.wait()
            batch = self._batch()
            try:
                posts = [post for post, _ in batch]
                taken = await loop.run_in_executor(thread, self._stream.take, posts)
            except Exception as error:  # noqa: BLE001 - told to whoever waits
                _log.error("events could not be taken: %s", error)
                for _, done in batch:
                    if not done.done():
                        done.set_exception(error)
            else:
                for (_, done), each in zip(batch, taken, strict=True):
                    if not done.done():
                        done.set_result(each)

    def _batch(self) -> list[tuple[Post, asyncio.Future[Taken]]]:
        size = count = 0
        for post, _ in self._waiting:
            if count and size + len(post.events) > AT_ONCE:
                break
            size += len(post.events)
            count += 1
        batch = self._waiting[:count]
        del self._waiting[:count]
        self._events -= size
        if not self._waiting:
            self._wake.clear()
        return batch

    async def _tend(
        self,
        thread: ThreadPoolExecutor,
        between: Callable[[], None],
        alive: Callable[[], None],
    ) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                await loop.run_in_executor(thread, self._stream.tend)
                await loop.run_in_executor(thread, between)
            except DriftloopError as error:
                _log.warning("%s", error)
            alive()
            await asyncio.sleep(TEND_EVERY)


class StreamClient:
    """Gives events to the stream process, from the one loop that it is used on.

    It connects when first needed, and again after the stream process was started anew.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: asyncio.StreamWriter | None = None
        self._listening: asyncio.Task[None] | None = None
        self._asked: dict[int, tuple[asyncio.Future[Told], asyncio.StreamWriter]] = {}
        self._number = 0
        self._connecting = asyncio.Lock()

    async def post(self, source: str, events: Sequence[Posted]) -> Taken:
        """Return what became of `events`, once they are durable.

        Raises:
            NotTaken: the stream process is away, or took nothing; the same may be sent again.
        """
        try:
            writer = await self._connected()
        except OSError as error:
            raise NotTaken(
                f"the stream process is away: {error}", where=source, hint=AWAY
            ) from error
        self._number += 1
        number = self._number
        done: asyncio.Future[Told] = asyncio.get_running_loop().create_future()
        self._asked[number] = (done, writer)
        try:
            _write(writer, Ask(number, source, list(events)))
            await writer.drain()
            told = await asyncio.wait_for(done, PATIENCE)
        except (ConnectionError, TimeoutError) as error:
            said = "did not answer in time" if isinstance(error, TimeoutError) else "went away"
            # One that hangs is left: who takes its place listens anew.
            if self._writer is writer:
                self._writer = None
            writer.close()
            raise NotTaken(f"the stream process {said}", where=source, hint=AWAY) from error
        finally:
            self._asked.pop(number, None)
        if told.taken is None:
            raise NotTaken(told.what, where=source, hint=told.hint or AWAY)
        return told.taken

    async def close(self) -> None:
        """Give the connection up."""
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.gather(self._listening, return_exceptions=True)

    async def _connected(self) -> asyncio.StreamWriter:
        async with self._connecting:
            if self._writer is None:
                reader, self._writer = await asyncio.open_unix_connection(self._path)
                self._listening = asyncio.create_task(self._listen(reader, self._writer))
            return self._writer

    async def _listen(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                told = _told.decode(await _read(reader))
                done, _ = self._asked.get(told.number, (None, None))
                if done is not None and not done.done():
                    done.set_result(told)
        except (asyncio.IncompleteReadError, OSError, ValueError):
            pass
        finally:
            if self._writer is writer:
                self._writer = None
            writer.close()
            for done, by in self._asked.values():
                if by is writer and not done.done():
                    done.set_exception(ConnectionResetError())


def _remove(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)


def _keep_to_ourselves(path: Path) -> None:
    path.chmod(0o600)


async def _read(reader: asyncio.StreamReader) -> bytes:
    length = int.from_bytes(await reader.readexactly(4), "big")
    if length > LARGEST_MESSAGE:
        msg = f"a message of {length:,} bytes"
        raise ValueError(msg)
    return await reader.readexactly(length)


def _write(writer: asyncio.StreamWriter, message: msgspec.Struct) -> None:
    body = _encode(message)
    writer.write(len(body).to_bytes(4, "big") + body)
