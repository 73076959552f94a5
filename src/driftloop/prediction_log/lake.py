"""The prediction log itself: DuckLake tables, written by one ingester, read by everyone else.

For a family called `air-time` there are `lake.air_time_predictions` (id, model, version, epoch,
event_time, predicted_at, arrived_at, prediction, then a column for each feature) and
`lake.air_time_labels` (id, model, value, observed_at, arrived_at); `lake.segments` (name, rows,
ingested_at) tells what came in. `arrived_at` is the loop's time of ingestion: what was known
when. History, known before driftloop was, has version 0, epoch 0 and no prediction.
"""

import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import pyarrow as pa
import pyarrow.compute as pc

from driftloop.errors import BadRequest, LogError
from driftloop.ports import Look
from driftloop.records import LogSummary, ModelId, Window
from driftloop.spec import Family, Feature, Fleet

if TYPE_CHECKING:
    import duckdb

SCHEMA = 1
"""Version of the tables' layout; a lake of a newer one is refused."""

_PREDICTION = {
    "id": "VARCHAR",
    "model": "VARCHAR",
    "version": "INTEGER",
    "epoch": "INTEGER",
    "event_time": "TIMESTAMPTZ",
    "predicted_at": "TIMESTAMPTZ",
    "prediction": "DOUBLE",
}
_LABEL = {
    "id": "VARCHAR",
    "model": "VARCHAR",
    "value": "DOUBLE",
    "observed_at": "TIMESTAMPTZ",
}
_SQL_TYPE = {"numeric": "DOUBLE", "categorical": "VARCHAR"}
_NULLABLE = frozenset({"prediction"})
NOTHING = LogSummary(rows=0, duplicates=0, labels=0, newest_event=None)


class DamagedSegment(LogError):
    """One of the segments given cannot be taken up, whatever one does."""


class Lake:
    """The lake in `folder`, opened at first use; safe to use from several threads.

    Args:
        folder: holds `catalog.sqlite` and the Parquet files under `data`.
        fleet: the families whose tables are meant.
        read_only: False for the one ingester; everybody else reads.
    """

    def __init__(self, folder: Path, fleet: Fleet, *, read_only: bool) -> None:
        self._folder = folder.absolute()
        self._fleet = fleet
        self._read_only = read_only
        self._connecting = threading.Lock()
        self._connection: duckdb.DuckDBPyConnection | None = None

    def migrate(self) -> None:
        """Make what tables and columns the fleet needs; doing it again changes nothing.

        A feature that is new in the spec becomes a column, null in older rows. A feature that
        left the spec keeps its column.

        Raises:
            LogError: a feature changed its kind, the lake is of a newer driftloop, or it cannot
                be written.
        """
        with self._transaction() as con:
            con.execute("CREATE TABLE IF NOT EXISTS lake.layout (version INTEGER)")
            found = con.execute("SELECT max(version) FROM lake.layout").fetchall()[0][0]
            if found is not None and found > SCHEMA:
                raise LogError(
                    f"the lake has layout {found}, and this driftloop knows {SCHEMA}",
                    where=str(self._folder),
                    hint="run a newer driftloop",
                )
            if found is None:
                con.execute("INSERT INTO lake.layout VALUES (?)", [SCHEMA])
            con.execute(
                "CREATE TABLE IF NOT EXISTS lake.segments"
                " (name VARCHAR, rows BIGINT, ingested_at TIMESTAMPTZ)"
            )
            for family in self._fleet.families:
                _make_tables(con, family)

    # -- reading ----------------------------------------------------------------------------

    def rows(self, family: Family, window: Window) -> pa.Table:
        """Return one row for each id that arrived in `window`, by event time.

        Columns: id, version (int32; 0 for history), event_time (UTC), prediction (float64, null
        for history), label (float64, null when unknown at `window.known_at`), then the family's
        features (float64 or string).

        The first arrival of an id in [start, end) wins whichever version answered it, and of
        labels the newest known. `window.snapshot` is not needed: `arrived_at` decides.

        Raises:
            LogError: there is no lake yet, it lacks a column of the spec, or it cannot be read.
        """
        return self._arrow(f"{_rows(family)} ORDER BY event_time, id", _bound(window))

    def summary(self, family: Family, window: Window) -> LogSummary:
        """Return counts over the window's rows as they arrived, duplicates included.

        `rows - duplicates` is the number of rows that `rows` returns, and `labels` how many of
        these have a label.

        Raises:
            LogError: as for `rows`.
        """
        found = self._summaries(family, _bound(window))
        return found.get(window.model, NOTHING)

    def looks(self, family: Family, windows: Sequence[Window]) -> dict[ModelId, Look]:
        """Return the rows and the summary of many models of one family, read together.

        The windows differ in their models alone; a look is what `rows` and `summary` return.

        Raises:
            LogError: as for `rows`.
            ValueError: the windows differ in more than their models.
        """
        if not windows:
            return {}
        models = [window.model for window in windows]
        if any(replace(window, model=models[0]) != windows[0] for window in windows):
            raise ValueError("windows that are read together differ in their models alone")
        asked = {**_bound(windows[0]), "models": models}
        rows = self._arrow(f"{_rows(family, 'model')} ORDER BY model, event_time, id", asked)
        summaries = self._summaries(family, asked)
        owners, rows = rows["model"], rows.drop_columns("model")
        return {
            model: Look(
                rows=rows.filter(pc.equal(owners, model)),
                summary=summaries.get(model, NOTHING),
            )
            for model in models
        }

    def _summaries(self, family: Family, asked: Mapping[str, object]) -> dict[ModelId, LogSummary]:
        sql = f"""
            WITH {_first_arrivals(family, "id, version, event_time")}, {_newest_labels(family)}
            SELECT model, count(*), count(*) FILTER (turn > 1), count(label) FILTER (turn = 1),
                   max(event_time)
            FROM arrived LEFT JOIN known USING (model, id)
            WHERE $version IS NULL OR version = $version
            GROUP BY model
        """  # noqa: S608 - identifiers come from the checked spec
        return {
            model: LogSummary(
                rows=rows, duplicates=duplicates, labels=labels, newest_event=_utc(newest)
            )
            for model, rows, duplicates, labels, newest in self._fetch(sql, asked)
        }

    def label_history(
        self, family: Family, model: ModelId, id_: str
    ) -> tuple[tuple[datetime, float, datetime], ...]:
        """Return every (arrived_at, value, observed_at) of one id's label, oldest arrival first.

        Raises:
            LogError: as for `rows`.
        """
        found = self._fetch(
            f"""
            SELECT arrived_at, value, observed_at FROM lake.{family.table}_labels
            WHERE model = $model AND id = $id ORDER BY arrived_at, rowid
            """,  # noqa: S608 - identifiers come from the checked spec
            {"model": model, "id": id_},
        )
        return tuple(
            (arrived.astimezone(UTC), value, observed.astimezone(UTC))
            for arrived, value, observed in found
        )

    def models(self, family: Family) -> dict[ModelId, int]:
        """Return how many rows arrived for each model that has any, history included.

        Raises:
            LogError: as for `rows`.
        """
        sql = f"SELECT model, count(*) FROM lake.{family.table}_predictions GROUP BY 1 ORDER BY 1"  # noqa: S608 - from the checked spec
        return dict(self._fetch(sql, {}))

    def horizon(self) -> datetime | None:
        """Return the loop's time up to which everything that will ever have arrived is readable.

        A window whose `known_at` is not after it reads the same for ever, as long as the clock
        is not set back; None before the first ingestion.

        Raises:
            LogError: as for `rows`.
        """
        return _utc(self._fetch("SELECT max(ingested_at) FROM lake.segments", {})[0][0])

    def snapshot(self) -> int:
        """Return the number of the lake's newest snapshot.

        Raises:
            LogError: as for `rows`.
        """
        return int(self._fetch("SELECT id FROM ducklake_current_snapshot('lake')", {})[0][0])

    def query(self, sql: str, params: Mapping[str, object] | None = None) -> pa.Table:
        """Return what one SELECT of yours gives, for pages and plots; `$name` takes parameters.

        Raises:
            BadRequest: it is not a single SELECT, or DuckDB refused it.
            LogError: the lake cannot be opened.
        """
        import duckdb

        with self._cursor() as con:
            try:
                statements = con.extract_statements(sql)
                if [s.type for s in statements] != [duckdb.StatementType.SELECT]:
                    raise BadRequest("only a single SELECT may be asked of the log", where=sql)
                return _in_utc(con.execute(statements[0], dict(params or {})).to_arrow_table())
            except (duckdb.ProgrammingError, duckdb.DataError) as error:
                raise BadRequest(f"the query was refused: {error}", where=sql) from error
            except duckdb.Error as error:
                raise self._unread(error) from error

    # -- writing: for the ingester ----------------------------------------------------------

    def holds(self, names: Sequence[str]) -> frozenset[str]:
        """Return which of the segments called `names` have come in already.

        Raises:
            LogError: the lake cannot be read.
        """
        found = self._fetch(
            "SELECT name FROM lake.segments WHERE name IN (SELECT unnest($names))",
            {"names": list(names)},
        )
        return frozenset(name for (name,) in found)

    def append(self, segments: Sequence[Path], *, arrived_at: datetime) -> tuple[int, int]:
        """Take up all rows of sealed `segments`, and their names, in one transaction.

        Return the numbers of predictions and of labels.

        Raises:
            DamagedSegment: one cannot be parsed, or names a family or model unknown here;
                nothing was taken up.
            LogError: the lake could not be written.
        """
        groups: dict[tuple[str, str], list[Path]] = {}
        for path in segments:
            groups.setdefault(_kind_and_family(path), []).append(path)
        counts = {"predictions": 0, "labels": 0}
        with self._transaction() as con:
            for (kind, name), files in sorted(groups.items()):
                family = self._family(name, files[0])
                counts[kind] += _take_up(con, kind, family, files, arrived_at)
        return counts["predictions"], counts["labels"]

    def maintain(self, *, pending: frozenset[str]) -> None:
        """Write small commits out as Parquet, merge small files, drop snapshots a day old.

        Names of segments are forgotten a week after they came in, unless `pending`.

        Raises:
            LogError: the lake could not be written; what was done so far stays.
        """
        import duckdb

        old = "older_than => now() - INTERVAL 1 DAY"
        steps = (
            "CALL ducklake_flush_inlined_data('lake')",
            "CALL ducklake_merge_adjacent_files('lake')",
            f"CALL ducklake_expire_snapshots('lake', {old})",
            f"CALL ducklake_cleanup_old_files('lake', {old})",
        )
        forget = """
            DELETE FROM lake.segments WHERE name NOT IN (SELECT unnest($pending::VARCHAR[]))
            AND ingested_at < (SELECT max(ingested_at) FROM lake.segments) - INTERVAL 7 DAY
        """
        with self._cursor() as con:
            try:
                con.execute(forget, {"pending": list(pending)})
                for step in steps:
                    con.execute(step)
            except duckdb.Error as error:
                raise self._unwritten(error) from error

    def close(self) -> None:
        """Close the lake; the next use opens it again."""
        with self._connecting:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def __enter__(self) -> Self:
        """Return the lake, to be closed at the end of the block."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the lake."""
        self.close()

    # -- inside -----------------------------------------------------------------------------

    @contextmanager
    def _cursor(self) -> Iterator["duckdb.DuckDBPyConnection"]:
        with self._connecting:
            if self._connection is None:
                self._connection = self._connect()
            cursor = self._connection.cursor()
        try:
            yield cursor
        finally:
            cursor.close()

    @contextmanager
    def _transaction(self) -> Iterator["duckdb.DuckDBPyConnection"]:
        import duckdb

        with self._cursor() as con:
            try:
                con.begin()
                yield con
                con.commit()
            except duckdb.Error as error:
                raise self._unwritten(error) from error
            # Closing the cursor rolls back what was not committed.

    def _connect(self) -> "duckdb.DuckDBPyConnection":
        import duckdb
        from duckdb_extensions import import_extension

        catalog = self._folder / "catalog.sqlite"
        if self._read_only and not catalog.exists():
            raise LogError(
                "there is no prediction log here yet",
                where=str(self._folder),
                hint="start the ingester: `driftloop up` does",
            )
        con = duckdb.connect(config=_config(self._folder))
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            con.execute("SET GLOBAL TimeZone = 'UTC'")
            for extension in ("sqlite_scanner", "ducklake"):
                import_extension(extension, con=con)
            address = str(catalog).replace("'", "''")
            data = str(self._folder / "data").replace("'", "''")
            mode = ", READ_ONLY" if self._read_only else ""
            con.execute(
                f"ATTACH 'ducklake:sqlite:{address}' AS lake"
                f" (DATA_PATH '{data}', OVERRIDE_DATA_PATH true{mode})"
            )
            if not self._read_only:
                _allow_readers(catalog)
        except (duckdb.Error, sqlite3.Error, OSError) as error:
            con.close()
            raise LogError(f"cannot be opened: {error}", where=str(self._folder)) from error
        return con

    def _fetch(self, sql: str, params: Mapping[str, object]) -> list[tuple[Any, ...]]:
        import duckdb

        with self._cursor() as con:
            try:
                return con.execute(sql, dict(params)).fetchall()
            except duckdb.Error as error:
                raise self._unread(error) from error

    def _arrow(self, sql: str, params: Mapping[str, object]) -> pa.Table:
        import duckdb

        with self._cursor() as con:
            try:
                return _in_utc(con.execute(sql, dict(params)).to_arrow_table())
            except duckdb.Error as error:
                raise self._unread(error) from error

    def _family(self, name: str, segment: Path) -> Family:
        for family in self._fleet.families:
            if family.name == name:
                return family
        raise DamagedSegment(f"no monitor declares the family {name!r}", where=segment.name)

    def _unread(self, error: Exception) -> LogError:
        return LogError(
            f"the log cannot be read: {error}",
            where=str(self._folder),
            hint="the ingester makes tables and columns; is it running with these monitors?",
        )

    def _unwritten(self, error: Exception) -> LogError:
        return LogError(f"the log cannot be written: {error}", where=str(self._folder))


def _config(folder: Path) -> dict[str, str | bool | int | float | list[str]]:
    return {
        "threads": 2,
        "memory_limit": "2GB",
        "temp_directory": str(folder / "tmp"),
        "autoinstall_known_extensions": False,
    }


def _allow_readers(catalog: Path) -> None:
    """Put SQLite into WAL mode, in which readers and the writer do not wait for each other."""
    con = sqlite3.connect(catalog)
    try:
        con.execute("PRAGMA journal_mode = wal")
    finally:
        con.close()


def _make_tables(con: "duckdb.DuckDBPyConnection", family: Family) -> None:
    arrived = {"arrived_at": "TIMESTAMPTZ"}
    features = {name: _sql_type(feature) for name, feature in family.features.items()}
    for table, columns in (
        (f"{family.table}_predictions", {**_PREDICTION, **arrived, **features}),
        (f"{family.table}_labels", {**_LABEL, **arrived}),
    ):
        listed = ", ".join(f'"{name}" {kind}' for name, kind in columns.items())
        con.execute(f"CREATE TABLE IF NOT EXISTS lake.{table} ({listed})")
    described = con.execute(f"DESCRIBE lake.{family.table}_predictions").fetchall()
    found = {name: kind for name, kind, *_ in described}
    for name, kind in features.items():
        if name not in found:
            con.execute(f'ALTER TABLE lake.{family.table}_predictions ADD COLUMN "{name}" {kind}')
        elif found[name] != kind:
            raise LogError(
                f"the log holds {name} as {found[name]}, and the spec now says {kind}",
                where=f"{family.name}.toml: features.{name}",
                hint="give the changed feature a new name",
            )


def _take_up(
    con: "duckdb.DuckDBPyConnection",
    kind: str,
    family: Family,
    files: Sequence[Path],
    arrived_at: datetime,
) -> int:
    """Insert the rows of `files` and their names; return how many rows there were."""
    columns = dict(_PREDICTION if kind == "predictions" else _LABEL)
    shown = [f'"{name}"' for name in columns]
    names = [*shown]
    if kind == "predictions":
        listed = ", ".join(f'"{n}" {_sql_type(f)}' for n, f in family.features.items())
        columns["features"] = f"STRUCT({listed})"
        names += _quoted(family)
        shown += [f"features.{name}" for name in _quoted(family)]
    _read(con, files, columns)
    _check(con, family, [name for name in columns if name not in _NULLABLE])
    con.execute(
        f"INSERT INTO lake.{family.table}_{kind} ({', '.join([*names, 'arrived_at'])})"  # noqa: S608 - from the checked spec
        f" SELECT {', '.join(shown)}, $at FROM batch",
        {"at": arrived_at},
    )
    counted = con.execute("SELECT filename, count(*) FROM batch GROUP BY 1").fetchall()
    counts = {Path(file).stem: count for file, count in counted}
    con.execute(
        "INSERT INTO lake.segments SELECT unnest($names), unnest($counts), $at",
        {
            "names": [file.stem for file in files],
            "counts": [counts.get(file.stem, 0) for file in files],
            "at": arrived_at,
        },
    )
    return sum(counts.values())


def _read(
    con: "duckdb.DuckDBPyConnection", files: Sequence[Path], columns: Mapping[str, str]
) -> None:
    import duckdb

    try:
        con.execute(
            f"CREATE OR REPLACE TEMP TABLE batch AS SELECT * FROM read_ndjson($files,"  # noqa: S608 - from the checked spec
            f" columns = {dict(columns)!r}, filename = true)",
            {"files": [str(file) for file in files]},
        )
    except (duckdb.InvalidInputException, duckdb.ConversionException) as error:
        first = str(error).split("\n", maxsplit=1)[0]
        raise DamagedSegment(f"cannot be parsed: {first}", where=files[0].name) from error


def _check(con: "duckdb.DuckDBPyConnection", family: Family, needed: Sequence[str]) -> None:
    nulls = " OR ".join(f'"{name}" IS NULL' for name in needed)
    wrong = con.execute(
        f"SELECT filename, id, model FROM batch"  # noqa: S608 - from the checked spec
        f" WHERE {nulls} OR NOT list_contains($models, model) LIMIT 1",
        {"models": list(family.models)},
    ).fetchall()
    for file, id_, model in wrong:
        what = (
            f"row {id_!r} lacks a value"
            if model in family.models
            else f"row {id_!r} names the model {model!r}, which {family.name} has not"
        )
        raise DamagedSegment(what, where=Path(file).name)


def _kind_and_family(path: Path) -> tuple[str, str]:
    kind, _, rest = path.stem.partition(".")
    family, _, stamp = rest.partition(".")
    if kind not in {"predictions", "labels"} or not stamp:
        raise DamagedSegment("this is not the name of a segment", where=path.name)
    return kind, family


def _rows(family: Family, *more: str) -> str:
    wanted = ", ".join(["id", "version", "event_time", "prediction", *_quoted(family)])
    shown = [*more, "id", "version", "event_time", "prediction", "label", *_quoted(family)]
    return f"""
        WITH {_first_arrivals(family, wanted)}, {_newest_labels(family)}
        SELECT {", ".join(shown)} FROM arrived LEFT JOIN known USING (model, id)
        WHERE turn = 1 AND ($version IS NULL OR version = $version)
    """  # noqa: S608 - identifiers come from the checked spec


def _first_arrivals(family: Family, columns: str) -> str:
    # Within one ingestion the order of the rows tells: DuckLake's rowid keeps it for good.
    return f"""arrived AS MATERIALIZED (
        SELECT model, {columns},
               row_number() OVER (PARTITION BY model, id ORDER BY arrived_at, rowid) AS turn
        FROM lake.{family.table}_predictions
        WHERE list_contains($models, model) AND event_time >= $start AND event_time < $end
              AND arrived_at <= $known_at
    )"""  # noqa: S608 - identifiers come from the checked spec


def _newest_labels(family: Family) -> str:
    return f"""known AS (
        SELECT model, id, value AS label FROM lake.{family.table}_labels
        WHERE list_contains($models, model) AND arrived_at <= $known_at
              AND id IN (SELECT id FROM arrived)
        QUALIFY row_number()
                OVER (PARTITION BY model, id ORDER BY arrived_at DESC, rowid DESC) = 1
    )"""  # noqa: S608 - identifiers come from the checked spec


def _bound(window: Window) -> dict[str, object]:
    return {
        "models": [window.model],
        "start": window.start,
        "end": window.end,
        "known_at": window.known_at,
        "version": window.version,
    }


def _quoted(family: Family) -> list[str]:
    return [f'"{name}"' for name in family.features]


def _sql_type(feature: Feature) -> str:
    return _SQL_TYPE[feature.kind]


def _utc(at: datetime | None) -> datetime | None:
    return None if at is None else at.astimezone(UTC)


def _in_utc(table: pa.Table) -> pa.Table:
    """Return `table` with its zoned times labelled UTC, whatever DuckDB calls that zone."""
    fields = [
        field.with_type(pa.timestamp(field.type.unit, tz="UTC"))
        if pa.types.is_timestamp(field.type) and field.type.tz is not None
        else field
        for field in table.schema
    ]
    return table.cast(pa.schema(fields))
