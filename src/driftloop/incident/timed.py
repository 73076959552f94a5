"""What time alone makes of an incident: reminders, escalation, acknowledgements that run out."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from driftloop.incident.about import about
from driftloop.incident.words import doing, headline
from driftloop.records import Act, Acted, Incident, Notice, Severity, Stage, Status
from driftloop.route import Routed, quiet_until
from driftloop.spec import Owner

BEFORE = timedelta(minutes=30)
"""So long before an acknowledgement runs out who gave it is told, or an eighth of it if less."""
LOUD = frozenset({Stage.REMINDED, Stage.EXPIRED, Stage.ESCALATED, Stage.WORSENED, Stage.AGAIN})
"""Stages that call an incident to mind."""
Coming = tuple[datetime, Notice]


def timed(
    incident: Incident, routed: Routed, owners: Mapping[str, Owner], now: datetime
) -> tuple[Notice, ...]:
    """Return what is to be told now because of the time, in order; noted, it comes no more."""
    return tuple(notice for when, notice in coming(incident, routed, owners, now) if when <= now)


def next_due(
    incident: Incident, routed: Routed, owners: Mapping[str, Owner], now: datetime
) -> datetime | None:
    """Return when something will have to be looked at, if nothing happens until then."""
    moments = [when for when, _ in coming(incident, routed, owners, now)]
    if incident.until is not None:
        moments.append(incident.until)
    ends = [notice.until for notice in incident.notices if notice.until is not None]
    return min((when for when in (*moments, *ends) if when > now), default=None)


def coming(
    incident: Incident, routed: Routed, owners: Mapping[str, Owner], now: datetime
) -> tuple[Coming, ...]:
    """Return what is told in time, and when, as the incident stands `now`.

    An acknowledgement that runs out is first called to the mind of who gave it; then the incident
    is open again. Who is next in the chain is told once nobody acknowledged for long enough. What
    is only for the record is neither called to mind nor goes to the next. In an owner's quiet
    hours nothing of it is told.
    """
    if incident.told is None or incident.status in (Status.RESOLVED, Status.EXPLAINED):
        return ()
    found = [*_expiries(incident, owners, now)]
    if incident.status is Status.OPEN and incident.severity is not Severity.INFO and not found:
        found += [
            *_escalation(incident, routed, owners, now),
            *_reminder(incident, routed, owners, now),
        ]
    return tuple(sorted(found, key=lambda each: each[0]))


def _expiries(incident: Incident, owners: Mapping[str, Owner], now: datetime) -> Iterator[Coming]:
    known, owner = {notice.key for notice in incident.notices}, owners.get(incident.owner)
    kinds: dict[Act, tuple[int, Acted]] = {
        act.act: (number, act) for number, act in enumerate(incident.acts) if _lasts(act)
    }
    newest = max(kinds.values(), default=None, key=lambda each: each[1].until or now)
    if newest is None:
        return
    number, act = max(each[0] for each in kinds.values()), newest[1]
    soon = f"{incident.id}/{Stage.REMINDED}/ack/{number}"
    if incident.status is Status.ACKED and act.until is not None and soon not in known:
        when = _awake(incident, owner, act.until - min(BEFORE, (act.until - act.at) / 8))
        said = f"{act.who}, your acknowledgement runs out at {act.until:%H:%M} UTC"
        yield when, _made(incident, Stage.REMINDED, soon, said, "Then it is open again.", now)
    over = f"{incident.id}/{Stage.EXPIRED}/{number}"
    # What a silence has kept back is told at its end: that says enough.
    kept_back = act.act is Act.SILENCE and (incident.told is None or incident.told > act.at)
    if incident.status is Status.OPEN and over not in known and not kept_back:
        what = "acknowledgement" if act.act is Act.ACK else "silence"
        said = f"the {what} of {act.who} ran out: it is open again"
        when = _awake(incident, owner, act.until or now)
        yield when, _made(incident, Stage.EXPIRED, over, said, _left(incident), now)


def _lasts(act: Acted) -> bool:
    """Say whether what somebody did holds only for a while."""
    return act.act in (Act.ACK, Act.SILENCE) and (act.until is not None or act.until_version)


def _escalation(
    incident: Incident, routed: Routed, owners: Mapping[str, Owner], now: datetime
) -> Iterator[Coming]:
    if routed.ack_within is None or incident.level >= len(routed.escalate) or not incident.told:
        return
    steps = (Stage.ESCALATED, Stage.EXPIRED)
    last = max(
        (notice.at for notice in incident.notices if notice.stage in steps), default=incident.told
    )
    name = routed.escalate[incident.level]
    when = _awake(incident, owners.get(name), max(last, incident.told) + routed.ack_within)
    key = f"{incident.id}/{Stage.ESCALATED}/{incident.level + 1}"
    said = f"nobody acknowledged it: {name} is told too"
    notice = _made(incident, Stage.ESCALATED, key, said, _what(incident), now)
    # It is theirs now too.
    yield when, replace(notice, owner=name)


def _reminder(
    incident: Incident, routed: Routed, owners: Mapping[str, Owner], now: datetime
) -> Iterator[Coming]:
    if incident.told is None or not routed.repeat:
        return
    loud = [notice for notice in incident.notices if notice.stage in LOUD]
    last = max((notice.at for notice in loud), default=incident.told)
    when = _awake(incident, owners.get(incident.owner), max(last, incident.told) + routed.repeat)
    number = sum(notice.stage is Stage.REMINDED for notice in loud)
    key = f"{incident.id}/{Stage.REMINDED}/{number}"
    yield when, _made(incident, Stage.REMINDED, key, "it is still open", _left(incident), now)


def _awake(incident: Incident, owner: Owner | None, when: datetime) -> datetime:
    if owner is None:
        return when
    return quiet_until(owner, incident.severity, when) or when


def _what(incident: Incident) -> str:
    """Return what is wrong: who is new to it has heard nothing of it."""
    said = headline(incident)
    return said if said.endswith(".") else f"{said}."


def _left(incident: Incident) -> str:
    """Return what the loop does about it; of many models not what it does about one."""
    return doing(incident)


def _made(
    incident: Incident, stage: Stage, key: str, said: str, doing: str, at: datetime
) -> Notice:
    headline = f"{incident.models[0]}: {said}"
    return about(incident, stage, key=key, at=at, headline=headline, doing=doing)
