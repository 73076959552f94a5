"""The loop told as timelines: real judge, gate, deploy and ledger; a fake world around them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from fakes.pager import FakePager
from fakes.world import (
    FakeHandover,
    FakeLog,
    FakeMeasure,
    FakeRegistry,
    FakeTrainer,
    held_out,
)

from driftloop.errors import ArtifactError, BadRequest, MeasureError, StaleHead
from driftloop.judge.evidence import BETS, INFLATION, grown, kept
from driftloop.ledger import SqlLedger
from driftloop.loop.notices import Places
from driftloop.loop.renew import Renewed, Renewer, repair_aliases
from driftloop.loop.tell import Teller
from driftloop.loop.watch import Watched, Watcher, first_orders
from driftloop.loop.watch import order as ordered
from driftloop.records import (
    Carrier,
    Cause,
    Decided,
    Disputed,
    Evidence,
    Explained,
    Failed,
    Gated,
    Head,
    Intent,
    Kind,
    ModelId,
    Moved,
    Origin,
    Paged,
    Reading,
    Stage,
    State,
)
from driftloop.spec import Fleet, Platform, Routes
from driftloop.trace import steps

if TYPE_CHECKING:
    from conftest import StoppedClock

DE, FR, UK = ModelId("eta-de"), ModelId("eta-fr"), ModelId("churn-uk")


@dataclass
class World:
    """A fleet, a clock and everything around the loop."""

    fleet: Fleet
    clock: "StoppedClock"
    ledger: SqlLedger
    log: FakeLog = field(default_factory=FakeLog)
    measure: FakeMeasure = field(default_factory=FakeMeasure)
    trainer: FakeTrainer = field(default_factory=FakeTrainer)
    registry: FakeRegistry = field(default_factory=FakeRegistry)
    handover: FakeHandover = field(default_factory=FakeHandover)
    pager: FakePager = field(default_factory=FakePager)
    budget: float | None = None
    every: bool = False

    @property
    def teller(self) -> Teller:
        return Teller(fleet=self.fleet, ledger=self.ledger, pager=self.pager, clock=self.clock)

    def watch(
        self, *, later: timedelta = timedelta(days=1), gathers: bool = True
    ) -> dict[ModelId, Watched]:
        """One pass, a day on: decide and tell; renewals are the test's to start."""
        seen = self.decide(later=later)
        self.teller.tell_all([notice for watched in seen for notice in watched.notices])
        if gathers:
            self.gathered()
        return {watched.model: watched for watched in seen}

    def gathered(self) -> None:
        """So much later that what is told together has gathered."""
        self.clock.shown += timedelta(seconds=2)
        self.teller.tell_unsent()

    def decide(self, *, later: timedelta = timedelta(days=1)) -> tuple[Watched, ...]:
        """One pass whose process dies before it tells anybody."""
        self.clock.shown += later
        watcher = Watcher(
            fleet=self.fleet,
            log=self.log,
            measure=self.measure,
            ledger=self.ledger,
            clock=self.clock,
            places=Places(pages="http://pages", prefect="http://prefect"),
            budget=self.budget,
            reports=Path("reports"),
            every=self.every,
        )
        return watcher.watch()

    def renew(self, watched: Watched) -> Renewed:
        assert watched.order is not None
        return self.renewer.renew(watched.order)

    @property
    def renewer(self) -> Renewer:
        return Renewer(
            fleet=self.fleet,
            log=self.log,
            trainer=self.trainer,
            registry=self.registry,
            handover=self.handover,
            ledger=self.ledger,
            clock=self.clock,
            teller=self.teller,
            table=held_out,
        )

    def stages(self) -> list[Stage]:
        return [fact.notice.stage for fact in self.ledger.facts(Paged)]


@pytest.fixture
def world(fleet: Fleet, clock: "StoppedClock", tmp_path: Path) -> Iterator[World]:
    """A fleet of one regression model, with its first champion released."""
    ledger = SqlLedger(f"sqlite:///{tmp_path / 'ledger.db'}")
    # Nobody is called again to what is told once.
    quiet = replace(fleet.only((DE,)), routes=Routes(repeat=timedelta(days=365)))
    made = World(fleet=quiet, clock=clock, ledger=ledger)
    (order,) = first_orders(made.fleet, ledger.heads(), clock.now())
    assert made.renewer.renew(order).outcome == "promoted"
    clock.shown += timedelta(days=10)  # past the cooldown of the first version
    yield made
    ledger.close()


def test_decay_is_paged_retrained_released_and_recovers(world: World) -> None:
    """The whole story in one incident: one message, each stage told once, in order."""
    assert world.watch()[DE].decision.state == State.FRESH  # type: ignore[union-attr]
    world.measure.error = 14.0
    bad = world.watch()[DE]
    assert bad.decision is not None
    assert bad.decision.opens
    renewed = world.renew(bad)
    assert renewed.outcome == "promoted"
    assert world.ledger.head(DE) == renewed.head
    assert world.registry.aliases == {DE: 2}
    world.measure.error = 5.0
    world.watch()
    world.watch()
    world.watch()
    assert world.stages() == [
        Stage.OPENED,
        Stage.RETRAINING,
        Stage.PROMOTED,
        Stage.RECOVERED,
    ]
    assert len(world.pager.told) == 1


def test_a_version_that_does_not_make_up_for_the_change_says_so(world: World) -> None:
    """Better than a champion that decayed, and far from what that was: limits count from it now."""
    world.measure.error, world.trainer.error = 20.0, 9.5
    assert world.renew(world.watch()[DE]).outcome == "promoted"
    assert "worse itself" not in world.pager.told[0].shown.doing
    world.clock.shown += timedelta(days=10)
    world.measure.error, world.trainer.error = 10.0, 9.0
    world.watch()
    world.watch()
    world.measure.baseline, world.measure.error = 5.0, 9.9
    assert world.renew(world.watch()[DE]).outcome == "promoted"
    assert "it is 80% worse itself than its predecessor" in world.pager.told[-1].shown.doing


def test_a_worse_candidate_is_refused_and_kept(world: World) -> None:
    """The champion keeps answering; the refusal, its numbers and the version are on record."""
    champion = world.ledger.head(DE)
    world.measure.error, world.trainer.error = 14.0, 11.0
    renewed = world.renew(world.watch()[DE])
    assert renewed.outcome == "refused"
    assert world.ledger.head(DE) == champion
    assert not world.ledger.facts(Gated)[-1].result.passed
    assert not world.registry.gates[DE, 2].passed
    assert world.stages() == [Stage.OPENED, Stage.RETRAINING, Stage.REFUSED]


def test_a_failed_fit_changes_nothing_and_says_so(world: World) -> None:
    """A recipe that comes to nothing leaves the champion, a fact and a line in the thread."""
    champion = world.ledger.head(DE)
    world.measure.error, world.trainer.fails = 14.0, "the recipe raised ValueError"
    renewed = world.renew(world.watch()[DE])
    assert renewed.outcome == "failed"
    assert world.ledger.head(DE) == champion
    assert "the recipe raised ValueError" in world.ledger.facts(Failed)[0].error
    assert world.stages()[-1] == Stage.FAILED


def test_a_renewal_that_breaks_has_an_end_that_is_told(world: World) -> None:
    """An error that nobody foresaw is a failure like any other, and not one without a word."""
    world.measure.error, world.trainer.fails = 14.0, KeyError("no such thing")
    renewed = world.renew(world.watch()[DE])
    assert renewed.outcome == "failed"
    assert "KeyError: 'no such thing'" in world.ledger.facts(Failed)[0].error
    assert world.stages()[-1] == Stage.FAILED


def test_cooldown_spaces_retrainings_while_the_incident_stays_one(world: World) -> None:
    """Ten bad days: two retrainings (cooldown 7 days), one page."""
    world.measure.error, world.trainer.error = 14.0, 11.0
    for _ in range(10):
        watched = world.watch()[DE]
        if watched.order is not None:
            world.renew(watched)
    assert len(world.trainer.orders) == 1 + 2
    assert world.stages().count(Stage.OPENED) == 1
    assert len(world.pager.told) == 1


def test_the_same_order_twice_acts_once(world: World) -> None:
    """A flow that Prefect runs again with the same order trains nothing and moves nothing."""
    world.measure.error = 14.0
    watched = world.watch()[DE]
    world.renew(watched)
    assert world.renew(watched).outcome == "elsewhere"
    assert len(world.ledger.facts(Moved)) == 2
    assert len(world.pager.told) == 1


def test_two_watchers_at_the_same_moment_decide_once(world: World) -> None:
    """The second pass at the same loop time finds nothing due."""
    world.measure.error = 14.0
    world.watch()
    world.clock.shown -= timedelta(days=1)
    assert world.watch()[DE].decision is None
    assert len(world.ledger.facts(Decided)) == 1


def test_a_promotion_meets_a_rollback_and_loses(world: World) -> None:
    """Compare-and-set: a person who moved the head while a fit ran is not overruled."""
    world.measure.error = 14.0
    world.renew(world.watch()[DE])
    while (watched := world.watch()[DE]).order is None:
        assert world.clock.shown.month < 6
    train = world.trainer.train

    def train_while_a_person_rolls_back(*args: object) -> object:
        back = _back(world)
        assert back.version == 1
        return train(*args)  # type: ignore[arg-type]

    world.trainer.train = train_while_a_person_rolls_back  # type: ignore[method-assign,assignment]
    renewed = world.renew(watched)
    assert renewed.outcome == "failed"
    assert "meanwhile" in renewed.reason
    assert world.ledger.head(DE).version == 1  # type: ignore[union-attr]


def test_rollback_goes_back_and_only_to_what_served(world: World) -> None:
    """Back to version 1 at a new epoch; a version that never served is refused."""
    with pytest.raises(BadRequest, match="never an older champion"):
        _back(world)
    world.measure.error = 14.0
    world.renew(world.watch()[DE])
    with pytest.raises(BadRequest, match="versions that answered before: 1"):
        _back(world, to=77)
    head = _back(world)
    assert (head.version, head.epoch) == (1, 3)
    assert world.registry.aliases == {DE: 1}


def test_an_alias_that_missed_a_move_is_repaired(world: World) -> None:
    """The registry away at the swap: the head moves all the same, and maintain mends the copy."""
    world.measure.error, world.registry.down = 14.0, True
    assert world.renew(world.watch()[DE]).outcome == "promoted"
    assert world.registry.aliases == {DE: 1}
    world.registry.down = False
    assert repair_aliases(world.ledger, world.registry) == (DE,)
    assert world.registry.aliases == {DE: 2}
    assert repair_aliases(world.ledger, world.registry) == ()


def test_an_order_that_waits_is_not_ordered_again(world: World) -> None:
    """Nobody has begun the first order yet: the next pass knows of it all the same."""
    world.measure.error = 14.0
    assert world.watch()[DE].order is not None
    again = world.watch()[DE]
    assert again.order is None
    assert "cooling down" in (again.decision.blocked or "")  # type: ignore[union-attr]


def test_what_a_killed_pass_decided_comes_again(world: World) -> None:
    """Neither the page nor the order is lost; both come until they are done, and no longer."""
    world.measure.error = 14.0
    world.decide()
    assert world.stages() == []
    again = world.watch(later=timedelta(minutes=5))[DE]
    assert again.decision is None
    assert [notice.stage for notice in again.notices] == [Stage.OPENED]
    assert world.stages() == [Stage.OPENED]
    waiting = world.watch(later=timedelta(minutes=5))[DE]
    assert (waiting.notices, waiting.order) == ((), again.order)
    assert world.renew(waiting).outcome == "promoted"
    assert world.watch(later=timedelta(minutes=5)) == {}
    world.measure.error = 5.0
    while world.ledger.facts(Decided)[-1].decision.resolves is None:
        world.decide()
    world.watch(later=timedelta(minutes=5))
    assert world.stages()[-1] == Stage.RECOVERED
    assert len(world.pager.told) == 1


def test_an_order_that_was_given_up_does_not_come_again(world: World) -> None:
    """Its end is told; the next order follows after the cooldown."""
    world.measure.error = 14.0
    order = world.watch()[DE].order
    assert order is not None
    world.renewer.give_up(order, "died twice")
    world.renewer.give_up(order, "died twice")
    assert world.stages() == [Stage.OPENED, Stage.FAILED]
    assert world.watch(later=timedelta(minutes=5)) == {}
    assert world.renewer.renew(order).reason == "failed"


@pytest.mark.parametrize("dies_again", [False, True], ids=["once", "twice"])
def test_a_renewal_killed_once_its_candidate_answers_is_told_as_promoted(
    world: World, monkeypatch: pytest.MonkeyPatch, *, dies_again: bool
) -> None:
    """It is not gated against itself, and its worker's second death does not make it a failure."""
    world.measure.error = 14.0
    watched = world.watch()[DE]
    assert watched.order is not None
    with monkeypatch.context() as patch:
        patch.setattr(FakeRegistry, "point", _killed)
        with pytest.raises(KeyboardInterrupt):
            world.renew(watched)
    assert world.stages() == [Stage.OPENED, Stage.RETRAINING]
    if dies_again:
        world.renewer.give_up(watched.order, "died twice")
        assert world.renew(watched).reason == "promoted"
    else:
        assert world.renew(watched).outcome == "promoted"
    assert world.ledger.facts(Failed) == ()
    assert [gated.result.passed for gated in world.ledger.facts(Gated)] == [True, True]
    assert world.registry.aliases == {DE: 2}
    assert world.stages() == [Stage.OPENED, Stage.RETRAINING, Stage.PROMOTED]


def _killed(*_: object) -> None:
    raise KeyboardInterrupt


def test_an_order_whose_incident_is_over_is_withdrawn(world: World) -> None:
    """The model recovered before its turn came: nothing is trained, nothing is told."""
    world.measure.error = 14.0
    waiting = world.watch()[DE]
    world.measure.error = 9.0
    world.watch()
    world.watch()
    assert world.renew(waiting).outcome == "withdrawn"
    assert len(world.trainer.orders) == 1
    assert world.stages() == [Stage.OPENED, Stage.RECOVERED]


def test_an_order_that_waited_looks_at_the_newest_rows(world: World) -> None:
    """Its turn comes two days later: the window ends then, not when it was ordered."""
    world.measure.error = 14.0
    waiting = world.watch()[DE]
    world.clock.shown += timedelta(days=2)
    world.renew(waiting)
    assert world.trainer.orders[-1].window.end == world.clock.shown
    assert world.trainer.orders[-1].key == waiting.order.key  # type: ignore[union-attr]


def test_an_order_for_another_champion_is_withdrawn(world: World) -> None:
    """The version that was judged no longer answers when its turn comes: nothing is trained."""
    world.measure.error = 14.0
    world.renew(world.watch()[DE])
    while (waiting := world.watch()[DE]).order is None:
        assert world.clock.shown.month < 6
    _back(world)
    assert world.renew(waiting).outcome == "withdrawn"


def test_rolling_back_twice_goes_further_back_and_not_to_and_fro(world: World) -> None:
    """From version 2 to 1; from 1 there is nothing older, whatever answered meanwhile."""
    world.measure.error = 14.0
    world.renew(world.watch()[DE])
    assert _back(world).version == 1
    with pytest.raises(BadRequest, match="never an older champion"):
        _back(world)


def test_a_rollback_to_a_damaged_file_changes_nothing(world: World) -> None:
    """The head stays where it was when the older file could not answer."""
    world.measure.error = 14.0
    world.renew(world.watch()[DE])
    before = world.ledger.head(DE)

    def damaged(head: Head) -> None:
        raise ArtifactError("not the one its digest names", where=head.artifact)

    with pytest.raises(ArtifactError):
        _back(world, verify=damaged)
    assert world.ledger.head(DE) == before


def test_an_incident_whose_data_turns_bad_says_so(world: World) -> None:
    """Retraining is blocked from then on, and the owner is told in the thread, once."""
    world.measure.error = 14.0
    world.watch()
    world.log.duplicates = 100
    world.watch()
    world.watch()
    assert world.stages() == [Stage.OPENED, Stage.BLOCKED]
    assert "data is at fault" in world.pager.told[0].shown.doing


def test_a_page_waits_for_slack_and_goes_out_once(world: World) -> None:
    """Slack away: nothing is lost or reordered; back again: each notice once."""
    world.measure.error = 14.0
    world.pager.refuse = 99
    watched = world.watch()[DE]
    world.renew(watched)
    assert world.stages() == []
    world.pager.refuse = 0
    told = world.teller.tell_unsent()
    assert [one.told for one in told] == [True, True, True]
    assert world.stages() == [Stage.OPENED, Stage.RETRAINING, Stage.PROMOTED]
    assert world.teller.tell_unsent() == ()
    assert len(world.pager.told) == 1


def test_a_stage_waits_for_the_one_before_it(world: World) -> None:
    """Slack back between two stages: the later one does not overtake the earlier."""
    world.measure.error = 14.0
    world.pager.refuse = 2
    watched = world.watch()[DE]
    assert world.stages() == []
    world.renew(watched)
    world.teller.tell_unsent()
    assert world.stages() == [Stage.OPENED, Stage.RETRAINING, Stage.PROMOTED]
    assert world.pager.told[0].shown.stage == Stage.PROMOTED


def test_a_lost_reply_does_not_page_twice(world: World) -> None:
    """The message was posted, the answer lost: the next attempt finds it in the channel."""
    world.measure.error = 14.0
    world.pager.lose_reply = 1
    world.watch(gathers=False)
    assert world.stages() == []
    world.teller.tell_unsent()
    assert world.stages() == [Stage.OPENED]
    assert len(world.pager.told) == 1


def test_what_a_channel_refuses_for_good_is_told_the_platforms_owner(world: World) -> None:
    """A page is never lost: who owns the platform reads it, and which channel does not take it."""
    world.measure.error = 14.0
    nowhere = world.fleet.owners["logistics"].model_copy(update={"channel": "C0000000"})
    owners = {**world.fleet.owners, "logistics": nowhere}
    world.fleet = replace(world.fleet, owners=owners, platform=Platform(owner="growth"))
    world.watch()
    (message,) = world.pager.told
    assert (message.to.channel, message.opened.stage) == ("#ml-growth", Stage.OPENED)
    assert "C0000000 does not take it (unknown channel)" in message.thread[0].headline
    assert world.stages() == [Stage.OPENED, Stage.AGAIN]
    assert world.teller.tell_unsent() == ()


def test_a_page_that_no_channel_takes_waits(world: World) -> None:
    """Nobody else to tell: it is tried again, rarely, and is not counted as told."""
    world.measure.error = 14.0
    nowhere = world.fleet.owners["logistics"].model_copy(update={"channel": "C0000000"})
    world.fleet = Fleet(families=world.fleet.families, owners={"logistics": nowhere})
    world.watch()
    assert world.stages() == []
    assert world.teller.waiting() == 1
    teller = world.teller
    teller.tell_unsent()
    teller.tell_unsent()
    asked = world.pager.asked
    assert teller.tell_unsent() == ()
    assert world.pager.asked == asked


@pytest.mark.parametrize(
    ("breaks", "said"),
    [(MeasureError("Evidently broke"), "Evidently broke"), (ValueError("odd"), "ValueError")],
    ids=["foreseen", "not-foreseen"],
)
def test_one_models_trouble_stays_its_own(
    fleet: Fleet, clock: "StoppedClock", world: World, breaks: Exception, said: str
) -> None:
    """A model that cannot be measured is blind, and says why; the others are decided on."""
    world.fleet = fleet.only((DE, FR))
    for order in first_orders(world.fleet, world.ledger.heads(), clock.now()):
        assert world.renewer.renew(order).outcome == "promoted"
    world.measure.breaks = breaks
    seen = world.watch()
    assert seen[DE].decision is not None
    assert seen[DE].decision.state == State.BLIND
    assert said in (seen[DE].problem or "")
    assert seen[FR].decision is not None
    assert seen[FR].decision.state == State.FRESH


def test_a_model_without_a_champion_says_how_to_make_one(fleet: Fleet, world: World) -> None:
    """Not silently skipped."""
    world.fleet = fleet.only((DE, FR))
    assert "driftloop train" in (world.watch()[FR].problem or "")


def test_stale_heads_are_refused_by_the_ledger(world: World) -> None:
    """The ledger itself refuses a head that does not follow."""
    head = world.ledger.head(DE)
    assert head is not None
    with pytest.raises(StaleHead):
        world.ledger.move(head, at=world.clock.now(), previous=None, reason="again")


def _back(
    world: World, *, to: int | None = None, verify: Callable[[Head], object] = lambda head: None
) -> Head:
    return world.renewer.roll_back(DE, to=to, who="ann", verify=verify)


def test_what_an_incident_opens_for_is_measured_twice(world: World) -> None:
    """Once when it opens; where the second measurement denies it, a fact says so."""
    world.measure.denies = ("mae is 14.0 by us and 10.0 by Evidently",)
    world.watch()
    assert world.measure.rechecked == []
    world.measure.error = 14.0
    for _ in range(3):
        world.watch()
    assert [(each.metric, each.value) for each in world.measure.rechecked] == [("mae", 14.0)]
    (fact,) = world.ledger.facts(Disputed)
    assert (fact.model, fact.said) == (DE, world.measure.denies)
    assert Stage.OPENED in world.stages()


def test_a_model_that_cannot_be_looked_at_is_blind_until_it_can_be(world: World) -> None:
    """One decision says why, however many passes fail; the first that can look again decides."""
    said = "reference.parquet: is damaged"
    for _ in range(3):
        world.measure.breaks = ArtifactError(said)
        (seen,) = world.decide(later=timedelta(minutes=10))
        assert seen.problem == said
    decisions = [fact.decision for fact in world.ledger.facts(Decided, model=DE)]
    assert [each.state for each in decisions] == [State.BLIND]
    assert decisions[0].reason == f"blind: could not be looked at: {said}"
    (seen,) = world.decide(later=timedelta(minutes=10))
    assert seen.decision is not None
    assert (seen.decision.state, seen.problem) == (State.FRESH, None)


def test_snapshots_are_kept_of_what_calls_for_something(world: World) -> None:
    """Pages and orders; quiet decisions only if all are asked for; a full disk is no end."""
    world.watch()
    assert world.measure.kept == []
    world.measure.error = 14.0
    bad = world.watch()[DE].decision
    assert bad is not None
    assert world.measure.kept == [Path("reports") / f"{bad.key}.json"]
    world.measure.error, world.every = 10.0, True
    quiet = world.watch()[DE].decision
    assert quiet is not None
    assert world.measure.kept[1:] == [Path("reports") / f"{quiet.key}.json"]
    world.measure.full = True
    assert world.watch()[DE].decision is not None


def test_a_page_says_where_the_model_is_worst(world: World) -> None:
    """The last line of its evidence; told again by a pass after a crash it is the same page."""
    world.measure.segments = {"vehicle=van": 11.0, "vehicle=bike": 19.0}
    world.watch()
    world.measure.error = 14.0
    (told,) = world.decide()
    (again, *_) = world.decide(later=timedelta(minutes=1))
    assert told.notices[0].evidence[-1] == Evidence(
        what="worst in vehicle=bike: mean absolute error", value="19 min", limit="", n=200
    )
    assert again.notices == told.notices


def test_renewals_beyond_a_passs_budget_wait_and_come_again(fleet: Fleet, world: World) -> None:
    """Each fit took 0.1 s: of two a pass may start one; the other is next, and says why."""
    world.fleet = fleet.only((DE, FR))
    (order,) = first_orders(world.fleet, world.ledger.heads(), world.clock.now())
    assert world.renewer.renew(order).outcome == "promoted"
    world.clock.shown += timedelta(days=10)
    world.budget, world.measure.error = 0.15, 14.0
    seen = world.watch()
    (first,) = (each for each in seen.values() if each.order is not None)
    (later,) = (each for each in seen.values() if each.waits is not None)
    assert later.order is None
    assert later.waits == "the fits of 1 that gain more take 0 of 0.15 s a pass"
    assert world.renew(first).outcome == "promoted"
    again = [each for each in world.decide(later=timedelta(minutes=1)) if each.order is not None]
    assert [each.model for each in again] == [later.model]
    assert world.renew(again[0]).outcome == "promoted"


def test_a_renewal_is_held_for_as_long_as_its_fit_may_wait(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where fits queue for a cluster, nobody takes the renewal for dead before its turn came."""
    leases: dict[str, timedelta] = {}
    claim = world.ledger.claim

    def noted(key: str, *, lease: timedelta, body: str = "") -> Intent:
        leases[key.partition("/")[0]] = lease
        return claim(key, lease=lease, body=body)

    monkeypatch.setattr(world.ledger, "claim", noted)
    world.trainer.patience = timedelta(minutes=10)
    family = world.fleet.family(DE)
    made = ordered(family, DE, key="eta-de/queued", reason="by hand", now=world.clock.shown)
    assert world.renewer.renew(made).outcome == "promoted"
    limit = family.retrain.time_limit + timedelta(minutes=10)
    assert leases["renew"] > limit
    assert leases["renewing"] > limit


def _fresh(*, loss: float = 0.0, load: float = 0.0) -> tuple[Reading, ...]:
    """What is fresh of every model: 5,000 rows, whose errors are 0.03 and 0.014."""
    return tuple(
        Reading(
            kind=Kind.FRESH,
            metric=metric,
            column=column,
            value=value,
            n=5000,
            low=value - 1.645 * error,
            high=value + 1.645 * error,
        )
        for metric, column, value, error in (
            ("loss", None, loss, 0.03),
            ("shift", "load", load, 0.014),
        )
    )


def test_fresh_harm_is_paged_retrained_and_over_while_the_window_still_looks_well(
    world: World,
) -> None:
    """Its window of two weeks has hardly seen the change: the story is that of any decay."""
    world.measure.fresh = _fresh()
    assert world.watch()[DE].decision.state == State.FRESH  # type: ignore[union-attr]
    world.measure.fresh = _fresh(loss=0.5)
    bad = world.watch()[DE]
    assert bad.decision is not None
    assert (bad.decision.state, bad.decision.opens) == (State.DECAYING, True)
    assert world.renew(bad).outcome == "promoted"
    world.measure.fresh = _fresh()
    world.watch()
    world.watch()
    assert world.stages() == [
        Stage.OPENED,
        Stage.RETRAINING,
        Stage.PROMOTED,
        Stage.RECOVERED,
    ]
    assert len(world.pager.told) == 1


def test_drift_that_turns_to_harm_says_so_in_its_thread(world: World) -> None:
    """One page for the column; the harm that follows wakes the owner in the same thread, once."""
    world.measure.fresh = _fresh(load=0.6)
    drifted = world.watch()[DE].decision
    assert drifted is not None
    assert (drifted.state, drifted.opens, drifted.retrain) == (State.DRIFTING, True, False)
    world.measure.fresh = _fresh(load=0.6, loss=0.5)
    for _ in range(3):
        world.watch()
    assert world.stages() == [Stage.OPENED, Stage.WORSENED]
    assert len(world.pager.told) == 1


def test_drift_is_over_when_its_column_is_back(world: World) -> None:
    """Told once, and neither retrained nor told again."""
    world.measure.fresh = _fresh(load=-0.6)
    for _ in range(3):
        world.watch()
    world.measure.fresh = _fresh()
    for _ in range(3):
        world.watch()
    assert world.stages() == [Stage.OPENED, Stage.RECOVERED]


@pytest.mark.parametrize("in_incident", [False, True])
def test_a_model_in_an_incident_leaves_its_budget_to_the_others(
    fleet: Fleet, world: World, *, in_incident: bool
) -> None:
    """What falls to one of two in a pass is twice as much while the other cannot page."""
    world.fleet = fleet.only((DE, FR))
    for order in first_orders(world.fleet, world.ledger.heads(), world.clock.now()):
        assert world.renewer.renew(order).outcome == "promoted"
    world.measure.fresh = _fresh(loss=0.18)
    world.log.duplicates = 100 if in_incident else 0
    world.fleet = fleet.only((DE,))
    world.watch(later=timedelta(hours=1))
    world.log.duplicates = 0
    world.fleet = fleet.only((DE, FR))
    made = world.watch()[FR].decision
    assert made is not None
    mass = sum(sum(stream.mass) for stream in made.evidence)
    # One page a week, of which half is for harm, at one look a day.
    assert mass == pytest.approx(_added((1.0 if in_incident else 0.5) / 7 / 2), rel=1e-6)


def _added(weight: float) -> float:
    """Return what one look at a loss of 0.18, as in `_fresh`, adds up to."""
    z, n = np.array([(0.18 - 0.15) / (0.03 * INFLATION)]), np.array([5000.0])
    before = np.zeros((1, len(BETS)))
    return float(kept(grown(before, z, weight, n), weight).sum())


FAULT = Cause(
    origin=Origin.DATA,
    said="the data is wrong: distance is 1000 times what it was",
    carriers=(Carrier(name="distance", share=1.0, said=""),),
)


def test_a_cause_is_kept_told_and_traced(world: World) -> None:
    """Other inputs: the page says so, the fact stays, the retraining goes on."""
    world.measure.finds = replace(FAULT, origin=Origin.INPUTS, said="the inputs have changed")
    world.measure.error = 14.0
    bad = world.watch()[DE]
    assert bad.order is not None
    (fact,) = world.ledger.facts(Explained)
    assert (fact.decision, fact.cause) == (bad.order.key, bad.cause)
    told = world.pager.told[0].shown.evidence[0]
    assert (told.what, told.value) == ("Cause", "the inputs have changed")
    assert "cause" in [step.what for step in steps(world.ledger.trace(fact.decision))]


def test_wrong_data_that_no_limit_saw_is_not_trained_on(world: World) -> None:
    """Decay whose cause is the data opens as a data fault, and stays one until it is over."""
    world.measure.finds = FAULT
    world.measure.error = 14.0
    for _ in range(2):
        bad = world.watch()[DE]
        assert bad.decision is not None
        assert (bad.decision.state, bad.order) == (State.DATA_FAULT, None)
        assert "the data is at fault" in (bad.decision.blocked or "")
    assert world.stages() == [Stage.OPENED]
    assert len(world.ledger.facts(Explained)) == 1
    assert world.pager.told[0].shown.headline == "eta-de: its data looks wrong: distance"


def test_a_cause_that_cannot_be_looked_for_holds_up_no_page(world: World) -> None:
    """Looking for it breaks: the page goes out, and says that it is not known."""
    world.measure.finds = ZeroDivisionError("of ours")
    world.measure.error = 14.0
    bad = world.watch()[DE]
    assert bad.order is not None
    assert world.stages() == [Stage.OPENED]
    assert world.pager.told[0].shown.evidence[0].value.startswith("the cause is not known")


def test_models_that_share_a_cause_name_each_other(world: World, fleet: Fleet) -> None:
    """One column is wrong in two models: one page, in which each names the other."""
    world.fleet = fleet.only((DE, FR))
    (order,) = first_orders(world.fleet, world.ledger.heads(), world.clock.now())
    world.renewer.renew(order)
    world.measure.finds = FAULT
    world.measure.error = 14.0
    seen = world.watch()
    assert [seen[model].cause.shared for model in (DE, FR)] == [(FR,), (DE,)]  # type: ignore[union-attr]
    (message,) = world.pager.told
    values = [notice.evidence[0].value for notice in message.incident.notices]
    assert [value.rsplit("; ", 1)[1] for value in values] == [
        "the same in 1 other model (eta-fr)",
        "the same in 1 other model (eta-de)",
    ]


def test_wrong_data_are_told_who_owns_them(world: World) -> None:
    """The page of a data fault goes to the data's owner; of any other cause to the model's."""
    (eta,) = world.fleet.families
    growth = eta.model_copy(update={"data_owner": "growth"})
    world.fleet = replace(world.fleet, families=(growth,))
    world.measure.finds = FAULT
    world.measure.error = 14.0
    world.watch()
    assert [fact.notice.channel for fact in world.ledger.facts(Paged)] == ["#ml-growth"]


def test_an_incident_that_turns_out_to_be_the_datas_is_told_both(world: World) -> None:
    """Begun as the model's, it is blocked in its thread, and opened where data's owner reads."""
    (eta,) = world.fleet.families
    growth = eta.model_copy(update={"data_owner": "growth"})
    world.fleet = replace(world.fleet, families=(growth,))
    world.measure.error = 14.0
    world.watch()
    world.log.duplicates = 100
    world.watch()
    told = [(fact.notice.stage, fact.notice.channel) for fact in world.ledger.facts(Paged)]
    assert told == [
        (Stage.OPENED, "#ml-logistics"),
        (Stage.BLOCKED, "#ml-logistics"),
        (Stage.OPENED, "#ml-growth"),
    ]
    world.log.duplicates, world.measure.error = 0, 5.0
    world.watch()
    world.watch()
    ended = [fact.notice for fact in world.ledger.facts(Paged)][3:]
    assert [(each.stage, each.channel) for each in ended] == [
        (Stage.RECOVERED, "#ml-logistics"),
        (Stage.RECOVERED, "#ml-growth"),
    ]


def test_a_killed_pass_has_its_cause_told_by_the_next(world: World) -> None:
    """Decided and explained, and not told: the next pass tells it with its cause."""
    world.measure.finds = replace(FAULT, origin=Origin.RELATION, said="the relation has changed")
    world.measure.error = 14.0
    world.decide()
    world.measure.error = 10.0
    world.watch(later=timedelta(0))
    opened = world.ledger.facts(Paged)[0].notice
    assert opened.evidence[0].value == "the relation has changed"
