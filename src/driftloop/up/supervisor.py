"""Starts the services, waits until they are healthy, restarts those that die, stops them all."""

import errno
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO, Literal, Self

from driftloop.errors import CannotListen, ServiceError
from driftloop.heartbeat import beat, beaten
from driftloop.settings import Settings
from driftloop.up import guardian
from driftloop.up.services import READY, Service, healthy
from driftloop.up.status import ServiceStatus, created, write_status

TICK = 0.1
STOP_WITHIN = 10.0
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
STEADY = 60.0
"""Seconds a service must have been healthy for its next death to count as its first."""
KEPT_LOGS = 3
LARGEST_LOG = 20 * 2**20
"""Bytes at which a log is put aside while its service goes on."""
PROBE_EVERY = 5.0
SHOWN_LINES = 15
LOCK_PATIENCE = 10.0
TAKEN = "already taken"
NO_ADDRESS = "no address of this machine"

Event = Literal["starting", "healthy", "died", "restarting", "stopping", "stopped"]
OnEvent = Callable[[str, Event, str], None]


class Phase(StrEnum):
    """Where a service stands."""

    WAITING = "waiting"
    STARTING = "starting"
    HEALTHY = "healthy"
    RESTARTING = "restarting"
    DEAD = "dead"
    STOPPED = "stopped"


class Supervisor:
    """Keeps services running; as a context manager it starts them, and stops them at the end.

    Args:
        settings: where the logs, the lock and the status file go, and whether to restart.
        services: what to run.
        on_event: told what happens as (service, event, detail), from whichever thread sees it.
    """

    def __init__(
        self,
        settings: Settings,
        services: Sequence[Service],
        *,
        on_event: OnEvent = lambda service, event, detail: None,  # noqa: ARG005 - told to nobody
    ) -> None:
        self._settings = settings
        self._children = {service.name: _Child(service) for service in services}
        self._on_event = on_event
        self._asked = threading.Event()
        self._monitor: threading.Thread | None = None
        self._guardian: subprocess.Popen[str] | None = None
        self._lock: IO[str] | None = None

    def run(self, *, when_up: Callable[[], None] = lambda: None) -> None:
        """Start all, keep them running until SIGINT or SIGTERM, and stop all; main thread only.

        `when_up` is called once every awaited service is healthy.

        Raises:
            ServiceError: as `start`.
        """

        def ask(_number: int, _frame: FrameType | None) -> None:
            self._asked.set()

        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            with self:
                if not self._asked.is_set():
                    when_up()
                self._asked.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def start(self) -> None:
        """Return once every awaited service is healthy; from then on the dead are restarted.

        Raises:
            CannotListen: a port is taken, or cannot be had. Nothing was started.
            ServiceError: another supervisor runs in this home, or a service died or did not
                become healthy. Nothing is left running.
        """
        self._asked.clear()
        self._take_lock()
        try:
            self._check_ports()
            self._clear_logs()
            while not self._asked.is_set() and not self._all_up():
                self._tick(starting=True)
                self._asked.wait(TICK)
        except BaseException:
            self.stop()
            raise
        self._monitor = threading.Thread(target=self._watch_over, name="supervisor", daemon=True)
        self._monitor.start()

    def stop(self) -> None:
        """Stop every service, those that use others before those they use; never raises for one."""
        self._asked.set()
        if self._monitor is not None:
            self._monitor.join()
            self._monitor = None
        while running := [child for child in self._children.values() if child.process is not None]:
            used = {n for child in running for n in child.service.after + child.service.needs}
            # In a ring nobody could go first: then all go at once.
            self._stop([c for c in running if c.service.name not in used] or running)
        for child in self._children.values():
            # One that died, and was not to be started again, is not among those that were stopped.
            if child.phase is not Phase.DEAD:
                child.phase = Phase.STOPPED
        if self._lock is not None:
            self._write_status()
        self._dismiss_guardian()
        self._give_lock_back()

    def __enter__(self) -> Self:
        """Start; see `start`."""
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop; see `stop`."""
        self.stop()

    # -- the loop ---------------------------------------------------------------------------

    def _watch_over(self) -> None:
        while not self._asked.wait(TICK):
            self._tick(starting=False)

    def _tick(self, *, starting: bool) -> None:
        for child in self._children.values():
            match child.phase:
                case Phase.WAITING if self._may_start(child.service):
                    self._launch(child)
                case Phase.RESTARTING if time.monotonic() >= child.due:
                    self._launch(child)
                case Phase.STARTING:
                    self._look_at_starting(child, starting=starting)
                case Phase.HEALTHY if (code := _exit_code(child)) is not None:
                    self._died(child, f"died ({_worded(code)})", starting=starting)
                case Phase.HEALTHY if time.monotonic() >= child.probe:
                    self._look_at_healthy(child, starting=starting)
        self._keep_guardian()

    def _look_at_starting(self, child: "_Child", *, starting: bool) -> None:
        service = child.service
        if (code := _exit_code(child)) is not None:
            self._died(child, f"did not start ({_worded(code)})", starting=starting)
        elif healthy(service) if service.path else self._said_ready(child):
            child.phase, child.since = Phase.HEALTHY, time.monotonic()
            self._write_status()
            self._on_event(service.name, "healthy", service.url)
        elif time.monotonic() > child.due:
            what = f"was not healthy within {service.patience:g} s"
            self._died(child, what, starting=starting)

    def _look_at_healthy(self, child: "_Child", *, starting: bool) -> None:
        child.probe = time.monotonic() + PROBE_EVERY
        self._put_aside(self._log(child.service))
        if self._works(child):
            child.answered = time.monotonic()
        elif time.monotonic() - max(child.answered, child.since) >= child.service.silence:
            missed = "sign of life" if child.service.beats else "answer"
            what = f"hung (no {missed} for {child.service.silence:g} s)"
            self._died(child, what, starting=starting)

    def _works(self, child: "_Child") -> bool:
        """Return whether a service answers, or has shown since the last look that it works."""
        if child.service.path:
            return healthy(child.service)
        if not child.service.beats:
            return True
        # Compared with itself: the clock may be set, ahead as well as back.
        before, child.beat = child.beat, beaten(self._settings.home, child.service.name)
        return child.beat != before

    def _died(self, child: "_Child", what: str, *, starting: bool) -> None:
        service = child.service
        # What it left behind (fits, say) goes with it.
        _signal(child, signal.SIGKILL)
        self._forget(child)
        if starting and service.awaited:
            child.phase = Phase.DEAD
            raise ServiceError(
                f"the service {service.name} {what}; its log ends\n{self._last_lines(child)}",
                where=str(self._log(service)),
                hint="the whole log says more",
            )
        self._on_event(service.name, "died", what)
        if not self._settings.restart:
            child.phase = Phase.DEAD
            self._write_status()
            return
        steady = child.phase is Phase.HEALTHY and time.monotonic() - child.since >= STEADY
        child.pause = FIRST_PAUSE if steady or not child.pause else child.pause * 2
        child.pause = min(child.pause, LONGEST_PAUSE)
        child.phase, child.due = Phase.RESTARTING, time.monotonic() + child.pause
        child.restarts += 1
        self._write_status()
        self._on_event(service.name, "restarting", f"in {child.pause:g} s")

    def _launch(self, child: "_Child") -> None:
        service = child.service
        log = self._log(service)
        if service.beats:
            beat(self._settings.home, service.name)
        with log.open("ab") as out:
            child.offset = out.tell()
            child.process = subprocess.Popen(
                service.argv,
                env={**os.environ, **service.env},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                # A group of its own, which neither the terminal's Ctrl-C reaches nor a stray
                # child escapes.
                start_new_session=True,
            )
        self._tell_guardian("+", child.process.pid)
        child.phase, child.due = Phase.STARTING, time.monotonic() + service.patience
        child.created, child.started_at = created(child.process.pid), time.time()
        self._write_status()
        self._on_event(service.name, "starting", f"pid {child.process.pid}, log {log}")

    def _stop(self, children: "Sequence[_Child]") -> None:
        for child in children:
            self._on_event(child.service.name, "stopping", "")
            if child.process is not None:
                with suppress(ProcessLookupError):
                    child.process.terminate()
        until = time.monotonic() + STOP_WITHIN
        for child in children:
            detail = ""
            if child.process is not None:
                try:
                    child.process.wait(max(until - time.monotonic(), 0.0))
                except subprocess.TimeoutExpired:
                    detail = f"killed after {STOP_WITHIN:g} s"
            _signal(child, signal.SIGKILL)
            self._forget(child)
            self._on_event(child.service.name, "stopped", detail)

    def _forget(self, child: "_Child") -> None:
        if child.process is not None:
            child.process.wait()
            self._tell_guardian("-", child.process.pid)
        child.process, child.created = None, None

    def _may_start(self, service: Service) -> bool:
        first = service.after
        if not service.awaited:
            first += tuple(n for n, child in self._children.items() if child.service.awaited)
        return all(
            self._children[name].phase is Phase.HEALTHY for name in first if name in self._children
        )

    def _all_up(self) -> bool:
        return all(
            child.phase is Phase.HEALTHY
            for child in self._children.values()
            if child.service.awaited
        )

    # -- what is written down ---------------------------------------------------------------

    def _write_status(self) -> None:
        write_status(self._settings.home, [child.status() for child in self._children.values()])

    def _log(self, service: Service) -> Path:
        return self._settings.logs / f"{service.name}.log"

    def _clear_logs(self) -> None:
        self._settings.logs.mkdir(parents=True, exist_ok=True)
        for child in self._children.values():
            log = self._log(child.service)
            _shift(log)
            if log.exists():
                log.replace(log.with_suffix(".1.log"))

    def _put_aside(self, log: Path) -> None:
        """Begin a log anew once it is large; its service goes on writing to the same file."""
        with suppress(OSError):
            if log.stat().st_size >= LARGEST_LOG:
                _shift(log)
                shutil.copyfile(log, log.with_suffix(".1.log"))
                # Services append: what comes next stands at the beginning.
                os.truncate(log, 0)

    def _said_ready(self, child: "_Child") -> bool:
        with self._log(child.service).open("rb") as log:
            log.seek(child.offset)
            return READY.search(log.read()) is not None

    def _last_lines(self, child: "_Child") -> str:
        text = self._log(child.service).read_text(encoding="utf-8", errors="replace")
        return "\n".join(f"  {line}" for line in text.splitlines()[-SHOWN_LINES:]) or "  (empty)"

    # -- what must hold before ---------------------------------------------------------------

    def _take_lock(self) -> None:
        self._settings.home.mkdir(parents=True, exist_ok=True)
        file = self._settings.home / "up.lock"
        lock = file.open("a+", encoding="utf-8")
        until = time.monotonic() + LOCK_PATIENCE
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                lock.seek(0)
                pid = lock.read().strip()
                # A dead one's guardian still holds it, for the moment it needs to end the rest.
                if (pid and created(int(pid)) is not None) or time.monotonic() > until:
                    lock.close()
                    raise ServiceError(
                        f"another `driftloop up` runs here, with process id {pid}",
                        where=str(file),
                        hint="stop that one, or choose another home (DRIFTLOOP_HOME)",
                    ) from None
                time.sleep(TICK)
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        self._lock = lock

    def _give_lock_back(self) -> None:
        if self._lock is not None:
            self._lock.truncate(0)
            self._lock.close()
            self._lock = None

    def _check_ports(self) -> None:
        refused: dict[str, list[Service]] = {}
        for child in self._children.values():
            if child.service.port is not None and (why := _why_not(child.service)):
                refused.setdefault(why, []).append(child.service)
        if refused:
            them = [service for services in refused.values() for service in services]
            others = " ".join(f"DRIFTLOOP_{s.setting.upper()}=..." for s in them)
            stop = "stop what listens there, or " if TAKEN in refused else ""
            host = NO_ADDRESS in refused
            raise CannotListen(
                "; ".join(
                    f"{why}: " + ", ".join(f"port {s.port} ({s.setting}, for {s.name})" for s in of)
                    for why, of in refused.items()
                ),
                where=them[0].host,
                hint="see DRIFTLOOP_HOST" if host else f"{stop}choose others: {others}",
            )

    # -- the guardian ------------------------------------------------------------------------

    def _keep_guardian(self) -> None:
        if self._lock is None or (self._guardian is not None and self._guardian.poll() is None):
            return
        self._dismiss_guardian()
        self._guardian = subprocess.Popen(
            (sys.executable, "-I", "-S", guardian.__file__),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
            pass_fds=(self._lock.fileno(),),
        )
        for child in self._children.values():
            if child.process is not None:
                self._tell_guardian("+", child.process.pid)

    def _tell_guardian(self, sign: str, group: int) -> None:
        self._keep_guardian()
        if self._guardian is not None and self._guardian.stdin is not None:
            with suppress(BrokenPipeError):
                self._guardian.stdin.write(f"{sign}{group}\n")
                self._guardian.stdin.flush()

    def _dismiss_guardian(self) -> None:
        if self._guardian is not None and self._guardian.stdin is not None:
            with suppress(BrokenPipeError):
                self._guardian.stdin.close()
            self._guardian.wait()
            self._guardian = None


@dataclass(slots=True)
class _Child:
    """A service and what became of it; the times are of the monotonic clock but for two."""

    service: Service
    phase: Phase = Phase.WAITING
    process: subprocess.Popen[bytes] | None = None
    created: float | None = None
    started_at: float | None = None
    restarts: int = 0
    since: float = 0.0
    due: float = 0.0
    pause: float = 0.0
    probe: float = 0.0
    answered: float = 0.0
    beat: float | None = None
    offset: int = 0

    def status(self) -> ServiceStatus:
        return ServiceStatus(
            name=self.service.name,
            state=self.phase.value,
            pid=self.process.pid if self.process is not None else None,
            created=self.created,
            started_at=self.started_at,
            restarts=self.restarts,
            host=self.service.host,
            port=self.service.port,
            path=self.service.path,
            silence=self.service.silence if self.service.beats else None,
        )


def _shift(log: Path) -> None:
    """Make room for `log` as the newest of those that are kept."""
    for age in range(KEPT_LOGS, 1, -1):
        newer = log.with_suffix(f".{age - 1}.log")
        if newer.exists():
            newer.replace(log.with_suffix(f".{age}.log"))


def _exit_code(child: _Child) -> int | None:
    return child.process.poll() if child.process is not None else None


def _signal(child: _Child, number: int) -> None:
    if child.process is not None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child.process.pid, number)


def _worded(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"


def _why_not(service: Service) -> str:
    """Return why nobody can listen where `service` is to, nothing when it can."""
    with socket.socket() as probe:
        # As servers do: a port whose last connections are merely winding down is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((service.host, service.port or 0))
        except OSError as error:
            if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
                return NO_ADDRESS
            return TAKEN if error.errno == errno.EADDRINUSE else f"{error.strerror}"
    return ""
