"""Shifts and quiet hours: by the owner's own clock, summer and winter."""

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftloop.records import Severity
from driftloop.route import is_quiet, morning, on_call, quiet_until, rank
from driftloop.spec import OnCall, Override, Owner

ADA, GRACE, EDITH = "U0ADA00", "U0GRACE", "U0EDITH"
BERLIN, NIGHTS = "Europe/Berlin", ("22:00-07:00",)
ZONES = ("UTC", BERLIN, "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe")


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def owner(**given: object) -> Owner:
    return Owner.model_validate({"channel": "#ml", **given})


def shifts(**given: object) -> OnCall:
    return OnCall.model_validate({"people": (ADA, GRACE), "start": date(2026, 3, 2), **given})


@pytest.mark.parametrize(
    ("at", "who"),
    [
        ("2026-03-02T07:59", None),  # before the first shift
        ("2026-03-02T08:00", ADA),  # 09:00 in Berlin, winter
        ("2026-03-09T07:59", ADA),
        ("2026-03-09T08:00", GRACE),
        ("2026-03-30T06:59", GRACE),  # clocks went forward on the 29th
        ("2026-03-30T07:00", ADA),  # 09:00 still
        ("2026-10-26T07:59", GRACE),  # and back on 25 October
        ("2026-10-26T08:00", ADA),
    ],
)
def test_shifts_change_by_the_local_clock(at: str, who: str | None) -> None:
    """A week each, handed over at 09:00 local, across both changes of the clocks."""
    assert on_call(owner(time_zone=BERLIN, on_call=shifts()), utc(at)) == who


def test_an_override_wins_while_it_lasts() -> None:
    """Its times without a zone are local; it ends before `until`."""
    holiday = Override(who=EDITH, start=datetime(2026, 3, 3, 9), until=datetime(2026, 3, 5, 9))  # noqa: DTZ001 - local times, as in a file
    people = owner(time_zone=BERLIN, on_call=shifts(overrides=(holiday,)))
    asked = ("2026-03-03T07:59", "2026-03-03T08:00", "2026-03-05T07:59", "2026-03-05T08:00")
    assert [on_call(people, utc(at)) for at in asked] == [ADA, EDITH, EDITH, ADA]


def test_nobody_is_on_call_without_a_calendar() -> None:
    """Then the owner's `mention` is all there is."""
    assert on_call(owner(), utc("2026-03-03T12:00")) is None


instants = st.datetimes(datetime(2025, 1, 1), datetime(2028, 1, 1)).map(  # noqa: DTZ001 - made aware here
    lambda at: at.replace(tzinfo=UTC)
)
clocks = st.times().map(lambda at: f"{at:%H:%M}")
spans = st.tuples(clocks, clocks).filter(lambda both: both[0] != both[1]).map("-".join)


@settings(max_examples=300, deadline=None)
@given(instants, st.sampled_from(ZONES), clocks, st.integers(1, 3), st.integers(1, 4))
def test_every_instant_has_exactly_one_on_call(
    at: datetime, zone: str, hand_over: str, weeks: int, size: int
) -> None:
    """From the start on; and who it is changes at the hand-over alone, in turn."""
    people = tuple(f"U0000{place}" for place in range(size))
    rota = OnCall(people=people, start=date(2024, 12, 1), hand_over=hand_over, weeks=weeks)
    theirs = owner(time_zone=zone, on_call=rota)
    now, later = on_call(theirs, at), on_call(theirs, at + timedelta(weeks=weeks))
    assert now in people
    moved = (people.index(str(later)) - people.index(str(now))) % size
    # An hour that comes twice, or not at all, is within an hour of a hand-over.
    near = {on_call(theirs, at + timedelta(weeks=weeks, hours=hours)) for hours in (-1, 1)}
    assert moved == 1 % size or people[(people.index(str(now)) + 1) % size] in near


@pytest.mark.parametrize(
    ("at", "until"),
    [
        ("2026-03-04T20:59", None),
        ("2026-03-04T21:00", "2026-03-05T06:00"),  # 22:00 in Berlin
        ("2026-03-05T05:59", "2026-03-05T06:00"),
        ("2026-03-05T06:00", None),
        ("2026-03-06T21:30", "2026-03-09T06:00"),  # Friday night, the weekend, Monday's night
        ("2026-03-07T12:00", "2026-03-09T06:00"),
        ("2026-03-27T22:00", "2026-03-30T05:00"),  # the weekend in which clocks go forward
        ("2026-10-23T22:00", "2026-10-26T06:00"),  # and back
    ],
)
def test_quiet_hours_that_adjoin_are_one(at: str, until: str | None) -> None:
    """Nights and weekends, over midnight and over the changes of the clocks."""
    people = owner(time_zone=BERLIN, quiet=NIGHTS, quiet_days=("sat", "sun"))
    expected = None if until is None else utc(until)
    assert quiet_until(people, Severity.WARNING, utc(at)) == expected


@pytest.mark.parametrize(
    ("wakes", "woken"),
    [
        (None, []),
        (Severity.CRITICAL, [Severity.CRITICAL]),
        (Severity.WARNING, [Severity.WARNING, Severity.CRITICAL]),
        (Severity.INFO, list(Severity)),
    ],
)
def test_what_is_urgent_breaks_through_if_the_owner_says_so(
    wakes: Severity | None, woken: list[Severity]
) -> None:
    """From the severity on that `wakes` names."""
    people, night = owner(quiet=NIGHTS, wakes=wakes), utc("2026-03-04T23:00")
    assert [each for each in Severity if quiet_until(people, each, night) is None] == woken


@settings(max_examples=300, deadline=None)
@given(
    instants,
    st.sampled_from(ZONES),
    st.lists(spans, max_size=3),
    st.sets(st.sampled_from(("mon", "wed", "sat", "sun"))),
)
def test_quiet_hours_end_when_somebody_is_awake(
    at: datetime, zone: str, quiet: list[str], days: set[str]
) -> None:
    """Later than what is found, never in quiet hours; and what is not quiet is told at once."""
    given_ = {"quiet": tuple(quiet), "quiet_days": tuple(days), "time_zone": zone}
    try:
        people = owner(**given_)
    except ValueError:
        return  # spans that leave no hour of the day: refused, see the faults of owners.toml
    until = quiet_until(people, Severity.WARNING, at)
    if until is None:
        assert not is_quiet(people, at)
        return
    assert at < until <= at + timedelta(days=15)
    assert not is_quiet(people, until)
    # All the way to there it is quiet, but for the hour that clocks skip or repeat.
    steps = [at + (until - at) * part / 50 for part in range(50)]
    awake = [step for step in steps if not is_quiet(people, step)]
    assert not awake or max(awake) - min(awake) <= timedelta(hours=1)


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        ("2026-03-04T12:00", "2026-03-05T08:00"),
        ("2026-03-04T23:30", "2026-03-06T08:00"),  # it is the 5th in Berlin by then
        ("2026-03-28T12:00", "2026-03-29T07:00"),  # the day the clocks go forward
    ],
)
def test_tomorrow_is_nine_oclock_of_the_next_local_day(at: str, expected: str) -> None:
    """In the owner's time, whatever it is in UTC."""
    assert morning(owner(time_zone=BERLIN), utc(at)) == utc(expected)


def test_severities_rank_by_urgency_and_not_by_letter() -> None:
    """As texts "critical" would be least."""
    assert sorted(Severity, key=rank) == [Severity.INFO, Severity.WARNING, Severity.CRITICAL]
