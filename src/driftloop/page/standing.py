"""What is known of messages of ours that stand in Slack, and of what is told in their metadata."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from driftloop.records import Digest, Entry, Incident, Receipt

EVENT = "driftloop_notice"
"""The metadata's event type on every message of ours."""
IN_THREAD = "thread"
"""The picture of a message that is not in it but in its thread."""

_REMEMBERED = 2000

Metadata = dict[str, Any]


@dataclass(slots=True)
class Standing:
    """One incident's message, as far as this process knows; `lock` is held to change it.

    `at` is what it shows, `mention` whom it called, `picture` the file in it. `incident` is what
    it should show. `read` says that Slack was asked, and `tried` that a picture was.
    """

    receipt: Receipt
    incident: Incident | None = None
    at: datetime | None = None
    mention: str = ""
    picture: str | None = None
    read: bool = False
    tried: bool = False
    lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    def image(self) -> str | None:
        """The file that the message itself shows, None if there is none."""
        return None if self.picture == IN_THREAD else self.picture

    @property
    def metadata(self) -> Metadata:
        """What the message carries: whose it is, and what the next process has to know."""
        told = metadata_of(self.incident, blind=self.receipt.blind) if self.incident else {}
        extra = {"mention": self.mention, "picture": self.picture}
        told["event_payload"] |= {name: value for name, value in extra.items() if value}
        return told


class Messages:
    """The newest incidents' messages, by where they stand; safe to share among threads."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], Standing] = {}
        self._lock = threading.Lock()

    def of(self, receipt: Receipt) -> Standing:
        """Return what is known of the message at `receipt`, for good or nothing yet."""
        place = (receipt.channel, receipt.ts)
        with self._lock:
            known = self._known.pop(place, None) or Standing(receipt)
            # Last in, last out: those that nobody asked for the longest are forgotten.
            self._known[place] = known
            while len(self._known) > _REMEMBERED:
                self._known.pop(next(iter(self._known)))
            return known


def metadata_of(told: Incident | Entry | Digest, *, blind: bool) -> Metadata:
    """Return what a message carries: its key, and of when the newest is that it tells.

    `blind` says that nobody could look whether it stands already.
    """
    payload: Metadata = {
        "key": told.id if isinstance(told, Incident) else told.key,
        "at": newest(told).isoformat(),
    }
    return {"event_type": EVENT, "event_payload": payload | ({"blind": True} if blind else {})}


def payload_of(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what a message of ours carries; nothing of any other."""
    metadata = message.get("metadata") or {}
    return dict(metadata.get("event_payload") or {}) if metadata.get("event_type") == EVENT else {}


def told_at(payload: Mapping[str, Any]) -> datetime | None:
    """Return of when the newest is that a message tells, None where it does not say."""
    at = payload.get("at")
    return datetime.fromisoformat(at) if at else None


def newest(told: Incident | Entry | Digest) -> datetime:
    """Return of when the newest is that is told."""
    if isinstance(told, Digest):
        return told.at
    acts = [act.at for act in told.acts] if isinstance(told, Incident) else []
    opened = [told.opened] if isinstance(told, Incident) else []
    return max([*opened, *acts, *(notice.at for notice in told.notices)])
