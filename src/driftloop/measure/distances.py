"""Evidently's distances and SciPy's tests, computed on what is sorted and counted already.

Each is what the named function of Evidently 0.7 or SciPy returns on the same values, to rounding
(tests/unit/measure compares them); each takes a fraction of its time.
"""

from collections.abc import Sequence

import numpy as np

from driftloop.measure.apart import gap_and_area
from driftloop.measure.columns import Codes, Floats

EXPECTED = 5.0
"""Least expected count of a cell in a chi-square test (Cochran 1954)."""
EVIDENTLY_FLOOR = 1e-3
"""Evidently divides by no standard deviation below this."""
EMPTY = 1e-4
"""Share that Evidently gives a category which one side lacks."""
FEWEST = 2


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


def jensen_shannon(reference: Codes, current: Codes) -> Floats:
    """Return Evidently's Jensen-Shannon distance (natural logarithm) of counts of categories.

    Args:
        reference: shape (..., categories), how often each stands in the reference.
        current: likewise in the window, in the same order.

    >>> round(float(jensen_shannon(np.array([5, 0]), np.array([0, 5]))) ** 2, 6)  # ln 2
    0.693147
    """
    p, q = _shares(reference), _shares(current)
    middle = (p + q) / 2.0
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = [np.where(side > 0.0, side * np.log(side / middle), 0.0) for side in (p, q)]
    found: Floats = np.sqrt(np.maximum(sum(part.sum(axis=-1) for part in parts), 0.0) / 2.0)
    return found


def psi(reference: Codes, current: Codes) -> Floats:
    """Return Evidently's population stability index of counts of categories.

    A category that one side lacks has a share of 1e-4 there, or of a millionth of the smallest
    share where that is no larger.

    Args:
        reference: shape (..., categories), how often each stands in the reference.
        current: likewise in the window, in the same order.

    >>> round(float(psi(np.array([50, 50]), np.array([75, 25]))), 6)
    0.274653
    """
    p, q = _filled(_shares(reference)), _filled(_shares(current))
    found: Floats = ((p - q) * np.log(p / q)).sum(axis=-1)
    return found


def one_sample_p_value(reference: Codes, current: Codes) -> float:
    """Return Evidently's chi-square score: the p-value of `current` if `reference` were exact.

    It forgets the reference's noise, so that it is too small unless the window is far smaller
    than the reference: `chi_square_p_value` is what can be relied on. A category that the
    reference lacks makes it 0.

    >>> round(one_sample_p_value(np.array([50, 50]), np.array([60, 40])), 4)
    0.0455
    """
    from scipy.special import chdtrc

    expected = reference * (current.sum() / reference.sum())
    with np.errstate(divide="ignore", invalid="ignore"):
        statistic = float(((current - expected) ** 2 / expected).sum())
    return float(chdtrc(len(reference) - 1, statistic)) if len(reference) > 1 else 1.0


def histograms(reference: Floats, current: Floats) -> tuple[Codes, Codes] | None:
    """Return how many values of both sides lie in each of Evidently's bins.

    They are equally wide, as many as Sturges 1926 has for both sides together.

    Args:
        reference: finite values, ascending, at least two of them different.
        current: finite values, ascending, at least one.

    Returns:
        Counts, in order; None where the span of the values overflows.
    """
    first, last = min(reference[0], current[0]), max(reference[-1], current[-1])
    with np.errstate(over="ignore"):
        span = last - first
    if not np.isfinite(span):
        return None
    width = span / (np.log2(len(reference) + len(current)) + 1.0)
    edges = np.linspace(first, last, int(np.ceil(span / width)) + 1)
    return _between(reference, edges), _between(current, edges)


def by_value(values: Floats, counts: Codes, current: Floats) -> tuple[Codes, Codes]:
    """Return how often each value of either side stands on both.

    Args:
        values: the distinct values of the reference, ascending.
        counts: how often each stands there.
        current: finite values.
    """
    theirs, often = np.unique(current, return_counts=True)
    every = np.union1d(values, theirs)
    both: Codes = np.zeros((2, len(every)), dtype=np.int64)
    both[0, np.searchsorted(every, values)] = counts
    both[1, np.searchsorted(every, theirs)] = often
    return both[0], both[1]


def up_to(ascending: Floats, cuts: Floats) -> Codes:
    """Return how many values lie up to each cut and after the one before, then after the last.

    >>> up_to(np.array([1.0, 2.0, 2.0, 5.0]), np.array([2.0, 4.0]))
    array([3, 0, 1])
    """
    return _steps(np.searchsorted(ascending, cuts, side="right"), len(ascending))


def psi_p_values(found: Floats, bins: Codes, sizes: Sequence[tuple[int, int]]) -> Floats:
    """Return p-values of PSIs on bins that hold equal shares of the reference.

    Without a change, PSI / (1/n + 1/m) follows a chi-square distribution with bins - 1 degrees
    of freedom (Yurdakul and Naranjo 2020).

    Args:
        found: shape (columns,), the indices.
        bins: shape (columns,), how many bins each had.
        sizes: how many values each had on either side.
    """
    from scipy.special import chdtrc

    noise = np.array([1.0 / n + 1.0 / m for n, m in sizes])
    p_values: Floats = chdtrc(bins - 1.0, found / noise)
    return p_values


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


def _shares(counts: Codes) -> Floats:
    shares: Floats = counts / counts.sum(axis=-1, keepdims=True)
    return shares


def _filled(shares: Floats) -> Floats:
    least = np.where(shares > 0.0, shares, np.inf).min(axis=-1, keepdims=True)
    filled: Floats = np.where(shares > 0.0, shares, np.where(least <= EMPTY, least / 1e6, EMPTY))
    return filled


def _between(ascending: Floats, edges: Floats) -> Codes:
    # As numpy.histogram has it: the last bin alone holds its upper edge.
    return _steps(np.searchsorted(ascending, edges[1:-1], side="left"), len(ascending))


def _steps(until: Codes, last: int) -> Codes:
    # numpy.diff takes ten times as long for so few.
    steps: Codes = np.empty(len(until) + 1, dtype=np.int64)
    steps[:-1], steps[-1] = until, last
    steps[1:] -= until
    return steps


def _rescaled(reference: Floats, current: Floats) -> tuple[Floats, Floats]:
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        reach = -int(np.frexp(max(abs(reference[0]), abs(reference[-1])))[1])
        reference, current = np.ldexp(reference, reach), np.ldexp(current, reach)
        unit = -int(np.frexp(float(np.std(reference)))[1])
        return np.ldexp(reference, unit), np.ldexp(current, unit)
