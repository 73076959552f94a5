"""`driftloop predict-batch` beside onnxruntime alone, on the same model, cores and rows.

Ours is the whole command's work: the source is read and checked, each row scored, the answers
written to a file, and every row with its features to the log's spool. Beside it onnxruntime scores
arrays that lie in memory already, by the same model file and on the same cores.
"""

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from operator import itemgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from driftloop import simulate
from driftloop.batch import Batches, Job
from driftloop.clock import SharedClock
from driftloop.optimize import lower
from driftloop.prediction_log import SegmentSpool
from driftloop.records import Head, ModelId, Task
from driftloop.retrain import fit
from driftloop.serve.slot import Slots
from driftloop.spec import Family, Fleet, load_fleet
from tests.benchmarks._raw import Figure, Line, Plan, Raw

WHO = ("ours", "bare")
CORES = len(os.sched_getaffinity(0))
NUMERIC = 25
GROUP = 500_000
AT_ONCE = 65_536
START = datetime(2026, 3, 1, tzinfo=UTC)


def measure_batch(raw: Raw, plan: Plan) -> None:
    """Write a raw line for each turn of both, one after the other: they see the same machine."""
    rows, turns = plan.rows(quick=1_000_000, full=10_000_000), 1 if plan.quick else 2
    with TemporaryDirectory(prefix="driftloop-batch-") as made:
        folder = Path(made)
        fleet, family, head = _world(folder, plan.seed)
        source = folder / "rows.parquet"
        _write(source, family, rows, plan.seed)
        bare = _Bare(Path(head.artifact), family)
        inputs = bare.load(source)
        for turn in range(turns):
            home = folder / f"home{turn}"
            theirs = _timed(partial(bare.run, inputs))
            ours = _timed(partial(_score, home, fleet, family, head, source))
            shutil.rmtree(home)
            raw.note("batch", rows=rows, features=NUMERIC, cores=CORES, ours=ours, bare=theirs)


def batch_figures(lines: Sequence[Line]) -> dict[str, Figure]:
    """Return how the two compare, the best turn of each; derived from raw lines alone."""
    found = [line for line in lines if line["what"] == "batch"]
    if not found:
        names = ("batch_ratio", "batch_cpu_ratio", "batch_rows_per_s")
        return {name: Figure(None, "", "no batch was scored") for name in names}
    best = {who: min((line[who] for line in found), key=itemgetter("wall_s")) for who in WHO}
    ours, bare, rows = best["ours"], best["bare"], found[0]["rows"]
    said = "predict-batch, log and file written, by onnxruntime on an array in memory"
    return {
        "batch_ratio": Figure(ours["wall_s"] / bare["wall_s"], "", said),
        "batch_cpu_ratio": Figure(ours["cpu_s"] / bare["cpu_s"], "", "the same, of CPU"),
        "batch_rows_per_s": Figure(rows / ours["wall_s"], "rows/s", "of predict-batch"),
    }


def _world(folder: Path, seed: int) -> tuple[Fleet, Family, Head]:
    """Make a family of 25 numbers, and a boosted model of it by the recipe that is the default."""
    end = START + timedelta(days=1)
    shape = simulate.Shape(task=Task.REGRESSION, numeric=NUMERIC, categorical=0, levels=2, nulls=0)
    plan = simulate.Plan(start=START, end=end, models=1, shape=shape, rows=100, seed=seed)
    simulate.write_monitors(plan, folder / "monitors")
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


def _timed(work: Callable[[], None]) -> dict[str, float]:
    began, cpu = time.perf_counter(), time.process_time()
    work()
    return {"wall_s": time.perf_counter() - began, "cpu_s": time.process_time() - cpu}
