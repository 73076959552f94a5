"""The local Slack's memory: channels, messages, files and people in one SQLite file.

Every call opens the file, works in one transaction and closes it, so threads need no lock of
ours and a message that was answered survives a kill.
"""

import hashlib
import json
import sqlite3
import time
from collections.abc import Iterator, Mapping
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
CREATE TABLE IF NOT EXISTS archived (channel TEXT PRIMARY KEY REFERENCES channels (id));
CREATE TABLE IF NOT EXISTS files (id TEXT PRIMARY KEY, told TEXT NOT NULL, content BLOB);
CREATE TABLE IF NOT EXISTS people (id TEXT PRIMARY KEY, told TEXT NOT NULL);
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


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One file: what is told of it, and its bytes, None until they have arrived."""

    id: str
    told: dict[str, Any]
    content: bytes | None = None


class Store:
    """All of it in the SQLite file `file`, which is made when it is missing.

    `people` are there from the first start on: what is told of users (U...) and groups (S...).
    """

    def __init__(self, file: Path, people: Mapping[str, dict[str, Any]] | None = None) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self._file = file
        rows = [(id_, json.dumps(told)) for id_, told in (people or {}).items()]
        with self._open() as db:
            db.executescript(_SCHEMA)
            db.executemany("INSERT OR IGNORE INTO people VALUES (?, ?)", rows)

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

    def archived(self) -> frozenset[str]:
        """Return the ids of the channels that are archived."""
        with self._open() as db:
            return frozenset(id_ for (id_,) in db.execute("SELECT channel FROM archived"))

    def archive(self, channel: str, *, archived: bool) -> None:
        """Archive the channel, or take it back."""
        verb = "INSERT OR IGNORE INTO archived VALUES (?)"
        with self._open() as db:
            db.execute(verb if archived else "DELETE FROM archived WHERE channel = ?", (channel,))

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

    def delete(self, message: Stored) -> None:
        """Forget a message."""
        with self._open() as db:
            db.execute(
                "DELETE FROM messages WHERE channel = ? AND at = ?", (message.channel, message.at)
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

    def keep_file(self, file: StoredFile) -> None:
        """Keep a file, in place of the one with its id; without bytes it has those it had."""
        with self._open() as db:
            db.execute(
                "INSERT INTO files VALUES (?, ?, ?) ON CONFLICT (id) DO UPDATE SET "
                "told = excluded.told, content = coalesce(excluded.content, content)",
                (file.id, json.dumps(file.told), file.content),
            )

    def file(self, id_: str) -> StoredFile | None:
        """Return one file, None when there is none."""
        with self._open() as db:
            row = db.execute("SELECT told, content FROM files WHERE id = ?", (id_,)).fetchone()
        return None if row is None else StoredFile(id_, json.loads(row[0]), row[1])

    def keep_person(self, id_: str, told: dict[str, Any]) -> None:
        """Keep what is told of a user or a group."""
        with self._open() as db:
            db.execute("INSERT OR REPLACE INTO people VALUES (?, ?)", (id_, json.dumps(told)))

    def people(self, kind: str) -> dict[str, dict[str, Any]]:
        """Return what is told of all users (`kind` "U") or all groups ("S"), by id."""
        query = "SELECT id, told FROM people WHERE substr(id, 1, 1) = ? ORDER BY id"
        with self._open() as db:
            return {id_: json.loads(told) for id_, told in db.execute(query, (kind,))}

    def _read(self, query: str, *given: object) -> tuple[Stored, ...]:
        with self._open() as db:
            rows = db.execute(query, given).fetchall()
        return tuple(Stored(channel, at, of, json.loads(body)) for channel, at, of, body in rows)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self._file, timeout=10.0)) as db, db:
            yield db
