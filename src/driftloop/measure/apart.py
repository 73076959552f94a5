"""How far two columns in order lie apart: one walk over both, compiled by Numba.

Where Numba is not to be had, NumPy says the same at several times the cost.
"""

import logging
from collections.abc import Callable
from functools import cache

import numpy as np

from driftloop.measure.columns import Floats

BLOCK = 1024
"""Values that are summed up before their sum is added: rounding then grows with the blocks."""
_log = logging.getLogger(__name__)

Walk = Callable[[Floats, Floats], tuple[float, float]]


def gap_and_area(reference: Floats, current: Floats) -> tuple[float, float]:
    """Return the largest gap between two empirical distribution functions, and the area there.

    The gap is the Kolmogorov-Smirnov statistic, the area the first Wasserstein distance.

    Args:
        reference: finite values, ascending, at least one.
        current: likewise.

    >>> gap_and_area(np.array([0.0, 1.0]), np.array([0.0, 3.0]))
    (0.5, 1.0)
    """
    return _walk()(reference, current)


def in_numpy(reference: Floats, current: Floats) -> tuple[float, float]:
    """Return what `gap_and_area` does, without Numba.

    >>> in_numpy(np.array([0.0, 1.0]), np.array([0.0, 3.0]))
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


@cache
def _walk() -> Walk:
    try:
        from numba import njit
    except ImportError as error:
        _log.warning("columns are compared by NumPy, because Numba does not import: %s", error)
        return in_numpy
    compiled: Walk = njit(cache=True, nogil=True)(_loop)
    return compiled


def _loop(reference: Floats, current: Floats) -> tuple[float, float]:
    n, m = len(reference), len(current)
    each, every = 1.0 / n, 1.0 / m
    i = j = 0
    gap = area = 0.0
    at = min(reference[0], current[0])
    for first in range(0, n + m, BLOCK):
        part = 0.0
        for _ in range(first, min(first + BLOCK, n + m)):
            left = reference[i] if i < n else np.inf
            right = current[j] if j < m else np.inf
            apart = abs(i * each - j * every)
            value = min(left, right)
            step = value - at
            part += apart * step
            gap = max(gap, apart if step > 0.0 else 0.0)
            at = value
            # No branch here that a processor could guess wrong.
            mine = left <= right
            i += mine
            j += not mine
        area += part
    return gap, area
