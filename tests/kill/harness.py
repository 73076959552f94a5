"""What the kill campaign's tests share: orders to kill, processes that may die, what is left."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from integration.house import answers, eventually

from driftloop.settings import Settings

HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Point:
    """A named point of a service, as in `online.append-before`."""

    service: str
    name: str

    def __str__(self) -> str:
        """Return the name of the file that orders a death there."""
        return f"{self.service}.{self.name}"


@dataclass(frozen=True, slots=True)
class Orders:
    """The folder of orders that `site/sitecustomize.py` obeys."""

    folder: Path
    lease: float = 0.4
    """Seconds that a killed teller's notices wait."""
    pause: float = 0.5
    """Seconds at most that a service which died is waited with."""

    def environment(self) -> dict[str, str]:
        """Return what makes a process, and its children, obey."""
        paths = [str(HERE / "site"), str(HERE.parent), os.environ.get("PYTHONPATH", "")]
        path = os.pathsep.join(filter(None, paths))
        return {
            "KILL_AT": str(self.folder),
            "KILL_LEASE": str(self.lease),
            "KILL_PAUSE": str(self.pause),
            "KILL_ACK": str(self.lease),
            "KILL_BURST": "1000",
            "PYTHONPATH": path,
        }

    def give(self, point: Point) -> None:
        """Let the next process of the service that passes `point` die there."""
        self.folder.mkdir(exist_ok=True)
        (self.folder / str(point)).touch()

    def was_obeyed(self, point: Point) -> bool:
        """Return whether one died there."""
        return (self.folder / f"{point}.hit").exists()


class Process:
    """A process of one installation; what it writes to stdout is heard line by line."""

    def __init__(self, settings: Settings, env: Mapping[str, str], *words: object) -> None:
        self.said: list[str] = []
        self._process = subprocess.Popen(
            [sys.executable, *map(str, words)],
            env={**os.environ, **settings.environment(), **env},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._listener = threading.Thread(target=self._listen)
        self._listener.start()

    def ends(self, within: float = 30.0) -> int:
        """Return its exit code once it has ended; -9 when it was killed."""
        code = self._process.wait(within)
        self._listener.join(10)
        return code

    def kill(self) -> None:
        """End it by SIGKILL, unless it has ended."""
        self._process.kill()
        self.ends()
        self._process.stdin.close()  # type: ignore[union-attr]

    @property
    def alive(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def hear(self, line: str) -> None:
        """Let it read a line from stdin."""
        self._process.stdin.write(f"{line}\n")  # type: ignore[union-attr]
        self._process.stdin.flush()  # type: ignore[union-attr]

    def _listen(self) -> None:
        # A line cut off in the middle was not said: nobody was promised anything by it.
        with self._process.stdout as out:  # type: ignore[union-attr]
            self.said.extend(line.rstrip("\n") for line in out if line.endswith("\n"))


class Lives:
    """A process that lives many lives, one after another; see `lives.py`."""

    def __init__(self, settings: Settings, env: Mapping[str, str], *script: object) -> None:
        self._process = Process(settings, env, *script)
        self._born = 0

    @property
    def said(self) -> list[str]:
        """All that was said in any life."""
        return self._process.said

    def begin(self, given: object) -> "Life":
        """Return the next life, begun; the one before must have ended."""
        self._process.hear(str(given))
        self._born += 1
        return Life(self._process, self._born)

    def kill(self) -> None:
        """End all of it."""
        ended = len(_words(self.said, "ended"))
        for pid in _words(self.said, "born")[ended:]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.kill()


@dataclass(frozen=True, slots=True)
class Life:
    """One life of a process that has many."""

    process: Process
    number: int

    def ends(self, within: float = 30.0) -> int:
        """Return its exit code once it has ended; -9 when it was killed."""
        eventually(lambda: not self.alive, f"the end of life {self.number}", within)
        return _words(self.process.said, "ended")[self.number - 1]

    def kill(self) -> None:
        """End it by SIGKILL."""
        eventually(lambda: len(_words(self.process.said, "born")) == self.number, "its birth")
        os.kill(_words(self.process.said, "born")[-1], signal.SIGKILL)
        self.ends()

    @property
    def alive(self) -> bool:
        """Whether it has not ended."""
        return len(_words(self.process.said, "ended")) < self.number


def _words(said: Sequence[str], what: str) -> list[int]:
    """Return the numbers that were said after the word `what`."""
    lines = (line.split() for line in list(said))
    return [int(words[1]) for words in lines if words[0] == what]


def killed(code: int | None) -> bool:
    """Return whether a process that ended with `code` ended by SIGKILL."""
    return code == -signal.SIGKILL


def untold(settings: Settings) -> list[str]:
    """Return the notices that are noted and not told, and incidents that are not at rest."""
    with closing(sqlite3.connect(settings.home / "ledger.db", timeout=30.0)) as db:
        noted = db.execute(
            "SELECT key FROM facts AS noted WHERE kind = 'Noted' AND NOT EXISTS"
            " (SELECT 1 FROM facts WHERE kind = 'Paged' AND key = noted.key)"
        ).fetchall()
        early = db.execute(
            "SELECT key FROM intents WHERE key LIKE 'early/%' AND outcome IS NULL"
        ).fetchall()
    return [f"{key}: nothing" for (key,) in (*noted, *early)]


def messages(settings: Settings) -> list[dict[str, Any]]:
    """Return what stands in the local Slack, oldest first."""
    url = f"http://{settings.host}:{settings.slack_port}"
    eventually(lambda: answers(f"{url}/healthz"), "the local Slack")
    return json.loads(httpx.get(f"{url}/messages.json", timeout=30.0).text)


def keys(shown: list[dict[str, Any]]) -> list[str]:
    """Return the keys that messages carry: the incident's, or that of the notice in its thread."""
    return [each["metadata"]["event_payload"]["key"] for each in shown]


def tell(line: str) -> None:
    """Show a line to whoever runs the tests."""
    sys.stdout.write(f"\n{line}\n")
