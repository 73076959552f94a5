"""How many false pages a week each model may make, so that the whole keeps to its budget. Pure.

What is stated more closely wins: of a model (`[budget] markets`) before its family's
(`[budget] false_pages_per_week`) before the fleet's (`platform.toml`). What is stated is taken out
of the larger, and the rest shared equally; so all three hold at once. Models that cannot page now
leave theirs to the others that share with them, and never beyond: a family's budget holds however
many of another's are silent.

This bounds the expected number of false pages, anywhere and for ever. Control of the share of
false pages among all, with a memory that decays (Rebjock, Kurt, Januschowski and Callot 2021,
"Online false discovery rate control for anomaly detection in time series"), is weaker: it lets the
number of false pages grow with that of true ones, needs p-values of separate tests where evidence
here adds up from look to look, and on a fleet where nothing is wrong it comes to the same. So it
is left out.

People have the last word on whether a page was false. Where those of a pool found more of its pages
to be no problem, in the last four weeks, than four weeks of its budget are, its evidence promises
too much there: what its models may make is cut down in the same measure, so that it takes as much
more evidence to page, until the four weeks are over.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from driftloop.judge.verdicts import LOOKED
from driftloop.records import Act, Acted, ModelHistory, ModelId
from driftloop.spec import Family, Fleet

WEEK = timedelta(weeks=1)
COUNTED = 4 * WEEK
"""For so long a page counts that somebody found to be no problem."""


@dataclass(frozen=True, slots=True)
class Pool:
    """Models that share so many false pages a week."""

    models: tuple[ModelId, ...]
    pages: float


def pools(fleet: Fleet) -> tuple[Pool, ...]:
    """Return who shares which part of the budget; each model is in one of them."""
    found: list[Pool] = []
    left = fleet.platform.false_pages_per_week
    common: list[ModelId] = []
    for family in fleet.families:
        stated, others = _stated(family)
        found += (Pool((model,), pages) for model, pages in stated.items())
        whole = family.budget.false_pages_per_week
        if whole is None:
            left -= sum(stated.values())
            common += others
            continue
        left -= whole
        if others:
            found.append(Pool(others, max(whole - sum(stated.values()), 0.0)))
    if common:
        found.append(Pool(tuple(common), max(left, 0.0)))
    return tuple(found)


def rates(
    fleet: Fleet, able: Collection[ModelId], denied: Collection[Collection[ModelId]] = ()
) -> dict[ModelId, float]:
    """Return the false pages a week that each model may make at this pass.

    Args:
        fleet: whose budget it is.
        able: the models that can page now; see `can_page`. The others are given what they would
            have if all could, for their state alone.
        denied: the models of each page that people found to be no problem; see `denied_pages`.
    """
    found: dict[ModelId, float] = {}
    for pool in pools(fleet):
        pages = pool.pages * trusted(pool, denied)
        ready = [model for model in pool.models if model in able]
        for model in pool.models:
            found[model] = pages / len(pool.models)
        for model in ready:
            found[model] = pages / len(ready)
    return found


def trusted(pool: Pool, denied: Collection[Collection[ModelId]]) -> float:
    """Return the part of its budget that a pool has left: 1 unless too many pages were denied.

    >>> pool = Pool((ModelId("eta-de"), ModelId("eta-fr")), 0.5)
    >>> trusted(pool, [["eta-de"], ["eta-fr"]]), trusted(pool, [["eta-de", "eta-fr"]] * 8)
    (1.0, 0.25)
    """
    pages = sum(any(model in pool.models for model in each) for each in denied)
    return min(pool.pages * (COUNTED / WEEK) / pages, 1.0) if pages else 1.0


def denied_pages(acts: Iterable[Acted], now: datetime) -> tuple[tuple[ModelId, ...], ...]:
    """Return the models of each page that counts as denied at `now`, each page once."""
    since = now - COUNTED
    told = (each for each in acts if each.act is Act.NO_PROBLEM and since < each.at <= now)
    return tuple({each.incident: each.models for each in told}.values())


def spending(fleet: Fleet, family: Family, denied: Collection[Collection[ModelId]] = ()) -> str:
    """Return in words how many false pages a week a family may make, and each of its models."""
    if not family.budget.page_on:
        return "pages on nothing"
    each = rates(fleet, fleet.models, denied)
    mine = {model: each[model] for model in family.models}
    stated, others = _stated(family)
    said = [f"{mine[others[0]]:.3g} a model"] if others else []
    said += [f"{pages:.3g} of {model}" for model, pages in stated.items()]
    cut = any(
        trusted(pool, denied) < 1 and set(pool.models) & set(family.models) for pool in pools(fleet)
    )
    pages = sum(any(model in mine for model in each) for each in denied)
    told = f"; people denied {pages} page{'s' * (pages > 1)} in {COUNTED.days} days"
    return (
        f"false pages a week: at most {sum(mine.values()):.3g} ({', '.join(said)}), "
        f"on {', '.join(family.budget.page_on)}"
        + (told if pages else "")
        + (", so it is cut down" if cut else "")
    )


def alone(family: Family, model: ModelId) -> float:
    """Return what `model` may make of a family that is all there is."""
    stated, others = _stated(family)
    whole = family.budget.false_pages_per_week
    if model in stated:
        return stated[model]
    left = (1.0 if whole is None else whole) - sum(stated.values())
    return max(left, 0.0) / max(len(others), 1)


def can_page(family: Family, history: ModelHistory) -> bool:
    """Say whether evidence could open an incident: none is open, and the model is looked at."""
    if history.head is None or not family.budget.page_on:
        return False
    last = history.decisions[-1] if history.decisions else None
    if last is None:
        return True
    unlooked = any(verdict.reading.metric == LOOKED for verdict in last.verdicts)
    return last.incident is None and not unlooked


def weight_of(
    family: Family, model: ModelId, *, rate: float | None, last: datetime | None, now: datetime
) -> float:
    """Return the false pages that one look at `model` may add.

    Args:
        family: whose cadence says how long a look stands for, at most.
        model: for what it may make by itself where there is no `rate`.
        rate: false pages a week; see `rates`.
        last: when it was looked at before; None if it never was.
        now: of this look.
    """
    span = family.window.cadence
    if last is not None:
        span = min(max(now - last, timedelta()), span)
    return (alone(family, model) if rate is None else rate) * (span / WEEK)


def _stated(family: Family) -> tuple[dict[ModelId, float], tuple[ModelId, ...]]:
    markets = family.budget.markets
    pairs = tuple(zip(family.markets, family.models, strict=True))
    stated = {model: markets[market] for market, model in pairs if market in markets}
    return stated, tuple(model for market, model in pairs if market not in markets)
