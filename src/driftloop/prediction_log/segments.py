"""Sealed segments into the lake's tables, checked row by row."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from driftloop.errors import LogError
from driftloop.prediction_log.tables import LABEL, NULLABLE, PREDICTION, quoted, sql_type
from driftloop.spec import Family

if TYPE_CHECKING:
    import duckdb


MOST_BAD = 100
"""A segment with more bad lines than this is wrong as a whole."""


class DamagedSegment(LogError):
    """One of the segments given cannot be taken up, whatever one does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BadLine:
    """A line that cannot be taken up: its number, from 1, what is wrong with it, and itself."""

    number: int
    reason: str
    text: bytes

    def __str__(self) -> str:
        """Return `line N: reason`."""
        return f"line {self.number}: {self.reason}"


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
    """Insert the rows of `files` and their names; return how many rows there were.

    Raises:
        DamagedSegment: a line of one cannot be read, or does not fit the family.
    """
    _load(con, kind, family, files)
    names = [f'"{name}"' for name in (PREDICTION if kind == "predictions" else LABEL)]
    shown = [*names]
    if kind == "predictions":
        names += quoted(family)
        shown += [f"features.{name}" for name in quoted(family)]
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


def bad_lines(
    con: "duckdb.DuckDBPyConnection", kind: str, family: Family, segment: Path
) -> tuple[BadLine, ...]:
    """Return the lines of `segment` for which it cannot be taken up, halving it to find them.

    The reader that takes rows up is the judge: there is no second idea of what a good line is.

    Raises:
        DamagedSegment: more than `MOST_BAD` are bad.
    """
    lines = segment.read_bytes().splitlines(keepends=True)
    bad: list[BadLine] = []
    with tempfile.TemporaryDirectory() as folder:
        part = Path(folder) / segment.name
        spans = [(0, len(lines))]
        while spans:
            start, end = spans.pop()
            part.write_bytes(b"".join(lines[start:end]))
            try:
                _load(con, kind, family, [part])
            except DamagedSegment as error:
                if end - start > 1:
                    middle = (start + end) // 2
                    spans += [(middle, end), (start, middle)]
                    continue
                bad.append(BadLine(number=start + 1, reason=error.what, text=lines[start]))
                if len(bad) > MOST_BAD:
                    raise
    return tuple(bad)


def _load(
    con: "duckdb.DuckDBPyConnection", kind: str, family: Family, files: Sequence[Path]
) -> None:
    """Read `files` into the table `batch`, and check each row."""
    columns = dict(PREDICTION if kind == "predictions" else LABEL)
    if kind == "predictions":
        listed = ", ".join(f'"{n}" {sql_type(f)}' for n, f in family.features.items())
        columns["features"] = f"STRUCT({listed})"
    _read(con, files, columns)
    _check(con, family, [name for name in columns if name not in NULLABLE])


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
