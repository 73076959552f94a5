"""How latencies are counted: in bins, each a tenth wider than the one before it."""

from math import log

BINS = 160
"""From 10 us to 42 s."""

_FINEST = 1e-5
_GROWTH = 1.1
_PER_BIN = 1.0 / log(_GROWTH)


def bin_of(seconds: float) -> int:
    """Return the number of the bin that `seconds` falls into."""
    if seconds <= _FINEST:
        return 0
    return min(int(log(seconds / _FINEST) * _PER_BIN), BINS - 1)


def upper_end(number: int) -> float:
    """Return the seconds that bin `number` ends with.

    >>> round(upper_end(bin_of(0.001)) * 1e3, 3)
    1.067
    """
    return float(_FINEST * _GROWTH ** (number + 1))
