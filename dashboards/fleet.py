"""The fleet page: every model in a line, what needs a person first. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from dashboards.facts import ModelFacts
from dashboards.moment import LoopView, Moment, loop_view
from dashboards.points import Believed, Point, estimates, metric_said, points
from dashboards.timeline import Event, retrainings
from dashboards.words import span, why
from driftloop.judge import is_decisive
from driftloop.records import (
    Failed,
    Gated,
    Level,
    ModelId,
    Moved,
    Ordered,
    Phase,
    Rollout,
    State,
)
from driftloop.spec import Family, Fleet

RETRAINING = "retraining"
NO_CHAMPION = "no champion"
UNJUDGED = "not judged"
STATES = (
    str(State.DATA_FAULT),
    str(State.DECAYING),
    RETRAINING,
    str(State.DRIFTING),
    NO_CHAMPION,
    str(State.BLIND),
    UNJUDGED,
    str(State.FRESH),
)
"""Every word that a model's pill may say, what needs a person first before the rest."""
PATIENCE = timedelta(seconds=120)
"""Wall time beyond a fit's limit after which a retraining has come to nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One model on the fleet page.

    `state` is one of `STATES`; `judged` is the state of its last decision, which a retraining
    under way hides. `believed` is its performance, labels to come included. `rollout` says how far
    a challenger has come. `notes` say what a person must look at besides.
    """

    model: ModelId
    family: str
    state: str
    judged: str | None
    decided_at: datetime | None
    reason: str
    report: str | None
    version: int | None
    epoch: int | None
    champion_since: datetime | None
    rollout: str | None
    metric: str
    unit: str
    level: str
    points: tuple[Point, ...]
    believed: tuple[Believed, ...]
    rows: int | None
    labels: int | None
    retrain: Event | None
    incident: str | None
    incident_since: datetime | None
    notes: tuple[str, ...]

    @property
    def last(self) -> Point | None:
        """The newest window's point."""
        return self.points[-1] if self.points else None

    @property
    def urgent(self) -> bool:
        """Whether a person should look: an open incident, harm, or something that is stuck."""
        harmed = {self.state, self.judged} & {str(State.DATA_FAULT), str(State.DECAYING)}
        return bool(harmed or self.incident or self.notes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The models of one family, the worst first."""

    family: str
    task: str
    owner: str
    metric: str
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetView:
    """The fleet page; `counts` says how many models are in each state."""

    loop: LoopView
    counts: Mapping[str, int]
    urgent: tuple[Row, ...]
    groups: tuple[Group, ...]


def fleet_view(fleet: Fleet, facts: Mapping[ModelId, ModelFacts], moment: Moment) -> FleetView:
    """Return the fleet page; `facts` holds every model of `fleet`."""
    loop = loop_view(fleet, moment, served=any(f.moved for f in facts.values()))
    groups = []
    for family in fleet.families:
        rows = [row_view(family, model, facts[model], moment, loop=loop) for model in family.models]
        groups.append(
            Group(
                family=family.name,
                task=str(family.task),
                owner=fleet.owners[family.owner].channel,
                metric=metric_said(family),
                rows=tuple(sorted(rows, key=_gravity)),
            )
        )
    every = [row for group in groups for row in group.rows]
    return FleetView(
        loop=loop,
        counts={state: sum(row.state == state for row in every) for state in STATES},
        urgent=tuple(sorted((row for row in every if row.urgent), key=_gravity)),
        groups=tuple(groups),
    )


def row_view(
    family: Family, model: ModelId, facts: ModelFacts, moment: Moment, *, loop: LoopView
) -> Row:
    """Return one model's line; where the whole `loop` is late, the lines do not repeat it."""
    moved = facts.moved[-1] if facts.moved else None
    decision = facts.decided[-1].decision if facts.decided else None
    measured = facts.measured[-1] if facts.measured else None
    order = _open_order(facts)
    verdicts = () if decision is None else decision.verdicts
    incident = None if decision is None else decision.incident
    judged = None if decision is None else str(decision.state)
    state = judged or UNJUDGED
    if moved is None:
        state = NO_CHAMPION
    if order is not None:
        state = RETRAINING
    rollout = next((f.rollout for f in facts.advanced[-1:] if f.rollout.is_open), None)
    stands = None if rollout is None or rollout.phase is not Phase.STUCK else rollout.reason
    late = None if loop.warning else _unseen(family, facts, moment)
    ended = [event for event in retrainings(facts) if event.what != RETRAINING]
    return Row(
        model=model,
        family=family.name,
        state=state,
        judged=judged,
        decided_at=None if decision is None else decision.at,
        reason="" if decision is None else why(decision),
        report=None if decision is None else decision.key,
        version=None if moved is None else moved.head.version,
        epoch=None if moved is None else _epoch(moved, facts),
        champion_since=None if moved is None else moved.at,
        rollout=None if rollout is None else _rollout_said(rollout),
        metric=metric_said(family),
        unit=family.unit_of(family.decay.metric) if family.decay else "",
        level=str(next((v.level for v in verdicts if is_decisive(v.reading, family)), Level.BLIND)),
        points=points(facts.measured, family),
        believed=estimates(facts.measured, family),
        rows=None if measured is None else measured.rows,
        labels=None if measured is None else measured.labels,
        retrain=ended[-1] if ended else None,
        incident=incident,
        incident_since=decision.since if decision is not None and incident is not None else None,
        notes=tuple(note for note in (late, _stuck(family, order, moment), stands) if note),
    )


def _gravity(row: Row) -> tuple[bool, int, str]:
    return (not row.urgent, STATES.index(row.state), row.model)


def _open_order(facts: ModelFacts) -> Ordered | None:
    if not facts.ordered:
        return None
    newest = facts.ordered[-1]
    ends: tuple[Gated | Failed, ...] = (*facts.gated, *facts.failed)
    closed = {fact.order_key for fact in ends}
    return None if newest.order.key in closed else newest


def _unseen(family: Family, facts: ModelFacts, moment: Moment) -> str | None:
    if not facts.moved or moment.standing:
        return None
    seen = max([facts.moved[-1].at, *(fact.at for fact in facts.decided[-1:])])
    late, cadence = moment.now - seen, family.window.cadence
    if late <= cadence + moment.grace:
        return None
    return f"not judged for {span(late.total_seconds())}, due every {span(cadence.total_seconds())}"


def _epoch(moved: Moved, facts: ModelFacts) -> int:
    """Return the newest epoch, as answers say it: the steps of a rollout take epochs too."""
    return max([moved.head.epoch, *(fact.rollout.epoch for fact in facts.advanced[-1:])])


def _rollout_said(rollout: Rollout) -> str:
    by = f", held by {rollout.held}" if rollout.held is not None else ""
    return f"v{rollout.version} in {rollout.named}{by}"


def _stuck(family: Family, order: Ordered | None, moment: Moment) -> str | None:
    if order is None or moment.standing:
        return None
    taken, limit = moment.wall - moment.clock.wall(order.at), family.retrain.time_limit
    if taken <= limit + PATIENCE:
        return None
    return (
        f"retraining has come to nothing in {span(taken.total_seconds())},"
        f" its limit is {span(limit.total_seconds())}"
    )
