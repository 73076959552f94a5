"""A client that keeps some connections busy for some seconds, and prints what it saw as JSON."""

import asyncio
import json
import sys
import time
from itertools import cycle
from pathlib import Path


class Caller(asyncio.Protocol):
    """One connection: the next request goes out when the answer to the last one is in."""

    def __init__(self, requests: "cycle[bytes]", until: float, seen: "Seen") -> None:
        self._requests = requests
        self._until = until
        self._seen = seen
        self._got = b""
        self._sent = 0.0
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        self._got += data
        head, gap, body = self._got.partition(b"\r\n\r\n")
        if not gap:
            return
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        if len(body) < int(length):
            return
        now = time.perf_counter()
        self._seen.took.append(now - self._sent)
        self._seen.failed += not head.startswith(b"HTTP/1.1 200")
        self._got = b""
        if now < self._until:
            self._send()
        else:
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        self._seen.failed += bool(error) or time.perf_counter() < self._until
        self.done.set_result(None)

    def _send(self) -> None:
        self._sent = time.perf_counter()
        self._transport.write(next(self._requests))


class Seen:
    def __init__(self) -> None:
        self.took: list[float] = []
        self.failed = 0


async def burst(port: int, path: str, bodies: list[bytes], callers: int, seconds: float) -> Seen:
    """Return what `callers` connections saw in so many seconds."""
    start = f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n".encode()
    requests = [start + b"Content-Length: %d\r\n\r\n" % len(body) + body for body in bodies]
    turns, seen, loop = cycle(requests), Seen(), asyncio.get_running_loop()
    until = time.perf_counter() + seconds
    made = [
        await loop.create_connection(lambda: Caller(turns, until, seen), "127.0.0.1", port)
        for _ in range(callers)
    ]
    async with asyncio.timeout(seconds + 10.0):
        await asyncio.gather(*(caller.done for _, caller in made))
    return seen


def main() -> None:
    port, path, file, callers, seconds = sys.argv[1:]
    bodies = Path(file).read_bytes().splitlines()
    began = time.perf_counter()
    seen = asyncio.run(burst(int(port), path, bodies, int(callers), float(seconds)))
    wall = time.perf_counter() - began
    took = sorted(seen.took)
    shown = {
        "requests": len(took),
        "failed": seen.failed,
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
