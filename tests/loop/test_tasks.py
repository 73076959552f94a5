"""The loop of classes and of scores, as timelines: what is judged differs, the loop does not."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
from fakes.world import FakeMeasure
from loop.test_timelines import World

from driftloop.ledger import SqlLedger
from driftloop.loop.renew import Renewer
from driftloop.loop.watch import first_orders
from driftloop.records import Head, Kind, LogSummary, ModelId, Reading, Stage, State, Task
from driftloop.spec import Family, Fleet, Routes

if TYPE_CHECKING:
    from conftest import StoppedClock

COLOUR, RISK = ModelId("colour-uk"), ModelId("risk-uk")


@dataclass
class Measure(FakeMeasure):
    """Reads what a test says of the accuracy, and of how far scores are from their reference."""

    accuracy: float = 0.8
    distance: float = 0.02

    def _readings(self, family: Family, summary: LogSummary) -> tuple[Reading, ...]:
        n = summary.rows
        volume = Reading(kind=Kind.QUALITY, metric="volume", column=None, value=float(n), n=n)
        accuracy = Reading(
            kind=Kind.DECAY,
            metric="accuracy",
            column=None,
            value=self.accuracy,
            n=n,
            high=self.accuracy + 0.02,
            baseline=0.8,
        )
        moved = Reading(
            kind=Kind.DRIFT,
            metric="wasserstein",
            column="prediction",
            value=self.distance,
            n=n,
            p_value=1e-9,
        )
        match family.task:
            case Task.MULTICLASS:
                return volume, accuracy
            case Task.SCORE:
                return volume, moved
            case _:
                return super()._readings(family, summary)


def answers(file: Path) -> pa.Table:
    """Held-out rows: the champion knows seven of ten classes, a candidate as its folder says."""
    rng = np.random.default_rng(1)
    rows, wrong = 400, float(file.parent.name) / 100
    label = rng.integers(0, 4, rows) * 1.0

    def wrong_on(share: float) -> Any:
        return np.where(rng.random(rows) < share, (label + 2) % 4, label)

    start = datetime(2026, 2, 1)  # noqa: DTZ001 - numpy's datetimes have no zone
    return pa.table(
        {
            "label": label,
            "champion": wrong_on(0.3),
            "candidate": wrong_on(wrong),
            "event_time": [start + timedelta(hours=n) for n in range(rows)],
        }
    )


@dataclass
class OfTasks(World):
    """A world whose held-out rows are classes."""

    @property
    def renewer(self) -> Renewer:
        return replace(super().renewer, table=answers)


def world_of(
    family: Family, fleet: Fleet, clock: "StoppedClock", folder: Path
) -> Iterator[OfTasks]:
    ledger = SqlLedger(f"sqlite:///{folder / 'ledger.db'}")
    made = OfTasks(
        # Nobody is called again to what is told once.
        fleet=replace(fleet, families=(family,), routes=Routes(repeat=timedelta(days=365))),
        clock=clock,
        ledger=ledger,
        measure=Measure(),
    )
    (order,) = first_orders(made.fleet, ledger.heads(), clock.now())
    assert made.renewer.renew(order).outcome == "promoted"
    clock.shown += timedelta(days=10)
    yield made
    ledger.close()


@pytest.fixture
def classes(
    colour: Family, fleet: Fleet, clock: "StoppedClock", tmp_path: Path
) -> Iterator[OfTasks]:
    """One model of classes, with its first champion released."""
    yield from world_of(colour, fleet, clock, tmp_path)


@pytest.fixture
def scores(risk: Family, fleet: Fleet, clock: "StoppedClock", tmp_path: Path) -> Iterator[OfTasks]:
    """One model of scores, taken as it was found."""
    yield from world_of(risk, fleet, clock, tmp_path)


def test_a_model_of_classes_decays_is_retrained_and_recovers(classes: OfTasks) -> None:
    """The whole story, by the accuracy; the gate counts what is misclassified."""
    world = classes
    assert world.watch()[COLOUR].decision.state is State.FRESH  # type: ignore[union-attr]
    world.measure.accuracy = 0.55  # type: ignore[attr-defined]
    bad = world.watch()[COLOUR]
    assert bad.decision is not None
    assert (bad.decision.state, bad.decision.opens) == (State.DECAYING, True)
    renewed = world.renew(bad)
    assert renewed.outcome == "promoted", renewed.reason
    assert renewed.result is not None
    assert renewed.result.loss == "misclassified"
    world.measure.accuracy = 0.8  # type: ignore[attr-defined]
    world.watch()
    world.watch()
    assert world.stages() == [Stage.OPENED, Stage.RETRAINING, Stage.PROMOTED, Stage.RECOVERED]


def test_a_candidate_that_knows_no_more_classes_is_refused(classes: OfTasks) -> None:
    """The champion keeps answering."""
    world = classes
    world.measure.accuracy = 0.55  # type: ignore[attr-defined]
    world.trainer.error = 30.0
    assert world.renew(world.watch()[COLOUR]).outcome == "refused"
    assert world.ledger.head(COLOUR).version == 1  # type: ignore[union-attr]


def test_scores_drift_are_paged_and_recover(scores: OfTasks) -> None:
    """Nothing is retrained: the page is all that there is to be done."""
    world = scores
    assert world.watch()[RISK].decision.state is State.FRESH  # type: ignore[union-attr]
    world.measure.distance = 0.8  # type: ignore[attr-defined]
    bad = world.watch()[RISK]
    assert bad.decision is not None
    assert (bad.decision.state, bad.decision.opens) == (State.DRIFTING, True)
    assert bad.order is None
    assert [reading.column for reading in world.measure.rechecked] == ["prediction"]
    world.watch()
    assert world.stages() == [Stage.OPENED]  # told once
    world.measure.distance = 0.02  # type: ignore[attr-defined]
    world.watch()
    world.watch()
    assert world.stages() == [Stage.OPENED, Stage.RECOVERED]
    assert "its scores have drifted" in world.pager.told[0].opened.headline


def test_scores_that_changed_for_good_are_taken_as_a_new_reference(scores: OfTasks) -> None:
    """By hand, as a version of its own that nobody has to take; then they are fresh again."""
    world = scores
    (order,) = first_orders(world.fleet, (), world.clock.now())
    renewed = world.renewer.renew(order)
    assert renewed.outcome == "promoted", renewed.reason
    head = world.ledger.head(RISK)
    assert head is not None
    assert (head.version, head.found) == (2, True)
    assert world.handover.taken == []


def test_families_of_every_task_are_watched_in_one_pass(
    fleet: Fleet, colour: Family, risk: Family, clock: "StoppedClock", tmp_path: Path
) -> None:
    """Side by side, each judged by what it has."""
    ledger = SqlLedger(f"sqlite:///{tmp_path / 'ledger.db'}")
    families = (*fleet.families, colour, risk)
    world = OfTasks(replace(fleet, families=families), clock, ledger, measure=Measure())
    for family in families:
        for model in family.models:
            head = Head(model=model, epoch=1, version=1, digest="d", artifact="reference.parquet")
            ledger.move(head, at=clock.now(), previous=None, reason="first")
    seen = world.watch()
    assert {family.task for family in families} == set(Task)
    states = {model: each.decision and each.decision.state for model, each in seen.items()}
    assert states == dict.fromkeys(world.fleet.models, State.FRESH)
    ledger.close()
