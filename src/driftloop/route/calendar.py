"""Shifts and quiet hours, in each owner's own time."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta

from driftloop.records import Severity
from driftloop.route.severity import rank
from driftloop.spec import OnCall, Owner

DAY = timedelta(days=1)
WEEK = 7
MIDNIGHT, MORNING = time(0), time(9)
AHEAD = 16
"""Days ahead in which somebody is awake, even if clocks skip the one hour of a week."""


def on_call(owner: Owner, at: datetime) -> str | None:
    """Return Slack's id of who of `owner` has the shift at `at`, None where nobody has.

    From the calendar's start on that is always one: of an override that holds, else whose turn it
    is. A shift that is handed over at 09:00 is so on the local clock, summer and winter.
    """
    rota = owner.on_call
    if rota is None:
        return None
    for each in rota.overrides:
        if owner.moment(each.start) <= at < owner.moment(each.until):
            return each.who
    turn = _turn(owner, rota, at)
    return rota.people[turn % len(rota.people)] if turn >= 0 else None


def mention(owner: Owner, at: datetime) -> str:
    """Return whom to call to a message of `owner`: who is on call, else its `mention`."""
    who = on_call(owner, at)
    return owner.mention if who is None else f"<@{who}>"


def quiet_until(owner: Owner, severity: Severity, at: datetime) -> datetime | None:
    """Return when the quiet hours end that `at` lies in, in UTC; None where it is told at once.

    Spans and days that adjoin are one. What is as severe as `owner.wakes` is never quiet.
    """
    if owner.wakes is not None and rank(severity) >= rank(owner.wakes):
        return None
    if not is_quiet(owner, at):
        return None
    return next(end for end in _ends(owner, at) if end > at and not is_quiet(owner, end))


def is_quiet(owner: Owner, at: datetime) -> bool:
    """Say whether `at` lies in the quiet hours of `owner`, by the local clock."""
    local = at.astimezone(owner.zone)
    return owner.is_quiet(local.weekday(), local.time())


def morning(owner: Owner, at: datetime) -> datetime:
    """Return what "until tomorrow" means: 09:00 of the owner's next local day, in UTC."""
    return _utc(owner, at.astimezone(owner.zone).date() + DAY, MORNING)


def _turn(owner: Owner, rota: OnCall, at: datetime) -> int:
    """Return the number of the shift at `at`, below 0 before the first."""
    length = WEEK * rota.weeks
    turn = (at.astimezone(owner.zone).date() - rota.start).days // length
    begins = _utc(owner, rota.start + turn * length * DAY, time.fromisoformat(rota.hand_over))
    # The day of a hand-over belongs to two shifts.
    return turn if at >= begins else turn - 1


def _ends(owner: Owner, at: datetime) -> Iterator[datetime]:
    """Yield the moments, in order, at which quiet hours may end that began before `at`."""
    clocks = {MIDNIGHT, *(end for _, end in owner.spans)}
    today = at.astimezone(owner.zone).date()
    for ahead in range(AHEAD):
        # Where clocks are set back, an hour comes twice.
        day = today + ahead * DAY
        yield from sorted(_utc(owner, day, each, fold=fold) for each in clocks for fold in (0, 1))


def _utc(owner: Owner, day: date, clock: time, *, fold: int = 0) -> datetime:
    local = datetime.combine(day, clock.replace(fold=fold), tzinfo=owner.zone)
    return local.astimezone(UTC)
