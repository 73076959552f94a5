"""Where an incident should have been told and could not be: what the second way is for. Pure."""

from collections.abc import Iterable, Sequence
from datetime import datetime

from driftloop.incident.about import about
from driftloop.incident.fold import REFUSED
from driftloop.incident.lines import lasting, utc
from driftloop.records import (
    PLATFORM,
    Fact,
    Incident,
    Notice,
    Origin,
    Posted,
    Relayed,
    Severity,
    Stage,
    Unsent,
)
from driftloop.spec import Owner

OF_OUTAGE = f"{PLATFORM}/slack/"
"""How the incident begins that tells the platform's owner of an outage."""


def unreached(facts: Iterable[Fact], *, wall: float, down: float) -> tuple[Unsent, ...]:
    """Return where an incident could not be told for `down` seconds or longer, and still is not.

    Args:
        facts: of the incident, or of several.
        wall: seconds since 1970.
        down: wall seconds; 0 for all that could not be told yet.
    """
    failed: dict[tuple[str, str], Unsent] = {}
    stands = set()
    for fact in facts:
        if isinstance(fact, Unsent):
            failed.setdefault((fact.incident, fact.channel), fact)
        elif isinstance(fact, Posted) and fact.shown != REFUSED:
            stands.add((fact.incident, fact.channel))
    late = (each for key, each in failed.items() if key not in stands)
    return tuple(each for each in late if wall - each.wall >= down)


def why(unsent: Unsent, *, of: str = "") -> str:
    """Return in a sentence why it is told another way.

    `of` is whose incident it is, where others are told as nobody acknowledged it.
    """
    called = f" It is of {of}, and nobody acknowledged it: you are called next." if of else ""
    if unsent.away:
        return f"Slack cannot be reached since {utc(unsent.at)}, so you are told this way.{called}"
    missing = f"Slack does not take it in {unsent.channel} ({unsent.error})"
    return f"{missing}, so you are told this way.{called}"


def relayed(incident: Incident, unsent: Unsent, fact: Relayed) -> Notice:
    """Return what is added to an incident's thread: that it was told another way, whom and when."""
    missing = "could not be reached" if unsent.away else f"did not take it in {unsent.channel}"
    return about(
        incident,
        Stage.RELAYED,
        key=f"{incident.id}/{Stage.RELAYED}/{fact.way}/{unsent.channel}",
        at=fact.at,
        headline=f"Told by {fact.way} to {fact.to} at {utc(fact.at)}, as Slack {missing} from"
        f" {utc(unsent.at)} on",
    )


def outage(waiting: Sequence[Unsent], owner: Owner, name: str, *, now: datetime) -> Notice:
    """Return what the platform's owner is told of an outage for which `waiting` could not be told.

    It is the same whoever of several processes finds it.
    """
    since = min(each.at for each in waiting)
    incident = f"{OF_OUTAGE}{since:%Y%m%dT%H%M%S}"
    return Notice(
        key=f"{incident}/{Stage.OPENED}",
        incident=incident,
        model=PLATFORM,
        stage=Stage.OPENED,
        at=now,
        since=since,
        channel=owner.channel,
        mention=owner.mention,
        headline=f"{PLATFORM}: Slack cannot be reached",
        doing="What is to be told waits in the ledger and goes out once Slack is back; owners with"
        " a second way are told by it. If the workspace is well, look at slack_token and slack_api"
        f" in the settings: {waiting[0].error}",
        owner=name,
        severity=Severity.CRITICAL,
        origin=Origin.UNKNOWN,
    )


def reached(
    incident: Incident, waited: Iterable[Unsent], told: Iterable[Relayed], *, now: datetime
) -> Notice:
    """Return the end of an outage: how long it was, how many waited, and who was told meanwhile."""
    late = {each.incident for each in waited if not each.incident.startswith(OF_OUTAGE)}
    other = {each.incident for each in told if not each.incident.startswith(OF_OUTAGE)}
    many = f"{len(late)} incident{'' if len(late) == 1 else 's'}"
    return about(
        incident,
        Stage.RECOVERED,
        key=f"{incident.id}/{Stage.RECOVERED}",
        at=now,
        headline=f"{PLATFORM}: Slack is back after {lasting(now - incident.since)}; {many} waited,"
        f" {len(other & late)} told another way meanwhile",
        doing="Nothing more to do.",
    )
