"""What the simulated month runs on: the stand-in for Slack, processes that die, a webhook."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from driftloop.clock import Clock
from driftloop.settings import Settings

REPOSITORY = Path(__file__).parents[2]
_PROCESS = Path(__file__).with_name("_paging_process.py")
_SITE = REPOSITORY / "tests" / "kill" / "site"


class Sandbox:
    """The stand-in for Slack in a process of its own, with Slack's rate limits or without."""

    def __init__(self, folder: Path, *, limits: bool) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "driftloop", "slack-sandbox", "--port", "0"),
                *("--store", str(folder / "slack.db")),
                "--limits" if limits else "--no-limits",
            ],
            stdout=subprocess.PIPE,
            # It says at length what it was told to do wrong.
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": _path()},
            text=True,
        )
        said = ""
        while (found := re.search(r"https?://\S+:\d+(?=/)", said)) is None:
            line = self._process.stdout.readline()  # type: ignore[union-attr]
            if not line:
                raise RuntimeError("the stand-in for Slack did not start")
            said += line
        self.url = found.group()
        threading.Thread(target=self._process.communicate, daemon=True).start()
        self._until_it_answers()

    @property
    def api(self) -> str:
        return f"{self.url}/api/"

    def control(self, *faults: Mapping[str, object]) -> None:
        """Let these go wrong from now on, and nothing that was set before."""
        body = json.dumps(list(faults) or {}).encode()
        asked = Request(f"{self.url}/control", body, {"Content-Type": "application/json"})
        with urlopen(asked, timeout=10) as answer:
            answer.read()

    def messages(self) -> list[dict[str, Any]]:
        """Return every message, oldest first."""
        with urlopen(f"{self.url}/messages.json", timeout=30) as answer:
            found: list[dict[str, Any]] = json.loads(answer.read())
        return found

    def end(self) -> None:
        self._process.terminate()
        self._process.wait(10)

    def _until_it_answers(self) -> None:
        for _ in range(200):
            with suppress(OSError), urlopen(f"{self.url}/healthz", timeout=5):
                return
            time.sleep(0.05)
        raise RuntimeError("the stand-in for Slack does not answer")


class Lives:
    """A process that is started again at once whenever it dies; see `_paging_process.py`."""

    def __init__(self, what: str, settings: Settings, orders: Path, *more: object) -> None:
        self.what = what
        self.deaths: list[tuple[float, int]] = []
        self._pid: int | None = None
        self._ending = False
        env = {**os.environ, **settings.environment(), "PYTHONPATH": f"{_SITE}:{_path()}"}
        self._process = subprocess.Popen(
            [sys.executable, str(_PROCESS), f"_{what}", *map(str, more)],
            env={**env, **_orders(orders)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        self._live()

    def kill(self) -> bool:
        """Kill the life there is, by SIGKILL; the next begins."""
        if self._pid is None:
            return False
        with suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        return True

    def end(self) -> None:
        self._ending = True
        self.kill()
        self._process.kill()
        self._process.wait(10)

    def _live(self) -> None:
        with suppress(OSError):
            self._process.stdin.write("\n")  # type: ignore[union-attr]
            self._process.stdin.flush()  # type: ignore[union-attr]

    def _listen(self) -> None:
        for line in self._process.stdout:  # type: ignore[union-attr]
            what, _, number = line.strip().partition(" ")
            if what == "born":
                self._pid = int(number)
            elif what == "ended":
                self._pid = None
                if not self._ending:
                    self.deaths.append((time.time(), int(number)))
                    # Who was killed is back at once; who failed by itself had better wait.
                    time.sleep(0.0 if int(number) == -signal.SIGKILL else 1.0)
                    self._live()


def _path() -> str:
    given = os.environ.get("PYTHONPATH", "")
    return os.pathsep.join(
        filter(None, [str(REPOSITORY / "src"), str(REPOSITORY), str(REPOSITORY / "tests"), given])
    )


def _orders(folder: Path) -> dict[str, str]:
    folder.mkdir(exist_ok=True)
    lease = (folder / "lease").read_text(encoding="utf-8")
    return {"KILL_AT": str(folder), "KILL_LEASE": lease}


def set_clock(settings: Settings, at: datetime) -> None:
    """Let the loop's clock show `at` now, and go on as the wall's."""
    Clock(origin=at, started=datetime.now(UTC), speed=1.0).write(settings.clock)


@contextmanager
def webhook() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yield an address, and what is posted there as it comes."""
    came: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            came.append({"wall": time.time(), **json.loads(body)})
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/pages", came
    finally:
        server.shutdown()
        server.server_close()
