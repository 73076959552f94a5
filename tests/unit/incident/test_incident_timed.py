"""What time alone makes of an incident: when the next thing is told, as a table."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from driftloop.incident import alone, next_due, timed
from driftloop.records import (
    Act,
    Acted,
    Incident,
    ModelId,
    Notice,
    Severity,
    Stage,
    Status,
)
from driftloop.route import Routed
from driftloop.spec import Owner

AT = datetime(2026, 3, 2, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
OWNERS = {
    "logistics": Owner(channel="#logistics"),
    "sleeper": Owner(channel="#sleeper", quiet=("12:00-20:00",)),
}
ROUTED = Routed(
    owner="logistics",
    wait=timedelta(0),
    repeat=24 * HOUR,
    ack_within=HOUR,
    ack_expires=8 * HOUR,
    escalate=("growth", "sleeper"),
)


def notice(stage: Stage, key: str, hours: float = 0.0) -> Notice:
    """Return what was told of the incident."""
    return Notice(
        key=key,
        incident="i",
        model=ModelId("m"),
        stage=stage,
        at=AT + hours * HOUR,
        since=AT,
        channel="#logistics",
        mention="",
        headline="h",
        doing="d",
        owner="logistics",
    )


OPEN = replace(alone(notice(Stage.OPENED, "i/opened")), told=AT)


def having(*notices: Notice, **more: object) -> Incident:
    """Return the incident after `notices`."""
    level = sum(each.stage is Stage.ESCALATED for each in notices)
    return replace(OPEN, notices=(*OPEN.notices, *notices), level=level, **more)  # type: ignore[arg-type]


def act(kind: Act, until: float | None, *, at: float = 0.0) -> Acted:
    """Return what Ada did, for so many hours."""
    return Acted(
        model=ModelId("m"),
        at=AT + at * HOUR,
        incident="i",
        act=kind,
        who="ada",
        until=None if until is None else AT + until * HOUR,
    )


FIRST = notice(Stage.ESCALATED, "i/escalated/1", 1)
SECOND = notice(Stage.ESCALATED, "i/escalated/2", 2)
ACKED = {"status": Status.ACKED, "acts": (act(Act.ACK, 8),), "until": AT + 8 * HOUR}
EXPIRED = {"acts": (act(Act.ACK, 8),)}


@pytest.mark.parametrize(
    ("incident", "hours", "tells"),
    [
        (replace(OPEN, told=None), 99, []),
        (replace(OPEN, status=Status.RESOLVED), 99, []),
        (replace(OPEN, status=Status.EXPLAINED), 99, []),
        (replace(OPEN, status=Status.SILENCED), 99, []),
        (replace(OPEN, severity=Severity.INFO), 99, []),
        (OPEN, 0.99, []),
        (OPEN, 1, ["i/escalated/1"]),
        (having(FIRST), 1.5, []),
        # The next in the chain has quiet hours until eight.
        (having(FIRST), 2, []),
        (having(FIRST), 8, ["i/escalated/2"]),
        (having(FIRST, SECOND), 23, []),
        (having(FIRST, SECOND), 26, ["i/reminded/0"]),
        (having(FIRST, SECOND, notice(Stage.REMINDED, "i/reminded/0", 26)), 49, []),
        (having(FIRST, SECOND, notice(Stage.REMINDED, "i/reminded/0", 26)), 50, ["i/reminded/1"]),
        (having(**ACKED), 7.4, []),
        (having(**ACKED), 7.5, ["i/reminded/ack/0"]),
        (having(notice(Stage.REMINDED, "i/reminded/ack/0", 7.5), **ACKED), 7.9, []),
        (having(**EXPIRED), 8, ["i/expired/0"]),
        (having(notice(Stage.EXPIRED, "i/expired/0", 8), **EXPIRED), 8.5, []),
        (having(notice(Stage.EXPIRED, "i/expired/0", 8), **EXPIRED), 9, ["i/escalated/1"]),
        # A silence that kept it back: that it is told at last says enough.
        (replace(having(acts=(act(Act.SILENCE, 8),)), told=AT + 8 * HOUR), 8.5, []),
        (having(acts=(act(Act.SILENCE, 8),)), 8, ["i/expired/0"]),
        # Of two that ran out one is told, once.
        (having(acts=(act(Act.ACK, 8), act(Act.SILENCE, 7, at=1))), 8, ["i/expired/1"]),
    ],
)
def test_what_is_told_after_so_many_hours(
    incident: Incident, hours: float, tells: list[str]
) -> None:
    """Nobody acknowledged within the hour, a day passed, an acknowledgement of eight ran out."""
    now = AT + hours * HOUR
    assert [each.key for each in timed(incident, ROUTED, OWNERS, now)] == tells


@pytest.mark.parametrize(
    ("incident", "due"),
    [
        (OPEN, 1),
        (having(FIRST), 8),
        (having(FIRST, SECOND), 26),
        (having(**ACKED), 7.5),
        (replace(OPEN, status=Status.SILENCED, until=AT + 5 * HOUR), 5),
        (replace(OPEN, status=Status.RESOLVED), None),
    ],
)
def test_it_is_known_when_to_look_again(incident: Incident, due: float | None) -> None:
    """So that nobody need look before."""
    expected = None if due is None else AT + due * HOUR
    assert next_due(incident, ROUTED, OWNERS, AT) == expected


def test_without_a_chain_and_an_interval_nothing_comes() -> None:
    """Who does not want to be called again is not."""
    never = replace(ROUTED, ack_within=None, repeat=timedelta(0))
    assert timed(OPEN, never, OWNERS, AT + 999 * HOUR) == ()
