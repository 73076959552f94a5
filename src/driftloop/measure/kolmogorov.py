"""How sure a gap between two empirical distribution functions is: Kolmogorov and Smirnov's test."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from driftloop.measure.columns import Floats

FEW, NO_GAP, HALF, FAR, CERTAIN = 140.0, 1.4, 0.5, 2.2, 370.0
"""Where Simard and L'Ecuyer 2011, and SciPy with them, go over to another method."""


def ks_p_values(gaps: Sequence[float], sizes: Sequence[tuple[int, int]]) -> list[float]:
    """Return the asymptotic p-values of two-sample Kolmogorov-Smirnov tests.

    Source: Hodges 1958, as in `scipy.stats.ks_2samp(method="asymp")`; two-sided.

    Args:
        gaps: the statistic of each test.
        sizes: how many values each test had on either side.
    """
    if not gaps:
        return []
    from scipy.stats import distributions

    gap = np.asarray(gaps, dtype=np.float64)
    n = np.array([float(np.round(n * m / (n + m))) for n, m in sizes])
    # SciPy takes 0.1 to 2 ms for each of these; the rest are rare.
    many = (n > FEW) & (n * gap**1.5 > NO_GAP) & (gap < HALF)
    near, far = many & (n * gap**2 < FAR), many & (n * gap**2 >= FAR)
    found = np.empty_like(gap)
    found[near] = _pelz_good(n[near], gap[near])
    found[far] = [_twice_smirnov(int(each), x) for each, x in zip(n[far], gap[far], strict=True)]
    found[~many] = distributions.kstwo.sf(gap[~many], n[~many])
    return [float(each) for each in np.clip(found, 0.0, 1.0)]


def _pelz_good(n: Floats, gap: Floats) -> Floats:
    """Return the upper tail of Kolmogorov's statistic, n > 140 (Pelz and Good 1976)."""
    pi2 = np.pi**2
    z = (np.sqrt(n) * gap)[:, np.newaxis]
    z2 = z * z
    odd = (2.0 * np.arange(1, 9) - 1.0) ** 2
    fade = np.exp(-odd * pi2 / (8.0 * z2))
    one = odd * (pi2 / 4.0)  # powers of (pi (2k - 1) / 2)^2
    two, three = one * one, one * one * one
    zeroth = fade.sum(axis=1)
    first = (fade * (one - z2)).sum(axis=1)
    second = (
        fade * (6.0 * z2**3 + 2.0 * z2**2 + one * (2.0 * z2**2 - 5.0 * z2) + two * (1.0 - 2.0 * z2))
    ).sum(axis=1)
    third = (
        fade
        * (
            -30.0 * z2**3
            - 90.0 * z2**4
            + one * (135.0 * z2**2 - 96.0 * z2**3)
            + two * (212.0 * z2**2 - 60.0 * z2)
            + three * (5.0 - 30.0 * z2)
        )
    ).sum(axis=1)
    whole = np.arange(1, 9.0) ** 2 * pi2
    fade = np.exp(-whole / (2.0 * z2))
    more_second = (fade * whole).sum(axis=1)
    more_third = (fade * whole * (3.0 * z2 - whole)).sum(axis=1)
    z, z2 = z[:, 0], z2[:, 0]
    below = (
        zeroth / z
        + first / (6.0 * z2**2 * np.sqrt(n))
        + (second / (72.0 * z**7) - more_second / (36.0 * z**3)) / n
        + (third / (6480.0 * z2**5) + more_third / (216.0 * z2**3)) / n**1.5
    )
    tail: Floats = 1.0 - np.sqrt(2.0 * np.pi) * below
    return tail


def _twice_smirnov(n: int, gap: float) -> float:
    """Return twice the one-sided tail (Birnbaum and Tingey 1951): the tail of the two-sided one."""
    if n * gap**2 >= CERTAIN:
        return 0.0
    j = np.arange(int(n * (1.0 - gap)) + 1)
    with np.errstate(divide="ignore"):
        terms = _log_binomials(n)[: len(j)] + (j - 1) * np.log(gap + j / n)
        terms += (n - j) * np.log(np.maximum(1.0 - gap - j / n, 0.0))
    return float(2.0 * gap * np.exp(terms).sum())


@lru_cache(maxsize=8)
def _log_binomials(n: int) -> Floats:
    from scipy.special import gammaln

    j = np.arange(n + 1.0)
    logs: Floats = gammaln(n + 1.0) - gammaln(j + 1.0) - gammaln(n - j + 1.0)
    return logs
