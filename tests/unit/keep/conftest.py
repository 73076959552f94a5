"""A whole installation in a folder: lake, ledger, model files, MLflow; eta-de had two versions."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
import pytest

from driftloop.clock import Clock
from driftloop.deploy import promoted
from driftloop.keep import backup
from driftloop.loop.watch import order
from driftloop.prediction_log import Ingester, Lake, SegmentSpool
from driftloop.records import (
    Gated,
    GateResult,
    Head,
    ModelId,
    Ordered,
    Prediction,
    Trained,
    version_key,
)
from driftloop.settings import Settings
from driftloop.wiring import System
from driftloop.workshop import build_candidate

MONITORS = Path(__file__).parents[2] / "monitors"
NOW = datetime(2026, 3, 1, tzinfo=UTC)
STANDING = datetime(9999, 1, 1, tzinfo=UTC)
DE = ModelId("eta-de")


@dataclass
class House:
    """An installation, its system, and what is done to it."""

    system: System
    heads: list[Head] = field(default_factory=list)

    @property
    def home(self) -> Path:
        return self.system.settings.home

    def history(self) -> None:
        """Log forty days of eta-de, labelled."""
        rng = np.random.default_rng(7)
        at = [NOW - timedelta(hours=hour) for hour in range(40 * 24)]
        distance, load = rng.uniform(0, 1000, len(at)), rng.uniform(0, 1, len(at))
        table = pa.table(
            {
                "id": [f"{when:%m%d%H}" for when in at],
                "model": [DE] * len(at),
                "asked_at": at,
                "distance": distance,
                "load": load,
                "vehicle": rng.choice(["van", "truck"], len(at)),
                "label": 10 + distance / 20 + 20 * load + rng.normal(0, 2, len(at)),
                "observed_at": at,
            }
        )
        with self.spool("history") as spool:
            spool.history(self.system.fleet.family_named("eta"), table)
        self.ingest()

    def version(self, key: str, *, seed: int, at: datetime = NOW, passed: bool = True) -> int:
        """Train, register and, if `passed`, release a version of eta-de."""
        system = self.system
        family = system.fleet.family_named("eta")
        made = order(family, DE, key=key, reason="by hand", now=NOW)
        # Other rows for each seed: of the same ones the same model would come.
        start = NOW - timedelta(days=39 - seed)
        made = replace(made, seed=seed, window=replace(made.window, start=start))
        rows = system.log.rows(family, made.window)
        champion = system.ledger.head(DE)
        candidate = build_candidate(family, made, champion, rows, system.trainer._artifacts)
        version = system.registry.register(candidate)
        system.ledger.append(Ordered(model=DE, at=at, order=made), key=key)
        fact = Trained(model=DE, at=at, version=version, candidate=candidate)
        system.ledger.append(fact, key=version_key(DE, version))
        result = GateResult(
            passed=passed,
            reason="as said",
            loss="mae",
            n=1,
            champion_loss=None,
            candidate_loss=1.0,
            gain=None,
            low=None,
            high=None,
            confidence=0.9,
        )
        gated = Gated(model=DE, at=at, order_key=key, version=version, result=result)
        system.ledger.append(gated, key=key)
        if passed:
            head = promoted(candidate, version, champion=champion)
            system.ledger.move(head, at=at, previous=champion, reason="better")
            system.registry.point(DE, version)
            self.heads.append(head)
        return version

    def spool(self, name: str) -> SegmentSpool:
        return SegmentSpool(self.home / "spool" / name, seal_rows=200, seal_every=0.05)

    def predictions(self, ids: list[str]) -> list[Prediction]:
        features = {"distance": 3.0, "load": 0.5, "vehicle": "van"}
        return [
            Prediction(
                id=id_,
                model=DE,
                version=1,
                epoch=1,
                event_time=NOW,
                predicted_at=NOW,
                prediction=21.5,
                features=features,
            )
            for id_ in ids
        ]

    def ingest(self) -> None:
        """Take up what was spooled, in this process."""
        system = self.system
        with (
            Lake(system.settings.lake, system.fleet, read_only=False) as lake,
            Ingester(system.settings.spool, lake, system.clock) as ingester,
        ):
            assert ingester.ingest().bad == 0

    def close(self) -> None:
        if self.home.exists():
            self.system.ledger.close()
        self.system.log.close()


def _house_at(home: Path, monitors: Path = MONITORS) -> House:
    return House(System(Settings(home=home, monitors=monitors)))


@pytest.fixture(scope="module")
def house_at() -> Iterator[Callable[..., House]]:
    """Return the installation in a folder, whatever is there; closed at the end."""
    made: list[House] = []

    def at(home: Path, monitors: Path = MONITORS) -> House:
        made.append(_house_at(home, monitors))
        return made[-1]

    yield at
    for house in made:
        house.close()


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """An installation with forty days of history and two versions that answered."""
    from threadpoolctl import threadpool_limits

    made = _house_at(tmp_path_factory.mktemp("house") / "home")
    made.home.mkdir()
    Clock(origin=NOW, started=STANDING, speed=1.0).write(made.system.settings.clock)
    with threadpool_limits(1):
        made.history()
        made.version("first/eta-de", seed=1)
        made.version("second/eta-de", seed=2)
    yield made
    made.close()


@pytest.fixture(scope="module")
def saved(house: House, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backup of the house at rest."""
    file = tmp_path_factory.mktemp("saved") / "backup.tar"
    backup(house.system.settings, file)
    return file


@dataclass
class Load:
    """Two writers that answer and an ingester, at work until stopped; `answered` grows."""

    house: House
    answered: list[str] = field(default_factory=list)
    failed: list[BaseException] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        """Begin."""
        work = [partial(self.answer, "one"), partial(self.answer, "two"), self.ingest]
        self.threads = [threading.Thread(target=self.kept, args=(one,)) for one in work]
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop; what failed fails the test."""
        self.stop.set()
        for thread in self.threads:
            thread.join(30)
        assert not self.failed

    def kept(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            self.failed.append(error)
            raise

    def answer(self, writer: str) -> None:
        with self.house.spool(writer) as spool:
            while not self.stop.wait(0.001):
                ids = [f"load-{writer}-{len(self.answered)}-{k}" for k in range(5)]
                spool.predictions("eta", self.house.predictions(ids))
                self.answered.extend(ids)

    def ingest(self) -> None:
        system = self.house.system
        with (
            Lake(system.settings.lake, system.fleet, read_only=False) as lake,
            Ingester(system.settings.spool, lake, system.clock, maintain_every=0.2) as ingester,
        ):
            ingester.run(self.stop, 0.02)

    def until(self, count: int) -> list[str]:
        """Wait until so many rows were answered, and return them."""
        while len(self.answered) < count:
            assert not self.failed
            self.stop.wait(0.005)
        return list(self.answered)


@pytest.fixture
def load(house: House) -> Load:
    """Work that begins with the `with` block it is used in."""
    return Load(house)
