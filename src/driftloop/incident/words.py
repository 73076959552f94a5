"""An incident in plain words: the same in Slack, in mails and on the command line.

None of this has markup; who shows it escapes it.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

from driftloop.incident.lines import (
    ACTS,
    STAGES,
    WRONG,
    Said,
    counted,
    lasting,
    lowered,
    one_line,
    without,
    worst,
)
from driftloop.incident.stages import OF_TELLING
from driftloop.records import (
    PLATFORM,
    Act,
    Incident,
    ModelId,
    Notice,
    Origin,
    Stage,
    Status,
    metric_name,
)

_OVER = frozenset({Stage.RECOVERED, Stage.RELEASED})
_DECIDE = "Decide: retrain now, or say that it is no problem. It does not retrain by itself."
_NEEDS: Mapping[Stage, str] = {
    Stage.STUCK: "Mend what stopped {version} and let it go on, or roll it back.",
    Stage.HELD: "Decide: promote {version}, let its rollout go on, or roll it back.",
    Stage.FAILED: "Find out why it could not be retrained; the old version answers meanwhile.",
    Stage.REFUSED: "Nothing yet: it tries again. If that is refused too, look at data and recipe.",
    Stage.BLOCKED: "{mend} It does not retrain until then.",
    Stage.ROLLED_BACK: "Find out why {version} was worse; the one before it answers again.",
    Stage.OPENED: _DECIDE,
    Stage.WORSENED: _DECIDE,
    Stage.QUARANTINED: "Look at the rows: mend where they come from, or release what is right.",
    Stage.DOUBTED: "Look at the labels: keep them out if they are wrong.",
    Stage.RETRAINING: "Nothing: it is being retrained, and what comes of it is told here.",
    Stage.PROMOTED: "Nothing: it ends by itself once the numbers are good again.",
}
"""What each stage needs of a person, the most demanding first."""

_ITSELF = "Nothing: it retrains itself, and what comes of it is told here."
_OF_MANY: Mapping[tuple[str, bool | None], str] = {
    ("data", False): "{things} {are} broken: {many}",
    ("data", True): "{metric} of {place} is not as it should be: {many}",
    ("inputs", False): "{things} {have} changed: {many}",
    ("inputs", True): "{metric} of {place} has changed: {many}",
    ("relation", None): "{place}: the world has changed, {many} predict worse",
    ("quarantine", None): "{place}: rows of {day} are in quarantine, {many}",
}
"""What a group says of its models, by how it begins, and whether it is of a whole family."""

_NAMED = 3


def headline(incident: Incident) -> str:
    """Return in one line what is wrong, and with how many models.

    It stays what it was while the incident goes on: `stands` says how far that has come.
    """
    models = incident.models
    if len(models) > 1:
        return _of_many(incident)
    notice = telling(incident)
    if notice is None:
        return f"{', '.join(models) or incident.owner}: {incident.group or incident.id}"
    said = one_line(notice.headline)
    return said if notice.model in said else f"{notice.model}: {said}"


def stands(incident: Incident) -> Said:
    """Return how it stands with people: open since when, who has it until when, or how it ended."""
    who = _who(incident)
    match incident.status:
        case Status.RESOLVED:
            ended = incident.resolved or incident.since
            return ("Resolved ", ended, f", {lasting(ended - incident.since)} after it began")
        case Status.ACKED:
            return (f"{who} has it", *_until(incident), "; open since ", incident.since)
        case Status.SILENCED:
            return (f"Silenced by {who}", *_until(incident), "; open since ", incident.since)
        case Status.EXPLAINED:
            larger = incident.explained_by or "a larger incident"
            return (f"Part of {larger}", ", which is told instead; open since ", incident.since)
        case Status.WAITING:
            return ("To be told soon; began ", incident.since)
        case Status.OPEN:
            return (*_open(incident), " since ", incident.since, *_escalated(incident))


def needs(incident: Incident) -> str:
    """Return what it needs of who reads it, in one sentence or two."""
    match incident.status:
        case Status.RESOLVED:
            return "Nothing: it is over."
        case Status.EXPLAINED:
            return "Nothing here: what is to be done stands in the larger incident."
        case Status.SILENCED:
            return "Nothing until the silence ends."
        case Status.ACKED:
            need = _need(incident)
            return need if need.startswith("Nothing") else f"{_who(incident)} has it. {need}"
        case _:
            return _need(incident)


def doing(incident: Incident) -> str:
    """Return what the loop does about it, "" where it says nothing."""
    if (closed := _closed(incident)) is not None:
        return closed
    newest = _newest(incident)
    running = [n for n in newest.values() if n.stage not in _OVER] or list(newest.values())
    if not running or running[-1].model == PLATFORM:
        return ""
    said = Counter(without(n.doing.strip(), n.model) for n in running)
    if len(running) == 1:
        return running[0].doing.strip()
    if len(said) == 1:
        return next(iter(said))
    counts = Counter(notice.stage for notice in newest.values())
    return "; ".join(f"{counted(n)}: {STAGES[stage].lower()}" for stage, n in counts.items()) + "."


def telling(incident: Incident) -> Notice | None:
    """Return the notice that says best what is wrong: the newest that does, None without any."""
    found = None
    for notice in incident.notices:
        if notice.stage in WRONG or (
            notice.stage not in OF_TELLING and (found is None or found.stage not in WRONG)
        ):
            found = notice
    return found


def standing(incident: Incident) -> Stage | None:
    """Return the stage that needs most of a person, of what is not over; None where all is."""
    newest = [n.stage for n in _newest(incident).values() if n.stage not in _OVER]
    return next((stage for stage in _NEEDS if stage in newest), newest[-1]) if newest else None


def _closed(incident: Incident) -> str | None:
    """Return how people ended what was not over by itself, None where they did not."""
    if incident.status is not Status.RESOLVED or all(m.over for m in incident.members):
        return None
    ends = [act for act in incident.acts if act.act in (Act.RESOLVE, Act.NO_PROBLEM)]
    if not ends:
        return None
    why = f": {one_line(ends[-1].why)}" if ends[-1].why.strip() else ""
    return f"{ends[-1].who} {ACTS[ends[-1].act]}{why}"


def _of_many(incident: Incident) -> str:
    kind, _, rest = incident.group.partition("/")
    place, _, metric = rest.partition("/")
    said = _OF_MANY.get((kind, bool(metric))) or _OF_MANY.get((kind, None))
    many, about = counted(len(incident.models)), _about(incident)
    if said is None or not place:
        return _alike(incident, many)
    return said.format(
        metric=metric_name(metric),
        place=place,
        many=many,
        things=_things(about, place),
        day=metric.partition("/")[0],
        have="have" if len(about) > 1 else "has",
        are="are" if len(about) > 1 else "is",
    )


def _about(incident: Incident) -> tuple[str, ...]:
    return tuple(dict.fromkeys(notice.about for notice in incident.notices if notice.about))


def _alike(incident: Incident, many: str) -> str:
    """Return the headline of models that no place is known of: what most of them say."""
    said: dict[ModelId, str] = {}
    for notice in incident.notices:
        if notice.stage in WRONG or notice.model not in said:
            said[notice.model] = without(one_line(notice.headline), notice.model)
    ((most, times),) = Counter(said.values()).most_common(1) or [("", 0)]
    if times == len(said) and most:
        return f"{many}: {most}"
    first = next(iter(worst(incident)))
    return f"{first[0]}: {said.get(first[0], first[1])}, and {len(incident.models) - 1} more models"


def _things(about: tuple[str, ...], place: str) -> str:
    source = place.startswith(("source-", "source "))
    named = ", ".join(about[:_NAMED])
    if len(about) > _NAMED:
        named += f" and {len(about) - _NAMED} more"
    where = f"source {place[7:]}" if source else place
    if not named or named == where:
        return where
    return f"{named} of {where}" if source else named


def _newest(incident: Incident) -> dict[str, Notice]:
    """Return each alert's newest notice that is about the models and not about people."""
    return {n.incident: n for n in incident.notices if n.stage not in OF_TELLING}


def _need(incident: Incident) -> str:
    newest = [n for n in _newest(incident).values() if n.stage not in _OVER]
    if not newest:
        return "Nothing yet."
    if newest[-1].model == PLATFORM:
        return f"Mend it. {newest[-1].doing.strip() or 'Look at `driftloop status`.'}"
    stage = standing(incident) or newest[-1].stage
    such = [notice for notice in newest if notice.stage is stage]
    lead, said = _of_whom(such, newest), _said(incident, stage, such[0])
    return f"{lead}: {lowered(said)}" if lead else said


def _said(incident: Incident, stage: Stage, notice: Notice) -> str:
    if stage in (Stage.OPENED, Stage.WORSENED):
        if Origin.DATA in (incident.origin, notice.origin):
            stage = Stage.BLOCKED
        elif notice.retrains:
            return _ITSELF
    refused = sum((n.incident, n.stage) == (notice.incident, stage) for n in incident.notices)
    if stage is Stage.REFUSED and refused > 1:
        return f"Look at data and recipe: {refused} candidates were refused. It tries again later."
    rolling = [m.version for m in incident.members if m.model == notice.model and m.version]
    number = notice.version or next(iter(rolling), None)
    version = "the new version" if number is None else f"version {number}"
    said = _NEEDS.get(stage, "Nothing yet.")
    return said.format(version=version, mend=_mend(incident) if "{mend}" in said else "")


def _of_whom(such: Sequence[Notice], newest: Sequence[Notice]) -> str:
    """Return which models a need is of, "" where it is of all that are not over."""
    models = dict.fromkeys(notice.model for notice in such)
    if len(models) == len({notice.model for notice in newest}):
        return ""
    return next(iter(models)) if len(models) == 1 else counted(len(models))


def _who(incident: Incident) -> str:
    return incident.who or "somebody"


def _mend(incident: Incident) -> str:
    about = _about(incident)
    kind, _, place = incident.group.partition("/")
    if kind == "data" and place and "/" not in place:
        if place.startswith("source"):
            return f"Mend {_things(about, place)}, or tell whoever runs the source."
        return f"Mend {_things(about, place)}, or tell whoever makes it."
    named = f" ({', '.join(about[:_NAMED])})" if about else ""
    return f"Mend the data{named}, or tell whoever makes them."


def _open(incident: Incident) -> Said:
    told = [n.stage for n in incident.notices if n.stage in OF_TELLING]
    again = Stage.EXPIRED in told and told[-1] is not Stage.ACTED
    word = "Open again" if again else "Open"
    left = {member.model for member in incident.members if member.over is None}
    if len(left) < len(incident.models):
        return (f"{word}, {len(left)} of {counted(len(incident.models))}",)
    stage = standing(incident)
    if stage in (None, Stage.OPENED) or len(left) > 1:
        return (word,)
    return (f"{word}: {lowered(STAGES[stage].removeprefix('Open: '))}",)


def _escalated(incident: Incident) -> Said:
    if not incident.level:
        return ()
    told = [n for n in incident.notices if n.stage is Stage.ESCALATED]
    said = without(one_line(told[-1].headline), told[-1].model) if told else ""
    return (f"; {said or 'nobody acknowledged it'}",)


def _until(incident: Incident) -> Said:
    if incident.until_version:
        return (" until the next version",)
    return () if incident.until is None else (" until ", incident.until)
