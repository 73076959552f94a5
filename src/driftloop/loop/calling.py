"""Who is called by name to what is told of an incident."""

from collections.abc import Sequence
from datetime import datetime

from driftloop.incident import NEEDS_A_PERSON
from driftloop.loop.standing import Standing, who_acked
from driftloop.records import Incident, Notice, Stage, Status
from driftloop.route import mention, quiet_until, rank
from driftloop.spec import Owner


def to_message(standing: Standing, incident: Incident, channel: str, now: datetime) -> str:
    """Return whom to call to a message: nobody where nobody need come."""
    newest = max((m for m in incident.members), key=lambda member: member.at)
    called = incident.status is Status.OPEN or (
        incident.status is Status.RESOLVED and newest.stage in NEEDS_A_PERSON
    )
    return mention(_reads(standing, incident, channel), now) if called else ""


def to_line(
    standing: Standing,
    incident: Incident,
    batch: Sequence[Notice],
    channel: str,
    now: datetime,
    *,
    told: frozenset[str],
) -> str:
    """Return whom to call to a line in the thread; `told` are the keys of what was told before."""
    stage = batch[0].stage
    if stage is Stage.REMINDED and "/ack/" in batch[0].key:
        return who_acked(incident)
    if stage is Stage.OPENED:
        # More of the same wakes nobody, unless it is worse than what was told.
        before = [n.severity for n in incident.notices if n.key in told]
        if max(rank(n.severity) for n in batch) <= max(map(rank, before), default=-1):
            return ""
    elif stage not in NEEDS_A_PERSON | {Stage.REMINDED, Stage.EXPIRED, Stage.AGAIN}:
        return ""
    if incident.status is Status.ACKED:
        return who_acked(incident)
    owner = _reads(standing, incident, channel)
    quiet = quiet_until(owner, incident.severity, now) is not None
    return mention(owner, now) if incident.status is Status.OPEN and not quiet else ""


def _reads(standing: Standing, incident: Incident, channel: str) -> Owner:
    """Return who of those that are told reads in `channel`, the owner where nobody does."""
    owners = standing.told_to(incident)
    return next((each for each in owners if each.channel == channel), owners[0])
