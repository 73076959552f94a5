"""Workers that are kept running on one socket, small ones that answer their pid."""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from driftloop.errors import CannotListen
from driftloop.up import workers
from driftloop.up.workers import Workers, bound

WORKER = """
import os, select, signal, socket, sys
from pathlib import Path
place, door, alive = map(int, sys.argv[1:4])
shown, mode = sys.argv[4:]
if mode == "broken" or (mode == "broken-later" and (Path(shown) / "seen").exists()):
    sys.exit(3)
listening = socket.socket(fileno=door)
listening.settimeout(0)
signal.signal(signal.SIGTERM, (lambda *_: None) if mode == "stubborn" else lambda *_: sys.exit(0))
(Path(shown) / f"{place}.json").write_text("{}")
while True:
    ready = select.select([listening, alive], [], [])[0]
    if alive in ready and mode != "stubborn":
        sys.exit(0)
    try:
        caller, _ = listening.accept()
    except BlockingIOError:
        continue
    caller.sendall(b"%d" % os.getpid())
    caller.close()
"""


class Running:
    """Workers in a thread, and how to reach them."""

    def __init__(self, folder: Path, mode: str, number: int) -> None:
        self.door = bound("127.0.0.1", 0)
        self.port = self.door.getsockname()[1]
        self.shown = folder / "shown"
        self.stop = threading.Event()
        script = folder / "worker.py"
        script.write_text(WORKER)
        self.workers = Workers(
            lambda place, alive: (
                *(sys.executable, "-I", "-S", str(script)),
                *(str(place), str(self.door.fileno()), str(alive), str(self.shown), mode),
            ),
            {},
            number=number,
            door=self.door,
            shown=self.shown,
            drain=0.1,
        )
        self.codes: list[int] = []
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        self.codes.append(self.workers.run(self.stop))

    def pids(self) -> set[int]:
        return {each.process.pid for each in self.workers._places if each.process is not None}

    def up(self) -> bool:
        files = sorted(each.name for each in self.shown.glob("*.json"))
        return files == [f"{place.number}.json" for place in self.workers._places]

    def ask(self) -> int:
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as caller:
            return int(caller.recv(20))

    def end(self) -> None:
        self.stop.set()
        self.thread.join(20)
        assert not self.thread.is_alive()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    running: list[Running] = []

    def begin(mode: str = "", number: int = 2) -> Running:
        running.append(Running(tmp_path, mode, number))
        return running[-1]

    yield begin
    for each in running:
        each.end()


def until(true: Callable[[], Any]) -> None:
    patience = time.monotonic() + 20
    while not true():
        assert time.monotonic() < patience, "it did not become true in time"
        time.sleep(0.01)


def test_all_answer_on_one_socket_and_end_when_told(start: Any) -> None:
    """Each worker accepts; told to stop, all end, and nobody listens any more."""
    running = start()
    until(running.up)
    pids = running.pids()
    assert len(pids) == 2
    seen: set[int] = set()
    until(lambda: seen.add(running.ask()) or seen == pids)
    running.end()
    assert running.codes == [0]
    assert not [pid for pid in pids if psutil.pid_exists(pid)]
    with pytest.raises(ConnectionRefusedError):
        running.ask()


def test_a_killed_worker_is_followed_while_the_others_answer(start: Any) -> None:
    """Nobody is refused in between: the socket is not the worker's."""
    running = start()
    until(running.up)
    first = running.pids()
    victim = running.ask()
    os.kill(victim, signal.SIGKILL)
    until(lambda: victim not in running.pids() and len(running.pids()) == 2)
    assert running.ask() != victim
    assert len(running.pids() & first) == 1
    assert running.codes == []


def test_one_that_hangs_is_ended_and_followed(
    start: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A worker that shows no sign of life for long is killed, and another takes its place."""
    running = start(number=1)
    until(running.up)
    (pid,) = running.pids()
    monkeypatch.setattr(workers, "SILENCE", 0.01)
    until(lambda: pid not in running.pids())
    monkeypatch.setattr(workers, "SILENCE", 30.0)
    until(lambda: running.pids() and running.ask() != pid)
    assert "hangs (silent for" in caplog.text


def test_what_cannot_begin_ends_with_its_code(start: Any) -> None:
    """Where no worker ever lived the installation is at fault: whoever supervises is told."""
    running = start("broken")
    until(lambda: running.codes)
    assert running.codes == [3]
    assert not [pid for pid in running.pids() if psutil.pid_exists(pid)]


def test_what_fails_later_is_tried_again(start: Any) -> None:
    """Where one lived before, a worker that cannot begin is tried again, and the others answer."""
    running = start("broken-later")
    until(running.up)
    (running.shown / "seen").touch()
    victim = running.ask()
    os.kill(victim, signal.SIGKILL)
    place = next(each for each in running.workers._places if each.process.pid == victim)
    until(lambda: place.pause > workers.FIRST_PAUSE)
    assert running.ask() != victim
    (running.shown / "seen").unlink()
    until(lambda: len(running.pids()) == 2)
    assert running.codes == []


def test_one_that_does_not_end_is_killed(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the time to drain, and some grace, what is left is ended."""
    monkeypatch.setattr(workers, "GRACE", 0.2)
    running = start("stubborn")
    until(running.up)
    pids = running.pids()
    running.end()
    assert not [pid for pid in pids if psutil.pid_exists(pid)]


def test_what_to_change_where_nobody_can_listen_is_told() -> None:
    """In the words of the settings, and not of whoever listens for us."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CannotListen) as refused:
            bound("127.0.0.1", port, setting="desk_port")
    said = f"127.0.0.1:{port}: cannot listen: Address already in use"
    assert str(refused.value) == (
        f"{said} (hint: stop what listens there, or set DRIFTLOOP_DESK_PORT)"
    )


def test_where_nobody_can_listen_is_told() -> None:
    """A port that is taken is named."""
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(CannotListen, match=r"127\.0\.0\.1:\d+: cannot listen: .*in use"),
    ):
        bound("127.0.0.1", taken.getsockname()[1])
