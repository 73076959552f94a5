"""Models that could not be lowered, as a service sees them: asked by a socket, not loaded here."""

import itertools
import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import msgspec

from driftloop.errors import ArtifactError, ModelAway
from driftloop.ports import Model
from driftloop.records import FeatureValue, Head, Samples
from driftloop.serve.frames import Answers, Ask, Frames, Load, Loaded, Refused, Reply, frame
from driftloop.serve.model import load_model

LOADED_WITHIN = 10.0
"""Seconds that a model has to be loaded in."""
MOST_ASKED = 1024
"""Requests of this process that may be under way at once."""
ENDED_WITHIN = 10.0
RECEIVED = 2**18
LATER = "send it again a little later"

ReplyT = TypeVar("ReplyT", bound=Reply)
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Reply).decode


class Sidecar:
    """The process that answers for models which could not be lowered; safe from several threads.

    It is connected to when it is first asked, and again after it was lost.

    Args:
        connect: returns a socket that it listens at the other end of.
        within: seconds that an answer may take.
    """

    def __init__(self, connect: Callable[[], socket.socket], *, within: float = 5.0) -> None:
        """Connect to nothing yet."""
        self.within = within
        self._connect = connect
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._line: _Line | None = None

    def load(self, file: Path, digest: str) -> "SidecarModel":
        """Return the model in `file` once the sidecar has it, its SHA-256 being `digest`.

        Raises:
            ArtifactError: the file is missing, is not the one its digest names, or does not load.
            ModelAway: the sidecar does not answer.
        """
        number = next(self._numbers)
        load = Load(number, str(file.absolute()), digest)
        asked = self._ask(number, load)
        loaded = self._reply(asked, load, max(self.within, LOADED_WITHIN), Loaded)
        return SidecarModel(self, str(file.absolute()), digest, loaded)

    def predict(
        self, file: str, digest: str, columns: dict[str, list[FeatureValue]]
    ) -> list[float]:
        """Return one answer a row; see `SidecarModel.predict`."""
        number = next(self._numbers)
        ask = Ask(number, file, digest, self.within, columns)
        return self._reply(self._ask(number, ask), ask, self.within, Answers).answers

    def close(self) -> None:
        """Hang up; whoever waits is told that it is away."""
        with self._lock:
            line, self._line = self._line, None
        if line is not None:
            line.close()

    def _ask(self, number: int, request: Load | Ask) -> "Future[Reply]":
        body = frame(_encode(request))
        with self._lock:
            if self._line is None or self._line.closed:
                try:
                    self._line = _Line(self._connect())
                except OSError as error:
                    raise ModelAway(
                        f"the sidecar is not there: {error.strerror or error}",
                        where=request.file,
                        hint="`driftloop up` runs it, and starts it again when it died",
                    ) from error
            return self._line.ask(number, body)

    def _reply(
        self, asked: "Future[Reply]", request: Load | Ask, within: float, kind: type[ReplyT]
    ) -> ReplyT:
        try:
            reply = asked.result(within)
        except TimeoutError as error:
            with self._lock:
                if self._line is not None:
                    self._line.give_up(request.number, within)
            raise ModelAway(
                f"the sidecar did not answer within {within:g} s",
                where=request.file,
                hint=LATER,
            ) from error
        if isinstance(reply, Refused):
            refused = ModelAway if reply.busy else ArtifactError
            hint = reply.hint or (LATER if reply.busy else "")
            raise refused(reply.what, where=reply.where or request.file, hint=hint)
        assert isinstance(reply, kind)  # noqa: S101 - each request has its kind of reply
        return reply


class SidecarModel:
    """A model in the sidecar; implements `ports.Model`."""

    def __init__(self, sidecar: Sidecar, file: str, digest: str, loaded: Loaded) -> None:
        self._sidecar = sidecar
        self._digest = digest
        self._loaded = loaded
        self.where = file

    @property
    def digest(self) -> str:
        """SHA-256 of the file it was loaded from."""
        return self._digest

    @property
    def size(self) -> int:
        """Bytes that it takes here: next to none."""
        return 1024

    @property
    def inline(self) -> bool:
        """It is asked in a thread: the sidecar takes its time."""
        return False

    @property
    def classes(self) -> tuple[str, ...]:
        """What it was trained to tell apart, in its order."""
        return self._loaded.classes

    @property
    def samples(self) -> Samples | None:
        """What it answered to some rows when it was made."""
        return self._loaded.samples

    def predict(self, columns: dict[str, list[FeatureValue]]) -> list[float]:
        """Return one answer a row: the target, the probability of 1, or the class's index.

        It is this version's whatever the sidecar went through meanwhile: one that was started
        again loads the file anew, and compares its digest.

        Raises:
            ArtifactError: a feature it needs is not in `columns`, it failed, or an answer is not
                a finite number.
            ModelAway: the sidecar is away, too busy, or too slow.
        """
        # What it lacks is for the sidecar to say; texts of the log may be long, and stay here.
        given = {name: columns[name] for name in self._loaded.inputs if name in columns}
        return self._sidecar.predict(self.where, self._digest, given)


def loader(sidecar: Sidecar) -> Callable[[Head], Model]:
    """Return what opens a head's model: here if it was lowered, in `sidecar` if not."""

    def load(head: Head) -> Model:
        file = Path(head.artifact)
        return (load_model if head.lowered else sidecar.load)(file, head.digest)

    return load


@contextmanager
def own_sidecar(*, within: float = 60.0) -> Iterator[Sidecar]:
    """Give a sidecar of this process's own: started when it is first asked, and ended with it.

    One that died is started again when it is asked next.
    """
    children: list[subprocess.Popen[bytes]] = []

    def connect() -> socket.socket:
        ours, its = socket.socketpair()
        with its:
            command = (sys.executable, "-m", "driftloop", "_sidecar", "--connected")
            given = its.fileno()
            children.append(subprocess.Popen([*command, str(given)], pass_fds=(given,)))
        return ours

    sidecar = Sidecar(connect, within=within)
    try:
        yield sidecar
    finally:
        sidecar.close()
        for child in children:
            with suppress(subprocess.TimeoutExpired):
                child.wait(ENDED_WITHIN)
            child.kill()
            child.wait()


class _Line:
    """One connection: requests go out in order, replies come back in any.

    Writing has a thread of its own, so that a sidecar which reads no more holds nobody up.
    """

    def __init__(self, connected: socket.socket) -> None:
        self.closed = False
        self._socket = connected
        self._waiting: dict[int, Future[Reply]] = {}
        self._out: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._heard = time.monotonic()
        for work in (self._write, self._read):
            threading.Thread(target=work, name="sidecar", daemon=True).start()

    def ask(self, number: int, body: bytes) -> "Future[Reply]":
        if len(self._waiting) >= MOST_ASKED:
            raise ModelAway(f"{MOST_ASKED:,} requests wait for the sidecar already", hint=LATER)
        asked: Future[Reply] = Future()
        self._waiting[number] = asked
        self._out.put(body)
        if self.closed:  # since it was looked at
            self._lose()
        return asked

    def give_up(self, number: int, within: float) -> None:
        """Wait for that reply no longer; for none if nothing at all was heard meanwhile."""
        self._waiting.pop(number, None)
        if time.monotonic() - self._heard >= within:
            self.close()

    def close(self) -> None:
        self.closed = True
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._out.put(None)
        self._lose()

    def _write(self) -> None:
        with suppress(OSError):
            while (body := self._out.get()) is not None:
                self._socket.sendall(body)

    def _read(self) -> None:
        frames = Frames()
        with suppress(OSError, ValueError, msgspec.MsgspecError):
            while data := self._socket.recv(RECEIVED):
                self._heard = time.monotonic()
                for body in frames.feed(data):
                    reply = _decode(body)
                    if (asked := self._waiting.pop(reply.number, None)) is not None:
                        asked.set_result(reply)
        self.close()
        self._socket.close()

    def _lose(self) -> None:
        for number in list(self._waiting):
            if (asked := self._waiting.pop(number, None)) is not None:
                asked.set_result(Refused(number, "the sidecar went away", busy=True))
