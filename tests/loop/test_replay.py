"""The past gone through again: the same decisions under the same policy, others under another."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fakes.pager import FakePager
from fakes.world import FakeHandover, FakeLog, FakeMeasure, FakeRegistry, FakeTrainer, held_out

from driftloop.errors import BadRequest, LogError, SpecError
from driftloop.ledger import SqlLedger
from driftloop.loop.notices import Places
from driftloop.loop.renew import Renewer
from driftloop.loop.replay import Alone, Outcome, Shard, Tally, refuse_other_readings
from driftloop.loop.replay import replayed as replayed_in
from driftloop.loop.tell import Teller
from driftloop.loop.watch import Watcher, first_orders
from driftloop.records import Decided, ModelId
from driftloop.spec import Fleet, load_fleet

if TYPE_CHECKING:
    from conftest import StoppedClock

MONITORS = Path(__file__).parents[1] / "monitors"
DE = ModelId("eta-de")


@dataclass
class Lived:
    """A month that the loop went through, a look a day."""

    fleet: Fleet
    clock: "StoppedClock"
    ledger: SqlLedger
    measure: FakeMeasure = field(default_factory=FakeMeasure)
    log: FakeLog = field(default_factory=FakeLog)

    @property
    def renewer(self) -> Renewer:
        return Renewer(
            fleet=self.fleet,
            log=self.log,
            trainer=FakeTrainer(),
            registry=FakeRegistry(),
            handover=FakeHandover(),
            ledger=self.ledger,
            clock=self.clock,
            teller=Teller(
                fleet=self.fleet, ledger=self.ledger, pager=FakePager(), clock=self.clock
            ),
            table=held_out,
        )

    def look(self) -> None:
        watcher = Watcher(
            fleet=self.fleet,
            log=self.log,
            measure=self.measure,
            ledger=self.ledger,
            clock=self.clock,
            places=Places(pages="http://pages", prefect="http://prefect"),
        )
        for seen in watcher.watch():
            if seen.order is not None:
                self.renewer.renew(seen.order)

    def month(self) -> None:
        for day in range(30):
            self.clock.shown += timedelta(days=1)
            self.measure.error = 14.0 if day in range(8, 12) else 11.5 if day > 20 else 10.0
            # Of the model nothing could be seen on one day.
            self.measure.breaks = LogError("the log is away") if day == 15 else None
            self.look()

    def decided(self) -> str:
        tally = Tally()
        for fact in self.ledger.facts(Decided, model=DE):
            tally.add(fact.decision, (), self.fleet.family(DE))
        return tally.outcome.digest


@pytest.fixture
def lived(fleet: Fleet, clock: "StoppedClock", tmp_path: Path) -> Iterator[Lived]:
    ledger = SqlLedger(f"sqlite:///{tmp_path / 'ledger.db'}")
    made = Lived(fleet=fleet.only((DE,)), clock=clock, ledger=ledger)
    (order,) = first_orders(made.fleet, (), clock.now())
    assert made.renewer.renew(order).outcome == "promoted"
    clock.shown += timedelta(days=10)
    made.month()
    yield made
    ledger.close()


def replayed(fleet: Fleet, ledger: SqlLedger, *, start: datetime, end: datetime) -> Outcome:
    return replayed_in(Alone(Shard(fleet, fleet.models, ledger, start=start, end=end)))


def under(text: str, tmp_path: Path) -> Fleet:
    file = tmp_path / "policy.toml"
    file.write_text(text)
    return load_fleet(MONITORS, policy=file).only((DE,))


def test_the_same_policy_decides_what_the_loop_decided(lived: Lived) -> None:
    """To the byte, pages, retrainings and what could not be looked at among it; and again."""
    start, end = lived.clock.shown - timedelta(days=30), lived.clock.shown + timedelta(hours=1)
    first, again = (replayed(lived.fleet, lived.ledger, start=start, end=end) for _ in range(2))
    assert first.digest == again.digest == lived.decided()
    assert first.decisions == 30
    assert [page.at.day for page in first.pages] == [20]
    assert first.worse == pytest.approx((4 * 0.4 + 9 * 0.15) / 29)


def test_a_replay_may_begin_in_the_middle(lived: Lived) -> None:
    """What went before it, an open incident among it, is as the ledger has it."""
    middle, end = lived.clock.shown - timedelta(days=19), lived.clock.shown + timedelta(hours=1)
    outcome = replayed(lived.fleet, lived.ledger, start=middle, end=end)
    tally = Tally()
    for fact in lived.ledger.facts(Decided, model=DE, since=middle):
        tally.add(fact.decision, (), lived.fleet.family(DE))
    assert outcome.digest == tally.outcome.digest


def test_another_policy_decides_otherwise(lived: Lived, tmp_path: Path) -> None:
    """A lower limit pages the smaller harm, too, on the very same readings."""
    start, end = lived.clock.shown - timedelta(days=30), lived.clock.shown + timedelta(hours=1)
    strict = under("[families.eta.decay]\nwarn = 0.05\nalarm = 0.1\n", tmp_path)
    outcome = replayed(strict, lived.ledger, start=start, end=end)
    assert len(outcome.pages) == 2
    never = under("[retrain]\ntriggers = []\n", tmp_path)
    assert not replayed(never, lived.ledger, start=start, end=end).retrains


def test_a_time_without_readings_is_refused(lived: Lived) -> None:
    """It is said how long readings are kept."""
    end = lived.clock.shown - timedelta(days=300)
    with pytest.raises(BadRequest, match="no reading of that time is kept"):
        replayed(lived.fleet, lived.ledger, start=end - timedelta(days=1), end=end)


def test_a_policy_that_needs_other_readings_is_refused(lived: Lived, tmp_path: Path) -> None:
    """Kept readings cannot tell what a shorter window would have shown."""
    other = under('[window]\nspan = "7d"\n', tmp_path)
    with pytest.raises(BadRequest, match=r"other readings where window\.span is 604800s"):
        refuse_other_readings(lived.fleet, other, where="policy.toml")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[features]\nload = { kind = 'text' }", "policy.toml: features: is no part of a policy"),
        ("[families.ete.decay]\nwarn = 0.1", "families.ete: no such family"),
        ("[decay]\nwarn = 0.9", "warn must not be above alarm"),
        ("[decay]\nalarm = -1.0", r"policy\.toml: decay\.alarm: "),
        ("[families.eta.decay]\nalarmm = 0.2", r"policy\.toml: decay\.alarmm: unknown key"),
        ("[platform]\nmissed_cadences = 0", "missed_cadences"),
        ("[decay", "not valid TOML"),
        ("families = 3", "policy.toml: families: should be a table"),
        ("[families]\neta = 3", "policy.toml: families.eta: should be a table"),
        ("platform = 3\ndecay = 3", "policy.toml: decay: should be a table"),
    ],
)
def test_faults_of_a_policy_are_told(text: str, fault: str, tmp_path: Path) -> None:
    """What a model is no policy changes; and a wrong key is never passed over."""
    with pytest.raises(SpecError, match=fault):
        under(text, tmp_path)


def test_a_policy_file_that_is_not_there_is_a_fault(tmp_path: Path) -> None:
    """Not the present policy in its place."""
    with pytest.raises(SpecError, match="cannot be read"):
        load_fleet(MONITORS, policy=tmp_path / "nowhere.toml")
