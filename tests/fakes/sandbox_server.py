"""The local Slack, really listening: uvicorn on a free port in a thread."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import uvicorn

from driftloop.page.sandbox import sandbox_app

SECRET = "local-signing-secret"
"""What a running server signs clicks with, unless it is told another."""


class SandboxServer:
    """A running server: its address, what it keeps, who clicks in it, and knobs for its faults."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._port = 0
        self._stop = lambda: None
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def api(self) -> str:
        return f"{self.url}/api/"

    def get(self, path: str) -> str:
        with urlopen(f"{self.url}{path}", timeout=5) as answer:
            return answer.read().decode()

    def messages(self) -> list[dict[str, Any]]:
        """Return every message, with its channel's name, oldest first."""
        return json.loads(self.get("/messages.json"))

    def whispers(self, user: str = "") -> list[dict[str, Any]]:
        """Return the messages that one user alone sees."""
        return json.loads(self.get(f"/whispers.json?{urlencode({'user': user})}"))

    def views(self, user: str = "") -> list[dict[str, Any]]:
        """Return the modals that are open, as {"user", "errors", "view"}."""
        return json.loads(self.get(f"/views.json?{urlencode({'user': user})}"))

    def control(self, *more: dict[str, Any], **faults: object) -> None:
        """Let this go wrong from now on (see `Faults`), and nothing that was set before."""
        self.post("/control", [faults, *more] if more else faults)

    def down(self, seconds: float, how: str = "cut") -> None:
        """Let every call fail for so long: "cut" connections, "error" 500, or "hang"."""
        self.control(outage=how, for_seconds=seconds)

    def click(self, message: dict[str, Any], action_id: str, **more: object) -> dict[str, Any]:
        """Click an element of a message (as `messages` or the API gave it); `user=` says who.

        Returns what came of it: {"ok", "trouble", "status", "answer", "payload", "seconds", "way"}.
        """
        place = {"channel": message["channel"], "ts": message["ts"]}
        return self.post("/control/click", {**place, "action_id": action_id, **more})

    def submit(self, view: dict[str, Any], *, user: str, **values: dict[str, str]) -> Any:
        """Send a modal off (one of `views`), with what is written in it: block={action: text}."""
        click = {"user": user, "view_id": view["view"]["id"], "values": values}
        return self.post("/control/click", click)

    def clicks_go_to(self, url: str) -> None:
        """Post clicks to this address from now on."""
        self.post("/control/url", {"url": url})

    def end_sockets(self, reason: str = "drop", after: float = 0.0) -> int:
        """End all Socket Mode connections, announced ("refresh_requested") or not ("drop")."""
        return self.post("/control/socket", {"reason": reason, "after": after})["connections"]

    def add_person(self, id_: str, **told: object) -> None:
        """Add a user (`name=`) or a group (`handle=`, `users=`)."""
        self.post("/control/people", {"id": id_, **told})

    def add_channel(self, name: str) -> str:
        """Return the id of the channel `name`, made if it was missing."""
        return self.post(f"/control/channels/{name}", {})["channel"]

    def call(self, method: str, **asked: object) -> dict[str, Any]:
        """Call a method of the Web API, as somebody who is not the pager."""
        return self.post(f"/api/{method}", asked, Authorization="Bearer xoxb-other")

    def post(self, path: str, body: object, **headers: str) -> Any:
        sent = json.dumps(body).encode()
        headers = {"Content-Type": "application/json", **headers}
        with urlopen(Request(f"{self.url}{path}", sent, headers), timeout=30) as answer:
            return json.loads(answer.read())

    @contextmanager
    def away(self) -> Iterator[None]:
        """Refuse connections while the block lasts; what was kept is there again after it."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    def start(self) -> None:
        door = socket.create_server(("127.0.0.1", self._port))
        self._port = door.getsockname()[1]
        config = uvicorn.Config(
            self._app, log_level=60, lifespan="off", loop="asyncio", timeout_graceful_shutdown=1
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [door]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.005)

        def stop() -> None:
            server.should_exit = True
            thread.join(10)
            door.close()

        self._stop = stop

    def stop(self) -> None:
        self._stop()


@contextmanager
def running(store: Path, **options: Any) -> Iterator[SandboxServer]:
    """Serve `sandbox_app(store, **options)` until the block ends."""
    server = SandboxServer(sandbox_app(store, **options))
    try:
        yield server
    finally:
        server.stop()
