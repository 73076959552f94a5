"""When a model is retrained, and what forbids it. Pure."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from driftloop.records import ModelHistory, State
from driftloop.spec import Family

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MOMENT = timedelta(minutes=1)
AT_FAULT = "the data is at fault: retraining waits until it is right"
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
    seen: Seen, alarms: int, history: ModelHistory, family: Family, now: datetime
) -> str | None:
    """Return why the model is to be retrained, None if it is not."""
    triggers = family.retrain.triggers
    if "decay" in triggers and alarms >= family.hysteresis.open_after and seen.state in ALARMED:
        return "decay"
    if "drift" in triggers and seen.state is State.DRIFTING:
        return "drift"
    trained = history.champion.candidate.order.window.end if history.champion else None
    most = family.retrain.max_age - nearly(family.retrain.max_age, family)
    if "age" in triggers and trained is not None and now - trained >= most:
        return f"its champion was trained {(now - trained).days} days ago"
    return None


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
    cooldown = family.retrain.cooldown
    if last is not None and now - last < cooldown - nearly(cooldown, family):
        until = last + cooldown
        return f"cooling down until {until:%Y-%m-%d %H:%M} UTC"
    return None


def nearly(span: timedelta, family: Family) -> timedelta:
    """Return by how much a pass may come too early: no reason to wait for another one."""
    return min(span / 10, family.window.cadence / 10, MOMENT)
