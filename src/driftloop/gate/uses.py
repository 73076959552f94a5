"""How often earlier attempts have used a row that the gate judges by."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """The events from the first to the last that an attempt compared labelled rows of."""

    start: datetime
    end: datetime


def uses(at: npt.NDArray[np.datetime64], earlier: Sequence[Span]) -> Ints:
    """Return shape [n]: how many of the `earlier` attempts have used each row.

    A row counts as used by whoever had rows before it and after it, labelled then or not: that is
    to the safe side.

    Args:
        at: shape [n]: the rows' event times, in UTC.
        earlier: what attempts of the same model were compared on.

    >>> day = np.datetime64("2013-03-01") + np.arange(4)
    >>> before = Span(start=datetime(2013, 3, 1, tzinfo=UTC), end=datetime(2013, 3, 2, tzinfo=UTC))
    >>> uses(day, [before, before]).tolist()
    [2, 2, 0, 0]
    """
    begun = np.sort(_moments([span.start for span in earlier]))
    ended = np.sort(_moments([span.end for span in earlier]))
    moment = at.astype("datetime64[us]")
    counted: Ints = np.searchsorted(begun, moment, "right") - np.searchsorted(ended, moment, "left")
    return counted.astype(np.int64)


def _moments(times: Sequence[datetime]) -> npt.NDArray[np.datetime64]:
    plain = [time.astimezone(UTC).replace(tzinfo=None) for time in times]
    return np.array(plain, "datetime64[us]")
