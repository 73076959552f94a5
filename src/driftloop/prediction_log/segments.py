"""Sealed segments into the lake's tables, checked row by row."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from driftloop.errors import LogError
from driftloop.prediction_log.spool import BULK, SegmentKind
from driftloop.prediction_log.tables import Table

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


def kind_and_owner(path: Path) -> tuple[str, str]:
    """Return what a segment holds and of which family or source, by its name.

    Raises:
        DamagedSegment: this is not the name of a segment.
    """
    kind, _, rest = path.stem.partition(".")
    of, _, stamp = rest.partition(".")
    if kind not in get_args(SegmentKind) or not stamp:
        raise DamagedSegment("this is not the name of a segment", where=path.name)
    return kind, of


def take_up(
    con: "duckdb.DuckDBPyConnection", table: Table, files: Sequence[Path], arrived_at: datetime
) -> int:
    """Insert the rows of `files` and their names; return how many rows there were.

    An event that the table has is not inserted again: whoever sends events sends them again
    after a crash, under the same position.

    Raises:
        DamagedSegment: a line of one cannot be read, or does not fit the table.
    """
    rows = 0
    for whole in (True, False):
        alike = [file for file in files if (file.suffix == BULK) is whole]
        if alike:
            rows += _insert(con, table, alike, arrived_at)
    return rows


def bad_lines(con: "duckdb.DuckDBPyConnection", table: Table, segment: Path) -> tuple[BadLine, ...]:
    """Return the lines of `segment` for which it cannot be taken up, halving it to find them.

    The reader that takes rows up is the judge: there is no second idea of what a good line is.

    Raises:
        DamagedSegment: more than `MOST_BAD` are bad, or it does not consist of lines.
    """
    if segment.suffix == BULK:
        _load(con, table, [segment])
        raise DamagedSegment("cannot be taken up", where=segment.name)
    lines = segment.read_bytes().splitlines(keepends=True)
    bad: list[BadLine] = []
    with tempfile.TemporaryDirectory() as folder:
        part = Path(folder) / segment.name
        spans = [(0, len(lines))]
        while spans:
            start, end = spans.pop()
            part.write_bytes(b"".join(lines[start:end]))
            try:
                _load(con, table, [part])
            except DamagedSegment as error:
                if end - start > 1:
                    middle = (start + end) // 2
                    spans += [(middle, end), (start, middle)]
                    continue
                bad.append(BadLine(number=start + 1, reason=error.what, text=lines[start]))
                if len(bad) > MOST_BAD:
                    raise
    return tuple(bad)


def _insert(
    con: "duckdb.DuckDBPyConnection", table: Table, files: Sequence[Path], arrived_at: datetime
) -> int:
    shown = _load(con, table, files)
    names = ", ".join(f'"{name}"' for name in table.columns)
    new = _new_events(con, table, shown) if table.kind == "events" else shown
    con.execute(
        f"INSERT INTO lake.{table.name} ({names}, arrived_at) SELECT {names}, $at FROM {new}",  # noqa: S608 - from the checked spec
        {"at": arrived_at},
    )
    counted = con.execute(f"SELECT filename, count(*) FROM {shown} GROUP BY 1").fetchall()  # noqa: S608 - ours
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


def _new_events(con: "duckdb.DuckDBPyConnection", table: Table, shown: str) -> str:
    """Return what selects, each once, the events of `shown` that the table has not."""
    # As literals: by them DuckLake passes over the files that hold none of these positions.
    ((low, high),) = con.execute(
        f"SELECT coalesce(min(position), 0), coalesce(max(position), 0) FROM {shown}"  # noqa: S608 - ours
    ).fetchall()
    return f"""(SELECT DISTINCT ON (position, id) * FROM {shown}) WHERE (position, id) NOT IN (
        SELECT (position, id) FROM lake.{table.name} WHERE position BETWEEN {low} AND {high}
    ) ORDER BY position"""  # noqa: S608 - from the checked spec


def _load(con: "duckdb.DuckDBPyConnection", table: Table, files: Sequence[Path]) -> str:
    """Check each row of `files`, all of one sort; return the name under which they are shown."""
    import duckdb

    shown = "bulk" if files[0].suffix == BULK else "batch"
    try:
        if shown == "bulk":
            _show(con, table, files)
        else:
            _read(con, table, files)
        _check(con, table, shown)
    except (
        duckdb.InvalidInputException,
        duckdb.ConversionException,
        duckdb.BinderException,
    ) as error:
        first = str(error).split("\n", maxsplit=1)[0]
        raise DamagedSegment(f"cannot be parsed: {first}", where=files[0].name) from error
    return shown


def _read(con: "duckdb.DuckDBPyConnection", table: Table, files: Sequence[Path]) -> None:
    """Read lines into the table `batch`: each is parsed once."""
    columns = dict(table.own)
    shown = [f'"{name}"' for name in table.own]
    if table.nested:
        listed = ", ".join(f'"{name}" {kind}' for name, kind in table.more.items())
        columns[table.nested] = f"STRUCT({listed})"
        shown += [f'{table.nested}."{name}"' for name in table.more]
        shown.append(f"{table.nested} IS NULL AS hollow")
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE batch AS SELECT {', '.join(shown)}, filename"  # noqa: S608 - from the checked spec
        f" FROM read_ndjson($files, columns = {columns!r}, filename = true)",
        {"files": [str(file) for file in files]},
    )


def _show(con: "duckdb.DuckDBPyConnection", table: Table, files: Sequence[Path]) -> None:
    """Show Parquet files as the view `bulk`: they may be larger than memory."""
    shown = ", ".join(f'"{name}"::{kind} AS "{name}"' for name, kind in table.columns.items())
    listed = ", ".join("'" + str(file).replace("'", "''") + "'" for file in files)
    con.execute(
        f"CREATE OR REPLACE TEMP VIEW bulk AS SELECT {shown}, filename, false AS hollow"  # noqa: S608 - from the checked spec, and our own files
        f" FROM read_parquet([{listed}], filename = true)"
    )


def _check(con: "duckdb.DuckDBPyConnection", table: Table, shown: str) -> None:
    needed = [f'"{name}" IS NULL' for name in table.own if name not in table.nullable]
    wrong = [*needed, *(["hollow"] if table.nested else [])]
    bound: dict[str, object] = {}
    if table.models is not None:
        wrong.append("NOT list_contains($models, model)")
        bound["models"] = list(table.models)
    named = "id" if "id" in table.own else "model"
    model = "model" if table.models is not None else "NULL"
    found = con.execute(
        f"SELECT filename, {named}, {model} FROM {shown} WHERE {' OR '.join(wrong)} LIMIT 1",  # noqa: S608 - from the checked spec
        bound,
    ).fetchall()
    for file, row, its in found:
        what = f"row {row!r} lacks a value"
        if table.models is not None and its not in table.models:
            what = f"row {row!r} names the model {its!r}, which {table.of} has not"
        raise DamagedSegment(what, where=Path(file).name)
