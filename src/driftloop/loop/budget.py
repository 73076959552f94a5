"""Which renewals a pass starts, where all of them would cost more than it may spend. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from driftloop.records import Order


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A renewal that is asked for, what it may gain, and what it is likely to cost.

    `gain` is the share by which the model's error has grown, `seconds` what its last fit took.
    """

    order: Order
    gain: float
    seconds: float


def afforded(asks: Sequence[Ask], budget: float | None) -> tuple[tuple[Ask, ...], dict[str, str]]:
    """Return the renewals to start now, and by the orders' keys why the others wait.

    Whatever gains most goes first, and always: one that costs more than the budget is not put off
    for ever. A smaller one is not let past one that waits.

    Args:
        asks: in any order.
        budget: seconds of fitting; None for no limit.
    """
    ranked = sorted(asks, key=lambda ask: (-ask.gain, ask.order.at, ask.order.key))
    if budget is None:
        return tuple(ranked), {}
    spent = 0.0
    for place, ask in enumerate(ranked):
        if place and spent + ask.seconds > budget:
            why = f"the fits of {place} that gain more take {spent:.0f} of {budget:g} s a pass"
            return tuple(ranked[:place]), {each.order.key: why for each in ranked[place:]}
        spent += ask.seconds
    return tuple(ranked), {}
