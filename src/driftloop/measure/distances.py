"""Evidently's distances and SciPy's tests, computed on what is sorted and counted already.

Each is what the named function of Evidently 0.7 or SciPy returns on the same values, to rounding
(tests/unit/measure compares them); each takes a fraction of its time.
"""

from collections.abc import Sequence

import numpy as np

from driftloop.measure.columns import Codes, Floats

EXPECTED = 5.0
"""Least expected count of a cell in a chi-square test (Cochran 1954)."""
EVIDENTLY_FLOOR = 1e-3
"""Evidently divides by no standard deviation below this."""
FEWEST = 2


def gap_and_area(reference: Floats, current: Floats) -> tuple[float, float]:
    """Return the largest gap between two empirical distribution functions, and the area there.

    The gap is the Kolmogorov-Smirnov statistic, the area the first Wasserstein distance.

    Args:
        reference: finite values, ascending, at least one.
        current: likewise.

    >>> gap_and_area(np.array([0.0, 1.0]), np.array([0.0, 3.0]))
    (0.5, 1.0)
    """
    n, m = len(reference), len(current)
    both = np.concatenate([reference, current])
    # Two runs in order: a stable sort merges them.
    order = both.argsort(kind="stable")
    both = both[order]
    before = np.cumsum(order < n)[:-1]
    gaps = np.abs(before / n - (np.arange(1, n + m) - before) / m)
    steps = np.diff(both)
    # Between equal values the functions do not stand still yet.
    gap = gaps.max(where=steps > 0.0, initial=0.0)
    return float(gap), float((gaps * steps).sum())


def wasserstein(reference: Floats, current: Floats, spread: float) -> tuple[float, float]:
    """Return `gap_and_area`, the area over the reference's standard deviation as Evidently has it.

    Evidently's floor under the deviation would hide any shift of a feature with tiny values, and
    squares of huge ones overflow. The distance has no unit and a power of two costs no digit: such
    values are rescaled first.
    """
    if not EVIDENTLY_FLOOR <= spread < np.inf:
        reference, current = _rescaled(reference, current)
        spread = float(np.std(reference))
    with np.errstate(over="ignore", invalid="ignore"):
        gap, area = gap_and_area(reference, current)
    return gap, area / max(spread, EVIDENTLY_FLOOR)


def jensen_shannon(reference: Codes, current: Codes) -> float:
    """Return Evidently's Jensen-Shannon distance (natural logarithm) of counts of categories.

    >>> round(jensen_shannon(np.array([5, 0]), np.array([0, 5])) ** 2, 6)  # ln 2
    0.693147
    """
    p, q = reference / reference.sum(), current / current.sum()
    middle = (p + q) / 2.0
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = [np.where(side > 0.0, side * np.log(side / middle), 0.0) for side in (p, q)]
    return float(np.sqrt(max(sum(part.sum() for part in parts), 0.0) / 2.0))


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

    effective = [float(np.round(n * m / (n + m))) for n, m in sizes]
    found = distributions.kstwo.sf(np.asarray(gaps), np.asarray(effective))
    return [float(each) for each in np.clip(found, 0.0, 1.0)]


def chi_square_p_value(reference: Codes, current: Codes) -> float:
    """Return the p-value of the two-sample chi-square test on counts of the same categories.

    Categories with an expected count below 5 on either side are pooled first, rarest first
    (Cochran 1954); no continuity correction. 1.0 where fewer than two groups remain.

    Args:
        reference: counts of each category in the reference.
        current: counts of each category in the window, in the same order.

    >>> round(chi_square_p_value(np.array([50, 50]), np.array([50, 50])), 3)
    1.0
    """
    from scipy.special import chdtrc

    counts = np.stack([reference, current]).astype(np.float64)
    total = counts.sum(axis=0)
    counts, total = counts[:, total > 0], total[total > 0]
    share = counts.sum(axis=1).min() / counts.sum()
    order = np.argsort(total, kind="stable")
    counts, total = counts[:, order], total[order]
    rare = int(np.searchsorted(total * share, EXPECTED))
    if rare:
        # The pool must itself be large enough: it takes in the next rarest until it is.
        pooled = max(rare, int(np.searchsorted(np.cumsum(total) * share, EXPECTED)) + 1)
        pool = counts[:, :pooled].sum(axis=1, keepdims=True)
        counts = np.hstack([pool, counts[:, pooled:]])
    if counts.shape[1] < FEWEST:
        return 1.0
    expected = counts.sum(axis=1, keepdims=True) * counts.sum(axis=0) / counts.sum()
    statistic = float(((counts - expected) ** 2 / expected).sum())
    return float(chdtrc(counts.shape[1] - 1, statistic))


def _rescaled(reference: Floats, current: Floats) -> tuple[Floats, Floats]:
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        reach = -int(np.frexp(max(abs(reference[0]), abs(reference[-1])))[1])
        reference, current = np.ldexp(reference, reach), np.ldexp(current, reach)
        unit = -int(np.frexp(float(np.std(reference)))[1])
        return np.ldexp(reference, unit), np.ldexp(current, unit)
