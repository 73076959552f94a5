"""When a model is retrained, and what forbids it. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from driftloop.judge.cost import balance, in_vain
from driftloop.records import ModelHistory, Reading, State
from driftloop.spec import Family

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MOMENT = timedelta(minutes=1)
AT_FAULT = "the data is at fault: retraining waits until it is right"
MOST_DOUBLED = 3
ALARMED = (State.DATA_FAULT, State.DECAYING)
"""States that open an incident: harm, or data that cannot be trusted.

Of scores DRIFTING does too: no label would ever show the harm, and nothing else could page.
"""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a look at a model comes to, and why."""

    state: State
    why: str


def wish(
    seen: Seen,
    alarms: int,
    readings: Sequence[Reading],
    history: ModelHistory,
    family: Family,
    now: datetime,
) -> str | None:
    """Return why the model is to be retrained, None if it is not."""
    return next(_wishes(seen, alarms, readings, history, family, now), None)


def blocked(seen: Seen, history: ModelHistory, family: Family, now: datetime) -> str | None:
    """Return what forbids a retraining that is wished for, None if nothing does."""
    if seen.state is State.DATA_FAULT:
        return AT_FAULT
    # An order counts from its decision on: it may wait for its turn without being ordered again.
    champion = history.champion.candidate if history.champion is not None else None
    # To find what answers already took no training, nor did what failed before it was found.
    found_at = champion.order.at if champion is not None and champion.found else EPOCH
    ordered = [order.at for order in history.orders if order.at > found_at]
    ordered += [decision.at for decision in history.decisions if decision.retrain]
    last = max(ordered, default=None)
    vain = in_vain(history)
    pause = max(family.retrain.cooldown, _fresh(family, vain))
    if last is not None and now - last < _almost(pause, family):
        until = last + pause
        orders = "order" if vain == 1 else "orders"
        why = f" after {vain} {orders} in vain" if pause > family.retrain.cooldown else ""
        return f"cooling down until {until:%Y-%m-%d %H:%M} UTC{why}"
    return None


def nearly(span: timedelta, family: Family) -> timedelta:
    """Return by how much a pass may come too early: no reason to wait for another one."""
    return min(span / 10, family.window.cadence / 10, MOMENT)


def _wishes(
    seen: Seen,
    alarms: int,
    readings: Sequence[Reading],
    history: ModelHistory,
    family: Family,
    now: datetime,
) -> Iterator[str]:
    policy = family.retrain
    harmed = alarms >= family.hysteresis.open_after and seen.state in ALARMED
    if policy.due_to("harm", "decay") and harmed:
        yield "decay"
    if policy.due_to("cost"):
        found = balance(readings, history, family)
        if found is not None and found.pays:
            yield f"cost: {found}"
    if policy.due_to("drift") and seen.state is State.DRIFTING:
        yield "drift"
    if history.champion is None:
        return
    trained = history.champion.candidate.order.window.end
    if policy.due_to("age") and now - trained >= _almost(policy.max_age, family):
        yield f"its champion was trained {(now - trained).days} days ago"
    last = max([trained, *(order.at for order in history.orders)])
    every = policy.every
    if policy.due_to("schedule") and every is not None and now - last >= _almost(every, family):
        yield f"its schedule: {_length(now - last)} since the last time"


def _fresh(family: Family, vain: int) -> timedelta:
    """Return how long rows are gathered that no attempt has used: twice as long after each in vain.

    On the rows of the last attempts the gate would only have to be surer.
    """
    return family.gate.holdout * 2 ** min(vain - 1, MOST_DOUBLED) if vain else timedelta()


def _almost(span: timedelta, family: Family) -> timedelta:
    return span - nearly(span, family)


def _length(span: timedelta) -> str:
    hours = span.total_seconds() / 3600
    return f"{hours:.0f} hours" if hours < 48 else f"{hours / 24:.0f} days"  # noqa: PLR2004 - two days
