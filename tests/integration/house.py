"""What the tests of whole installations share: ports, processes, patience."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, TypeVar

import httpx
import psutil

from driftloop.settings import Settings

T = TypeVar("T")
PATIENCE = 120.0
"""Seconds for what is promised, and not for when: a machine may be slow, and busy as well."""
PAGE = 200
"""Most runs that Prefect tells of at a time."""


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


def yardstick() -> float:
    """Return the seconds in which one large library is imported here and now.

    A second or two on a machine of today that does nothing else.
    """
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", "import sklearn.ensemble"], check=True)
    return time.monotonic() - began


def answers(url: str) -> bool:
    """Return whether `url` answers well."""
    try:
        return httpx.get(url, timeout=5).is_success
    except httpx.HTTPError:
        return False


def flow_runs(api: str, flow: str) -> list[dict[str, Any]]:
    """Return the flow's runs that are due, under way or over, oldest first, however many."""
    found: list[dict[str, Any]] = []
    while len(found) % PAGE == 0:
        asked = {
            "flows": {"name": {"any_": [flow]}},
            "flow_runs": {"state": {"name": {"not_any_": ["Scheduled"]}}},
            "sort": "EXPECTED_START_TIME_ASC",
            "offset": len(found),
            "limit": PAGE,
        }
        page = httpx.post(f"{api}/flow_runs/filter", json=asked, timeout=60)
        if not page.raise_for_status().json():
            break
        found += page.json()
    return found


def eventually(
    found: Callable[[], T],
    what: str,
    within: float = PATIENCE,
    so_far: Callable[[], str] = lambda: "",
) -> T:
    """Return what `found` returns once that is true.

    Fail otherwise, with `what` was awaited and what `so_far` tells of how far it came.
    """
    until = time.monotonic() + within
    while not (value := found()):
        assert time.monotonic() < until, f"waited {within:g} s for {what}\n{so_far()}"
        time.sleep(0.05)
    return value
