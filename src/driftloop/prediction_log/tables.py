"""The lake's tables: their columns, and how they are made and brought up to date."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from driftloop.errors import LogError, TooNew
from driftloop.spec import Family, Feature, Fleet, Source

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
    "fallbacks": "VARCHAR[]",
    "position": "BIGINT",
}
LABEL = {
    "id": "VARCHAR",
    "model": "VARCHAR",
    "value": "DOUBLE",
    "observed_at": "TIMESTAMPTZ",
}
SHADOW = {name: kind for name, kind in PREDICTION.items() if name not in {"fallbacks", "position"}}
SERVED = {
    "model": "VARCHAR",
    "version": "INTEGER",
    "role": "VARCHAR",
    "start": "TIMESTAMPTZ",
    "end": "TIMESTAMPTZ",
    "requests": "BIGINT",
    "errors": "BIGINT",
    "seconds": "BIGINT[]",
}
EVENT = {
    "id": "VARCHAR",
    "position": "BIGINT",
    "event_time": "TIMESTAMPTZ",
    "received_at": "TIMESTAMPTZ",
}
_SQL_TYPE = {"numeric": "DOUBLE", "categorical": "VARCHAR", "text": "VARCHAR", "key": "VARCHAR"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table of the lake, and the segments whose rows go there.

    A segment of `kind` holds the columns of `own`, null in those of `nullable` at most, and under
    `nested` an object of the columns of `more`; in Parquet all of them side by side. The lake's
    table has them all, and `arrived_at`. Rows name one of `models`, if that is not None.
    """

    kind: str
    of: str
    name: str
    own: Mapping[str, str]
    nullable: frozenset[str] = frozenset()
    nested: str = ""
    more: Mapping[str, str] = field(default_factory=dict)
    models: tuple[str, ...] | None = None

    @property
    def columns(self) -> dict[str, str]:
        """Every column of its rows with its SQL type."""
        return {**self.own, **self.more}


def tables(fleet: Fleet) -> Iterator[Table]:
    """Yield the tables of `fleet`: of each family what it predicts, of each source its events."""
    for family in fleet.families:
        yield Table(
            kind="predictions",
            of=family.name,
            name=f"{family.table}_predictions",
            own=PREDICTION,
            nullable=frozenset({"prediction", "fallbacks", "position"}),
            nested="features",
            more={name: sql_type(feature) for name, feature in family.features.items()},
            models=family.models,
        )
        for kind, own, nullable in (
            ("labels", LABEL, ()),
            ("shadows", SHADOW, ("prediction",)),
            ("served", SERVED, ()),
        ):
            yield Table(
                kind=kind,
                of=family.name,
                name=f"{family.table}_{kind}",
                own=own,
                nullable=frozenset(nullable),
                models=family.models,
            )
    for source in fleet.sources.values():
        if source.kind == "events":
            yield _events(source)


def table_of(fleet: Fleet, kind: str, of: str) -> Table | None:
    """Return the table that segments of `kind` and of the family or source `of` go to, if any."""
    return next((each for each in tables(fleet) if (each.kind, each.of) == (kind, of)), None)


def _with_lookups(con: "duckdb.DuckDBPyConnection") -> None:
    """Add to each table of predictions which features fell back, and the stream's position."""
    found = con.execute(
        "SELECT table_name FROM information_schema.tables"
        " WHERE table_catalog = 'lake' AND suffix(table_name, '_predictions')"
    ).fetchall()
    for (name,) in found:
        con.execute(f'ALTER TABLE lake."{name}" ADD COLUMN fallbacks VARCHAR[]')
        con.execute(f'ALTER TABLE lake."{name}" ADD COLUMN position BIGINT')


STEPS: "tuple[Callable[[duckdb.DuckDBPyConnection], None], ...]" = (_with_lookups,)
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
    for table in tables(fleet):
        _make_table(con, table)


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


def _events(source: Source) -> Table:
    return Table(
        kind="events",
        of=source.name,
        name=f"{source.table}_events",
        own=EVENT,
        nested="fields",
        more={name: _SQL_TYPE[kind] for name, kind in source.fields.items()},
    )


def _make_table(con: "duckdb.DuckDBPyConnection", table: Table) -> None:
    columns = {**table.own, "arrived_at": "TIMESTAMPTZ", **table.more}
    listed = ", ".join(f'"{name}" {kind}' for name, kind in columns.items())
    con.execute(f"CREATE TABLE IF NOT EXISTS lake.{table.name} ({listed})")
    found = {name: kind for name, kind, *_ in con.execute(f"DESCRIBE lake.{table.name}").fetchall()}
    for name, kind in table.more.items():
        if name not in found:
            con.execute(f'ALTER TABLE lake.{table.name} ADD COLUMN "{name}" {kind}')
        elif found[name] != kind:
            file = f"{table.of}.toml" if table.nested == "features" else "sources.toml"
            what = name if table.nested == "features" else f"{table.of}.fields.{name}"
            raise LogError(
                f"the log holds {name} as {found[name]}, and the spec now says {kind}",
                where=f"{file}: features.{name}" if what == name else f"{file}: {what}",
                hint="give the changed one a new name",
            )
