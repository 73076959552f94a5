"""Windows of rows and counts of them, read from whatever shows the lake's tables."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from driftloop.errors import BadRequest, LogError
from driftloop.ports import Look
from driftloop.prediction_log import queries
from driftloop.prediction_log.partitions import counted as counted_partitions
from driftloop.prediction_log.spilled import spilled
from driftloop.prediction_log.store import Reads, in_utc, utc
from driftloop.records import LogSummary, ModelId, Partition, Window
from driftloop.rows import outside
from driftloop.spec import Family

TOGETHER = 500_000
"""Rows that are read at once, of as many models as they are."""
LARGE = 1_000_000
"""A window of more rows, of one model alone, is spilled; no fewer than `TOGETHER`."""
SAMPLE = 100_000
_IN_ORDER = "ORDER BY model, event_time, id"
NOTHING = LogSummary(rows=0, duplicates=0, labels=0, newest_event=None)


class Windows:
    """What every log answers: a store in which `lake.<family>_predictions` and `_labels` stand."""

    _store: Reads
    _settled = True
    """Whether what was asked of a window is so still at the next question."""
    _corrected: frozenset[str] = frozenset()
    """Families that were seen to have labels which came again."""

    def rows(self, family: Family, window: Window) -> pa.Table:
        """Return one row for each id that arrived in `window`, by event time.

        Columns: id, version (int32; 0 for history), event_time, arrived_at (when the row did),
        prediction (float64, null for history), label (float64, null when unknown at
        `window.known_at`), labelled_at (when that label arrived; null where there is none, or its
        log does not tell), then the family's features (float64 or string). Times are
        timestamp[us, UTC].

        The first arrival of an id in [start, end) wins whichever version answered it, and of
        labels the newest known. `window.snapshot` is not needed: `arrived_at` decides. Rows in
        `window.left_out` are not returned.

        Raises:
            LogError: there is no lake yet, it lacks a column of the spec, or it cannot be read.
        """
        rows = self._store.arrow(
            f"{queries.rows(family)} ORDER BY event_time, id", queries.bound(window)
        )
        return outside(rows, window.left_out)

    def partitions(
        self, family: Family, windows: Sequence[Window]
    ) -> dict[ModelId, list[Partition]]:
        """Return the partitions of many models, oldest first, whatever version answered them.

        The windows differ in their models alone, begin and end with a block of `window.block`.

        Raises:
            LogError: as for `rows`.
        """
        if not windows:
            return {}
        models = [window.model for window in windows]
        asked = {**queries.bound(windows[0]), "models": models}
        each = self._arrived(family, asked)
        arrived = {model: found.rows for model, found in each.items()}
        found: dict[ModelId, list[Partition]] = {}
        for batch in _batches([model for model in models if model in arrived], arrived):
            once = all(each[model].rows == each[model].distinct for model in batch)
            here = {**asked, "models": batch}
            found |= counted_partitions(self._store, family, here, once=once)
        return found

    def sample(self, family: Family, window: Window) -> tuple[pa.Table, int]:
        """Return `rows`, or a part of them if they are many; and how many there are in all.

        Of more than `SAMPLE` rows it is about that many: those whose ids hash lowest, by DuckDB's
        `hash`, the same at each call.

        Raises:
            LogError: as for `rows`.
            ValueError: the window is of one version.
        """
        if window.version is not None:
            raise ValueError("a sample is of all versions")
        asked = queries.bound(window)
        arrived = self._arrived(family, asked).get(window.model)
        if arrived is None or arrived.distinct <= SAMPLE:
            rows = self.rows(family, window)
            return rows, rows.num_rows
        asked["below"] = SAMPLE * (2**64 - 1) // arrived.distinct
        query = f"{queries.sample(family)} ORDER BY event_time, id"
        return self._store.arrow(query, asked), arrived.distinct

    def summary(self, family: Family, window: Window) -> LogSummary:
        """Return counts over the window's rows as they arrived, duplicates included.

        `rows - duplicates` is the number of rows that `rows` returns, and `labels` how many of
        these have a label.

        Raises:
            LogError: as for `rows`.
        """
        found = self._summaries(family, queries.bound(window))
        return found.get(window.model, NOTHING)

    def looks(self, family: Family, windows: Sequence[Window]) -> Iterator[tuple[ModelId, Look]]:
        """Yield the rows and the summary of many models of one family, some read together.

        The windows differ in their models alone; a look is what `rows` and `summary` return. So
        many models are read at once as have `TOGETHER` rows: what is held does not grow with the
        fleet, unless the caller keeps it. Rows of a window of more than `LARGE` are on disk, and
        are read a column at a time; that they could not be put there is the `fault` of that look.

        Raises:
            LogError: as for `rows`.
            ValueError: the windows differ in more than their models.
        """
        models = [window.model for window in windows]
        if any(replace(window, model=models[0]) != windows[0] for window in windows):
            raise ValueError("windows that are read together differ in their models alone")
        if not windows:
            return
        asked = {**queries.bound(windows[0]), "models": models}
        arrived = self._arrived(family, asked)
        for batch in _batches(models, {model: each.rows for model, each in arrived.items()}):
            one, here = batch[0], {**asked, "models": batch}
            if one in arrived and arrived[one].rows > LARGE:
                yield one, self._large(family, here, arrived[one])
            else:
                yield from self._batch(family, here, arrived)

    def label_history(
        self, family: Family, id_: str
    ) -> dict[ModelId, tuple[tuple[datetime | None, float], ...]]:
        """Return every (arrived_at, value) of an id's labels, model by model, oldest first.

        The last of a model counts. `arrived_at` is None where a log of others does not tell it.

        Raises:
            LogError: as for `rows`.
        """
        found = self._store.fetch(
            f"""
            SELECT model, CASE WHEN isfinite(arrived_at) THEN arrived_at END, value
            FROM lake.{family.table}_labels WHERE id = $id ORDER BY model, arrived_at, rowid
            """,  # noqa: S608 - identifiers come from the checked spec
            {"id": id_},
        )
        history: dict[ModelId, tuple[tuple[datetime | None, float], ...]] = {}
        for model, arrived, value in found:
            history[model] = (*history.get(model, ()), (utc(arrived), value))
        return history

    def query(self, sql: str, params: Mapping[str, object] | None = None) -> pa.Table:
        """Return what one SELECT of yours gives, for pages and plots; `$name` takes parameters.

        Raises:
            BadRequest: it is not a single SELECT, or DuckDB refused it.
            LogError: the log cannot be opened.
        """
        import duckdb

        with self._store.cursor() as con:
            try:
                statements = con.extract_statements(sql)
                if [s.type for s in statements] != [duckdb.StatementType.SELECT]:
                    raise BadRequest("only a single SELECT may be asked of the log", where=sql)
                return in_utc(con.execute(statements[0], dict(params or {})).to_arrow_table())
            except (duckdb.ProgrammingError, duckdb.DataError) as error:
                raise BadRequest(f"the query was refused: {error}", where=sql) from error
            except duckdb.Error as error:
                raise self._store.unread(error) from error

    def _arrived(self, family: Family, asked: Mapping[str, object]) -> dict[ModelId, "_Arrived"]:
        window = {name: value for name, value in asked.items() if name != "version"}
        return {
            model: _Arrived(rows, distinct, utc(newest))
            for model, rows, distinct, newest in self._store.fetch(queries.arrivals(family), window)
        }

    def _large(self, family: Family, asked: Mapping[str, Any], arrived: "_Arrived") -> Look:
        try:
            return Look(*spilled(self._store, family, asked))
        except LogError as error:
            # The others are looked at all the same.
            summary = replace(NOTHING, rows=arrived.rows, newest_event=arrived.newest)
            return Look(rows=pa.table({}), summary=summary, fault=error)

    def _batch(
        self, family: Family, asked: Mapping[str, Any], arrived: Mapping[ModelId, "_Arrived"]
    ) -> Iterator[tuple[ModelId, Look]]:
        models: Sequence[ModelId] = asked["models"]
        here = {model: arrived[model] for model in models if model in arrived}
        once = (
            self._settled
            and asked["version"] is None
            and all(each.rows == each.distinct for each in here.values())
        )
        rows = (
            self._singles(family, asked, sum(each.rows for each in here.values()))
            if once
            else self._store.arrow(f"{queries.rows(family, 'model')} {_IN_ORDER}", asked)
        )
        # In the order of the models: each has its slice, and none is copied.
        spans, start = {}, 0
        for counted in pc.value_counts(rows["model"]).to_pylist():
            spans[counted["values"]] = (start, counted["counts"])
            start += counted["counts"]
        rows = rows.drop_columns("model")
        summaries = {} if once else self._summaries(family, asked)
        for model in models:
            mine = rows.slice(*spans.get(model, (0, 0)))
            if once and model in here:
                summary = LogSummary(
                    rows=here[model].rows,
                    duplicates=0,
                    labels=mine.num_rows - mine["label"].null_count,
                    newest_event=here[model].newest,
                )
            else:
                summary = summaries.get(model, NOTHING)
            yield model, Look(rows=mine, summary=summary)

    def _singles(self, family: Family, asked: Mapping[str, object], count: int) -> pa.Table:
        """Return `count` rows, each id's only one, with the newest label of each."""
        window = {name: value for name, value in asked.items() if name != "version"}
        if family.name not in self._corrected:
            query = queries.single(family, "model", corrected=False)
            rows = self._store.arrow(f"{query} {_IN_ORDER}", window)
            if rows.num_rows == count:
                return rows
            # Where labels are corrected once they will be again.
            self._corrected |= {family.name}
        query = queries.single(family, "model", corrected=True)
        return self._store.arrow(f"{query} {_IN_ORDER}", window)

    def _summaries(self, family: Family, asked: Mapping[str, object]) -> dict[ModelId, LogSummary]:
        return {
            model: LogSummary(
                rows=rows, duplicates=duplicates, labels=labels, newest_event=utc(newest)
            )
            for model, rows, duplicates, labels, newest in self._store.fetch(
                queries.counts(family), asked
            )
        }


@dataclass(frozen=True, slots=True)
class _Arrived:
    """What a model's window holds: its rows, how many ids, and the newest event."""

    rows: int
    distinct: int
    newest: datetime | None


def _batches(models: Sequence[ModelId], rows: Mapping[ModelId, int]) -> Iterator[list[ModelId]]:
    """Yield `models` in turn, as many at a time as have `TOGETHER` rows, and one at least."""
    batch: list[ModelId] = []
    held = 0
    for model in models:
        if batch and held + rows.get(model, 0) > TOGETHER:
            yield batch
            batch, held = [], 0
        batch.append(model)
        held += rows.get(model, 0)
    if batch:
        yield batch
