"""A client that asks one service for some seconds, and prints what it saw as one JSON object.

Without `--rate` every connection asks again once it is answered: as many requests as there can
be. With it requests fall due at that rate, whether the ones before them are answered or not, and a
latency counts from when its request was due: one that waits its turn is not forgotten.

What is asked stands in the file `--requests`: a path, a space and a body in each line, in turn.
`ID` in a body becomes an id like no other. Sockets and epoll without a framework: on a machine
that it shares with the service, what it spends itself is not there for answers.
"""

import argparse
import json
import os
import re
import select
import socket
import sys
import time
from collections import Counter, deque
from pathlib import Path

ID = b"@id@"
DIGITS = 9
TICK = 0.001
PATIENCE = 10.0
"""Seconds that what is under way at the end is waited for."""
AGAIN = 0.01
"""Seconds between two tries to connect, where nobody listens."""
LARGEST = 1 << 18
THOUSAND = 1000.0
ASKED = argparse.ArgumentParser()
ASKED.add_argument("--port", type=int, required=True)
ASKED.add_argument("--requests", type=Path, required=True)
ASKED.add_argument("--callers", type=int, required=True)
ASKED.add_argument("--seconds", type=float, required=True)
ASKED.add_argument("--rate", type=float)
ASKED.add_argument("--run", default="r", help="what its ids begin with")
ASKED.add_argument("--cpu", type=int, help="the one core to run on")
ASKED.add_argument(
    "--thousands",
    action="store_true",
    help="each prediction's thousands are the version that it is of; count answers that differ",
)

_model = re.compile(rb'"model":"([^"]+)"')
_version = re.compile(rb'"version":(\d+)')
_prediction = re.compile(rb'"prediction":(-?[\d.e+]+)')


class Caller:
    """One connection, with one request under way at most."""

    __slots__ = ("due", "got", "number", "port", "socket")

    def __init__(self) -> None:
        self.socket: socket.socket | None = None
        self.port = 0
        self.due: float | None = None
        self.number = 0
        self.got = b""


class Load:
    """Asks, and counts what comes back."""

    def __init__(self, asked: argparse.Namespace) -> None:
        self._address = ("127.0.0.1", asked.port)
        self._requests = read_requests(asked.requests, digits=len(asked.run) + 1 + DIGITS)
        self._run = asked.run.encode()
        self._rate = asked.rate
        self._seconds = asked.seconds
        self._checked = asked.thousands
        self._ready = select.epoll()
        self._by_fd: dict[int, Caller] = {}
        self._idle: deque[Caller] = deque()
        self._lost: list[Caller] = []
        self._waiting: deque[float] = deque()
        self._began = self._until = 0.0
        self._fallen = 0
        self._callers = [Caller() for _ in range(asked.callers)]
        self.sent = 0
        self.took: list[float] = []
        self.statuses: Counter[int] = Counter()
        self.unanswered: list[int] = []
        self.dropped: list[int] = []
        self.mixed = 0
        self.answered_by: set[tuple[bytes, int]] = set()

    def run(self) -> float:
        """Ask until the end; return the seconds until the last was answered, or given up."""
        for caller in self._callers:
            self._connect(caller)
        began = self._began = time.perf_counter()
        self._until = began + self._seconds
        while not self._ended(now := time.perf_counter()):
            self._fall_due(now)
            while self._waiting and self._idle:
                self._ask(self._idle.popleft(), self._waiting.popleft())
            if self._lost:
                self._reconnect()
            # The next request may be due within less; a latency is too long by that at most.
            for fd, _ in self._ready.poll(TICK):
                self._read(self._by_fd[fd])
        wall = time.perf_counter() - began
        for caller in self._callers:
            if caller.due is not None:
                self.unanswered.append(caller.number)
            if caller.socket is not None:
                caller.socket.close()
        # What was due and was never sent has failed as well.
        self.unanswered.extend(range(self.sent, self.sent + len(self._waiting)))
        return wall

    def _ended(self, now: float) -> bool:
        if now < self._until:
            return False
        answered = not self._waiting and len(self._idle) == len(self._callers)
        return answered or now > self._until + PATIENCE

    def _fall_due(self, now: float) -> None:
        if self._rate is None:
            if now < self._until:
                self._waiting.extend([now] * (len(self._idle) - len(self._waiting)))
            return
        while (due := self._began + self._fallen / self._rate) <= now and due < self._until:
            self._waiting.append(due)
            self._fallen += 1

    def _ask(self, caller: Caller, due: float) -> None:
        number = self.sent
        self.sent += 1
        caller.due, caller.number = due, number
        parts = self._requests[number % len(self._requests)]
        try:
            caller.socket.send((b"%b-%09d" % (self._run, number)).join(parts))
        except OSError:
            self._drop(caller)

    def _read(self, caller: Caller) -> None:
        try:
            data = caller.socket.recv(LARGEST)
        except OSError:
            data = b""
        if not data:
            self._drop(caller)
            return
        if caller.got:
            data = caller.got + data
        end = data.find(b"\r\n\r\n")
        head = data[: max(end, 0)].lower()
        said = head.find(b"content-length: ")
        if said < 0:
            # Without it, as with chunks, the end is known by its last chunk.
            whole = end >= 0 and data.endswith(b"0\r\n\r\n")
        else:
            stop = head.find(b"\r", said)
            length = int(head[said + 16 : stop if stop >= 0 else None])
            whole = len(data) >= end + 4 + length
        if not whole:
            caller.got = data
            return
        status = int(head[9:12])
        self.statuses[status] += 1
        if status == 200:
            self.took.append(time.perf_counter() - caller.due)
            if self._checked:
                self._check(data)
        else:
            self.unanswered.append(caller.number)
        caller.got, caller.due = b"", None
        self._idle.append(caller)

    def _check(self, data: bytes) -> None:
        versions = {int(each) for each in _version.findall(data)}
        of = {round(float(each) / THOUSAND) for each in _prediction.findall(data)}
        self.mixed += len(versions) != 1 or of != versions
        self.answered_by |= {(name, each) for name in _model.findall(data) for each in versions}

    def _drop(self, caller: Caller) -> None:
        if caller.due is not None:
            self.unanswered.append(caller.number)
            self.dropped.append(caller.port)
        elif caller in self._idle:
            self._idle.remove(caller)
        caller.got, caller.due = b"", None
        self._ready.unregister(caller.socket)
        del self._by_fd[caller.socket.fileno()]
        caller.socket.close()
        caller.socket = None
        self._lost.append(caller)

    def _reconnect(self) -> None:
        lost, self._lost = self._lost, []
        for number, caller in enumerate(lost):
            try:
                self._connect(caller)
            except OSError:
                self._lost += lost[number:]
                time.sleep(AGAIN)
                return

    def _connect(self, caller: Caller) -> None:
        made = socket.create_connection(self._address, timeout=1.0)
        made.settimeout(0.0)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        caller.socket, caller.port = made, made.getsockname()[1]
        self._by_fd[made.fileno()] = caller
        self._ready.register(made.fileno(), select.EPOLLIN)
        self._idle.append(caller)


def read_requests(file: Path, *, digits: int) -> list[list[bytes]]:
    """Return each line's request, cut where an id of `digits` characters is to stand."""
    found = []
    for line in file.read_bytes().splitlines():
        path, body = line.split(b" ", 1)
        parts = body.split(ID)
        length = len(body) + (digits - len(ID)) * (len(parts) - 1)
        head = b"POST %b HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
        parts[0] = head % path + b"Content-Length: %d\r\n\r\n" % length + parts[0]
        found.append(parts)
    return found


def main() -> None:
    asked = ASKED.parse_args()
    if asked.cpu is not None:
        os.sched_setaffinity(0, {asked.cpu})
    load = Load(asked)
    before = time.process_time()
    wall = load.run()
    spent = time.process_time() - before
    took = sorted(load.took)
    shown = {
        "requests": len(load.took),
        "failed": len(load.unanswered),
        "statuses": load.statuses,
        "dropped": load.dropped,
        "wall_s": wall,
        "client_cpu_s": spent,
        "run": asked.run,
        "sent": load.sent,
        "unanswered": load.unanswered,
        "mixed": load.mixed,
        "versions": len(load.answered_by),
        "models": len({name for name, _ in load.answered_by}),
        **{
            f"p{share}_ms": took[min(len(took) - 1, int(len(took) * share / 100))] * 1e3
            for share in (50, 99, 99.9)
            if took
        },
    }
    sys.stdout.write(json.dumps(shown) + "\n")


if __name__ == "__main__":
    main()
