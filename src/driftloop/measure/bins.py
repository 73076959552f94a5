"""Columns of any kind as numbered bins, the same on both sides of a comparison."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from driftloop.measure.columns import Codes, Floats, Unmeasurable, numbers, texts
from driftloop.rows import Rows
from driftloop.spec import Family

FEW = 20
"""Up to so many distinct numbers, or so many of the levels, each has a bin of its own."""
TAILS = (0.002, 0.01, 0.025, 0.05)
QUANTILES = (*TAILS, *np.arange(0.1, 0.91, 0.05), *(1.0 - each for each in reversed(TAILS)))
"""Where numbers are cut: finer in the tails, for that is where a shift leaves what was known."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column on one side: `codes` of its bins, and of a number its `values` too.

    `unseen` are the texts that the reference has not; all False for numbers.
    """

    codes: Codes
    values: Floats | None
    unseen: Codes


@dataclass(frozen=True, slots=True)
class Bins:
    """How a column is cut: `said` names each bin, the last is for what has no value.

    `cuts` are the upper bounds of the bins of a number; `exact` says that each bin is one value,
    which stands in `cuts`. `levels` are the texts with a bin of their own, and `known` all texts.
    """

    name: str
    said: tuple[str, ...]
    cuts: Floats | None = None
    exact: bool = False
    levels: pa.Array | None = None
    known: pa.Array | None = None

    @property
    def size(self) -> int:
        """How many bins there are."""
        return len(self.said)

    @property
    def null(self) -> int:
        """The bin of what has no value."""
        return self.size - 1

    def of(self, rows: Rows, at: Codes, *, of: str) -> Column:
        """Return the rows `at` of this column.

        Raises:
            Unmeasurable: the column is not there, or of another kind.
        """
        if self.cuts is not None:
            values = numbers(rows, self.name, of=of)[at]
            return Column(self.coded(values), values, np.zeros(len(at), dtype=np.int64))
        codes, names = texts(rows, self.name, of=of)
        codes = codes[at]
        if self.levels is None or self.known is None:
            raise ValueError(self.name)
        place = pc.index_in(names, value_set=self.levels).fill_null(len(self.levels)).to_numpy()
        new = pc.invert(pc.is_in(names, value_set=self.known)).to_numpy(zero_copy_only=False)
        found = np.append(place.astype(np.int64), self.null)[codes]
        return Column(found, None, np.append(new, False)[codes].astype(np.int64))

    def coded(self, values: Floats) -> Codes:
        """Return the bin of each number; what is not finite has none."""
        if self.cuts is None:
            raise ValueError(self.name)
        if self.exact:
            near = np.clip(np.searchsorted(self.cuts, values), 0, len(self.cuts) - 1)
            found = np.where(self.cuts[near] == values, near, len(self.cuts))
        else:
            found = np.searchsorted(self.cuts, values, side="left")
        return np.where(np.isfinite(values), found, self.null).astype(np.int64)


def bins_of(family: Family, rows: Rows) -> Mapping[str, Bins]:
    """Return how each watched feature is cut, by the rows of a reference.

    A column that the reference cannot tell anything of is left out.
    """
    found: dict[str, Bins] = {}
    for name in (*family.numbers, *family.categorical):
        try:
            cut = _levels if name in family.categorical else _numbers
            found[name] = cut(name, rows)
        except Unmeasurable:
            continue
    return found


def counts(codes: Codes, size: int) -> Floats:
    """Return how many rows are in each of `size` bins."""
    return np.bincount(codes, minlength=size).astype(np.float64)


def sums(codes: Codes, weights: Floats, size: int) -> Floats:
    """Return the sum of `weights` in each of `size` bins."""
    found: Floats = np.bincount(codes, weights=weights, minlength=size).astype(np.float64)
    return found


def _numbers(name: str, rows: Rows) -> Bins:
    values = numbers(rows, name, of="the reference")
    values = values[np.isfinite(values)]
    if not len(values):
        raise Unmeasurable(f"{name} has no values")
    distinct = np.unique(values)
    if len(distinct) <= FEW:
        said = (*(f"{name}={value:.4g}" for value in distinct), f"another {name}")
        return Bins(name, (*said, f"no {name}"), cuts=distinct, exact=True)
    cuts = np.unique([*np.quantile(values, QUANTILES), distinct[-1]])
    bounds = [f"{cut:.4g}" for cut in cuts]
    said = (
        f"{name} up to {bounds[0]}",
        *(f"{name} from {low} to {high}" for low, high in pairwise(bounds)),
        f"{name} above {bounds[-1]}",
    )
    return Bins(name, (*said, f"no {name}"), cuts=cuts)


def _levels(name: str, rows: Rows) -> Bins:
    codes, names = texts(rows, name, of="the reference")
    count = np.bincount(codes[codes >= 0], minlength=len(names))
    if not count.sum():
        raise Unmeasurable(f"{name} has no values")
    largest = np.argsort(-count, kind="stable")[:FEW]
    levels = names.take(pa.array(largest))
    said: Sequence[str] = [f"{name}={level}" for level in levels.to_pylist()]
    return Bins(name, (*said, f"another {name}", f"no {name}"), levels=levels, known=names)
