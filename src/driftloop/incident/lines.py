"""An incident line by line, in plain words: its models, who did what, its times.

None of this has markup; who shows it escapes it.
"""

import re
from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timedelta

from driftloop.incident.stages import OF_TELLING
from driftloop.records import Act, Acted, Incident, ModelId, Notice, Stage

Said = tuple[str | datetime, ...]
"""A sentence with its times left as times: Slack shows each reader their own."""

CAUSE = "Cause"
"""What the line of evidence is called that tells why."""

STAGES: Mapping[Stage, str] = {
    Stage.OPENED: "Open",
    Stage.WORSENED: "Open: now it predicts worse",
    Stage.BLOCKED: "Blocked: bad data",
    Stage.RETRAINING: "Retraining",
    Stage.PROMOTED: "New version serving",
    Stage.REFUSED: "Candidate refused",
    Stage.FAILED: "Retraining failed",
    Stage.HELD: "Rollout held",
    Stage.STUCK: "Promotion stuck",
    Stage.ROLLED_BACK: "Rolled back",
    Stage.RECOVERED: "Recovered",
    Stage.QUARANTINED: "In quarantine: trains nothing",
    Stage.RELEASED: "Released: trains again",
    Stage.DOUBTED: "Labels in doubt",
    Stage.ACTED: "Somebody acted",
    Stage.REMINDED: "Still open",
    Stage.ESCALATED: "Escalated: nobody acknowledged",
    Stage.EXPIRED: "Open again: the acknowledgement has ended",
    Stage.RELAYED: "Told another way: Slack was out of reach",
    Stage.EXPLAINS: "Part of this one",
    Stage.AGAIN: "Told once more",
}

ACTS: Mapping[Act, str] = {
    Act.ACK: "acknowledged it",
    Act.SILENCE: "silenced it",
    Act.RESOLVE: "resolved it by hand",
    Act.NO_PROBLEM: "found that it is not a problem",
    Act.RETRAIN: "asked for a retraining",
    Act.HOLD: "held the rollout",
    Act.RESUME: "let the rollout go on",
    Act.PROMOTE: "promoted the challenger",
    Act.ROLL_BACK: "rolled it back",
}
"""What somebody did, after their name."""

SHOWN = 3
"""So many models of an act are named."""
WRONG = frozenset({Stage.OPENED, Stage.WORSENED, Stage.BLOCKED, Stage.QUARANTINED})
"""Stages whose notices say what is wrong."""


def cause(incident: Incident) -> str:
    """Return why, "" where that is not known; of many models what most of them say."""
    said = Counter(
        evidence.value
        for notice in incident.notices
        for evidence in notice.evidence
        if evidence.what == CAUSE
    )
    return said.most_common(1)[0][0] if said else ""


def worst(incident: Incident) -> tuple[tuple[ModelId, str], ...]:
    """Return each model with one line of its own, the worst first, those that recovered last.

    What `common` says of all is not said of each.
    """
    telling, shared = _telling(incident), common(incident)
    left = {member.model for member in incident.members if member.over is None}
    stages = {member.model: member.stage for member in incident.members}

    def rank(model: ModelId) -> tuple[bool, float, str]:
        bad = badness(telling[model]) if model in telling else 0.0
        return model not in left, -bad, model

    def said(model: ModelId) -> str:
        stage = stages[model]
        line = _own_line(telling[model], shared=bool(shared)) if model in telling else ""
        if stage in WRONG or stage in OF_TELLING or not left:
            return line or STAGES[stage]
        if model not in left:
            return f"recovered; was: {line}" if line else "recovered"
        return f"{lowered(STAGES[stage])}; {line}" if line else lowered(STAGES[stage])

    return tuple((model, said(model)) for model in sorted(incident.models, key=rank))


def common(incident: Incident) -> str:
    """Return what the numbers of all models are of, and their limit; "" if they are of several."""
    if len(incident.models) < 2:  # noqa: PLR2004 - one, or many
        return ""
    told = _telling(incident).values()
    firsts = [next((e for e in n.evidence if e.what != CAUSE), None) for n in told]
    same = {(e.what, e.limit) if e is not None else None for e in firsts}
    (what, limit) = (same.pop() or ("", "")) if len(same) == 1 else ("", "")
    return f"{one_line(what)}, limit {one_line(limit)}" if what and limit else one_line(what)


def acted(incident: Incident, *, last: int = 3) -> tuple[Said, ...]:
    """Return who did what and when, the newest `last` of it, oldest first."""
    return tuple(
        (f"{act.who} {ACTS[act.act]} ", act.at, *((f": {one_line(act.why)}",) if act.why else ()))
        for act in incident.acts[-last:]
    )


def acted_on(acted: Acted) -> str:
    """Return who did what, until when and why, in one line.

    >>> from datetime import UTC
    >>> at = datetime(2026, 3, 1, 8, tzinfo=UTC)
    >>> of = {"model": "eta-de", "at": at, "incident": "eta-de/1", "who": "Ada"}
    >>> acted_on(Acted(act=Act.ACK, until=at, **of))
    'Ada acknowledged it until 2026-03-01 08:00 UTC'
    >>> acted_on(Acted(act=Act.ROLL_BACK, version=4, **of))
    'Ada rolled it back (eta-de, version 4)'
    >>> acted_on(Acted(act=Act.SILENCE, until_version=True, **of))
    'Ada silenced it until the next version of eta-de'
    """
    return f"{acted.who} {ACTS[acted.act]}{_which(acted)}{_until(acted)}{_why(acted)}"


def when(at: datetime) -> str:
    """Return a time as people read it."""
    return f"{at:%Y-%m-%d %H:%M} UTC"


def badness(notice: Notice) -> float:
    """Return by how many times its limit a notice's first number is over it, 0 where unknown."""
    for evidence in notice.evidence:
        value, limit = _number(evidence.value), _number(evidence.limit)
        if value is None or limit is None:
            continue
        usual = re.search(r"worse than ([-+.\de]+)", evidence.limit)
        if usual and (base := _number(usual[1])):
            return abs(value - base) / abs(base) / max(limit / 100, 1e-9)
        return abs(value) / max(abs(limit), 1e-9)
    return 0.0


def plain(said: Said) -> str:
    """Return a sentence with its times in UTC.

    >>> plain(("Resolved ", datetime(2013, 4, 2, 6, 0), "."))
    'Resolved 2 Apr 2013 06:00 UTC.'
    """
    return "".join(utc(part) if isinstance(part, datetime) else part for part in said)


def utc(at: datetime) -> str:
    """Return a time as people read it.

    >>> utc(datetime(2013, 4, 2, 6, 0))
    '2 Apr 2013 06:00 UTC'
    """
    return f"{at.day} {at:%b %Y %H:%M} UTC"


def without(said: str, model: ModelId) -> str:
    """Return words about a model without its name at their head.

    >>> without("eta-de: its data looks wrong", ModelId("eta-de"))
    'its data looks wrong'
    """
    if not said.startswith(model):
        return said
    return said[len(model) :].lstrip(": ") or said


def counted(n: int) -> str:
    """Return how many models.

    >>> counted(1), counted(2000)
    ('1 model', '2,000 models')
    """
    return f"{n:,} model" if n == 1 else f"{n:,} models"


def lasting(lasted: timedelta) -> str:
    """Return how long something took, in the largest unit of which there are two.

    >>> lasting(timedelta(hours=36)), lasting(timedelta(days=9)), lasting(timedelta(seconds=70))
    ('36 hours', '9 days', '1 minute')
    """
    minutes = int(lasted.total_seconds()) // 60
    of_days, of_hours = minutes // 1440, minutes // 60
    n, unit = next(
        ((n, unit) for n, unit in ((of_days, "day"), (of_hours, "hour")) if n > 1),
        (minutes, "minute"),
    )
    return f"{n:,} {unit}" if n == 1 else f"{n:,} {unit}s"


def lowered(said: str) -> str:
    """Return a sentence as part of another."""
    return said[:1].lower() + said[1:]


def one_line(text: str) -> str:
    """Return text without line breaks."""
    return " ".join(text.split())


def _telling(incident: Incident) -> dict[ModelId, Notice]:
    """Return of each model the newest notice that says what is wrong, or the first of all."""
    telling: dict[ModelId, Notice] = {}
    for notice in incident.notices:
        if notice.stage in WRONG or notice.model not in telling:
            telling[notice.model] = notice
    return telling


def _own_line(notice: Notice, *, shared: bool) -> str:
    first = next((e for e in notice.evidence if e.what != CAUSE), None)
    if first is None:
        return without(one_line(notice.headline), notice.model)
    value = one_line(first.value)
    if shared:
        return value
    limit = f" (limit {one_line(first.limit)})" if first.limit.strip() else ""
    return f"{one_line(first.what)} {value}{limit}"


def _number(said: str) -> float | None:
    found = re.match(r"\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?)", said)
    return float(found[1]) if found else None


def _which(acted: Acted) -> str:
    if acted.act is Act.RETRAIN:
        more = f" and {len(acted.models) - SHOWN} more" if len(acted.models) > SHOWN else ""
        return f" ({', '.join(acted.models[:SHOWN])}{more})"
    if acted.version is not None and acted.act is not Act.SILENCE:
        return f" ({acted.model}, version {acted.version})"
    return ""


def _until(acted: Acted) -> str:
    if acted.until_version:
        return f" until the next version of {acted.model}"
    return f" until {when(acted.until)}" if acted.until is not None else ""


def _why(acted: Acted) -> str:
    return f': "{acted.why}"' if acted.why else ""
