"""Work in a forked child that is replaced at once when it dies.

To import what models are made of takes two seconds; a fork of who has done so takes milliseconds.
"""

import logging
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

STEADY = 1.0
"""Seconds that a child must have lived for another to take its place at once."""
PAUSE = 0.5
STOPPING = (signal.SIGTERM, signal.SIGINT)

_log = logging.getLogger(__name__)


def keep_forked(work: Callable[[int], None], *, ready: Callable[[], None] = lambda: None) -> None:
    """Have `work` done by a child until SIGTERM or SIGINT, which it is told too; main thread only.

    There must be no other threads. `work` is given a pipe that ends when this process does, however
    that dies, and returns at SIGTERM. `ready` is called when the first child has begun.
    """
    ended, alive = os.pipe()
    child, stopped = 0, False

    def stop(_number: int, _frame: FrameType | None) -> None:
        nonlocal stopped
        stopped = True
        if child:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGTERM)

    before = {number: signal.signal(number, stop) for number in STOPPING}
    try:
        while not stopped:
            began = time.monotonic()
            # A signal between the fork and the name of its child would be told to nobody.
            signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
            child = os.fork()
            if child == 0:
                os.close(alive)
                _be_child(work, ended)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
            ready()
            ready = _nothing
            _, status = os.waitpid(child, 0)
            child = 0
            if not stopped:
                code = os.waitstatus_to_exitcode(status)
                _log.error("the process that answers died (%d): another takes its place", code)
                if time.monotonic() - began < STEADY:
                    time.sleep(PAUSE)
    finally:
        os.close(ended)
        os.close(alive)
        for number, handler in before.items():
            signal.signal(number, handler)


def _be_child(work: Callable[[int], None], ended: int) -> None:
    """Do `work` and exit: a child returns to nobody."""
    code = 1
    try:
        for number in STOPPING:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
        work(ended)
        code = 0
    except BaseException:  # noqa: BLE001 - whatever it was, it is logged and the child ends
        _log.exception("the process that answers failed")
    finally:
        os._exit(code)


def _nothing() -> None:
    """Do nothing."""
