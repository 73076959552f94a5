"""What a cause means for a decision, and which models share one. Pure."""

from collections.abc import Sequence
from dataclasses import replace

from driftloop.judge.retraining import AT_FAULT
from driftloop.records import Cause, Decision, Explained, ModelId, Origin, State
from driftloop.spec import Fleet

EXPLAINED = (State.DECAYING, State.DRIFTING)
"""States that have a cause that can be other than the data."""


def explains(decision: Decision, before: Decision | None) -> bool:
    """Return whether a decision calls for its cause: what it does may depend on it.

    That is where it opens an incident, asks for a retraining, has evidence that is newly sure, or
    is not the state that an open incident was in before.
    """
    if decision.opens or decision.retrain:
        return True
    newly = set(decision.found) - set(before.found if before is not None else ())
    turned = before is not None and before.state is not decision.state
    return bool(newly) or (turned and decision.incident is not None and decision.state in EXPLAINED)


def heeded(decision: Decision, cause: Cause) -> Decision:
    """Return what is left of a decision once its cause is known.

    Where the data is wrong, nothing is trained on it, whatever limits of quality say: what is
    DECAYING or DRIFTING is a DATA_FAULT then. Any other cause changes nothing.
    """
    if cause.origin is not Origin.DATA or decision.state is State.DATA_FAULT:
        return decision
    state = State.DATA_FAULT if decision.state in EXPLAINED else decision.state
    if state is decision.state and not decision.retrain:
        return decision
    blocked = decision.blocked or (AT_FAULT if decision.retrain else None)
    ending = f"; no retraining, {blocked}" if blocked else ""
    return replace(
        decision,
        state=state,
        reason=f"{state}: {cause.said}{ending}",
        retrain=False,
        blocked=blocked,
    )


def upstream(fleet: Fleet, model: ModelId, name: str) -> str:
    """Return what a column comes from: the source it is looked up in, or itself by its name.

    Columns of one name count as one over all families. What is computed comes from what it is
    computed of, where that is a single column.
    """
    column = name.split(".", maxsplit=1)[0].split("=", maxsplit=1)[0]
    features = fleet.family(model).features
    feature = features.get(column)
    while feature is not None and len(feature.needs) == 1:
        (column,) = feature.needs
        feature = features.get(column)
    if feature is not None and feature.source is not None:
        return f"source {feature.source}"
    return column


def sharing(facts: Sequence[Explained], fleet: Fleet) -> tuple[Explained, ...]:
    """Return `facts` with the models that share each cause: its origin, and the same place.

    The place is the source or column (see `upstream`) of the first carrier. A cause that is not
    known, or without a carrier, is shared with none.
    """
    places = [_place(fact, fleet) for fact in facts]
    by_place: dict[tuple[Origin, str], list[ModelId]] = {}
    for fact, place in zip(facts, places, strict=True):
        if place is not None and fact.model not in by_place.setdefault(place, []):
            by_place[place].append(fact.model)
    return tuple(
        fact
        if place is None
        else replace(
            fact,
            cause=replace(
                fact.cause,
                shared=tuple(model for model in by_place[place] if model != fact.model),
            ),
        )
        for fact, place in zip(facts, places, strict=True)
    )


def _place(fact: Explained, fleet: Fleet) -> tuple[Origin, str] | None:
    cause = fact.cause
    if cause.origin is Origin.UNKNOWN or not cause.carriers:
        return None
    return cause.origin, upstream(fleet, fact.model, cause.carriers[0].name)
