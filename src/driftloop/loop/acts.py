"""What people do about incidents, in words: for them, and for the incident's thread. Pure."""

from datetime import datetime

from driftloop.records import Act, Acted, Incident, Notice, Stage

DONE = {
    Act.ACK: "acknowledged it",
    Act.SILENCE: "silenced it",
    Act.RESOLVE: "resolved it by hand",
    Act.NO_PROBLEM: "found that it is not a problem",
    Act.RETRAIN: "wants it retrained now",
    Act.HOLD: "holds the rollout",
    Act.RESUME: "lets the rollout go on",
    Act.PROMOTE: "promoted the challenger",
    Act.ROLL_BACK: "rolled it back",
}
NEXT = {
    Act.ACK: "Nobody else is called until then. Should it still be open, it is told again.",
    Act.SILENCE: "Nothing of it is told until then, unless it recovers.",
    Act.RESOLVE: "It is over for those who are told; the loop goes on looking.",
    Act.NO_PROBLEM: "It is over, and counts as a false page in the budget of these models.",
    Act.RETRAIN: "The retraining begins within a minute; the gate decides what comes of it.",
    Act.HOLD: "It goes no further; certain harm still rolls it back.",
    Act.RESUME: "The policy decides again how far it goes.",
    Act.PROMOTE: "The challenger answers everything now.",
    Act.ROLL_BACK: "The champion before it answers alone.",
}
SHOWN = 3


def said(acted: Acted) -> str:
    """Return who did what, until when and why, in one line.

    >>> from datetime import UTC
    >>> at = datetime(2026, 3, 1, 8, tzinfo=UTC)
    >>> of = {"model": "eta-de", "at": at, "incident": "eta-de/1", "who": "Ada"}
    >>> said(Acted(act=Act.ACK, until=at, **of))
    'Ada acknowledged it until 2026-03-01 08:00 UTC'
    >>> said(Acted(act=Act.ROLL_BACK, model="eta-de", version=4, at=at, incident="i", who="Ada"))
    'Ada rolled it back (eta-de, version 4)'
    """
    return f"{acted.who} {DONE[acted.act]}{_which(acted)}{_until(acted)}{_why(acted)}"


def notice_of(acted: Acted, incident: Incident) -> Notice:
    """Return what is told of an act in the incident's thread."""
    first = incident.notices[0]
    return Notice(
        key=f"{incident.id}/acted/{acted.key}",
        incident=incident.id,
        model=acted.model,
        stage=Stage.ACTED,
        at=acted.at,
        since=incident.since,
        channel=first.channel,
        mention="",
        headline=said(acted),
        doing=NEXT[acted.act],
        owner=incident.owner,
        severity=incident.severity,
        origin=incident.origin,
        group=incident.group,
        version=acted.version,
    )


def when(at: datetime) -> str:
    """Return a time as people read it."""
    return f"{at:%Y-%m-%d %H:%M} UTC"


def _which(acted: Acted) -> str:
    if acted.act is Act.RETRAIN:
        more = f" and {len(acted.models) - SHOWN} more" if len(acted.models) > SHOWN else ""
        return f" ({', '.join(acted.models[:SHOWN])}{more})"
    if acted.version is not None and acted.act is not Act.SILENCE:
        return f" ({acted.model}, version {acted.version})"
    return ""


def _until(acted: Acted) -> str:
    if acted.until_version:
        return " until the next version"
    return f" until {when(acted.until)}" if acted.until is not None else ""


def _why(acted: Acted) -> str:
    return f': "{acted.why}"' if acted.why else ""
