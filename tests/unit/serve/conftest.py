"""Real ONNX files, a spool that remembers, and the online service on a real socket."""

import hashlib
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import uvicorn
from fastapi import FastAPI

from driftloop.errors import LogError
from driftloop.records import Head, Label, ModelId, Prediction
from driftloop.serve.online import online_app
from driftloop.serve.service import Service
from driftloop.serve.slot import Slots
from driftloop.spec import Fleet


@dataclass(frozen=True)
class Made:
    """A model file as a candidate's folder would hold it, and what it was lowered from."""

    file: Path
    digest: str
    fitted: Any

    def head(self, model: str, *, epoch: int, version: int | None = None) -> Head:
        return Head(
            model=ModelId(model),
            epoch=epoch,
            version=epoch if version is None else version,
            digest=self.digest,
            artifact=str(self.file),
        )


@dataclass
class KeptSpool:
    """A spool in memory; `broken` makes it fail as a full disk would."""

    kept: list[Prediction] = field(default_factory=list)
    told: list[Label] = field(default_factory=list)
    broken: bool = False
    closed: bool = False

    def predictions(self, family: str, rows: Sequence[Prediction]) -> None:
        if self.broken:
            raise LogError("no space left on device", where=family)
        self.kept.extend(rows)

    def labels(self, family: str, rows: Sequence[Label]) -> None:
        if self.broken:
            raise LogError("no space left on device", where=family)
        self.told.extend(rows)

    def close(self) -> None:
        self.closed = True


@dataclass
class Ledger:
    """Heads that a test moves."""

    now: tuple[Head, ...] = ()
    broken: bool = False

    def heads(self) -> tuple[Head, ...]:
        if self.broken:
            raise LogError("the ledger is locked")
        return self.now


@dataclass
class Running:
    """The online service while it runs."""

    http: httpx.Client
    spool: KeptSpool
    ledger: Ledger
    slots: Slots
    server: uvicorn.Server
    thread: threading.Thread

    def stop(self) -> None:
        self.http.close()
        self.server.should_exit = True
        self.thread.join(10)
        assert not self.thread.is_alive()


class BehindFront:
    """The service as FastAPI alone answers it."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await FastAPI.__call__(self._app, scope, receive, send)


def lowered(
    folder: Path, name: str, *, numeric: list[str], textual: list[str], fitted: Any
) -> Made:
    """Return `fitted` lowered with one input a feature, as a file."""
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType, StringTensorType

    kinds: list[Any] = [(each, FloatTensorType([None, 1])) for each in numeric]
    kinds += [(each, StringTensorType([None, 1])) for each in textual]
    options = {"zipmap": False} if hasattr(fitted, "predict_proba") else None
    graph = to_onnx(fitted, initial_types=kinds, options=options).SerializeToString()
    file = folder / name / "model.onnx"
    file.parent.mkdir()
    file.write_bytes(graph)
    return Made(file, hashlib.sha256(graph).hexdigest(), fitted)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Made]:
    """Models of eta ("sloped", "ten", "twenty") and of churn ("churn")."""
    import pandas as pd
    from sklearn.compose import make_column_transformer
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    folder = tmp_path_factory.mktemp("models")
    seeded = np.random.default_rng(3)
    size = 400

    def fit(estimator: Any, textual: list[str], rows: pd.DataFrame, label: Any) -> Any:
        encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
        split = make_column_transformer((encoder, textual), remainder="passthrough")
        return make_pipeline(split, estimator).fit(rows, label)

    trips = pd.DataFrame(
        {
            "distance": seeded.uniform(0, 5000, size).astype(np.float32),
            "load": np.where(seeded.random(size) < 0.1, np.nan, seeded.random(size)).astype("f4"),
            "vehicle": seeded.choice(["van", "bike", ""], size),
        }
    )
    customers = pd.DataFrame(
        {
            "tenure": seeded.uniform(0, 600, size).astype(np.float32),
            "spend": seeded.uniform(0, 50, size).astype(np.float32),
            "plan": seeded.choice(["a", "b", ""], size),
        }
    )
    made = {}
    for name, label in (
        ("sloped", trips["distance"] / 50 + (trips["vehicle"] == "bike") * 30),
        ("ten", np.full(size, 10.0)),
        ("twenty", np.full(size, 20.0)),
    ):
        fitted = fit(HistGradientBoostingRegressor(max_iter=8), ["vehicle"], trips, label)
        made[name] = lowered(
            folder, name, numeric=["distance", "load"], textual=["vehicle"], fitted=fitted
        )
    left = customers["spend"] + seeded.normal(0, 5, size) > 25
    fitted = fit(HistGradientBoostingClassifier(max_iter=8), ["plan"], customers, left.astype(int))
    made["churn"] = lowered(
        folder, "churn", numeric=["tenure", "spend"], textual=["plan"], fitted=fitted
    )
    return made


@pytest.fixture
def serving(
    fleet: Fleet, clock: Any, request: pytest.FixtureRequest
) -> Iterator[Callable[..., Running]]:
    """Start the online service with some heads; it is stopped at the end of the test.

    With the parameter "fastapi" nothing is answered in front of FastAPI.
    """
    running: list[Running] = []

    def start(
        *heads: Head, poll_every: float = 0.02, ready: bool = True, **slotted: Any
    ) -> Running:
        spool, ledger = KeptSpool(), Ledger(heads, broken=not ready)
        slots = Slots(fleet, **slotted)
        app = online_app(
            Service(fleet=fleet, slots=slots, spool=spool, clock=clock),
            heads=ledger.heads,
            poll_every=poll_every,
            closing=spool.close,
        )
        served: Any = app
        if getattr(request, "param", "") == "fastapi":
            served = BehindFront(app)
        listener = socket.create_server(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(served, log_level="critical", access_log=False))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        client = httpx.Client(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=30)
        service = Running(client, spool, ledger, slots, server, thread)
        running.append(service)
        if ready:
            wait_until(lambda: client.get("/readyz").status_code == 200)
        return service

    yield start
    for service in running:
        service.stop()


def wait_until(true: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait until `true`, or fail."""
    patience = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < patience, "it did not become true in time"
        time.sleep(0.01)


@pytest.fixture
def until() -> Callable[..., None]:
    """Wait until something is true, or fail."""
    return wait_until
