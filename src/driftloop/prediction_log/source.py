"""Rows from and to files: Parquet, CSV, or a DuckDB query; and history made ready for the spool."""

import csv
import glob
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from driftloop.errors import BadRequest, LogError
from driftloop.prediction_log.store import interruptible
from driftloop.records import Label, ModelId, Task
from driftloop.spec import QUERY, Family, Fleet

if TYPE_CHECKING:
    import duckdb

_ENDINGS = (".parquet", ".csv")
_TIME = pa.timestamp("us", tz="UTC")
_ID_COLUMNS = ("id", "model")
_LARGEST = 3.4028234663852886e38
"""The largest float32: models are given no more, and HTTP takes no more."""
SHOWN = 20
"""So many classes are told where one is unknown."""
EARLIEST = datetime(1900, 1, 1, tzinfo=UTC)
AHEAD, OBSERVED_AHEAD = timedelta(days=366), timedelta(days=1)
"""How far an event and an observation may lie ahead; over HTTP too, see `serve.request`."""


def read_source(source: str, *, folder: Path | None = None) -> pa.Table:
    """Return the rows that `source` names.

    Args:
        source: a Parquet or CSV file (by its ending), or a DuckDB query that begins with SELECT,
            FROM or WITH, in which files stand in quotes: `FROM 'flights/*.parquet'`. In a CSV an
            empty field is null, and the columns `id` and `model` are text.
        folder: where relative paths begin, in a query too; the working folder if it is None.

    Raises:
        BadRequest: it is neither a file of these nor a query, there is no such file, a CSV has no
            rows, or DuckDB refused it.
    """
    import duckdb

    with _connect() as con:
        try:
            if QUERY.match(source):
                if folder is not None:
                    con.execute("SET file_search_path = ?", [str(folder)])
                return _arrow(con.execute(source))
            path = _existing(source if folder is None else str(folder / source))
            if path.suffix.lower() == ".parquet":
                return _arrow(con.execute("FROM read_parquet(?)", [glob.escape(str(path))]))
            refuse_blank(path)
            table = _arrow(_read_csv(con, path))
        except duckdb.Error as error:
            raise BadRequest(f"cannot be read: {first_line(error)}", where=source) from error
    if not table.num_rows:
        # Without rows DuckDB calls every column text, which would be refused for the wrong reason.
        raise BadRequest("it has a header but no rows", where=source)
    return table


def check_writable(file: Path) -> None:
    """Check that `file` could be written as a table, before work is done for it.

    Raises:
        BadRequest: its ending is unknown, it is a folder, or its folder is not there or closed.
    """
    check_ending(file)
    folder = file.absolute().parent
    if file.is_dir():
        raise BadRequest("is a folder", where=str(file), hint="name a .parquet or .csv file in it")
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise BadRequest("there is no such folder to write in", where=str(folder))


def write_lines(table: pa.Table, file: Path) -> None:
    """Write `table` to the new `file` as JSON lines and fsync it.

    Raises:
        LogError: the file could not be written.
        OSError: it could not be made durable.
    """
    _copy(table, file, "FORMAT json")
    with file.open("rb") as written:
        os.fsync(written.fileno())


def history_columns(family: Family) -> tuple[str, ...]:
    """Return the columns of what was known of `family` before driftloop; see `history_rows`."""
    return ("id", "model", family.time, *family.features, "label", "observed_at")


def without_made(family: Family, table: pa.Table) -> tuple[pa.Table, tuple[str, ...]]:
    """Return `table` with what is to be made of events as nulls, and the names of that.

    These are the features that are made of events or computed, if the table has none of them.

    Raises:
        BadRequest: it has some of them.
    """
    made = tuple(
        name
        for name, feature in family.features.items()
        if feature.aggregate is not None or feature.expression is not None
    )
    lacking = [name for name in made if name not in table.column_names]
    if not lacking:
        return table, ()
    if len(lacking) < len(made):
        raise BadRequest(
            f"it has some of the features that are made of events or computed, and lacks"
            f" {', '.join(lacking)}",
            where=f"history of {family.name}",
            hint="give all of them as they were served, or none: then they are made of the log",
        )
    for name in made:
        numeric = family.features[name].kind == "numeric"
        nulls = pa.nulls(table.num_rows, pa.float64() if numeric else pa.string())
        table = table.append_column(name, nulls)
    return table, made


def history_rows(
    family: Family, table: pa.Table, *, now: datetime | None = None
) -> tuple[pa.Table, pa.Table]:
    """Return `table` as the spool's predictions and labels of version 0, fully checked.

    `table` has the `history_columns`, with ids that are text or whole numbers, each once; others
    are passed over. A time without a zone (TIMESTAMP) is taken as UTC; none is before 1900 nor,
    given `now`, far ahead of it. NaN is null; a number is at most the largest float32, and a label
    of a multiclass family the name of a class. A feature may be null in every row, but not left
    out. A row whose label is null has no label row.

    Returns:
        Predictions (id, model, version 0, epoch 0, event_time, predicted_at, which is the event
        time, prediction, which is null, and features, a struct), and labels (id, model, value,
        observed_at).

    Raises:
        BadRequest: there are no rows, a column is missing or of the wrong type, an id stands
            twice, a model is not the family's, or a value is missing or impossible; names column
            and row (from 1).
    """
    given = Columns(table, where=f"history of {family.name}")
    given.need(*history_columns(family))
    if not table.num_rows:
        raise BadRequest("it has no rows", where=f"history of {family.name}")
    ids = given.ids()
    models = given.models(family)
    event_time = given.times(family.time)
    given.refuse(family.time, event_time.is_null(), "is missing")
    given.timely(family.time, event_time, None if now is None else now + AHEAD)
    features = [
        given.numbers(name) if feature.kind == "numeric" else given.texts(name)
        for name, feature in family.features.items()
    ]
    label = given.classes("label", family) if family.classes else given.numbers("label")
    if family.task is Task.BINARY:
        given.refuse("label", no_outcome(label), "is neither 0 nor 1")
    observed = given.times("observed_at")
    known = label.is_valid()
    given.refuse("observed_at", pc.and_(known, observed.is_null()), "is missing beside a label")
    given.timely("observed_at", observed, None if now is None else now + OBSERVED_AHEAD)
    count = table.num_rows
    zeros = pa.repeat(pa.scalar(0, pa.int32()), count)
    predictions = {
        "id": ids,
        "model": models,
        "version": zeros,
        "epoch": zeros,
        "event_time": event_time,
        "predicted_at": event_time,
        "prediction": pa.nulls(count, pa.float64()),
        "features": pa.StructArray.from_arrays(features, names=list(family.features)),
    }
    labels = {"id": ids, "model": models, "value": label, "observed_at": observed}
    return pa.table(predictions), pa.table(labels).filter(known)


def read_labels(source: str, fleet: Fleet, *, now: datetime) -> list[Label]:
    """Return the labels that `source` holds of models of `fleet`; see `read_source`.

    Its columns are id, model, value and, if it has it, observed_at: missing, it is `now`. The value
    of a multiclass model is the name of a class; beside such ones numbers may be written as text.

    Raises:
        BadRequest: it cannot be read, a column or value does not fit, no monitor declares a model,
            or one model's id stands twice; names column and row.
    """
    table = read_source(source)
    given = Columns(table, where=source)
    given.need("id", "model", "value")
    models = given.texts("model")
    given.refuse("model", models.is_null(), "is missing")
    known = pc.is_in(models, value_set=pa.array(fleet.models, pa.string()))
    given.refuse("model", pc.invert(known), "is a model that no monitor declares")
    value = _outcomes(given, models, fleet)
    given.refuse("value", value.is_null(), "is missing")
    yes_or_no = [m for each in fleet.families if each.task is Task.BINARY for m in each.models]
    binary = pc.is_in(models, value_set=pa.array(yes_or_no, pa.string()))
    given.refuse("value", pc.and_(binary, no_outcome(value)), "is neither 0 nor 1")
    ids = given.texts("id")
    given.refuse("id", ids.is_null(), "is missing")
    given.once(ids, models)
    if "observed_at" in table.column_names:
        times = given.times("observed_at")
        given.timely("observed_at", times, now + OBSERVED_AHEAD)
        observed = times.to_pylist()
    else:
        observed = [None] * table.num_rows
    return [
        Label(
            id=id_,
            model=ModelId(model),
            value=number,
            observed_at=at.astimezone(UTC) if at else now,
        )
        for id_, model, number, at in zip(
            ids.to_pylist(), models.to_pylist(), value.to_pylist(), observed, strict=True
        )
    ]


def _outcomes(given: "Columns", models: pa.Array, fleet: Fleet) -> pa.Array:
    """Return the values of labels as the log keeps them, whatever each one's model predicts."""
    classed = [
        (family, pc.is_in(models, value_set=pa.array(family.models, pa.string())))
        for family in fleet.families
        if family.classes
    ]
    named = [(family, theirs) for family, theirs in classed if pc.any(theirs).as_py()]
    if not named:
        return given.numbers("value")
    value = pa.nulls(len(models), pa.float64())
    others = pa.array([True] * len(models))
    for family, theirs in named:
        value = pc.if_else(theirs, given.classes("value", family, among=theirs), value)
        others = pc.and_(others, pc.invert(theirs))
    return pc.if_else(others, given.written_numbers("value", others), value)


def no_outcome(values: pa.Array) -> pa.Array:
    """Return which of the values can be no outcome of a yes or no; one that is missing can."""
    return pc.invert(pc.is_in(values, value_set=pa.array([0.0, 1.0, None], pa.float64())))


@contextmanager
def _connect() -> Iterator["duckdb.DuckDBPyConnection"]:
    import duckdb

    config: dict[str, str | bool | int | float | list[str]] = {
        "threads": 2,
        "autoinstall_known_extensions": False,
        "python_enable_replacements": False,  # no variable of ours is a table
    }
    with interruptible(), duckdb.connect(config=config) as con:
        con.execute("SET TimeZone = 'UTC'")
        yield con


def _arrow(result: "duckdb.DuckDBPyConnection") -> pa.Table:
    return result.to_arrow_table()


def _read_csv(con: "duckdb.DuckDBPyConnection", path: Path) -> "duckdb.DuckDBPyConnection":
    pattern = glob.escape(str(path))
    types = id_types(con, "read_csv(?, sample_size = -1)", [path], [pattern])
    return con.execute(f"FROM read_csv(?, sample_size = -1{types})", [pattern])


def id_types(
    con: "duckdb.DuckDBPyConnection", read: str, files: Sequence[Path], bound: Sequence[str] = ()
) -> str:
    """Return the option of DuckDB's `read_csv` by which the ids in what `read` reads stay text.

    Raises:
        BadRequest: one of `files`, which it reads, has a line with more or fewer fields than its
            header.
    """
    import duckdb

    # Sniffed as a number, the id 007 would become 7.
    try:
        described = con.execute(f"DESCRIBE FROM {read}", list(bound)).fetchall()
    except duckdb.Error:
        _refuse_ragged(files)
        raise
    if len(described) == 1 and "," in described[0][0]:
        # Where lines differ in their fields, DuckDB takes each for a single one.
        _refuse_ragged(files)
    texts = {name: "VARCHAR" for name, *_ in described if name in _ID_COLUMNS}
    return f", types = {texts!r}" if texts else ""


def _refuse_ragged(files: Sequence[Path]) -> None:
    for file in files:
        with file.open(encoding="utf-8", errors="replace", newline="") as lines:
            rows = csv.reader(lines)
            try:
                header = next(rows, [])
                ragged = next((row for row in rows if row and len(row) != len(header)), None)
            except csv.Error:
                continue
            # Of another delimiter nothing is known here.
            if ragged is not None and len(header) > 1:
                raise BadRequest(
                    f"has {len(ragged)} fields, and its header {len(header)}",
                    where=f"{file}, line {rows.line_num}",
                    hint="an empty field is null; quote a comma that is part of a value",
                )


def _existing(source: str) -> Path:
    path = Path(source)
    if path.suffix.lower() not in _ENDINGS:
        raise BadRequest(
            f"neither a {' or '.join(_ENDINGS)} file nor a query that starts with SELECT, FROM or"
            " WITH",
            where=source,
        )
    if not path.is_file():
        raise BadRequest("there is no such file", where=source)
    return path


def refuse_blank(path: Path) -> None:
    """Refuse a CSV without a line.

    Raises:
        BadRequest: it has none, or cannot be read.
    """
    try:
        with path.open("rb") as lines:
            blank = not any(line.strip() for line in lines)
    except OSError as error:
        raise BadRequest(f"cannot be read: {error.strerror}", where=str(path)) from error
    if blank:
        raise BadRequest("it is empty: no header and no rows", where=str(path))


def first_line(error: Exception) -> str:
    """Return what an error says, without DuckDB's picture of where."""
    return str(error).strip().partition("\n")[0]


def check_ending(path: Path, *, hint: str = "") -> None:
    """Refuse a file that is neither Parquet nor CSV by its ending.

    Raises:
        BadRequest: it is another.
    """
    if path.suffix.lower() not in _ENDINGS:
        raise BadRequest(
            f"{path.suffix or 'no ending'} is not a kind of table known here",
            where=str(path),
            hint=hint or f"name a file ending in {' or '.join(_ENDINGS)}",
        )


def _copy(table: pa.Table, file: Path, options: str) -> None:
    import duckdb

    with _connect() as con:
        con.register("given", table)
        target = str(file).replace("'", "''")
        try:
            con.execute(f"COPY given TO '{target}' ({options})")
        except duckdb.Error as error:
            raise LogError(f"cannot be written: {first_line(error)}", where=str(file)) from error


class Columns:
    """A table's columns, cast to what the log holds or refused by name and row."""

    def __init__(self, table: pa.Table, *, where: str) -> None:
        self._table = table
        self._where = where

    def need(self, *names: str) -> None:
        """Raise unless the table has these columns."""
        missing = [name for name in names if name not in self._table.column_names]
        if missing:
            raise BadRequest(
                f"it has no column {', '.join(missing)}",
                where=self._where,
                hint=f"it has {', '.join(self._table.column_names) or 'none'}",
            )

    def ids(self) -> pa.Array:
        """Return the ids, each of which stands once."""
        ids = self.texts("id")
        self.refuse("id", ids.is_null(), "is missing")
        if again := len(ids) - pc.count_distinct(ids).as_py():
            seen: set[str] = set()
            for row, name in enumerate(ids.to_pylist(), start=1):
                if name in seen:
                    more = f", and {again} rows in all repeat an id" if again > 1 else ""
                    self._fault("id", row, f"{name!r} stands twice{more}")
                seen.add(name)
        return ids

    def once(self, ids: pa.Array, models: pa.Array) -> None:
        """Raise for the first row whose model and id stand in a row before it."""
        seen: set[tuple[str, str]] = set()
        for row, key in enumerate(zip(models.to_pylist(), ids.to_pylist(), strict=True), start=1):
            if key in seen:
                self._fault("id", row, f"{key[1]!r} stands twice for {key[0]}")
            seen.add(key)

    def models(self, family: Family) -> pa.Array:
        """Return the models, all of them the family's."""
        models = self.texts("model")
        known = pa.array(family.models, pa.string())
        self.refuse(
            "model", pc.invert(pc.is_in(models, value_set=known)), f"is not one of {family.name}"
        )
        return models

    def texts(self, name: str) -> pa.Array:
        """Return a column as texts."""
        column = self._column(name)
        if pa.types.is_floating(column.type) or pa.types.is_nested(column.type):
            self._wrong_type(name, "text")
        return self._cast(name, pa.string(), "text")

    def numbers(self, name: str) -> pa.Array:
        """Return a column as numbers that float32 can hold; NaN is null."""
        if pa.types.is_string(self._column(name).type):
            self._wrong_type(name, "numbers")
        column = self._cast(name, pa.float64(), "numbers")
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, pa.float64()), column)
        self.refuse(
            name, pc.greater(pc.abs(column), _LARGEST), "is infinite, or too large for float32"
        )
        return column

    def written_numbers(self, name: str, among: pa.Array) -> pa.Array:
        """Return numbers that may be written as text, of the rows `among`; null for the others."""
        if not pa.types.is_string(self._column(name).type):
            return self.numbers(name)
        numbers: list[float | None] = []
        chosen = zip(self.texts(name).to_pylist(), among.to_pylist(), strict=True)
        for row, (text, wanted) in enumerate(chosen, start=1):
            try:
                numbers.append(float(text) if wanted and text is not None else None)
            except ValueError:
                self._fault(name, row, f"{text!r} is no number")
        wrong = [number is not None and not abs(number) <= _LARGEST for number in numbers]
        self.refuse(name, pa.array(wrong), "is infinite, too large for float32, or NaN")
        return pa.array(numbers, pa.float64())

    def classes(self, name: str, family: Family, *, among: pa.Array | None = None) -> pa.Array:
        """Return names of the family's classes as their indexes, null where there is none.

        `among` says which rows to look at; all, if it is not given.
        """
        texts = self.texts(name)
        indexes = pc.index_in(texts, value_set=pa.array(family.classes, pa.string()))
        strange = pc.and_(indexes.is_null(), texts.is_valid())
        strange = strange if among is None else pc.and_(strange, among)
        known = ", ".join(family.classes[:SHOWN])
        more = f"... ({len(family.classes)} in all)" if len(family.classes) > SHOWN else ""
        self.refuse(name, strange, f"is no class of {family.name}; known: {known}{more}")
        return indexes.cast(pa.float64())

    def times(self, name: str) -> pa.Array:
        """Return a column as times in UTC."""
        column = self._column(name)
        if not (pa.types.is_temporal(column.type) or pa.types.is_null(column.type)):
            self._wrong_type(name, "times")
        return self._cast(name, _TIME, "times")

    def timely(self, name: str, times: pa.Array, latest: datetime | None) -> None:
        """Raise for the first time that is a mistake of units, or after `latest`."""
        early = pc.less(times, pa.scalar(EARLIEST, _TIME))
        self.refuse(name, early, "is before the year 1900: in other units?", shown=False)
        if latest is not None:
            late = pc.greater(times, pa.scalar(latest, _TIME))
            self.refuse(name, late, f"is after {latest:%Y-%m-%d %H:%M} UTC", shown=False)

    def refuse(self, name: str, wrong: pa.Array, what: str, *, shown: bool = True) -> None:
        """Raise for the first row for which `wrong` is true; not every time can be `shown`."""
        row = pc.index(wrong, pa.scalar(True)).as_py()  # noqa: FBT003 - the value looked for
        if row >= 0:
            value = self._table.column(name)[row].as_py() if shown else None
            self._fault(name, row + 1, f"{'' if value is None else repr(value) + ' '}{what}")

    def _column(self, name: str) -> pa.ChunkedArray:
        column = self._table.column(name)
        if column.null_count < len(column):
            return column
        # Of a CSV's column without any value DuckDB can only say that it is text.
        return pa.chunked_array([pa.nulls(len(column))])

    def _cast(self, name: str, to: pa.DataType, words: str) -> pa.Array:
        column = self._column(name)
        try:
            cast = column.cast(to, safe=not pa.types.is_temporal(to))
        except pa.ArrowException:
            self._wrong_type(name, words)
        return cast.combine_chunks()

    def _wrong_type(self, name: str, words: str) -> None:
        raise BadRequest(
            f"the column {name} should be {words}, not {self._column(name).type}",
            where=self._where,
        )

    def _fault(self, name: str, row: int, what: str) -> None:
        raise BadRequest(what, where=f"{self._where}, row {row}, column {name}")
