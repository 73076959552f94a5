"""Real MLflow on SQLite: one version for each order, whatever happens on the way."""

import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from driftloop.errors import RegistryError, UnknownModel
from driftloop.records import Candidate, GateResult, Metric, ModelId, Order, Window
from driftloop.registry import MlflowRegistry
from driftloop.spec import Fleet

MONITORS = Path(__file__).parents[2] / "monitors"
MODEL = ModelId("eta-de")
AT = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose MLflow database is made once for all tests here."""
    return tmp_path_factory.mktemp("registry")


@pytest.fixture
def registry(place: Path, fleet: Fleet) -> Iterator[MlflowRegistry]:
    """A registry of its own on the shared database."""
    made = connect(place, fleet)
    yield made
    if made._connected is not None:
        made._connected._tracking_client.store.engine.dispose()


def connect(place: Path, fleet: Fleet) -> MlflowRegistry:
    return MlflowRegistry(f"sqlite:///{place / 'db' / 'mlflow.db'}", place / "artifacts", fleet)


def candidate(folder: Path, key: str, *, model: ModelId = MODEL) -> Candidate:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(b"onnx of " + key.encode())
    (folder / "card.json").write_text("{}")
    return Candidate(
        order=Order(
            key=key,
            model=model,
            at=AT,
            reason="mae 31 % above its baseline",
            window=Window(model=model, start=AT - timedelta(days=56), end=AT, known_at=AT),
            holdout_from=AT - timedelta(days=7),
            seed=7,
            incident="eta-de/20260227T000000",
        ),
        digest="ab" * 32,
        folder=str(folder),
        rows=3000,
        holdout_rows=400,
        metrics=(Metric(name="mae", value=8.25),),
        parity=1e-7,
        fit_seconds=0.3,
        lower_seconds=0.1,
    )


RESULT = GateResult(
    passed=False,
    reason="mae 8.1 for the champion, 8.25 for the candidate: -1.9%",
    loss="mae",
    n=400,
    champion_loss=8.1,
    candidate_loss=8.25,
    gain=-0.0185,
    low=None,
    high=None,
    confidence=0.9,
)


def test_a_version_holds_its_lineage(registry: MlflowRegistry, tmp_path: Path) -> None:
    """Recipe, seed, window, reason, metrics, digest and files can be read back from MLflow."""
    version = registry.register(candidate(tmp_path / "c", "eta-de/lineage"))
    client = registry._client()
    known = client.get_model_version(MODEL, str(version))
    run = client.get_run(known.run_id)
    assert known.tags["driftloop.order"] == "eta-de/lineage"
    assert known.tags["driftloop.digest"] == "ab" * 32
    assert client.get_experiment(run.info.experiment_id).name == "eta"
    assert run.info.status == "FINISHED"
    assert run.data.params["recipe"] == "driftloop.retrain.recipes:gradient_boosting"
    assert run.data.params["recipe.max_iter"] == "20"
    assert run.data.params["seed"] == "7"
    assert run.data.params["window.end"] == AT.isoformat()
    assert run.data.params["reason"] == "mae 31 % above its baseline"
    assert run.data.metrics["mae"] == 8.25
    kept = Path(known.source.removeprefix("file://"))
    assert (kept / "model.onnx").read_bytes() == b"onnx of eta-de/lineage"


def test_the_same_order_gets_the_same_version(
    registry: MlflowRegistry, fleet: Fleet, place: Path, tmp_path: Path
) -> None:
    """Registered again, also by another process's registry, it is not a new version."""
    first = registry.register(candidate(tmp_path / "a", "eta-de/again"))
    other = registry.register(candidate(tmp_path / "b", "eta-de/other"))
    again = connect(place, fleet).register(candidate(tmp_path / "a", "eta-de/again"))
    assert (again, other) == (first, first + 1)


@pytest.mark.parametrize(
    "dies_at", ["log_batch", "log_artifacts", "set_terminated", "create_model_version"]
)
def test_a_registration_that_died_half_way_is_taken_up(
    registry: MlflowRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dies_at: str
) -> None:
    """Wherever it died: one run and one version in the end."""
    half = candidate(tmp_path / "c", f"eta-de/half-{dies_at}")
    client = registry._client()

    def die(*args: Any, **kwargs: Any) -> None:
        raise OSError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(client, dies_at, die)
        with pytest.raises(RegistryError, match="could not register: OSError: the disk is full"):
            registry.register(half)
    version = registry.register(half)
    assert registry.register(half) == version
    mine = [v for v in registry.versions(MODEL) if v.order == half.order.key]
    experiment = client.get_experiment_by_name("eta").experiment_id
    runs = client.search_runs([experiment], f"tags.`driftloop.order` = '{half.order.key}'")
    assert [v.version for v in mine] == [version]
    assert [run.info.status for run in runs] == ["FINISHED"]


def test_an_order_that_came_to_other_bytes_is_registered_as_what_it_is(
    registry: MlflowRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A registration that died stands in nobody's way; a version's digest is its own file's."""
    first = candidate(tmp_path / "d", "eta-de/anew")
    second = replace(first, digest="cd" * 32, folder=candidate(tmp_path / "e", "x").folder)
    with monkeypatch.context() as patch:
        patch.setattr(registry._client(), "create_model_version", None)
        with pytest.raises(RegistryError):
            registry.register(first)
    version = registry.register(second)
    assert registry.register(second) == version
    mine = [each for each in registry.versions(MODEL) if each.order == "eta-de/anew"]
    assert [(each.version, each.digest) for each in mine] == [(version, "cd" * 32)]


def test_two_at_once_make_one_version(registry: MlflowRegistry, tmp_path: Path) -> None:
    """The same order from several threads at once is one version; another order is another."""
    one, two = candidate(tmp_path / "a", "eta-fr/a"), candidate(tmp_path / "b", "eta-fr/b")
    both = [
        replace(each, order=replace(each.order, model=ModelId("eta-fr"))) for each in (one, two)
    ]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(registry.register, both * 3))
    assert found[:2] * 3 == found
    assert sorted(set(found)) == [1, 2]


def test_the_gate_s_result_is_noted(registry: MlflowRegistry, tmp_path: Path) -> None:
    """A refused version is kept, with the reason."""
    version = registry.register(candidate(tmp_path / "c", "eta-de/gate"))
    assert registry.versions(MODEL)[0].gate == ""
    registry.record_gate(MODEL, version, RESULT)
    known = registry.versions(MODEL)[0]
    assert (known.version, known.gate, known.reason) == (version, "refused", RESULT.reason)


def test_the_alias_is_moved_and_says_whether_it_was(
    registry: MlflowRegistry, tmp_path: Path
) -> None:
    """Nowhere, elsewhere, there already: True, True, False; and exactly one is champion."""
    model = ModelId("churn-uk")
    first, second = (
        registry.register(candidate(tmp_path / key, f"churn-uk/{key}", model=model)) for key in "ab"
    )
    moved = [registry.point(model, v) for v in (first, first, second, second, first)]
    assert moved == [True, False, True, False, True]
    assert [v.version for v in registry.versions(model) if v.champion] == [first]


def test_what_is_not_there_is_an_error_of_ours(registry: MlflowRegistry, tmp_path: Path) -> None:
    """An unknown version, folder or model is named; no error of MLflow's gets out."""
    registry.register(candidate(tmp_path / "c", "eta-de/there"))
    with pytest.raises(RegistryError, match="eta-de: could not point 'champion' at version 999"):
        registry.point(MODEL, 999)
    with pytest.raises(RegistryError, match="version 999"):
        registry.record_gate(MODEL, 999, RESULT)
    with pytest.raises(RegistryError, match=r"there is no model\.onnx"):
        registry.register(replace(candidate(tmp_path / "d", "x"), folder=str(tmp_path / "none")))
    with pytest.raises(UnknownModel):
        registry.register(candidate(tmp_path / "e", "x", model=ModelId("eta-mars")))
    assert registry.versions(ModelId("eta-mars")) == ()


def test_a_store_that_cannot_be_opened_is_an_error_of_ours(fleet: Fleet, tmp_path: Path) -> None:
    """A folder where the database should be: RegistryError with a hint, not a traceback."""
    (tmp_path / "mlflow.db").mkdir()
    registry = MlflowRegistry(f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path / "a", fleet)
    with pytest.raises(RegistryError, match="could not list the versions") as caught:
        registry.versions(MODEL)
    assert caught.value.hint


def test_registering_is_quick(registry: MlflowRegistry, tmp_path: Path) -> None:
    """No requirements are inferred, which takes MLflow 16 s: the best of three is far from that."""
    registry.register(candidate(tmp_path / "w", "eta-de/warm"))
    times = []
    for number in range(3):
        each = candidate(tmp_path / str(number), f"eta-de/quick-{number}")
        began = time.perf_counter()
        registry.register(each)
        times.append(time.perf_counter() - began)
    assert min(times) < 5.0


MAKE = """
import sys
from pathlib import Path
from driftloop.registry import MlflowRegistry
from driftloop.spec import load_fleet

place = Path(sys.argv[1])
fleet = load_fleet(Path(sys.argv[2]))
registry = MlflowRegistry(f"sqlite:///{place / 'mlflow.db'}", place / "artifacts", fleet)
assert "mlflow" not in sys.modules
print(registry.versions("eta-de"))
"""


def test_two_processes_may_make_the_database_at_once(tmp_path: Path) -> None:
    """Both find it whole; and MLflow is not imported before it is asked."""
    command = [sys.executable, "-c", MAKE, str(tmp_path), str(MONITORS)]
    started = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    ended = [(process.communicate(timeout=120), process.returncode) for process in started]
    assert [(out, code) for (out, _), code in ended] == [("()\n", 0), ("()\n", 0)], ended
