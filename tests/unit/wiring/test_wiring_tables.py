from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from driftloop.errors import ArtifactError
from driftloop.wiring import read_table


def test_what_a_fit_left_is_read_or_said_to_be_damaged(tmp_path: Path) -> None:
    """A lost or cut reference is an error of ours, and so the trouble of its model alone."""
    file = tmp_path / "reference.parquet"
    pq.write_table(pa.table({"x": [1.0, 2.0]}), file)
    assert read_table(file).num_rows == 2
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(ArtifactError, match=r"(?s)reference\.parquet: it cannot be read.*train"):
        read_table(file)
    file.unlink()
    with pytest.raises(ArtifactError, match="there is no such file"):
        read_table(file)
