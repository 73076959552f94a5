"""Pages that people denied reach the budget of false pages: in a pass, and in a replay of it."""

from collections.abc import Collection
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fakes.desk import DE, Office
from fakes.world import FakeLog, FakeMeasure

from driftloop.judge import rates
from driftloop.ledger import SqlLedger
from driftloop.loop.notices import Places
from driftloop.loop.replay import Shard
from driftloop.loop.watch import Watcher
from driftloop.records import Act, ModelId
from driftloop.spec import Fleet

if TYPE_CHECKING:
    from conftest import StoppedClock


def test_a_pass_and_its_replay_heed_what_people_denied(
    fleet: Fleet, clock: "StoppedClock", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both count the same page, and neither before it was denied nor when it is long over."""
    ledger = SqlLedger(f"sqlite:///{tmp_path / 'ledger.db'}")
    office = Office(fleet, ledger, clock)
    counted: list[Any] = []

    def noted(
        of: Fleet, able: Collection[ModelId], denied: Collection[Collection[ModelId]]
    ) -> dict[ModelId, float]:
        counted.append(tuple(denied))
        return rates(of, able, denied)

    monkeypatch.setattr("driftloop.loop.watch.rates", noted)
    monkeypatch.setattr("driftloop.loop.replay.rates", noted)
    watcher = Watcher(
        fleet=fleet,
        log=FakeLog(),
        measure=FakeMeasure(),
        ledger=ledger,
        clock=clock,
        places=Places(pages="", prefect=""),
    )
    begun, times = clock.now(), [timedelta(0), timedelta(hours=2), timedelta(days=29)]
    for at in times:
        clock.shown = begun + at
        watcher.watch()
        if not at:
            clock.shown += timedelta(hours=1)
            office.take(Act.NO_PROBLEM, office.opened(DE), None, why="a feast")
    seen, counted[:] = list(counted), []
    assert seen == [(), ((DE,),), ()]
    shard = Shard(fleet, fleet.models, ledger, start=begun, end=begun + timedelta(days=30))
    for at in times:
        shard.go(begun + at, shard.able(begun + at))
    assert counted == seen
