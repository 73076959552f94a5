"""Real MLflow elsewhere: its database in PostgreSQL, or a tracking server that runs already."""

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from integration.house import answers, eventually, free_ports

from driftloop.errors import RegistryError
from driftloop.records import Candidate, ModelId, Order, Window
from driftloop.registry import MlflowRegistry
from driftloop.settings import Settings
from driftloop.spec import Fleet
from driftloop.up import services

MODEL = ModelId("eta-de")
AT = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def served(tmp_path: Path, database: str) -> Iterator[tuple[str, Path]]:
    """MLflow's server as `driftloop up` starts it over PostgreSQL, and where it keeps files."""
    (port,) = free_ports(1)
    settings = Settings(
        home=tmp_path / "home",
        monitors=Path(__file__).parents[2] / "monitors",
        mlflow=database,  # type: ignore[arg-type]
        mlflow_port=port,
    )
    (mlflow,) = (each for each in services(settings) if each.name == "mlflow")
    with (tmp_path / "mlflow.log").open("wb") as log:
        process = subprocess.Popen(
            mlflow.argv,
            env={**os.environ, **mlflow.env},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        eventually(
            lambda: answers(f"{mlflow.url}/health"),
            "MLflow's server",
            so_far=(tmp_path / "mlflow.log").read_text,
        )
        yield mlflow.url, settings.mlflow_files
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture(params=["postgresql", pytest.param("server", marks=pytest.mark.long)])
def elsewhere(request: pytest.FixtureRequest, tmp_path: Path, fleet: Fleet) -> Iterator[Any]:
    """A registry whose store is elsewhere, and the folder that its copies come to lie in."""
    if request.param == "server":
        address, kept = request.getfixturevalue("served")
        yield MlflowRegistry(address, tmp_path / "unused", fleet), kept
        return
    address = request.getfixturevalue("database").replace("postgresql:", "postgresql+psycopg:")
    made = MlflowRegistry(address, tmp_path / "kept", fleet)
    yield made, tmp_path / "kept"
    made._client()._tracking_client.store.engine.dispose()


def candidate(folder: Path) -> Candidate:
    folder.mkdir()
    (folder / "model.onnx").write_bytes(b"onnx")
    window = Window(model=MODEL, start=AT - timedelta(days=56), end=AT, known_at=AT)
    return Candidate(
        order=Order(
            key="eta-de/1",
            model=MODEL,
            at=AT,
            reason="worse",
            window=window,
            holdout_from=AT - timedelta(days=7),
            seed=7,
        ),
        digest="ab" * 32,
        folder=str(folder),
        rows=3000,
        holdout_rows=400,
        metrics=(),
        parity=1e-7,
        fit_seconds=0.3,
        lower_seconds=0.1,
    )


def test_a_version_is_kept_pointed_at_and_let_go(elsewhere: Any, tmp_path: Path) -> None:
    """As in the home: registered once, its files copied, and removed when it is told so."""
    registry, kept = elsewhere
    registry.prepare()
    made = candidate(tmp_path / "made")
    assert registry.register(made) == registry.register(made) == 1
    assert registry.point(MODEL, 1)
    assert not registry.point(MODEL, 1)
    (version,) = registry.versions(MODEL)
    source = registry._client().get_model_version(MODEL, "1").source
    assert source.startswith("mlflow-artifacts:" if registry._served else "file:")
    assert (version.version, version.order, version.champion) == (1, "eta-de/1", True)
    assert len(list(kept.rglob("model.onnx"))) == 1
    registry.drop_files(MODEL, 1)
    assert not list(kept.rglob("model.onnx"))
    assert registry.versions(MODEL) == (version,)


@pytest.mark.parametrize(
    "address", ["postgresql+psycopg://ours:hush@127.0.0.1:{}/mlflow", "http://127.0.0.1:{}"]
)
def test_a_store_that_does_not_answer_is_told_at_once(
    tmp_path: Path, fleet: Fleet, address: str
) -> None:
    """MLflow would try for a minute and more; the address is told without its password."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        registry = MlflowRegistry(address.format(nobody.getsockname()[1]), tmp_path, fleet)
        with pytest.raises(RegistryError, match="could not list the versions") as refused:
            registry.versions(MODEL)
    assert "does it run, and let this user in" in refused.value.hint
    assert "hush" not in str(refused.value)
