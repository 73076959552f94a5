"""The lake's tables: their columns, and how they are made and brought up to date."""

from pathlib import Path
from typing import TYPE_CHECKING

from driftloop.errors import LogError
from driftloop.spec import Family, Feature, Fleet

if TYPE_CHECKING:
    import duckdb

SCHEMA = 1
"""Version of the tables' layout; a lake of a newer one is refused."""

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
_SQL_TYPE = {"numeric": "DOUBLE", "categorical": "VARCHAR"}
NULLABLE = frozenset({"prediction"})


def migrate(con: "duckdb.DuckDBPyConnection", fleet: Fleet, *, folder: Path) -> None:
    """Make what tables and columns `fleet` needs; doing it again changes nothing.

    Raises:
        LogError: a feature changed its kind, or the lake is of a newer driftloop.
    """
    con.execute("CREATE TABLE IF NOT EXISTS lake.layout (version INTEGER)")
    found = con.execute("SELECT max(version) FROM lake.layout").fetchall()[0][0]
    if found is not None and found > SCHEMA:
        raise LogError(
            f"the lake has layout {found}, and this driftloop knows {SCHEMA}",
            where=str(folder),
            hint="run a newer driftloop",
        )
    if found is None:
        con.execute("INSERT INTO lake.layout VALUES (?)", [SCHEMA])
    con.execute(
        "CREATE TABLE IF NOT EXISTS lake.segments"
        " (name VARCHAR, rows BIGINT, ingested_at TIMESTAMPTZ)"
    )
    for family in fleet.families:
        _make_tables(con, family)


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
