import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from driftloop.errors import BadRequest, ServiceError
from driftloop.heartbeat import beat
from driftloop.settings import Settings
from driftloop.show import show_status
from driftloop.up import Service, ServiceStatus, Supervisor, status
from driftloop.up.status import write_status

ANSWERS = """
import http.server, sys
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/healthz" else 404)
        self.end_headers()
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Answer).serve_forever()
"""
SAYS_READY = "import time; print('warm and ready', flush=True); time.sleep(600)"
WITH_CHILD = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-I", "-S", "-c", "import time; time.sleep(600)"])
open(sys.argv[1], "w").write(str(child.pid))
print("ready", flush=True)
time.sleep(600)
"""
TALKS = """
import time
print("ready", flush=True)
for number in range(1_000_000):
    print("line", number, flush=True)
    time.sleep(0.0005)
"""
BEATS = """
import sys, time
from pathlib import Path
from driftloop.heartbeat import beat
print("ready", flush=True)
while True:
    beat(Path(sys.argv[1]), "ingester")
    time.sleep(0.1)
"""
DEAF = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "print('ready', flush=True); time.sleep(600)"
)


def script(code: str, *arguments: str) -> tuple[str, ...]:
    """Return the command that runs `code` quickly."""
    return (sys.executable, "-I", "-S", "-c", code, *arguments)


def web(name: str, port: int, *, after: tuple[str, ...] = ()) -> Service:
    """Return a service that answers on `port`."""
    return Service(
        name=name,
        argv=script(ANSWERS, str(port)),
        after=after,
        port=port,
        setting=f"{name}_port",
        path="/healthz",
        patience=10.0,
    )


def plain(
    name: str, code: str = SAYS_READY, *arguments: str, after: tuple[str, ...] = ()
) -> Service:
    """Return a service without a port."""
    return Service(name=name, argv=script(code, *arguments), after=after, patience=10.0)


def eventually(true: Callable[[], object], *, within: float = 8.0) -> bool:
    """Return whether it becomes true in time."""
    until = time.monotonic() + within
    while time.monotonic() < until:
        if true():
            return True
        time.sleep(0.05)
    return False


def lives(pid: int) -> bool:
    """Return whether the process runs."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def named(home: Path, name: str) -> ServiceStatus:
    """Return the status of one service."""
    return next(each for each in status(home) if each.name == name)


def pid_of(home: Path, name: str) -> int:
    """Return the process id of one service."""
    pid = named(home, name).pid
    assert pid is not None
    return pid


class Told(list[tuple[str, str]]):
    """What a supervisor said, as (service, event)."""

    def __call__(self, service: str, event: str, detail: str) -> None:
        self.append((service, event))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings of a home that does not exist yet."""
    return Settings(home=tmp_path / "home")


@pytest.fixture
def port() -> int:
    """A port that nobody listens on."""
    return free_port()


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[str]]]:
    """Processes to end after the test."""
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def test_all_become_healthy_in_order_and_stop_in_reverse(settings: Settings, port: int) -> None:
    """A service starts once those it comes after are healthy, and stops before they do."""
    told = Told()
    both = (web("front", port, after=("store",)), plain("store"))
    with Supervisor(settings, both, on_event=told):
        shown = {each.name: each for each in status(settings.home)}
        assert {name: each.state for name, each in shown.items()} == {
            "front": "healthy",
            "store": "healthy",
        }
        assert shown["front"].url == f"http://127.0.0.1:{port}"
        pids = [each.pid for each in shown.values()]
    assert told == [
        ("store", "starting"),
        ("store", "healthy"),
        ("front", "starting"),
        ("front", "healthy"),
        ("front", "stopping"),
        ("front", "stopped"),
        ("store", "stopping"),
        ("store", "stopped"),
    ]
    assert not any(pid and lives(pid) for pid in pids)
    assert [each.state for each in status(settings.home)] == ["stopped", "stopped"]
    assert not show_status(settings)


def test_one_nobody_waits_for_starts_last_and_holds_up_nobody(settings: Settings) -> None:
    """`start` returns while a service that is not awaited is still on its way."""
    slow = Service(name="slow", argv=script("import time; time.sleep(600)"), awaited=False)
    with Supervisor(settings, (slow, plain("quick"))):
        assert named(settings.home, "quick").state == "healthy"
        assert eventually(lambda: named(settings.home, "slow").state == "starting")


def test_killed_service_is_started_again_and_counted(settings: Settings, port: int) -> None:
    """After kill -9 another process answers within seconds, and the restart is on record."""
    told = Told()
    with Supervisor(settings, (web("online", port),), on_event=told):
        first = pid_of(settings.home, "online")
        os.kill(first, signal.SIGKILL)
        assert eventually(lambda: named(settings.home, "online").restarts == 1)
        assert eventually(lambda: named(settings.home, "online").state == "healthy")
        assert pid_of(settings.home, "online") != first
    assert told[2:6] == [
        ("online", "died"),
        ("online", "restarting"),
        ("online", "starting"),
        ("online", "healthy"),
    ]


def test_hung_service_is_started_again(
    settings: Settings, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that lives and no longer answers is replaced by one that does."""
    monkeypatch.setattr("driftloop.up.supervisor.PROBE_EVERY", 0.1)
    said: list[str] = []
    hasty = replace(web("online", port), silence=1.0)
    with Supervisor(settings, (hasty,), on_event=lambda *event: said.append(" ".join(event))):
        first = pid_of(settings.home, "online")
        os.kill(first, signal.SIGSTOP)
        assert eventually(lambda: named(settings.home, "online").restarts == 1)
        assert eventually(lambda: named(settings.home, "online").state == "healthy")
        assert not lives(first)
    assert "online died hung (no answer for 1 s)" in said


def test_hung_service_without_a_port_is_started_again(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It beats as it works: one that stops to is replaced by one that does."""
    monkeypatch.setattr("driftloop.up.supervisor.PROBE_EVERY", 0.1)
    said: list[str] = []
    argv = (sys.executable, "-c", BEATS, str(settings.home))
    hasty = Service(name="ingester", argv=argv, beats=True, silence=2.0)
    with Supervisor(settings, (hasty,), on_event=lambda *event: said.append(" ".join(event))):
        first = pid_of(settings.home, "ingester")
        time.sleep(2 * hasty.silence)
        assert pid_of(settings.home, "ingester") == first
        os.kill(first, signal.SIGSTOP)
        assert eventually(lambda: named(settings.home, "ingester").restarts == 1)
        assert eventually(lambda: named(settings.home, "ingester").state == "healthy")
        assert not lives(first)
    assert "ingester died hung (no sign of life for 2 s)" in said


def test_status_tells_a_service_without_a_port_that_hangs(settings: Settings) -> None:
    """It is unhealthy once it was silent for longer than it may be, and healthy until then."""
    me = psutil.Process()
    told = ServiceStatus(
        name="ingester", state="healthy", pid=me.pid, created=me.create_time(), silence=60.0
    )
    write_status(settings.home, [told])
    beat(settings.home, "ingester")
    assert named(settings.home, "ingester").state == "healthy"
    long_ago = time.time() - 61.0
    os.utime(settings.home / "run" / "ingester.beat", (long_ago, long_ago))
    assert named(settings.home, "ingester").state == "unhealthy"


def test_a_large_log_is_put_aside_while_its_service_writes(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No log fills the disk: what was written moves on, a few times, and nothing is torn."""
    monkeypatch.setattr("driftloop.up.supervisor.PROBE_EVERY", 0.1)
    monkeypatch.setattr("driftloop.up.supervisor.LARGEST_LOG", 2000)
    with Supervisor(settings, (plain("worker", TALKS),)):
        older = settings.logs / "worker.3.log"
        assert eventually(older.exists)
        assert not (settings.logs / "worker.4.log").exists()
        assert (settings.logs / "worker.log").stat().st_size < 20_000
    lines = older.read_text().splitlines()
    assert all(line.startswith("line ") for line in lines if line != "ready")


def test_restart_can_be_switched_off(tmp_path: Path) -> None:
    """With `restart` off a dead service stays dead and is said to be, also once all is stopped."""
    settings = Settings(home=tmp_path, restart=False)
    with Supervisor(settings, (plain("worker"), plain("other"))):
        os.kill(pid_of(tmp_path, "worker"), signal.SIGKILL)
        assert eventually(lambda: named(tmp_path, "worker").state == "dead")
        time.sleep(0.8)
        assert named(tmp_path, "worker").restarts == 0
    assert (named(tmp_path, "worker").state, named(tmp_path, "other").state) == ("dead", "stopped")


def test_children_of_a_dead_service_go_with_it(settings: Settings, tmp_path: Path) -> None:
    """What a killed service had started itself does not outlive it."""
    note = tmp_path / "child"
    with Supervisor(settings, (plain("worker", WITH_CHILD, str(note)),)):
        child = int(note.read_text())
        assert lives(child)
        os.kill(pid_of(settings.home, "worker"), signal.SIGKILL)
        assert eventually(lambda: not lives(child))


def test_deaf_service_is_killed(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that ignores SIGTERM is killed after the grace, and that is told."""
    monkeypatch.setattr("driftloop.up.supervisor.STOP_WITHIN", 0.3)
    details: list[str] = []
    supervisor = Supervisor(
        settings, (plain("deaf", DEAF),), on_event=lambda _s, e, d: details.append(f"{e} {d}")
    )
    supervisor.start()
    pid = pid_of(settings.home, "deaf")
    supervisor.stop()
    assert details[-1] == "stopped killed after 0.3 s"
    assert not lives(pid)


def test_taken_port_is_named_with_its_setting(settings: Settings, port: int) -> None:
    """Nothing is started when a port is taken; the error says which, and how to change it."""
    told = Told()
    with socket.create_server(("127.0.0.1", port)):
        supervisor = Supervisor(settings, (plain("other"), web("online", port)), on_event=told)
        with pytest.raises(ServiceError) as caught:
            supervisor.start()
    assert f"already taken: port {port} (online_port, for online)" in str(caught.value)
    assert "DRIFTLOOP_ONLINE_PORT" in str(caught.value)
    assert isinstance(caught.value, BadRequest)
    assert told == []


def test_a_host_elsewhere_is_not_called_a_taken_port(settings: Settings, port: int) -> None:
    """An address that is not this machine's is told as that; another port would not help."""
    elsewhere = replace(web("online", port), host="203.0.113.7")
    with pytest.raises(BadRequest) as caught:
        Supervisor(settings, (elsewhere,)).start()
    assert str(caught.value) == (
        f"203.0.113.7: no address of this machine: port {port} (online_port, for online)"
        " (hint: see DRIFTLOOP_HOST)"
    )


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("print('no such lake'); raise SystemExit(3)", "did not start (exit code 3)"),
        ("print('no such lake', flush=True); import time; time.sleep(60)", "within 0.7 s"),
    ],
    ids=["dies", "hangs"],
)
def test_one_that_does_not_come_up_stops_the_rest(settings: Settings, code: str, said: str) -> None:
    """The error tells what happened and the last log lines; nothing is left running."""
    bad = Service(name="bad", argv=script(code), patience=0.7, after=("good",))
    supervisor = Supervisor(settings, (plain("good"), bad))
    with pytest.raises(ServiceError) as caught:
        supervisor.start()
    assert said in str(caught.value)
    assert "no such lake" in str(caught.value)
    assert "bad.log" in str(caught.value)
    assert [each.pid for each in status(settings.home)] == [None, None]
    assert [each.state for each in status(settings.home)] == ["stopped", "dead"]


def test_second_supervisor_is_refused_and_welcome_afterwards(settings: Settings) -> None:
    """One home has one supervisor; the second is told the first one's process id."""
    with Supervisor(settings, (plain("one"),)):
        with pytest.raises(ServiceError, match=f"process id {os.getpid()}"):
            Supervisor(settings, (plain("one"),)).start()
        assert named(settings.home, "one").state == "healthy"
    with Supervisor(settings, (plain("one"),)):
        assert named(settings.home, "one").state == "healthy"


def test_logs_of_earlier_starts_are_kept(settings: Settings) -> None:
    """Each start has a log of its own, and the one before is still there."""
    for word in ("first", "second"):
        with Supervisor(settings, (plain("one", f"print('{word}');" + SAYS_READY),)):
            pass
    assert "second" in (settings.logs / "one.log").read_text()
    assert "first" in (settings.logs / "one.1.log").read_text()


SUPERVISES = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_up_supervisor import WITH_CHILD, plain
from driftloop.heartbeat import beat
from driftloop.settings import Settings
from driftloop.up import Supervisor
def say(service, event, detail): print(service, event, flush=True)
home = Path(sys.argv[1])
services = (plain("worker", WITH_CHILD, str(home.parent / "child")),)
Supervisor(Settings(home=home), services, on_event=say).run()
"""


def supervising(home: Path, started: list[subprocess.Popen[str]]) -> subprocess.Popen[str]:
    """Return a supervisor in a process of its own, once its one service is healthy."""
    process = subprocess.Popen(
        (sys.executable, "-c", SUPERVISES, str(home), str(Path(__file__).parent)),
        stdout=subprocess.PIPE,
        text=True,
    )
    started.append(process)
    assert process.stdout is not None
    for line in process.stdout:
        if line == "worker healthy\n":
            return process
    pytest.fail("the supervisor did not come up")


def test_no_orphan_outlives_a_killed_supervisor(
    tmp_path: Path, started: list[subprocess.Popen[str]]
) -> None:
    """After kill -9 of the supervisor its services and their children end, and the home is free."""
    home = tmp_path / "home"
    process = supervising(home, started)
    service, child = pid_of(home, "worker"), int((tmp_path / "child").read_text())
    process.kill()
    process.wait()
    assert eventually(lambda: not lives(service) and not lives(child))
    with Supervisor(Settings(home=home), (plain("worker"),)):
        assert named(home, "worker").state == "healthy"


def test_signal_stops_all_cleanly(tmp_path: Path, started: list[subprocess.Popen[str]]) -> None:
    """SIGTERM to `run` stops every service and returns with exit code 0."""
    home = tmp_path / "home"
    process = supervising(home, started)
    service = pid_of(home, "worker")
    process.terminate()
    assert process.wait(10) == 0
    assert not lives(service)


def test_status_does_not_trust_what_was_written(settings: Settings, port: int) -> None:
    """A process id that now belongs to another process, or nobody answers for, is not healthy."""
    assert status(settings.home) == ()
    with Supervisor(settings, (web("online", port),)):
        assert named(settings.home, "online").state == "healthy"
        file = settings.home / "run" / "status.json"
        kept = json.loads(file.read_text())
        other = dict(kept["services"][0], pid=os.getpid())
        file.write_text(json.dumps({**kept, "services": [other]}))
        assert named(settings.home, "online").state == "dead"
        silent = dict(kept["services"][0], port=free_port())
        file.write_text(json.dumps({**kept, "services": [silent]}))
        assert named(settings.home, "online").state == "unhealthy"
