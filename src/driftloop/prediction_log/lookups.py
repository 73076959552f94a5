"""What features were looked up of: events, and rows as they were served with what they got."""

from collections.abc import Mapping
from datetime import datetime

import pyarrow as pa

from driftloop.errors import LogError
from driftloop.prediction_log.store import Reads, faults, interruptible
from driftloop.prediction_log.tables import quoted
from driftloop.spec import Family, Source


class Lookups:
    """Reads a store in which `lake.<source>_events` and `lake.<family>_predictions` stand."""

    _store: Reads

    def events(
        self, source: Source, *, after: datetime | None = None, upto: int | None = None
    ) -> pa.Table:
        """Return `position`, `at` (microseconds since 1970) and the fields of a source's events.

        Each event comes once, in the order of positions. `after` bounds their times from below,
        `upto` their positions from above.

        Raises:
            LogError: there is no lake yet, or it cannot be read.
        """
        fields = "".join(f', "{name}"' for name in source.fields)
        sql = f"""
            SELECT position, epoch_us(event_time) AS at{fields}
            FROM lake."{source.table}_events"
            WHERE ($after IS NULL OR event_time > $after) AND ($upto IS NULL OR position <= $upto)
            QUALIFY row_number() OVER (PARTITION BY position ORDER BY arrived_at, rowid) = 1
            ORDER BY position
        """  # noqa: S608 - identifiers come from the checked spec
        return self._store.arrow(sql, {"after": after, "upto": upto})

    def served(
        self, family: Family, *, since: datetime | None, until: datetime, most: int
    ) -> pa.Table:
        """Return rows that were served with events, as they were: at most so many, picked by id.

        They were predicted in (since, until]. Columns: row (a number), id, at (microseconds since
        1970), position, fallbacks, and the family's features.

        Raises:
            LogError: there is no lake yet, or it cannot be read.
        """
        features = ", ".join(quoted(family))
        sql = f"""
            WITH found AS (
                SELECT id, event_time, position, fallbacks, {features}
                FROM lake."{family.table}_predictions"
                WHERE position IS NOT NULL AND predicted_at <= $until
                      AND ($since IS NULL OR predicted_at > $since)
                QUALIFY row_number() OVER (PARTITION BY model, id ORDER BY arrived_at, rowid) = 1
                ORDER BY hash(id), id LIMIT $most
            )
            SELECT row_number() OVER () AS row, id, epoch_us(event_time) AS at, position, fallbacks,
                   {features}
            FROM found
        """  # noqa: S608 - identifiers come from the checked spec
        return self._store.arrow(sql, {"since": since, "until": until, "most": most})

    def ask(self, sql: str, tables: Mapping[str, pa.Table]) -> pa.Table:
        """Return what a query answers over `tables`, by their names, and over nothing else.

        Raises:
            LogError: it could not be answered.
        """
        import duckdb

        with interruptible(), duckdb.connect() as con:
            try:
                con.execute("SET enable_progress_bar = false")
                for name, table in tables.items():
                    con.register(name, table)
                return con.execute(sql).to_arrow_table()
            except faults() as error:
                raise LogError(f"the query of features failed: {error}") from error
