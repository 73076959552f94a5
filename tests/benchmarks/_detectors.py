"""What others watch with, over many streams at once, and what they hold to which limit.

Each is fed batch by batch with the mean, the variance and the number of a batch's rows, of any
shape of streams, and gives back what it holds to its `limit`: above that, it would page. Those that
keep a past look at it where batches end, and not after each row, which is all that they lose
against river's own (`_river.py` compares the two).
"""

from dataclasses import dataclass, field
from functools import cache
from math import log
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from driftloop.measure.distances import wasserstein

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


class Detector(Protocol):
    """One way to watch a stream."""

    name: str
    limit: float
    """Its default."""

    def update(self, mean: Floats, variance: Floats, rows: int) -> Floats:
        """Take a batch of each stream; return what is held to the limit, of the same shape."""
        ...

    def restart(self, where: Mask) -> None:
        """Forget the past of these streams, as it does once it has paged."""
        ...


@dataclass(slots=True)
class Evidently:
    """Wasserstein distance over the reference's deviation: its default above 1,000 rows.

    Args:
        seed: of the rows that the distance is measured on, for shifts between 0 and 3.
    """

    seed: int
    name: str = "Evidently, Wasserstein"
    limit: float = 0.1

    def update(self, mean: Floats, variance: Floats, rows: int) -> Floats:
        return _distances(self.seed, rows).wasserstein(mean, np.sqrt(variance))

    def restart(self, where: Mask) -> None:
        """It has no past."""


@dataclass(slots=True)
class EvidentlyAccuracy:
    """Accuracy off the reference's by a share of it: the default of its test with a reference."""

    error: float
    name: str = "Evidently, accuracy"
    limit: float = 0.2

    def update(self, mean: Floats, variance: Floats, rows: int) -> Floats:
        accuracy = 1.0 - self.error
        return np.abs(mean - self.error) / accuracy

    def restart(self, where: Mask) -> None:
        """It has no past."""


@dataclass(slots=True)
class NannyMl:
    """Jensen-Shannon distance (base 2) on Doane's bins of the reference: its default for numbers.

    Args:
        seed: of the rows that the distance is measured on, for shifts between 0 and 3.
    """

    seed: int
    name: str = "NannyML, Jensen-Shannon"
    limit: float = 0.1

    def update(self, mean: Floats, variance: Floats, rows: int) -> Floats:
        return _distances(self.seed, rows).jensen_shannon(mean, np.sqrt(variance))

    def restart(self, where: Mask) -> None:
        """It has no past."""


@dataclass(slots=True)
class NannyMlChunks:
    """How many standard deviations of the reference's chunks a chunk is off their mean.

    Its default for realized performance, on chunks as large as a batch.
    """

    middle: Floats
    deviation: Floats
    name: str = "NannyML, realized performance"
    limit: float = 3.0

    def update(self, mean: Floats, variance: Floats, rows: int) -> Floats:
        return np.abs(mean - self.middle) / self.deviation

    def restart(self, where: Mask) -> None:
        """It has no past."""


@dataclass(slots=True)
class Adwin:
    """River's ADWIN on the rows (Bifet and Gavalda 2007), cut where batches end.

    Held to the limit is -log(delta) of the surest cut.
    """

    shape: tuple[int, ...]
    longest: int
    """Batches that are kept at most."""
    name: str = "river, ADWIN"
    limit: float = -log(0.002)
    at: int = 0
    _kept: Floats = field(init=False)
    _begin: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        self._kept = np.zeros((3, self.longest + 1, *self.shape))
        self._begin = np.zeros(self.shape, dtype=np.int64)

    def update(self, mean: Floats, variance: Floats, rows: int) -> Floats:
        kept, end = self._kept, self.at + 1
        step = np.stack([np.broadcast_to(float(rows), self.shape), rows * mean])
        kept[:2, end] = kept[:2, self.at] + step
        kept[2, end] = kept[2, self.at] + rows * (variance + mean**2)
        self.at = end
        cuts = end - _backwards(end)
        if not len(cuts):
            return np.zeros(self.shape)
        first = np.take_along_axis(kept, self._begin[None, None], axis=1)
        whole = kept[:, end] - first[:, 0]
        old = kept[:, cuts] - first
        return self._surest(whole, old)

    def restart(self, where: Mask) -> None:
        self._begin[where] = self.at

    @staticmethod
    def _surest(whole: Floats, old: Floats) -> Floats:
        n, total, squares = whole
        spread = np.maximum(squares / n - (total / n) ** 2, 1e-12)
        n0, n1 = old[0], n - old[0]
        with np.errstate(divide="ignore", invalid="ignore"):
            gap = np.abs(old[1] / n0 - (total - old[1]) / n1)
            inverse = 1.0 / (n0 - 4.0) + 1.0 / (n1 - 4.0)
            root = np.sqrt(2.0 * inverse * spread)
            steep = 2.0 / 3.0 * inverse
            sure = ((np.sqrt(root**2 + 4.0 * steep * gap) - root) / (2.0 * steep)) ** 2
            sure -= np.log(2.0 * np.log(n))
        found: Floats = np.where((n0 > 4.0) & (n1 > 4.0), sure, 0.0).max(axis=0)
        return found


@dataclass(slots=True)
class PageHinkley:
    """River's Page-Hinkley on the rows (Page 1954), with its own delta and alpha, both ways."""

    shape: tuple[int, ...]
    name: str = "river, Page-Hinkley"
    limit: float = 50.0
    delta: float = 0.005
    alpha: float = 1.0 - 1e-4
    _past: Floats = field(init=False)
    """Rows, mean, sum upwards, its least, sum downwards, its largest."""

    def __post_init__(self) -> None:
        self._past = np.zeros((6, *self.shape))

    def update(self, mean: Floats, variance: Floats, rows: int) -> Floats:
        past = self._past
        before = np.where(past[0] > 0.0, past[1], mean)
        past[0] += rows
        past[1] = before + (mean - before) * rows / past[0]
        fade = self.alpha**rows
        weight = (1.0 - fade) / (1.0 - self.alpha)
        past[2] = fade * past[2] + weight * (mean - past[1] - self.delta)
        past[4] = fade * past[4] + weight * (mean - past[1] + self.delta)
        past[3] = np.minimum(past[3], past[2])
        past[5] = np.maximum(past[5], past[4])
        return np.maximum(past[2] - past[3], past[5] - past[4])

    def restart(self, where: Mask) -> None:
        self._past[:, where] = 0.0


@dataclass(slots=True)
class Hddm:
    """River's HDDM_A on rows that are wrong or right (Frias-Blanco et al. 2015), for more errors.

    Held to the limit is log(2 / confidence) of the worsening since its best time.
    """

    shape: tuple[int, ...]
    name: str = "river, HDDM_A"
    confidence: float = 0.001
    limit: float = log(2.0 / 0.001)
    _past: Floats = field(init=False)
    """Rows and mean of all; rows and mean at the best time."""

    def __post_init__(self) -> None:
        self._past = np.zeros((4, *self.shape))

    def update(self, mean: Floats, variance: Floats, rows: int) -> Floats:
        past = self._past
        past[0] += rows
        past[1] += (mean - past[1]) * rows / past[0]
        slack = 0.5 * log(1.0 / self.confidence)
        with np.errstate(divide="ignore", invalid="ignore"):
            best = past[3] + np.sqrt(slack / past[2]) >= past[1] + np.sqrt(slack / past[0])
            best |= past[2] == 0.0
            past[2:] = np.where(best, past[:2], past[2:])
            spread = (past[0] - past[2]) / past[2] / past[0]
            sure = 2.0 * np.maximum(past[1] - past[3], 0.0) ** 2 / spread
        return np.where(spread > 0.0, sure, 0.0)

    def restart(self, where: Mask) -> None:
        self._past[:, where] = 0.0


@dataclass(slots=True)
class Cusum:
    """Sums of standard errors beyond `slack`, both ways (Page 1954), of readings as ours are."""

    shape: tuple[int, ...]
    slack: float
    name: str = ""
    limit: float = 5.0
    _sums: Floats = field(init=False)

    def __post_init__(self) -> None:
        self._sums = np.zeros((2, *self.shape))
        self.name = f"classic, CUSUM with slack {self.slack:g}"

    def update(self, mean: Floats, variance: Floats, rows: int) -> Floats:
        both = np.stack([mean, -mean])
        self._sums = np.maximum(self._sums + both - self.slack, 0.0)
        return self._sums.max(axis=0)

    def restart(self, where: Mask) -> None:
        self._sums[:, where] = 0.0


@dataclass(slots=True)
class Ewma:
    """A moving average with exponential weights (Roberts 1959), over its standard deviation."""

    shape: tuple[int, ...]
    weight: float
    name: str = ""
    limit: float = 3.0
    _mean: Floats = field(init=False)

    def __post_init__(self) -> None:
        self._mean = np.zeros(self.shape)
        self.name = f"classic, EWMA with weight {self.weight:g}"

    def update(self, mean: Floats, variance: Floats, rows: int) -> Floats:
        self._mean += self.weight * (mean - self._mean)
        return np.abs(self._mean) / np.sqrt(self.weight / (2.0 - self.weight))

    def restart(self, where: Mask) -> None:
        self._mean[where] = 0.0


# -- distances from rows --------------------------------------------------------------------

REFERENCE = 10_000
SHIFTS = np.concatenate([np.arange(0.0, 0.6, 0.025), np.arange(0.6, 3.01, 0.2)])
DRAWS = 30


@dataclass(frozen=True, slots=True)
class Distances:
    """What distances came to on rows, by how far the mean of the rows was off.

    Each shape is (shifts, draws), ascending along the first; a stream's own is drawn at random. The
    deviation within a batch changes little in a clean fleet and is taken to be 1; one that is far
    off adds what a normal distribution's does.
    """

    seed: int
    area: Floats
    divergence: Floats

    def wasserstein(self, mean: Floats, deviation: Floats) -> Floats:
        wider = np.sqrt(2.0 / np.pi) * np.abs(deviation - 1.0)
        return np.maximum(self._drawn(self.area, mean), wider * (np.abs(deviation - 1.0) > 0.3))

    def jensen_shannon(self, mean: Floats, deviation: Floats) -> Floats:
        return self._drawn(self.divergence, mean)

    def _drawn(self, table: Floats, mean: Floats) -> Floats:
        far = np.minimum(np.abs(mean), SHIFTS[-1])
        right = np.clip(np.searchsorted(SHIFTS, far), 1, len(SHIFTS) - 1)
        part = (far - SHIFTS[right - 1]) / (SHIFTS[right] - SHIFTS[right - 1])
        # What the digits of the mean say is as good as chance, and the same for both sides.
        draw = (np.abs(mean) * 1e9).astype(np.int64) % DRAWS
        found: Floats = (1.0 - part) * table[right - 1, draw] + part * table[right, draw]
        return found


@cache
def _distances(seed: int, rows: int) -> Distances:
    random = np.random.default_rng(seed)
    reference = np.sort(random.standard_normal(REFERENCE))
    # Means are told against the reference's own.
    reference = (reference - reference.mean()) / reference.std()
    edges = np.histogram_bin_edges(reference, bins="doane")
    expected = np.histogram(reference, edges)[0] / REFERENCE
    area, divergence = np.zeros((2, len(SHIFTS), DRAWS))
    for draw in range(DRAWS):
        noise = random.standard_normal(rows)
        noise = np.sort(noise - noise.mean())
        for number, shift in enumerate(SHIFTS):
            moved = noise + shift
            area[number, draw] = wasserstein(reference, moved, float(reference.std()))[1]
            divergence[number, draw] = _jensen_shannon(expected, moved, edges)
    return Distances(seed, area, divergence)


def _jensen_shannon(expected: Floats, values: Floats, edges: Floats) -> float:
    found = np.histogram(values, edges)[0] / len(values)
    p = np.append(expected, 0.0)
    q = np.append(found, max(1.0 - found.sum(), 0.0))
    middle = (p + q) / 2.0
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = [np.where(side > 0.0, side * np.log2(side / middle), 0.0).sum() for side in (p, q)]
    return float(np.sqrt(max(sum(parts) / 2.0, 0.0)))


@cache
def _backwards(end: int) -> NDArray[np.int64]:
    """Return how far back cuts are tried: every batch at first, then ever fewer, as buckets do."""
    back = np.unique(np.round(1.25 ** np.arange(0, 60)).astype(np.int64))
    return back[back < end]
