"""Versions that answer as they were fitted are kept, restored and rolled back to as any others."""

import os
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from threadpoolctl import threadpool_limits

from driftloop.batch import Job
from driftloop.clock import Clock
from driftloop.errors import ArtifactError
from driftloop.keep import backup, restore
from driftloop.records import ModelId
from driftloop.retrain import predict, unpack

DE = ModelId("eta-de")
NOW = datetime(2026, 3, 1, tzinfo=UTC)
STANDING = datetime(9999, 1, 1, tzinfo=UTC)
MONITORS = Path(__file__).parents[2] / "monitors"
RECIPE = '''
from driftloop.retrain.recipes import gradient_boosting


def native(family, *, seed, **parameters):
    """Categories handled by the trees themselves: ONNX would answer otherwise."""
    pipeline = gradient_boosting(family, seed=seed, **parameters)
    return pipeline.set_params(model__categorical_features=[0])
'''


@pytest.fixture
def here(house_at: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An installation with two versions of eta-de, neither of which could be lowered."""
    (tmp_path / "native_recipes.py").write_text(RECIPE)
    monkeypatch.syspath_prepend(str(tmp_path))
    path = os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(tmp_path), path)))
    monitors = tmp_path / "monitors"
    shutil.copytree(MONITORS, monitors)
    with (monitors / "eta.toml").open("a") as file:
        file.write('\n[retrain]\nrecipe = "native_recipes:native"\nserve = "either"\n')
    home = tmp_path / "home"
    home.mkdir()
    made = house_at(home, monitors)
    Clock(origin=NOW, started=STANDING, speed=1.0).write(made.system.settings.clock)
    with threadpool_limits(1):
        made.history()
        made.version("first/eta-de", seed=1)
        made.version("second/eta-de", seed=2)
    return made


@pytest.mark.long
def test_they_are_backed_up_restored_and_rolled_back_to(
    here: Any, house_at: Any, tmp_path: Path
) -> None:
    """By their file's digest; MLflow has the file and why it is not ONNX; a damaged one is refused.

    A rollback loads the file first, in a process of its own, and a batch is scored in one.
    """
    heads = here.heads
    assert {Path(head.artifact).name for head in heads} == {"pipeline.skops"}
    made = backup(here.system.settings, tmp_path / "backup.tar")
    assert made.damaged == ()
    home = tmp_path / "elsewhere"
    restore(tmp_path / "backup.tar", home)
    other = house_at(home, tmp_path / "monitors")
    assert [head.digest for head in other.system.ledger.heads()] == [heads[1].digest]
    assert other.system.needs_sidecar
    with other.system.registry._asked("test", DE) as client:
        run = client.get_run(client.get_model_version(DE, "1").run_id)
        files = [file.path for file in client.list_artifacts(run.info.run_id)]
        assert "answers otherwise on" in run.data.params["unlowered"]
        assert "pipeline.skops" in files
        assert "model.onnx" not in files
    assert other.system.prune()[0].count == 0
    first = next(home.glob(f"artifacts/{DE}/{heads[0].digest[:16]}/pipeline.skops"))
    content = first.read_bytes()
    first.write_bytes(content[:-1])
    with pytest.raises(ArtifactError, match="not the one its digest names"):
        other.system.roll_back(DE, to=1, who="me")
    assert other.system.ledger.head(DE).version == 2
    first.write_bytes(content)
    head = other.system.roll_back(DE, to=1, who="me")
    assert (head.version, head.digest, head.lowered) == (1, heads[0].digest, False)
    (tmp_path / "rows.csv").write_text("asked_at,distance\n2026-02-28T10:00:00Z,100\n")
    out = tmp_path / "scored.parquet"
    scored = other.system.predict_batch(Job(model=DE, source=str(tmp_path / "rows.csv"), out=out))
    assert (scored.rows, scored.head) == (1, head)
    (row,) = pq.read_table(out).to_pylist()
    pipeline = unpack(content, where="first")
    table = pa.table({"distance": [100.0], "load": pa.nulls(1), "vehicle": pa.nulls(1)})
    assert row["prediction"] == predict(pipeline, table)[0]
