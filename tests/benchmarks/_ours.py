"""What driftloop makes of a fleet's slices: fresh readings, and evidence of them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tests.benchmarks._fleet import DAY, WEEK, Slices

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
HOUR = DAY // 24
SHIFT, NULLS, WORSE = 0.2, 0.3, 0.2
"""The floors that monitor files begin with: `[budget] shift`, `[quality] nulls`, `[decay] warn`."""
BETS = np.array([0.5, 1.0, 2.0, 4.0, 8.0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Fresh:
    """Readings of one look: estimates of a change and their standard errors, (models, streams)."""

    value: Floats
    error: Floats

    @property
    def z(self) -> Floats:
        return self.value / self.error


class Readings:
    """Readings of slices against what was usual at each hour of the week in training."""

    def __init__(self, history: Slices) -> None:
        past = _told(history)
        self.hour = 0
        bins = (np.arange(len(past)) % WEEK) // HOUR
        self.usual = np.stack([past[bins == each].mean(axis=0) for each in range(WEEK // HOUR)])
        apart = past - self.usual[bins]
        before, after = apart[:-1], apart[1:]
        self.hold = np.clip((before * after).sum(axis=0) / (before**2).sum(axis=0), 0.0, 0.98)
        self.error = (after - self.hold * before).std(axis=0) / (1.0 - self.hold)
        self.before: Floats | None = None
        self.floor = _floors(history.means.shape[-1])

    def begin(self, at: int) -> None:
        """Begin anew at the slice `at`, with nothing seen before it."""
        self.hour, self.before = at, None

    def look(self, seen: Slices) -> Fresh:
        apart = _told(seen) - self.usual[(self.hour % WEEK) // HOUR]
        self.hour += 1
        before = self.before if self.before is not None else apart
        self.before = apart
        return Fresh(value=(apart - self.hold * before) / (1.0 - self.hold), error=self.error)


class Evidence:
    """Evidence of all streams of models that share a budget, added up look by look.

    Args:
        models: how many; each gets an equal share.
        floor: shape (streams,), changes up to which are silent; None for those of the readings.
        per_week: false pages of all models together.
    """

    def __init__(self, models: int, floor: Floats, per_week: float) -> None:
        streams = len(floor)
        self.floor = floor
        share = np.full(streams, 0.5 / (streams - 1))
        share[-1] = 0.5
        self.each = (per_week / WEEK / models * share / (2 * len(BETS)))[:, None, None]
        self.mass = np.zeros((models, streams, 2, len(BETS)))
        self.one_way = np.arange(streams) >= streams - 1

    def look(self, fresh: Fresh) -> Mask:
        """Return which models page now; these begin anew."""
        up = (fresh.value - self.floor) / fresh.error
        down = (-fresh.value - self.floor) / fresh.error
        z = np.stack([up, np.where(self.one_way, -np.inf, down)], axis=-1)[..., None]
        likelihood = np.exp(np.clip(BETS * z - BETS**2 / 2.0, -700.0, 300.0))
        self.mass = np.minimum((self.mass + self.each) * likelihood, 1e100)
        page: Mask = self.mass.sum(axis=(1, 2, 3)) >= 1.0
        self.mass[page] = 0.0
        return page


def _told(seen: Slices) -> Floats:
    """Return what the streams of readings are made of, along the last axis; the loss is last."""
    spread = np.log(np.maximum(seen.spreads, 1e-3))
    return np.concatenate([seen.means, spread, seen.nulls, seen.errors[..., None] / 0.1], axis=-1)


def _floors(columns: int) -> Floats:
    return np.concatenate(
        [np.full(2 * columns, SHIFT), np.full(columns - 1, NULLS), np.full(1, WORSE)]
    )
