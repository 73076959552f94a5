"""Channels that refused are left in peace for a while: in memory, by the wall clock."""

import threading
from dataclasses import dataclass, field

from driftloop.errors import PagerError

APART = 3.0
"""Wall seconds between two edits of a message about many models."""
LONGEST = 60.0
FOR_GOOD = 600.0
"""Wall seconds between two attempts: at most, and where the channel refused for good."""


@dataclass(slots=True)
class Pauses:
    """What is left in peace; a wall clock that is put back ends it.

    `_until` is of each channel since when and until when it is, "" being all of them.
    """

    _until: dict[str, tuple[float, float]] = field(default_factory=dict)
    _times: dict[str, int] = field(default_factory=dict)
    _error: dict[str, PagerError] = field(default_factory=dict)
    _edited: dict[str, float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def check(self, channel: str, wall: float) -> None:
        """Raise what a channel, or all of them, refused with, if that is not long ago."""
        with self._lock:
            for each in ("", channel):
                if self._ends(each, wall) is not None:
                    raise self._error[each]

    def is_pausing(self, channel: str, wall: float) -> bool:
        """Say whether a channel is left in peace now."""
        with self._lock:
            return any(self._ends(each, wall) is not None for each in ("", channel))

    def after(self, channel: str, error: PagerError, wall: float) -> float:
        """Return when to try again: at once after the first failure, then later and later."""
        with self._lock:
            key = "" if error.away else channel
            if (ends := self._ends(key, wall)) is not None:
                return ends
            times = self._times[key] = self._times.get(key, -1) + 1
            longest = LONGEST if error.retry or error.away else FOR_GOOD
            wait = error.after or min(longest, 2.0 ** (times - 1) if times else 0.0)
            self._until[key], self._error[key] = (wall, wall + wait), error
            return wall + wait

    def worked(self, channel: str) -> None:
        """Forget what was refused."""
        with self._lock:
            for key in ("", channel):
                self._until.pop(key, None)
                self._times.pop(key, None)

    def edited(self, incident: str, wall: float) -> None:
        """Remember when a message was edited."""
        with self._lock:
            recent = {key: at for key, at in self._edited.items() if 0.0 <= wall - at < APART}
            self._edited = recent | {incident: wall}

    def edits_again(self, incident: str, wall: float) -> float | None:
        """Return when a message may be edited again, None where that is now."""
        with self._lock:
            at = self._edited.get(incident)
            return None if at is None or not 0.0 <= wall - at < APART else at + APART

    def _ends(self, key: str, wall: float) -> float | None:
        since, until = self._until.get(key, (0.0, 0.0))
        return until if since <= wall < until else None
