"""Windows of rows and counts of them, read from whatever shows the lake's tables."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import accumulate

import pyarrow as pa
import pyarrow.compute as pc

from driftloop.errors import BadRequest
from driftloop.ports import Look
from driftloop.prediction_log import queries
from driftloop.prediction_log.store import Reads, in_utc
from driftloop.records import LogSummary, ModelId, Window
from driftloop.spec import Family

NOTHING = LogSummary(rows=0, duplicates=0, labels=0, newest_event=None)


class Windows:
    """What every log answers: a store in which `lake.<family>_predictions` and `_labels` stand."""

    _store: Reads

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
        return self._store.arrow(
            f"{queries.rows(family)} ORDER BY event_time, id", queries.bound(window)
        )

    def summary(self, family: Family, window: Window) -> LogSummary:
        """Return counts over the window's rows as they arrived, duplicates included.

        `rows - duplicates` is the number of rows that `rows` returns, and `labels` how many of
        these have a label.

        Raises:
            LogError: as for `rows`.
        """
        found = self._summaries(family, queries.bound(window))
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
        asked = {**queries.bound(windows[0]), "models": models}
        rows, summaries = self._once(family, asked) or self._more_than_once(family, asked)
        # In the order of the models: each has its slice, and none is copied.
        counted = pc.value_counts(rows["model"]).to_pylist()
        ends = accumulate(each["counts"] for each in counted)
        spans = {
            each["values"]: (end - each["counts"], each["counts"])
            for each, end in zip(counted, ends, strict=True)
        }
        rows = rows.drop_columns("model")
        return {
            model: Look(
                rows=rows.slice(*spans.get(model, (0, 0))),
                summary=summaries.get(model, NOTHING),
            )
            for model in models
        }

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

    def _once(
        self, family: Family, asked: Mapping[str, object]
    ) -> tuple[pa.Table, dict[ModelId, LogSummary]] | None:
        """Return rows, in order, and summaries where no id arrived twice, as is usual."""
        if asked["version"] is not None:
            return None
        window = {name: value for name, value in asked.items() if name != "version"}
        arrived = self._store.fetch(queries.arrivals(family), window)
        if any(count > distinct for _, count, distinct, _ in arrived):
            return None
        rows = self._store.arrow(
            f"{queries.single(family, 'model')} ORDER BY model, event_time, id", window
        )
        known = rows.group_by("model").aggregate([("label", "count")]).to_pydict()
        labels = dict(zip(known["model"], known["label_count"], strict=True))
        return rows, {
            model: LogSummary(
                rows=count, duplicates=0, labels=labels[model], newest_event=utc(newest)
            )
            for model, count, _, newest in arrived
        }

    def _more_than_once(
        self, family: Family, asked: Mapping[str, object]
    ) -> tuple[pa.Table, dict[ModelId, LogSummary]]:
        rows = self._store.arrow(
            f"{queries.rows(family, 'model')} ORDER BY model, event_time, id", asked
        )
        return rows, self._summaries(family, asked)

    def _summaries(self, family: Family, asked: Mapping[str, object]) -> dict[ModelId, LogSummary]:
        return {
            model: LogSummary(
                rows=rows, duplicates=duplicates, labels=labels, newest_event=utc(newest)
            )
            for model, rows, duplicates, labels, newest in self._store.fetch(
                queries.counts(family), asked
            )
        }


def utc(at: datetime | None) -> datetime | None:
    """Return `at` in UTC."""
    return None if at is None else at.astimezone(UTC)
