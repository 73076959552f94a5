"""`driftloop predict-batch` beside onnxruntime alone, on the same model, cores and rows.

Ours is the whole command's work: the source is read and checked, each row scored, the answers
written to a file, and every row with its features to the log's spool. Beside it onnxruntime scores
arrays that lie in memory already, by the same model file and on the same cores.
"""

import hashlib
import os
import shutil
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from driftloop.batch import Batches, Job
from driftloop.clock import SharedClock
from driftloop.optimize import lower
from driftloop.prediction_log import SegmentSpool
from driftloop.records import Head, ModelId, Task
from driftloop.retrain import fit
from driftloop.serve.slot import Slots
from driftloop.simulate import Plan, Shape, write_monitors
from driftloop.spec import Family, Fleet, load_fleet

CORES = len(os.sched_getaffinity(0))
NUMERIC, CATEGORICAL = 25, 0
GROUP = 500_000
AT_ONCE = 65_536
START = datetime(2026, 3, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchFigures:
    """Seconds of wall time and of CPU, of ours and of bare onnxruntime, for the same rows."""

    rows: int
    ours: float
    ours_cpu: float
    bare: float
    bare_cpu: float

    @property
    def ratio(self) -> float:
        """How many times as long ours takes."""
        return self.ours / self.bare


def batch(folder: Path, *, rows: int, seed: int, times: int = 1) -> tuple[BatchFigures, ...]:
    """Return `times` measurements of each, one after the other, so that both see the same machine.

    Args:
        folder: where everything is made; some 1 GB for each million rows.
        rows: how many.
        seed: of rows and model.
        times: how often.
    """
    fleet, family, head = _world(folder, seed)
    source = folder / "rows.parquet"
    _write(source, family, rows, seed)
    bare = _Bare(Path(head.artifact), family)
    inputs = bare.load(source)
    found = []
    for turn in range(times):
        theirs = _timed(lambda: bare.run(inputs))
        home = folder / f"home{turn}"
        ours = _timed(lambda home=home: _score(home, fleet, family, head, source))  # type: ignore[misc]
        shutil.rmtree(home)
        found.append(
            BatchFigures(
                rows=rows, ours=ours[0], ours_cpu=ours[1], bare=theirs[0], bare_cpu=theirs[1]
            )
        )
    return tuple(found)


def batch_ratio(found: tuple[BatchFigures, ...]) -> float:
    """Return the middle one of the ratios."""
    return statistics.median(each.ratio for each in found)


def _world(folder: Path, seed: int) -> tuple[Fleet, Family, Head]:
    """Make a family of 25 numbers, and a boosted model of it by the recipe that is the default."""
    end = START + timedelta(days=1)
    shape = Shape(task=Task.REGRESSION, numeric=NUMERIC, categorical=CATEGORICAL, levels=2, nulls=0)
    plan = Plan(start=START, end=end, models=1, shape=shape, rows=100, seed=seed)
    write_monitors(plan, folder / "monitors")
    fleet = load_fleet(folder / "monitors")
    (family,) = fleet.families
    given = next(_pieces(family, 20_000, seed))
    label = sum(given[name].to_numpy() * n for n, name in enumerate(family.features))
    rows = given.append_column("label", pa.array(label))
    content = lower(fit(family, rows, seed=seed).pipeline, family)
    file = folder / "model.onnx"
    file.write_bytes(content)
    head = Head(
        model=family.models[0],
        epoch=1,
        version=1,
        digest=hashlib.sha256(content).hexdigest(),
        artifact=str(file),
    )
    return fleet, family, head


def _score(home: Path, fleet: Fleet, family: Family, head: Head, source: Path) -> None:
    with SegmentSpool(home / "spool" / "batch") as spool:
        batches = Batches(
            family=family,
            slots=Slots(fleet),
            champion=lambda _: head,
            spool=spool,
            clock=SharedClock(home / "clock.json"),
            runs=home / "batches",
        )
        job = Job(model=ModelId(head.model), source=str(source), out=home / "out.parquet")
        batches.score(job)


class _Bare:
    """onnxruntime with as many threads as there are cores."""

    def __init__(self, file: Path, family: Family) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = CORES
        self._session: Any = onnxruntime.InferenceSession(
            str(file), options, providers=["CPUExecutionProvider"]
        )
        self._features = family.numeric
        (only,) = self._session.get_inputs()
        self._input = only.name

    def load(self, source: Path) -> np.ndarray[Any, Any]:
        """Return the model's input, float32 [n, features]."""
        read = pq.ParquetFile(source)
        inputs = np.empty((read.metadata.num_rows, len(self._features)), np.float32)
        for place, name in enumerate(self._features):
            inputs[:, place] = read.read(columns=[name])[name].to_numpy()
        return inputs

    def run(self, inputs: np.ndarray[Any, Any], at_once: int = AT_ONCE) -> None:
        """Score all rows, in pieces: all at once would take longer."""
        for start in range(0, len(inputs), at_once):
            self._session.run(None, {self._input: inputs[start : start + at_once]})


def _write(file: Path, family: Family, rows: int, seed: int) -> None:
    writer: pq.ParquetWriter | None = None
    for piece in _pieces(family, rows, seed):
        writer = writer or pq.ParquetWriter(file, piece.schema)
        writer.write_table(piece)
    if writer is not None:
        writer.close()


def _pieces(family: Family, rows: int, seed: int) -> Iterator[pa.Table]:
    rng = np.random.default_rng(seed)
    for first in range(0, rows, GROUP):
        size = min(GROUP, rows - first)
        at = np.datetime64(START.replace(tzinfo=None), "us") + np.arange(first, first + size)
        times = pa.array(at, pa.timestamp("us")).cast(pa.timestamp("us", tz="UTC"))
        columns = {name: rng.normal(size=size) for name in family.features}
        yield pa.table({family.time: times, **columns})


def _timed(work: Any) -> tuple[float, float]:
    began, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - began, time.process_time() - cpu


if __name__ == "__main__":
    import sys
    import tempfile

    with tempfile.TemporaryDirectory() as made:
        for each in batch(Path(made), rows=int(sys.argv[1]), seed=1, times=int(sys.argv[2])):
            print(each, round(each.ratio, 3))  # noqa: T201 - tried by hand
