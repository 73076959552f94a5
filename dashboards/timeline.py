"""What happened to a model, as a person retells it. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from dashboards.facts import PAGE_MEASURED, ModelFacts
from dashboards.words import gain, why
from driftloop.records import (
    Advanced,
    Candidate,
    Decided,
    Decision,
    Explained,
    Failed,
    Gated,
    Moved,
    Notice,
    Order,
    Origin,
    Paged,
    Phase,
    Rollout,
    Stage,
    State,
    metric_name,
)
from driftloop.trace import in_words

TONES = {
    State.DATA_FAULT: "bad",
    State.DECAYING: "bad",
    State.DRIFTING: "busy",
    State.FRESH: "good",
}
OUTCOMES = {
    "retraining": "busy",
    "passed": "busy",
    "promoted": "good",
    "refused": "warn",
    "rolled back": "warn",
    "failed": "bad",
}
"""What may come of a retraining, and its tone."""
_ORIGINS = {
    Origin.DATA: "the data is wrong",
    Origin.INPUTS: "the inputs have changed",
    Origin.RELATION: "the relation to the inputs has changed",
    Origin.UNKNOWN: "the cause is not known",
}
TOLD = "told"
FIGURES = 4
"""So many metrics of a candidate are told; MLflow has them all."""
_OF_NO_ORDER = {
    Stage.OPENED: "bad",
    Stage.WORSENED: "bad",
    Stage.BLOCKED: "bad",
    Stage.RECOVERED: "good",
    Stage.QUARANTINED: "bad",
    Stage.RELEASED: "good",
    Stage.DOUBTED: "warn",
}
"""The stages that are told of an incident and not of a retraining, and their tone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of a retraining."""

    at: datetime
    what: str
    said: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One line of a timeline; `tone` is bad, warn, busy, good or plain."""

    at: datetime
    what: str
    tone: str
    headline: str
    detail: str = ""
    report: str | None = None
    steps: tuple[Step, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Marker:
    """A moment to mark on the chart: `page`, `retrain` or `swap`."""

    at: datetime
    what: str
    label: str


def timeline(facts: ModelFacts) -> tuple[Event, ...]:
    """Return what happened to a model, newest first.

    Of like decisions only the first is told, and a retraining is one event, at its last step.
    """
    told = [
        *_changes(facts.decided),
        *retrainings(facts),
        *(_moved(fact) for fact in facts.moved if not _order_of(fact, facts.gated)),
        *map(_advanced, facts.advanced),
        *map(_explained, facts.explained),
        *(_paged(fact) for fact in facts.paged if not _order_told(fact.notice)),
    ]
    # They stand in the order in which they follow from each other: a stable sort keeps that.
    told.sort(key=lambda event: event.at)
    return tuple(reversed(told))


def retrainings(facts: ModelFacts) -> tuple[Event, ...]:
    """Return one event for each order, oldest first; `what` is one of `OUTCOMES`."""
    steps: dict[str, list[Step]] = {}
    for order, step in (*_steps(facts), *_taken_back(facts)):
        steps.setdefault(order, []).append(step)
    gates = {fact.order_key: fact for fact in facts.gated}
    failures = {fact.order_key: fact for fact in facts.failed}
    told = [
        _retraining(
            taken, gates.get(order), failures.get(order), facts.moved, _went_back(facts, order)
        )
        for order, taken in steps.items()
        if any(step.what != TOLD for step in taken)
    ]
    return tuple(sorted(told, key=lambda event: event.at))


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
        Marker(at=fact.at, what="swap", label=f"{_moved_what(fact)}: {_answers(fact)}")
        for fact in facts.moved
    ]
    return tuple(sorted((*pages, *orders, *swaps), key=lambda marker: marker.at))


# -- decisions ------------------------------------------------------------------------------


def _changes(decided: Sequence[Decided]) -> Iterator[Event]:
    # Where the past is cut, whether its first decision was a change cannot be told.
    before = decided[0].decision if len(decided) >= PAGE_MEASURED else None
    for fact in decided:
        now = fact.decision
        if before is None or _kind(before) != _kind(now) or now.retrain:
            yield Event(
                at=now.at,
                what="decision",
                tone=TONES.get(now.state, "plain"),
                headline=_decided(now),
                detail=why(now),
                report=now.key,
            )
        before = now


def _kind(decision: Decision) -> tuple[State, str | None, bool]:
    return decision.state, decision.incident, decision.blocked is None


def _decided(decision: Decision) -> str:
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


# -- retrainings ----------------------------------------------------------------------------


def _retraining(
    steps: Sequence[Step],
    gate: Gated | None,
    failure: Failed | None,
    moved: Sequence[Moved],
    back: Rollout | None,
) -> Event:
    what = _outcome(gate, failure, moved) if back is None else "rolled back"
    named = "" if gate is None else f"version {gate.version}"
    if failure is not None:
        headline = f"{named} did not become champion" if named else "no candidate came of it"
        detail = failure.error
    elif gate is not None:
        headline, detail = f"{named}{gain(gate.result)}", gate.result.reason
        if back is not None:
            headline, detail = f"{named}: {back.reason}", f"the gate passed it: {detail}"
    else:
        headline, detail = "under way", steps[0].said
    return Event(
        # A message may be told late: it does not say when the retraining was over.
        at=max(step.at for step in steps if step.what != TOLD),
        what=what,
        tone=OUTCOMES[what],
        headline=headline,
        detail=detail,
        steps=tuple(sorted(steps, key=lambda step: step.at)),
    )


def _outcome(gate: Gated | None, failure: Failed | None, moved: Sequence[Moved]) -> str:
    # A candidate that passed its gate may still fail to become champion.
    if failure is not None:
        return "failed"
    if gate is None:
        return "retraining"
    if not gate.result.passed:
        return "refused"
    answered = any(f.at >= gate.at and f.head.version == gate.version for f in moved)
    return "promoted" if answered else "passed"


def _went_back(facts: ModelFacts, order: str) -> Rollout | None:
    """Return the rollout of an order's candidate if it has gone back, or is about to."""
    mine = [fact.rollout for fact in facts.advanced if fact.rollout.order == order]
    gone = {Phase.ROLLING_BACK, Phase.ROLLED_BACK}
    return mine[-1] if mine and mine[-1].phase in gone else None


def _steps(facts: ModelFacts) -> Iterator[tuple[str, Step]]:
    for begun in facts.ordered:
        yield begun.order.key, Step(at=begun.at, what="ordered", said=_ordered(begun.order))
    for made in facts.trained:
        order = made.candidate.order.key
        what = "found" if made.candidate.found else "trained"
        yield order, Step(at=made.at, what=what, said=_trained(made.candidate))
    for gate in facts.gated:
        said = "passed" if gate.result.passed else "refused"
        yield gate.order_key, Step(at=gate.at, what="gate", said=said)
    for failure in facts.failed:
        yield failure.order_key, Step(at=failure.at, what="failed", said=failure.error)
    for moved in facts.moved:
        if order := _order_of(moved, facts.gated):
            yield order, Step(at=moved.at, what="swap", said=_answers(moved))
    for paged in facts.paged:
        if order := _order_told(paged.notice):
            said = f"{paged.notice.stage}, in {paged.notice.channel}"
            yield order, Step(at=paged.at, what=TOLD, said=said)


def _taken_back(facts: ModelFacts) -> Iterator[tuple[str, Step]]:
    gated = {fact.order_key for fact in facts.gated}
    for fact in facts.advanced:
        rollout = fact.rollout
        if rollout.phase is Phase.ROLLED_BACK and rollout.order in gated:
            yield rollout.order, Step(at=fact.at, what="rollout", said=rollout.reason)


def _ordered(order: Order) -> str:
    rows = f"rows of {order.window.start:%Y-%m-%d} to {order.holdout_from:%Y-%m-%d}"
    return f"{rows}; {order.reason}"


def _trained(made: Candidate) -> str:
    shown = made.metrics[:FIGURES]
    figures = ", ".join(f"{metric_name(m.name)} {m.value:.4g}" for m in shown)
    said = f"{made.rows:,} rows"
    if figures:
        said += f"; {figures} on {made.holdout_rows:,} held-out rows"
    if made.found:
        return f"{said}; it answered already, where it is served"
    return (
        f"{said}; fitted in {made.fit_seconds:.1f} s, lowered in {made.lower_seconds:.1f} s,"
        f" parity {made.parity:.1e}"
    )


def _order_of(moved: Moved, gated: Sequence[Gated]) -> str:
    if _moved_what(moved) == "rollback":
        return ""
    version = moved.head.version
    return next((g.order_key for g in gated if g.result.passed and g.version == version), "")


def _order_told(notice: Notice) -> str:
    if notice.stage in _OF_NO_ORDER:
        return ""
    return notice.key.removeprefix(f"{notice.incident}/{notice.stage}/")


# -- champions and pages --------------------------------------------------------------------


def _moved(fact: Moved) -> Event:
    what = _moved_what(fact)
    return Event(
        at=fact.at,
        what=what,
        tone="good" if what == "swap" else "busy",
        headline=_answers(fact),
        detail=fact.reason,
    )


def _advanced(fact: Advanced) -> Event:
    rollout = fact.rollout
    back = rollout.phase in {Phase.ROLLING_BACK, Phase.ROLLED_BACK, Phase.STUCK}
    by = f", held by {rollout.held}" if rollout.held is not None else ""
    return Event(
        at=fact.at,
        what="rollout",
        tone="bad" if back else "good" if rollout.phase is Phase.CHAMPION else "busy",
        headline=f"version {rollout.version}: {rollout.named}{by} (epoch {rollout.epoch})",
        detail="; ".join([rollout.reason, *(each.said for each in fact.findings)]),
    )


def _explained(fact: Explained) -> Event:
    return Event(
        at=fact.at,
        what="cause",
        tone="bad" if fact.cause.origin is Origin.DATA else "plain",
        headline=_ORIGINS[fact.cause.origin],
        detail=in_words(fact.cause),
    )


def _moved_what(fact: Moved) -> str:
    back = fact.previous is not None and fact.head.version < fact.previous
    return "rollback" if back or fact.reason.startswith("rolled back") else "swap"


def _answers(fact: Moved) -> str:
    now = f"version {fact.head.version} answers (epoch {fact.head.epoch})"
    return now if fact.previous is None else f"{now}, version {fact.previous} did before"


def _paged(fact: Paged) -> Event:
    notice = fact.notice
    opened = notice.stage is Stage.OPENED
    return Event(
        at=fact.at,
        what="page" if opened else str(notice.stage),
        tone=_OF_NO_ORDER.get(notice.stage, "plain"),
        headline=notice.headline,
        detail=f"told in {notice.channel}: {notice.doing}",
    )
