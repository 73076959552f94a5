"""A rollout through a real service, lake and ledger: shadow, canary, and back under fire."""

import hashlib
import shutil
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from math import sqrt
from pathlib import Path

import httpx
import pytest
import uvicorn

from driftloop.clock import Clock
from driftloop.deploy import begun
from driftloop.loop.release import Released
from driftloop.prediction_log import Ingester, Lake
from driftloop.records import Advanced, Candidate, Head, ModelId, Order, Phase, Window
from driftloop.serve import rollouts
from driftloop.serve.rollouts import place
from driftloop.settings import Settings
from driftloop.wiring import System

MONITORS = Path(__file__).parents[1] / "monitors"
NOW = datetime(2026, 3, 1, tzinfo=UTC)
STANDING = datetime(9999, 1, 1, tzinfo=UTC)
DE = ModelId("eta-de")
POLICY = """
[rollout]
shadow = "1h"
shares = [0.25]
step = "1h"
min_rows = 100
errors = 0.2
latency = 1000.0
scores = 0.9
watch = "1h"
"""


@dataclass
class Town:
    """An installation whose online service runs in this process."""

    system: System
    http: httpx.Client
    answers: list[tuple[int, int, float]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def ask(self, id_: str) -> int:
        """Return the version that answered one row."""
        distance = 1.0 + len(self.answers) % 97
        row = {"id": id_, "asked_at": "2026-03-01T00:00:00Z", "distance": distance}
        reply = self.http.post(f"/v1/models/{DE}/predict", json=row)
        if reply.status_code != 200:
            self.failures.append(reply.text)
            return 0
        said = reply.json()
        answer = said["predictions"][0]["prediction"]
        # Whatever a reply says of its version is what answered it.
        assert answer == said["version"] * distance
        self.answers.append((said["version"], said["epoch"], answer))
        return int(said["version"])

    def pass_(self, at: datetime) -> Released:
        """Take up what is spooled, and take the rollout a step on at `at`."""
        time.sleep(0.3)  # till the counts and the last rows are sealed
        system = self.system
        with (
            Lake(system.settings.lake, system.fleet, read_only=False) as lake,
            Ingester(system.settings.spool, lake, system.clock) as ingester,
        ):
            assert ingester.ingest().bad == 0
        stand_at(system, at)
        (done,) = system.releaser.release()
        assert done.problem is None
        return done

    def taken_up(self, epoch: int) -> None:
        """Wait until the service answers in `epoch`."""
        until = time.monotonic() + 10
        while self.http.get("/v1/models").json()["models"][0]["epoch"] != epoch:
            assert time.monotonic() < until
            time.sleep(0.01)


def stand_at(system: System, at: datetime) -> None:
    Clock(origin=at, started=STANDING, speed=1.0).write(system.settings.clock)


def scaled(folder: Path, by: float) -> Head:
    """Write a model that answers `by` times the distance; return it as the head of an epoch."""
    import onnx
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [
            helper.make_node("Constant", [], ["by"], value_float=by),
            helper.make_node("Mul", ["distance", "by"], ["answer"]),
        ],
        "scaled",
        [helper.make_tensor_value_info("distance", TensorProto.FLOAT, [None, 1])],
        [helper.make_tensor_value_info("answer", TensorProto.FLOAT, [None, 1])],
    )
    opset = [helper.make_opsetid("", 17)]
    body = onnx.helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(body)
    return Head(
        model=DE,
        epoch=1,
        version=int(by),
        digest=hashlib.sha256(body).hexdigest(),
        artifact=str(folder / "model.onnx"),
    )


def challenger(head: Head) -> Candidate:
    window = Window(model=DE, start=NOW, end=NOW, known_at=NOW)
    order = Order(
        key="second", model=DE, at=NOW, reason="", window=window, holdout_from=NOW, seed=1
    )
    return Candidate(
        order=order,
        digest=head.digest,
        folder=str(Path(head.artifact).parent),
        rows=1,
        holdout_rows=1,
        metrics=(),
        parity=0.0,
        fit_seconds=0.0,
        lower_seconds=0.0,
    )


@pytest.fixture
def town(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Town]:
    """Version 1 answers eta-de; version 2 is in shadow."""
    monkeypatch.setattr(rollouts, "FLUSH_EVERY", 0.05)
    monitors = tmp_path / "monitors"
    shutil.copytree(MONITORS, monitors)
    eta = monitors / "eta.toml"
    eta.write_text(eta.read_text(encoding="utf-8") + POLICY, encoding="utf-8")
    settings = Settings(
        home=tmp_path / "home",
        monitors=monitors,
        models=DE,
        poll_every=0.02,
        seal_every=0.05,
        mlflow="http://127.0.0.1:9",
    )
    settings.home.mkdir()
    system = System(settings)
    stand_at(system, NOW)
    ledger, artifacts = system.ledger, settings.home / "artifacts" / DE
    first = scaled(artifacts / "1", 1.0)
    ledger.move(first, at=NOW, previous=None, reason="first")
    policy = system.fleet.family(DE).rollout
    assert policy is not None
    second = challenger(scaled(artifacts / "2", 2.0))
    rollout = begun(second, 2, champion=first, policy=policy, now=NOW)
    ledger.advance(Advanced(model=DE, at=NOW, rollout=rollout))
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(system.online_app(), log_level="critical", access_log=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    base = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with httpx.Client(base_url=base, timeout=30) as http:
        made = Town(system, http)
        made.taken_up(2)
        yield made
    server.should_exit = True
    thread.join(10)
    system.log.close()
    system.ledger.close()


def test_a_rollout_to_the_front_and_back_under_fire(town: Town) -> None:
    """Shadows are logged and never returned, a canary has its share, and no step fails a request.

    An answer is wholly by one version, in one epoch; the last step is back to the first version.
    """
    shadowed = [f"s{n}" for n in range(150)]
    assert {town.ask(id_) for id_ in shadowed} == {1}
    done = town.pass_(NOW + timedelta(hours=1))
    assert (done.rollout.phase, done.rollout.share) == (Phase.CANARY, 0.25)
    logged = town.system.log.query("SELECT id, version, prediction FROM lake.eta_shadows")
    assert sorted(logged["id"].to_pylist()) == sorted(shadowed)
    assert Counter(logged["prediction"].to_pylist()) == Counter(2 * a for _, _, a in town.answers)
    assert set(logged["version"].to_pylist()) == {2}

    town.taken_up(done.rollout.epoch)
    keys = [f"user-{n}" for n in range(400)]
    by = {key: town.ask(key) for key in keys}
    share = sum(version == 2 for version in by.values())
    assert abs(share - 100) < 4 * sqrt(400 * 0.25 * 0.75)
    assert by == {k: 2 if place(done.rollout, k.encode()) < 0.25 else 1 for k in keys}

    stop = threading.Event()
    firing = [threading.Thread(target=_fire, args=(town, stop, n)) for n in range(3)]
    for thread in firing:
        thread.start()
    done = town.pass_(NOW + timedelta(hours=2))
    assert done.rollout.phase is Phase.WATCHED, done.said
    assert _settled(town, done.rollout.epoch) == {(2, done.rollout.epoch)}
    ended = town.system.releaser.roll_back(DE, who="anna")
    assert _settled(town, ended.epoch) == {(1, ended.epoch)}
    stop.set()
    for thread in firing:
        thread.join(10)
    assert town.failures == []
    head = town.system.ledger.head(DE)
    assert head is not None
    assert (head.version, head.epoch) == (1, ended.epoch)
    _all_in_the_lake(town)
    steps = [step.what for step in town.system.trace("second")]
    told = ("shadow", "canary 25%", "promoting", "watched", "rolling-back", "rolled-back")
    assert [step for step in steps if step.startswith("rollout")] == [
        f"rollout: {each}" for each in told
    ]


def _settled(town: Town, epoch: int) -> set[tuple[int, int]]:
    """Return who gave the answers to a hundred requests once the service is in `epoch`."""
    town.taken_up(epoch)
    # What each of the three had in hand may have been answered before.
    after = len(town.answers) + 3
    _until(lambda: len(town.answers) > after + 100)
    return {(version, epoch) for version, epoch, _ in town.answers[after:]}


def _fire(town: Town, stop: threading.Event, place_: int) -> None:
    number = 0
    while not stop.is_set():
        town.ask(f"f{place_}-{number}")
        number += 1


def _until(true: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not true():
        assert time.monotonic() < until
        time.sleep(0.01)


def _all_in_the_lake(town: Town) -> None:
    """Every answer is logged once, under the version and the epoch that it was told."""
    time.sleep(0.3)
    system = town.system
    with (
        Lake(system.settings.lake, system.fleet, read_only=False) as lake,
        Ingester(system.settings.spool, lake, system.clock) as ingester,
    ):
        assert ingester.ingest().bad == 0
    rows = system.log.query("SELECT version, epoch, prediction FROM lake.eta_predictions")
    logged = Counter(tuple(row.values()) for row in rows.to_pylist())
    assert logged == Counter(town.answers)
