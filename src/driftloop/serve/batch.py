"""A table scored by one version, through the slot that online answers from, and logged."""

import hashlib
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc

from driftloop.errors import BadRequest, LogError
from driftloop.ports import Clock, Spool
from driftloop.records import ModelId
from driftloop.serve.answer import answer
from driftloop.serve.request import (
    AHEAD,
    EARLIEST,
    LARGEST,
    LONGEST_TEXT,
    Row,
    nearest,
    read_time,
    untimely,
)
from driftloop.serve.slot import Slot
from driftloop.spec import Family, Feature

INSTANT = pa.timestamp("us", tz="UTC")


def predict_batch(
    table: pa.Table,
    *,
    family: Family,
    model: ModelId,
    slot: Slot,
    spool: Spool,
    clock: Clock,
    chunk: int = 10_000,
) -> pa.Table:
    """Return the predictions of `table`, in its order, all by the version in hand at the start.

    `table` has the family's time column (timestamps or ISO 8601 text, with a zone) and features,
    and may have `id`. A feature that is not required may be left out and is null. The whole table
    is checked before its first row is logged. Rows go to the spool `chunk` at a time.

    An id that is not given is made of the table and the row's place in it: the same table gets the
    same ids again. So it may be scored again after an error in its middle: a row that is logged
    twice is in the log once, and counts as a duplicate.

    Returns:
        id (string), event_time (timestamp[us, UTC]), prediction (float64, or the name of a class),
        version (int32) and epoch (int64).

    Raises:
        BadRequest: names the column, and the row where one is at fault, the first being 1.
        NoChampion: the model has no champion yet.
        ArtifactError: the model failed.
        LogError: the spool took no more; says how many rows are logged.
    """
    held = slot.hand()
    rows = _checked(table, family, model, now=clock.now())
    answered: list[float | str] = []
    for start in range(0, rows.num_rows, chunk):
        now = clock.now()
        predictions = answer(held, family, _rows(rows.slice(start, chunk), family), now=now)
        try:
            spool.predictions(family.name, predictions)
        except (LogError, OSError) as error:
            raise LogError(
                f"{start:,} of {rows.num_rows:,} rows were logged, and then no more: {error}",
                where=model,
                hint="score the same rows again: they keep their ids, and are in the log once",
            ) from error
        answered += [family.shown(prediction.prediction) for prediction in predictions]
    size = rows.num_rows
    return pa.table(
        {
            "id": rows["id"],
            "event_time": rows["event_time"],
            "prediction": pa.array(answered, pa.string() if family.classes else pa.float64()),
            "version": pa.array([held.head.version] * size, pa.int32()),
            "epoch": pa.array([held.head.epoch] * size, pa.int64()),
        }
    )


def _rows(table: pa.Table, family: Family) -> list[Row]:
    ids, times = table["id"].to_pylist(), table["event_time"].to_pylist()
    features = [
        dict(zip(family.features, values, strict=True))
        for values in zip(*(table[name].to_pylist() for name in family.features), strict=True)
    ]
    return [Row(*row) for row in zip(ids, times, features, strict=True)]


def _checked(table: pa.Table, family: Family, model: ModelId, *, now: datetime) -> pa.Table:
    """Return `table` with columns id, event_time and every feature, in the types of the log."""
    known = ("id", family.time, *family.features)
    for name in table.column_names:
        if name not in known:
            raise _fault(model, name, "unknown column", nearest(name, known))
        if table.column_names.count(name) > 1:
            raise _fault(model, name, "stands twice in the table")
    needed = [family.time, *(n for n, f in family.features.items() if f.required)]
    for name in needed:
        if name not in table.column_names:
            raise _fault(model, name, "the column is missing")
    columns = {"event_time": _times(table, family.time, model, now)}
    for name, feature in family.features.items():
        if name not in table.column_names:
            kind = pa.float64() if feature.kind == "numeric" else pa.string()
            columns[name] = pa.nulls(table.num_rows, kind)
            continue
        columns[name] = _column(table[name], name, model, feature)
        if feature.required:
            _refuse_first(pc.is_null(columns[name]), name, model, "is required and null")
    return pa.table({"id": _ids(table, pa.table(columns), model), **columns})


def _column(
    column: pa.ChunkedArray, name: str, model: ModelId, feature: Feature
) -> pa.ChunkedArray:
    if feature.kind == "numeric":
        return _numbers(column, name, model, required=feature.required)
    texts = _strings(column, name, model)
    if feature.kind == "text":
        beyond = pc.greater(pc.utf8_length(texts), LONGEST_TEXT)
        _refuse_first(beyond, name, model, f"has more than {LONGEST_TEXT:,} characters")
        return texts
    return pc.if_else(pc.equal(texts, ""), pa.scalar(None, pa.string()), texts)


def _numbers(
    column: pa.ChunkedArray, name: str, model: ModelId, *, required: bool
) -> pa.ChunkedArray:
    kind = column.type
    usable = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_null)
    if not any(fits(kind) for fits in usable):
        raise _fault(model, name, f"should be numbers, and is {kind}")
    numbers = column.cast(pa.float64(), safe=False)
    hint = "it is required" if required else "null stands for an unknown value"
    _refuse_first(pc.is_nan(numbers), name, model, "is NaN", hint)
    beyond = pc.greater(pc.abs(numbers), LARGEST)
    _refuse_first(beyond, name, model, "is infinite, or too large for float32")
    return numbers


def _strings(column: pa.ChunkedArray, name: str, model: ModelId) -> pa.ChunkedArray:
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if not (_is_text(kind) or pa.types.is_null(kind)):
        raise _fault(model, name, f"should be strings, and is {kind}", "cast it to text")
    return column.cast(pa.string())


def _times(table: pa.Table, name: str, model: ModelId, now: datetime) -> pa.ChunkedArray:
    times = _instants(table, name, model)
    # A file may hold times that are outside Python's calendar: they are judged by its ends.
    late, early = datetime.max.replace(tzinfo=UTC), datetime.min.replace(tzinfo=UTC)
    beyond = pc.greater(times, pa.scalar(now + AHEAD, INSTANT))
    _refuse_first(beyond, name, model, untimely(late, now=now), "is it in UTC?")
    before = pc.less(times, pa.scalar(EARLIEST, INSTANT))
    _refuse_first(before, name, model, untimely(early, now=now), "in other units?")
    return times


def _instants(table: pa.Table, name: str, model: ModelId) -> pa.ChunkedArray:
    column = table[name]
    _refuse_first(pc.is_null(column), name, model, "is required and null")
    if pa.types.is_timestamp(column.type):
        if column.type.tz is None:
            hint = "in DuckDB: column AT TIME ZONE 'UTC'"
            raise _fault(model, name, "the times have no time zone", hint)
        return column.cast(INSTANT, safe=False)
    if not _is_text(column.type):
        raise _fault(model, name, f"should be times, and is {column.type}")
    times = []
    for row, value in enumerate(column.to_pylist()):
        try:
            times.append(read_time(value))
        except ValueError as error:
            raise _fault(model, name, str(error), row=row) from error
    return pa.chunked_array([pa.array(times, INSTANT)])


def _ids(table: pa.Table, checked: pa.Table, model: ModelId) -> pa.ChunkedArray:
    """Return the ids of `table`, made of its `checked` columns where it has none."""
    if "id" not in table.column_names or pa.types.is_null(table["id"].type):
        given: list[str | None] = [None] * table.num_rows
    elif _is_text(table["id"].type):
        given = table["id"].to_pylist()
    else:
        raise _fault(
            model, "id", f"should be strings, and is {table['id'].type}", "cast it to text"
        )
    stem = _digest(checked, model) if None in given else ""
    seen: set[str] = set()
    ids: list[str] = []
    for row, each in enumerate(given):
        if each is not None and (not each or each in seen):
            raise _fault(model, "id", f"{each!r} stands twice" if each else "is empty", row=row)
        ids.append(each or f"{stem}-{row + 1}")
        seen.add(ids[-1])
    return pa.chunked_array([pa.array(ids, pa.string())])


def _digest(table: pa.Table, model: ModelId) -> str:
    """Return 24 hexadecimal digits that stand for these rows of `model`, in their order."""
    found = hashlib.sha256(model.encode())
    for name in sorted(table.column_names):
        column = table[name].combine_chunks()
        null = "" if pa.types.is_string(column.type) else pa.scalar(0).cast(column.type)
        # What lies under a null is anybody's guess.
        values = pa.table({name: pc.fill_null(column, null), "null": pc.is_null(column)})
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, values.schema) as stream:
            stream.write_table(values)
        found.update(sink.getvalue())
    return found.hexdigest()[:24]


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _refuse_first(
    wrong: pa.ChunkedArray, name: str, model: ModelId, what: str, hint: str = ""
) -> None:
    row = pc.index(pc.fill_null(wrong, False), True).as_py()  # noqa: FBT003 - arrow's own signature
    if row >= 0:
        raise _fault(model, name, what, hint, row=row)


def _fault(
    model: ModelId, column: str, what: str, hint: str = "", row: int | None = None
) -> BadRequest:
    where = f"{model}: column {column}" + ("" if row is None else f", row {row + 1}")
    return BadRequest(what, where=where, hint=hint)
