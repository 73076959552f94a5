"""What a request for a model in the sidecar costs, gathered with others and alone.

Alone by itself: `python -m tests.benchmarks._sidecar`.
"""

import hashlib
import itertools
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa

from driftloop.records import Task
from driftloop.retrain import Fitted, pack
from driftloop.serve.frames import connect
from driftloop.serve.sidecar import Sidecar, SidecarModel

CONNECTIONS = 16
FEATURES = 25
TREES = 200
ROWS = 5000
PROGRAM = """
import os, sys
os.environ["OMP_NUM_THREADS"] = "1"
from pathlib import Path
from driftloop.sidecar import Limits, serve
serve(Path(sys.argv[1]), limits=Limits(batch_rows=int(sys.argv[2])),
    ready=lambda: print("ready", flush=True))
"""


def gathered(*, seconds: float = 4.0, seed: int = 1) -> dict[str, float]:
    """Return figures of single-row requests for a boosted-trees model in scikit-learn.

    For batches of all that waits ("gathered") and of one request each ("alone"), at 16 connections
    that each wait for their answer: CPU of the sidecar a request in us, and requests/s; and the
    ratio of the two CPUs.
    """
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        file, digest, rows = _made(Path(folder), seed)
        for name, most in (("alone", 1), ("gathered", 4096)):
            with _serving(Path(folder) / name, most) as (at, process):
                models = [
                    Sidecar(partial(connect, at), within=60).load(file, digest)
                    for _ in range(CONNECTIONS)
                ]
                _ask(models, rows, seconds / 4)
                before = process.cpu_times()
                count, took = _ask(models, rows, seconds)
                after = process.cpu_times()
                cpu = after.user + after.system - before.user - before.system
                figures[f"{name}_us"] = cpu / count * 1e6
                figures[f"{name}_rps"] = count / took
    figures["ratio"] = figures["alone_us"] / figures["gathered_us"]
    return figures


def _made(folder: Path, seed: int) -> tuple[Path, str, list[dict[str, list[Any]]]]:
    from sklearn.ensemble import HistGradientBoostingClassifier

    rng = np.random.default_rng(seed)
    names = [f"x{n:02}" for n in range(FEATURES)]
    table = rng.normal(size=(ROWS, FEATURES)).astype(np.float32)
    label = (table[:, :5].sum(axis=1) + rng.normal(size=ROWS) > 0).astype(np.int64)
    frame = pa.table({name: table[:, n] for n, name in enumerate(names)}).to_pandas()
    fitted = HistGradientBoostingClassifier(
        max_iter=TREES, early_stopping=False, random_state=seed
    ).fit(frame, label)
    columns = tuple((name, "numeric") for name in names)
    content = pack(Fitted(pipeline=fitted, task=Task.BINARY, columns=columns))
    file = folder / "pipeline.skops"
    file.write_bytes(content)
    rows = [{name: [float(row[n])] for n, name in enumerate(names)} for row in table[:1000]]
    return file, hashlib.sha256(content).hexdigest(), rows


@contextmanager
def _serving(folder: Path, most: int) -> Iterator[tuple[Path, psutil.Process]]:
    command = [sys.executable, "-c", PROGRAM, str(folder), str(most)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            (answering,) = psutil.Process(process.pid).children()
            yield folder, answering
        finally:
            process.terminate()


def _ask(
    models: list[SidecarModel], rows: list[Mapping[str, list[Any]]], seconds: float
) -> tuple[int, float]:
    """Return how many requests were answered, all models asking at once, and in what time."""
    counts = [0] * len(models)
    until = time.perf_counter() + seconds

    def ask(place: int) -> None:
        for row in itertools.cycle(rows[place * 60 :] + rows[: place * 60]):
            if time.perf_counter() > until:
                return
            models[place].predict(dict(row))
            counts[place] += 1

    began = time.perf_counter()
    threads = [threading.Thread(target=ask, args=(place,)) for place in range(len(models))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts), time.perf_counter() - began


if __name__ == "__main__":
    sys.stdout.write(f"{json.dumps(gathered())}\n")
