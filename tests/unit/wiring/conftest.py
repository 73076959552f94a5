"""An installation in a folder: a real lake and ledger, rows of our making, a clock that stands."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from driftloop.clock import Clock
from driftloop.loop.watch import order
from driftloop.prediction_log import Ingester, Lake
from driftloop.records import Candidate, Head, Label, ModelId, Order
from driftloop.settings import Settings
from driftloop.wiring import System
from driftloop.workshop import build_candidate

MONITORS = Path(__file__).parents[2] / "monitors"
NOW = datetime(2026, 3, 1, tzinfo=UTC)
STANDING = datetime(9999, 1, 1, tzinfo=UTC)
DE = ModelId("eta-de")


@dataclass
class Place:
    """An installation, and what fills its log."""

    system: System

    def history(self, days: Sequence[int], *, slope: float = 1.0) -> pa.Table:
        """Log twenty rows of eta-de for each of `days` ago, and return them.

        A trip takes `slope` times what it takes in the usual world.
        """
        rng = np.random.default_rng(days[0])
        count = 20 * len(days)
        at = [NOW - timedelta(days=ago) + timedelta(hours=n) for ago in days for n in range(20)]
        distance, load = rng.uniform(0, 1000, count), rng.uniform(0, 1, count)
        vehicle = rng.choice(["van", "truck", "bike"], count)
        usual = 10 + distance / 20 + 20 * load + 8 * (vehicle == "bike")
        table = pa.table(
            {
                "id": [f"{when:%m%d%H}" for when in at],
                "model": [DE] * count,
                "asked_at": at,
                "distance": distance,
                "load": load,
                "vehicle": vehicle,
                "label": usual * slope + rng.normal(0, 2, count),
                "observed_at": at,
            }
        )
        spool = self.system.spool("history")
        spool.history(self.system.fleet.family_named("eta"), table)
        spool.close()
        self.ingest()
        return table

    def correct(self, ids: Sequence[str], values: Sequence[float], model: ModelId = DE) -> None:
        """Hand in labels anew."""
        spool = self.system.spool("labels")
        labels = [
            Label(id=id_, model=model, value=float(value), observed_at=NOW)
            for id_, value in zip(ids, values, strict=True)
        ]
        spool.labels("eta", labels)
        spool.close()
        self.ingest()

    def order(self, key: str) -> Order:
        """Return an order for eta-de as of now."""
        eta = self.system.fleet.family_named("eta")
        return order(eta, DE, key=key, reason="by hand", now=NOW)

    def candidate(self, order: Order, champion: Head | None = None) -> Candidate:
        """Make a candidate in this process, of the rows that the log has."""
        family = self.system.fleet.family(order.model)
        rows = self.system.log.rows(family, order.window)
        return build_candidate(family, order, champion, rows, self.system.settings.artifacts)

    def stand_at(self, at: datetime) -> None:
        """Let the installation's clock stand still at `at`."""
        Clock(origin=at, started=STANDING, speed=1.0).write(self.system.settings.clock)

    def ingest(self) -> None:
        """Take up what was spooled, in this process."""
        system = self.system
        with (
            Lake(system.settings.lake, system.fleet, read_only=False) as lake,
            Ingester(system.settings.spool, lake, system.clock) as ingester,
        ):
            assert ingester.ingest().bad == 0


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Fit on one thread, as the processes that fits have to themselves do."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        yield


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Callable[..., Place]]:
    """Make an installation on the test monitors, or on those in a folder of one's own."""
    made: list[Place] = []

    def make(monitors: Path = MONITORS) -> Place:
        settings = Settings(home=tmp_path / "home", monitors=monitors)
        settings.home.mkdir()
        made.append(Place(System(settings)))
        made[-1].stand_at(NOW)
        return made[-1]

    yield make
    for each in made:
        each.system.log.close()
