"""Candidates of several memories, told as timelines: who is tried, who wins, what is remembered."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fakes.pager import FakePager
from fakes.world import FakeHandover, FakeLog, FakeMeasure, FakeRegistry, FakeTrainer, held_out

from driftloop.errors import TrainingFailed
from driftloop.ledger import SqlLedger
from driftloop.loop.memories import longest_reach, remembering
from driftloop.loop.notices import Places
from driftloop.loop.renew import Renewed, Renewer
from driftloop.loop.tell import Teller
from driftloop.loop.watch import Watched, Watcher, first_orders
from driftloop.records import (
    Candidate,
    Gated,
    Head,
    LogSummary,
    Memory,
    ModelId,
    Order,
    Span,
    Trained,
    Window,
)
from driftloop.spec import Family, Fleet

if TYPE_CHECKING:
    from conftest import StoppedClock

DE = ModelId("eta-de")
BOTH = (Memory.RECENT, Memory.ALL)


@dataclass
class Remembering(FakeTrainer):
    """Makes candidates whose error depends on what they remember; None fails."""

    errors: dict[Memory, float | None] = field(
        default_factory=lambda: {Memory.RECENT: 6.0, Memory.ALL: 4.0}
    )

    def train(self, order: Order, champion: Head | None) -> Candidate:
        error = self.errors[order.memory]
        if error is None:
            self.orders.append(order)
            raise TrainingFailed("the fit ran out of memory", where=order.model)
        self.error = error
        made = self._candidate(order, found=False)
        return replace(made, digest=f"{made.digest}-{order.memory}", fit_seconds=30.0)


@dataclass
class YoungLog(FakeLog):
    """A log that holds nothing before a day."""

    begins: datetime | None = None

    def summary(self, family: Family, window: Window) -> LogSummary:
        found = super().summary(family, window)
        young = self.begins is not None and window.end <= self.begins
        return replace(found, rows=0) if young else found


@dataclass
class World:
    """One model whose family has two memories, with its first champion released."""

    fleet: Fleet
    clock: "StoppedClock"
    ledger: SqlLedger
    log: YoungLog = field(default_factory=YoungLog)
    measure: FakeMeasure = field(default_factory=FakeMeasure)
    trainer: Remembering = field(default_factory=Remembering)
    registry: FakeRegistry = field(default_factory=FakeRegistry)

    def tried(self) -> list[Memory]:
        """Return what was fitted since this was asked last."""
        seen = [order.memory for order in self.trainer.orders]
        self.trainer.orders.clear()
        return seen

    def watch(self) -> Watched:
        self.clock.shown += timedelta(days=1)
        watcher = Watcher(
            fleet=self.fleet,
            log=self.log,
            measure=self.measure,
            ledger=self.ledger,
            clock=self.clock,
            places=Places(pages="http://pages", prefect="http://prefect"),
        )
        # What an earlier pass had to let wait comes first, beside what this one sees.
        seen = watcher.watch()
        return next((each for each in seen if each.order is not None), seen[0])

    def renewed(self) -> Renewed:
        """Watch until a retraining is asked for, and carry it out."""
        for _ in range(40):
            watched = self.watch()
            if watched.order is not None:
                return self.renewer.renew(watched.order)
        raise AssertionError(watched)

    @property
    def renewer(self) -> Renewer:
        teller = Teller(fleet=self.fleet, ledger=self.ledger, pager=FakePager(), clock=self.clock)
        return Renewer(
            fleet=self.fleet,
            log=self.log,
            trainer=self.trainer,
            registry=self.registry,
            handover=FakeHandover(),
            ledger=self.ledger,
            clock=self.clock,
            teller=teller,
            table=held_out,
        )

    def first(self) -> Renewed:
        (order,) = first_orders(self.fleet, self.ledger.heads(), self.clock.now())
        return self.renewer.renew(order)


def policed(fleet: Fleet, **policy: object) -> Fleet:
    """A fleet of one model, whose family retrains by age, and where it does harm."""
    update = {
        "memory": BOTH,
        "triggers": ("harm", "age"),
        "max_age": timedelta(days=20),
        "cooldown": timedelta(days=1),
        **policy,
    }
    (family,) = fleet.only((DE,)).families
    changed = family.model_copy(update={"retrain": family.retrain.model_copy(update=update)})
    return replace(fleet, families=(changed,))


@pytest.fixture
def world(fleet: Fleet, clock: "StoppedClock", tmp_path: Path) -> Iterator[World]:
    """Nothing is trained yet."""
    ledger = SqlLedger(f"sqlite:///{tmp_path / 'ledger.db'}")
    yield World(fleet=policed(fleet), clock=clock, ledger=ledger)
    ledger.close()


def test_the_better_memory_goes_to_the_gate(world: World) -> None:
    """Both are fitted on the same held-out rows; one version is registered, and says of which."""
    first = world.first()
    assert first.outcome == "promoted"
    assert world.tried() == [Memory.RECENT, Memory.ALL]
    (fact,) = world.ledger.facts(Trained)
    assert fact.candidate.order.memory is Memory.ALL
    losses = {each.memory: each.loss for each in fact.tried}
    assert losses[Memory.RECENT] == pytest.approx(6.0, abs=0.05)
    assert losses[Memory.ALL] == pytest.approx(4.0, abs=0.05)
    assert fact.fit_seconds == 60.0
    assert world.registry.versions == {fact.candidate.order.key: 1}


def test_each_memory_reaches_back_as_far_as_it_says(world: World) -> None:
    """The recent span of 56 days, and all that retention keeps; the same rows are held out."""
    world.first()
    recent, whole = world.trainer.orders
    assert recent.window.end - recent.window.start == timedelta(days=56)
    assert whole.window.end - whole.window.start == timedelta(days=400)
    assert recent.holdout_from == whole.holdout_from


def test_who_won_is_fitted_alone_until_it_loses(world: World) -> None:
    """By age the one that won; where its champion decays both, and then the other one wins."""
    world.first()
    world.tried()
    assert world.renewed().outcome == "promoted"
    assert world.tried() == [Memory.ALL]
    world.measure.error = 14.0
    world.trainer.errors = {Memory.RECENT: 3.0, Memory.ALL: 9.0}
    assert world.renewed().outcome == "promoted"
    assert world.tried() == [Memory.RECENT, Memory.ALL]
    assert world.ledger.facts(Trained)[-1].candidate.order.memory is Memory.RECENT


def test_a_refused_candidate_has_all_tried_again(world: World) -> None:
    """What lost against the champion is not what to bet on next."""
    world.first()
    world.trainer.errors = {Memory.RECENT: 12.0, Memory.ALL: 11.0}
    world.tried()
    assert world.renewed().outcome == "refused"
    assert world.tried() == [Memory.ALL]
    world.renewed()
    assert world.tried() == [Memory.RECENT, Memory.ALL]


def test_the_gate_is_told_how_many_were_tried(world: World) -> None:
    """The best of two on these very rows has to be surer than one alone."""
    world.first()
    world.renewed()
    world.measure.error = 14.0
    world.renewed()
    alone, two = (gated.result.confidence for gated in world.ledger.facts(Gated)[1:])
    assert two > alone


def test_a_memory_whose_fit_fails_does_not_stop_the_other(world: World) -> None:
    """It is told in the fact; where all fail the renewal does."""
    world.trainer.errors = {Memory.RECENT: 6.0, Memory.ALL: None}
    assert world.first().outcome == "promoted"
    (fact,) = world.ledger.facts(Trained)
    assert fact.candidate.order.memory is Memory.RECENT
    assert "ran out of memory" in fact.tried[1].problem
    world.trainer.errors = {Memory.RECENT: None, Memory.ALL: None}
    assert world.renewed().outcome == "failed"
    assert len(world.ledger.facts(Trained)) == 1


def test_without_older_rows_all_history_is_the_recent_span(world: World) -> None:
    """A model that is young is not fitted twice on the same rows."""
    world.log.begins = world.clock.shown - timedelta(days=30)
    world.first()
    assert world.tried() == [Memory.RECENT]


def test_a_family_of_one_memory_is_fitted_once(world: World, fleet: Fleet) -> None:
    """As ever; nothing was compared, and nothing is said to have been."""
    world.fleet = policed(fleet, memory=(Memory.RECENT,))
    world.first()
    assert world.tried() == [Memory.RECENT]
    assert world.ledger.facts(Trained)[0].tried == ()


def test_a_cap_lets_a_retraining_wait_and_says_why(world: World, fleet: Fleet) -> None:
    """Two fits of 30 s were made today; a cap of 100 s a day has room for two more tomorrow."""
    world.fleet = policed(fleet, compute_per_day=timedelta(seconds=100), cooldown=timedelta(0))
    world.first()
    world.clock.shown -= timedelta(hours=12)
    world.measure.error = 14.0
    watched = world.watch()
    assert watched.order is None
    assert watched.waits == (
        "the fits of the family eta took 60 of 100 s in 24 hours, and this may take 60"
    )
    again = world.watch()
    assert again.order is not None
    assert world.renewer.renew(again.order).outcome == "promoted"


def test_rows_in_quarantine_are_left_out_as_far_back_as_a_memory_reaches(
    world: World, fleet: Fleet
) -> None:
    """What lies before the recent span is of no concern to the recent memory alone."""
    (family,) = policed(fleet).families
    end = world.clock.shown
    old, new = (
        Span(start=end - timedelta(days=days), end=end - timedelta(days=days - 1), rows=5)
        for days in (100, 10)
    )
    window = Window(model=DE, start=end, end=end, known_at=end, left_out=(old, new))
    order = Order(key="k", model=DE, at=end, reason="r", window=window, holdout_from=end, seed=1)
    assert remembering(order, Memory.RECENT, family).window.left_out == (new,)
    assert remembering(order, Memory.ALL, family).window.left_out == (old, new)
    assert longest_reach(family) == timedelta(days=400)
