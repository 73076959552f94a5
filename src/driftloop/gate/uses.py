"""How often earlier attempts have used a row that the gate judges by."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """The events from the first to the last that an attempt compared labelled rows of."""

    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Uses:
    """How many earlier attempts used each of n rows: of all, and of those that brought a new block.

    `new` is None where this attempt brings none itself: of its newest block of time, as a day,
    earlier attempts have used rows already.
    """

    all: Ints
    new: Ints | None


def uses(at: npt.NDArray[np.datetime64], earlier: Sequence[Span], *, block: timedelta) -> Uses:
    """Return how many of the `earlier` attempts have used each row.

    A row counts as used by whoever had rows before it and after it, labelled then or not: that is
    to the safe side.

    Args:
        at: shape [n]: the rows' event times, in UTC.
        earlier: what attempts of the same model were compared on, oldest attempt first.
        block: length of the blocks that rows near in time form, counted from 1970.

    >>> day = np.datetime64("2013-03-01") + np.arange(4)
    >>> before = Span(start=datetime(2013, 3, 1, tzinfo=UTC), end=datetime(2013, 3, 2, tzinfo=UTC))
    >>> found = uses(day, [before, before], block=timedelta(days=1))
    >>> found.all.tolist(), found.new.tolist()
    ([2, 2, 0, 0], [1, 1, 0, 0])
    """
    moment = at.astype("datetime64[us]").astype(np.int64)
    begun = _moments([span.start for span in earlier])
    ended = _moments([span.end for span in earlier])
    length = block // _MICROSECOND
    blocks = ended // length
    newest = np.maximum.accumulate(blocks)
    brought = np.r_[True, blocks[1:] > newest[:-1]] if blocks.size else np.zeros(0, bool)
    mine = moment // length
    brings = not blocks.size or bool((mine > newest[-1]).any())
    return Uses(
        all=_counted(moment, begun, ended),
        new=_counted(moment, begun[brought], ended[brought]) if brings else None,
    )


def _counted(moment: Ints, begun: Ints, ended: Ints) -> Ints:
    """Return how many spans each moment lies in, both ends included."""
    started = np.searchsorted(np.sort(begun), moment, "right")
    over = np.searchsorted(np.sort(ended), moment, "left")
    return (started - over).astype(np.int64)


def _moments(times: Sequence[datetime]) -> Ints:
    """Return microseconds since 1970."""
    return np.array([(time - _EPOCH) // _MICROSECOND for time in times], np.int64)
