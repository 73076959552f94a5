"""What the keeper does for a work pool of Prefect's own, without a server."""

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect import State
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import ObjectAlreadyExists
from prefect.states import Scheduled

from driftloop.clock import Clock
from driftloop.errors import BadRequest
from driftloop.loop.watch import order
from driftloop.records import ModelId, Order, Ordered
from driftloop.settings import Settings
from driftloop.up import services
from driftloop.wiring import System
from flows import deployments, keeper

MONITORS = Path(__file__).parents[2] / "monitors"
NOW = datetime(2026, 3, 1, tzinfo=UTC)
DE = ModelId("eta-de")
WATCH = uuid4()


@dataclass
class Api:
    """Prefect's API: runs by what they are asked for, and what became of them."""

    due: list[FlowRun] = field(default_factory=list)
    under_way: list[FlowRun] = field(default_factory=list)
    marked: dict[UUID, str] = field(default_factory=dict)

    async def read_flow_runs(self, **asked: Any) -> list[FlowRun]:
        return self.due if "sort" in asked else self.under_way

    async def set_flow_run_state(self, id_: UUID, state: State[Any], *, force: bool) -> None:
        self.marked[id_] = str(state.name)


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> System:
    """An installation whose clock stands."""
    settings = Settings(home=tmp_path / "home", monitors=MONITORS, work_pool="anywhere")
    settings.home.mkdir()
    Clock(origin=NOW, started=datetime(9999, 1, 1, tzinfo=UTC), speed=1.0).write(settings.clock)
    made = System(settings)
    monkeypatch.setattr(keeper, "the_system", lambda: made)
    return made


def begun(system: System, key: str, *, ago: timedelta = timedelta(0)) -> Order:
    """Return an order that began, and whose process is dead."""
    at = NOW - ago
    made = order(system.fleet.family(DE), DE, key=key, reason="by hand", now=at)
    system.ledger.claim(f"renew/{key}", lease=timedelta(0))
    system.ledger.append(Ordered(model=DE, at=at, order=made), key=key)
    return made


def due(minutes: int, *, auto: bool = True) -> FlowRun:
    """Return a run that was due so many minutes ago."""
    return FlowRun(
        flow_id=uuid4(),
        name=f"watch-{minutes}",
        auto_scheduled=auto,
        state=Scheduled(scheduled_time=datetime.now(UTC) - timedelta(minutes=minutes)),
    )


def test_a_backlog_is_dropped_to_its_newest_run() -> None:
    """What a person ordered stays too."""
    newest, older, oldest = due(1), due(11), due(21)
    api = Api(due=[newest, due(5, auto=False), older, oldest])
    assert asyncio.run(keeper.drop_backlog(api, WATCH)) == 2  # type: ignore[arg-type]
    assert api.marked == {older.id: "Skipped", oldest.id: "Skipped"}
    assert asyncio.run(keeper.drop_backlog(Api(), WATCH)) == 0  # type: ignore[arg-type]


def test_renewals_that_nobody_is_at_any_more_are_taken_up_again(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that had begun and have no end, once no run of their model is under way."""
    made = begun(system, "eta-de/dead")
    begun(system, "eta-de/old", ago=timedelta(days=3))
    begun(system, "eta-de/done")
    system.ledger.finish("renew/eta-de/done", "promoted")
    system.ledger.claim("renew/eta-de/never-began", lease=timedelta(0))
    assert keeper.left_unfinished() == (made,)
    taken: list[Order] = []

    async def take_up(order: Order) -> None:
        taken.append(order)

    monkeypatch.setattr(keeper, "take_up", take_up)
    for under_way, expected in (([due(0)], []), ([], [made])):
        api = Api(under_way=under_way)
        asyncio.run(keeper.look_after(api, "anywhere", {}, {}))  # type: ignore[arg-type]
        assert taken == expected


def test_a_renewal_still_held_is_left_alone(system: System) -> None:
    """Until its lease is over somebody may be at it, on whatever machine."""
    begun(system, "eta-de/held")
    assert system.ledger.claim("renew/eta-de/held", lease=timedelta(minutes=5)).mine
    assert keeper.left_unfinished() == ()


def test_no_run_is_taken_for_dead_that_may_live(system: System) -> None:
    """A renewal not before its lease is over, a pass not before the watchdog misses it.

    A table may take an hour to be read.
    """
    limits = keeper.dead_after(system.settings)
    assert limits.keys() == deployments.FLOWS.keys()
    assert limits["watch"] == timedelta(seconds=3 * system.settings.watch_every)
    longest = max(family.retrain.time_limit for family in system.fleet.families)
    assert limits["renew"] > longest
    assert limits["refresh-features"] == timedelta(hours=1)


def test_with_a_work_pool_no_worker_of_ours_starts() -> None:
    """The keeper is started in its place, and what needs the one knows the other."""
    ours = {each.name for each in services(Settings())}
    pool = {each.name for each in services(Settings(work_pool="anywhere"))}
    assert ours - pool == {"worker"}
    assert pool - ours == {"keeper"}


def test_a_pool_of_our_own_worker_is_refused() -> None:
    """Nothing of Prefect's would ever run what waits there."""

    class Pools:
        async def create_work_pool(self, pool: object) -> None:
            raise ObjectAlreadyExists(ValueError())

        async def read_work_pool(self, name: str) -> object:
            return SimpleNamespace(type=deployments.TYPE)

    settings = Settings(work_pool="driftloop")
    with pytest.raises(BadRequest, match="work_pool = driftloop"):
        asyncio.run(deployments.apply(Pools(), settings, job_template={}))  # type: ignore[arg-type]
