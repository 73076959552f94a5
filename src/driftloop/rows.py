"""Rows as they are measured: one column at a time, so that not all of them need be held."""

from collections.abc import Sequence
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc

from driftloop.records import Span


class Rows(Protocol):
    """Columns of equal length, all in one order; a `pa.Table` is such rows as it stands."""

    @property
    def num_rows(self) -> int:
        """How many rows there are."""
        ...

    @property
    def column_names(self) -> list[str]:
        """What columns there are."""
        ...

    def column(self, name: str) -> pa.ChunkedArray:
        """Return one column; it may be read anew at each call."""
        ...


def chosen(rows: Rows, mask: pa.ChunkedArray) -> Rows:
    """Return those of `rows` for which `mask` is true; null is not.

    Columns are cut when they are asked for: of a champion's own rows only few ever are.
    """
    count = pc.sum(mask, min_count=0).as_py()
    return rows if count == rows.num_rows else _Chosen(rows, mask, count)


def outside(rows: pa.Table, spans: Sequence[Span]) -> pa.Table:
    """Return the rows whose event is in none of `spans`."""
    for span in spans:
        before = pc.less(rows["event_time"], pa.scalar(span.start))
        after = pc.greater_equal(rows["event_time"], pa.scalar(span.end))
        rows = rows.filter(pc.or_(before, after))
    return rows


class _Chosen:
    def __init__(self, rows: Rows, mask: pa.ChunkedArray, count: int) -> None:
        self._rows = rows
        self._mask = mask
        self.num_rows = count
        self.column_names = rows.column_names

    def column(self, name: str) -> pa.ChunkedArray:
        return self._rows.column(name).filter(self._mask)
