"""What is usual for a champion's rows: levels by hour of the week, and noise between slices.

A slice is the rows of one cadence. The mean of what is scored of its rows (see `scores`) is taken
to be the usual level of its hours, plus noise that all rows of the slice share, plus the noise of
so many rows. Of the shared noise a part goes on from slice to slice as an AR(1).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from driftloop.measure.columns import Floats
from driftloop.measure.outlook import Outlook
from driftloop.measure.season import positions, season

DAY = 86_400.0
TINY = 1e-300
LAGS = 6
"""Slices by which phi is told."""
SURE = 3.0
"""Correlation is taken to be there from so many standard errors on: many series are asked."""
UNSURE = 0.5
"""It is raised by so many standard errors: too low it hides how far noise reaches, and too high
how much is new in each slice."""
FEWEST_OF_DAY, FEWEST_DAYS = 4, 10
"""Slices of a day, and days, that it takes to tell what days have in common."""
SURE_OF_DAYS = 2.0
"""Likewise for what days have in common."""
MOST_PHI = 0.995


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One of the numbers that are followed slice by slice.

    `metric` and `column` are those of the fresh reading; of "share" there is one for each `level`,
    None being all others.
    """

    metric: str
    column: str | None
    level: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What is usual, of `k` series.

    What is estimated is taken for as unsure as it is: all noise is larger by a standard error and
    `phi` by half of one, and the errors of the levels count wherever a change is told.

    Args:
        series: what is followed; () where only arrays are.
        cadence: seconds of a slice.
        levels: shape (336, k), usual means at the middle of each hour of the week, from Thursday
            0:00 UTC on, as 1970 began; then steps at the beginning of each: see `season`.
        errors: shape (336, k), variances of those levels' own errors.
        common: shape (k,), variance of the error that all of a series' levels share.
        noise: shape (k,), variance of the noise of slices that goes on.
        phi: shape (k,), its correlation from one slice to the next.
        white: shape (k,), variance of the noise that each slice has for itself, beyond its rows'.
        scatter: shape (k,), variance of rows within a slice.
        skew: shape (k,), their third standardised moment.
        unit: shape (k,), what a change is divided by to be the reading's value.
        clip: rows' losses are cut there.
        loss: which losses, by name; None where none are followed.
        outlook: what losses are expected by before there are labels.
    """

    series: tuple[Series, ...]
    cadence: float
    levels: Floats
    errors: Floats
    common: Floats
    noise: Floats
    phi: Floats
    white: Floats
    scatter: Floats
    skew: Floats
    unit: Floats
    clip: float = float("inf")
    loss: str | None = None
    outlook: Outlook | None = None

    def expected(self, weights: Floats) -> tuple[Floats, Floats]:
        """Return the usual mean of slices, and the variance of its error; both (slices, k).

        Args:
            weights: shape (slices, 336), how a slice's rows lie over the hours; see `positions`.
        """
        return weights @ self.levels, self.common + weights**2 @ self.errors

    def paced(self, cadence: timedelta) -> "Profile":
        """Return what is usual of slices of another cadence, as far as the AR(1) tells."""
        steps = cadence.total_seconds() / self.cadence
        if steps == 1.0:
            return self
        held = _held(self.phi, np.full_like(self.phi, max(steps, 1.0)))
        return replace(
            self,
            cadence=cadence.total_seconds(),
            noise=self.noise * held,
            phi=self.phi**steps,
            white=self.white / max(steps, 1.0),
        )

    def only(self, kept: Sequence[int]) -> "Profile":
        """Return the profile of some of the series, by their places."""
        at = np.asarray(kept, dtype=np.int64)
        sides: dict[str, Any] = {name: getattr(self, name)[..., at] for name in _SIDES}
        return replace(self, series=tuple(self.series[each] for each in kept), **sides)


_SIDES = ("levels", "errors", "common", "noise", "phi", "white", "scatter", "skew", "unit")


def joined(one: Profile, other: Profile) -> Profile:
    """Return a profile of the series of both, which have one cadence."""
    sides: dict[str, Any] = {
        name: np.concatenate([getattr(one, name), getattr(other, name)], axis=-1) for name in _SIDES
    }
    return replace(
        one,
        series=(*one.series, *other.series),
        clip=min(one.clip, other.clip),
        loss=one.loss or other.loss,
        outlook=one.outlook or other.outlook,
        **sides,
    )


def profile_of(
    means: Floats,
    counts: Floats,
    times: Floats,
    cadence: timedelta,
    *,
    scatter: Floats | None = None,
    skew: Floats | None = None,
    unit: Floats | None = None,
    series: Sequence[Series] = (),
) -> Profile:
    """Return what is usual, learnt of slices in order of time.

    Levels are shrunk towards coarser ones by how much they truly differ (empirical Bayes; Morris
    1983): see `season`. The noise and its correlation are those of what is left, by moments. Where
    means of whole days vary more than that lets them, the correlation is raised until it does.

    Args:
        means: shape (slices, k); what a slice without rows has is not looked at.
        counts: shape (slices,) or (slices, k), rows that each mean is of.
        times: shape (slices,), the middle of each, seconds since 1970, ascending. They may be
            shorter than the cadence, so that a season within it shows; then the noise is that of
            as many of them as fit.
        cadence: what a slice is at run time.
        scatter: shape (k,), variance of rows within a slice; 1 if it is not given.
        skew: shape (k,); 0 if it is not given.
        unit: shape (k,); 1 if it is not given.
        series: what the columns are.

    >>> rng = np.random.default_rng(1)
    >>> at = (np.arange(28 * 144) + 0.5) * 600.0
    >>> usual = 0.5 * np.sin(at / 86400.0 * 2.0 * np.pi)[:, None]
    >>> means = usual + rng.normal(0.0, 0.1, usual.shape)
    >>> found = profile_of(means, np.full(len(at), 100.0), at, timedelta(minutes=10))
    >>> round(float(found.levels[6, 0]), 1), bool(found.white[0] < 0.001)
    (0.5, True)
    """
    k = means.shape[1]
    scatter = np.ones(k) if scatter is None else scatter
    counts = np.broadcast_to(counts[:, None] if counts.ndim == 1 else counts, means.shape)
    means = np.where(counts > 0, means, 0.0)
    length = cadence.total_seconds()
    places = positions(times)
    noise, phi, white = np.zeros(k), np.zeros(k), np.zeros(k)
    found = season(means, _weights(counts, scatter, noise), times)
    for _ in range(2):
        left = np.where(counts > 0, means - places @ found.levels, 0.0)
        noise, phi, white = _noise(*_merged(left, counts, times, length), length, scatter)
        found = season(means, _weights(counts, scatter, noise + white), times)
    return Profile(
        series=tuple(series),
        cadence=length,
        levels=found.levels,
        errors=found.errors,
        common=found.common,
        noise=noise,
        phi=phi,
        white=white,
        scatter=scatter,
        skew=np.zeros(k) if skew is None else skew,
        unit=np.ones(k) if unit is None else unit,
    )


def _weights(counts: Floats, scatter: Floats, noise: Floats) -> Floats:
    """Return how much each mean tells: one over its variance, up to a factor."""
    floor = np.where(scatter > 0.0, scatter, 1.0)
    share = np.where(noise > 0.0, noise, 0.0) / floor
    weights: Floats = counts / (1.0 + counts * share)
    return weights


def _merged(
    left: Floats, counts: Floats, times: Floats, length: float
) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Return means and counts of slices of `length`, and the number of each slice."""
    number = np.floor(times / length).astype(np.int64)
    starts = np.flatnonzero(np.diff(number, prepend=number[:1] - 1))
    rows = np.add.reduceat(counts, starts, axis=0)
    sums = np.add.reduceat(left * counts, starts, axis=0)
    return np.divide(sums, rows, out=np.zeros_like(sums), where=rows > 0), rows, number[starts]


def _noise(
    left: Floats, counts: Floats, number: NDArray[np.int64], length: float, scatter: Floats
) -> tuple[Floats, Floats, Floats]:
    """Return the variance of noise that goes on, its correlation at lag 1, and that of the rest."""
    there = counts > 0
    of_rows = np.divide(scatter, counts, out=np.zeros_like(left), where=there)
    weight = _weights(counts, scatter, np.zeros(left.shape[1]))
    weight = np.where(there, weight / (weight + _typical(weight, there)), 0.0)
    whole = np.maximum(weight.sum(axis=0), TINY)
    beyond = left**2 - of_rows
    noise = np.maximum((weight * beyond).sum(axis=0) / whole, 0.0)
    unsure = np.sqrt((weight**2 * (beyond - noise) ** 2).sum(axis=0)) / whole
    shared, phi = _going_on(left, np.sqrt(weight), number)
    goes_on = np.divide(shared, phi, out=np.zeros_like(noise), where=phi > 0.0)
    # Of a phi near 0 the quotient says nothing.
    goes_on = np.minimum(goes_on, np.maximum(noise, shared))
    white = np.maximum(noise - goes_on, 0.0)
    noise, phi = _by_days(left, of_rows + white, weight, number, length, goes_on, phi)
    both = noise + white
    more = np.divide(unsure, both, out=np.zeros_like(both), where=both > 0.0)
    return noise * (1.0 + more), phi, np.where(both > 0.0, white * (1.0 + more), unsure)


def _going_on(left: Floats, weight: Floats, number: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Return what slices share with the next one, and its correlation; 0 twice if none is sure.

    Sampling noise is another's in the next slice: what goes on is shared. In an AR(1) the products
    at lags 2 to 7 are phi times those at lags 1 to 6, however large that noise is.
    """
    weighted = weight * left
    products, pairs = [], []
    for lag in range(1, LAGS + 2):
        follows = (number[lag:] - number[:-lag] == lag)[:, None]
        pad = ((lag, 0), (0, 0))
        products.append(np.pad(weighted[lag:] * weighted[:-lag] * follows, pad)[: len(left)])
        pairs.append(np.pad(weight[lag:] * weight[:-lag] * follows, pad)[: len(left)])
    whole = [np.maximum(each.sum(axis=0), TINY) for each in pairs]
    lagged = [each.sum(axis=0) / count for each, count in zip(products, whole, strict=True)]
    shared = lagged[0]
    error = np.sqrt(((products[0] - pairs[0] * shared) ** 2).sum(axis=0)) / whole[0]
    sure = shared > SURE * error
    sooner, later = sum(lagged[:-1]), sum(lagged[1:])
    phi = np.divide(later, sooner, out=np.zeros_like(shared), where=sure & (sooner > 0.0))
    phi = np.clip(phi, 0.0, MOST_PHI)
    off = [
        (each - phi * before) / count
        for each, before, count in zip(products[1:], products, whole, strict=False)
    ]
    unsure = np.sqrt((sum(off) ** 2).sum(axis=0))
    raised = phi + UNSURE * np.divide(unsure, sooner, out=np.zeros_like(phi), where=phi > 0.0)
    return np.where(sure, shared, 0.0), np.where(sure, np.minimum(raised, MOST_PHI), 0.0)


def _typical(weight: Floats, there: NDArray[np.bool_]) -> Floats:
    found: Floats = np.maximum(weight.sum(axis=0) / np.maximum(there.sum(axis=0), 1), TINY)
    return found


def _by_days(
    left: Floats,
    of_rows: Floats,
    weight: Floats,
    number: NDArray[np.int64],
    length: float,
    noise: Floats,
    phi: Floats,
) -> tuple[Floats, Floats]:
    """Raise noise and phi where means of days vary more than they would by them."""
    if length > DAY / FEWEST_OF_DAY:
        return noise, phi
    day = np.floor(number * length / DAY).astype(np.int64)
    starts = np.flatnonzero(np.diff(day, prepend=day[:1] - 1))
    days = len(starts)
    if days < FEWEST_DAYS:
        return noise, phi
    whole = np.add.reduceat(weight, starts, axis=0)
    full = whole > 0.5 * np.median(whole, axis=0)
    safe = np.where(whole > 0.0, whole, 1.0)
    means = np.add.reduceat(weight * left, starts, axis=0) / safe
    rows = np.add.reduceat(weight**2 * of_rows, starts, axis=0) / safe**2
    shared = np.add.reduceat(weight**2, starts, axis=0) / safe**2
    count = np.maximum(full.sum(axis=0), 1)
    varies = (full * means**2).sum(axis=0) / count
    sampled = (full * rows).sum(axis=0) / count
    # `few` independent slices would make the day's mean as sure as it is for this weighting.
    few = np.maximum(1.0 / np.maximum((full * shared).sum(axis=0) / count, TINY), 1.0)
    most = 1.0 + SURE_OF_DAYS * np.sqrt(2.0 / count)
    wrong = varies > most * (sampled + noise * _held(phi, few))
    wanted = np.maximum(varies - sampled, 0.0)
    noise = np.where(wrong, np.maximum(noise, wanted), noise)
    low, high = phi.copy(), np.full_like(phi, MOST_PHI)
    for _ in range(30):
        middle = (low + high) / 2.0
        enough = noise * _held(middle, few) >= wanted
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    return noise, np.where(wrong, high, phi)


def _held(phi: Floats, count: Floats) -> Floats:
    """Return the variance of the mean of `count` values of an AR(1) of variance 1."""
    far = phi * (1.0 - phi**count) / (count * (1.0 - phi) ** 2)
    found: Floats = np.minimum((1.0 + phi) / (1.0 - phi) - 2.0 * far, count) / count
    return found
