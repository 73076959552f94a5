"""Which renewals a pass starts, where all of them would cost more than may be spent. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from driftloop.records import ModelId, Order, Ordered, Trained
from driftloop.spec import Fleet

DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A renewal that is asked for, what it may gain, and what it is likely to cost.

    `gain` is the share by which the model's error has grown, `seconds` what its last fits took.
    """

    order: Order
    gain: float
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Cap:
    """How long the fits of some `models` may take in 24 hours, and have taken, in seconds.

    `named` is whose they are, in words.
    """

    named: str
    models: frozenset[ModelId]
    seconds: float
    spent: float = 0.0


def afforded(
    asks: Sequence[Ask], budget: float | None, caps: Sequence[Cap] = ()
) -> tuple[tuple[Ask, ...], dict[str, str]]:
    """Return the renewals to start now, and by the orders' keys why the others wait.

    Whatever gains most goes first, and always: one that costs more than the budget, or a cap of
    which nothing is spent, is not put off for ever. A smaller one is not let past one that waits
    for the same.

    Args:
        asks: in any order.
        budget: seconds of fitting that one pass may start; None for no limit.
        caps: of the last 24 hours; a renewal counts in each that has its model.
    """
    ranked = sorted(asks, key=lambda ask: (-ask.gain, ask.order.at, ask.order.key))
    started: list[Ask] = []
    waits: dict[str, str] = {}
    spent, full = 0.0, ""
    used = [cap.spent for cap in caps]
    shut: set[int] = set()
    for ask in ranked:
        mine = [place for place, cap in enumerate(caps) if ask.order.model in cap.models]
        over = [p for p in mine if used[p] and used[p] + ask.seconds > caps[p].seconds]
        held = next((place for place in mine if place in shut or place in over), None)
        if full:
            waits[ask.order.key] = full
        elif held is not None:
            # Of what is left of the day it is the next.
            shut.add(held)
            waits[ask.order.key] = _capped(caps[held], used[held], ask)
        elif budget is not None and started and spent + ask.seconds > budget:
            full = (
                f"the fits of {len(started)} that gain more take {spent:.0f} of {budget:g} s a pass"
            )
            waits[ask.order.key] = full
        else:
            started.append(ask)
            spent += ask.seconds
            for place in mine:
                used[place] += ask.seconds
    return tuple(started), waits


def caps_of(
    fleet: Fleet,
    trained: Sequence[Trained],
    under_way: Sequence[tuple[Ordered, float]] = (),
) -> tuple[Cap, ...]:
    """Return the caps that the monitor files set, with what of each is spent.

    Args:
        fleet: of which a family, or `platform.toml`, may say `compute_per_day`.
        trained: what was trained within the last 24 hours.
        under_way: orders that were begun within them and came to no end yet, and the seconds that
            their fits are likely to take.
    """
    limits = [
        (f"the family {family.name}", frozenset(family.models), family.retrain.compute_per_day)
        for family in fleet.families
    ]
    everybody = frozenset((*fleet.models, *fleet.left_out))
    limits.append(("the fleet", everybody, fleet.platform.compute_per_day))
    return tuple(
        Cap(
            named=named,
            models=models,
            seconds=limit.total_seconds(),
            spent=sum(each.fit_seconds for each in trained if each.model in models)
            + sum(seconds for each, seconds in under_way if each.model in models),
        )
        for named, models, limit in limits
        if limit is not None
    )


def _capped(cap: Cap, used: float, ask: Ask) -> str:
    return (
        f"the fits of {cap.named} took {used:.0f} of {cap.seconds:.0f} s in 24 hours,"
        f" and this may take {ask.seconds:.0f}"
    )
