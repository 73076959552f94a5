"""Sources larger than memory: their rows in pieces, in an order that stays, and back into one file.

Parquet files are read as they stand. What is not Parquet, and whose order of rows a second reading
might not repeat, is copied into one Parquet file first: DuckDB spills what does not fit.
"""

import glob
import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from driftloop.errors import BadRequest, LogError
from driftloop.prediction_log.source import check_ending, first_line, id_types, refuse_blank
from driftloop.prediction_log.store import configured, interruptible, spilling
from driftloop.spec import QUERY

if TYPE_CHECKING:
    import duckdb

PIECE = 65_536
"""Rows that are read at a time."""
_MAGIC = "*?["
_SUSPECTS = 1000
"""So many of the ids that stand twice are looked for, to name the row of the first."""


def files_of(source: str, folder: Path | None = None) -> tuple[Path, ...]:
    """Return the Parquet or CSV files that `source` names, in order; none if it is a query.

    Args:
        source: a file, a pattern of files ("rows/*.parquet"), or a DuckDB query.
        folder: what relative names are relative to; the working folder if left out.

    Raises:
        BadRequest: it is neither, or there is no such file.
    """
    if QUERY.match(source):
        return ()
    check_ending(Path(source), hint="or give a query that starts with SELECT, FROM or WITH")
    root = (folder or Path()).absolute()
    if (root / source).is_file():
        return (root / source,)
    found = sorted(root / name for name in glob.glob(source, root_dir=root, recursive=True))  # noqa: PTH207 - absolute ones, too
    if not found or not any(letter in source for letter in _MAGIC):
        raise BadRequest("there is no such file", where=source)
    return tuple(found)


def fingerprint(source: str, folder: Path | None = None) -> str:
    """Return 32 hexadecimal digits that change with the names, sizes and times of the files.

    Of a query it is its text alone: what it gives is copied once, and then stays.

    Raises:
        BadRequest: as `files_of`.
    """
    seen = hashlib.sha256(source.encode())
    for file in files_of(source, folder):
        found = file.stat()
        seen.update(f"\0{file}\0{found.st_size}\0{found.st_mtime_ns}".encode())
    return seen.hexdigest()[:32]


def as_parquet(source: str, folder: Path | None, copy: Path) -> tuple[Path, ...]:
    """Return the Parquet files that hold the rows of `source`: its own, or `copy`.

    `copy` is written if it is needed and not there, whole or not at all; its folder is where
    DuckDB spills.

    Raises:
        BadRequest: DuckDB cannot read the source or, as on a full disk, not copy it; or a CSV has
            no rows.
    """
    import duckdb

    files = files_of(source, folder)
    if files and files[0].suffix.lower() == ".parquet":
        return files
    if copy.exists():
        return (copy,)
    for file in files:
        refuse_blank(file)
    part = copy.with_suffix(".part")
    options = f"(FORMAT parquet, COMPRESSION lz4_raw, ROW_GROUP_SIZE {2 * PIECE})"
    with _apart(copy.parent) as con:
        try:
            if folder is not None:
                con.execute("SET file_search_path = ?", [str(folder.absolute())])
            read = _rows(con, source, files)
            copied = con.execute(f"COPY ({read}) TO '{_quoted(part)}' {options}").fetchall()
            ((rows,),) = copied
        except duckdb.Error as error:
            part.unlink(missing_ok=True)
            raise BadRequest(f"cannot be read: {first_line(error)}", where=source) from error
    if files and not rows:
        # Without rows DuckDB calls every column text, which would be refused for the wrong reason.
        part.unlink()
        raise BadRequest("it has a header but no rows", where=source)
    _make_durable(part)
    part.replace(copy)
    return (copy,)


class Pieces:
    """The rows of Parquet files, one after the other; not all of a row group is held at once.

    Raises:
        BadRequest: a file is not Parquet, or cannot be read.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        """Read the footers alone."""
        self._files = tuple(files)
        self._groups: list[tuple[Path, int, int]] = []
        for file in self._files:
            with _told(file), pq.ParquetFile(file) as opened:
                footer = opened.metadata
                groups = range(footer.num_row_groups)
                self._groups += [(file, n, footer.row_group(n).num_rows) for n in groups]

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return sum(rows for *_, rows in self._groups)

    @property
    def schema(self) -> pa.Schema:
        """Of the first file."""
        with _told(self._files[0]):
            return pq.read_schema(self._files[0])

    def read(self, *, without: Sequence[range] = ()) -> Iterator[tuple[int, pa.Table]]:
        """Yield rows with the number of the first, from 0; only tables of one file.

        Args:
            without: spans of rows that nobody needs, as long as possible; they may be yielded.

        Raises:
            BadRequest: a file cannot be read.
        """
        start = 0
        for file, group, rows in self._groups:
            span = range(start, start + rows)
            start = span.stop
            if rows and not any(each.start <= span[0] and span[-1] < each.stop for each in without):
                yield from self._group(file, group, span.start)

    def _group(self, file: Path, group: int, start: int) -> Iterator[tuple[int, pa.Table]]:
        # Else all of a row group is read before its first rows are given.
        with _told(file), pq.ParquetFile(file, pre_buffer=False, buffer_size=2**20) as opened:
            for batch in opened.iter_batches(PIECE, row_groups=[group], use_threads=True):
                yield start, pa.Table.from_batches([batch])
                start += batch.num_rows


def repeated_id(files: Sequence[Path], scratch: Path) -> tuple[int, str] | None:
    """Return the first row, from 0, whose `id` stands in a row before it, and that id.

    DuckDB counts them, and spills into `scratch` what does not fit.

    Raises:
        LogError: the disk has no room for that.
    """
    import duckdb

    with _apart(scratch) as con:
        try:
            twice = con.execute(
                f"SELECT id FROM read_parquet([{_listed(files)}], union_by_name = true)"  # noqa: S608 - files that are there
                " WHERE id IS NOT NULL GROUP BY id HAVING count(*) > 1 LIMIT $many",
                {"many": _SUSPECTS},
            ).fetchall()
        except duckdb.Error as error:
            raise LogError(
                f"its ids cannot be compared: {first_line(error)}", where=str(scratch)
            ) from error
    if not twice:
        return None
    suspects = pa.array([id_ for (id_,) in twice], pa.string())
    seen: Counter[str] = Counter()
    for start, piece in Pieces(files).read():
        ids = piece["id"].cast(pa.string())
        found = pc.indices_nonzero(pc.is_in(ids, value_set=suspects)).to_pylist()
        for row in found:
            id_ = ids[row].as_py()
            if seen[id_]:
                return start + row, id_
            seen[id_] += 1
    raise LogError("its ids changed while they were compared", where=str(files[0]))


def join(parts: Sequence[Path], columns: Sequence[str], out: Path, scratch: Path) -> None:
    """Write `columns` of `parts`, one after the other, to `out` (.parquet or .csv), whole or not.

    Raises:
        BadRequest: the ending is neither.
        LogError: the file could not be written.
    """
    import duckdb

    check_ending(out)
    options = "FORMAT parquet" if out.suffix.lower() == ".parquet" else "FORMAT csv, HEADER"
    part = out.with_name(f".{out.name}.part")
    names = ", ".join(f'"{name}"' for name in columns)
    try:
        with _apart(scratch) as con:
            con.execute(
                f"COPY (SELECT {names} FROM read_parquet([{_listed(parts)}]))"  # noqa: S608 - our own names
                f" TO '{_quoted(part)}' ({options})"
            )
        _make_durable(part)
        part.replace(out)
    except (duckdb.Error, OSError) as error:
        raise LogError(f"cannot be written: {first_line(error)}", where=str(out)) from error
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def _apart(scratch: Path) -> Iterator["duckdb.DuckDBPyConnection"]:
    """Give a DuckDB of its own, which keeps within a gigabyte and spills into `scratch`."""
    import duckdb

    config = {**configured(scratch), **spilling(scratch)}
    with interruptible(), duckdb.connect(config=config) as con:
        con.execute("SET TimeZone = 'UTC'")
        con.execute("SET enable_progress_bar = false")
        try:
            yield con
        except BaseException:
            con.interrupt()  # another of its threads may be at the query still
            raise


def _rows(con: "duckdb.DuckDBPyConnection", source: str, files: Sequence[Path]) -> str:
    """Return a query for the rows of a query or of CSV files."""
    if not files:
        return source.strip().rstrip(";")
    read = f"read_csv([{_listed(files)}], sample_size = -1"
    return f"FROM {read}{id_types(con, f'{read})', files)})"


@contextmanager
def _told(file: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise BadRequest(f"cannot be read: {first_line(error)}", where=str(file)) from error


def _listed(files: Sequence[Path]) -> str:
    """Return the names of files for a list of DuckDB's, which takes each for a pattern."""
    return ", ".join(f"'{_quoted(Path(glob.escape(str(file))))}'" for file in files)


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")


def _make_durable(file: Path) -> None:
    with file.open("rb") as written:
        os.fsync(written.fileno())
