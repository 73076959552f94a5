"""Sealed segments into the lake's tables, checked row by row."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from driftloop.errors import LogError
from driftloop.prediction_log.tables import LABEL, NULLABLE, PREDICTION, quoted, sql_type
from driftloop.spec import Family

if TYPE_CHECKING:
    import duckdb


class DamagedSegment(LogError):
    """One of the segments given cannot be taken up, whatever one does."""


def kind_and_family(path: Path) -> tuple[str, str]:
    """Return what a segment holds ("predictions" or "labels") and of which family, by its name.

    Raises:
        DamagedSegment: this is not the name of a segment.
    """
    kind, _, rest = path.stem.partition(".")
    family, _, stamp = rest.partition(".")
    if kind not in {"predictions", "labels"} or not stamp:
        raise DamagedSegment("this is not the name of a segment", where=path.name)
    return kind, family


def take_up(
    con: "duckdb.DuckDBPyConnection",
    kind: str,
    family: Family,
    files: Sequence[Path],
    arrived_at: datetime,
) -> int:
    """Insert the rows of `files` and their names; return how many rows there were."""
    columns = dict(PREDICTION if kind == "predictions" else LABEL)
    shown = [f'"{name}"' for name in columns]
    names = [*shown]
    if kind == "predictions":
        listed = ", ".join(f'"{n}" {sql_type(f)}' for n, f in family.features.items())
        columns["features"] = f"STRUCT({listed})"
        names += quoted(family)
        shown += [f"features.{name}" for name in quoted(family)]
    _read(con, files, columns)
    _check(con, family, [name for name in columns if name not in NULLABLE])
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
