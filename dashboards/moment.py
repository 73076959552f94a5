"""When a page is looked at, and whether the loop is late. Pure."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from dashboards.words import span
from driftloop.clock import Clock
from driftloop.spec import Fleet

LATE = 3
"""A pass is late after this many intervals."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """When a page is looked at.

    `wall` is the wall clock, `passed` what it showed when a pass last wrote what it measured,
    `newest` the end of the newest window measured, `watch_every` the wall seconds between passes.
    """

    clock: Clock
    wall: datetime
    newest: datetime | None
    passed: datetime | None
    watch_every: float

    @property
    def now(self) -> datetime:
        """The loop's time."""
        return self.clock.at(self.wall)

    @property
    def standing(self) -> bool:
        """Whether the loop's time stands still, so that nothing falls due."""
        return self.wall < self.clock.started

    @property
    def grace(self) -> timedelta:
        """How long after it is due, in the loop's time, something may come without being late."""
        return timedelta(seconds=LATE * self.watch_every * self.clock.speed)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopView:
    """The loop itself: its clock and its last pass.

    `speed` is None on the wall clock and 0 while the clock stands; `last_pass` is in the loop's
    time, `age` in wall-clock seconds.
    """

    now: datetime
    speed: float | None
    last_pass: datetime | None
    age: float | None
    warning: str | None


def loop_view(fleet: Fleet, moment: Moment, *, served: bool) -> LoopView:
    """Return the loop's clock and last pass, with a warning where the loop is late.

    A model is measured once in its cadence, so the newest window may be as old as the shortest
    cadence, and `LATE` intervals more. Nothing is due before a model is `served`.
    """
    clock, passed = moment.clock, moment.passed
    real = clock.speed == 1.0 and clock.origin == clock.started
    return LoopView(
        now=moment.now,
        speed=None if real else 0.0 if moment.standing else clock.speed,
        last_pass=moment.newest,
        age=None if passed is None else (moment.wall - passed).total_seconds(),
        warning=_warning(fleet, moment, served=served),
    )


def _warning(fleet: Fleet, moment: Moment, *, served: bool) -> str | None:
    if moment.newest is not None and moment.newest > moment.now:
        return "The ledger holds facts from the loop's future: its clock was set back."
    if moment.standing:
        return None
    if moment.passed is None:
        lacking = "The watch has never measured anything: is the worker running?"
        return lacking if served else None
    cadence = min(family.window.cadence for family in fleet.families)
    age = moment.wall - moment.passed
    if age <= (cadence + moment.grace) / moment.clock.speed:
        return None
    return (
        f"The last watch pass that measured anything was {span(age.total_seconds())} ago; passes"
        f" are due every {span(moment.watch_every)}. What is below is old: is the worker running?"
    )
