"""Facts into what the pages show, as frozen records. Pure: no clock, no ledger, no HTML."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from dashboards.facts import PAGE_MEASURED, ModelFacts
from driftloop.clock import Clock
from driftloop.loop.notices import NAMES
from driftloop.records import (
    Decided,
    Failed,
    Gated,
    GateResult,
    Head,
    Kind,
    Level,
    Measured,
    ModelId,
    Moved,
    Ordered,
    Paged,
    Stage,
    State,
    Trained,
    Verdict,
)
from driftloop.spec import LOSSES, Family, Fleet

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
LATE = 3
"""A pass is late after this many intervals."""
PATIENCE = timedelta(seconds=120)
"""Wall time beyond a fit's limit after which a retraining has come to nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """When a page is looked at.

    `wall` is the wall clock, `passed` what it showed when a pass last wrote what it measured,
    `watch_every` the wall seconds between passes.
    """

    clock: Clock
    wall: datetime
    passed: datetime | None
    watch_every: float

    @property
    def now(self) -> datetime:
        """The loop's time."""
        return self.clock.at(self.wall)

    @property
    def age(self) -> float | None:
        """Wall seconds since the last pass."""
        return None if self.passed is None else (self.wall - self.passed).total_seconds()


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """The decay metric over one window; `value` is None where it could not be measured.

    `limit` is the value at which the policy alarms; `blind` says that too few labels came for
    the value to be judged.
    """

    at: datetime
    value: float | None
    low: float | None
    high: float | None
    n: int
    baseline: float | None
    limit: float | None
    blind: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of the last retraining: `promoted`, `passed`, `refused` or `failed`."""

    word: str
    at: datetime
    version: int | None
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One model on the fleet page.

    `state` is one of `STATES`; `judged` is the state of its last decision, which a retraining
    under way hides. `notes` say what a person must look at besides.
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
    metric: str
    unit: str
    level: str
    points: tuple[Point, ...]
    rows: int | None
    labels: int | None
    retrain: Outcome | None
    retraining_since: datetime | None
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
class Count:
    """How many models are in a state."""

    state: str
    models: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopView:
    """The loop itself: its clock and its last pass; `speed` is None on the wall clock.

    `last_pass` is in the loop's time, `age` in wall-clock seconds.
    """

    now: datetime
    speed: float | None
    last_pass: datetime | None
    age: float | None
    warning: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetView:
    """The fleet page."""

    loop: LoopView
    counts: tuple[Count, ...]
    urgent: tuple[Row, ...]
    groups: tuple[Group, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One line of a model's timeline; `tone` is bad, busy, good or plain."""

    at: datetime
    what: str
    tone: str
    headline: str
    detail: str = ""
    report: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Marker:
    """A moment to mark on the chart: `page`, `retrain` or `swap`."""

    at: datetime
    what: str
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictLine:
    """One verdict in the table, the worst first."""

    level: str
    kind: str
    metric: str
    column: str
    value: float | None
    low: float | None
    high: float | None
    baseline: float | None
    limit: float | None
    n: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Champion:
    """Who answers, and what it was made of where the ledger still shows it."""

    version: int
    epoch: int
    digest: str
    since: datetime
    trained: Trained | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelView:
    """The page of one model; `cut` says that its past is longer than what is shown."""

    row: Row
    loop: LoopView
    task: str
    owner: str
    mention: str
    champion: Champion | None
    points: tuple[Point, ...]
    markers: tuple[Marker, ...]
    verdicts: tuple[VerdictLine, ...]
    events: tuple[Event, ...]
    cut: bool


def fleet_view(fleet: Fleet, facts: Mapping[ModelId, ModelFacts], moment: Moment) -> FleetView:
    """Return the fleet page; `facts` holds every model of `fleet`."""
    loop = loop_view(
        fleet,
        newest=max((f.measured[-1].at for f in facts.values() if f.measured), default=None),
        served=any(f.moved for f in facts.values()),
        moment=moment,
    )
    groups = tuple(
        Group(
            family=family.name,
            task=str(family.task),
            owner=fleet.owners[family.owner].channel,
            metric=metric_name(family),
            rows=tuple(
                sorted(
                    (row_view(family, m, facts[m], moment, loop=loop) for m in family.models),
                    key=_gravity,
                )
            ),
        )
        for family in fleet.families
    )
    every = [row for group in groups for row in group.rows]
    return FleetView(
        loop=loop,
        counts=tuple(
            Count(state=state, models=sum(row.state == state for row in every)) for state in STATES
        ),
        urgent=tuple(sorted((row for row in every if row.urgent), key=_gravity)),
        groups=groups,
    )


def loop_view(fleet: Fleet, *, newest: datetime | None, served: bool, moment: Moment) -> LoopView:
    """Return the loop's clock and last pass, with a warning where the loop is late.

    A model is measured once in its cadence, so the fleet's `newest` window may be as old as the
    shortest cadence, and `LATE` intervals more. Nothing is due before a model is `served`.
    """
    clock = moment.clock
    age = moment.age
    cadence = min(family.window.cadence for family in fleet.families)
    patience = LATE * moment.watch_every + cadence.total_seconds() / clock.speed
    warning = None
    if age is None and served:
        warning = "The watch has never measured anything: is the worker running?"
    elif age is not None and age > patience:
        warning = (
            f"The last watch pass that measured anything was {span(age)} ago; passes are due every"
            f" {span(moment.watch_every)}. What is below is old: is the worker running?"
        )
    elif newest is not None and newest > moment.now:
        warning = "The ledger holds facts from the loop's future: its clock was set back."
    real = clock.speed == 1.0 and clock.origin == clock.started
    return LoopView(
        now=moment.now,
        speed=None if real else clock.speed,
        last_pass=newest,
        age=age,
        warning=warning,
    )


def row_view(
    family: Family, model: ModelId, facts: ModelFacts, moment: Moment, *, loop: LoopView
) -> Row:
    """Return one model's line; where the whole `loop` is late, the lines do not repeat it."""
    moved = facts.moved[-1] if facts.moved else None
    decision = facts.decided[-1].decision if facts.decided else None
    measured = facts.measured[-1] if facts.measured else None
    order = _open_order(facts)
    judged = None if decision is None else str(decision.state)
    state = judged or UNJUDGED
    if moved is None:
        state = NO_CHAMPION
    if order is not None:
        state = RETRAINING
    decay = None if decision is None else _decay_verdict(decision.verdicts)
    incident = None if decision is None else decision.incident
    return Row(
        model=model,
        family=family.name,
        state=state,
        judged=judged,
        decided_at=None if decision is None else decision.at,
        reason="" if decision is None else decision.reason,
        report=None if decision is None else decision.key,
        version=None if moved is None else moved.head.version,
        epoch=None if moved is None else moved.head.epoch,
        champion_since=None if moved is None else moved.at,
        metric=metric_name(family),
        unit=family.unit if family.decay.metric in {"mae", "rmse"} else "",
        level=str(Level.BLIND if decay is None else decay.level),
        points=points(facts.measured, family),
        rows=None if measured is None else measured.rows,
        labels=None if measured is None else measured.labels,
        retrain=_outcome(facts),
        retraining_since=None if order is None else order.at,
        incident=incident,
        incident_since=decision.since if decision is not None and incident is not None else None,
        notes=tuple(
            note
            for note in (
                None if loop.warning else _unseen(family, facts, moment),
                _stuck(family, order, moment),
            )
            if note
        ),
    )


def model_view(
    fleet: Fleet,
    model: ModelId,
    facts: ModelFacts,
    moment: Moment,
    *,
    newest: datetime | None,
) -> ModelView:
    """Return the page of `model`; `newest` is the fleet's newest window.

    Raises:
        UnknownModel: no monitor declares it.
    """
    family, owner = fleet.family(model), fleet.owner(model)
    loop = loop_view(fleet, newest=newest, served=bool(facts.moved), moment=moment)
    return ModelView(
        row=row_view(family, model, facts, moment, loop=loop),
        loop=loop,
        task=str(family.task),
        owner=owner.channel,
        mention=owner.mention,
        champion=_champion(facts),
        points=points(facts.measured, family),
        markers=markers(facts),
        verdicts=verdict_lines(facts.decided[-1].decision.verdicts if facts.decided else ()),
        events=timeline(facts),
        cut=len(facts.decided) >= PAGE_MEASURED,
    )


def points(measured: Sequence[Measured], family: Family) -> tuple[Point, ...]:
    """Return the decay metric of each window, oldest first, with the value that alarms."""
    return tuple(
        Point(
            at=fact.at,
            value=_finite(reading.value),
            low=_finite(reading.low),
            high=_finite(reading.high),
            n=reading.n,
            baseline=_finite(reading.baseline),
            limit=_alarm_at(_finite(reading.baseline), family),
            blind=reading.value is None or reading.n < family.window.min_labels,
        )
        for fact in measured
        for reading in fact.readings
        if reading.kind is Kind.DECAY
        and reading.column is None
        and reading.metric == family.decay.metric
    )


def markers(facts: ModelFacts) -> tuple[Marker, ...]:
    """Return the moments that explain the chart, oldest first."""
    pages = [
        Marker(at=fact.at, what="page", label=fact.notice.headline)
        for fact in facts.paged
        if fact.notice.stage is Stage.OPENED
    ]
    orders = [
        Marker(at=fact.at, what="retrain", label=f"retraining: {fact.order.reason}")
        for fact in facts.ordered
    ]
    swaps = [
        Marker(at=fact.at, what="swap", label=f"{_moved_what(fact)}: {_answers(fact.head)}")
        for fact in facts.moved
    ]
    return tuple(sorted((*pages, *orders, *swaps), key=lambda marker: marker.at))


def timeline(facts: ModelFacts) -> tuple[Event, ...]:
    """Return what happened to a model, newest first; of like decisions only the first."""
    told = [
        *_changes(facts.decided),
        *(_order_event(fact) for fact in facts.ordered),
        *(_trained_event(fact) for fact in facts.trained),
        *(_gate_event(fact) for fact in facts.gated),
        *(_failed_event(fact) for fact in facts.failed),
        *(_move_event(fact) for fact in facts.moved),
        *(_page_event(fact) for fact in facts.paged),
    ]
    # They stand in the order in which they follow from each other: a stable sort keeps that.
    told.sort(key=lambda event: event.at)
    return tuple(reversed(told))


def verdict_lines(verdicts: Sequence[Verdict]) -> tuple[VerdictLine, ...]:
    """Return the last verdicts, alarms first, then warnings, then what could not be seen."""
    order = {Level.ALARM: 0, Level.WARN: 1, Level.BLIND: 2, Level.OK: 3}
    kinds = {Kind.DECAY: 0, Kind.QUALITY: 1, Kind.DRIFT: 2}
    ranked = sorted(verdicts, key=lambda v: (order[v.level], kinds[v.reading.kind]))
    return tuple(
        VerdictLine(
            level=str(verdict.level),
            kind=str(verdict.reading.kind),
            metric=NAMES.get(verdict.reading.metric, verdict.reading.metric),
            column=verdict.reading.column or "",
            value=_finite(verdict.reading.value),
            low=_finite(verdict.reading.low),
            high=_finite(verdict.reading.high),
            baseline=_finite(verdict.reading.baseline),
            limit=verdict.limit,
            n=verdict.reading.n,
            reason=verdict.reason,
        )
        for verdict in ranked
    )


def metric_name(family: Family) -> str:
    """Return the family's decay metric in words."""
    return NAMES.get(family.decay.metric, family.decay.metric)


def span(seconds: float) -> str:
    """Return a length of time in its largest fitting unit.

    >>> span(4.2), span(90), span(7200), span(1e6)
    ('4 s', '90 s', '2 h', '12 d')
    """
    for unit, size, least in (("d", 86400, 2), ("h", 3600, 2), ("min", 60, 2)):
        if seconds >= least * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


# -- a row's parts --------------------------------------------------------------------------


def _gravity(row: Row) -> tuple[bool, int, str]:
    return (not row.urgent, STATES.index(row.state), row.model)


def _open_order(facts: ModelFacts) -> Ordered | None:
    if not facts.ordered:
        return None
    newest = facts.ordered[-1]
    ends: tuple[Gated | Failed, ...] = (*facts.gated, *facts.failed)
    closed = {fact.order_key for fact in ends}
    return None if newest.order.key in closed else newest


def _outcome(facts: ModelFacts) -> Outcome | None:
    gated = facts.gated[-1] if facts.gated else None
    failed = facts.failed[-1] if facts.failed else None
    # A candidate that passed its gate may still fail to become champion.
    if failed is not None and (gated is None or failed.at >= gated.at):
        return Outcome(word="failed", at=failed.at, version=None, detail=failed.error)
    if gated is None:
        return None
    passed = "promoted" if facts.moved and facts.moved[-1].at >= gated.at else "passed"
    return Outcome(
        word=passed if gated.result.passed else "refused",
        at=gated.at,
        version=gated.version,
        detail=_gain(gated.result) or gated.result.reason,
    )


def _decay_verdict(verdicts: Sequence[Verdict]) -> Verdict | None:
    return next((v for v in verdicts if v.reading.kind is Kind.DECAY), None)


def _alarm_at(baseline: float | None, family: Family) -> float | None:
    if baseline is None:
        return None
    sign = 1.0 if family.decay.metric in LOSSES else -1.0
    return baseline + sign * family.decay.alarm * abs(baseline)


def _unseen(family: Family, facts: ModelFacts, moment: Moment) -> str | None:
    if not facts.moved:
        return None
    marks: tuple[Decided | Moved, ...] = (*facts.decided[-1:], *facts.moved[-1:])
    seen = max(fact.at for fact in marks)
    cadence = family.window.cadence
    late = moment.now - seen
    if late <= cadence + timedelta(seconds=LATE * moment.watch_every * moment.clock.speed):
        return None
    return f"not judged for {span(late.total_seconds())}, due every {span(cadence.total_seconds())}"


def _stuck(family: Family, order: Ordered | None, moment: Moment) -> str | None:
    if order is None:
        return None
    taken, limit = moment.wall - moment.clock.wall(order.at), family.retrain.time_limit
    if taken <= limit + PATIENCE:
        return None
    return (
        f"retraining has come to nothing in {span(taken.total_seconds())},"
        f" its limit is {span(limit.total_seconds())}"
    )


def _champion(facts: ModelFacts) -> Champion | None:
    if not facts.moved:
        return None
    moved = facts.moved[-1]
    made = [fact for fact in facts.trained if fact.version == moved.head.version]
    return Champion(
        version=moved.head.version,
        epoch=moved.head.epoch,
        digest=moved.head.digest,
        since=moved.at,
        trained=made[-1] if made else None,
    )


# -- the timeline ---------------------------------------------------------------------------


def _changes(decided: Sequence[Decided]) -> list[Event]:
    events: list[Event] = []
    # Where the past is cut, whether its first decision was a change cannot be told.
    before = decided[0].decision if len(decided) >= PAGE_MEASURED else None
    for fact in decided:
        now = fact.decision
        same = before is not None and (
            (before.state, before.incident, before.blocked is None)
            == (now.state, now.incident, now.blocked is None)
        )
        if not same or now.retrain:
            events.append(
                Event(
                    at=now.at,
                    what="decision",
                    tone=_tone(now.state),
                    headline=_decided_headline(fact),
                    detail=now.reason,
                    report=now.key,
                )
            )
        before = now
    return events


def _tone(state: State) -> str:
    return {
        State.DATA_FAULT: "bad",
        State.DECAYING: "bad",
        State.DRIFTING: "busy",
        State.FRESH: "good",
    }.get(state, "plain")


def _decided_headline(fact: Decided) -> str:
    decision = fact.decision
    said = [str(decision.state)]
    if decision.opens:
        said.append("opens an incident")
    if decision.resolves is not None:
        said.append("resolves the incident")
    if decision.retrain:
        said.append("asks for a retraining")
    elif decision.blocked is not None:
        said.append("no retraining")
    return ", ".join(said)


def _page_event(fact: Paged) -> Event:
    notice = fact.notice
    return Event(
        at=fact.at,
        what="page" if notice.stage is Stage.OPENED else "told",
        tone="bad" if notice.stage is Stage.OPENED else "plain",
        headline=notice.headline,
        detail=f"{notice.stage}, told in {notice.channel}. {notice.doing}",
    )


def _order_event(fact: Ordered) -> Event:
    window = fact.order.window
    return Event(
        at=fact.at,
        what="retrain",
        tone="busy",
        headline=f"retraining on {window.start:%Y-%m-%d} to {fact.order.holdout_from:%Y-%m-%d}",
        detail=fact.order.reason,
    )


def _trained_event(fact: Trained) -> Event:
    made = fact.candidate
    figures = ", ".join(f"{NAMES.get(m.name, m.name)} {m.value:.4g}" for m in made.metrics)
    return Event(
        at=fact.at,
        what="trained",
        tone="plain",
        headline=f"version {fact.version} trained on {made.rows:,} rows",
        detail=(
            f"{figures} on {made.holdout_rows:,} held-out rows; fitted in {made.fit_seconds:.1f} s,"
            f" lowered in {made.lower_seconds:.1f} s, parity {made.parity:.1e}"
        ),
    )


def _gate_event(fact: Gated) -> Event:
    passed, gain = fact.result.passed, _gain(fact.result)
    said = f"version {fact.version} {'passed the gate' if passed else 'was refused'}"
    return Event(
        at=fact.at,
        what="gate",
        tone="good" if passed else "bad",
        headline=f"{said}: {gain}" if gain else said,
        detail=fact.result.reason,
    )


def _gain(result: GateResult) -> str:
    if result.gain is None:
        return ""
    interval = (
        f" ({result.low:+.1%} to {result.high:+.1%})"
        if result.low is not None and result.high is not None
        else ""
    )
    return f"{result.loss} gain {result.gain:+.1%}{interval}, n={result.n:,}"


def _failed_event(fact: Failed) -> Event:
    return Event(
        at=fact.at, what="failed", tone="bad", headline="no candidate came of it", detail=fact.error
    )


def _move_event(fact: Moved) -> Event:
    return Event(
        at=fact.at,
        what=_moved_what(fact),
        tone="good" if _moved_what(fact) == "swap" else "busy",
        headline=(
            _answers(fact.head)
            if fact.previous is None
            else f"{_answers(fact.head)}, version {fact.previous} did before"
        ),
        detail=fact.reason,
    )


def _moved_what(fact: Moved) -> str:
    back = fact.previous is not None and fact.head.version < fact.previous
    return "rollback" if back or fact.reason.startswith("rolled back") else "swap"


def _answers(head: Head) -> str:
    return f"version {head.version} answers (epoch {head.epoch})"


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
