"""The local Slack's memory: channels and messages in one SQLite file.

Every call opens the file, works in one transaction and closes it, so threads need no lock of
ours and a message that was answered survives a kill.
"""

import hashlib
import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_SCHEMA = """
PRAGMA journal_mode = WAL;
CREATE TABLE IF NOT EXISTS channels (id TEXT PRIMARY KEY, name TEXT UNIQUE NOT NULL);
CREATE TABLE IF NOT EXISTS messages (
    channel TEXT NOT NULL REFERENCES channels (id),
    at INTEGER NOT NULL,
    thread INTEGER,
    body TEXT NOT NULL,
    PRIMARY KEY (channel, at)
);
"""
_ROWS = "SELECT channel, at, thread, body FROM messages"
_MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Stored:
    """One message; `at` and `thread` are microseconds, its timestamp and its parent's."""

    channel: str
    at: int
    thread: int | None
    body: dict[str, Any]

    @property
    def ts(self) -> str:
        """Slack's timestamp of the message."""
        return ts_of(self.at)


def ts_of(micros: int) -> str:
    """Return microseconds as Slack's timestamp.

    >>> ts_of(1_700_000_000_000_100)
    '1700000000.000100'
    """
    return f"{micros // _MILLION}.{micros % _MILLION:06d}"


def micros_of(ts: str) -> int:
    """Return Slack's timestamp as microseconds.

    >>> micros_of("1700000000.000100")
    1700000000000100
    """
    seconds, _, rest = ts.partition(".")
    return int(seconds) * _MILLION + int(rest.ljust(6, "0")[:6])


class Store:
    """Channels and messages in the SQLite file `file`, which is made when it is missing."""

    def __init__(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self._file = file
        with self._open() as db:
            db.executescript(_SCHEMA)

    def channels(self) -> dict[str, str]:
        """Return the names of all channels, without "#", by id, in the names' order."""
        with self._open() as db:
            return dict(db.execute("SELECT id, name FROM channels ORDER BY name"))

    def channel(self, name: str) -> str:
        """Return the id of the channel `name` (without "#"), which is made when it is missing."""
        id_ = "C" + hashlib.sha256(name.encode()).hexdigest()[:10].upper()
        with self._open() as db:
            db.execute("INSERT OR IGNORE INTO channels VALUES (?, ?)", (id_, name))
        return id_

    def add(self, channel: str, body: dict[str, Any], *, thread: int | None) -> Stored:
        """Return a new message, with a timestamp that its channel has not seen yet."""
        with self._open() as db:
            db.execute("BEGIN IMMEDIATE")
            (newest,) = db.execute(
                "SELECT coalesce(max(at), 0) FROM messages WHERE channel = ?", (channel,)
            ).fetchone()
            at = max(self.now(), newest + 1)
            row = (channel, at, thread, json.dumps(body))
            db.execute("INSERT INTO messages VALUES (?, ?, ?, ?)", row)
        return Stored(channel, at, thread, body)

    @staticmethod
    def now() -> int:
        """Return the wall clock in microseconds."""
        return time.time_ns() // 1000

    def replace(self, message: Stored) -> None:
        """Keep `message` in place of the one with its timestamp."""
        with self._open() as db:
            db.execute(
                "UPDATE messages SET body = ? WHERE channel = ? AND at = ?",
                (json.dumps(message.body), message.channel, message.at),
            )

    def message(self, channel: str, at: int) -> Stored | None:
        """Return one message, None when there is none."""
        found = self._read(f"{_ROWS} WHERE channel = ? AND at = ?", channel, at)
        return found[0] if found else None

    def history(self, channel: str) -> tuple[Stored, ...]:
        """Return the messages of a channel that are in no thread, newest first."""
        return self._read(f"{_ROWS} WHERE channel = ? AND thread IS NULL ORDER BY at DESC", channel)

    def replies(self, channel: str, thread: int) -> tuple[Stored, ...]:
        """Return the replies to the message at `thread`, oldest first."""
        return self._read(f"{_ROWS} WHERE channel = ? AND thread = ? ORDER BY at", channel, thread)

    def messages(self) -> tuple[Stored, ...]:
        """Return every message there is, oldest first."""
        return self._read(f"{_ROWS} ORDER BY at")

    def _read(self, query: str, *given: object) -> tuple[Stored, ...]:
        with self._open() as db:
            rows = db.execute(query, given).fetchall()
        return tuple(Stored(channel, at, of, json.loads(body)) for channel, at, of, body in rows)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self._file, timeout=10.0)) as db, db:
            yield db
