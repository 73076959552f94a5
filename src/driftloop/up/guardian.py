"""Ends the services of a supervisor that died without ending them itself.

Run by path, alone (`python -I -S guardian.py`), so that it starts in milliseconds. Its standard
input is a pipe from the supervisor: `+group` and `-group` lines say which process groups live.
When the pipe closes, for whatever reason, the groups that are left are ended. It holds the
supervisor's lock meanwhile, so that a new supervisor starts only when the last of them is gone.

A guardian rather than the kernel's parent-death signal: that one is Linux only, is tied to the
thread that forked, needs code between fork and exec, and misses the children of children.
"""

import os
import signal
import sys
import time
from contextlib import suppress

GRACE = 3.0
GONE = (ProcessLookupError, PermissionError)


def guard() -> None:
    """Follow the supervisor's lines until the pipe closes, then end what is left."""
    groups: set[int] = set()
    for line in sys.stdin:
        group = int(line[1:])
        if line.startswith("+"):
            groups.add(group)
        else:
            groups.discard(group)
    _send(groups, signal.SIGTERM)
    until = time.monotonic() + GRACE
    while _alive(groups) and time.monotonic() < until:
        time.sleep(0.05)
    _send(groups, signal.SIGKILL)


def _send(groups: set[int], number: int) -> None:
    for group in groups:
        with suppress(*GONE):
            os.killpg(group, number)


def _alive(groups: set[int]) -> bool:
    for group in groups:
        with suppress(*GONE):
            os.killpg(group, 0)
            return True
    return False


if __name__ == "__main__":
    guard()
