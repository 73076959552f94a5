"""A listening socket that several workers accept from, each about as much as the others."""

import asyncio
import logging
import mmap
import socket
from array import array
from collections.abc import Callable
from pathlib import Path

COUNTED = "connections"
"""What the file is called."""
ABSENT = 2**31 - 1
"""The count of a worker that is not there: none waits for it to accept."""
YIELD = 0.005
"""Seconds in which the others may take a connection before one that has more takes it."""
FULL = 0.5
"""Seconds until one that may not open any more connections tries again."""

_log = logging.getLogger(__name__)


class Counted:
    """How many connections each worker has, in memory that they share.

    Args:
        file: made by `make`.
        place: which of them this one is, counted from 0.
    """

    def __init__(self, file: Path, place: int) -> None:
        self._place = place
        with file.open("r+b") as opened:
            self._counts = memoryview(mmap.mmap(opened.fileno(), 0)).cast("i")

    @staticmethod
    def make(file: Path, number: int) -> None:
        """Write `file` for `number` workers, none of which is there yet."""
        file.write_bytes(array("i", [ABSENT] * number).tobytes())

    def say(self, count: int) -> None:
        """Let the others know how many connections this one has."""
        self._counts[self._place] = count

    def is_most(self) -> bool:
        """Return whether another one has fewer connections."""
        return min(self._counts) < self._counts[self._place]


class Door:
    """Accepts connections, one at a time; used on one loop.

    A worker that is woken and has more connections than another leaves the next one to it for a
    moment: else whoever wakes first takes all, and keeps them as long as callers do.

    Args:
        listening: the socket; the kernel wakes every worker that waits on it.
        protocol: makes what a connection is handed to.
        connections: says how many this worker has.
        counted: what the others have, or None for one that is alone.
    """

    def __init__(
        self,
        listening: socket.socket,
        protocol: Callable[[], asyncio.Protocol],
        connections: Callable[[], int],
        counted: Counted | None,
    ) -> None:
        self._listening = listening
        self._protocol = protocol
        self._connections = connections
        self._counted = counted
        self._handed: set[asyncio.Task[object]] = set()
        self._later: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        listening.settimeout(0.0)

    def open(self) -> None:
        """Begin to accept."""
        self.say()
        self._loop.add_reader(self._listening.fileno(), self._ready)

    def close(self) -> None:
        """Accept who waits already, and nobody more; others may."""
        self._loop.remove_reader(self._listening.fileno())
        # Where all end, those that wait in the socket's queue would be cut off with it.
        while self._accept():
            pass
        if self._later is not None:
            self._later.cancel()
            self._later = None
        if self._counted is not None:
            self._counted.say(ABSENT)

    def say(self) -> None:
        """Let the others know how many connections there are here."""
        if self._counted is not None:
            self._counted.say(self._connections() + len(self._handed))

    def _ready(self) -> None:
        self.say()
        if self._counted is not None and self._counted.is_most():
            self._pause(YIELD)
        else:
            self._accept()

    def _pause(self, seconds: float) -> None:
        self._loop.remove_reader(self._listening.fileno())
        self._later = self._loop.call_later(seconds, self._after_all)

    def _after_all(self) -> None:
        self._later = None
        self._loop.add_reader(self._listening.fileno(), self._ready)
        self._accept()

    def _accept(self) -> bool:
        """Accept a connection; return whether there was one."""
        try:
            connection, _ = self._listening.accept()
        except (BlockingIOError, ConnectionError):  # another one was quicker, or the caller is gone
            return False
        except OSError as error:  # it has as many open as it may
            _log.error("no connection can be accepted: %s", error)
            self._pause(FULL)
            return False
        connection.settimeout(0.0)
        handed = self._loop.create_task(
            self._loop.connect_accepted_socket(self._protocol, connection)
        )
        self._handed.add(handed)
        handed.add_done_callback(self._handed.discard)
        self.say()
        return True
