"""Everybody who watches the simulated fleet, side by side on the same slices."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tests.benchmarks._detectors import (
    Adwin,
    Cusum,
    Detector,
    Evidently,
    EvidentlyAccuracy,
    Ewma,
    Hddm,
    NannyMl,
    NannyMlChunks,
    PageHinkley,
)
from tests.benchmarks._fleet import ERROR, Slices
from tests.benchmarks._ours import Fresh

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
FEATURES, PERFORMANCE = "features", "performance"
CLASSIC = "classic"
"""Begins the names of what watches readings as ours are: none of the products does that."""


@dataclass(slots=True)
class Watch:
    """A detector, and which streams of each model it watches."""

    group: str
    detector: Detector
    of_readings: bool
    columns: Sequence[int] | None = None
    firing: Mask | None = None

    @property
    def name(self) -> str:
        return self.detector.name

    def held(self, seen: Slices, fresh: Fresh) -> Floats:
        """Return, shape (models, streams), what it holds to its limit."""
        if self.group == PERFORMANCE:
            wrong = fresh.z[:, -1:] if self.of_readings else seen.errors[:, None]
            return self.detector.update(wrong, wrong * (1.0 - wrong), seen.rows)
        columns = slice(seen.means.shape[-1]) if self.columns is None else self.columns
        means = fresh.z[:, : seen.means.shape[-1]] if self.of_readings else seen.means
        return self.detector.update(means[:, columns], seen.spreads[:, columns] ** 2, seen.rows)

    def pages(self, held: Floats, limit: float) -> Mask:
        """Return which models page anew, and let those streams begin again that did."""
        over = held > limit
        before = self.firing if self.firing is not None else np.zeros_like(over)
        self.firing = over
        if over.any():
            self.detector.restart(over)
        found: Mask = (over & ~before).any(axis=1)
        return found


def watches(
    history: Slices, *, cycles: int, seed: int, columns: Sequence[int] | None = None
) -> list[Watch]:
    """Return everybody, as new; `columns` are the only ones to watch, where not all are wanted."""
    models, streams = history.means.shape[1:]
    shape = (models, streams if columns is None else len(columns))
    one = (models, 1)
    middle = history.errors.mean(axis=0)[:, None]
    deviation = history.errors.std(axis=0)[:, None]
    made: list[tuple[str, bool, Callable[[], Detector]]] = [
        (FEATURES, False, lambda: Evidently(seed)),
        (FEATURES, False, lambda: NannyMl(seed)),
        (FEATURES, False, lambda: Adwin(shape, cycles)),
        (FEATURES, False, lambda: PageHinkley(shape)),
        (PERFORMANCE, False, lambda: EvidentlyAccuracy(ERROR)),
        (PERFORMANCE, False, lambda: NannyMlChunks(middle, deviation)),
        (PERFORMANCE, False, lambda: Adwin(one, cycles)),
        (PERFORMANCE, False, lambda: PageHinkley(one)),
        (PERFORMANCE, False, lambda: Hddm(one)),
    ]
    for group, size in ((FEATURES, shape), (PERFORMANCE, one)):
        made += [
            (group, True, lambda size=size: Cusum(size, 0.5)),  # type: ignore[misc]
            (group, True, lambda size=size: Cusum(size, 2.0)),  # type: ignore[misc]
            (group, True, lambda size=size: Ewma(size, 0.2)),  # type: ignore[misc]
        ]
    return [
        Watch(group, make(), of_readings, columns if group == FEATURES else None)
        for group, of_readings, make in made
    ]
