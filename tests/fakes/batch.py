"""Models that multiply, and rows whose answers one knows."""

import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from onnx import TensorProto, helper

from driftloop.records import Head, ModelId

MODEL = ModelId("eta-de")
INSTANT = pa.timestamp("us", tz="UTC")
START = datetime(2026, 3, 1, tzinfo=UTC)
START_US = int(START.timestamp()) * 1_000_000


def multiplying(folder: Path, version: int, *, epoch: int | None = None) -> Head:
    """Return a version that answers `version` times the distance."""
    column = [None, 1]
    factor = helper.make_tensor("factor", TensorProto.FLOAT, [1], [float(version)])
    graph = helper.make_graph(
        [helper.make_node("Mul", ["distance", "factor"], ["answer"])],
        "multiplying",
        [helper.make_tensor_value_info("distance", TensorProto.FLOAT, column)],
        [helper.make_tensor_value_info("answer", TensorProto.FLOAT, column)],
        [factor],
    )
    opset = [helper.make_opsetid("", 17)]
    content = helper.make_model(graph, opset_imports=opset, ir_version=10).SerializeToString()
    file = folder / f"v{version}.onnx"
    file.write_bytes(content)
    return Head(
        model=MODEL,
        epoch=epoch or version,
        version=version,
        digest=hashlib.sha256(content).hexdigest(),
        artifact=str(file),
    )


def trips(size: int, **change: Any) -> pa.Table:
    """Return good rows without ids; the distance is the row's number, from 0."""
    columns = {
        "asked_at": pa.array(START_US + 1_000_000 * np.arange(size)).cast(INSTANT),
        "distance": pa.array(np.arange(size, dtype=np.float64)),
        "vehicle": pa.array(["van", "bike", None], pa.string()).take(pa.array(np.arange(size) % 3)),
    }
    return pa.table({**columns, **change})
