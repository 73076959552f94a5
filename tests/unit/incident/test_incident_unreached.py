"""Which incidents the second way is for, and what is said of it."""

from datetime import UTC, datetime, timedelta

import pytest

from driftloop.incident import REFUSED, alone
from driftloop.incident.unreached import outage, reached, relayed, unreached, why
from driftloop.records import (
    Fact,
    ModelId,
    Notice,
    Posted,
    Receipt,
    Relayed,
    Severity,
    Stage,
    Unsent,
)
from driftloop.spec import Owner

AT = datetime(2026, 3, 1, 10, 2, tzinfo=UTC)
DE = ModelId("eta-de")
WALL = 1e9


def unsent(incident: str = "i", channel: str = "#eta", *, ago: float, away: bool = True) -> Unsent:
    return Unsent(
        model=DE,
        at=AT,
        incident=incident,
        channel=channel,
        error="no answer",
        away=away,
        wall=WALL - ago,
    )


def posted(channel: str = "#eta", shown: str = "x") -> Posted:
    receipt = Receipt(channel="C1", ts="1")
    return Posted(model=DE, at=AT, incident="i", channel=channel, receipt=receipt, shown=shown)


@pytest.mark.parametrize(
    ("facts", "channels"),
    [
        pytest.param([], [], id="nothing-failed"),
        pytest.param([unsent(ago=599)], [], id="not-for-long"),
        pytest.param([unsent(ago=600)], ["#eta"], id="for-long"),
        pytest.param([unsent(ago=900, away=False)], ["#eta"], id="refused"),
        pytest.param([unsent(ago=900), posted()], [], id="told-since"),
        pytest.param([unsent(ago=900), posted(shown=REFUSED)], ["#eta"], id="refused-for-good"),
        pytest.param([unsent(ago=900), posted("#ops")], ["#eta"], id="told-to-others-alone"),
        pytest.param(
            [unsent(ago=900), posted(), unsent(channel="#ops", ago=700)], ["#ops"], id="escalated"
        ),
        pytest.param(
            [unsent("j", ago=900), unsent(ago=900), posted()], ["#eta"], id="of-another-incident"
        ),
        pytest.param([unsent(ago=900), unsent(ago=1)], ["#eta"], id="the-first-failure-counts"),
    ],
)
def test_what_could_not_be_told_for_long_is_due(facts: list[Fact], channels: list[str]) -> None:
    """By channel: who was told elsewhere does not count for who was not."""
    found = unreached(facts, wall=WALL, down=600.0)
    assert [each.channel for each in found] == channels


def notice() -> Notice:
    return Notice(
        key="i/opened",
        incident="i",
        model=DE,
        stage=Stage.OPENED,
        at=AT,
        since=AT,
        channel="#eta",
        mention="@here",
        headline="eta-de: errors doubled",
        doing="",
        owner="logistics",
    )


def test_the_thread_says_whom_the_second_way_reached() -> None:
    """From when Slack was away, by which way, to whom and when; one key for each of these."""
    fact = Relayed(
        model=DE,
        at=AT + timedelta(minutes=10),
        incident="i",
        way="e-mail",
        to="ada@example.org",
        why="",
    )
    said = relayed(alone(notice()), unsent(ago=600), fact)
    assert said.headline == (
        "Told by e-mail to ada@example.org at 1 Mar 2026 10:12 UTC, as Slack could not be reached"
        " from 1 Mar 2026 10:02 UTC on"
    )
    assert said.stage is Stage.RELAYED
    assert said.key == "i/relayed/e-mail/#eta"
    refused = relayed(alone(notice()), unsent(ago=600, away=False), fact)
    assert "as Slack did not take it in #eta from" in refused.headline


def test_whoever_is_told_another_way_reads_why() -> None:
    """Slack away is not a channel that refuses."""
    assert why(unsent(ago=1)).startswith("Slack cannot be reached since 1 Mar 2026 10:02 UTC")
    assert "does not take it in #eta (no answer)" in why(unsent(ago=1, away=False))
    assert why(unsent(ago=1), of="eta").endswith(
        "It is of eta, and nobody acknowledged it: you are called next."
    )


def test_an_outage_is_one_incident_whoever_finds_it() -> None:
    """Its id is made of when it began; its end says how long it was and how many waited."""
    owner = Owner(channel="#ops", mention="@here")
    waiting = [unsent("j", ago=700), unsent("i", ago=900)]
    first = outage(waiting, owner, "ops", now=AT + timedelta(minutes=10))
    again = outage(waiting[::-1], owner, "ops", now=AT + timedelta(minutes=11))
    assert first.key == again.key == "driftloop/slack/20260301T100200/opened"
    assert first.severity is Severity.CRITICAL
    told = [
        Relayed(model=DE, at=AT, incident=each, way="e-mail", to="a", why="")
        for each in ("i", first.incident)
    ]
    end = reached(
        alone(first), [*waiting, unsent(first.incident, ago=1)], told, now=AT + timedelta(hours=2)
    )
    assert end.headline == (
        "driftloop: Slack is back after 2 hours; 2 incidents waited, 1 told another way meanwhile"
    )
    assert (end.stage, end.incident) == (Stage.RECOVERED, first.incident)
