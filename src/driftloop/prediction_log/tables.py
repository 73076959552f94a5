"""The lake's tables: their columns, and how they are made and brought up to date."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from driftloop.errors import LogError, TooNew
from driftloop.spec import Family, Feature, Fleet

if TYPE_CHECKING:
    import duckdb

PREDICTION = {
    "id": "VARCHAR",
    "model": "VARCHAR",
    "version": "INTEGER",
    "epoch": "INTEGER",
    "event_time": "TIMESTAMPTZ",
    "predicted_at": "TIMESTAMPTZ",
    "prediction": "DOUBLE",
}
LABEL = {
    "id": "VARCHAR",
    "model": "VARCHAR",
    "value": "DOUBLE",
    "observed_at": "TIMESTAMPTZ",
}
_SQL_TYPE = {"numeric": "DOUBLE", "categorical": "VARCHAR", "text": "VARCHAR", "key": "VARCHAR"}
NULLABLE = frozenset({"prediction"})


STEPS: "tuple[Callable[[duckdb.DuckDBPyConnection], None], ...]" = ()
"""Step n brings a lake of layout n to n + 1, in a transaction; never changed once released."""
SCHEMA = 1 + len(STEPS)
"""Version of the tables' layout."""


def layout(con: "duckdb.DuckDBPyConnection", *, where: str) -> int | None:
    """Return the version of the lake's layout, None for a lake without tables.

    Raises:
        TooNew: it was written by a newer driftloop.
    """
    if not con.execute(
        "SELECT 1 FROM information_schema.tables"
        " WHERE table_catalog = 'lake' AND table_name = 'layout'"
    ).fetchall():
        return None
    found: int | None = con.execute("SELECT max(version) FROM lake.layout").fetchall()[0][0]
    if found is not None and found > SCHEMA:
        raise TooNew(
            f"the lake has layout {found}, and this driftloop knows {SCHEMA}",
            where=where,
            hint="run a newer driftloop, or restore a backup made by this one",
        )
    return found


def make(con: "duckdb.DuckDBPyConnection", fleet: Fleet) -> None:
    """Make what tables and columns of the newest layout `fleet` lacks.

    Raises:
        LogError: a feature changed its kind.
    """
    con.execute("CREATE TABLE IF NOT EXISTS lake.layout (version INTEGER)")
    if not con.execute("SELECT 1 FROM lake.layout").fetchall():
        con.execute("INSERT INTO lake.layout VALUES (?)", [SCHEMA])
    con.execute(
        "CREATE TABLE IF NOT EXISTS lake.segments"
        " (name VARCHAR, rows BIGINT, ingested_at TIMESTAMPTZ)"
    )
    for family in fleet.families:
        _make_tables(con, family)


def step(con: "duckdb.DuckDBPyConnection", version: int) -> None:
    """Bring a lake of layout `version` to the next."""
    STEPS[version - 1](con)
    con.execute("DELETE FROM lake.layout")
    con.execute("INSERT INTO lake.layout VALUES (?)", [version + 1])


def quoted(family: Family) -> list[str]:
    """Return the names of the family's features as SQL identifiers."""
    return [f'"{name}"' for name in family.features]


def sql_type(feature: Feature) -> str:
    """Return the SQL type of a feature's column."""
    return _SQL_TYPE[feature.kind]


def _make_tables(con: "duckdb.DuckDBPyConnection", family: Family) -> None:
    arrived = {"arrived_at": "TIMESTAMPTZ"}
    features = {name: sql_type(feature) for name, feature in family.features.items()}
    for table, columns in (
        (f"{family.table}_predictions", {**PREDICTION, **arrived, **features}),
        (f"{family.table}_labels", {**LABEL, **arrived}),
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
