"""What is needed to click without Slack: a desk, a listener for what is answered, and a server."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlencode

import uvicorn
from slack_sdk.signature import SignatureVerifier

from driftloop.records import Answer, Click

SECRET = "8f742231b10e8888abcd99yyyzzz85a5"


class FakeDesk:
    """Does what is asked once for each key, and remembers it; may be slow, or fail."""

    def __init__(self) -> None:
        self.done: dict[str, Click] = {}
        self.calls = 0
        self.delay = 0.0
        self.error: Exception | None = None
        self.answer = Answer(done=True, said="It is yours: <eta-de> & all.")
        self.refuses = ""
        self.looks = 0.0

    def refusal(self, click: Click) -> str:
        time.sleep(self.looks)
        if self.error is not None:
            raise self.error
        return self.refuses

    def take(self, click: Click) -> Answer:
        self.calls += 1
        time.sleep(self.delay)
        if self.error is not None:
            raise self.error
        if self.answer.done:
            self.done[click.key] = click
        return self.answer


class Listener:
    """Takes all that is posted to it, as Slack would: (path, body) in `heard`."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, dict[str, Any]]] = []
        self.status = 200
        self.reply: dict[str, Any] = {"ok": True}
        listener = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                sent = self.rfile.read(int(self.headers["Content-Length"]))
                kind = self.headers.get("Content-Type", "")
                body = json.loads(sent) if "json" in kind else dict(parse_qsl(sent.decode()))
                listener.heard.append((self.path, body))
                said = json.dumps(listener.reply).encode()
                self.send_response(listener.status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(said)))
                self.end_headers()
                self.wfile.write(said)

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self.api = f"{self.url}/api/"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def bodies(self, path: str) -> list[dict[str, Any]]:
        return [body for where, body in self.heard if where == path]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def served(app: Any) -> Iterator[str]:
    """Serve an ASGI application while the block lasts; gives its address."""
    with socket.create_server(("127.0.0.1", 0)) as door:
        config = uvicorn.Config(app, log_level=60, lifespan="off", ws="none", loop="asyncio")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [door]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.005)
        try:
            yield f"http://127.0.0.1:{door.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(10)


def signed(body: bytes, *, secret: str = SECRET, at: float | None = None) -> dict[str, str]:
    """Return the headers that Slack would post `body` with."""
    timestamp = str(int(time.time() if at is None else at))
    signature = SignatureVerifier(secret).generate_signature(timestamp=timestamp, body=body)
    return {
        "X-Slack-Request-Timestamp": timestamp,
        "X-Slack-Signature": str(signature),
        "Content-Type": "application/x-www-form-urlencoded",
    }


def form(payload: object) -> bytes:
    """Return the body that Slack posts a payload in."""
    said = payload if isinstance(payload, str) else json.dumps(payload)
    return urlencode({"payload": said}).encode()


def block_actions(
    action: str,
    value: str,
    *,
    user: str = "U0OPERATOR1",
    response_url: str = "",
    at: str = "1365487200.000100",
) -> dict[str, Any]:
    """Return what Slack posts of a click on a button."""
    return {
        "type": "block_actions",
        "user": {"id": user, "username": "ada", "team_id": "T0"},
        "trigger_id": "1.2.abc",
        "channel": {"id": "C0CHANNEL1", "name": "ml"},
        "response_url": response_url,
        "actions": [
            {"type": "button", "action_id": action, "block_id": "b", "action_ts": at}
            | {"value": value}
        ],
    }
