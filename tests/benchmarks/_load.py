"""A client that asks one service for some seconds, and prints what it saw as JSON.

Without `--rate` every connection asks again once it is answered: as many requests as there can
be. With it requests fall due at that rate, whether the ones before them are answered or not, and a
latency counts from when its request was due: one that waits its turn is not forgotten.
"""

import argparse
import asyncio
import json
import os
import sys
import time
from collections import deque
from itertools import cycle
from pathlib import Path

import uvloop

TICK = 0.001
"""Seconds between two looks at what is due: what a latency is too long by, at most."""
ASKED = argparse.ArgumentParser()
ASKED.add_argument("--port", type=int, required=True)
ASKED.add_argument("--path", required=True)
ASKED.add_argument("--bodies", type=Path, required=True)
ASKED.add_argument("--callers", type=int, required=True)
ASKED.add_argument("--seconds", type=float, required=True)
ASKED.add_argument("--rate", type=float)
ASKED.add_argument("--cpu", type=int)


class Load:
    """What is to be asked, by whom, and what was seen."""

    def __init__(self, requests: list[bytes], until: float, *, busy: bool) -> None:
        self.requests = cycle(requests)
        self.until = until
        self.busy = busy
        self.idle: deque[Caller] = deque()
        self.due: deque[float] = deque()
        self.took: list[float] = []
        self.failed = 0

    def free(self, caller: "Caller") -> None:
        """Give `caller` something to do, if there is."""
        if self.busy and time.perf_counter() < self.until:
            caller.ask(time.perf_counter())
        elif self.due:
            caller.ask(self.due.popleft())
        else:
            self.idle.append(caller)

    async def pace(self, rate: float) -> None:
        """Let requests fall due at `rate` until the end, then wait for what is under way."""
        due = time.perf_counter()
        while (now := time.perf_counter()) < self.until:
            while due <= now:
                self.due.append(due)
                due += 1.0 / rate
            while self.due and self.idle:
                self.idle.popleft().ask(self.due.popleft())
            await asyncio.sleep(TICK)


class Caller(asyncio.Protocol):
    """One connection, with one request under way at most."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._got = b""
        self._due: float | None = None
        self.closing = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def ask(self, due: float) -> None:
        self._due = due
        self.transport.write(next(self._load.requests))

    def data_received(self, data: bytes) -> None:
        self._got += data
        head, gap, body = self._got.partition(b"\r\n\r\n")
        if not gap:
            return
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        if len(body) < int(length):
            return
        self._load.took.append(time.perf_counter() - self._due)
        self._load.failed += not head.startswith(b"HTTP/1.1 200")
        self._got, self._due = b"", None
        self._load.free(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._load.failed += not self.closing


async def ask(asked: argparse.Namespace) -> tuple[Load, float]:
    """Return what was seen, and in how many seconds."""
    start = f"POST {asked.path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
    requests = [
        start.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body
        for body in asked.bodies.read_bytes().splitlines()
    ]
    loop = asyncio.get_running_loop()
    load = Load(requests, 0.0, busy=asked.rate is None)
    callers = []
    for _ in range(asked.callers):
        _, caller = await loop.create_connection(lambda: Caller(load), "127.0.0.1", asked.port)
        callers.append(caller)
    began = time.perf_counter()
    load.until = began + asked.seconds
    for caller in callers:
        load.free(caller)
    if asked.rate is None:
        await asyncio.sleep(asked.seconds)
    else:
        await load.pace(asked.rate)
    async with asyncio.timeout(10.0):
        while len(load.idle) < len(callers):  # noqa: ASYNC110 - it is so within milliseconds
            await asyncio.sleep(TICK)
    wall = time.perf_counter() - began
    for caller in callers:
        caller.closing = True
        caller.transport.close()
    return load, wall


def main() -> None:
    asked = ASKED.parse_args()
    if asked.cpu is not None:
        os.sched_setaffinity(0, {asked.cpu})
    load, wall = uvloop.run(ask(asked))
    took = sorted(load.took)
    shown = {
        "requests": len(took),
        "failed": load.failed,
        "wall_s": wall,
        "client_cpu_s": time.process_time(),
        **{
            f"p{share}_ms": took[min(len(took) - 1, int(len(took) * share / 100))] * 1e3
            for share in (50, 99, 99.9)
        },
    }
    sys.stdout.write(json.dumps(shown) + "\n")


if __name__ == "__main__":
    main()
