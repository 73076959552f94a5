"""Logs that somebody else writes, shown as the lake's tables are: read, never written.

Between two questions nothing is held open: whoever writes a DuckDB file can open it only while
nobody reads it. What the rows do not tell is filled in: a row arrived when it was predicted, a
label when it was observed, and who answered a row is what the ledger says was champion then.
"""

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from driftloop.errors import DriftloopError, LogError, SpecError
from driftloop.ports import Look
from driftloop.prediction_log import survey
from driftloop.prediction_log.source import no_outcome
from driftloop.prediction_log.store import (
    SPILLED,
    Reads,
    configured,
    faults,
    interruptible,
    spilling,
)
from driftloop.prediction_log.windows import Windows
from driftloop.records import ModelId, Moved, Task, Window
from driftloop.rows import Rows
from driftloop.spec import QUERY, Family, LogSource, is_database

if TYPE_CHECKING:
    import duckdb

NO_CLASS = survey.NO_CLASS
LOCKED_FOR = 5.0
"""Wall seconds to wait for a file that somebody is writing."""
NUMBERS = (
    *("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT"),
    *("UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT"),
    *("FLOAT", "DOUBLE", "DECIMAL", "BOOLEAN"),
)
WHOLE = tuple(kind for kind in NUMBERS if kind not in ("FLOAT", "DOUBLE", "DECIMAL", "BOOLEAN"))
TIMES = ("DATE", "TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS")
TEXTS = ("VARCHAR", "ENUM", "UUID", "BOOLEAN", "DATE", *WHOLE)


class ForeignLog(Windows):
    """The log that `family.log` names; safe to use from several threads.

    NaN and infinity are null. Rows of models that are not the family's are passed over.

    Args:
        family: whose log.
        folder: where files are looked for that are not named in full.
        scratch: where DuckDB puts what does not fit in memory.
        moves: returns who was champion when, oldest first.
    """

    _settled = False

    def __init__(
        self,
        family: Family,
        *,
        folder: Path,
        scratch: Path,
        moves: Callable[[ModelId], Sequence[Moved]],
    ) -> None:
        """Open nothing yet."""
        if family.log is None:
            raise ValueError(f"{family.name} has no log of its own")
        self._family = family
        self._store = _Theirs(family, family.log, folder=folder, scratch=scratch, moves=moves)

    def rows(self, family: Family, window: Window) -> pa.Table:
        """Return one row for each id; see `Windows.rows`.

        Raises:
            SpecError: the source lacks a column, or one is of the wrong type; every fault.
            LogError: it cannot be read, or holds what no log can.
        """
        rows = super().rows(family, window)
        if (fault := self._impossible(rows)) is not None:
            raise fault
        return rows

    def sample(self, family: Family, window: Window) -> tuple[pa.Table, int]:
        """Return `rows` or a part of them, and how many there are; see `Windows.sample`, `rows`."""
        rows, of = super().sample(family, window)
        if (fault := self._impossible(rows)) is not None:
            raise fault
        return rows, of

    def looks(self, family: Family, windows: Sequence[Window]) -> Iterator[tuple[ModelId, Look]]:
        """Yield the rows and the summary of many models; see `Windows.looks` and `rows`.

        Rows that hold what no log can are the `fault` of that model's look.
        """
        for model, look in super().looks(family, windows):
            fault = look.fault or self._impossible(look.rows)
            yield model, replace(look, fault=fault)

    def horizon(self, family: Family) -> datetime | None:  # noqa: ARG002 - one family's log
        """Return None: what may still arrive is known to its writer alone."""
        return None

    def contents(self) -> tuple[survey.Contents, ...]:
        """Return what the log holds for each model; those without rows too.

        Raises:
            SpecError, LogError: as for `rows`.
        """
        return survey.contents(self._store, self._family)

    def warnings(self, left_out: Collection[ModelId] = ()) -> tuple[str, ...]:
        """Return what in the log will bite: rows that cannot count, and values that cannot be.

        Rows of models that a cut fleet has `left_out` are as they should be.

        Raises:
            SpecError, LogError: as for `rows`.
        """
        return survey.warnings(self._store, self._family, left_out)

    def _impossible(self, rows: Rows) -> LogError | None:
        """Return what is wrong with the first row that no door of ours would have let in."""
        label, answer = rows.column("label"), rows.column("prediction")
        match self._family.task:
            case Task.BINARY:
                out = pc.or_(pc.less(answer, 0.0), pc.greater(answer, 1.0))
                wrong = (no_outcome(label), "is neither 0 nor 1"), (out, "is no probability of 1")
            case Task.MULTICLASS:
                none = f"is no class of {self._family.name}"
                wrong = (pc.equal(label, NO_CLASS), none), (pc.equal(answer, NO_CLASS), none)
            case _:
                return None
        return self._wrong(rows, "label", *wrong[0]) or self._wrong(rows, "prediction", *wrong[1])

    def _wrong(self, rows: Rows, name: str, wrong: pa.Array, what: str) -> LogError | None:
        row = pc.index(wrong, pa.scalar(True)).as_py()  # noqa: FBT003 - the value looked for
        if row < 0:
            return None
        id_, value = rows.column("id")[row].as_py(), rows.column(name)[row].as_py()
        if self._family.classes:
            value = survey.as_written(self._store, name, id_)
        return LogError(
            f"the {name} {value!r} {what}",
            where=f"{self._family.name}.toml: log, id {id_}",
            hint="mend the source, or leave such rows out with a view or a query",
        )


class _Theirs(Reads):
    """Opens the source for each question, and shows it under the names of the lake's tables."""

    def __init__(
        self,
        family: Family,
        log: LogSource,
        *,
        folder: Path,
        scratch: Path,
        moves: Callable[[ModelId], Sequence[Moved]],
    ) -> None:
        self._family = family
        self._log = log
        self._folder = folder
        self._scratch = scratch
        self._moves = moves

    @contextmanager
    def cursor(self) -> Iterator["duckdb.DuckDBPyConnection"]:
        with self._opened() as con:
            yield con

    @contextmanager
    def apart(self, scratch: Path) -> Iterator["duckdb.DuckDBPyConnection"]:
        with self._opened(**spilling(scratch)) as con:
            con.execute("SET enable_progress_bar = false")
            yield con

    @property
    def scratch(self) -> Path:
        return self._scratch / SPILLED

    @contextmanager
    def _opened(self, **config: str) -> Iterator["duckdb.DuckDBPyConnection"]:
        import duckdb

        opened = {**configured(self._scratch), **config}
        with interruptible(), duckdb.connect(config=opened) as con:
            try:
                con.execute("SET TimeZone = 'UTC'")
                con.execute("SET file_search_path = ?", [str(self._folder)])
                con.execute("ATTACH ':memory:' AS lake")
                self._show(con)
            except faults() as error:
                raise self.unread(error) from error
            yield con

    def unread(self, error: Exception) -> LogError:
        said = str(error).strip().partition("\n")[0]
        locked = "lock" in said.lower()
        return LogError(
            f"the log cannot be read: {said}",
            where=f"{self._family.name}.toml: log",
            hint="a DuckDB file is readable only while nobody has it open for writing; Parquet"
            " files always are"
            if locked
            else f"files in [log] are looked for from {self._folder.absolute()} on; a query can be"
            " tried in DuckDB itself",
        )

    # -- the source under the lake's names ----------------------------------------------------

    def _show(self, con: "duckdb.DuckDBPyConnection") -> None:
        log, family = self._log, self._family
        theirs = self._relation(con, log.source, log.table, "theirs")
        given = _Columns(f"{family.name}.toml: log", log.columns, _described(con, theirs))
        rows = self._row_columns(
            given, labelled=log.labels is None and family.task is not Task.SCORE
        )
        faults = given.faults
        if log.labels is not None:
            source = log.labels.source or log.source
            name = "theirs" if source == log.source else "outcomes"
            outcomes = self._relation(con, source, log.labels.table, name)
            known = _Columns(
                f"{family.name}.toml: log.labels", log.labels.columns, _described(con, outcomes)
            )
            labels = self._label_columns(known)
            faults += known.faults
        if faults:
            raise SpecError(tuple(faults))
        _view(con, "given", rows, theirs)
        self._show_moves(con)
        self._show_predictions(con, told="version" in log.columns)
        if family.task is Task.SCORE:
            con.execute(_labels_view(family, _NO_LABELS))
        elif log.labels is None:
            con.execute(_labels_view(family, "lake.given"))
        else:
            _view(con, "outcomes", labels, outcomes)
            con.execute(_labels_view(family, self._joined(by_id=not known.has("model"))))

    def _relation(
        self, con: "duckdb.DuckDBPyConnection", source: str, table: str | None, name: str
    ) -> str:
        if QUERY.match(source):
            return f"({source.strip().rstrip(';')})"
        file = str(self._folder / source).replace("'", "''")
        if not is_database(source):
            return f"read_parquet('{file}')"
        until = time.monotonic() + LOCKED_FOR
        while True:
            try:
                con.execute(f"ATTACH IF NOT EXISTS '{file}' AS {name} (TYPE duckdb, READ_ONLY)")
                break
            except faults() as error:
                if "lock" not in str(error) or time.monotonic() > until:
                    raise
            time.sleep(0.05)
        return ".".join([name, *(_quoted(part) for part in (table or "").split("."))])

    def _row_columns(self, given: "_Columns", *, labelled: bool) -> dict[str, str]:
        family = self._family
        called = self._name(given)
        event_time = given.time(family.time)
        predicted_at = given.time("predicted_at") if given.has("predicted_at") else event_time
        columns = {
            # Rows without one are each other's duplicates: a fault of that model's data alone.
            "id": f"coalesce({given.text('id')}, '')",
            "model": self._model(called),
            # As it is written there; no feature can be called so.
            "_model": called or "CAST(NULL AS VARCHAR)",
            "event_time": event_time,
            "predicted_at": predicted_at,
            "arrived_at": given.time("arrived_at") if given.has("arrived_at") else predicted_at,
            **self._value_columns(given, "prediction"),
        }
        if "version" in given.mapped:
            columns["version"] = given.whole("version")
        if labelled:
            columns |= self._value_columns(given, "label")
            columns["observed_at"] = (
                given.time("observed_at") if given.has("observed_at") else columns["arrived_at"]
            )
        for name, feature in family.features.items():
            kind = given.number if feature.kind == "numeric" else given.text
            columns[name] = kind(name)
        return columns

    def _label_columns(self, known: "_Columns") -> dict[str, str]:
        columns = {"id": known.text("id"), **self._value_columns(known, "label")}
        if known.has("model") or len(self._family.markets) == 1:
            columns["model"] = self._model(self._name(known))
        columns["observed_at"] = (
            known.time("observed_at") if known.has("observed_at") else "TIMESTAMPTZ '-infinity'"
        )
        return columns

    def _value_columns(self, given: "_Columns", name: str) -> dict[str, str]:
        """Return a prediction or a label as the log keeps it; of classes also as it is written."""
        if self._family.task is not Task.MULTICLASS:
            return {name: given.number(name)}
        written = given.text(name)
        # Where no class is written as a number, a number is a place among them.
        named = given.is_text(name) or any(
            each.removeprefix("-").isdecimal() for each in self._family.classes
        )
        sql = _class_index(written, self._family.classes, named=named)
        return {name: sql, f"_{name}": written}

    def _name(self, given: "_Columns") -> str | None:
        """Return what the source calls a row's model; None where all are of the only one."""
        needed = given.has("model") or len(self._family.markets) > 1
        return given.text("model") if needed else None

    def _model(self, called: str | None) -> str:
        family = self._family
        if called is None:
            return f"'{family.models[0]}'"
        names = [
            f"WHEN '{said}' THEN '{model}'"
            for market, model in zip(family.markets, family.models, strict=True)
            for said in dict.fromkeys((market, str(model)))
        ]
        return f"CASE {called} {' '.join(names)} END"

    def _show_moves(self, con: "duckdb.DuckDBPyConnection") -> None:
        """Make the table of who was champion from when on; the first of all was so before, too."""
        con.execute("CREATE TABLE lake.moves (model VARCHAR, since TIMESTAMPTZ, version INTEGER)")
        for model in self._family.models:
            moves = self._moves(model)
            since = ["-infinity", *(move.at.astimezone(UTC).isoformat() for move in moves[1:])]
            con.execute(
                "INSERT INTO lake.moves SELECT $model, unnest($since)::TIMESTAMPTZ,"
                " unnest($version)",
                {
                    "model": model,
                    "since": since[: len(moves)],
                    "version": [move.head.version for move in moves],
                },
            )

    def _show_predictions(self, con: "duckdb.DuckDBPyConnection", *, told: bool) -> None:
        features = "".join(f", g.{_quoted(name)}" for name in self._family.features)
        # A row that names no version was answered by whoever was there before driftloop.
        version = (
            "coalesce(nullif(g.version, 0), m.version, 0)" if told else "coalesce(m.version, 0)"
        )
        how, when = ("", "m.since = '-infinity'") if told else ("ASOF", "m.since <= g.predicted_at")
        con.execute(
            f"""
            CREATE VIEW lake.{self._family.table}_predictions AS
            SELECT g.id, g.model, CAST({version} AS INTEGER) AS version, 0 AS epoch, g.event_time,
                   g.predicted_at, g.arrived_at, g.prediction, hash(g.prediction) AS rowid{features}
            FROM lake.given g {how} LEFT JOIN lake.moves m ON m.model = g.model AND {when}
            WHERE g.model IS NOT NULL
            """  # noqa: S608 - identifiers come from the checked spec
        )

    def _joined(self, *, by_id: bool) -> str:
        if not by_id or len(self._family.markets) == 1:
            return "lake.outcomes"
        rows = f"SELECT DISTINCT id, model FROM lake.{self._family.table}_predictions"  # noqa: S608 - from the checked spec
        return f"(SELECT p.model, o.* FROM lake.outcomes o JOIN ({rows}) p USING (id))"  # noqa: S608 - as above


class _Columns:
    """Columns of a source under our names; `faults` gathers what does not fit."""

    def __init__(self, where: str, mapped: Mapping[str, str], found: Mapping[str, str]) -> None:
        self.mapped = mapped
        self.faults: list[DriftloopError] = []
        self._where = where
        self._found = found

    def has(self, name: str) -> bool:
        """Return whether the source has the column, or was said to."""
        return name in self.mapped or name in self._found

    def text(self, name: str) -> str:
        return f"CAST({self._of(name, TEXTS, 'text')} AS VARCHAR)"

    def is_text(self, name: str) -> bool:
        """Return whether the column, if there is one, holds texts and no numbers."""
        return self._found.get(self.mapped.get(name, name)) not in WHOLE

    def whole(self, name: str) -> str:
        return f"CAST({self._of(name, WHOLE, 'whole numbers')} AS INTEGER)"

    def time(self, name: str) -> str:
        return f"CAST({self._of(name, TIMES, 'times')} AS TIMESTAMPTZ)"

    def number(self, name: str) -> str:
        given = f"CAST({self._of(name, NUMBERS, 'numbers')} AS DOUBLE)"
        return f"CASE WHEN isfinite({given}) THEN {given} END"

    def _of(self, name: str, kinds: Collection[str], words: str) -> str:
        theirs = self.mapped.get(name, name)
        kind = self._found.get(theirs)
        if kind is None:
            self._fault(name, f"the source has no column {theirs!r}", "it has " + self._all())
        elif kind.partition("(")[0].removesuffix(" WITH TIME ZONE") not in kinds:
            self._fault(name, f"the column {theirs!r} should be {words}, and is {kind}", "")
        else:
            return _quoted(theirs)
        return "NULL"

    def _fault(self, name: str, what: str, hint: str) -> None:
        self.faults.append(DriftloopError(what, where=f"{self._where}.columns.{name}", hint=hint))

    def _all(self) -> str:
        return ", ".join(self._found) or "none"


_NO_LABELS = (
    "(SELECT '' AS id, '' AS model, 0.0 AS label, NULL::TIMESTAMPTZ AS observed_at LIMIT 0)"
)


def _class_index(written: str, classes: Sequence[str], *, named: bool) -> str:
    """Return SQL for the place of a class among `classes`; `NO_CLASS` for what is none."""
    if named:
        listed = ", ".join("'" + each.replace("'", "''") + "'" for each in classes)
        place = f"enum_code(TRY_CAST({written} AS ENUM ({listed})))"
    else:
        place = f"TRY_CAST({written} AS BIGINT)"
        place = f"CASE WHEN {place} BETWEEN 0 AND {len(classes) - 1} THEN {place} END"
    return f"CASE WHEN {written} IS NOT NULL THEN CAST(coalesce({place}, {NO_CLASS}) AS DOUBLE) END"


def _labels_view(family: Family, source: str) -> str:
    return f"""
        CREATE VIEW lake.{family.table}_labels AS
        SELECT id, model, label AS value, observed_at, observed_at AS arrived_at,
               hash(label) AS rowid
        FROM {source} WHERE label IS NOT NULL AND model IS NOT NULL
    """  # noqa: S608 - identifiers come from the checked spec


def _described(con: "duckdb.DuckDBPyConnection", relation: str) -> dict[str, str]:
    found = con.execute(f"DESCRIBE SELECT * FROM {relation}").fetchall()  # noqa: S608 - the source itself
    return {name: kind for name, kind, *_ in found}


def _view(
    con: "duckdb.DuckDBPyConnection", name: str, columns: Mapping[str, str], source: str
) -> None:
    listed = ", ".join(f"{sql} AS {_quoted(name)}" for name, sql in columns.items())
    con.execute(f"CREATE VIEW lake.{name} AS SELECT {listed} FROM {source}")  # noqa: S608 - checked columns of the source itself


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
