"""Whether a candidate that gains on the whole does harm to a part of the rows."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from driftloop.sequential import Floats, clustered, t_quantile

MOST = 20
"""Of a column at most so many levels are told apart, the largest."""

Flags = npt.NDArray[np.bool_]
Blocks = npt.NDArray[np.generic]


@dataclass(frozen=True, slots=True, kw_only=True)
class Harmed:
    """How many segments were looked at, and in words which one is worse, empty if none is."""

    looked: int
    worst: str = ""


def harmed(
    mine: Floats,
    theirs: Floats,
    block: Blocks,
    segments: Mapping[str, Sequence[str | None]],
    *,
    least: int,
    tolerance: float,
    confidence: float,
) -> Harmed:
    """Return whether the candidate is worse for certain, beyond `tolerance`, in some segment.

    A segment is a level of a column. The test is one-sided, that the mean of candidate's loss
    - (1 + tolerance) * champion's is above 0: Fieller's form ("Some problems in interval
    estimation", Journal of the Royal Statistical Society B 16, 1954), which needs no ratio, so
    that a champion without error in a segment is no exception. Blocks are counted as by
    `sequential.paired`, and all segments together err as seldom as one end of a two-sided
    interval of `confidence` (Bonferroni).

    Args:
        mine: shape [n]: the candidate's losses.
        theirs: shape [n]: the champion's.
        block: shape [n]: each row's block of time.
        segments: of each column the level of each row, None where it has none.
        least: a level with fewer rows, or rows of one block alone, is not looked at.
        tolerance: by what share the loss of a segment may be larger.
        confidence: of no harm found where there is none.
    """
    found = [
        (name, rows)
        for column, levels in segments.items()
        for name, rows in _levels(column, levels, least)
        if np.unique(block[rows]).size > 1
    ]
    worst, certainty = "", 0.0
    for name, rows in found:
        before, after = theirs[rows], mine[rows]
        beyond = clustered(after - (1.0 + tolerance) * before, block[rows])
        if beyond.mean <= 0.0:
            continue
        needed = t_quantile(1.0 - (1.0 - confidence) / (2 * len(found)), beyond.freedom)
        sure = beyond.mean / beyond.error / needed if beyond.error else math.inf
        if sure > max(certainty, 1.0):
            certainty = sure
            worst = (
                f"{name} is worse for certain: {before.mean():.4g} for the champion,"
                f" {after.mean():.4g} for the candidate on {rows.sum()} rows, and {tolerance:.0%}"
                " more is allowed"
            )
    return Harmed(looked=len(found), worst=worst)


def _levels(column: str, levels: Sequence[str | None], least: int) -> list[tuple[str, Flags]]:
    """Return the largest levels with `least` rows, each with which rows are of it."""
    places: dict[str | None, int] = {}
    codes = np.array([places.setdefault(level, len(places)) for level in levels], np.int64)
    size = np.bincount(codes, minlength=len(places))
    names = list(places)
    return [
        (f"{column} (null)" if names[at] is None else f"{column}={names[at]}", codes == at)
        for at in np.argsort(-size, kind="stable")[:MOST].tolist()
        if size[at] >= least
    ]
