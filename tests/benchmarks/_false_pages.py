"""A fleet with nothing wrong: who pages all the same, and at which limit the others would not."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from tests.benchmarks._fleet import DAY, WEEK, Fleet, Slices, Weather
from tests.benchmarks._ours import Evidence, Readings
from tests.benchmarks._raw import Figure, Line, Plan, Raw
from tests.benchmarks._watches import watches

MODELS, FEATURES, ROWS = 200, 25, 5000
PER_WEEK = 1.0
"""False pages that the owner of 200 models allows; fewer models get their share of it."""
LAGS = 36
"""Looks over which the labels of a slice come, evenly, where they come late."""
DEFAULTS = 3
"""Days on which others page at their default limits, which is often enough to be told by then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How large the simulated fleet is."""

    models: int
    days: int
    rows: int

    @property
    def budget(self) -> float:
        return PER_WEEK * self.models / MODELS


def scale(plan: Plan) -> Scale:
    return Scale(
        models=20 if plan.quick else MODELS,
        days=3 if plan.quick else 30,
        rows=max(200, round(ROWS * plan.size)),
    )


def evidence(size: Scale, floor: float = 1.0) -> Evidence:
    return Evidence(
        size.models, features=FEATURES, rows=size.rows, per_week=size.budget, floor=floor
    )


@cache
def trained(weather: Weather, plan: Plan) -> tuple[Fleet, Readings, Slices]:
    """Return a fleet at its first look, what reads it, and what that was learnt of."""
    size = scale(plan)
    fleet = Fleet(weather, models=size.models, features=FEATURES, rows=size.rows, seed=plan.seed)
    history = fleet.history(14 if plan.quick else 28)
    readings = Readings.of(history)
    # Of the rest nobody needs more, and it is large.
    last = slice(-WEEK, None)
    history = replace(
        history,
        means=history.means[last],
        **{
            name: getattr(history, name)[-1:]
            for name in ("spreads", "ranks", "sizes", "scatter", "nulls")
        },
        errors=history.errors[last],
    )
    return fleet, readings, history


def measure(raw: Raw, plan: Plan, weather: Weather) -> None:
    """Write raw lines: clean (ours), clean_bare, clean_late, clean_other (each of the others)."""
    _clean(raw, plan, weather)
    _late(raw, plan, weather)


def figures(lines: Sequence[Line]) -> dict[str, Figure]:
    """Return false pages a week of 200 models: the worst weather's, and each one's."""
    rates = {line["weather"]: _rate(line) for line in lines if line["what"] == "clean"}
    bare = {line["weather"]: _rate(line) for line in lines if line["what"] == "clean_bare"}
    late = {line["weather"]: _rate(line) for line in lines if line["what"] == "clean_late"}
    others: dict[str, float] = {}
    for line in lines:
        if line["what"] == "clean_other":
            name = f"{line['name']} ({line['group']})"
            others[name] = max(others.get(name, 0.0), _rate(line))
    return {
        "false_pages_per_week": Figure(
            max(rates.values(), default=None), "", "of 200 models with nothing wrong, worst weather"
        ),
        "false_pages_by_weather": Figure(rates or None, "", "the same for each weather"),
        "false_pages_without_floor": Figure(
            bare or None, "", "the same where every change counts, however small"
        ),
        "false_pages_late_labels": Figure(
            late or None, "", "the same where labels come within 6 hours"
        ),
        "false_pages_of_others": Figure(
            others or None, "", "at their default limits, worst weather"
        ),
    }


def _rate(line: Line) -> float:
    return float(line["pages"] / line["weeks"] * MODELS / line["models"])


def _clean(raw: Raw, plan: Plan, weather: Weather) -> None:
    size = scale(plan)
    fleet, readings, history = trained(weather, plan)
    cycles = size.days * DAY
    ours, bare = (evidence(size, floor) for floor in (1.0, 0.0))
    tuned = watches(history, cycles=cycles, seed=plan.seed)
    default = watches(history, cycles=min(cycles, DEFAULTS * DAY), seed=plan.seed)
    pages = dict.fromkeys(("ours", "bare"), 0)
    highest = np.zeros((len(tuned), size.models))
    paged = np.zeros(len(default), dtype=np.int64)
    first, brief = min(cycles, DAY if plan.quick else DEFAULTS * DAY), min(cycles, WEEK)
    looks = readings.looks(fleet.looks(cycles), fleet.at)
    for number, (seen, fresh) in enumerate(looks):
        pages["ours"] += int(ours.look(fresh).sum())
        if number < brief:
            pages["bare"] += int(bare.look(fresh).sum())
        for place, watch in enumerate(tuned):
            held = watch.held(seen, fresh).max(axis=1)
            np.maximum(highest[place], held, out=highest[place])
        if number < first:
            for place, watch in enumerate(default):
                held = watch.held(seen, fresh)
                paged[place] += watch.pages(held, watch.detector.limit).sum()
    about = {"weather": weather, "models": size.models, "rows": size.rows}
    weeks = cycles / WEEK
    raw.note("clean", **about, weeks=weeks, pages=pages["ours"], budget=size.budget)
    raw.note("clean_bare", **about, weeks=brief / WEEK, pages=pages["bare"], budget=size.budget)
    for place, watch in enumerate(default):
        raw.note(
            "clean_other",
            **about,
            weeks=first / WEEK,
            group=watch.group,
            name=watch.name,
            pages=int(paged[place]),
            limit=watch.detector.limit,
            tuned=_limit(highest[place], pages["ours"]),
        )


def _late(raw: Raw, plan: Plan, weather: Weather) -> None:
    """Note false pages of ours where labels come over hours: slices then have theirs in common."""
    size = scale(plan)
    fleet, readings, _ = trained(weather, plan)
    ours, pages = evidence(size), 0
    cycles = min(size.days * DAY, WEEK)
    looks = fleet.looks(cycles)
    for _, fresh in readings.late(looks, fleet.at, lags=LAGS, random=fleet.random):
        pages += int(ours.look(fresh).sum())
    about = {"weather": weather, "models": size.models, "rows": size.rows}
    raw.note("clean_late", **about, weeks=cycles / WEEK, pages=pages, budget=size.budget)


def _limit(highest: NDArray[np.float64], pages: int) -> float:
    """Return the lowest limit that no more than `pages` models were ever above."""
    return float(np.sort(highest)[::-1][min(pages, len(highest) - 1)])
