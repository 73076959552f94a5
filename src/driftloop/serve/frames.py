"""What a service and the sidecar say to each other: length-prefixed msgpack on a Unix socket."""

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from driftloop.records import FeatureValue, Samples

SOCKET = "sidecar.sock"
LARGEST = 256 * 2**20
"""Bytes of a frame; one that claims more is no frame of ours."""
LONGEST = 100
"""Bytes of a path that every system takes as a socket's address."""
PREFIX = 4
"""Bytes of a frame's length, in network order."""


class Load(msgspec.Struct, tag=True, array_like=True, frozen=True):
    """Have the model in `file`, whose SHA-256 is `digest`, ready."""

    number: int
    file: str
    digest: str


class Ask(msgspec.Struct, tag=True, array_like=True, frozen=True):
    """Answer these rows by that model, within so many seconds or not at all."""

    number: int
    file: str
    digest: str
    within: float
    columns: dict[str, list[FeatureValue]]


class Loaded(msgspec.Struct, tag=True, array_like=True, frozen=True):
    """It is ready: what it is given, what it tells apart, and how it answered some rows."""

    number: int
    inputs: tuple[str, ...]
    classes: tuple[str, ...]
    samples: Samples | None = None


class Answers(msgspec.Struct, tag=True, array_like=True, frozen=True):
    """One answer a row."""

    number: int
    answers: list[float]


class Refused(msgspec.Struct, tag=True, array_like=True, frozen=True):
    """No answer, and why; with `busy` the same may be asked again a little later."""

    number: int
    what: str
    where: str = ""
    hint: str = ""
    busy: bool = False


Request = Load | Ask
Reply = Loaded | Answers | Refused


class Frames:
    """Cuts what comes in from a socket into frames."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._held = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the frames that are whole now.

        Raises:
            ValueError: what came is no frame.

        >>> frames = Frames()
        >>> [list(frames.feed(part)) for part in (frame(b"one")[:5], frame(b"one")[5:])]
        [[], [b'one']]
        """
        held = self._held
        held += data
        at = 0
        while len(held) - at >= PREFIX:
            size = int.from_bytes(held[at : at + PREFIX])
            if size > LARGEST:
                raise ValueError(size)
            if len(held) - at - PREFIX < size:
                break
            at += PREFIX + size
            yield bytes(held[at - size : at])
        del held[:at]


def frame(body: bytes) -> bytes:
    """Return `body` behind its length."""
    return len(body).to_bytes(PREFIX) + body


def listen(folder: Path) -> socket.socket:
    """Return a socket that listens in `folder`, for this user alone.

    What lies there of an earlier one is removed: hold a lock.

    Raises:
        OSError: it cannot be had.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SOCKET).unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX)
    before = os.umask(0o177)
    try:
        _at(folder, listening.bind)
        listening.listen(128)
    except BaseException:
        listening.close()
        raise
    finally:
        os.umask(before)
    return listening


def connect(folder: Path) -> socket.socket:
    """Return a socket that is connected to who listens in `folder`.

    Raises:
        OSError: nobody does.
    """
    connected = socket.socket(socket.AF_UNIX)
    try:
        _at(folder, connected.connect)
    except BaseException:
        connected.close()
        raise
    return connected


def _at(folder: Path, use: Callable[[str], object]) -> None:
    """Call `use` with a short path of the socket in `folder`: a long one is no address."""
    whole = str(folder.absolute() / SOCKET)
    if len(os.fsencode(whole)) <= LONGEST:
        use(whole)
        return
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        use(f"/proc/self/fd/{opened}/{SOCKET}")
    finally:
        os.close(opened)
