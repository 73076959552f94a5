"""Bad data never trains, told as timelines: real counting, judge, ledger, fit, gate and deploy."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fakes.memory_log import MemoryLog
from fakes.pager import FakePager
from fakes.world import FakeHandover, FakeMeasure, FakeRegistry
from hypothesis import given, settings
from hypothesis import strategies as st

from driftloop.errors import BadRequest
from driftloop.ledger import SqlLedger
from driftloop.loop.notices import Places
from driftloop.loop.quarantine import Quarantine
from driftloop.loop.renew import Renewed, Renewer
from driftloop.loop.tell import Teller
from driftloop.loop.watch import Watcher, order
from driftloop.records import (
    REFERENCE_FILE,
    Candidate,
    Head,
    Memory,
    ModelId,
    Order,
    Paged,
    Quarantined,
    Span,
    Stage,
    Task,
)
from driftloop.rows import outside
from driftloop.simulate import Plan, Shape, rows, write_monitors
from driftloop.spec import Fleet, load_fleet
from driftloop.workshop import build_candidate

if TYPE_CHECKING:
    from conftest import StoppedClock

DAY, HOUR = timedelta(days=1), timedelta(hours=1)
START = datetime(2026, 3, 1, tzinfo=UTC)
PLAN = Plan(
    start=START,
    end=START + 40 * DAY,
    models=2,
    rows=60,
    shape=Shape(task=Task.BINARY, numeric=2, categorical=1, levels=3),
)
GOOD, ONE = PLAN.ids
BAD = START - 12 * DAY
"""A day of the training rows of the first version."""
HELD_OUT = START - 3 * DAY
"""A day that the first version is held to."""


@dataclass
class Trainer:
    """Fits what the log has, in this process; otherwise the real thing."""

    fleet: Fleet
    log: MemoryLog
    folder: Path
    patience: timedelta = timedelta(0)

    def train(self, order: Order, champion: Head | None) -> Candidate:
        family = self.fleet.family(order.model)
        found = self.log.rows(family, order.window)
        return build_candidate(family, order, champion, found, self.folder)


@dataclass
class World:
    """A small fleet whose rows are in memory, and the loop around it."""

    fleet: Fleet
    clock: "StoppedClock"
    ledger: SqlLedger
    log: MemoryLog
    folder: Path
    pager: FakePager = field(default_factory=FakePager)

    @property
    def quarantine(self) -> Quarantine:
        return Quarantine(fleet=self.fleet, log=self.log, ledger=self.ledger, clock=self.clock)

    @property
    def teller(self) -> Teller:
        return Teller(fleet=self.fleet, ledger=self.ledger, pager=self.pager, clock=self.clock)

    def train(self, model: ModelId, *, checked: bool = True) -> Renewed:
        """Have a version made by hand, as `driftloop train` does."""
        now = self.clock.now()
        family = self.fleet.family(model)
        asked = order(family, model, key=f"{model}/{now}/{checked}", reason="asked", now=now)
        return Renewer(
            fleet=self.fleet,
            log=self.log,
            trainer=Trainer(self.fleet, self.log, self.folder),  # type: ignore[arg-type]
            registry=FakeRegistry(),
            handover=FakeHandover(),
            ledger=self.ledger,
            clock=self.clock,
            teller=self.teller,
            table=pq.read_table,
            quarantine=self.quarantine if checked else None,
        ).renew(asked)

    def serve(self, model: ModelId) -> None:
        """Let something be champion: who it is does not matter to the checks."""
        head = Head(model=model, epoch=1, version=1, digest="", artifact="")
        self.ledger.move(head, at=self.clock.now(), previous=None, reason="a test")

    def kept_out(self, model: ModelId) -> list[datetime]:
        """The beginnings of what a training of now would leave out."""
        family = self.fleet.family(model)
        window = order(family, model, key="", reason="", now=self.clock.now()).window
        return [span.start for span in self.quarantine.left_out(family, window)]

    def watch(self, *, later: timedelta = DAY, tells: bool = True) -> list[Stage]:
        """One pass; return what is to be told. Without `tells` its process dies before."""
        self.clock.shown += later
        seen = Watcher(
            fleet=self.fleet,
            log=self.log,
            measure=FakeMeasure(),  # type: ignore[arg-type]
            ledger=self.ledger,
            clock=self.clock,
            places=Places(pages="", prefect=""),
            quarantine=self.quarantine,
        ).watch()
        said = [notice for each in seen for notice in each.notices]
        kept = [n for n in said if n.stage in {Stage.QUARANTINED, Stage.RELEASED, Stage.DOUBTED}]
        if tells:
            self.teller.tell_all(kept)
            # What is of one day and kind is told together, once it has gathered.
            self.clock.shown += timedelta(seconds=2)
            self.teller.tell_unsent()
        return [notice.stage for notice in kept]

    def break_day(self, day: datetime, model: ModelId = ONE) -> None:
        """A feature is lost for a day."""
        self.log.change(
            "UPDATE {p} SET x00 = -999 WHERE model = $model"
            " AND event_time >= $day AND event_time < $day + INTERVAL 1 DAY",
            model=model,
            day=day,
        )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Fleet, list[tuple[pa.Table, ...]]]:
    """The fleet and its rows, made once."""
    folder = tmp_path_factory.mktemp("monitors")
    write_monitors(PLAN, folder)
    return load_fleet(folder), [rows(PLAN, m, PLAN.began, PLAN.end) for m in PLAN.ids]


@pytest.fixture
def world(
    made: tuple[Fleet, list[tuple[pa.Table, ...]]], clock: "StoppedClock", tmp_path: Path
) -> Iterator[World]:
    """The fleet at the plan's start, without champions."""
    fleet, tables = made
    log = MemoryLog(fleet.families[0])
    for predictions, labels in tables:
        log.add(predictions, labels)
    clock.shown = START
    ledger = SqlLedger(f"sqlite:///{tmp_path / 'ledger.db'}")
    yield World(fleet, clock, ledger, log, tmp_path / "artifacts")
    ledger.close()


def events(candidate: Candidate, file: str, day: datetime) -> int:
    """How many rows of a day a file of a candidate has."""
    table = pq.read_table(Path(candidate.folder) / file)
    left = outside(table, (Span(start=day, end=day + DAY),))
    return int(table.num_rows - left.num_rows)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 9)), max_size=5))
def test_no_row_of_a_span_is_left(spans: list[tuple[int, int]]) -> None:
    """Whatever the spans are, and however they overlap: half open, as windows are."""
    hours = [START + hour * HOUR for hour in range(48)]
    left = outside(
        pa.table({"event_time": pa.array(hours, pa.timestamp("us", tz="UTC"))}),
        tuple(Span(start=hours[0] + a * HOUR, end=hours[0] + (a + n) * HOUR) for a, n in spans),
    )
    kept = [hour for hour in range(48) if not any(a <= hour < a + n for a, n in spans)]
    assert [START + hour * HOUR for hour in kept] == left["event_time"].to_pylist()


def test_no_row_of_a_bad_day_reaches_fit_or_gate(world: World) -> None:
    """Both a day of the training rows and one of the held-out: with the check, and without it."""
    world.break_day(BAD)
    world.break_day(HELD_OUT)
    dirty = world.train(ONE, checked=False).candidate
    assert dirty is not None
    assert events(dirty, REFERENCE_FILE, BAD) == events(dirty, "holdout.parquet", HELD_OUT) == 60
    clean = world.train(ONE).candidate
    assert clean is not None
    assert events(clean, REFERENCE_FILE, BAD) == events(clean, "holdout.parquet", HELD_OUT) == 0
    assert (dirty.rows - clean.rows, dirty.holdout_rows - clean.holdout_rows) == (60, 60)
    assert [(s.start, s.end, s.rows) for s in clean.order.window.left_out] == [
        (BAD, BAD + DAY, 60),
        (HELD_OUT, HELD_OUT + DAY, 60),
    ]
    assert BAD.isoformat()[:10] in (Path(clean.folder) / "card.json").read_text()


def test_release_brings_a_day_back_and_the_checks_leave_it_alone(world: World) -> None:
    """A person's word is the last: the same rows train, at once and later."""
    world.break_day(BAD)
    assert world.kept_out(ONE) == [BAD]
    world.quarantine.release(ONE, BAD, BAD + DAY, who="ann", why="the sensor was changed")
    assert world.kept_out(ONE) == []
    world.clock.shown += DAY
    assert world.kept_out(ONE) == []


def test_what_a_person_adds_trains_nothing_until_it_ends(world: World) -> None:
    """No check finds it, and it is left out all the same; at its end it trains again."""
    world.quarantine.add(ONE, BAD, BAD + DAY, who="ann", why="the labels were guessed")
    assert [each.start for each in world.quarantine.listed()] == [BAD]
    assert (world.kept_out(ONE), world.kept_out(GOOD)) == ([BAD], [])
    world.clock.shown += world.fleet.families[0].quarantine.keep
    assert (world.quarantine.listed(), world.kept_out(ONE)) == ((), [])


def test_a_quarantine_that_ends_is_checked_again(world: World) -> None:
    """Still bad: anew, and told once more. Mended meanwhile: it trains. What is over says so."""
    (family,) = world.fleet.families
    short = family.quarantine.model_copy(update={"keep": 5 * DAY})
    longer = family.retrain.model_copy(update={"span": 40 * DAY})
    changed = family.model_copy(update={"quarantine": short, "retrain": longer})
    world.fleet = replace(world.fleet, families=(changed,))
    world.break_day(BAD)
    world.break_day(BAD + 4 * DAY)
    world.serve(ONE)
    world.watch()
    assert len(world.pager.told) == 2
    world.log.change(
        "UPDATE {p} SET x00 = 0.1 WHERE event_time >= $day AND x00 = -999", day=BAD + 4 * DAY
    )
    world.clock.shown += 6 * DAY
    assert world.quarantine.listed() == ()
    assert world.kept_out(ONE) == [BAD]
    world.watch()
    world.watch()
    assert len(world.pager.told) == 3
    last = [message.thread[-1].stage for message in world.pager.told if message.thread]
    assert last == [Stage.RELEASED, Stage.RELEASED]


def test_a_bad_day_is_told_once_however_often_it_is_looked_at(world: World) -> None:
    """One message for a fault that lasts, for one model alone; passes repeat nothing."""
    for model in (GOOD, ONE):
        world.serve(model)
    for number in range(3):
        world.break_day(START + number * DAY)
    said = [world.watch() for _ in range(5)]
    assert [stage for each in said for stage in each] == [Stage.QUARANTINED]
    facts = world.ledger.facts(Quarantined)
    assert [(f.model, f.start, f.continues) for f in facts] == [
        (ONE, START, False),
        (ONE, START + DAY, True),
        (ONE, START + 2 * DAY, True),
    ]
    (message,) = world.pager.told
    assert message.opened.channel == world.fleet.data_owner(ONE).channel
    assert "range of x00" in message.opened.evidence[0].what


def test_a_pass_that_dies_between_fact_and_notice_is_made_good(world: World) -> None:
    """The next pass tells it, once, though it checks nothing anew within the day."""
    world.serve(ONE)
    world.break_day(START)
    assert world.watch(tells=False) == [Stage.QUARANTINED]
    assert world.watch(later=timedelta(minutes=10)) == [Stage.QUARANTINED]
    assert world.watch(later=timedelta(minutes=10)) == []
    assert len(world.ledger.facts(Quarantined)) == len(world.ledger.facts(Paged)) == 1


def test_the_end_is_told_in_the_thread_of_the_beginning(world: World) -> None:
    """Who released it and why, in the message that said it was held."""
    world.serve(ONE)
    world.break_day(START)
    world.watch()
    _, said = world.quarantine.release(ONE, START, START + DAY, who="ann", why="it is right")
    assert [world.teller.tell(notice).told for notice in said] == [True]
    assert world.watch() == []
    (message,) = world.pager.told
    assert [n.stage for n in message.thread] == [Stage.RELEASED]
    assert "ann" in message.shown.headline


def test_too_few_rows_left_say_where_the_others_are(world: World) -> None:
    """A training that fails for want of rows names the quarantine."""
    world.quarantine.add(ONE, START - 8 * DAY, START, who="ann", why="a test")
    renewed = world.train(ONE)
    assert renewed.outcome == "failed"
    assert "are in quarantine: `driftloop quarantine`" in renewed.reason


@pytest.mark.parametrize(
    ("day", "said"),
    [(START - 5 * DAY, "nothing of it is in quarantine"), (BAD, "nothing of it is in quarantine")],
)
def test_releasing_what_is_not_held_is_refused(world: World, day: datetime, said: str) -> None:
    """Rather a clear error than a word that changes nothing."""
    with pytest.raises(BadRequest, match=said):
        world.quarantine.release(ONE, day, day + DAY, who="ann", why="")


def test_adding_what_is_not_there_or_twice_is_refused(world: World) -> None:
    """No rows, or held already."""
    with pytest.raises(BadRequest, match="no rows"):
        world.quarantine.add(ONE, START - 300 * DAY, START - 299 * DAY, who="ann", why="x")
    world.quarantine.add(ONE, BAD, BAD + DAY, who="ann", why="x")
    with pytest.raises(BadRequest, match="already"):
        world.quarantine.add(ONE, BAD, BAD + DAY, who="ann", why="x")


def test_a_fit_that_remembers_all_history_leaves_out_its_bad_days_too(world: World) -> None:
    """What lies before the recent rows is checked as they are."""
    fleet = world.fleet
    family = fleet.families[0]
    recent = family.retrain.model_copy(update={"span": 10 * DAY, "memory": (Memory.ALL,)})
    gate = family.gate.model_copy(update={"holdout": 5 * DAY})
    changed = family.model_copy(update={"retrain": recent, "gate": gate})
    world.fleet = replace(fleet, families=(changed,))
    world.break_day(BAD)
    made = world.train(ONE).candidate
    assert made is not None
    assert made.rows > 10 * PLAN.rows
    assert events(made, REFERENCE_FILE, BAD) == 0
