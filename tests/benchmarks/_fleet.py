"""A fleet as its slices: what a look every ten minutes would find in the rows, without the rows.

A row's score is normal within its slice; the mean of a slice's scores is the world's level at that
time plus the noise of as many rows. All levels are in standard deviations of a reference that has
seen the whole week, so that what moves with the hour is part of them.
"""

from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

CADENCE = timedelta(minutes=10)
DAY = 144
WEEK = 7 * DAY
MONDAY = datetime(2026, 3, 2, tzinfo=UTC)
ERROR = 0.1
"""Share of rows that a model gets wrong, on average."""
HOLD_ERRORS = 0.8
NULLS = 0.01
PREDICTION_MOVES = 0.4
"""Of a shift of the important feature, what the prediction shows."""


class Weather(StrEnum):
    """How the slices of a stream hang together when nothing is wrong."""

    INDEPENDENT = "independent"
    SEASONAL = "seasonal"
    AUTOCORRELATED = "autocorrelated"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What goes wrong with the important feature, which is the first, or with the model.

    `shift` is added to the feature's level, `scale` multiplies the spread of its scores, `nulls` is
    the share of it that is missing more, and `errors` the share of rows that is wrong more.
    """

    name: str
    shift: float = 0.0
    scale: float = 1.0
    nulls: float = 0.0
    errors: float = 0.0


SHIFTS = tuple(Fault(name=f"shift {size}", shift=size) for size in (0.05, 0.1, 0.2, 0.5))
DROPS = tuple(Fault(name=f"accuracy -{points}", errors=points / 100) for points in (1, 3, 10))
OTHERS = (
    Fault(name="unit change", shift=2.5, scale=0.1),
    Fault(name="stuck value", shift=0.3, scale=0.0),
    Fault(name="spread x1.5", scale=1.5),
    Fault(name="nulls +40%", nulls=0.4),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Slices:
    """What was found at one look or many: the first axis is time where there were many.

    `means`, `spreads`: shape (..., models, features + 1), of values; the prediction is the last.
    `ranks`, `sizes`: likewise, means of the values' ranks in the reference, from -1/2 to 1/2, and
    of the sizes of these, both over their standard deviation in the reference; `scatter` is the
    variance of rows' ranks within the slice, and of sizes, last axis. `nulls`: shape (..., models,
    features), shares. `errors`: shape (..., models), shares of rows that were wrong. `rows` is how
    many a slice has.
    """

    means: Floats
    spreads: Floats
    ranks: Floats
    sizes: Floats
    scatter: Floats
    nulls: Floats
    errors: Floats
    rows: int


class Fleet:
    """Models of one kind of weather, and what becomes of them, slice by slice."""

    def __init__(
        self, weather: Weather, *, models: int, features: int, rows: int, seed: int
    ) -> None:
        self.weather, self.rows = weather, rows
        self.shape = (models, features + 1)
        self.random = np.random.default_rng((seed, *map(ord, weather)))
        self._draw_levels()
        self.at = 0
        """The slice that comes next, counted from a Monday at midnight."""

    def history(self, days: int) -> Slices:
        """Return what the models were trained on: the days before the first look."""
        return self._many(days * DAY)

    def looks(self, cycles: int, fault: Fault | None = None, since: int = 0) -> Iterator[Slices]:
        """Yield the slices of so many looks; `fault` has all models from the look `since` on."""
        for number in range(cycles):
            yield self._slice(fault if fault is not None and number >= since else None)

    def step(self) -> tuple[Floats, Floats]:
        """Return the next slice's levels, and of how many the errors are usual, as a factor."""
        hour = self.at % WEEK
        self.at += 1
        self._wander()
        return self.weekly[hour] + self.level, 1.0 + self.weekly_errors[hour] + self.error_level

    def seen(self, levels: Floats, wrong: Floats, fault: Fault | None = None) -> Slices:
        """Return what rows show of what `step` returned, or of many steps at once."""
        shape = levels.shape
        deviations = np.broadcast_to(self.within, shape).copy()
        errors = ERROR * np.maximum(wrong, 0.1)
        nulls = np.full((*shape[:-1], shape[-1] - 1), NULLS)
        if fault is not None:
            levels = levels.copy()
            levels[..., 0] += fault.shift
            levels[..., -1] += PREDICTION_MOVES * fault.shift
            deviations[..., 0] *= fault.scale
            nulls[..., 0] += fault.nulls
            errors = errors + fault.errors
        few = 1.0 / np.sqrt(self.rows)
        noise, wider = self._noise(shape), self._noise(shape)
        rank, rank_scatter, size, size_scatter = _ranked(levels, deviations)
        return Slices(
            means=levels + few * deviations * noise,
            spreads=deviations * (1.0 + few * np.sqrt(0.5) * wider),
            ranks=rank + few * np.sqrt(rank_scatter) * noise,
            sizes=size + few * np.sqrt(size_scatter) * wider,
            scatter=np.stack([rank_scatter, size_scatter], axis=-1),
            nulls=self._share(nulls),
            errors=self._share(np.minimum(errors, 1.0)),
            rows=self.rows,
        )

    def first(self, models: int) -> "Fleet":
        """Return the first of the models alone, from where they are now on."""
        some = copy(self)
        some.shape = (models, self.shape[1])
        for name in ("hold", "wander", "wander_errors", "within", "level", "error_level"):
            setattr(some, name, getattr(self, name)[:models])
        some.weekly, some.weekly_errors = self.weekly[:, :models], self.weekly_errors[:, :models]
        return some

    # -- the world --------------------------------------------------------------------------

    def _draw_levels(self) -> None:
        models, streams = self.shape
        still = self.weather is Weather.INDEPENDENT
        bound = self.weather is Weather.AUTOCORRELATED
        self.weekly = np.zeros((WEEK, *self.shape)) if still else self._week(streams, 0.1, 0.5)
        self.weekly_errors = (
            np.zeros((WEEK, models)) if still else self._week(1, 0.02, 0.15)[..., 0]
        )
        self.hold = self.random.uniform(0.5, 0.95, self.shape) if bound else np.zeros(self.shape)
        self.wander = self.random.uniform(0.05, 0.2, self.shape) if bound else np.zeros(self.shape)
        self.wander_errors = np.full(models, 0.05 if bound else 0.0)
        between = self.weekly.var(axis=0) + self.wander**2
        self.within = np.sqrt(np.maximum(1.0 - between, 0.3))
        self.level = self.random.standard_normal(self.shape) * self.wander
        self.error_level = self.random.standard_normal(models) * self.wander_errors

    def _week(self, streams: int, least: float, most: float) -> Floats:
        """Return levels over a week: two harmonics of the day, and each weekday its own."""
        models = self.shape[0]
        size = self.random.uniform(least, most, (models, streams))
        turn = self.random.uniform(0.0, 2.0 * np.pi, (2, models, streams))
        days = self.random.standard_normal((7, models, streams)) * size * 0.25
        hour = (np.arange(WEEK) % DAY)[:, None, None] * (2.0 * np.pi / DAY)
        week = size * (np.sin(hour + turn[0]) + 0.3 * np.sin(2.0 * hour + turn[1]))
        week += np.repeat(days, DAY, axis=0)
        found: Floats = week - week.mean(axis=0)
        return found

    def _many(self, cycles: int) -> Slices:
        """Return so many slices at once, by less work than one after the other."""
        parts = [self._some(min(WEEK, cycles - begin)) for begin in range(0, cycles, WEEK)]
        names = ("means", "spreads", "ranks", "sizes", "scatter", "nulls", "errors")
        # In single precision: it is large, and far from as sure as that.
        told: dict[str, Any] = {
            name: np.concatenate([getattr(each, name).astype(np.float32) for each in parts])
            for name in names
        }
        return Slices(**told, rows=self.rows)

    def _some(self, cycles: int) -> Slices:
        hours = (self.at + np.arange(cycles)) % WEEK
        self.at += cycles
        levels = self.weekly[hours]
        wrong = 1.0 + self.weekly_errors[hours]
        if self.weather is Weather.AUTOCORRELATED:
            for number in range(cycles):
                self._wander()
                levels[number] += self.level
                wrong[number] += self.error_level
        return self.seen(levels, wrong)

    def _slice(self, fault: Fault | None) -> Slices:
        return self.seen(*self.step(), fault)

    def _wander(self) -> None:
        """Let the levels go on from where they are."""
        if self.weather is not Weather.AUTOCORRELATED:
            return
        fresh = np.sqrt(1.0 - self.hold**2) * self.wander
        self.level = self.hold * self.level + fresh * self.random.standard_normal(self.shape)
        fresh_errors = np.sqrt(1.0 - HOLD_ERRORS**2) * self.wander_errors
        noise = self.random.standard_normal(self.shape[0])
        self.error_level = HOLD_ERRORS * self.error_level + fresh_errors * noise

    def _noise(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        return self.random.standard_normal(shape, dtype=np.float32)

    def _share(self, expected: Floats) -> Floats:
        """Return the shares of rows that were, as whole rows: binomial, near enough."""
        deviation = np.sqrt(expected * (1.0 - expected) / self.rows)
        drawn = np.rint((expected + deviation * self._noise(expected.shape)) * self.rows)
        found: Floats = np.clip(drawn, 0.0, self.rows) / self.rows
        return found


# -- values to ranks ------------------------------------------------------------------------

MEANS, DEVIATIONS = np.linspace(-4.0, 4.0, 81), np.linspace(0.0, 2.0, 41)


def _ranked(means: Floats, deviations: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Return mean and variance of ranks, and of their sizes, of normal values; see `Slices`.

    The reference is standard normal: what all hours of all days are together.
    """
    from scipy.ndimage import map_coordinates

    at = np.stack(
        [
            (np.clip(means, MEANS[0], MEANS[-1]) - MEANS[0]) / (MEANS[1] - MEANS[0]),
            np.minimum(deviations, DEVIATIONS[-1]) / (DEVIATIONS[1] - DEVIATIONS[0]),
        ]
    )
    rank, rank_scatter, size, size_scatter = (
        map_coordinates(table, at, order=1) for table in _tables()
    )
    return rank, rank_scatter, size, size_scatter


@cache
def _tables() -> tuple[Floats, ...]:
    """Return what `_ranked` does for each of the means and deviations."""
    from scipy.special import ndtr, ndtri

    chances = (np.arange(1000) + 0.5) / 1000
    values = MEANS[:, None, None] + DEVIATIONS[:, None] * ndtri(chances)
    ranks = ndtr(values) - 0.5
    told = []
    for each, deviation in ((ranks, np.sqrt(1.0 / 12.0)), (np.abs(ranks), np.sqrt(1.0 / 48.0))):
        told += [each.mean(axis=-1) / deviation, each.var(axis=-1) / deviation**2]
    return tuple(told)
