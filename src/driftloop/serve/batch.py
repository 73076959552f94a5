"""Tables of rows, piece by piece: checked, given ids, and answered by one version in hand."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from driftloop.errors import BadRequest
from driftloop.records import ModelId
from driftloop.serve.model import check_classes
from driftloop.serve.request import (
    AHEAD,
    EARLIEST,
    LARGEST,
    LONGEST_ID,
    LONGEST_TEXT,
    LONGEST_WORD,
    Row,
    lack,
    nearest,
    read_time,
    untimely,
)
from driftloop.serve.slot import Held
from driftloop.spec import Family, Feature

if TYPE_CHECKING:
    from driftloop.serve.service import Complete

CHUNK = 8192
"""Rows that a model answers at once: what it works on stays in the processor's cache."""
INSTANT = pa.timestamp("us", tz="UTC")
ANSWER = ("id", "event_time", "prediction", "version", "epoch")
"""The columns of what `driftloop predict-batch` writes."""


@dataclass(frozen=True, slots=True)
class Checker:
    """Holds pieces of a table to what its family declares.

    Args:
        family: of the model.
        model: whose rows they are; errors name it.
        now: how far ahead an event may lie is counted from here.
        given: the features that rows bring along; the others are looked up.
    """

    family: Family
    model: ModelId
    now: datetime
    given: Mapping[str, Feature]

    def check(self, table: pa.Table, *, first: int = 0) -> pa.Table:
        """Return the rows of `table`, the first being row `first` (from 0), in the log's types.

        `table` has the family's time column (timestamps or ISO 8601 text, with a zone) and
        features, and may have `id`. A feature that is not required may be left out and is null.

        Returns:
            id (string, null where it is not given), event_time, then every given feature.

        Raises:
            BadRequest: names the column, and the row where one is at fault, the first being 1.
        """
        family, where = self.family, _Where(self.model, first)
        known = ("id", family.time, *self.given)
        for name in table.column_names:
            if name in family.features and name not in self.given:
                raise where.fault(name, "is looked up or computed, and not sent", "leave it out")
            if name not in known:
                raise where.fault(name, "unknown column", nearest(name, known))
            if table.column_names.count(name) > 1:
                raise where.fault(name, "stands twice in the table")
        for name in (family.time, *(n for n, f in self.given.items() if f.required)):
            if name not in table.column_names:
                raise where.fault(name, "the column is missing")
        columns = {
            "id": _ids(table, where),
            "event_time": _times(table, family.time, where, self.now),
        }
        for name, feature in self.given.items():
            if name not in table.column_names:
                kind = pa.float64() if feature.kind == "numeric" else pa.string()
                columns[name] = pa.chunked_array([pa.nulls(table.num_rows, kind)])
                continue
            columns[name] = _column(table[name], name, where, feature)
            if feature.required and columns[name].null_count:
                where.refuse_first(pc.is_null(columns[name]), name, "is required and null")
        return pa.table(columns)


class Content:
    """What stands for the rows of a table, in their order, however they are cut into pieces."""

    def __init__(self, model: ModelId) -> None:
        """Begin with no rows; the same rows of another model are other ones."""
        self._model = model
        self._columns: dict[str, Any] = {}

    def add(self, rows: pa.Table) -> None:
        """Go on with `rows`, as `Checker.check` returns them; ids do not count."""
        for name in rows.column_names:
            if name == "id":
                continue
            for chunk in rows[name].chunks:
                if pa.types.is_string(chunk.type):
                    lengths = pc.fill_null(pc.binary_length(chunk), -1)
                    self._hash(f"{name}/text").update(_text(chunk))
                    self._hash(name).update(_plain(lengths))
                else:
                    self._hash(name).update(_plain(chunk))

    def stem(self) -> str:
        """Return 24 hexadecimal digits."""
        found = hashlib.sha256(self._model.encode())
        for name in sorted(self._columns):
            found.update(name.encode() + self._columns[name].digest())
        return found.hexdigest()[:24]

    def _hash(self, name: str) -> Any:  # noqa: ANN401 - hashlib's objects share no public type
        return self._columns.setdefault(name, hashlib.sha256())


def with_ids(rows: pa.Table, stem: str, *, first: int) -> pa.Table:
    """Return `rows`, of which the first is row `first` (from 0), with the ids that are missing.

    One that is made is `stem` and the row's number: the same source gets the same ids again.
    """
    ids = rows["id"]
    if not ids.null_count:
        return rows
    numbers = pa.array(np.arange(first + 1, first + rows.num_rows + 1)).cast(pa.string())
    made = pc.binary_join_element_wise(stem, numbers, "-")
    return rows.set_column(0, "id", pc.coalesce(ids, made))


def completed(
    rows: pa.Table, family: Family, complete: "Complete", *, model: ModelId, first: int = 0
) -> pa.Table:
    """Return `rows`, which have what callers send, with what `complete` looks up and computes.

    Row by row, as the online service does it; the first is row `first` (from 0) of the source.

    Raises:
        BadRequest: a row lacks what refuses rows without; names it, and the column of its key.
        DriftloopError: what `complete` raises.
    """
    sent = [name for name in family.requested if name in rows.column_names]
    found = _found(rows.select(["id", "event_time", *sent]), family, complete, _Where(model, first))
    columns = {
        name: pa.array(
            [row.features[name] for row in found],
            pa.float64() if feature.kind == "numeric" else pa.string(),
        )
        for name, feature in family.features.items()
    }
    fell = pa.array([list(row.fallbacks) or None for row in found], pa.list_(pa.string()))
    at = pa.array([row.position for row in found], pa.int64())
    own = {"id": rows["id"], "event_time": rows["event_time"]}
    return pa.table({**own, **columns, "fallbacks": fell, "position": at})


def check_found(
    rows: pa.Table, family: Family, look: "Complete", *, model: ModelId, first: int = 0
) -> None:
    """Hold `rows` to what refuses rows without a value; `look` looks no more up than that.

    Raises:
        BadRequest: as `completed`.
        DriftloopError: what `look` raises.
    """
    keys = {str(feature.key) for feature in family.looked_up.values() if feature.refuses}
    _found(rows.select(["id", "event_time", *sorted(keys)]), family, look, _Where(model, first))


def answer_table(held: Held, family: Family, rows: pa.Table) -> npt.NDArray[np.float64]:
    """Return one answer of `held` for each of `rows`, which have every feature of `family`.

    Raises:
        ArtifactError: the model failed, or answered no finite number, or a class that is none of
            the family's.
    """
    answers = np.empty(rows.num_rows, np.float64)
    inputs = {name: _input(rows[name]) for name in family.inputs}
    at_once = getattr(held.model, "predict_columns", None)
    for start in range(0, rows.num_rows, CHUNK):
        span = slice(start, start + CHUNK)
        if at_once is not None:
            answers[span] = at_once({name: column[span] for name, column in inputs.items()})
        else:
            some = rows.slice(start, CHUNK)
            answers[span] = held.model.predict({n: some[n].to_pylist() for n in inputs})
    if family.classes:
        check_classes(np.unique(answers).tolist(), family, where=held.head.model)
    return answers


def shown_table(held: Held, family: Family, rows: pa.Table, answers: pa.Array) -> pa.Table:
    """Return `answers` to `rows` as callers are shown them: the columns of `ANSWER`."""
    shown = answers
    if family.classes:
        shown = pa.array(family.classes, pa.string()).take(answers.cast(pa.int32()))
    size = rows.num_rows
    return pa.table(
        {
            "id": rows["id"],
            "event_time": rows["event_time"],
            "prediction": shown,
            "version": pa.repeat(pa.scalar(held.head.version, pa.int32()), size),
            "epoch": pa.repeat(pa.scalar(held.head.epoch, pa.int64()), size),
        }
    )


def log_table(
    held: Held, family: Family, rows: pa.Table, answers: pa.Array, *, now: datetime
) -> pa.Table:
    """Return `answers` to `rows`, made at `now`, as the log's table has them on arrival."""
    size = rows.num_rows
    looked_up = {
        name: rows[name] if name in rows.column_names else pa.nulls(size, kind)
        for name, kind in (("fallbacks", pa.list_(pa.string())), ("position", pa.int64()))
    }
    return pa.table(
        {
            "id": rows["id"],
            "model": pa.repeat(pa.scalar(held.head.model, pa.string()), size),
            "version": pa.repeat(pa.scalar(held.head.version, pa.int32()), size),
            "epoch": pa.repeat(pa.scalar(held.head.epoch, pa.int64()), size),
            "event_time": rows["event_time"],
            "predicted_at": pa.repeat(pa.scalar(now, INSTANT), size),
            "prediction": answers,
            **looked_up,
            **{name: rows[name] for name in family.features},
        }
    )


def _found(rows: pa.Table, family: Family, complete: "Complete", where: "_Where") -> Sequence[Row]:
    """Return what `complete` makes of `rows`: id, event_time, and some of the features."""
    sent = rows.column_names[2:]
    blank = dict.fromkeys(family.features)
    given = [
        Row(row["id"], row["event_time"], {**blank, **{name: row[name] for name in sent}})
        for row in rows.to_pylist()
    ]
    found = complete(family, given)
    for number, row in enumerate(found):
        for name in row.lacking:
            what, hint = lack(family, name, row)
            key = str(family.features[name].key)
            raise where.fault(key, f"{name} {what}", hint, row=number)
    return found


def _input(column: pa.ChunkedArray) -> npt.NDArray[Any]:
    """Return a feature as `OnnxModel.predict_columns` takes it."""
    whole = column.combine_chunks()
    if not pa.types.is_string(whole.type):
        numbers: npt.NDArray[Any] = whole.to_numpy(zero_copy_only=False).astype(np.float32)
        return numbers
    levels = pc.fill_null(whole, "").dictionary_encode()
    texts = np.array(levels.dictionary.to_pylist(), dtype=object)
    # Of no rows there are no levels to choose from.
    return texts[levels.indices.to_numpy()] if len(whole) else np.empty(0, dtype=object)


def _plain(column: pa.Array) -> npt.NDArray[Any]:
    """Return a column without a null, or one of numbers in which null is NaN, as it lies there."""
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64())
    plain: npt.NDArray[Any] = column.to_numpy(zero_copy_only=False)
    return np.ascontiguousarray(plain)


def _text(column: pa.StringArray) -> memoryview:
    """Return all texts of a column, one after the other."""
    # What lies under a null is anybody's guess.
    whole = pc.fill_null(column, "") if column.null_count else column
    _, offsets, data = whole.buffers()
    if data is None or not len(whole):
        return memoryview(b"")
    ends = np.frombuffer(offsets, np.int32)
    return memoryview(data)[ends[whole.offset] : ends[whole.offset + len(whole)]]


@dataclass(frozen=True, slots=True)
class _Where:
    """Names what is at fault in a piece whose first row is row `first` of the source, from 0."""

    model: ModelId
    first: int

    def fault(self, column: str, what: str, hint: str = "", row: int | None = None) -> BadRequest:
        numbered = "" if row is None else f", row {self.first + row + 1}"
        return BadRequest(what, where=f"{self.model}: column {column}{numbered}", hint=hint)

    def refuse_first(self, wrong: pa.ChunkedArray, name: str, what: str, hint: str = "") -> None:
        row = pc.index(wrong, True).as_py()
        if row >= 0:
            raise self.fault(name, what, hint, row=row)


def _column(column: pa.ChunkedArray, name: str, where: _Where, feature: Feature) -> pa.ChunkedArray:
    if feature.kind == "numeric":
        return _numbers(column, name, where, required=feature.required)
    texts = _strings(column, name, where)
    most = LONGEST_TEXT if feature.kind == "text" else LONGEST_WORD
    beyond = pc.greater(pc.utf8_length(texts), most)
    where.refuse_first(beyond, name, f"has more than {most:,} characters")
    if feature.kind == "text":
        return texts
    return pc.if_else(pc.equal(texts, ""), pa.scalar(None, pa.string()), texts)


def _numbers(
    column: pa.ChunkedArray, name: str, where: _Where, *, required: bool
) -> pa.ChunkedArray:
    kind = column.type
    usable = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_null)
    if not any(fits(kind) for fits in usable):
        raise where.fault(name, f"should be numbers, and is {kind}")
    numbers = column.cast(pa.float64(), safe=False)
    # One look at the extremes spares two at every value.
    ends = pc.min_max(numbers).as_py()
    hint = "it is required" if required else "null stands for an unknown value"
    where.refuse_first(pc.is_nan(numbers), name, "is NaN", hint)
    if ends["min"] is not None and not -LARGEST <= ends["min"] <= ends["max"] <= LARGEST:
        beyond = pc.greater(pc.abs(numbers), LARGEST)
        where.refuse_first(beyond, name, "is infinite, or too large for float32")
    return numbers


def _strings(column: pa.ChunkedArray, name: str, where: _Where) -> pa.ChunkedArray:
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if not (_is_text(kind) or pa.types.is_null(kind)):
        raise where.fault(name, f"should be strings, and is {kind}", "cast it to text")
    return column.cast(pa.string())


def _times(table: pa.Table, name: str, where: _Where, now: datetime) -> pa.ChunkedArray:
    times = _instants(table, name, where)
    # A file may hold times that are outside Python's calendar: they are judged by its ends.
    late, early = datetime.max.replace(tzinfo=UTC), datetime.min.replace(tzinfo=UTC)
    beyond = pc.greater(times, pa.scalar(now + AHEAD, INSTANT))
    where.refuse_first(beyond, name, untimely(late, now=now), "is it in UTC?")
    before = pc.less(times, pa.scalar(EARLIEST, INSTANT))
    where.refuse_first(before, name, untimely(early, now=now), "in other units?")
    return times


def _instants(table: pa.Table, name: str, where: _Where) -> pa.ChunkedArray:
    column = table[name]
    where.refuse_first(pc.is_null(column), name, "is required and null")
    if pa.types.is_timestamp(column.type):
        if column.type.tz is None:
            hint = "in DuckDB: column AT TIME ZONE 'UTC'"
            raise where.fault(name, "the times have no time zone", hint)
        return column.cast(INSTANT, safe=False)
    if not _is_text(column.type):
        raise where.fault(name, f"should be times, and is {column.type}")
    times = []
    for row, value in enumerate(column.to_pylist()):
        try:
            times.append(read_time(value))
        except ValueError as error:
            raise where.fault(name, str(error), row=row) from error
    return pa.chunked_array([pa.array(times, INSTANT)])


def _ids(table: pa.Table, where: _Where) -> pa.ChunkedArray:
    """Return the ids that are given, null where one is not."""
    if "id" not in table.column_names or pa.types.is_null(table["id"].type):
        return pa.chunked_array([pa.nulls(table.num_rows, pa.string())])
    if not _is_text(table["id"].type):
        raise where.fault("id", f"should be strings, and is {table['id'].type}", "cast it to text")
    ids = table["id"].cast(pa.string())
    where.refuse_first(pc.equal(ids, ""), "id", "is empty")
    beyond = pc.greater(pc.utf8_length(ids), LONGEST_ID)
    where.refuse_first(beyond, "id", f"has more than {LONGEST_ID} characters")
    return ids


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))
