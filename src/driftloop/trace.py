"""From a prediction to the decision, the page and the version that came of it, in steps. Pure.

One id leads through: the key of a decision is that of its order, its flow run, its candidate in
MLflow and its log lines; the page carries the key of the decision that opened the incident.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from driftloop.incident.lines import acted_on
from driftloop.records import (
    Acted,
    Advanced,
    Cause,
    Decided,
    Decision,
    Explained,
    Fact,
    Failed,
    Gated,
    Measured,
    Moved,
    Ordered,
    Paged,
    Quarantined,
    Relayed,
    Released,
    Trained,
)

NAMED = 5
"""So many models that share a cause are named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One thing that happened, in the loop's time; `trace` is the key that it belongs to."""

    at: datetime
    what: str
    said: str
    trace: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Logged:
    """A prediction as the log has it; that of a class is its name."""

    id: str
    model: str
    version: int
    event_time: datetime
    predicted_at: datetime
    prediction: float | str | None


def steps(facts: Iterable[Fact]) -> tuple[Step, ...]:
    """Return a step for each fact, in the order given; readings are the decision's business."""
    return tuple(step for fact in facts if (step := _step(fact)) is not None)


def in_order(found: Iterable[Step]) -> tuple[Step, ...]:
    """Return each step once, by time; what happened at one moment stays in the order given."""
    return tuple(sorted(dict.fromkeys(found), key=lambda step: step.at))


def predicted(row: Logged) -> Step:
    """Return that a row was answered."""
    answer = "history, before driftloop" if row.prediction is None else _said(row.prediction)
    said = f"{row.id} by {row.model} version {row.version}: {answer}"
    return Step(at=row.predicted_at, what="predicted", said=said)


def labelled(
    id_: str, model: str, labels: Sequence[tuple[datetime, float | str]], *, asked: bool
) -> tuple[Step, ...]:
    """Return that labels of one prediction came, oldest first: the last of them counts.

    `asked` is whether that prediction is in the log: it may be yet to come, or never will.
    """
    unmatched = "" if asked else ", and no prediction with that id has come"
    newest = f", which counts{unmatched}" if len(labels) > 1 else unmatched
    endings = [", corrected later" for _ in labels[1:]] + [newest]
    return tuple(
        Step(at=at, what="labelled", said=f"{id_} of {model}: {_said(value)}{ending}")
        for (at, value), ending in zip(labels, endings, strict=True)
    )


def that_judged(row: Logged, decisions: Sequence[Decision]) -> tuple[Decision, ...]:
    """Return the decisions worth following of those whose window held `row`.

    Of the many windows that a row is in: the first, and those that opened an incident or asked
    for a retraining.
    """
    held = [
        decision
        for decision in decisions
        if decision.window.start <= row.event_time < decision.window.end
        and decision.window.known_at >= row.predicted_at
        and decision.version == row.version
    ]
    return tuple(
        decision
        for number, decision in enumerate(held)
        if number == 0 or decision.opens or decision.retrain
    )


def _step(fact: Fact) -> Step | None:  # noqa: C901, PLR0911, PLR0912 - one for each kind
    match fact:
        case Decided(decision=decision):
            opened = " (opens an incident)" if decision.opens else ""
            return _made(fact, "decided", decision.reason + opened, decision.key)
        case Explained(cause=cause):
            return _made(fact, "cause", in_words(cause), fact.decision)
        case Paged(notice=notice, receipt=receipt):
            said = f"{notice.headline} ({notice.channel}, message {receipt.ts})"
            return _made(fact, f"told: {notice.stage}", said, notice.incident)
        case Ordered(order=order):
            rows = sum(span.rows for span in order.window.left_out)
            without = f"; without {rows} rows in quarantine" if rows else ""
            return _made(fact, "retraining", order.reason + without, order.key)
        case Quarantined(start=start, end=end):
            by = f" by {fact.who}" if fact.who is not None else ""
            said = (
                f"{fact.rows} rows of {start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} train nothing"
                f" until {fact.until:%Y-%m-%d %H:%M}{by}: {'; '.join(fact.reasons)}"
            )
            return _made(fact, "quarantined", said, None)
        case Released(start=start, end=end):
            said = (
                f"rows of {start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} train again, by"
                f" {fact.who}: {fact.why}"
            )
            return _made(fact, "released", said, None)
        case Trained(version=version, candidate=candidate):
            if candidate.found:
                what, on = "found answering", f"taken over with {candidate.rows} rows of its log"
            else:
                what, on = "trained", f"on {candidate.rows} rows"
            said = f"version {version}, {on}, digest {candidate.digest[:12]}"
            return _made(fact, what, said, candidate.order.key)
        case Gated(version=version, result=result):
            what = "let through" if result.passed else "refused"
            return _made(fact, what, f"version {version}: {result.reason}", fact.order_key)
        case Failed(error=error):
            return _made(fact, "failed", error, fact.order_key)
        case Advanced(rollout=rollout):
            by = f", held by {rollout.held}" if rollout.held else ""
            said = f"version {rollout.version}: {rollout.reason}{by} (epoch {rollout.epoch})"
            return _made(fact, f"rollout: {rollout.named}", said, rollout.order)
        case Acted():
            return _made(fact, "somebody acted", acted_on(fact), fact.incident)
        case Relayed(way=way, to=to, why=why):
            return _made(fact, "told another way", f"by {way} to {to}: {why}", fact.incident)
        case Moved(head=head):
            said = f"version {head.version} answers from epoch {head.epoch} on"
            return _made(fact, "champion", said, None)
        case Measured():
            return None
    return None


def in_words(cause: Cause) -> str:
    """Return a cause in one line, with the models that share it."""
    others = len(cause.shared)
    if not others:
        return cause.said
    named = ", ".join(cause.shared[:NAMED]) + (", ..." if others > NAMED else "")
    return f"{cause.said}; the same in {others} other model{'s' if others > 1 else ''} ({named})"


def _said(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.6g}"


def _made(fact: Fact, what: str, said: str, trace: str | None) -> Step:
    return Step(at=fact.at, what=what, said=f"{fact.model}: {said}", trace=trace)
