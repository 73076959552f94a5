"""Slack is out of reach: who is told the second way, once, and what is said of it."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from conftest import StoppedClock
from fakes.pager import FakePager

from driftloop.errors import PagerError
from driftloop.ledger import SqlLedger
from driftloop.loop.relay import LEASE, Memory, Relay
from driftloop.loop.tell import Teller
from driftloop.records import (
    Act,
    Acted,
    Fact,
    Incident,
    ModelId,
    Notice,
    Relayed,
    Stage,
    Status,
)
from driftloop.spec import Fleet, Owner, Routes

AT = datetime(2026, 3, 1, tzinfo=UTC)
DE = ModelId("eta-de")
DOWN = 600.0
OUTAGE = "driftloop/slack/20260301T000000"


@dataclass
class Times:
    """The loop's clock and the wall's, moved together."""

    clock: StoppedClock
    wall: float = 1e9

    def __call__(self) -> float:
        return self.wall

    def pass_by(self, seconds: float) -> None:
        self.wall += seconds
        self.clock.shown += timedelta(seconds=seconds)


@dataclass
class Slack:
    """A teller and its pager, which is away at first."""

    teller: Teller
    pager: FakePager
    times: Times

    def tell(self, notice: Notice) -> None:
        self.teller.tell(notice)

    def comes_back(self) -> None:
        self.pager.away = False
        self.times.pass_by(61)
        self.teller.tell_unsent()

    def thread(self, incident: str) -> list[Notice]:
        """What stands in an incident's thread; it has one message."""
        (message,) = [each for each in self.pager.told if each.incident.id == incident]
        return message.thread


@dataclass
class Way:
    """A second way that keeps what it sends, and fails as long as `fails` says how."""

    name: str
    sent: list[tuple[str, str, str]] = field(default_factory=list)
    fails: PagerError | None = None
    tried: int = 0

    def reaches(self, owner: Owner) -> str:
        return ", ".join(owner.email)

    def send(self, incident: Incident, owner: Owner, *, why: str) -> None:
        self.tried += 1
        if self.fails is not None:
            raise self.fails
        self.sent.append((incident.id, ", ".join(owner.email), why))


@pytest.fixture
def times(clock: StoppedClock) -> Times:
    return Times(clock)


@pytest.fixture
def ledger(tmp_path: Path, times: Times) -> Iterator[SqlLedger]:
    opened = SqlLedger(f"sqlite:///{tmp_path / 'ledger.db'}", wall=times)
    yield opened
    opened.close()


@pytest.fixture
def slack(fleet: Fleet, ledger: SqlLedger, times: Times) -> Slack:
    """Growth owns the incidents below, logistics the platform; both have an address."""
    owners = {
        name: owner.model_copy(update={"email": (f"{name}@example.org",)})
        for name, owner in fleet.owners.items()
    }
    pager = FakePager(away=True)
    teller = Teller(
        fleet=replace(fleet, owners=owners),
        ledger=ledger,
        pager=pager,
        clock=times.clock,
        wall=times,
    )
    return Slack(teller, pager, times)


@pytest.fixture
def way() -> Way:
    return Way("e-mail")


@pytest.fixture
def relay(ledger: SqlLedger, slack: Slack, times: Times, way: Way) -> Relay:
    return Relay(
        ledger=ledger,
        clock=times.clock,
        teller=slack.teller,
        ways=(way,),
        down=DOWN,
        wall=times,
    )


def notice(incident: str = "i", stage: Stage = Stage.OPENED) -> Notice:
    return Notice(
        key=f"{incident}/{stage}",
        incident=incident,
        model=DE,
        stage=stage,
        at=AT,
        since=AT,
        channel="#ml-growth",
        mention="@here",
        headline="eta-de: errors doubled",
        doing="",
        owner="growth",
    )


def test_after_ten_minutes_the_second_way_is_used_once(
    relay: Relay, slack: Slack, times: Times, way: Way
) -> None:
    """Not before, and not again; who owns the platform is told of the outage at the same time."""
    slack.tell(notice())
    times.pass_by(DOWN - 1)
    assert relay.relay() == ()
    times.pass_by(6)
    facts = relay.relay()
    assert [(each.incident, each.way, each.to) for each in facts] == [
        (OUTAGE, "e-mail", "logistics@example.org"),
        ("i", "e-mail", "growth@example.org"),
    ]
    assert "Slack cannot be reached since 1 Mar 2026 00:00 UTC" in way.sent[1][2]
    times.pass_by(3600)
    assert relay.relay() == ()
    assert len(way.sent) == 2


def test_an_outage_is_told_to_whom_the_routes_name(
    relay: Relay, slack: Slack, times: Times, way: Way
) -> None:
    """A route of the loop's own trouble comes before platform.toml."""
    routes = Routes.model_validate({"routes": ({"family": ("driftloop",), "owner": "growth"},)})
    told = replace(slack.teller, fleet=replace(slack.teller.fleet, routes=routes))
    slack.tell(notice())
    times.pass_by(DOWN + 1)
    facts = replace(relay, teller=told).relay()
    assert {(each.incident, each.to) for each in facts} == {
        (OUTAGE, "growth@example.org"),
        ("i", "growth@example.org"),
    }


def test_afterwards_it_is_said_in_slack(
    relay: Relay, slack: Slack, times: Times, ledger: SqlLedger
) -> None:
    """In the thread by which way and to whom; to the platform's owner how long, how many."""
    slack.tell(notice())
    times.pass_by(DOWN)
    relay.relay()
    times.pass_by(2400)
    slack.comes_back()
    assert relay.relay() == ()
    slack.teller.tell_unsent()
    (said,) = slack.thread("i")
    assert said.headline == (
        "Told by e-mail to growth@example.org at 1 Mar 2026 00:10 UTC, as Slack could not be"
        " reached from 1 Mar 2026 00:00 UTC on"
    )
    (message,) = [each for each in slack.pager.told if each.incident.id == OUTAGE]
    assert (message.to.channel, message.incident.status) == ("#ml-logistics", Status.RESOLVED)
    assert message.shown.headline == (
        "driftloop: Slack is back after 51 minutes; 1 incident waited, 1 told another way meanwhile"
    )
    times.pass_by(60)
    assert relay.relay() == ()
    assert len(ledger.facts(Relayed)) == 2
    assert [each.stage for each in message.thread].count(Stage.RECOVERED) == 1


def test_a_short_outage_is_nobodys_business(
    relay: Relay, slack: Slack, times: Times, way: Way
) -> None:
    """What waited goes out in Slack alone."""
    slack.tell(notice())
    times.pass_by(DOWN - 60)
    relay.relay()
    slack.comes_back()
    times.pass_by(3600)
    assert relay.relay() == ()
    assert way.tried == 0
    assert [each.incident.id for each in slack.pager.told] == ["i"]


def test_a_channel_that_refuses_is_no_outage(
    relay: Relay, slack: Slack, times: Times, way: Way
) -> None:
    """Its owner is told the second way and why; the platform's owner is not told of an outage."""
    slack.pager.away, slack.pager.archived = False, {"#ml-growth"}
    slack.tell(notice())
    times.pass_by(DOWN)
    (fact,) = relay.relay()
    assert (fact.incident, fact.to) == ("i", "growth@example.org")
    assert "does not take it in #ml-growth" in way.sent[0][2]


def test_ways_that_fail_are_tried_again_later(
    relay: Relay, slack: Slack, times: Times, way: Way
) -> None:
    """Each as often as its lease allows, and one that is away not for each incident."""
    for n in range(5):
        slack.tell(notice(f"i{n}"))
    way.fails = PagerError("down too", retry=True, away=True)
    times.pass_by(DOWN)
    assert relay.relay() == ()
    times.pass_by(10)
    assert relay.relay() == ()
    assert way.tried == 1
    way.fails = None
    times.pass_by(LEASE.total_seconds())
    assert len(relay.relay()) == 6


def test_one_way_does_not_stand_in_for_the_other(
    relay: Relay, slack: Slack, times: Times, way: Way
) -> None:
    """Both are used; where one fails the other has told it, and the first is tried again."""
    other = Way("webhook")
    both = replace(relay, ways=(way, other))
    way.fails = PagerError("no such mailbox", retry=False)
    slack.tell(notice())
    times.pass_by(DOWN)
    assert {each.way for each in both.relay()} == {"webhook"}
    way.fails = None
    times.pass_by(LEASE.total_seconds() + 1)
    assert {each.way for each in both.relay()} == {"e-mail"}
    assert [each[0] for each in other.sent].count("i") == 1


def test_another_process_does_not_send_it_again(
    relay: Relay, slack: Slack, times: Times, way: Way
) -> None:
    """Not after a restart, and not when both look at once."""
    slack.tell(notice())
    times.pass_by(DOWN)
    relay.relay()
    assert replace(relay, memory=Memory()).relay() == ()
    assert len(way.sent) == 2


def test_a_death_between_sending_and_recording_sends_again(
    relay: Relay, slack: Slack, times: Times, way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Better twice than never: the e-mail has the same Message-ID then."""
    slack.tell(notice())
    times.pass_by(DOWN)
    append = SqlLedger.append

    def dies(ledger: SqlLedger, fact: Fact, *, key: str | None = None) -> bool:
        if isinstance(fact, Relayed) and fact.incident == "i":
            raise SystemExit
        return append(ledger, fact, key=key)

    with monkeypatch.context() as patched:
        patched.setattr(SqlLedger, "append", dies)
        with pytest.raises(SystemExit):
            relay.relay()
    assert [each[0] for each in way.sent] == [OUTAGE, "i"]
    again = replace(relay, memory=Memory())
    assert again.relay() == ()
    times.pass_by(LEASE.total_seconds() + 1)
    assert [each.incident for each in again.relay()] == ["i"]


@pytest.mark.parametrize("act", [Act.ACK, Act.RESOLVE])
def test_what_somebody_has_or_is_over_is_not_sent(
    relay: Relay, slack: Slack, times: Times, way: Way, ledger: SqlLedger, act: Act
) -> None:
    """Taken on the command line while Slack is away: nobody need be woken by e-mail."""
    slack.tell(notice())
    acted = Acted(model=DE, at=AT, incident="i", act=act, who="Ada")
    ledger.append(acted, key="click")
    times.pass_by(DOWN)
    assert "i" not in {each.incident for each in relay.relay()}
    assert "i" not in {each[0] for each in way.sent}


def test_what_is_over_at_once_and_needs_somebody_is_sent(
    relay: Relay, slack: Slack, times: Times, way: Way
) -> None:
    """A rollout that was rolled back is so; one that came to the front meanwhile needs nobody."""
    slack.tell(notice("rollout/eta-de#7", Stage.ROLLED_BACK))
    slack.tell(notice("rollout/eta-fr#8", Stage.HELD))
    over = replace(notice("rollout/eta-fr#8", Stage.PROMOTED), at=AT + timedelta(minutes=1))
    slack.tell(over)
    times.pass_by(DOWN)
    relay.relay()
    assert [each[0] for each in way.sent] == [OUTAGE, "rollout/eta-de#7"]


def test_who_cannot_be_reached_waits_for_slack(
    relay: Relay, slack: Slack, times: Times, fleet: Fleet, way: Way
) -> None:
    """Without an address there is no e-mail; it is still told of later, and counted as late."""
    without = replace(relay, teller=replace(slack.teller, fleet=fleet))
    slack.tell(notice())
    times.pass_by(DOWN)
    assert without.relay() == ()
    assert way.tried == 0
    assert without.late()[0] == "i"


def test_where_all_was_told_hardly_anything_is_asked(
    relay: Relay, slack: Slack, times: Times, ledger: SqlLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An incident that waited once and lives on for weeks is not read at each look."""
    slack.tell(notice())
    slack.comes_back()
    times.pass_by(DOWN)
    relay.relay()
    read: list[str] = []
    whole = ledger.incident
    monkeypatch.setattr(ledger, "incident", lambda i: (read.append(i), whole(i))[1])
    for _ in range(3):
        times.pass_by(60)
        relay.relay()
    assert read == []
