"""A fleet with one fault in every model: how many looks pass before the page, and who misses it.

All delays are counted from the injection; the look that first sees rows with the fault is 1. A
fault that is not paged within the time that is looked at is missed: its delay is None in the raw
lines, and counts as infinite.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import inf, isfinite
from statistics import median

import numpy as np
from numpy.typing import NDArray

from tests.benchmarks._false_pages import LAGS, evidence, scale, trained
from tests.benchmarks._fleet import (
    DAY,
    DROPS,
    OTHERS,
    SHIFTS,
    Fault,
    Fleet,
    Floats,
    Slices,
    Weather,
)
from tests.benchmarks._ours import Evidence, Fresh, Readings
from tests.benchmarks._raw import Figure, Line, Plan, Raw
from tests.benchmarks._watches import CLASSIC, FEATURES, PERFORMANCE, Watch, watches

OURS, BARE, LATE = "ours", "ours, no floor", "ours, labels within 6 hours"
MATTER = (SHIFTS[3], DROPS[1], DROPS[2])
"""Faults above the floors that both ours and others can see: delays are compared on these."""
HELD = (SHIFTS[3], DROPS[1])
"""Faults that are to be paged within three looks at the median."""
LARGE = (*MATTER, *OTHERS)
"""Every fault above the floors: those that may be missed."""


def measure(raw: Raw, plan: Plan, weather: Weather) -> None:
    """Write raw lines: delay, for each fault and watcher; it reads the tuned limits."""
    limits = {
        (line["group"], line["name"]): line["tuned"]
        for line in raw.lines()
        if line["what"] == "clean_other"
    }
    fleet, readings, history = trained(weather, plan)
    models = fleet.shape[0] // 2
    some = replace(history, means=history.means[:, :models], errors=history.errors[:, :models])
    bench = _Bench(raw, plan, fleet.first(models), readings.first(models), some, limits)
    for fault in LARGE if plan.quick else (*SHIFTS, *DROPS, *OTHERS):
        bench.side_by_side(fault)
        if fault.errors:
            bench.late_labels(fault)


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


@dataclass(frozen=True, slots=True)
class _Bench:
    """Half the models of the clean fleet, each with the same part of the budget."""

    raw: Raw
    plan: Plan
    fleet: Fleet
    readings: Readings
    history: Slices
    limits: dict[tuple[str, str], float]

    def side_by_side(self, fault: Fault) -> None:
        """Note the delays of ours, with and without floors, and of all that could see the fault."""
        ours = self._ours(), self._ours(floor=0.0)
        group = PERFORMANCE if fault.errors else FEATURES
        tuned = [(watch, self.limits[group, watch.name]) for watch in self._watching(group)]
        # What is classic has no default that anybody ships.
        default = [
            (watch, watch.detector.limit)
            for watch in self._watching(group)
            if not watch.of_readings
        ]
        theirs = [*tuned, *default]
        delays = [self._none() for _ in (*ours, *theirs)]
        for number, (seen, fresh) in enumerate(self._looks(fault)):
            pages = [each.look(fresh) for each in ours]
            pages += [watch.pages(watch.held(seen, fresh), limit) for watch, limit in theirs]
            for each, page in zip(delays, pages, strict=True):
                self._keep(each, page, number)
        told = [(OURS, True), (BARE, True), *((watch.name, True) for watch, _ in tuned)]
        told += [(watch.name, False) for watch, _ in default]
        for (who, is_tuned), each in zip(told, delays, strict=True):
            self._note(fault, who, each, tuned=is_tuned)

    def late_labels(self, fault: Fault) -> None:
        """Note our delays where each look sees some of the labels of each of the last hours."""
        ours, delays = self._ours(), self._none()
        for number, (_, fresh) in enumerate(self._looks(fault, lags=LAGS)):
            self._keep(delays, ours.look(fresh), number)
        self._note(fault, LATE, delays, tuned=True)

    def _looks(self, fault: Fault, lags: int = 1) -> Iterator[tuple[Slices, Fresh]]:
        lead, begin = _leads(self.plan), self.fleet.at
        looks = self.fleet.looks(lead + _horizon(self.plan), fault, lead)
        if lags == 1:
            return self.readings.looks(looks, begin)
        return self.readings.late(looks, begin, lags=lags, random=self.fleet.random)

    def _ours(self, floor: float = 1.0) -> Evidence:
        size = scale(self.plan)
        models = self.fleet.shape[0]
        return evidence(replace(size, models=models), floor)

    def _watching(self, group: str) -> list[Watch]:
        """Return those that could see the fault, at the streams that show it."""
        columns = (0, self.history.means.shape[-1] - 1)
        longest = _leads(self.plan) + _horizon(self.plan)
        made = watches(self.history, cycles=longest, seed=self.plan.seed, columns=columns)
        return [watch for watch in made if watch.group == group]

    def _none(self) -> Floats:
        return np.full(self.fleet.shape[0], np.nan)

    def _keep(self, delays: Floats, page: NDArray[np.bool_], number: int) -> None:
        """Keep the first page of each model since the injection."""
        delay = number - _leads(self.plan) + 1
        if delay >= 1:
            delays[page & np.isnan(delays)] = delay

    def _note(self, fault: Fault, who: str, delays: Floats, *, tuned: bool) -> None:
        self.raw.note(
            "delay",
            weather=self.fleet.weather,
            fault=fault.name,
            who=who,
            tuned=tuned,
            delays=[None if np.isnan(each) else int(each) for each in delays],
        )


def _leads(plan: Plan) -> int:
    return DAY // 2 if plan.quick else DAY


def _horizon(plan: Plan) -> int:
    return DAY // 2 if plan.quick else 2 * DAY
