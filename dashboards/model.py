"""The page of one model: its state, its metric over time, and what happened to it. Pure."""

from dataclasses import dataclass

from dashboards.facts import PAGE_MEASURED, ModelFacts
from dashboards.fleet import Row, row_view
from dashboards.moment import LoopView, Moment, loop_view
from dashboards.timeline import Event, Marker, markers, timeline
from driftloop.judge.partitions import Standing, standing
from driftloop.records import Cause, Decision, Head, Kind, Level, ModelId, Reading, Trained, Verdict
from driftloop.spec import Family, Fleet, Owner

NAMED = 6
"""So many of a family's classes are named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelView:
    """The page of one model.

    `trained` is what `champion` was made of, where the ledger still shows it. `verdicts` are
    the last ones, the worst first. `worst` are the segments that a model which decays is worst
    in. `unread` are columns whose newest rows could not be compared with what is usual, None being
    the model itself, and why. `cause` is why the open incident is one, where that was looked for.
    `cut` says that its past is longer than what is shown. `held` is what of its rows is in
    quarantine.
    """

    row: Row
    loop: LoopView
    task: str
    owner: Owner
    champion: Head | None
    trained: Trained | None
    markers: tuple[Marker, ...]
    verdicts: tuple[Verdict, ...]
    worst: tuple[Reading, ...]
    unread: tuple[tuple[str | None, str], ...]
    cause: Cause | None
    events: tuple[Event, ...]
    cut: bool
    held: tuple[Standing, ...]


def model_view(fleet: Fleet, model: ModelId, facts: ModelFacts, moment: Moment) -> ModelView:
    """Return the page of `model`.

    Raises:
        UnknownModel: no monitor declares it.
    """
    family = fleet.family(model)
    loop = loop_view(fleet, moment, served=bool(facts.moved))
    champion = facts.moved[-1].head if facts.moved else None
    made = [f for f in facts.trained if champion is not None and f.version == champion.version]
    decision = facts.decided[-1].decision if facts.decided else None
    verdicts = () if decision is None else decision.verdicts
    return ModelView(
        row=row_view(family, model, facts, moment, loop=loop),
        loop=loop,
        task=_task(family),
        owner=fleet.owner(model),
        champion=champion,
        trained=made[-1] if made else None,
        markers=markers(facts),
        verdicts=tuple(sorted(verdicts, key=_gravity)),
        worst=() if decision is None else decision.worst,
        unread=_unread(facts),
        cause=_cause(decision, facts),
        events=timeline(facts),
        cut=len(facts.decided) >= PAGE_MEASURED,
        held=standing(
            sorted((*facts.quarantined, *facts.released), key=lambda fact: fact.at), now=moment.now
        ),
    )


def _cause(decision: Decision | None, facts: ModelFacts) -> Cause | None:
    if decision is None or decision.incident is None or not facts.explained:
        return None
    fact = facts.explained[-1]
    return fact.cause if decision.since is None or fact.at >= decision.since else None


def _unread(facts: ModelFacts) -> tuple[tuple[str | None, str], ...]:
    readings = facts.measured[-1].readings if facts.measured else ()
    told = ((r.column, r.problem) for r in readings if r.kind is Kind.FRESH and r.value is None)
    return tuple(dict.fromkeys((column, problem) for column, problem in told if problem))


def _task(family: Family) -> str:
    if not family.classes:
        return str(family.task)
    more = f" and {len(family.classes) - NAMED} more" if len(family.classes) > NAMED else ""
    return f"{family.task}: {', '.join(family.classes[:NAMED])}{more}"


def _gravity(verdict: Verdict) -> tuple[int, int]:
    levels = (Level.ALARM, Level.WARN, Level.BLIND, Level.OK)
    kinds = (Kind.DECAY, Kind.ESTIMATE, Kind.QUALITY, Kind.FRESH, Kind.DRIFT)
    return levels.index(verdict.level), kinds.index(verdict.reading.kind)
