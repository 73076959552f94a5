"""The loop of a model that somebody else serves, as timelines: found, watched, handed over."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from loop.test_timelines import World

from driftloop.errors import HandoverFailed
from driftloop.ledger import SqlLedger
from driftloop.loop.watch import first_orders
from driftloop.prediction_log import ForeignLog
from driftloop.records import Decided, Failed, Gated, ModelId, Moved, Stage, State
from driftloop.spec import Fleet, HandoverPolicy, LogSource

if TYPE_CHECKING:
    from conftest import StoppedClock

DE = ModelId("eta-de")


@pytest.fixture
def world(fleet: Fleet, clock: "StoppedClock", tmp_path: Path) -> Iterator[World]:
    """One regression model that is served elsewhere, with nothing known of it yet."""
    (family,) = fleet.only((DE,)).families
    away = family.model_copy(
        update={
            "log": LogSource(source="scored.parquet"),
            "handover": HandoverPolicy(command=("./take",)),
        }
    )
    ledger = SqlLedger(f"sqlite:///{tmp_path / 'ledger.db'}")
    yield World(fleet=replace(fleet, families=(away,)), clock=clock, ledger=ledger)
    ledger.close()


def found(world: World) -> None:
    """Take what answers as the first version."""
    (order,) = first_orders(world.fleet, world.ledger.heads(), world.clock.now())
    assert world.renewer.renew(order).outcome == "promoted"


def test_what_answers_already_is_taken_as_found(world: World) -> None:
    """No gate could refuse it, nobody is told of it, and its figures are the baseline."""
    found(world)
    head = world.ledger.head(DE)
    assert head is not None
    assert (head.version, head.found) == (1, True)
    assert world.handover.taken == []
    (gated,) = world.ledger.facts(Gated)
    assert gated.result.passed
    assert "taken as found" in gated.result.reason
    champion = world.ledger.history(DE).champion
    assert champion is not None
    assert champion.candidate.metrics[0].value == 5.0


def test_a_better_version_is_handed_over_before_the_head_moves(world: World) -> None:
    """Once, with the key of its order; the owner reads that it was handed over."""
    found(world)
    world.measure.error = 14.0
    decided = world.watch()[DE]
    assert world.renew(decided).outcome == "promoted"
    assert decided.decision is not None
    assert world.handover.taken == [(DE, 2, 1, decided.decision.key)]
    assert world.ledger.head(DE).version == 2  # type: ignore[union-attr]
    assert world.stages() == [Stage.OPENED, Stage.RETRAINING, Stage.PROMOTED]
    assert "was handed over" in world.pager.told[-1].shown.headline


def test_only_what_was_trained_cools_down(world: World) -> None:
    """What was found may be renewed at the next pass; what was handed over after it may not."""
    found(world)
    world.measure.error = 14.0
    world.renew(world.watch()[DE])
    decision = world.watch()[DE].decision
    assert decision is not None
    assert "cooling down" in (decision.blocked or "")


def test_what_is_not_taken_does_not_become_champion(world: World) -> None:
    """The owner is told who said no and why; the old version stays."""
    found(world)
    world.measure.error = 14.0
    decided = world.watch()[DE]
    world.handover.says_no = "the canary failed"
    renewed = world.renew(decided)
    assert renewed.outcome == "failed"
    assert world.ledger.head(DE).version == 1  # type: ignore[union-attr]
    assert len(world.ledger.facts(Moved)) == 1
    assert "the canary failed" in world.ledger.facts(Failed)[-1].error
    assert world.stages()[-1] is Stage.FAILED


def test_a_rollback_is_handed_over_too(world: World) -> None:
    """To what was found as well; where it is not taken nothing moves."""
    found(world)
    world.measure.error = 14.0
    world.renew(world.watch()[DE])
    world.handover.says_no = "not now"
    with pytest.raises(HandoverFailed, match="not now"):
        world.renewer.roll_back(DE, to=None, who="ann", verify=lambda head: None)
    assert world.ledger.head(DE).version == 2  # type: ignore[union-attr]
    world.handover.says_no = None
    head = world.renewer.roll_back(DE, to=None, who="ann", verify=lambda head: None)
    assert (head.version, head.found) == (1, True)
    assert world.handover.taken[-1] == (DE, 1, 2, f"rollback/{DE}#3")


def test_a_champion_that_moved_during_a_hand_over_is_handed_over_again(world: World) -> None:
    """The server ends with the version that the ledger names, whoever was faster."""
    found(world)
    world.measure.error = 14.0
    decided = world.watch()[DE]
    champion = world.ledger.head(DE)
    assert champion is not None

    def moved() -> None:
        world.handover.meanwhile = lambda: None
        by_hand = replace(champion, epoch=champion.epoch + 1)
        world.ledger.move(by_hand, at=world.clock.now(), previous=champion, reason="by hand")

    world.handover.meanwhile = moved
    assert world.renew(decided).outcome == "failed"
    assert world.ledger.head(DE).version == 1  # type: ignore[union-attr]
    assert [(version, before) for _, version, before, _ in world.handover.taken] == [(2, 1), (1, 2)]


@contextmanager
def watched_only(fleet: Fleet, clock: "StoppedClock", folder: Path) -> Iterator[World]:
    """Two models found answering elsewhere; one of the first one's labels is impossible."""
    away = fleet.family_named("churn").model_copy(
        update={"markets": ("uk", "us"), "log": LogSource(source="scored.parquet")}
    )
    ids = [f"{market}-{n}" for market in away.markets for n in range(60)]
    rows = {
        "id": ids,
        "model": [id_.partition("-")[0] for id_ in ids],
        "asked_at": [clock.now() + timedelta(minutes=n) for n in range(len(ids))],
        "prediction": [0.5] * len(ids),
        "label": [2.0 if id_ == "uk-7" else 1.0 for id_ in ids],
        "tenure": [1.0] * len(ids),
        "spend": [1.0] * len(ids),
        "plan": ["a"] * len(ids),
    }
    pq.write_table(pa.table(rows), folder / "scored.parquet")
    ledger = SqlLedger(f"sqlite:///{folder / 'ledger.db'}")
    log = ForeignLog(
        away,
        folder=folder,
        scratch=folder,
        moves=lambda model: ledger.facts(Moved, model=model),
    )
    world = World(
        fleet=replace(fleet, families=(away,)),
        clock=clock,
        ledger=ledger,
        log=log,  # type: ignore[arg-type]
    )
    for order in first_orders(world.fleet, (), clock.now()):
        assert world.renewer.renew(order).outcome == "promoted"
    yield world
    ledger.close()


def test_a_table_that_lost_a_column_blinds_its_models(
    fleet: Fleet, clock: "StoppedClock", tmp_path: Path
) -> None:
    """Each says which column, once; when it is back they are judged."""
    with watched_only(fleet, clock, tmp_path) as world:
        file = tmp_path / "scored.parquet"
        whole = pq.read_table(file)
        pq.write_table(whole.drop_columns("spend"), file)
        for passes in (1, 2):
            seen = world.watch(later=timedelta(minutes=10))
            assert all("spend" in (each.problem or "") for each in seen.values())
            decisions = [fact.decision for fact in world.ledger.facts(Decided)]
            assert [each.state for each in decisions] == [State.BLIND] * 2, passes
        pq.write_table(whole, file)
        american = world.fleet.families[0].models[1]
        found = world.watch(later=timedelta(minutes=10))[american].decision
        assert found is not None
        assert found.state != State.BLIND or "spend" not in found.reason


def test_an_impossible_label_is_the_trouble_of_one_model(
    fleet: Fleet, clock: "StoppedClock", tmp_path: Path
) -> None:
    """Its problem names the id and what to do; the family's other model is judged."""
    with watched_only(fleet, clock, tmp_path) as world:
        british, american = world.fleet.families[0].models
        seen = world.watch()
    assert seen[british].decision is not None
    assert seen[british].decision.state == State.BLIND
    assert seen[british].problem == (
        "churn.toml: log, id uk-7: the label 2.0 is neither 0 nor 1"
        " (hint: mend the source, or leave such rows out with a view or a query)"
    )
    assert seen[american].problem is None
    assert seen[american].decision is not None
    assert seen[american].rows == 60
