"""Evidence that adds up: how sure it is by now that something changed, however often one looks.

An e-detector in the manner of Shiryaev and Roberts (Shin, Ramdas and Rinaldo 2023, "E-detectors",
section 2) for each direction of each stream of fresh readings:

    M(t) = (M(t-1) + w(t)) * L(t)

where w(t) is known before the look and L(t) is an e-value: while the change is no larger than half
the floor that matters, its mean given all before is at most 1. Then M(t) less the sum of w is a
supermartingale, and a page at any time that M is 1 or more, after which M begins anew, makes at
most as many false pages on average as the sum of w: however often one looks, when one stops, and
however the streams depend on one another. Weight flows in for ever, so that it never dies out.

So what pages is certainly beyond half the floor (`CERTAIN`); when, among all times at which that is
so, is free to choose, and it is when the newest reading is at the whole floor or beyond.

What is assumed is that a reading's value is unbiased given the past, up to there, that its
standard error is not understated by more than a sixth (`INFLATION`), and that a row's own noise is
no heavier than a Gamma's (`SKEW`). Serial dependence is dealt with where readings are made.
Pure.
"""

import numpy as np
from numpy.typing import NDArray

from driftloop.records import Z90

Floats = NDArray[np.float64]

BETS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""How large a change, in standard errors of a look, each part of the evidence bets on.

Neighbours are a factor of 2 apart: what lies between loses at most a ninth of its growth.
"""
INFLATION = 1.2
"""Standard errors are taken for so much larger than they are said to be."""
SKEW = 2.0
"""Scale of the noise of one row, in its standard deviations: that of an exponential is 1."""
TAME = 4.0
"""No bet tilts a single row by more than its standard deviation over this."""
CERTAIN = 0.5
"""The part of its floor that a change is to be beyond for certain.

Were it the whole, a change of 1.1 floors would take for ever, and one of 2 be bet on as one of 1.
"""
MOST = 50.0
"""What one look may add, as a logarithm: more would only overflow."""
ENOUGH = 1e9
"""Nor is a mass ever more: 1 is a page."""
DIGITS = 3
"""Digits of a mass that are kept: what is cut off makes it smaller, which is safe."""

_BETS = np.array(BETS)
_POWERS = 10.0 ** np.arange(23)


def errors(low: Floats, high: Floats) -> Floats:
    """Return the standard errors that 90 % intervals say, inflated; NaN where they say none.

    Args:
        low: lower ends, any shape.
        high: upper ends, likewise.
    """
    found = (high - low) * (INFLATION / (2.0 * Z90))
    return np.where(found > 0.0, found, np.nan)


def growth(z: Floats, n: Floats) -> Floats:
    """Return the logarithm of what a look multiplies each bet by.

    For a bet b that is b*z - b^2/2 where noise is Gaussian, and less for few rows: there b is at
    most sqrt(n) / `TAME`, and the second term is b^2 / (2 (1 - c b)) with c = `SKEW` / sqrt(n),
    which holds for any noise that is sub-gamma at that scale (Boucheron, Lugosi and Massart 2013,
    section 2.4). A single row, however far out, proves little.

    Args:
        z: how far a reading is beyond the floor that matters, in standard errors, shape (...).
        n: rows that it was made of, at least 1; shape (...) or less.

    Returns:
        shape (..., bets), at most `MOST`.

    >>> growth(np.array([3.0]), np.array([10_000.0])).round(2).tolist()
    [[0.72, 1.37, 2.49, 3.92, 3.3]]
    """
    root = np.sqrt(n)[..., None]
    bets = np.minimum(_BETS, root / TAME)
    spent = bets * bets / (2.0 * (1.0 - SKEW * bets / root))
    return np.asarray(np.minimum(bets * z[..., None] - spent, MOST), dtype=np.float64)


def grown(mass: Floats, z: Floats, weight: Floats | float, n: Floats) -> Floats:
    """Return the masses after one more look; NaN in `z` is a look that saw nothing: no inflow.

    What was there grows bet by bet; what comes in grows by the mean over the bets, and is then
    spread over them evenly:

        M_b(t) = M_b(t-1) * L_b(t) + w(t)/B * (L_1(t) + ... + L_B(t))/B

    Their sum is what it would be if each bet kept what it made of its own w/B: so its mean given
    the past is at most the sum before plus w(t), as that of each L_b is at most 1. The same holds
    at the next look, whatever the bets then have of the sum, as that is known by then. Only the sum
    counts for the budget; how the bets share it is free. Even shares help where the first look
    shows more than those after: where slices foretell one another, a change is new once.

    Vectorised: leading axes may be models, streams and directions, in one call.

    Args:
        mass: before, in false pages, shape (..., bets).
        z: as in `growth`, shape (...).
        weight: false pages that the budget gives this direction of this stream for this look.
        n: as in `growth`.

    >>> before, sure = np.zeros((1, 5)), np.array([9.0])
    >>> bool(grown(before, sure, 1e-6, np.array([5000.0])).sum() > 1)
    True
    """
    seen = ~np.isnan(z)
    share = np.where(seen, np.asarray(weight) / len(BETS), 0.0)
    with np.errstate(under="ignore"):
        change = np.exp(np.where(seen[..., None], growth(z, n), 0.0))
        come = share * (change.sum(axis=-1) / len(BETS))
        return np.asarray(np.minimum(mass * change + come[..., None], ENOUGH), dtype=np.float64)


def named(masses: Floats) -> NDArray[np.intp]:
    """Return which of the streams are named when their masses together have reached 1.

    By the e-BH rule (Wang and Ramdas 2022): the k largest for the largest k at which the k-th is at
    least 1/k. So the share of what is named wrongly, summed over all pages, is on average no more
    than the budget either. Where no k fits, the evidence lies in many that are weak alone, and the
    largest is named, which that share does not count.

    Args:
        masses: shape (streams,).

    >>> named(np.array([0.1, 40.0, 0.0, 0.6])).tolist(), named(np.array([0.4, 0.3, 0.35])).tolist()
    ([1, 3], [0])
    """
    order = np.argsort(-masses, kind="stable")
    enough = np.flatnonzero(masses[order] * np.arange(1, len(order) + 1) >= 1.0)
    return order[: enough[-1] + 1] if len(enough) else order[:1]


def kept(mass: Floats, weight: Floats | float) -> Floats:
    """Return masses as they are kept: cut to three digits, and 0 below what a look gives anyway.

    Both make them smaller, and so fewer pages; what is dropped costs a change that is found later
    at most a factor of 2 of what it begins with.

    Args:
        mass: shape (..., bets).
        weight: as in `grown`.

    >>> kept(np.array([0.123456, 3.4567e-7, 1e-12]), 5e-8).tolist()
    [0.123, 3.45e-07, 0.0]
    """
    worth = mass > np.maximum(np.asarray(weight)[..., None] / len(BETS), 1e-19)
    found = np.zeros_like(mass)
    # Of what is clean nearly nothing is left.
    safe = mass[worth]
    down = np.floor(np.log10(safe)).astype(np.intp)
    power = _POWERS[np.minimum(np.maximum(DIGITS - 1 - down, 0), len(_POWERS) - 1)]
    # What was cut before stays what it is.
    found[worth] = np.floor(safe * power * (1.0 + 1e-12)) / power
    return found
