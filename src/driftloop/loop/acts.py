"""What people do about incidents, in words: for them, and for the incident's thread. Pure."""

from driftloop.incident.lines import acted_on
from driftloop.records import Act, Acted, Incident, Notice, Stage

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
        headline=acted_on(acted),
        doing=NEXT[acted.act],
        owner=incident.owner,
        severity=incident.severity,
        origin=incident.origin,
        group=incident.group,
        version=acted.version,
    )
