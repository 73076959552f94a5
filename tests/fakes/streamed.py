"""Monitors with features that are looked up: departures by origin, planes by tail number."""

import hashlib
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

from driftloop.records import Head, ModelId
from driftloop.serve.events import Posted
from driftloop.spec import Fleet, load_fleet

MONITORS = Path(__file__).parents[1] / "monitors"
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)

SOURCES = """
[departures]
kind = "events"
time = "departed_at"
fields = { origin = "categorical", delay = "numeric" }
lateness = "15m"
NATS
[planes]
kind = "table"
source = "planes.csv"
key = "tailnum"
refresh = "1h"
"""
_FROM = 'kind = "numeric", from = "departures", key = "origin"'
_PLANE = 'kind = "numeric", from = "planes", key = "tailnum", of = "age"'
FEATURES = f"""
origin = {{ kind = "key", required = true }}
tailnum = {{ kind = "key" }}
delay_mean = {{ {_FROM}, aggregate = "mean", of = "delay", window = "30m", fallback = 0.0 }}
departures_60m = {{ {_FROM}, aggregate = "count", window = "60m" }}
plane_age = {{ {_PLANE}, max_age = "2d", fallback = "null" }}
delay_each = {{ kind = "numeric", expression = "delay_mean / max(departures_60m, 1)" }}
"""
PLANES = "tailnum,age\nN1,3\nN2,\n"


def write_monitors(folder: Path, *, features: str = FEATURES, nats: str = "") -> Path:
    """Write the monitors into `folder`, which is made; with `nats` that subject is read too."""
    shutil.copytree(MONITORS, folder)
    (folder / "churn.toml").unlink()
    named = f'nats = "{nats}"' if nats else ""
    (folder / "sources.toml").write_text(SOURCES.replace("NATS", named), encoding="utf-8")
    (folder / "planes.csv").write_text(PLANES, encoding="utf-8")
    eta = folder / "eta.toml"
    said = eta.read_text(encoding="utf-8")
    vehicle = 'vehicle = { kind = "categorical" }\n'
    eta.write_text(said.replace(vehicle, vehicle + features), encoding="utf-8")
    return folder


def streamed_fleet(folder: Path, *, features: str = FEATURES) -> Fleet:
    """Return the fleet that `write_monitors` writes into `folder`."""
    return load_fleet(write_monitors(folder, features=features))


def departure(
    id_: str, origin: str | None, delay: float | None, *, minutes: float = 0.0, given: bool = True
) -> Posted:
    """Return a departure so many minutes after noon."""
    return Posted(id_, given, NOON + timedelta(minutes=minutes), (origin, delay))


def written_model(file: Path) -> Head:
    """Return a champion of eta-de that answers `distance + delay_mean`, null counting as 0."""
    import onnx
    from onnx import TensorProto, helper

    inputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 1])
        for name in ("distance", "delay_mean")
    ]
    out = helper.make_tensor_value_info("variable", TensorProto.FLOAT, [None, 1])
    nodes = [
        helper.make_node("Constant", [], ["zero"], value_float=0.0),
        helper.make_node("IsNaN", ["delay_mean"], ["absent"]),
        helper.make_node("Where", ["absent", "zero", "delay_mean"], ["delay"]),
        helper.make_node("Add", ["distance", "delay"], ["variable"]),
    ]
    graph = helper.make_graph(nodes, "sum", inputs, [out])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    return Head(model=ModelId("eta-de"), epoch=1, version=1, digest=digest, artifact=str(file))
