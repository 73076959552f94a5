"""What is told of an incident itself, and not of its models: acts, reminders, another way."""

from datetime import datetime

from driftloop.records import Incident, Notice, Stage


def about(
    incident: Incident, stage: Stage, *, key: str, at: datetime, headline: str, doing: str = ""
) -> Notice:
    """Return a notice for the thread of `incident`, to whom it is told."""
    first = incident.notices[0]
    return Notice(
        key=key,
        incident=incident.id,
        model=first.model,
        stage=stage,
        at=at,
        since=incident.since,
        channel=first.channel,
        mention=first.mention,
        headline=headline,
        doing=doing,
        owner=incident.owner,
        severity=incident.severity,
        origin=incident.origin,
        group=incident.group,
    )
