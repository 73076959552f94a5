"""The daily digest: told once a day to each owner, made of the ledger alone."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from conftest import StoppedClock
from fakes.pager import FakePager

from driftloop.errors import BadRequest, PagerError
from driftloop.ledger import SqlLedger
from driftloop.loop.digest import LEASE, Digests
from driftloop.loop.standing import Standing
from driftloop.loop.tell import Teller
from driftloop.records import (
    Act,
    Acted,
    Address,
    Decided,
    Decision,
    Digest,
    Head,
    ModelId,
    Notice,
    Order,
    Ordered,
    Passed,
    Quarantined,
    Receipt,
    Released,
    Stage,
    State,
    Window,
)
from driftloop.spec import Fleet

DUE = datetime(2026, 3, 10, 8, 0, tzinfo=UTC)
DE, FR, UK = ModelId("eta-de"), ModelId("eta-fr"), ModelId("churn-uk")


class Wall:
    def __init__(self) -> None:
        self.shown = 1e9

    def __call__(self) -> float:
        return self.shown


@dataclass
class Board:
    """Keeps digests; the next `fails` are raised, after the digest was kept if `lost`."""

    told: list[tuple[Digest, Address]] = field(default_factory=list)
    fails: list[PagerError] = field(default_factory=list)
    lost: bool = False
    reconciled: list[bool] = field(default_factory=list)

    def summarize(self, digest: Digest, to: Address, *, reconcile: bool) -> Receipt:
        self.reconciled.append(reconcile)
        stands = reconcile and any(each.key == digest.key for each, _ in self.told)
        if not stands and (self.lost or not self.fails):
            self.told.append((digest, to))
        if self.fails:
            raise self.fails.pop(0)
        return Receipt(channel=to.channel, ts="1")


@pytest.fixture
def wall() -> Wall:
    return Wall()


@pytest.fixture
def ledger(tmp_path: Path, wall: Wall) -> Iterator[SqlLedger]:
    """One in which a pass came to its end yesterday, and every model has a champion."""
    opened = SqlLedger(f"sqlite:///{tmp_path / 'ledger.db'}", wall=wall)
    opened.append(Passed(at=DUE - timedelta(hours=20), looked=3, seconds=1.0))
    for model in (DE, FR, UK):
        head = Head(model=model, epoch=1, version=1, digest="d", artifact="a/model.onnx")
        opened.move(head, at=DUE - timedelta(days=9), previous=None, reason="first")
        opened.append(decided(model, DUE - timedelta(hours=20)))
    yield opened
    opened.close()


@pytest.fixture
def board() -> Board:
    return Board()


@pytest.fixture
def digests(fleet: Fleet, ledger: SqlLedger, clock: StoppedClock, board: Board) -> Digests:
    clock.shown = DUE
    return Digests(
        fleet=fleet,
        ledger=ledger,
        clock=clock,
        pager=board,  # type: ignore[arg-type]  # it needs no more of one
        standing=Standing(fleet=fleet, ledger=ledger),
    )


def decided(model: ModelId, at: datetime, state: State = State.FRESH, **more: object) -> Decided:
    window = Window(model=model, start=at, end=at, known_at=at)
    made = Decision(
        key=f"{model}/{at:%H%M%S.%f}",
        model=model,
        at=at,
        state=state,
        reason="r",
        version=1,
        window=window,
        verdicts=(),
    )
    return Decided(model=model, at=at, decision=replace(made, **more))  # type: ignore[arg-type]


def test_each_owner_is_told_once_a_day(digests: Digests, board: Board, clock: StoppedClock) -> None:
    """In their channel, without a mention; not again until the next day."""
    clock.shown = DUE - timedelta(minutes=1)
    assert digests.tell_due() == ()
    clock.shown = DUE
    assert digests.tell_due() == ("digest/logistics/2026-03-10", "digest/growth/2026-03-10")
    assert [to for _, to in board.told] == [
        Address(channel="#ml-logistics"),
        Address(channel="#ml-growth"),
    ]
    clock.shown = DUE + timedelta(hours=15)
    assert digests.tell_due() == ()
    clock.shown = DUE + timedelta(days=1)
    assert len(digests.tell_due()) == 2


def test_another_process_does_not_tell_it_again(digests: Digests, board: Board) -> None:
    """After a restart, or beside it: whoever claims it tells it."""
    digests.tell_due()
    assert replace(digests, _over=set()).tell_due() == ()
    assert len(board.told) == 2


def test_days_that_passed_untold_are_not_made_up_for(
    digests: Digests, board: Board, clock: StoppedClock
) -> None:
    """A week away: one digest, of the newest day."""
    digests.tell_due()
    clock.shown = DUE + timedelta(days=7, hours=3)
    digests.tell_due()
    assert [each.key for each, _ in board.told[2:]] == [
        "digest/logistics/2026-03-17",
        "digest/growth/2026-03-17",
    ]


def test_an_installation_has_no_digest_on_its_first_day(
    fleet: Fleet, tmp_path: Path, clock: StoppedClock, board: Board
) -> None:
    """When its time came nothing was watched yet."""
    clock.shown = DUE + timedelta(hours=1)
    ledger = SqlLedger(f"sqlite:///{tmp_path / 'new.db'}")
    ledger.append(Passed(at=DUE + timedelta(minutes=30), looked=3, seconds=1.0))
    new = Digests(
        fleet=fleet,
        ledger=ledger,
        clock=clock,
        pager=board,  # type: ignore[arg-type]  # it needs no more of one
        standing=Standing(fleet=fleet, ledger=ledger),
    )
    assert new.tell_due() == ()
    clock.shown = DUE + timedelta(days=1)
    assert len(new.tell_due()) == 2
    ledger.close()


def test_a_digest_waits_for_slack_and_is_told_once(
    digests: Digests, board: Board, wall: Wall
) -> None:
    """Not asked for at every look meanwhile; a reply that was lost is looked for."""
    board.fails = [PagerError("away", retry=True, away=True)]
    board.lost = True
    assert digests.tell_due() == ("digest/growth/2026-03-10",)
    assert digests.tell_due() == ()
    wall.shown += LEASE.total_seconds() + 1
    assert digests.tell_due() == ("digest/logistics/2026-03-10",)
    assert board.reconciled == [False, False, True]
    assert len(board.told) == 2


def test_a_channel_that_refuses_for_good_is_given_up(
    digests: Digests, board: Board, wall: Wall
) -> None:
    """Until the next day: it is said in the log."""
    board.fails = [PagerError("is_archived", retry=False)]
    assert digests.tell_due() == ("digest/growth/2026-03-10",)
    wall.shown += 1000
    assert digests.tell_due() == ()
    assert len(board.told) == 1


def test_an_owner_without_a_time_has_none(digests: Digests, fleet: Fleet) -> None:
    """It can still be asked for."""
    growth = fleet.owners["growth"].model_copy(update={"digest": None})
    without = replace(digests, fleet=replace(fleet, owners={"growth": growth}))
    assert without.tell_due() == ()
    assert without.of("growth") is not None


def test_it_is_of_the_owners_models_in_the_day_before(
    digests: Digests, ledger: SqlLedger, clock: StoppedClock
) -> None:
    """What came after its time is tomorrow's; what is others' is theirs."""
    ledger.append(decided(DE, DUE - timedelta(hours=1), State.DECAYING))
    ledger.append(decided(FR, DUE + timedelta(hours=1), State.BLIND))
    ledger.append(decided(UK, DUE - timedelta(hours=1), State.DRIFTING))
    clock.shown = DUE + timedelta(hours=2)
    digest = digests.of("logistics", day=DUE.date())
    assert digest is not None
    assert digest.headline == "2 models: 1 fresh, 1 decaying"
    now = digests.of("logistics")
    assert now is not None
    assert now.headline == "2 models: 1 decaying, 1 blind"


def test_what_is_under_way_and_what_waits_are_told(digests: Digests, ledger: SqlLedger) -> None:
    """A retraining that was called for and has not begun waits; one that has is under way."""
    for model in (DE, FR):
        fact = decided(model, DUE - timedelta(hours=1), State.DECAYING, retrain=True)
        ledger.append(fact)
    window = Window(model=DE, start=DUE, end=DUE, known_at=DUE)
    key = f"{DE}/070000.000000"
    order = Order(key=key, model=DE, at=DUE, reason="r", window=window, holdout_from=DUE, seed=0)
    ledger.append(Ordered(model=DE, at=DUE - timedelta(hours=1), order=order), key=key)
    digest = digests.of("logistics")
    assert digest is not None
    said = dict(digest.sections)
    assert said["Health"] == ("decaying: eta-de, eta-fr", "being retrained: eta-de")
    assert said["What the loop could not do"] == ("retrainings that wait for their turn: eta-fr",)


def test_denied_pages_and_quarantine_are_counted(digests: Digests, ledger: SqlLedger) -> None:
    """Four weeks of denied pages against the budget; only rows that are kept out now."""
    for days in (1, 20, 40):
        acted = Acted(
            model=DE,
            at=DUE - timedelta(days=days),
            incident="i",
            act=Act.NO_PROBLEM,
            who="Ada",
        )
        ledger.append(acted, key=f"click-{days}")
    for start in (3, 5):
        ledger.append(
            Quarantined(
                model=DE,
                at=DUE - timedelta(days=2),
                start=DUE - timedelta(days=start),
                end=DUE - timedelta(days=start - 1),
                reasons=("rows",),
                until=DUE + timedelta(days=30),
                rows=100,
            ),
            key=f"q-{start}",
        )
    ledger.append(
        Released(
            model=DE,
            at=DUE - timedelta(days=1),
            start=DUE - timedelta(days=5),
            end=DUE - timedelta(days=4),
            who="Ada",
            why="right",
        )
    )
    digest = digests.of("logistics")
    assert digest is not None
    said = dict(digest.sections)
    assert said["Left out"][0].endswith("eta-de (100 rows, until 2026-04-09)")
    assert said["Pages that were none"][0].startswith("2 in the last four weeks")


def test_incidents_are_those_of_then(
    digests: Digests, ledger: SqlLedger, clock: StoppedClock, fleet: Fleet
) -> None:
    """Open when the digest was due, or over since the one before; with what was done by then."""
    teller = Teller(fleet=fleet, ledger=ledger, pager=FakePager(), clock=clock)
    clock.shown = DUE - timedelta(days=3)
    for name in ("old", "over", "mine"):
        teller.tell(notice(name, Stage.OPENED, clock.shown))
    clock.shown = DUE - timedelta(days=2)
    teller.tell(notice("old", Stage.RECOVERED, clock.shown))
    clock.shown = DUE - timedelta(hours=2)
    teller.tell(notice("over", Stage.RECOVERED, clock.shown))
    acted = Acted(
        model=DE,
        at=clock.shown,
        incident="mine",
        act=Act.ACK,
        who="Ada",
        until=DUE + timedelta(hours=6),
    )
    ledger.append(acted, key="click")
    clock.shown = DUE + timedelta(hours=1)
    teller.tell(notice("mine", Stage.RECOVERED, clock.shown))
    digest = digests.of("logistics", day=DUE.date())
    assert digest is not None
    assert dict(digest.sections)["Incidents"] == (
        "eta-de: mine. Ada has it until 10 Mar 2026 14:00 UTC; open since 7 Mar 2026 08:00 UTC.",
        "over: eta-de: over",
    )
    theirs = digests.of("growth", day=DUE.date())
    assert theirs is not None
    assert theirs.sections == ()


def notice(incident: str, stage: Stage, at: datetime) -> Notice:
    return Notice(
        key=f"{incident}/{stage}",
        incident=incident,
        model=DE,
        stage=stage,
        at=at,
        since=at,
        channel="#ml-logistics",
        mention="",
        headline=f"eta-de: {incident}",
        doing="",
        owner="logistics",
    )


def test_problems_of_passes_are_the_platforms_owners(digests: Digests, ledger: SqlLedger) -> None:
    """Logistics owns the platform here; growth does not hear of it."""
    at = DUE - timedelta(hours=1)
    ledger.append(Passed(at=at, looked=0, seconds=1.0, problems=("churn-uk: no log",)))
    ours, theirs = digests.of("logistics"), digests.of("growth")
    assert ours is not None
    assert theirs is not None
    assert dict(ours.sections)["What the loop could not do"] == ("churn-uk: no log",)
    assert theirs.sections == ()


def test_who_is_not_there_or_not_yet_is_told_so(digests: Digests) -> None:
    """An unknown owner, and a day that has not come."""
    with pytest.raises(BadRequest, match="known: growth, logistics"):
        digests.of("nobody")
    with pytest.raises(BadRequest, match="still to come"):
        digests.of("growth", day=date(2026, 3, 11))


def test_it_can_be_sent_by_hand(digests: Digests, board: Board) -> None:
    """As often as one wants."""
    for _ in range(2):
        digests.send("growth")
    assert [each.owner for each, _ in board.told] == ["growth", "growth"]
