"""Rollouts told as timelines: real state machine, statistics and ledger; a fake world around."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fakes.pager import FakePager
from fakes.trials import FakeTrials
from fakes.world import (
    FakeHandover,
    FakeLog,
    FakeMeasure,
    FakeRegistry,
    FakeTrainer,
    held_out,
)

from driftloop.errors import ArtifactError, BadRequest, ModelAway, StaleHead
from driftloop.ledger import SqlLedger
from driftloop.loop.notices import Places, opened
from driftloop.loop.release import Released, Releaser
from driftloop.loop.renew import Renewed, Renewer
from driftloop.loop.tell import Teller
from driftloop.loop.watch import Watched, Watcher, order, ordered
from driftloop.records import (
    Advanced,
    Decided,
    Decision,
    Head,
    ModelId,
    Moved,
    Paged,
    Phase,
    Rollout,
    Stage,
    State,
    Window,
)
from driftloop.spec import Family, Fleet, RolloutPolicy

if TYPE_CHECKING:
    from conftest import StoppedClock

DE = ModelId("eta-de")
HOUR = timedelta(hours=1)
POLICY = RolloutPolicy(
    shadow="1h", shares=(0.1, 0.5), step="1h", patience="12h", labels="2h", watch="1h", held="6h"
)


@dataclass
class World:
    """A model with a champion, a policy, and everything around its release."""

    fleet: Fleet
    clock: "StoppedClock"
    ledger: SqlLedger
    trials: FakeTrials = field(default_factory=FakeTrials)
    trainer: FakeTrainer = field(default_factory=FakeTrainer)
    registry: FakeRegistry = field(default_factory=FakeRegistry)
    pager: FakePager = field(default_factory=FakePager)
    damaged: int | None = None
    trouble: ArtifactError = field(
        default_factory=lambda: ArtifactError("the model file is gone", where="model.onnx")
    )

    def renew(self, key: str) -> Renewed:
        """Train by hand."""
        family, now = self.fleet.family(DE), self.clock.now()
        return self.renewer.renew(order(family, DE, key=key, reason="asked for", now=now))

    @property
    def renewer(self) -> Renewer:
        return Renewer(
            fleet=self.fleet,
            log=FakeLog(),
            trainer=self.trainer,
            registry=self.registry,
            handover=FakeHandover(),
            ledger=self.ledger,
            clock=self.clock,
            teller=self.teller,
            table=held_out,
        )

    def after(self, hours: float) -> Released | None:
        """One pass, so much later."""
        self.clock.shown += hours * HOUR
        done = self.releaser.release()
        return done[0] if done else None

    @property
    def teller(self) -> Teller:
        return Teller(fleet=self.fleet, ledger=self.ledger, pager=self.pager, clock=self.clock)

    @property
    def releaser(self) -> Releaser:
        return Releaser(
            fleet=self.fleet,
            trials=self.trials,
            registry=self.registry,
            ledger=self.ledger,
            clock=self.clock,
            teller=self.teller,
            verify=self._verify,
        )

    @property
    def version(self) -> int:
        head = self.ledger.head(DE)
        assert head is not None
        return head.version

    def steps(self) -> list[str]:
        return [fact.rollout.named for fact in self.ledger.facts(Advanced, model=DE)]

    def told(self) -> list[Stage]:
        return [fact.notice.stage for fact in self.ledger.facts(Paged)]

    def _verify(self, head: Head, family: Family) -> None:
        if head.version == self.damaged:
            raise self.trouble


@pytest.fixture
def world(fleet: Fleet, clock: "StoppedClock", tmp_path: Path) -> Iterator[World]:
    """Version 1 answers, version 2 has passed its gate and is in shadow."""
    only = fleet.only((DE,))
    family = only.families[0].model_copy(update={"rollout": POLICY})
    ledger = SqlLedger(f"sqlite:///{tmp_path / 'ledger.db'}")
    made = World(fleet=Fleet(families=(family,), owners=fleet.owners), clock=clock, ledger=ledger)
    assert made.renew("first").outcome == "promoted"
    assert made.renew("second").outcome == "rollout"
    yield made
    ledger.close()


def test_a_good_challenger_comes_to_the_front(world: World) -> None:
    """Shadow, 10 %, 50 %, champion, watched: each step in an epoch of its own; told once."""
    for _ in range(6):
        world.after(1)
    assert world.steps() == [
        "shadow",
        "canary 10%",
        "canary 50%",
        "promoting",
        "watched",
        "champion",
    ]
    epochs = [fact.rollout.epoch for fact in world.ledger.facts(Advanced, model=DE)]
    moves = [fact.head.epoch for fact in world.ledger.facts(Moved, model=DE)]
    assert (epochs, moves) == ([2, 3, 4, 5, 7, 8], [1, 6])
    assert (world.version, world.registry.aliases) == (2, {DE: 2})
    assert world.told() == [Stage.PROMOTED]
    assert world.pager.told[0].opened.headline == "eta-de is answered by version 2"
    assert world.ledger.rollouts() == ()


@pytest.mark.parametrize(
    ("harm", "why"),
    [
        ({"fails": 0.1}, "fails on 10.0%"),
        ({"slower": 5.0}, "p50"),
        ({"shift": 100.0}, "answers lie"),
        ({"worse": 1.5}, "mean absolute error"),
    ],
)
@pytest.mark.parametrize("passes", [0, 1, 3])
def test_a_harmful_challenger_never_stays(
    world: World, harm: dict[str, float], why: str, passes: int
) -> None:
    """Bad in shadow, in canary or once it answers alone: the champion before it answers again."""
    for _ in range(passes):
        world.after(1)
    for name, value in harm.items():
        setattr(world.trials, name, value)
    done = world.after(0.1)
    assert done is not None
    assert done.rollout.phase is Phase.ROLLED_BACK
    assert why in done.rollout.reason
    assert (world.version, world.registry.aliases) == (1, {DE: 1})
    assert world.told()[-1] is Stage.ROLLED_BACK
    assert world.pager.told[0].shown.headline == "eta-de: version 2 was rolled back"
    evidence = world.pager.told[0].shown.evidence
    assert len({each.what for each in evidence}) == len(evidence)
    assert [each.value.count("limit") for each in evidence if not each.limit] == [1] * len(evidence)
    before = world.told()
    assert world.after(1) is None
    assert world.told() == before


@pytest.mark.parametrize(("rows", "fails"), [(0, 0.0), (5, 0.99)])
@pytest.mark.parametrize("passes", [0, 1, 3])
def test_a_challenger_whose_file_is_refused_goes_back_at_once_and_says_why(
    world: World, rows: int, fails: float, passes: int
) -> None:
    """Without any traffic too, and held or not; the owner is told what is wrong with the file."""
    for _ in range(passes):
        world.after(1)
    world.trials.rows, world.trials.fails, world.damaged = rows, fails, 2
    world.releaser.hold(DE, who="anna")
    done = world.after(0.1)
    assert done is not None
    assert done.rollout.phase is Phase.ROLLED_BACK
    assert done.rollout.reason == "version 2 is refused: the model file is gone"
    assert "the model file is gone" in world.pager.told[0].shown.doing
    assert world.version == 1


def test_a_challenger_whose_sidecar_is_away_is_not_refused(world: World) -> None:
    """Its file may be all right: nothing is decided by that."""
    world.trials.rows, world.damaged, world.trouble = 0, 2, ModelAway("the sidecar is busy")
    done = world.after(0.1)
    assert done is not None
    assert (done.problem, world.steps()) == (None, ["shadow"])


def test_late_labels_are_awaited_and_then_judged(world: World) -> None:
    """Without labels a phase lasts longer; labels that come meanwhile show the harm."""
    world.trials.labels = 0.0
    waiting = world.after(2)
    assert waiting is not None
    assert "late labels are awaited" in waiting.said
    world.trials.labels, world.trials.worse = 1.0, 1.5
    gone = world.after(0.5)
    assert gone is not None
    assert gone.rollout.phase is Phase.ROLLED_BACK


def test_labels_that_never_come_do_not_hold_it_for_ever(world: World) -> None:
    """Beyond the limit of each phase the gate's word stands."""
    world.trials.labels = 0.0
    for _ in range(12):
        world.after(1)
    assert (world.version, world.steps()[-1]) == (2, "champion")


def test_a_promotion_that_fails_is_stuck_told_and_mended(world: World) -> None:
    """The champion keeps answering, a person is told once, and resumes it once it is mended."""
    world.damaged = 2
    for _ in range(4):
        world.after(1)
    assert (world.version, world.steps()[-1]) == (1, "stuck")
    assert world.told() == [Stage.STUCK]
    assert "the model file is gone" in world.pager.told[0].opened.doing
    world.damaged = None
    world.releaser.resume(DE, who="anna")
    world.after(0.1)
    assert (world.version, world.steps()[-1]) == (2, "watched")


def test_a_promotion_killed_after_the_head_moved_is_taken_up(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next pass finds the challenger champion, and goes on from there."""
    world.after(1)
    world.after(1)
    advance = world.ledger.advance

    def killed(step: Advanced) -> None:
        if step.rollout.phase is Phase.WATCHED:
            raise KeyboardInterrupt
        advance(step)

    monkeypatch.setattr(world.ledger, "advance", killed)
    with pytest.raises(KeyboardInterrupt):
        world.after(1)
    monkeypatch.undo()
    assert (world.version, world.steps()[-1]) == (2, "promoting")
    world.after(0.1)
    assert world.steps()[-1] == "watched"
    assert len(world.ledger.facts(Moved, model=DE)) == 2
    assert world.told() == [Stage.PROMOTED]


def test_a_rollback_killed_half_way_is_carried_to_its_end(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the head was moved back already: it is not moved again."""
    for _ in range(3):
        world.after(1)
    assert world.version == 2
    world.trials.fails = 0.1
    advance = world.ledger.advance

    def killed(step: Advanced) -> None:
        if step.rollout.phase is Phase.ROLLED_BACK:
            raise KeyboardInterrupt
        advance(step)

    monkeypatch.setattr(world.ledger, "advance", killed)
    with pytest.raises(KeyboardInterrupt):
        world.after(0.1)
    monkeypatch.undo()
    assert (world.version, world.steps()[-1]) == (1, "rolling-back")
    world.after(0.1)
    assert world.steps()[-1] == "rolled-back"
    assert [fact.head.version for fact in world.ledger.facts(Moved, model=DE)] == [1, 2, 1]


def test_what_a_person_holds_stays_and_is_told_when_it_lasts(world: World) -> None:
    """No pass moves it; after the policy's time the owner is told, once; resumed, it goes on."""
    world.releaser.hold(DE, who="anna")
    done = world.after(5)
    assert done is not None
    assert (done.said, world.told()) == ("held by anna", [])
    world.after(2)
    world.after(1)
    assert world.told() == [Stage.HELD]
    with pytest.raises(BadRequest, match="held already, by anna"):
        world.releaser.hold(DE, who="bert")
    world.releaser.resume(DE, who="anna")
    world.after(0.1)
    assert world.steps()[-1] == "canary 10%"


def test_a_person_promotes_at_once_or_rolls_back(world: World) -> None:
    """Whatever the policy would wait for; who it was is in the ledger."""
    world.trials.rows = 5
    assert world.releaser.promote(DE, who="anna").phase is Phase.WATCHED
    assert world.version == 2
    assert world.ledger.facts(Advanced, model=DE, last=1)[0].who == "anna"
    assert world.releaser.roll_back(DE, who="anna").phase is Phase.ROLLED_BACK
    assert world.version == 1
    with pytest.raises(BadRequest, match="no rollout under way"):
        world.releaser.hold(DE, who="anna")


def test_of_two_deployers_one_wins_and_the_other_is_told(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both looked at the same step: the second's is refused, and nothing of it is kept."""
    world.clock.shown += HOUR
    seen = world.ledger.rollouts()
    releaser = world.releaser
    mine: list[Rollout] = []

    def meanwhile(family: Family, rollout: Rollout) -> object:
        if not mine:
            mine.append(world.releaser.hold(DE, who="anna"))
        return trial(family, rollout)

    trial = world.trials.trial
    monkeypatch.setattr(world.trials, "trial", meanwhile)
    (done,) = releaser.release()
    assert (done.problem, done.moved) == (None, False)
    assert "somebody else was first" in done.said
    assert world.ledger.rollouts() == tuple(mine)
    with pytest.raises(StaleHead):
        world.ledger.advance(Advanced(model=DE, at=world.clock.now(), rollout=seen[0]))


def test_a_model_has_one_rollout_at_a_time(world: World) -> None:
    """A renewal that comes meanwhile waits, and says for what; nothing is trained."""
    trained = len(world.trainer.orders)
    renewed = world.renew("third")
    assert renewed.outcome == "elsewhere"
    assert renewed.reason == "the rollout of version 2 is open (shadow)"
    assert len(world.trainer.orders) == trained
    world.releaser.roll_back(DE, who="anna")
    assert world.renew("third").outcome == "rollout"
    assert len(world.ledger.rollouts()) == 1


def test_an_order_whose_rollout_began_is_not_trained_again(world: World) -> None:
    """As when its worker died just after."""
    trained = len(world.trainer.orders)
    world.ledger._write(world.ledger._sa.delete(world.ledger._intents))
    assert world.renew("second").outcome == "rollout"
    assert len(world.trainer.orders) == trained


def test_a_log_that_is_away_stops_the_rollout_and_nothing_else(world: World) -> None:
    """It stays where it is and says why; the next pass goes on."""
    world.trials.down = True
    done = world.after(1)
    assert done is not None
    assert done.problem == "the lake is away"
    assert world.steps() == ["shadow"]
    world.trials.down = False
    world.after(0.1)
    assert world.steps()[-1] == "canary 10%"


def test_a_champion_moved_by_hand_ends_the_rollout_and_stays(world: World) -> None:
    """The hand's word counts: nothing is moved back over it."""
    for _ in range(3):
        world.after(1)
    head = world.ledger.head(DE)
    assert head is not None
    by_hand = Head(model=DE, epoch=head.epoch + 1, version=1, digest="d", artifact="a")
    world.ledger.move(by_hand, at=world.clock.now(), previous=head, reason="by hand")
    world.after(0.1)
    assert (world.version, world.steps()[-1]) == (1, "rolled-back")
    assert world.ledger.facts(Moved, model=DE)[-1].reason == "by hand"


def test_a_rollout_whose_policy_is_gone_is_rolled_back(world: World) -> None:
    """The monitor file lost its [rollout]: nobody could say how it goes on."""
    family = world.fleet.families[0].model_copy(update={"rollout": None})
    world.fleet = Fleet(families=(family,), owners=world.fleet.owners)
    world.after(0.1)
    assert (world.version, world.steps()[-1]) == (1, "rolled-back")


def test_what_is_waited_for_can_be_asked(world: World) -> None:
    """The findings with their intervals, what is waited for and until when; nothing changes."""
    world.trials.rows = 300
    looked = world.releaser.look(DE)
    assert [each.what for each in looked.findings] == ["errors", "p50", "scores", "quality"]
    assert looked.waits == "shadow lasts 1 h at least"
    assert looked.until == world.clock.now() + HOUR
    assert world.steps() == ["shadow"]


def test_a_champion_that_cannot_come_back_is_told_and_tried_again(world: World) -> None:
    """Harm once the challenger answers alone, and the file before it is damaged meanwhile."""
    for _ in range(3):
        world.after(1)
    world.trials.fails, world.damaged = 0.1, 1
    for _ in range(3):
        done = world.after(0.1)
        assert done is not None
        assert "the model file is gone" in str(done.problem)
    assert (world.version, world.steps()[-1]) == (2, "rolling-back")
    assert world.told() == [Stage.PROMOTED, Stage.STUCK]
    world.damaged = None
    world.after(0.1)
    assert (world.version, world.steps()[-1]) == (1, "rolled-back")
    assert world.told() == [Stage.PROMOTED, Stage.STUCK, Stage.ROLLED_BACK]


def test_a_pager_that_is_away_is_told_later_and_once(world: World) -> None:
    """It stays noted; no rollout needs to be open any more."""
    world.trials.fails = 0.1
    world.pager.refuse = 1
    world.after(1)
    assert world.told() == []
    assert world.after(1) is None
    world.teller.tell_unsent()
    assert world.told() == [Stage.ROLLED_BACK]
    assert len(world.pager.told) == 1


def test_a_model_that_decays_meanwhile_waits_for_its_rollout(world: World) -> None:
    """The order that a pass would start waits, with its reason, and comes once it is over."""
    measure = FakeMeasure(error=14.0)

    def watch() -> Watched:
        world.clock.shown += 10 * timedelta(days=1)
        (seen,) = Watcher(
            fleet=world.fleet,
            log=FakeLog(),
            measure=measure,
            ledger=world.ledger,
            clock=world.clock,
            places=Places(pages="http://pages", prefect="http://prefect"),
        ).watch()[-1:]
        return seen

    seen = watch()
    assert seen.order is None
    assert seen.waits == "a rollout is under way (shadow)"
    world.releaser.roll_back(DE, who="anna")
    assert watch().order is not None


def test_in_an_incident_it_is_told_in_its_thread(world: World) -> None:
    """The rollout of what an incident called for: one message, all stages in its thread."""
    world.releaser.roll_back(DE, who="anna")
    incident = "eta-de/bad"
    decision = Decision(
        key=incident,
        model=DE,
        at=world.clock.now(),
        state=State.DECAYING,
        reason="worse",
        version=1,
        window=Window(
            model=DE,
            start=world.clock.now(),
            end=world.clock.now(),
            known_at=world.clock.now(),
        ),
        verdicts=(),
        retrain=True,
        incident=incident,
        opens=True,
    )
    fact = Decided(model=DE, at=world.clock.now(), decision=decision)
    world.ledger.append(fact, key=incident)
    family, owner = world.fleet.family(DE), world.fleet.owner(DE)
    places = Places(pages="http://pages", prefect="http://prefect")
    world.teller.tell(opened(decision, family, owner, places))
    assert world.renewer.renew(ordered(family, decision)).outcome == "rollout"
    for _ in range(4):
        world.after(1)
    (message,) = world.pager.told
    assert message.opened.incident == incident
    stages = [each.stage for each in message.thread]
    assert stages == [Stage.RETRAINING, Stage.PROMOTED]
