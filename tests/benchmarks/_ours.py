"""What driftloop makes of a fleet's slices: fresh readings, and evidence of them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from driftloop.judge import findings
from driftloop.judge.evidence import BETS, HALF, errors, grown, kept
from driftloop.judge.findings import DATA, DRIFT, HARM
from tests.benchmarks._fleet import DAY, WEEK, Slices

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
HOUR = DAY // 24
FLOORS = {"shift": 0.2, "spread": 0.2, "nulls": 0.3, "loss": 0.1}
"""The floors that monitor files begin with: `[budget] shift`, `[quality] nulls`, `[decay] warn`."""


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
    """Evidence of all streams of models that share a budget, added up look by look as judged.

    Args:
        models: how many; each gets an equal share.
        features: how many columns a model has beside its prediction.
        rows: that a look is made of.
        per_week: false pages of all models together.
        floor: times the changes that matter; 0 lets every change count.
    """

    def __init__(
        self, models: int, *, features: int, rows: int, per_week: float, floor: float = 1.0
    ) -> None:
        names, metrics = streams(features)
        self.floor = floor * np.array([FLOORS[metric] for metric in metrics])
        layout = findings._layout(names, metrics, frozenset((HARM, DATA, DRIFT)))
        self.weights = per_week / WEEK / models * layout.shares
        self.two, self.counts = layout.two, layout.counts
        groups = np.array([findings.GROUPS[metric] for metric in metrics])
        self.groups = np.stack([groups == group for group in (HARM, DATA, DRIFT)]).astype(float)
        self.rows = np.full((1, 1), float(rows))
        self.mass = np.zeros((models, len(names), 2, len(BETS)))

    def look(self, fresh: Fresh) -> Mask:
        """Return which models page now; these begin anew."""
        error = errors(-HALF * fresh.error, HALF * fresh.error)
        error = np.where(self.counts, np.maximum(error, 0.5 / np.sqrt(self.rows)), error)
        change = np.stack((fresh.value, np.where(self.two, -fresh.value, np.nan)), axis=-1)
        z = (change - self.floor[:, None]) / error[..., None]
        mass = grown(self.mass, z, self.weights, self.rows)
        page: Mask = (mass.sum(axis=(2, 3)) @ self.groups.T >= 1.0).any(axis=1)
        mass[page] = 0.0
        self.mass = kept(mass, self.weights)
        return page


def streams(features: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of a model's streams and the metric of each, as readings are told apart."""
    columns = [*(f"x{number:02}" for number in range(features)), "prediction"]
    pairs = [(metric, name) for metric in ("shift", "spread") for name in columns]
    pairs += [("nulls", name) for name in columns[:-1]]
    names = (*(f"{metric}:{name}" for metric, name in pairs), "loss")
    return names, (*(metric for metric, _ in pairs), "loss")


def _told(seen: Slices) -> Floats:
    """Return what the streams of readings are made of, along the last axis; the loss is last."""
    spread = np.log(np.maximum(seen.spreads, 1e-3))
    return np.concatenate([seen.means, spread, seen.nulls, seen.errors[..., None] / 0.1], axis=-1)
