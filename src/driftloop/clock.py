"""The one clock: an origin, a start and a speed that every process shares.

Schedules and leases run in wall time; everything that is judged (windows, cooldowns, expiry)
is in this clock's time. In production it is the wall clock; the demo sets only its speed.
"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Clock:
    """Simulated time that left `origin` when the wall clock showed `started`, at `speed`.

    >>> clock = Clock(origin=datetime(2013, 3, 1, tzinfo=UTC),
    ...               started=datetime(2026, 1, 1, tzinfo=UTC), speed=86400.0)
    >>> clock.at(datetime(2026, 1, 1, 0, 0, 2, tzinfo=UTC))
    datetime.datetime(2013, 3, 3, 0, 0, tzinfo=datetime.timezone.utc)
    """

    origin: datetime
    started: datetime
    speed: float

    def now(self) -> datetime:
        """Return the time now, aware, in UTC."""
        return self.at(datetime.now(UTC))

    def at(self, wall: datetime) -> datetime:
        """Return the time shown when the wall clock shows `wall`; before the start, the origin."""
        elapsed = max((wall - self.started).total_seconds(), 0.0)
        return self.origin + timedelta(seconds=elapsed * self.speed)

    def wall(self, at: datetime) -> datetime:
        """Return what the wall clock shows when this one shows `at`."""
        return self.started + (at - self.origin) / self.speed

    def write(self, file: Path) -> None:
        """Write the clock to `file`, whole or not at all, for other processes to `read`."""
        shown = {
            "origin": self.origin.isoformat(),
            "started": self.started.isoformat(),
            "speed": self.speed,
        }
        part = file.with_suffix(".part")
        part.write_text(json.dumps(shown), encoding="utf-8")
        part.replace(file)


class SharedClock:
    """The clock written in a file, followed as it is set anew; implements `ports.Clock`.

    Args:
        file: what `Clock.write` wrote; while there is none, the wall clock.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._seen: tuple[int, Clock] | None = None

    def now(self) -> datetime:
        """Return the time now, aware, in UTC."""
        return self.clock.now()

    @property
    def clock(self) -> Clock:
        """The clock as it is set now."""
        try:
            mark = self._file.stat().st_mtime_ns
        except FileNotFoundError:
            return read_clock(self._file)
        if self._seen is None or self._seen[0] != mark:
            self._seen = (mark, read_clock(self._file))
        return self._seen[1]


def read_clock(file: Path) -> Clock:
    """Return the clock written in `file`, or the wall clock where there is none."""
    if not file.exists():
        epoch = datetime(1970, 1, 1, tzinfo=UTC)
        return Clock(origin=epoch, started=epoch, speed=1.0)
    shown = json.loads(file.read_text(encoding="utf-8"))
    return Clock(
        origin=datetime.fromisoformat(shown["origin"]),
        started=datetime.fromisoformat(shown["started"]),
        speed=float(shown["speed"]),
    )
