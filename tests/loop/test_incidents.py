"""Incidents as timelines: what happens to models, what time makes of it, and what people see."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import msgspec
import pytest
from fakes.pager import FakePager
from fakes.pager import Told as Message

from driftloop.incident import alone
from driftloop.incident.words import headline, stands
from driftloop.ledger import SqlLedger
from driftloop.loop import settle
from driftloop.loop.settle import LEASE
from driftloop.loop.tell import Teller, Told
from driftloop.records import (
    PLATFORM,
    Act,
    Acted,
    Address,
    Grouped,
    Head,
    Incident,
    ModelId,
    Noted,
    Notice,
    Origin,
    Paged,
    Severity,
    Stage,
    Status,
    Unsent,
)
from driftloop.spec import Fleet, OnCall, Owner, Platform, Routes

if TYPE_CHECKING:
    from conftest import StoppedClock

DE, FR, UK = ModelId("eta-de"), ModelId("eta-fr"), ModelId("churn-uk")
SECOND, MINUTE, HOUR, DAY = (
    timedelta(**{unit: 1}) for unit in ("seconds", "minutes", "hours", "days")
)
NIGHT = ("22:00-07:00",)
GROUP = "data/source-weather"


@dataclass
class World:
    """A fleet of three models, whose owners read in a pager that can be broken."""

    fleet: Fleet
    clock: "StoppedClock"
    ledger: SqlLedger
    pager: FakePager = field(default_factory=FakePager)
    wall: float = 1e9
    kept: Teller | None = None

    @property
    def teller(self) -> Teller:
        """The teller of a process that lives on; see `restart`."""
        if self.kept is None:
            self.kept = Teller(
                fleet=self.fleet,
                ledger=self.ledger,
                pager=self.pager,
                clock=self.clock,
                wall=lambda: self.wall,
            )
        return self.kept

    def restart(self) -> None:
        """Another process from here on."""
        self.kept = None

    def after(self, later: timedelta) -> tuple[Told, ...]:
        """The desk's next look, so much later."""
        self.clock.shown += later
        self.wall += later.total_seconds()
        return self.teller.tell_unsent()

    def at(self, clock: str) -> tuple[Told, ...]:
        """The desk's look when it is `clock` next."""
        hour, minute = map(int, clock.split(":"))
        then = self.clock.shown.replace(hour=hour, minute=minute, second=0)
        return self.after(then - self.clock.shown + (DAY if then <= self.clock.shown else 0 * DAY))

    def happens(self, *notices: Notice) -> tuple[Told, ...]:
        """What a pass tells, all at once."""
        return self.teller.tell_all(notices)

    def acts(self, act: Act, incident: str, *, who: str = "ada", **more: object) -> None:
        """What somebody does about an incident."""
        key = f"{who}/{act}/{self.clock.shown}"
        fact = Acted(
            model=DE,
            at=self.clock.shown,
            incident=incident,
            act=act,
            who=who,
            user=f"U0{who.upper()}",
            **more,  # type: ignore[arg-type]
        )
        self.ledger.append(fact, key=key)

    def stands(self, incident: str) -> Incident:
        found = self.teller.standing.one(incident, self.clock.shown)
        assert found is not None
        return found

    def notice(
        self, model: ModelId = DE, stage: Stage = Stage.OPENED, *, alert: str = "", **more: object
    ) -> Notice:
        alert = alert or f"{model}/1"
        given: dict[str, object] = {
            "owner": "logistics",
            "channel": "#ml-logistics",
            "mention": "@here",
        }
        return Notice(
            key=f"{alert}/{stage}",
            incident=alert,
            model=model,
            stage=stage,
            at=self.clock.shown,
            since=self.clock.shown - HOUR,
            headline=f"{model} is {stage}",
            doing="Watching.",
            **(given | more),  # type: ignore[arg-type]
        )

    def broken(self, model: ModelId, stage: Stage = Stage.OPENED, **more: object) -> Notice:
        """What is told of a model whose source is broken, with all others of it."""
        group = GROUP if stage is Stage.OPENED else ""
        return self.notice(model, stage, group=group, origin=Origin.DATA, **more)

    @property
    def message(self) -> Message:
        (message,) = self.pager.told
        return message

    def routes(self, **paging: object) -> None:
        self.fleet = replace(self.fleet, routes=Routes.model_validate(paging))
        self.kept = None

    def owner(self, name: str, **more: object) -> None:
        changed = self.fleet.owners[name].model_copy(update=more)
        self.fleet = replace(self.fleet, owners={**self.fleet.owners, name: changed})
        self.kept = None


@pytest.fixture
def world(fleet: Fleet, clock: "StoppedClock", tmp_path: Path) -> Iterator[World]:
    """It is noon; two owners, of whom one owns the platform too."""
    ledger = SqlLedger(f"sqlite:///{tmp_path / 'ledger.db'}")
    clock.shown = datetime(2026, 3, 2, 12, tzinfo=UTC)
    owners = {
        "logistics": Owner(channel="#ml-logistics", mention="@here", members=("U0ADA000",)),
        "growth": Owner(channel="#ml-growth", mention="<@U0GROW00>"),
        "ops": Owner(channel="#ops", mention="<@U0OPS000>"),
    }
    made = replace(fleet, owners=owners, platform=Platform(owner="ops"))
    yield World(fleet=made, clock=clock, ledger=ledger)
    ledger.close()


def test_one_cause_of_many_models_is_one_message(world: World) -> None:
    """It gathers a moment, lists them all, calls its owner once, and takes in late ones."""
    said = world.happens(world.broken(DE), world.broken(FR))
    assert [(one.told, one.why) for one in said] == 2 * [
        (False, "it waits for others like it, or for quiet hours to end")
    ]
    assert world.pager.told == []
    world.after(SECOND)
    assert (world.message.to.mention, world.message.posted.models) == ("@here", (DE, FR))
    world.happens(world.broken(UK))
    world.after(10 * MINUTE)
    assert world.message.incident.models == (DE, FR, UK)
    assert [(entry.mention, len(entry.notices)) for entry in world.message.entries] == [("", 1)]
    assert len(world.ledger.facts(Paged)) == 3


def test_what_many_models_come_to_is_one_line_of_the_thread(world: World) -> None:
    """Retraining of all of them: one entry; recovered, all of them: over, and not before."""
    models = (DE, FR, UK)
    world.happens(*map(world.broken, models))
    world.after(SECOND)
    for model in models:
        world.happens(world.broken(model, Stage.RETRAINING))
        world.after(MINUTE)
    assert world.message.entries == []
    world.after(10 * MINUTE)
    assert [len(entry.notices) for entry in world.message.entries] == [3]
    for number, model in enumerate(models):
        assert world.message.incident.status is Status.OPEN, number
        world.happens(world.broken(model, Stage.RECOVERED))
        world.after(MINUTE)
    assert world.message.incident.status is Status.RESOLVED
    assert [entry.notices[0].stage for entry in world.message.entries][1:] == [Stage.RECOVERED]
    assert world.ledger.live("incident/") == ()
    assert world.teller.waiting() == 0


def test_refusals_of_many_models_call_once(world: World) -> None:
    """A minute is waited for others: one line and one call; what cannot wait takes all along."""
    for model in (DE, FR, UK):
        world.happens(world.broken(model))
    world.after(SECOND)
    for model in (DE, FR):
        world.happens(world.broken(model, Stage.REFUSED))
        world.after(SECOND)
    assert world.message.entries == []
    world.after(MINUTE)
    assert [(e.mention, len(e.notices)) for e in world.message.entries] == [("@here", 2)]
    world.happens(world.broken(UK, Stage.REFUSED))
    world.after(SECOND)
    world.happens(world.broken(DE, Stage.WORSENED))
    stages = [entry.notices[0].stage for entry in world.message.entries]
    assert stages == [Stage.REFUSED, Stage.REFUSED, Stage.WORSENED]
    assert world.teller.waiting() == 0


def test_one_models_refusal_waits_for_no_other(world: World) -> None:
    """It is alone: it is told at once."""
    world.happens(world.notice())
    (said,) = world.happens(world.notice(stage=Stage.REFUSED))
    assert said.told


def test_the_same_cause_another_time_is_another_incident(world: World) -> None:
    """One that is over is not opened again; one that is not yet takes what is new."""
    world.happens(world.broken(DE))
    world.after(SECOND)
    world.happens(world.broken(DE, Stage.RECOVERED))
    world.happens(world.notice(DE, alert=f"{DE}/2", group=GROUP, origin=Origin.DATA))
    world.after(SECOND)
    assert [one.incident.id for one in world.pager.told] == [
        f"{GROUP}/logistics/0",
        f"{GROUP}/logistics/1",
    ]


def test_two_owners_of_one_cause_are_told_each(world: World) -> None:
    """The right person: a group is of one owner."""
    theirs = {"owner": "growth", "channel": "#ml-growth"}
    world.happens(world.broken(DE), world.broken(UK, **theirs))
    world.after(SECOND)
    assert {one.to.channel: one.posted.models for one in world.pager.told} == {
        "#ml-logistics": (DE,),
        "#ml-growth": (UK,),
    }


def test_who_is_on_call_is_called(world: World) -> None:
    """Looked up when it is told, not when it was found."""
    rota = OnCall(people=("U0ADA000", "U0EVE000"), start=datetime(2026, 3, 2, tzinfo=UTC).date())
    world.owner("logistics", on_call=rota)
    world.happens(world.notice())
    assert world.message.to.mention == "<@U0ADA000>"
    world.after(7 * DAY)
    assert world.message.entries[-1].mention == "<@U0EVE000>"


def test_a_quiet_night_is_left_quiet(world: World) -> None:
    """What is found at night is told in the morning, and once; a restart changes nothing."""
    world.owner("logistics", quiet=NIGHT)
    world.at("23:00")
    assert not world.happens(world.notice())[0].told
    world.restart()
    world.at("06:59")
    assert world.pager.told == []
    world.at("07:00")
    assert (world.message.to.mention, world.message.posted.status) == ("@here", Status.OPEN)


def test_what_is_over_by_morning_is_told_without_waking_anybody(world: World) -> None:
    """One message that says so, and who was to be called is not."""
    world.owner("logistics", quiet=NIGHT)
    world.at("23:00")
    world.happens(world.notice())
    world.at("03:00")
    world.happens(world.notice(stage=Stage.RECOVERED))
    world.at("06:59")
    assert world.pager.told == []
    world.at("07:00")
    assert (world.message.to.mention, world.message.posted.status) == ("", Status.RESOLVED)
    assert world.ledger.live("incident/") == ()
    assert world.teller.waiting() == 0


def test_what_is_urgent_enough_breaks_through_the_night(world: World) -> None:
    """If the owner says so; also what turns urgent while it waits."""
    world.owner("logistics", quiet=NIGHT, wakes=Severity.CRITICAL)
    world.at("23:00")
    world.happens(world.notice())
    assert world.pager.told == []
    world.happens(world.notice(stage=Stage.WORSENED, severity=Severity.CRITICAL))
    assert (world.message.to.mention, world.message.posted.severity) == ("@here", Severity.CRITICAL)


def test_an_open_incident_is_called_to_mind_after_the_interval(world: World) -> None:
    """Not before, for everybody in the channel to see, and not at night."""
    world.routes(repeat="4h")
    world.owner("logistics", quiet=NIGHT)
    world.happens(world.notice())
    world.after(4 * HOUR - SECOND)
    assert world.message.entries == []
    world.after(SECOND)
    (entry,) = world.message.entries
    assert (entry.notices[0].stage, entry.mention, entry.broadcast) == (
        Stage.REMINDED,
        "@here",
        True,
    )
    world.at("20:00")
    world.at("23:59")
    world.at("06:59")
    assert len(world.message.entries) == 2
    world.at("07:00")
    assert len(world.message.entries) == 3
    assert len(world.pager.told) == 1


def test_nobody_acknowledges_so_the_next_is_told_and_the_one_after(world: World) -> None:
    """Each in their own channel, once; who is told stands in the first one's thread."""
    world.routes(ack_within="30m", escalate=["growth", "ops"])
    world.happens(world.notice())
    world.after(30 * MINUTE)
    world.after(MINUTE)
    assert [one.to.channel for one in world.pager.told] == ["#ml-logistics", "#ml-growth"]
    assert world.pager.told[1].to.mention == "<@U0GROW00>"
    world.restart()
    world.after(29 * MINUTE)
    assert [one.to.channel for one in world.pager.told][2:] == ["#ops"]
    world.after(DAY / 2)
    assert len(world.pager.told) == 3
    stages = [entry.notices[0].stage for entry in world.pager.told[0].entries]
    assert stages == [Stage.ESCALATED, Stage.ESCALATED]
    # Who comes next has the message itself; only what follows it is a line there.
    assert [len(one.entries) for one in world.pager.told] == [2, 1, 0]
    assert world.pager.told[1].entries[0].notices[0].doing == f"{DE} is opened."
    assert world.stands(f"{DE}/1").level == 2
    world.happens(world.notice(stage=Stage.RECOVERED))
    assert {one.incident.status for one in world.pager.told} == {Status.RESOLVED}


def test_an_acknowledgement_holds_runs_out_and_is_open_again(world: World) -> None:
    """Who gave it is called first; then the owner; and the chain goes on from there."""
    world.routes(ack_within="1h", escalate=["growth"], repeat="30d")
    world.happens(world.notice())
    world.after(30 * MINUTE)
    world.acts(Act.ACK, f"{DE}/1", until=world.clock.shown + 4 * HOUR)
    world.after(SECOND)
    assert (world.message.incident.status, world.message.incident.who) == (Status.ACKED, "ada")
    assert Act.ACK not in world.message.incident.asks
    world.after(3 * HOUR + 30 * MINUTE)
    (soon,) = world.message.entries
    assert (soon.mention, soon.notices[0].stage) == ("<@U0ADA>", Stage.REMINDED)
    world.after(30 * MINUTE)
    assert world.message.incident.status is Status.OPEN
    assert [(e.notices[0].stage, e.mention) for e in world.message.entries][1:] == [
        (Stage.EXPIRED, "@here")
    ]
    assert len(world.pager.told) == 1
    world.after(HOUR)
    assert [one.to.channel for one in world.pager.told] == ["#ml-logistics", "#ml-growth"]


def test_what_gets_worse_calls_who_acknowledged(world: World) -> None:
    """And nobody else."""
    world.happens(world.notice())
    world.acts(Act.ACK, f"{DE}/1", until=world.clock.shown + 4 * HOUR)
    world.happens(world.notice(stage=Stage.WORSENED))
    assert [entry.mention for entry in world.message.entries] == ["<@U0ADA>"]


def test_a_silence_covers_what_comes_while_it_lasts(world: World) -> None:
    """The incident, and the next of the same group; at its end what is left is told."""
    world.routes(repeat="1h")
    world.happens(world.broken(DE))
    world.after(SECOND)
    world.acts(Act.SILENCE, f"{GROUP}/logistics/0", until=world.clock.shown + 5 * HOUR)
    world.after(3 * HOUR)
    assert world.message.incident.status is Status.SILENCED
    assert world.message.entries == []
    world.happens(world.broken(DE, Stage.RECOVERED))
    world.after(SECOND)
    world.happens(world.notice(FR, group=GROUP, origin=Origin.DATA))
    world.after(HOUR)
    assert len(world.pager.told) == 1
    assert world.stands(f"{GROUP}/logistics/1").status is Status.SILENCED
    world.after(HOUR)
    assert [one.to.mention for one in world.pager.told] == ["@here", "@here"]
    # It was never told before: the message is its opening, and nobody is called once more below.
    assert world.pager.told[1].entries == []


def test_a_silence_until_the_next_version_ends_with_it(world: World) -> None:
    """Not sooner, however long it takes; then what is open is called to mind."""

    def move(version: int, before: Head | None) -> Head:
        head = Head(model=DE, epoch=version, version=version, digest="", artifact="")
        world.ledger.move(head, at=world.clock.shown, previous=before, reason="a test")
        return head

    world.routes(repeat="30d")
    first = move(1, None)
    world.happens(world.notice())
    world.acts(Act.SILENCE, f"{DE}/1", until_version=True, version=1)
    world.after(5 * DAY)
    assert world.message.incident.status is Status.SILENCED
    move(2, first)
    world.after(SECOND)
    assert world.message.incident.status is Status.OPEN
    assert world.message.entries[-1].notices[0].stage is Stage.EXPIRED


def test_what_somebody_closed_stays_closed_until_something_new_begins(world: World) -> None:
    """Its recovery is a line in the thread; what gets worse opens it again."""
    world.happens(world.notice())
    world.acts(Act.RESOLVE, f"{DE}/1")
    world.after(SECOND)
    assert (world.message.incident.status, world.message.incident.asks) == (Status.RESOLVED, ())
    assert world.ledger.live("incident/") == ()
    world.after(3 * DAY)
    world.happens(world.notice(stage=Stage.RETRAINING))
    assert world.message.incident.status is Status.RESOLVED
    world.happens(world.notice(stage=Stage.WORSENED))
    assert (world.message.incident.status, world.message.entries[-1].mention) == (
        Status.OPEN,
        "@here",
    )


def test_a_larger_incident_silences_what_it_explains(world: World) -> None:
    """The one model's is not told while all of its source are; it awakes when that ends."""
    world.happens(world.broken(DE), world.broken(FR))
    world.after(SECOND)
    own = world.notice(DE, alert=f"{DE}/own")
    assert world.happens(own)[0].why == "told"
    world.after(SECOND)
    assert len(world.pager.told) == 1
    assert world.stands(f"{DE}/own").status is Status.EXPLAINED
    world.after(10 * MINUTE)
    assert [entry.notices[0].stage for entry in world.message.entries] == [Stage.EXPLAINS]
    for model in (DE, FR):
        world.happens(world.broken(model, Stage.RECOVERED))
    world.after(SECOND)
    assert [one.incident.id for one in world.pager.told][1:] == [f"{DE}/own"]
    assert world.pager.told[1].to.mention == "@here"


def test_what_is_told_as_part_of_a_larger_one_ends_as_part_of_it(world: World) -> None:
    """Nobody was told of it by itself, so nobody need be told of its end, then or later."""
    world.happens(world.broken(DE), world.broken(FR))
    world.after(SECOND)
    world.happens(world.notice(DE, alert=f"{DE}/own"))
    world.after(HOUR)
    world.happens(world.notice(DE, Stage.RECOVERED, alert=f"{DE}/own"))
    world.after(HOUR)
    for model in (DE, FR):
        world.happens(world.broken(model, Stage.RECOVERED))
    world.after(HOUR)
    assert world.message.incident.status is Status.RESOLVED
    assert world.stands(f"{DE}/own").status is Status.RESOLVED
    assert world.ledger.untold() == ()
    assert world.teller.standing.live_ids() == ()


def test_what_is_explained_before_the_larger_stands_is_told_with_it(world: World) -> None:
    """Slack was away for both: the small one is a line of the other's, and ends as that."""
    world.after(SECOND)
    world.pager.away = True
    world.happens(world.broken(DE), world.broken(FR))
    world.after(SECOND)
    world.happens(world.notice(DE, alert=f"{DE}/own"))
    world.after(SECOND)
    world.pager.away = False
    for _ in range(15):
        world.after(MINUTE)
    assert [entry.notices[0].stage for entry in world.message.entries] == [Stage.EXPLAINS]
    assert world.teller.waiting() == 0
    world.happens(world.notice(DE, Stage.RECOVERED, alert=f"{DE}/own"))
    world.after(MINUTE)
    assert len(world.pager.told) == 1


def test_rows_in_quarantine_are_told_with_the_fault_of_their_data(world: World) -> None:
    """One fault, one message: the quarantine is a line of it, and wakes nobody when it is over."""
    kept = world.notice(
        DE,
        Stage.QUARANTINED,
        alert=f"quarantine/{DE}/20260301/0",
        group="quarantine/eta/2026-03-01/range-of-x01",
        origin=Origin.DATA,
        severity=Severity.INFO,
    )
    world.happens(kept, world.broken(DE))
    world.after(SECOND)
    world.after(10 * MINUTE)
    assert [one.incident.group for one in world.pager.told] == [GROUP]
    assert [entry.notices[0].stage for entry in world.message.entries] == [Stage.EXPLAINS]
    world.happens(world.broken(DE, Stage.RECOVERED))
    for _ in range(3):
        world.after(HOUR)
    assert len(world.pager.told) == 1
    assert world.message.incident.status is Status.RESOLVED


def test_what_is_explained_later_says_so_and_is_left_in_peace(world: World) -> None:
    """Told first, then part of a larger one: no reminder, and over with nobody called."""
    world.routes(repeat="1h")
    world.happens(world.notice(DE, alert=f"{DE}/own"))
    world.happens(world.broken(DE), world.broken(FR))
    world.after(SECOND)
    own = world.pager.told[0]
    larger = world.pager.told[1].incident
    assert own.incident.explained_by == larger.id == f"{GROUP}/logistics/0"
    # In words, and not by an id.
    assert stands(own.incident)[0] == f"Part of: {headline(larger)}"
    shown = own.incident
    world.happens(world.broken(UK))
    world.after(10 * MINUTE)
    assert own.incident is shown, "how many models the larger one has come to is told there"
    world.after(3 * HOUR)
    assert own.entries == []
    world.happens(world.notice(DE, Stage.RECOVERED, alert=f"{DE}/own"))
    assert own.incident.status is Status.RESOLVED


def test_slack_away_for_hours_loses_and_repeats_nothing(world: World) -> None:
    """All waits in the ledger, over a restart too; its first failure is kept, with its time."""
    world.pager.away = True
    world.happens(world.notice())
    world.happens(world.notice(UK, owner="growth", channel="#ml-growth"))
    world.restart()
    for _ in range(10):
        world.after(MINUTE)
    world.happens(world.notice(stage=Stage.RETRAINING))
    assert world.teller.waiting() == 3
    unsent = world.ledger.facts(Unsent)
    assert [(fact.incident, fact.away, fact.wall) for fact in unsent] == [
        (f"{DE}/1", True, 1e9),
        (f"{UK}/1", True, 1e9),
    ]
    world.pager.away = False
    world.after(MINUTE)
    threads = {one.opened.model: [n.stage for n in one.thread] for one in world.pager.told}
    assert (threads, len(world.pager.told)) == ({DE: [Stage.RETRAINING], UK: []}, 2)
    assert world.teller.waiting() == 0


def test_a_slack_that_is_away_is_asked_ever_less_often(world: World) -> None:
    """Twice a second it is looked, and in an hour it is asked less than a hundred times."""
    world.pager.away = True
    world.happens(world.notice(), world.notice(FR))
    for _ in range(7200):
        world.wall += 0.5
        world.teller.tell_unsent()
    assert 30 < world.pager.asked < 100


def test_a_message_that_somebody_deleted_is_posted_again_once(world: World) -> None:
    """It says so in its thread; deleted again it stays away."""
    world.happens(world.notice())
    world.pager.delete(world.message)
    world.happens(world.notice(stage=Stage.RETRAINING))
    assert {n.stage for n in world.message.thread} == {Stage.AGAIN, Stage.RETRAINING}
    world.pager.delete(world.message)
    world.happens(world.notice(stage=Stage.RECOVERED))
    assert world.pager.told == []
    assert world.ledger.live("incident/") == ()
    assert world.teller.waiting() == 0


def test_an_archived_channel_is_told_the_platforms_owner_from_then_on(world: World) -> None:
    """An incident that stands in a channel which is then archived goes on elsewhere."""
    world.happens(world.notice())
    world.pager.archived.add("#ml-logistics")
    world.happens(world.notice(stage=Stage.WORSENED))
    there = world.pager.told[-1]
    assert there.to.channel == "#ops"
    assert {n.stage for n in there.thread} == {Stage.AGAIN, Stage.WORSENED}
    assert world.teller.waiting() == 0


@pytest.mark.parametrize("loses", ["lose_reply", "refuse"])
@pytest.mark.parametrize("number", range(1, 4))
def test_whatever_goes_wrong_each_is_told_once(world: World, loses: str, number: int) -> None:
    """A reply is lost, or a call refused, at each step of a short story: nothing twice."""
    for stage in (Stage.OPENED, Stage.RETRAINING, Stage.RECOVERED):
        setattr(world.pager, loses, number)
        world.happens(world.notice(stage=stage))
        for _ in range(5):
            world.restart()
            world.after(SECOND)
    assert [n.stage for n in world.message.thread] == [Stage.RETRAINING, Stage.RECOVERED]
    assert world.message.incident.status is Status.RESOLVED
    assert len(world.ledger.facts(Paged)) == 3


def test_what_comes_before_its_opening_waits_for_it(world: World) -> None:
    """It joins the group that its opening does, after a restart too."""
    said = world.happens(world.notice(stage=Stage.RETRAINING))
    assert said[0].why == "what came before it is not told yet"
    world.restart()
    assert world.teller.waiting() == 1
    world.happens(world.broken(DE))
    world.after(10 * MINUTE)
    assert world.message.incident.id == f"{GROUP}/logistics/0"
    assert [n.stage for n in world.message.thread] == [Stage.RETRAINING]
    assert world.teller.waiting() == 0


def test_what_an_older_driftloop_told_goes_on_in_its_thread(world: World) -> None:
    """And what it had not told yet is told."""
    opened, left = world.notice(), world.notice(stage=Stage.RETRAINING)
    receipt = world.pager.post(
        alone(opened), Address(channel=opened.channel, mention=opened.mention), reconcile=False
    )
    fact = Paged(model=DE, at=world.clock.shown, notice=opened, receipt=receipt)
    world.ledger.append(fact, key=opened.key)
    world.ledger.claim(
        f"notice/{left.key}", lease=timedelta(0), body=msgspec.json.encode(left).decode()
    )
    world.after(SECOND)
    world.happens(world.notice(stage=Stage.RECOVERED))
    assert [n.stage for n in world.message.thread] == [Stage.RETRAINING, Stage.RECOVERED]
    assert world.ledger.live("notice/") == ()


def test_the_platforms_trouble_explains_what_it_makes(world: World) -> None:
    """A dead worker misses passes: one message, to who owns the platform."""
    ops = {"owner": "ops", "channel": "#ops", "severity": Severity.CRITICAL}
    world.happens(world.notice(PLATFORM, alert="driftloop/unhealthy/worker/1", **ops))
    world.happens(world.notice(PLATFORM, alert="driftloop/passes_missed/1", **ops))
    assert [one.incident.id for one in world.pager.told] == ["driftloop/unhealthy/worker/1"]


def test_nothing_is_noted_twice_by_two_processes(world: World) -> None:
    """Both tell all; one message, each notice noted once."""
    other = replace(world.teller)
    notices = [world.broken(DE), world.broken(FR)]
    other.tell_all(notices)
    world.happens(*notices)
    world.clock.shown += SECOND
    other.tell_unsent()
    world.teller.tell_unsent()
    assert len(world.ledger.facts(Noted)) == len(world.ledger.facts(Paged)) == 2
    assert world.message.posted.models == (DE, FR)


def test_processes_that_tell_the_same_at_once_leave_one_message(
    world: World, tmp_path: Path
) -> None:
    """Each with its own ledger: who comes second finds the notice, the claim or the message."""
    stages = (Stage.OPENED, Stage.RETRAINING, Stage.RECOVERED)

    def tell(_: int) -> None:
        ledger = SqlLedger(f"sqlite:///{tmp_path / 'ledger.db'}")
        teller = Teller(
            fleet=world.fleet, ledger=ledger, pager=world.pager, clock=world.clock, wall=lambda: 0.0
        )
        for stage in stages:
            teller.tell_all([world.notice(stage=stage), world.notice(FR, stage)])
            teller.tell_unsent()
        ledger.close()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(tell, range(4)))
    world.after(SECOND)
    assert sorted(one.incident.id for one in world.pager.told) == [f"{DE}/1", f"{FR}/1"]
    for one in world.pager.told:
        assert sorted(notice.stage for notice in one.thread) == [Stage.RECOVERED, Stage.RETRAINING]
        assert one.incident.status is Status.RESOLVED
    assert world.teller.waiting() == 0
    assert world.ledger.live("incident/") == ()


def test_what_ends_as_its_cause_comes_again_is_counted_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes give the next incident the same number, should one have seen both."""
    world.happens(world.broken(DE))
    world.after(MINUTE)
    world.acts(Act.RESOLVE, f"{GROUP}/logistics/0")
    live = world.ledger.live

    def ends_then(prefix: str) -> tuple[tuple[str, str], ...]:
        found = live(prefix)
        for key, _ in found if prefix.endswith("/logistics/") else ():
            world.ledger.finish(key, "told")
        return found

    monkeypatch.setattr(world.ledger, "live", ends_then)
    world.happens(world.broken(FR))
    (grouped,) = world.ledger.facts(Grouped, model=FR)
    assert grouped.incident == f"{GROUP}/logistics/1"


def test_an_incident_is_given_back_before_its_lease_runs_out(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where each step takes long it goes on turn by turn, free between them, and tells all once."""
    passing = count(0.0, LEASE.total_seconds() / 2)
    monkeypatch.setattr(settle, "time", SimpleNamespace(monotonic=lambda: next(passing)))
    (told,) = world.happens(world.notice())
    assert not told.told
    assert "another turn" in told.why
    assert world.ledger.claim("incident/eta-de/1", lease=LEASE).mine
    world.ledger.release("incident/eta-de/1")
    world.happens(world.notice(stage=Stage.RETRAINING), world.notice(stage=Stage.PROMOTED))
    for _ in range(8):
        world.after(SECOND)
    assert [entry.stage for entry in world.message.thread] == [Stage.RETRAINING, Stage.PROMOTED]
    assert world.teller.waiting() == 0


def test_a_wall_clock_that_is_put_back_keeps_nothing_waiting(world: World) -> None:
    """An hour back, while Slack is left in peace for a minute: it is told once that is over."""
    world.pager.away = True
    for _ in range(8):
        world.happens(world.notice())
        world.after(MINUTE)
    world.pager.away = False
    world.wall -= HOUR.total_seconds()
    assert [each.told for each in world.after(timedelta(0))] == [True]


def test_nobody_is_reminded_of_models_that_no_monitor_declares_any_more(world: World) -> None:
    """Nobody looks at them, so that it would never end; it stands until somebody resolves it."""
    world.happens(world.broken(DE), world.broken(FR))
    world.after(MINUTE)
    left = tuple(family for family in world.fleet.families if DE not in family.models)
    world.fleet = replace(world.fleet, families=left)
    world.restart()
    for _ in range(3):
        world.after(2 * DAY)
    assert world.message.thread == []
    assert world.stands(f"{GROUP}/logistics/0").status is Status.OPEN
    world.acts(Act.RESOLVE, f"{GROUP}/logistics/0")
    world.after(MINUTE)
    assert world.message.incident.status is Status.RESOLVED


def test_an_owner_that_is_renamed_goes_on_with_what_is_open(world: World) -> None:
    """Its message goes on where it stands, to its end; what comes then is told the new owner."""
    world.happens(world.notice())
    owners = {
        "transport" if name == "logistics" else name: owner
        for name, owner in world.fleet.owners.items()
    }
    families = tuple(
        family.model_copy(update={"owner": "transport"}) if family.owner == "logistics" else family
        for family in world.fleet.families
    )
    world.fleet = replace(world.fleet, owners=owners, families=families)
    world.restart()
    world.after(2 * DAY)
    world.happens(world.notice(stage=Stage.RECOVERED, owner="transport"))
    assert world.message.incident.status is Status.RESOLVED
    assert [entry.stage for entry in world.message.thread] == [Stage.REMINDED, Stage.RECOVERED]
    world.happens(world.notice(alert=f"{DE}/2", owner="transport"))
    assert [message.incident.owner for message in world.pager.told] == ["logistics", "transport"]


def test_many_that_recover_one_by_one_cost_few_calls(world: World) -> None:
    """Sixty models of one incident, a recovery a minute: one line in ten minutes for all."""
    models = [ModelId(f"eta-{n:02}") for n in range(60)]
    world.happens(*(world.broken(model) for model in models))
    world.after(MINUTE)
    before = world.pager.asked
    for model in models:
        world.happens(world.broken(model, Stage.RECOVERED))
        world.after(MINUTE)
    assert world.message.incident.status is Status.RESOLVED
    assert len(world.message.entries) <= 7
    assert len(world.message.thread) == 60
    # An edit for each recovery, which comes a minute after the other, and the lines.
    assert world.pager.asked - before <= 60 + 7
