"""How the services are: what the supervisor wrote down, checked against the living."""

import json
import os
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import psutil

from driftloop.heartbeat import beaten
from driftloop.up.services import Service, healthy

CLOCK_TOLERANCE = 2.0
"""Seconds that a process may seem to have been created apart from what was written down."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceStatus:
    """One service: its state in a word, its process, since when, and how often restarted.

    `state` is `waiting`, `starting`, `healthy`, `unhealthy` (it runs and does not answer),
    `restarting`, `dead` or `stopped` (it was told to). `created` is when the operating system
    made the process and `started_at` when it was asked to, both in seconds since 1970. One with
    `silence` shows that it works at least once in so many seconds.
    """

    name: str
    state: str
    pid: int | None = None
    created: float | None = None
    started_at: float | None = None
    restarts: int = 0
    host: str = ""
    port: int | None = None
    path: str = ""
    silence: float | None = None

    @property
    def url(self) -> str:
        """Its address for people, empty when it has no port."""
        return f"http://{self.host}:{self.port}" if self.port is not None else ""


def status(home: Path) -> tuple[ServiceStatus, ...]:
    """Return how each service of the last `driftloop up` in `home` is now; empty when none was."""
    file = status_file(home)
    try:
        written = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return ()
    return tuple(_checked(ServiceStatus(**entry), home) for entry in written["services"])


def write_status(home: Path, statuses: Iterable[ServiceStatus]) -> None:
    """Write the statuses down, whole or not at all."""
    file = status_file(home)
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    body = {"pid": os.getpid(), "services": [asdict(each) for each in statuses]}
    part.write_text(json.dumps(body, indent=1), encoding="utf-8")
    part.replace(file)


def status_file(home: Path) -> Path:
    """Return where the supervisor writes the statuses."""
    return home / "run" / "status.json"


def vitals_file(home: Path) -> Path:
    """Return where the watchdog writes its newest look."""
    return home / "run" / "vitals.json"


def vitals(home: Path) -> tuple[dict[str, str | None], ...]:
    """Return the watchdog's newest look: name, level, reason and open incident of each reading."""
    try:
        written = json.loads(vitals_file(home).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return ()
    return tuple(written["vitals"])


def up_since(home: Path) -> float | None:
    """Return when the living `driftloop up` of `home` began, in seconds since 1970."""
    try:
        pid = json.loads(status_file(home).read_text(encoding="utf-8"))["pid"]
    except FileNotFoundError:
        return None
    return created(int(pid))


def created(pid: int) -> float | None:
    """Return when the operating system made the process, None when there is none."""
    try:
        return psutil.Process(pid).create_time()
    except psutil.Error:
        return None


def _checked(said: ServiceStatus, home: Path) -> ServiceStatus:
    if said.pid is None:
        return said
    made = created(said.pid)
    if made is None or said.created is None or abs(made - said.created) > CLOCK_TOLERANCE:
        return replace(said, state="dead", pid=None)
    if said.state != "healthy" or _works(said, home):
        return said
    return replace(said, state="unhealthy")


def _works(said: ServiceStatus, home: Path) -> bool:
    if said.path:
        probe = Service(name=said.name, argv=(), host=said.host, port=said.port, path=said.path)
        return healthy(probe)
    if said.silence is None:
        return True
    return time.time() - (beaten(home, said.name) or 0.0) <= said.silence
