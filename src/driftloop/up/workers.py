"""Keeps the workers of one service running, all on one socket that is bound once."""

import logging
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from driftloop.errors import CannotListen
from driftloop.serve.door import ABSENT, COUNTED, Counted

TICK = 0.05
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 10.0
STEADY = 10.0
"""Seconds a worker must have lived for the next in its place to be started at once."""
SILENCE = 30.0
"""Seconds without a sign of life after which a worker is taken to hang."""
GRACE = 3.0
"""Seconds beyond `drain` after which a worker that was told to end is ended."""
BACKLOG = 2048

_log = logging.getLogger(__name__)


def bound(host: str, port: int, *, setting: str = "") -> socket.socket:
    """Return a socket that listens, to be inherited: whoever has it may accept.

    One that each worker binds for itself (SO_REUSEPORT) would have a share of the callers that
    wait, and lose them when it ends.

    Raises:
        CannotListen: nobody can listen there; `setting` is what to change then.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        door = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        said = os.strerror(error.errno) if error.errno else str(error)
        hint = f"stop what listens there, or set DRIFTLOOP_{setting.upper()}" if setting else ""
        raise CannotListen(f"cannot listen: {said}", where=f"{host}:{port}", hint=hint) from error
    door.set_inheritable(True)
    return door


class Workers:
    """As many processes as asked for, each in a place of its own; one that dies is followed.

    Args:
        command: what is run in a place, given the reading end of a pipe that is open as long as
            we live.
        environment: what it is run with.
        number: how many.
        door: the socket they share.
        shown: the folder that each shows a sign of life in, as `<place>.json`.
        drain: seconds that they may take to end.
    """

    def __init__(
        self,
        command: Callable[[int, int], Sequence[str]],
        environment: Mapping[str, str],
        *,
        number: int,
        door: socket.socket,
        shown: Path,
        drain: float,
    ) -> None:
        self._command = command
        self._environment = environment
        self._door = door
        self._shown = shown
        self._drain = drain
        # Nothing is ever written: a worker reads its end once nobody holds the other one.
        self._alive, self._held = os.pipe()
        self._places = [_Place(number=place) for place in range(number)]

    def run(self, stop: threading.Event) -> int:
        """Keep them running until `stop`, then end them; return the exit code that we end with.

        One that fails before any was ever seen alive is a fault of the installation, not of a
        worker: then all end, and its code is returned.
        """
        self._shown.mkdir(parents=True, exist_ok=True)
        for left in self._shown.iterdir():
            left.unlink()
        Counted.make(self._shown / COUNTED, len(self._places))
        code = 0
        try:
            while not stop.is_set() and not code:
                for place in self._places:
                    code = code or self._tend(place)
                stop.wait(TICK)
        finally:
            self._end()
        return code

    def _tend(self, place: "_Place") -> int:
        now = time.monotonic()
        process = place.process
        if process is None:
            if now >= place.due:
                self._start(place)
            return 0
        if (code := process.poll()) is None:
            self._look(place)
            return 0
        place.process = None
        Counted(self._shown / COUNTED, place.number).say(ABSENT)
        if not any(self._sign(each) for each in self._places):
            return code if code > 0 else 1
        lived = now - place.began
        place.pause = (
            0.0 if lived >= STEADY else min(max(place.pause * 2, FIRST_PAUSE), LONGEST_PAUSE)
        )
        place.due = now + place.pause
        _log.error("worker %d died (exit code %d); the next follows", place.number, code)
        return 0

    def _start(self, place: "_Place") -> None:
        place.began = time.monotonic()
        place.process = subprocess.Popen(
            self._command(place.number, self._alive),
            env={**os.environ, **self._environment},
            stdin=subprocess.DEVNULL,
            pass_fds=(self._door.fileno(), self._alive),
        )
        _log.info("worker %d is pid %d", place.number, place.process.pid)

    def _look(self, place: "_Place") -> None:
        """End a worker that hangs: it is followed as any that dies."""
        sign = self._sign(place)
        silent = time.monotonic() - place.began
        if sign:
            silent = min(silent, time.time() - sign)
        if silent > SILENCE and place.process is not None:
            _log.error("worker %d hangs (silent for %.0f s): it is ended", place.number, silent)
            place.process.kill()

    def _sign(self, place: "_Place") -> float:
        """Return when the place's worker last showed that it lives; 0 if none ever did."""
        try:
            return (self._shown / f"{place.number}.json").stat().st_mtime
        except OSError:
            return 0.0

    def _end(self) -> None:
        self._door.close()
        left = [place.process for place in self._places if place.process is not None]
        for process in left:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        until = time.monotonic() + self._drain + GRACE
        for process in left:
            try:
                process.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                _log.error("pid %d did not end in time: it is killed", process.pid)
                process.kill()
                process.wait()
        os.close(self._held)
        os.close(self._alive)


@dataclass(slots=True)
class _Place:
    number: int
    process: subprocess.Popen[bytes] | None = None
    began: float = 0.0
    due: float = 0.0
    pause: float = 0.0
