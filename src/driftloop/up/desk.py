"""The service that tells what is to be told, and takes the clicks on it."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from driftloop.errors import DriftloopError

if TYPE_CHECKING:
    from fastapi import FastAPI

    from driftloop.wiring import System

HUNG = 600.0
"""Seconds after which a chore is taken to hang; one waits for Slack, for each of many messages."""
SLOWLY = 5.0
"""Seconds between the rounds of what nobody waits for, at least."""
AGAIN = 60.0
"""Seconds after which the same failure is worth another line in the log."""
_log = logging.getLogger(__name__)


@contextmanager
def working(system: "System") -> "Iterator[FastAPI]":
    """Do the chores, receive by Socket Mode if that is asked for, and give the HTTP door.

    On leaving, what was begun is ended.

    Raises:
        LedgerError: there is no ledger to remember anything in.
    """
    from driftloop.page.interactive import actions_app

    stop = threading.Event()
    every = system.settings.tell_every
    chores = [
        Chore(name, act, every=max(every, SLOWLY) if turn else every)
        for turn, (name, act) in enumerate(system.chores.items())
    ]
    threads = [threading.Thread(target=one.run, args=(stop,), name=one.name) for one in chores]
    if (sockets := system.socket_mode) is not None:
        threads.append(threading.Thread(target=sockets.run, args=(stop,), name="socket-mode"))
    if not system.settings.clicks_come:
        _log.error("slack_signing_secret is not set: no click that is posted here is believed")
    for thread in threads:
        thread.daemon = True
        thread.start()
    try:
        yield actions_app(
            system.reception,
            system.signatures,
            works=lambda: not any(chore.hangs() for chore in chores),
        )
    finally:
        stop.set()
        system.reception.close()
        for thread in threads:
            thread.join(timeout=2.0)


class Chore:
    """Something that is done over and over; that it failed once stops neither it nor others.

    Args:
        name: what the log calls it.
        act: what is done.
        every: seconds from the end of one round to the next.
        clock: seconds that only ever pass.
    """

    def __init__(
        self,
        name: str,
        act: Callable[[], object],
        *,
        every: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self._act = act
        self._every = every
        self._clock = clock
        self._began: float | None = None
        self._failure = ""
        self._said = 0.0

    def run(self, stop: threading.Event) -> None:
        """Do it, again and again, until `stop` is set."""
        while not stop.is_set():
            self.round()
            stop.wait(self._every)

    def round(self) -> None:
        """Do it once; never raises."""
        self._began = self._clock()
        try:
            self._act()
        except Exception as error:  # noqa: BLE001 - the next round may do what this one could not
            self._failed(error)
        else:
            if self._failure:
                _log.info("%s works again", self.name)
            self._failure = ""
        self._began = None

    def hangs(self) -> bool:
        """Return whether a round has been under way for so long that it will not end."""
        began = self._began
        return began is not None and self._clock() - began > HUNG

    def _failed(self, error: Exception) -> None:
        """Log a failure, but not the same one every half second."""
        failure, now = f"{type(error).__name__}: {error}", self._clock()
        if failure == self._failure and now - self._said < AGAIN:
            return
        self._failure, self._said = failure, now
        trace = None if isinstance(error, DriftloopError) else error
        _log.error("%s failed: %s", self.name, failure, exc_info=trace)
