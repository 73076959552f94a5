"""What the stand-in knows while it runs: its store, and what Slack forgets by itself.

Trigger ids, addresses for answers, open modals, messages that one person alone sees, and what
came of a click live in memory, as short as Slack lets them live.
"""

import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from driftloop.page.sandbox.asked import TEAM, Body, Refused
from driftloop.page.sandbox.store import Store

TRIGGER_LASTS = 3.0
"""Seconds in which a trigger id opens a modal, once."""
URL_LASTS = 1800.0
URL_USES = 5

_WHISPERS = 500


@dataclass(slots=True)
class ResponseUrl:
    """Where a click can be answered: for half an hour, five times."""

    channel: str
    at: int
    """Of the message that was clicked, in microseconds."""
    thread: int | None
    user: str
    until: float
    left: int = URL_USES


@dataclass(frozen=True, slots=True)
class Whisper:
    """A message that `user` alone sees; Slack keeps none of them."""

    channel: str
    at: int
    thread: int | None
    user: str
    body: Body


@dataclass(slots=True)
class View:
    """A modal that is open to `user`, and what the fields say that were wrong."""

    user: str
    told: Body
    errors: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class _Trigger:
    user: str
    until: float
    used: bool = False


class Workspace:
    """The store and all that passes, shared by the server's threads."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.views: dict[str, View] = {}
        self.whispers: list[Whisper] = []
        self.troubles: dict[tuple[str, int], str] = {}
        """What went wrong with the last click on a message."""
        self.file_delay = 0.0
        """Seconds until an uploaded file can be shown in a message."""
        self._lock = threading.Lock()
        self._triggers: dict[str, _Trigger] = {}
        self._urls: dict[str, ResponseUrl] = {}

    def trigger(self, user: str) -> str:
        """Return a new trigger id for a click of `user`."""
        id_ = f"{time.time_ns()}.{TEAM}.{secrets.token_hex(16)}"
        now = time.monotonic()
        with self._lock:
            stale = [id_ for id_, one in self._triggers.items() if one.until < now - 60.0]
            for one in stale:
                del self._triggers[one]
            self._triggers[id_] = _Trigger(user=user, until=now + TRIGGER_LASTS)
        return id_

    def triggered(self, id_: str) -> str:
        """Return whose trigger id it is, which cannot be used again.

        Raises:
            Refused: it is none, too old, or was used before.
        """
        with self._lock:
            found = self._triggers.get(id_)
            if found is None:
                raise Refused("invalid_trigger_id")
            if found.used:
                raise Refused("exchanged_trigger_id")
            if time.monotonic() > found.until:
                raise Refused("expired_trigger_id")
            found.used = True
            return found.user

    def response_url(self, channel: str, at: int, thread: int | None, user: str) -> str:
        """Return the path of a new address for answers to a click of `user` on the message."""
        secret = secrets.token_urlsafe(18)
        until = time.monotonic() + URL_LASTS
        with self._lock:
            self._urls[secret] = ResponseUrl(channel, at, thread, user, until)
        return f"/actions/{TEAM}/{secret}"

    def answering(self, secret: str) -> ResponseUrl:
        """Return what the address is for, and count its use.

        Raises:
            Refused: there is no such address, or it is old or used up.
        """
        with self._lock:
            found = self._urls.get(secret)
            if found is None:
                raise Refused("invalid_url")
            if time.monotonic() > found.until:
                raise Refused("expired_url")
            if not found.left:
                raise Refused("used_url")
            found.left -= 1
            return found

    def whisper(self, whisper: Whisper) -> None:
        """Show a message to one person; the oldest of too many are forgotten."""
        with self._lock:
            self.whispers = [*self.whispers[-_WHISPERS:], whisper]

    def open(self, view: View) -> None:
        """Show a modal to one person, in place of the one they had open."""
        with self._lock:
            others = {id_: one for id_, one in self.views.items() if one.user != view.user}
            self.views = others | {view.told["id"]: view}

    def close(self, id_: str) -> None:
        """Take a modal away."""
        with self._lock:
            self.views = {one: view for one, view in self.views.items() if one != id_}


Method = Callable[[Workspace, Body], Body]
"""A method of the Web API: it takes the arguments and gives back the answer, without "ok"."""
