"""What people do about incidents, in words: for them, and for the incident's thread. Pure."""

from dataclasses import replace

from driftloop.incident.about import about
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
    told = about(
        incident,
        Stage.ACTED,
        key=f"{incident.id}/acted/{acted.key}",
        at=acted.at,
        headline=acted_on(acted),
        doing=NEXT[acted.act],
    )
    return replace(told, model=acted.model, version=acted.version)
