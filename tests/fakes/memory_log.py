"""A prediction log in memory, asked by the very queries that the lake is asked by."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from driftloop.prediction_log.store import Reads
from driftloop.prediction_log.windows import Windows
from driftloop.spec import Family


class MemoryStore(Reads):
    """DuckDB in memory, in which `lake` stands."""

    def __init__(self) -> None:
        self.con = duckdb.connect(config={"threads": 2})
        self.con.execute("SET GLOBAL TimeZone = 'UTC'")
        self.con.execute("ATTACH ':memory:' AS lake")

    @contextmanager
    def cursor(self) -> Iterator[Any]:
        cursor = self.con.cursor()
        try:
            yield cursor
        finally:
            cursor.close()

    @property
    def scratch(self) -> Path:
        raise AssertionError

    def unread(self, error: Exception) -> Any:
        return error


class MemoryLog(Windows):
    """Rows as `simulate.rows` makes them; what arrived when is what was predicted when."""

    def __init__(self, family: Family) -> None:
        self._store = MemoryStore()
        self.family = family
        columns = "".join(
            f', "{name}" {"DOUBLE" if feature.kind == "numeric" else "VARCHAR"}'
            for name, feature in family.features.items()
        )
        self._store.con.execute(
            f"CREATE TABLE lake.{family.table}_predictions (id VARCHAR, model VARCHAR,"
            " version INTEGER, epoch INTEGER, event_time TIMESTAMPTZ, predicted_at TIMESTAMPTZ,"
            f" arrived_at TIMESTAMPTZ, prediction DOUBLE{columns})"
        )
        self._store.con.execute(
            f"CREATE TABLE lake.{family.table}_labels (id VARCHAR, model VARCHAR, value DOUBLE,"
            " observed_at TIMESTAMPTZ, arrived_at TIMESTAMPTZ)"
        )

    def add(self, predictions: pa.Table, labels: pa.Table) -> None:
        """Take rows whose features are a struct, and labels."""
        con = self._store.con
        con.register("given", predictions)
        named = "".join(f", features['{name}']" for name in self.family.features)
        con.execute(
            f"INSERT INTO lake.{self.family.table}_predictions SELECT id, model, version, epoch,"
            f" event_time, predicted_at, predicted_at, prediction{named} FROM given"
        )
        con.register("given", labels)
        con.execute(
            f"INSERT INTO lake.{self.family.table}_labels"
            " SELECT id, model, value, observed_at, observed_at FROM given"
        )

    def change(self, sql: str, **params: object) -> None:
        """Run `sql` on the tables; `p` and `l` in braces stand for them."""
        table = self.family.table
        said = sql.format(p=f"lake.{table}_predictions", l=f"lake.{table}_labels")
        self._store.con.execute(said, params)

    def horizon(self, family: Family) -> datetime | None:
        return None
