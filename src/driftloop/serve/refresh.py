"""A batch table made ready for the online store: the newest row of each key, checked."""

from collections.abc import Iterator, Mapping
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from driftloop.errors import BadRequest
from driftloop.records import FeatureValue
from driftloop.serve.request import LARGEST
from driftloop.spec import Fleet, Source

BATCH = 10_000
INSTANT = pa.timestamp("us", tz="UTC")

Rows = Iterator[tuple[str, tuple[FeatureValue, ...]]]


def wanted_columns(fleet: Fleet, source: str) -> dict[str, str]:
    """Return the columns that features are looked up in, with their kind: numeric or categorical.

    Raises:
        BadRequest: one feature wants a column as a number, another as a category.
    """
    wanted: dict[str, str] = {}
    for family in fleet.families:
        for name, feature in family.looked_up.items():
            if feature.source != source:
                continue
            column = str(feature.of)
            if wanted.setdefault(column, feature.kind) != feature.kind:
                raise BadRequest(
                    f"{source}.{column} is a {wanted[column]} feature elsewhere",
                    where=f"{family.name}.toml: features.{name}",
                    hint="a column is one or the other; let the source's query make two of it",
                )
    return dict(sorted(wanted.items()))


def current_rows(
    source: Source, wanted: Mapping[str, str], table: pa.Table, *, now: datetime
) -> Rows:
    """Yield key and `wanted` values of each key's row, of several the newest by the source's time.

    Rows without a key, and those that are not true before later than `now`, are passed over. NaN
    and infinity are null, and so is an empty category. What is wrong is raised before the first.

    Raises:
        BadRequest: a column is missing or of another kind, without a time a key stands twice, or a
            number is too large for float32; names the column, and the row, the first being 1.
    """
    where = f"source {source.name}"
    needed = [str(source.key), *wanted, *((source.time,) if source.time else ())]
    if missing := [name for name in needed if name not in table.column_names]:
        raise BadRequest(
            f"it has no column {', '.join(missing)}",
            where=where,
            hint=f"it has {', '.join(table.column_names)}",
        )
    columns = {"key": _keys(table, source, where)}
    columns |= {f"v{i}": _values(table, *each, where) for i, each in enumerate(wanted.items())}
    if source.time:
        columns["time"] = _times(table, source.time, where)
    rows = pa.table(columns)
    rows = rows.filter(pc.is_valid(rows["key"]))
    if source.time:
        rows = rows.filter(pc.less_equal(rows["time"], pa.scalar(now, INSTANT)))
        rows = _newest(rows)
    elif (twice := _twice(rows)) is not None:
        raise BadRequest(
            f"the key {twice!r} stands twice",
            where=where,
            hint="say by `time` which row is newer, or let a query leave one",
        )
    return _each(rows.select([name for name in rows.column_names if name != "time"]))


def _each(rows: pa.Table) -> Rows:
    for batch in rows.to_batches(max_chunksize=BATCH):
        keys, *values = (column.to_pylist() for column in batch.columns)
        of_rows = zip(*values, strict=True) if values else ((),) * len(keys)
        yield from zip(keys, of_rows, strict=True)


def _keys(table: pa.Table, source: Source, where: str) -> pa.ChunkedArray:
    column = table[str(source.key)]
    if not (_is_text(column.type) or pa.types.is_integer(column.type)):
        raise BadRequest(
            f"its key {source.key} is {column.type}, and should be text",
            where=where,
            hint="cast it to text in a query",
        )
    keys = _plain(column).cast(pa.string())
    return pc.if_else(pc.equal(keys, ""), pa.scalar(None, pa.string()), keys)


def _values(table: pa.Table, name: str, kind: str, where: str) -> pa.ChunkedArray:
    column = table[name]
    if pa.types.is_null(column.type):
        return column.cast(pa.float64() if kind == "numeric" else pa.string())
    if kind == "numeric" and _is_number(column.type):
        numbers = column.cast(pa.float64(), safe=False)
        numbers = pc.if_else(pc.is_finite(numbers), numbers, pa.scalar(None, pa.float64()))
        row = pc.index(pc.greater(pc.abs(numbers), LARGEST), True).as_py()
        if row >= 0:
            raise BadRequest(
                "is too large for the float32 that models are given",
                where=f"{where}: column {name}, row {row + 1}",
                hint="null stands for an unknown value",
            )
        return numbers
    if kind == "categorical" and _is_text(column.type):
        texts = _plain(column).cast(pa.string())
        return pc.if_else(pc.equal(texts, ""), pa.scalar(None, pa.string()), texts)
    raise BadRequest(
        f"its column {name} is {column.type}, and the features made of it are {kind}",
        where=where,
        hint="cast it in a query, or declare them otherwise",
    )


def _times(table: pa.Table, name: str, where: str) -> pa.ChunkedArray:
    column = table[name]
    if not (pa.types.is_timestamp(column.type) or pa.types.is_date(column.type)):
        raise BadRequest(
            f"its time {name} is {column.type}", where=where, hint="cast it to TIMESTAMPTZ"
        )
    times = column.cast(pa.timestamp("us", tz=getattr(column.type, "tz", None)), safe=False)
    return times.cast(INSTANT)


def _newest(rows: pa.Table) -> pa.Table:
    """Return of each key the row with the largest time, of equal times the last."""
    rows = rows.append_column("place", pa.array(range(rows.num_rows), pa.int64()))
    ordered = rows.sort_by([("key", "ascending"), ("time", "ascending"), ("place", "ascending")])
    keys = ordered["key"].combine_chunks()
    if not len(keys):
        return ordered.drop_columns(["place"])
    last = pc.not_equal(keys[:-1], keys[1:]).to_pylist()
    return ordered.filter(pa.array([*last, True], pa.bool_())).drop_columns(["place"])


def _twice(rows: pa.Table) -> str | None:
    counts = rows["key"].value_counts()
    several = pc.greater(counts.field("counts"), 1)
    place = pc.index(several, True).as_py()
    return None if place < 0 else str(counts.field("values")[place].as_py())


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_number(kind: pa.DataType) -> bool:
    fits = (
        *(pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal),
        pa.types.is_boolean,
    )
    return any(each(kind) for each in fits)
