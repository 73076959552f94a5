"""What the tests of whole installations share: ports, processes, patience."""

import os
import socket
import time
from collections.abc import Callable
from typing import TypeVar

import httpx
import psutil

from driftloop.settings import Settings

T = TypeVar("T")


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on, all different."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def processes_of(settings: Settings) -> list[psutil.Process]:
    """Return the living processes that were given this installation's home, but this one."""
    found = []
    for process in psutil.process_iter():
        try:
            home = process.environ().get("DRIFTLOOP_HOME")
            alive = process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            continue
        if home == str(settings.home) and alive and process.pid != os.getpid():
            found.append(process)
    return found


def answers(url: str) -> bool:
    """Return whether `url` answers well."""
    try:
        return httpx.get(url, timeout=5).is_success
    except httpx.HTTPError:
        return False


def eventually(found: Callable[[], T], what: str, within: float = 30.0) -> T:
    """Return what `found` returns once that is true; fail with `what` was awaited otherwise."""
    until = time.monotonic() + within
    while not (value := found()):
        assert time.monotonic() < until, f"waited {within:g} s for {what}"
        time.sleep(0.05)
    return value
