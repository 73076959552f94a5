"""The local Slack, really listening: uvicorn on a free port in a thread."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import uvicorn

from driftloop.page.sandbox import sandbox_app


class SandboxServer:
    """A running server: its address, what it keeps, and a knob for its faults."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.api = f"{url}/api/"

    def get(self, path: str) -> str:
        with urlopen(f"{self.url}{path}", timeout=5) as answer:
            return answer.read().decode()

    def messages(self) -> list[dict[str, Any]]:
        return json.loads(self.get("/messages.json"))

    def control(self, **faults: object) -> None:
        sent = json.dumps(faults).encode()
        asked = Request(f"{self.url}/control", sent, {"Content-Type": "application/json"})
        with urlopen(asked, timeout=5) as answer:
            answer.read()


@contextmanager
def running(store: Path) -> Iterator[SandboxServer]:
    """Serve `sandbox_app(store)` until the block ends."""
    with socket.create_server(("127.0.0.1", 0)) as door:
        config = uvicorn.Config(
            sandbox_app(store), log_level=60, lifespan="off", ws="none", loop="asyncio"
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [door]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.005)
        try:
            yield SandboxServer(f"http://127.0.0.1:{door.getsockname()[1]}")
        finally:
            server.should_exit = True
            thread.join(10)
