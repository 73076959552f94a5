"""Rows of which some are chosen."""

import pyarrow as pa

from driftloop.rows import chosen


def test_chosen_rows_are_those_that_a_filter_leaves() -> None:
    """Column by column; null chooses nothing, and all of them are the rows as they are."""
    table = pa.table({"a": [1.0, 2.0, None, 4.0], "b": ["w", "x", "y", "z"]})
    mask = pa.chunked_array([[True, None], [True, False]])
    rows = chosen(table, mask)
    left = table.filter(mask)
    assert rows.num_rows == left.num_rows == 2
    assert rows.column_names == ["a", "b"]
    assert [rows.column(name) for name in ("a", "b")] == left.columns
    assert chosen(table, pa.chunked_array([[True] * 4])) is table
    assert chosen(table, pa.chunked_array([[False] * 4])).num_rows == 0
    empty = table.slice(0, 0)
    assert chosen(empty, pa.chunked_array([], pa.bool_())).num_rows == 0
