"""How far slices lie from what is usual, once what the slices before them foretold is taken off.

Of the noise that slices share a part goes on from one to the next. A filter (Kalman 1960) follows
it, and so each slice tells only what could not be foretold: what is new of one slice does not
depend on what was new of those before, however far the noise reaches.
"""

from dataclasses import dataclass
from math import ceil, log

import numpy as np
from numpy.typing import NDArray

from driftloop.measure.columns import Floats
from driftloop.measure.profile import Profile
from driftloop.measure.season import positions

LAGS = 24
"""No slice is foretold by more than so many before it."""
FORGOTTEN = 0.05
"""What less of a slice is left in the forecast is as good as nothing."""


@dataclass(frozen=True, slots=True)
class Changes:
    """How far each series has moved, in its unit: (k,) or (slices, k); NaN where nothing is known.

    `error` is the standard error, of the profile's own errors too.
    """

    value: Floats
    error: Floats


def followed(
    profile: Profile, means: Floats, counts: Floats, times: Floats, *, seen: int = 0
) -> Changes:
    """Return the change that each slice alone tells of, in order; (slices, k).

    Under no change `value / error` has mean 0, a standard deviation of 1 at most, and the slices
    are uncorrelated. A change that stays, of any size, is on average `value`; in the first slice
    that has it, it shows larger than it is, by as much as the noise was foretold.

    Args:
        profile: what is usual.
        means: shape (slices, k), of what `profile` is of, in order of time.
        counts: shape (slices,) or (slices, k); rows that each mean is of.
        times: shape (slices,), the middle of each, seconds since 1970, ascending.
        seen: so many of the first slices only foretell; nothing is returned of them.
    """
    expected, wrong = profile.expected(positions(times))
    gaps = np.diff(times, prepend=times[:1]) / profile.cadence
    found = innovations(profile, means - expected, counts, gaps)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = (found.told / found.moved)[seen:]
        error = np.sqrt(found.variance / found.moved**2 + wrong)[seen:]
    return Changes(value / profile.unit, error / profile.unit)


def changed(
    profile: Profile, left: Floats, counts: Floats, gaps: Floats, wrong: Floats, *, seen: int
) -> Changes:
    """Return the change that all slices but the first `seen` tell of together; (k,).

    It is their generalised least squares estimate, given the slices before them.

    Args:
        profile: what is usual.
        left: shape (slices, k), means less what is expected of them.
        counts: shape (slices, k).
        gaps: shape (slices,), cadences since the slice before.
        wrong: shape (k,), the variance of the expectation's own error.
        seen: how many slices only foretell.
    """
    found = innovations(profile, left, counts, gaps)
    told, moved, variance = (each[seen:] for each in (found.told, found.moved, found.variance))
    there = np.isfinite(told)
    weight = np.where(there, moved / variance, 0.0)
    whole = (weight * np.where(there, moved, 0.0)).sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = (weight * np.where(there, told, 0.0)).sum(axis=0) / whole
        error = np.sqrt(1.0 / whole + wrong)
    value = np.where(whole > 0.0, value, np.nan)
    return Changes(value / profile.unit, np.where(whole > 0.0, error, np.nan) / profile.unit)


@dataclass(frozen=True, slots=True)
class Innovations:
    """What could not be foretold of slices: shapes (slices, k), NaN of slices without rows.

    Of each slice `told` is that, `variance` how much it varies, and `moved` by how much a change
    of 1 that all slices have would have moved it.
    """

    told: Floats
    moved: Floats
    variance: Floats


def innovations(profile: Profile, left: Floats, counts: Floats, gaps: Floats) -> Innovations:
    """Return what could not be foretold of slices; see `changed` for the arguments."""
    counts = np.broadcast_to(counts[:, None] if counts.ndim == 1 else counts, left.shape)
    there = counts > 0
    rows = _sampling(profile, counts) + profile.white
    correlated = bool((profile.phi > 0.0).any())
    if not correlated:
        moved = np.ones_like(left)
        told, variance = left, profile.noise + rows
    else:
        told, moved, variance = _filtered(profile, left, there, rows, gaps)
    return Innovations(*(np.where(there, each, np.nan) for each in (told, moved, variance)))


def lags(profile: Profile, rows: float) -> int:
    """Return how many slices before a slice of `rows` rows foretell it."""
    phi, noise = profile.phi, profile.noise
    some = (phi > 0.0) & (noise > 0.0)
    if not some.any() or rows <= 0.0:
        return 0
    phi, noise, few = phi[some], noise[some], profile.scatter[some] / rows + profile.white[some]
    # The steady state of the filter: a quadratic equation for the forecast's variance.
    new = noise * (1.0 - phi**2)
    half = (few * (1.0 - phi**2) - new) / 2.0
    forecast = -half + np.sqrt(half**2 + new * few)
    gain = np.divide(forecast, forecast + few, out=np.ones_like(few), where=forecast + few > 0.0)
    decay = float((phi * (1.0 - gain)).max())
    return min(LAGS, 1 + (ceil(log(FORGOTTEN) / log(decay)) if decay > FORGOTTEN else 0))


def _sampling(profile: Profile, counts: Floats) -> Floats:
    """Return the variance of means of so many rows; larger where these are skewed and few.

    An e-value exp(z - 1/2) takes z for normal. Of a sum with the skewness g the variance is raised
    by the factor 1 + |g| + g^2: then it is at most 1 on average (checked by its tests).
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        plain = profile.scatter / counts
        skewed = np.abs(profile.skew) / np.sqrt(counts)
        found: Floats = np.where(counts > 0, plain * (1.0 + skewed + skewed**2), 0.0)
    return found


def _filtered(
    profile: Profile, left: Floats, there: NDArray[np.bool_], rows: Floats, gaps: Floats
) -> tuple[Floats, Floats, Floats]:
    told, moved, variance = np.empty_like(left), np.empty_like(left), np.empty_like(left)
    state, of_one = np.zeros(left.shape[1]), np.zeros(left.shape[1])
    unsure = profile.noise.copy()
    for at in range(len(left)):
        kept = profile.phi ** gaps[at] if at else np.ones_like(profile.phi)
        state, of_one = kept * state, kept * of_one
        unsure = kept**2 * unsure + profile.noise * (1.0 - kept**2)
        told[at], moved[at] = left[at] - state, 1.0 - of_one
        variance[at] = unsure + rows[at]
        known = there[at] & (variance[at] > 0.0) & np.isfinite(variance[at])
        gain = np.divide(unsure, variance[at], out=np.zeros_like(unsure), where=known)
        state = state + gain * np.where(there[at], told[at], 0.0)
        of_one = of_one + gain * moved[at]
        unsure = unsure * (1.0 - gain)
    return told, moved, variance
