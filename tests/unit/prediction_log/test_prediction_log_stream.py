from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from driftloop.errors import BadRequest, LogError
from driftloop.prediction_log import (
    Pieces,
    as_parquet,
    files_of,
    fingerprint,
    join,
    read_source,
    repeated_id,
)

NOON = datetime(2026, 2, 28, 12, tzinfo=UTC)
TIMES = pa.timestamp("us", tz="UTC")
TABLE = pa.table(
    {
        "id": ["007", "8"],
        "x": pa.array([1.5, None]),
        "name": pa.array(['it\'s, a "name"', None]),
        "at": pa.array([NOON, None], TIMES),
    }
)


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """A folder whose name is a pattern, and holds a quote."""
    folder = tmp_path / "it's a [folder]"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_parts_are_joined_and_read_back(odd: Path, ending: str) -> None:
    """In order; Parquet and CSV keep text ids, numbers, nulls and UTC times."""
    parts = [odd / "part-1.parquet", odd / "part-0.parquet"]
    for row, part in enumerate(parts):
        pq.write_table(TABLE.slice(row, 1).append_column("more", pa.array([1])), part)
    file = odd / f"all.{ending}"
    join(parts, TABLE.column_names, file, odd)
    assert read_source(str(file)).to_pydict() == TABLE.to_pydict()
    assert {path.name for path in odd.iterdir()} - {"tmp"} == {
        *("part-0.parquet", "part-1.parquet"),
        file.name,
    }
    (copied,) = as_parquet(str(file), None, odd / "copy.parquet")
    assert copied == (file if ending == "parquet" else odd / "copy.parquet")
    pieces = pa.concat_tables(piece for _, piece in Pieces([copied]).read())
    assert pieces.to_pydict() == TABLE.to_pydict()


def test_a_file_is_joined_whole_or_not_at_all(odd: Path) -> None:
    """Where writing fails nothing half written is left, and what was there stays."""
    part = odd / "part.parquet"
    pq.write_table(TABLE, part)
    with pytest.raises(BadRequest, match=r"\.txt"):
        join([part], ["id"], odd / "x.txt", odd)
    with pytest.raises(LogError, match="nowhere"):
        join([part], ["id"], odd / "nowhere" / "x.csv", odd)
    old = odd / "old.csv"
    old.write_text("old")
    part.write_text("damaged")
    with pytest.raises(LogError, match="cannot be written"):
        join([part], ["id"], old, odd)
    assert old.read_text() == "old"
    assert {path.name for path in odd.iterdir()} - {"tmp"} == {"part.parquet", "old.csv"}


def test_a_pattern_names_files_in_order(odd: Path) -> None:
    """Relative to a folder or not; a file whose name is a pattern is that file."""
    for name in ("b.csv", "a.csv", "[x].csv"):
        (odd / name).write_text("x\n1\n")
    assert [file.name for file in files_of("[x].csv", odd)] == ["[x].csv"]
    assert [file.name for file in files_of("?.csv", odd)] == ["a.csv", "b.csv"]
    assert files_of("FROM 'a.csv'", odd) == ()
    for source, said in (("z*.csv", "no such file"), ("a.txt", "not a kind of table")):
        with pytest.raises(BadRequest, match=said):
            files_of(source, odd)


def test_what_is_read_may_be_skipped(tmp_path: Path) -> None:
    """Row groups that nobody needs are not read; the others say where their rows stand."""
    file = tmp_path / "a.parquet"
    pq.write_table(pa.table({"x": range(50)}), file, row_group_size=10)
    pieces = Pieces([file, file])
    assert pieces.rows == 100
    found = {first: piece["x"][0].as_py() for first, piece in pieces.read(without=[range(5, 85)])}
    assert found == {0: 0, 80: 30, 90: 40}


def test_a_fingerprint_changes_with_the_files(tmp_path: Path) -> None:
    """With their names, sizes and times; a query's only with its text."""
    file = tmp_path / "a.csv"
    file.write_text("x\n1\n")
    first = fingerprint("*.csv", tmp_path)
    assert fingerprint("*.csv", tmp_path) == first
    (tmp_path / "b.csv").write_text("x\n1\n")
    second = fingerprint("*.csv", tmp_path)
    file.write_text("x\n2\n")
    assert len({first, second, fingerprint("*.csv", tmp_path)}) == 3
    assert fingerprint("FROM 'a.csv'", tmp_path) == fingerprint("FROM 'a.csv'")


def test_the_row_that_repeats_an_id_is_found(odd: Path) -> None:
    """Over files, and whatever else repeats; nulls repeat nothing."""
    first, second = odd / "a.parquet", odd / "b.parquet"
    pq.write_table(pa.table({"id": ["a", None, "b", None]}), first)
    pq.write_table(pa.table({"id": ["c", "d"]}), second)
    assert repeated_id([first, second], odd) is None
    pq.write_table(pa.table({"id": ["c", "b", "a"]}), second)
    assert repeated_id([first, second], odd) == (5, "b")
