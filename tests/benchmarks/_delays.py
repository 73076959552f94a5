"""A fleet with one fault in every model: how many looks pass before the page, and who misses it.

All delays are counted from the injection; the look that first sees rows with the fault is 1. A
fault that is not paged within the time that is looked at is missed: its delay is None in the raw
lines, and counts as infinite.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import inf, isfinite
from statistics import median

import numpy as np
from numpy.typing import NDArray

from tests.benchmarks._false_pages import TRAINED, Scale, evidence, fleet_of, scale
from tests.benchmarks._fleet import (
    DAY,
    DROPS,
    OTHERS,
    SHIFTS,
    Fault,
    Fleet,
    Slices,
    Weather,
    late,
)
from tests.benchmarks._ours import Evidence, Fresh, Readings
from tests.benchmarks._raw import Figure, Line, Plan, Raw, cost
from tests.benchmarks._watches import CLASSIC, FEATURES, PERFORMANCE, Watch, watches

OURS, BARE, LATE = "ours", "ours, no floor", "ours, labels within 6 hours"
LAGS = 36
MATTER = (SHIFTS[3], DROPS[1], DROPS[2])
"""Faults above the floors that both ours and others can see: delays are compared on these."""
HELD = (SHIFTS[3], DROPS[1])
"""Faults that are to be paged within three looks at the median."""
LARGE = (*MATTER, *OTHERS)
"""Every fault above the floors: those that may be missed."""


def measure(raw: Raw, plan: Plan) -> None:
    """Write raw lines: delay, for each weather, fault and watcher; it reads the tuned limits."""
    limits = {
        (line["weather"], line["group"], line["name"]): line["tuned"]
        for line in raw.lines()
        if line["what"] == "clean_other"
    }
    for weather in Weather:
        with cost() as spent:
            _weather(raw, plan, weather, limits)
        raw.note("delay_cost", weather=weather, wall_s=spent.wall_s, cpu_s=spent.cpu_s)


def figures(lines: Sequence[Line]) -> dict[str, Figure]:
    """Return delays, what is missed, and how far behind the others ours are."""
    found = _delays(lines)
    names = {fault.name for fault in HELD}
    ours = {key[1:]: value for key, value in found.items() if key[0] == OURS}
    held = [_pooled(ours, name) for name in names]
    large = [each for (_, name), some in ours.items() if name in _named(LARGE) for each in some]
    curve = {f"{name}, {weather}": median(some) for (weather, name), some in ours.items()}
    ratios = _ratios(found, classic=False)
    return {
        "delay_cycles_median": Figure(
            _finite(max(held, default=None)), "looks", "worse of a 0.5 sd shift and 3 points"
        ),
        "delay_ratio_to_best_other": Figure(
            _finite(max((one / other for one, other in ratios.values()), default=None)),
            "x",
            "worst of shift 0.5, 3 and 10 points; each other's limit tuned to our false pages",
        ),
        "delay_behind_best_other": Figure(
            {key: one - other for key, (one, other) in ratios.items() if isfinite(one - other)}
            or None,
            "looks",
            "the same as a difference, for each fault and weather",
        ),
        "delay_behind_best_classic": Figure(
            {
                key: one - other
                for key, (one, other) in _ratios(found, classic=True).items()
                if isfinite(one - other)
            }
            or None,
            "looks",
            "CUSUM and EWMA on our own readings, tuned likewise",
        ),
        "missed_share": Figure(
            sum(each == inf for each in large) / len(large) if large else None,
            "",
            "of injected faults above the floors",
        ),
        "delay_curve": Figure(
            {key: value for key, value in curve.items() if isfinite(value)} or None,
            "looks",
            "medians; what is not listed is missed by more than half of the models",
        ),
    }


def _delays(lines: Sequence[Line]) -> dict[tuple[str, str, str], list[float]]:
    """Return delays by watcher, weather and fault; the tuned ones of those that were tuned."""
    return {
        (line["who"], line["weather"], line["fault"]): [
            inf if each is None else each for each in line["delays"]
        ]
        for line in lines
        if line["what"] == "delay" and line["tuned"]
    }


def _ratios(
    found: dict[tuple[str, str, str], list[float]], *, classic: bool
) -> dict[str, tuple[float, float]]:
    """Return our median and the best other's, for each fault and weather that both can see."""
    both = {}
    for (who, weather, name), some in found.items():
        if who != OURS or name not in _named(MATTER):
            continue
        others = [
            median(each)
            for (other, *where), each in found.items()
            if where == [weather, name]
            and not other.startswith(OURS)
            and other.startswith(CLASSIC) is classic
        ]
        if others and isfinite(min(others)):
            both[f"{name}, {weather}"] = (median(some), min(others))
    return both


def _pooled(ours: dict[tuple[str, str], list[float]], name: str) -> float:
    some = [each for (_, fault), delays in ours.items() if fault == name for each in delays]
    return median(some) if some else inf


def _named(faults: Sequence[Fault]) -> set[str]:
    return {fault.name for fault in faults}


def _finite(value: float | None) -> float | None:
    return value if value is not None and isfinite(value) else None


# -- one weather ----------------------------------------------------------------------------


def _weather(
    raw: Raw, plan: Plan, weather: Weather, limits: dict[tuple[str, str, str], float]
) -> None:
    # Limits are tuned on the clean fleet of the same seed: these models are others.
    fleet = fleet_of(weather, _size(plan), plan.seed + 1)
    history = fleet.history(TRAINED)
    readings = Readings(history)
    for fault in (*SHIFTS, *DROPS, *OTHERS):
        group = PERFORMANCE if fault.errors else FEATURES
        tuned = _watching(history, plan, fault, group)
        run = _Run(fleet, readings, plan, fault)
        ours = run.ours(floor=True), run.ours(floor=False)
        # An untuned other has its default limit.
        theirs = [(watch, limits[weather, group, watch.name], True) for watch in tuned]
        theirs += [
            (watch, watch.detector.limit, False)
            for watch in _watching(history, plan, fault, group)
            if not watch.of_readings
        ]
        delays = [np.full(fleet.shape[0], np.nan) for _ in (*ours, *theirs)]
        for number, (seen, fresh) in enumerate(run.looks()):
            pages = [each.look(fresh) for each in ours]
            pages += [watch.pages(watch.held(seen, fresh), limit) for watch, limit, _ in theirs]
            run.keep(delays, pages, number)
        told = [(OURS, True), (BARE, True)]
        told += [(watch.name, is_tuned) for watch, _, is_tuned in theirs]
        for (who, is_tuned), each in zip(told, delays, strict=True):
            _note(raw, weather, fault, who, each, tuned=is_tuned)
        if fault.errors:
            one, kept = run.ours(floor=True), [np.full(fleet.shape[0], np.nan)]
            for number, (_, fresh) in enumerate(run.looks(lags=LAGS)):
                run.keep(kept, [one.look(fresh)], number)
            _note(raw, weather, fault, LATE, kept[0], tuned=True)


def _watching(history: Slices, plan: Plan, fault: Fault, group: str) -> list[Watch]:
    """Return those that could see the fault, at the streams that show it."""
    columns = (0, history.means.shape[-1] - 1)
    longest = _leads(plan) + _horizon(plan)
    made = watches(history, cycles=longest, seed=plan.seed, columns=columns)
    return [watch for watch in made if watch.group == group]


def _note(
    raw: Raw,
    weather: Weather,
    fault: Fault,
    who: str,
    delays: NDArray[np.float64],
    *,
    tuned: bool,
) -> None:
    raw.note(
        "delay",
        weather=weather,
        fault=fault.name,
        who=who,
        tuned=tuned,
        delays=[None if np.isnan(each) else int(each) for each in delays],
    )


def _size(plan: Plan) -> Scale:
    """Return half the models of the clean fleet, each with the same part of the budget."""
    whole = scale(plan)
    return replace(whole, models=whole.models // 2)


def _leads(plan: Plan) -> int:
    return DAY // 2 if plan.quick else DAY


def _horizon(plan: Plan) -> int:
    return DAY // 2 if plan.quick else 2 * DAY


class _Run:
    """The looks at one fault: a time without it, and a time with it."""

    def __init__(self, fleet: Fleet, readings: Readings, plan: Plan, fault: Fault) -> None:
        self.fleet, self.readings, self.plan, self.fault = fleet, readings, plan, fault

    def ours(self, *, floor: bool) -> Evidence:
        return evidence(_size(self.plan), 1.0 if floor else 0.0)

    def looks(self, lags: int = 1) -> Iterator[tuple[Slices, Fresh]]:
        lead = _leads(self.plan)
        self.readings.begin(self.fleet.at)
        looks = self.fleet.looks(lead + _horizon(self.plan), self.fault, lead)
        for seen in late(looks, lags):
            yield seen, self.readings.look(seen)

    def keep(
        self,
        delays: Sequence[NDArray[np.float64]],
        pages: Sequence[NDArray[np.bool_]],
        number: int,
    ) -> None:
        delay = number - _leads(self.plan) + 1
        if delay < 1:
            return
        for each, page in zip(delays, pages, strict=True):
            each[page & np.isnan(each)] = delay
