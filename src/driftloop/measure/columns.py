"""Columns of rows as NumPy arrays, or in words why they cannot be had."""

from collections.abc import Callable, Mapping
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from driftloop.records import Task
from driftloop.rows import Rows
from driftloop.spec import Family

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]


class Unmeasurable(Exception):
    """A number cannot be had of these data; `str()` says why. Never leaves the room.

    `n` counts the rows that could be used.
    """

    def __init__(self, problem: str, *, n: int = 0) -> None:
        """Keep the problem and the count."""
        self.n = n
        super().__init__(problem)


def numbers(table: Rows, name: str, *, of: str) -> Floats:
    """Return a column as float64, null as NaN, infinities kept; `of` names the table.

    Of a text it is what is told of it in numbers: "comment.length" in characters,
    "comment.words", which are what white space parts, or "comment.non_ascii", the share of its
    characters that are not in ASCII.

    Raises:
        Unmeasurable: there are no rows, no such column, or it is not numeric (for what is told of
            a text: not text).
    """
    text, _, told = name.partition(".")
    if told:
        found = _TOLD[told](_text(_column(table, text, of=of), text, of=of))
        summary: Floats = found.cast(pa.float64()).to_numpy()
        return summary
    column = _column(table, name, of=of)
    if not (_is_number(column.type) or pa.types.is_null(column.type)):
        raise Unmeasurable(f"{name} is {column.type} in {of}, not a number")
    values: Floats = column.cast(pa.float64(), safe=False).to_numpy()
    return values


def texts(table: Rows, name: str, *, of: str) -> tuple[Codes, pa.Array]:
    """Return a column as codes, null as -1, and the text of each code in order of appearance.

    Raises:
        Unmeasurable: there are no rows, no such column, or it is not text.
    """
    column = _text(_column(table, name, of=of), name, of=of)
    encoded = column.dictionary_encode().combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.chunk(0)
    codes: Codes = encoded.indices.fill_null(-1).to_numpy().astype(np.int64)
    return codes, encoded.dictionary


def counted(codes: Codes, names: pa.Array, known: pa.Array) -> Codes:
    """Return how often each text stands in a column: first the `known`, then the new ones.

    Args:
        codes: as `texts` returns them, with `names`.
        names: likewise.
        known: distinct texts.
    """
    counts = np.bincount(codes[codes >= 0], minlength=len(names)).astype(np.int64)
    at = pc.index_in(names, value_set=known).fill_null(-1).to_numpy()
    shared: Codes = np.zeros(len(known), dtype=np.int64)
    shared[at[at >= 0]] = counts[at >= 0]
    return np.concatenate([shared, counts[at < 0]])


def measured_columns(family: Family) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the columns that are compared with a reference: numbers, and categories.

    The prediction is one of the first, or of a multiclass family one of the second.
    """
    if family.task is Task.MULTICLASS:
        return family.numbers, (*family.categorical, "prediction")
    return (*family.numbers, "prediction"), family.categorical


def categories(family: Family, rows: Rows, name: str, *, of: str) -> tuple[Codes, pa.Array]:
    """Return what `texts` does of a column of categories, predicted classes by name among them.

    Raises:
        Unmeasurable: as for `texts`, or a prediction is the index of none of the classes.
    """
    if name in family.measured:
        return texts(rows, name, of=of)
    values = numbers(rows, name, of=of)
    if odd := np.count_nonzero(no_class(values, family)):
        raise Unmeasurable(
            f"{odd} of {len(values)} predictions are none of the {len(family.classes)} classes"
            f" in {of}"
        )
    codes = np.full(len(values), -1, dtype=np.int64)
    known = ~np.isnan(values)
    # Only the classes that are there, as of texts: what is on neither side is no category.
    seen, codes[known] = np.unique(values[known].astype(np.int64), return_inverse=True)
    return codes, pa.array(family.classes, pa.string()).take(pa.array(seen))


def no_class(values: Floats, family: Family) -> NDArray[np.bool_]:
    """Return which values are the index of none of the family's classes; NaN is none's fault."""
    known = np.isin(values, np.arange(len(family.classes)))
    found: NDArray[np.bool_] = ~(known | np.isnan(values))
    return found


def check_outcomes(family: Family, label: Floats, prediction: Floats, n: int) -> None:
    """Refuse labels and predictions that cannot be of the family's task; `n` rows have labels.

    Raises:
        Unmeasurable: says how many there are, and what they are not.
    """
    if family.task is Task.BINARY:
        odd = int(np.count_nonzero((label != 0.0) & (label != 1.0)))
        if odd:
            raise Unmeasurable(f"{odd} of {len(label)} labels are neither 0 nor 1", n=n)
    if family.task is Task.MULTICLASS:
        for name, values in (("labels", label), ("predictions", prediction)):
            if odd := int(np.count_nonzero(no_class(values, family))):
                raise Unmeasurable(
                    f"{odd} of {len(values)} {name} are none of the {len(family.classes)} classes",
                    n=n,
                )


def nulls(table: Rows, name: str, *, of: str) -> int:
    """Return how many rows have no value; NaN is none, infinity is one.

    Raises:
        Unmeasurable: there are no rows, or no such column.
    """
    column = _column(table, name, of=of)
    if not pa.types.is_floating(column.type):
        return int(column.null_count)
    values = column.to_numpy()  # null is NaN there
    return int(np.count_nonzero(np.isnan(values)))


def blocks(table: Rows, length: timedelta) -> Codes | None:
    """Return each event's block of `length`, counted from 1970; None where that is unknown."""
    if "event_time" not in table.column_names:
        return None
    times = table.column("event_time")
    if not pa.types.is_timestamp(times.type) or times.null_count:
        return None
    at = times.cast(pa.timestamp("us", tz=times.type.tz), safe=False).cast(pa.int64())
    return np.asarray(at.to_numpy() // (length // timedelta(microseconds=1)), dtype=np.int64)


def _non_ascii(column: pa.ChunkedArray) -> pa.ChunkedArray:
    found = pc.count_substring_regex(column, pattern=r"[^\x00-\x7f]").cast(pa.float64())
    # An empty text has none.
    return pc.divide(found, pc.max_element_wise(pc.utf8_length(column), 1, skip_nulls=False))


_TOLD: Mapping[str, Callable[[pa.ChunkedArray], pa.ChunkedArray]] = {
    "length": pc.utf8_length,
    "words": lambda column: pc.count_substring_regex(column, pattern=r"\S+"),
    "non_ascii": _non_ascii,
}
"""What is told of texts; `spec.TOLD` names them."""


def _column(table: Rows, name: str, *, of: str) -> pa.ChunkedArray:
    try:
        # Not looked for among all names: with many columns that takes longer than all the rest.
        column = table.column(name)
    except KeyError:
        raise Unmeasurable(f"{name} is missing in {of}") from None
    if not table.num_rows:
        raise Unmeasurable(f"{of} has no rows")
    return column


def _is_number(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_floating(kind)
        or pa.types.is_integer(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_decimal(kind)
    )


def _text(column: pa.ChunkedArray, name: str, *, of: str) -> pa.ChunkedArray:
    try:
        return column.cast(pa.string())
    except pa.ArrowException as error:
        raise Unmeasurable(f"{name} is {column.type} in {of}, not text") from error
