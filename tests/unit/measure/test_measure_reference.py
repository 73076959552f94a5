import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from driftloop.errors import ArtifactError
from driftloop.measure.reference import Levels, Numbers, Reference, References, prepared
from driftloop.spec import Family

Make = Callable[..., Any]


@pytest.fixture
def file(tmp_path: Path, regression: Make) -> Path:
    folder = tmp_path / "eta-de" / "first"
    folder.mkdir(parents=True)
    pq.write_table(regression(500, seed=1), folder / "reference.parquet")
    return folder / "reference.parquet"


def same(one: Reference, other: Reference) -> bool:
    def plain(column: Numbers | Levels | str) -> object:
        match column:
            case Numbers():
                return column.ascending.tolist(), column.spread
            case Levels():
                return column.names.to_pylist(), column.counts.tolist()
        return column

    told = [{name: plain(each) for name, each in side.columns.items()} for side in (one, other)]
    return told[0] == told[1] and (one.rows, one.nulls) == (other.rows, other.nulls)


def test_what_is_kept_is_what_was_prepared(eta: Family, file: Path, put: Make) -> None:
    """Numbers, categories, nulls and problems come back from the file beside it, to the bit."""
    table = put(pq.read_table(file), "load", ["text"] * 500)
    table = put(table, "distance", [None, float("nan"), 5e-324, *range(497)])
    pq.write_table(table, file)
    made = prepared(eta, table)
    assert made.columns["load"] == "load is string in the reference, not a number"
    assert same(References().of(eta, file), made)
    (kept,) = (path for path in file.parent.iterdir() if path != file)
    before = kept.stat().st_mtime_ns
    assert same(References().of(eta, file), made)
    assert kept.stat().st_mtime_ns == before


def test_a_file_is_prepared_once(eta: Family, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked again, nothing is read; a newer version of the model takes its place."""
    references = References()
    first = references.of(eta, file)
    with monkeypatch.context() as without:
        without.setattr(pq, "read_table", None)
        without.setattr(pa, "memory_map", None)
        assert references.of(eta, file) is first
    newer = file.parent.with_name("second")
    newer.mkdir()
    pq.write_table(pq.read_table(file).slice(100), newer / file.name)
    assert references.of(eta, newer / file.name).rows == 400
    assert len(references._held) == 1


def test_other_features_are_prepared_anew(eta: Family, file: Path) -> None:
    """A feature that became a category is no number of the file kept before."""
    References().of(eta, file)
    features = {**eta.features, "load": eta.features["vehicle"]}
    changed = eta.model_copy(update={"features": features})
    assert isinstance(References().of(changed, file).columns["load"], Levels)
    assert isinstance(References().of(eta, file).columns["load"], Numbers)


@pytest.mark.parametrize("content", [b"", b"ARROW1", b"junk" * 100])
def test_what_is_kept_and_damaged_is_prepared_anew(eta: Family, file: Path, content: bytes) -> None:
    """It is a copy: nobody has to mend it."""
    made = prepared(eta, pq.read_table(file))
    References().of(eta, file)
    (kept,) = (path for path in file.parent.iterdir() if path != file)
    kept.unlink()
    kept.write_bytes(content)
    assert same(References().of(eta, file), made)
    assert kept.read_bytes() != content


def test_damage_shows_though_it_was_prepared_before(eta: Family, file: Path) -> None:
    """What was prepared of a whole file does not stand for what became of it."""
    References().of(eta, file)
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(ArtifactError, match="cannot be read"):
        References().of(eta, file)


def test_a_folder_that_cannot_be_written_is_read_all_the_same(
    eta: Family, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then what is prepared is kept in memory alone."""

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pa, "OSFile", full)
    assert References().of(eta, file).rows == 500
    assert list(file.parent.iterdir()) == [file]


def test_a_lost_or_damaged_file_is_an_error_of_ours(eta: Family, file: Path) -> None:
    """And so the trouble of its model alone."""
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(ArtifactError, match=r"reference\.parquet: it cannot be read.*train"):
        References().of(eta, file)
    file.unlink()
    with pytest.raises(ArtifactError, match="there is no such file"):
        References().of(eta, file)


def test_no_numbers_of_a_column_of_texts(eta: Family, regression: Make) -> None:
    """Asked for what it is not, a column says what it is."""
    made = prepared(eta, regression(50, seed=1))
    assert np.isfinite(made.numbers("load").spread)
    assert made.null_share("load") == 0.0
    assert made.null_share("nothing") is None
