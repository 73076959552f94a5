"""`driftloop incidents`, `ack`, `silence`, `resolve`: what they print, and what they become."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import typer
from fakes.desk import DE, FR, Office
from typer.testing import CliRunner

from driftloop.commands.incidents import add_incident_commands
from driftloop.errors import BadRequest
from driftloop.ledger import SqlLedger
from driftloop.records import Act, ModelId, Stage, Status
from driftloop.spec import Fleet

if TYPE_CHECKING:
    from conftest import StoppedClock

UK = ModelId("churn-uk")


@pytest.fixture
def office(
    fleet: Fleet, clock: "StoppedClock", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Office:
    monkeypatch.setattr("getpass.getuser", lambda: "root")
    return Office(fleet, SqlLedger(f"sqlite:///{tmp_path / 'ledger.db'}"), clock)


def run(office: Office, *words: str) -> str:
    app = typer.Typer()
    add_incident_commands(app, lambda: office)  # type: ignore[arg-type, return-value]
    ran = CliRunner().invoke(app, words, catch_exceptions=False)
    assert ran.exit_code == 0, ran.output
    return ran.output


def test_what_is_open_is_a_table(office: Office) -> None:
    """Id, status, owner, severity, since, models and in one line what; or that there is none."""
    assert run(office, "incidents") == "no incident is open\n"
    office.opened(DE, FR, group="data/weather")
    id_ = office.opened(UK, owner="growth")
    office.take(Act.ACK, id_, None)
    header, *lines = run(office, "incidents").splitlines()
    assert header.split() == ["id", "status", "owner", "severity", "since", "models", "what"]
    text = " ".join(" ".join(lines).split())
    assert "data/weather/0 open logistics warning 2026-03-01" in text
    assert "eta-de, eta-fr" in text
    assert "acked by root until" in text
    assert "data/weather" not in run(office, "incidents", "--owner", "growth")


def test_what_is_over_is_listed_when_asked_for(office: Office) -> None:
    """Not otherwise."""
    office.opened(DE)
    run(office, "resolve", DE, "--why", "a feast")
    assert run(office, "incidents") == "no incident is open\n"
    assert "resolved" in run(office, "incidents", "--all")


def test_one_incident_is_told_from_its_first_alert_on(office: Office) -> None:
    """How it stands, whose it is, what it needs, its models, and what happened to it in order."""
    id_ = office.opened(DE, FR, group="data/weather")
    office.take(Act.SILENCE, id_, silence="1h", why="we know")
    text = run(office, "incidents", "data/w")
    assert text.startswith(f"{id_}: ")
    assert "owner logistics (#ml-logistics), warning" in text
    assert "needs: " in text
    assert "  eta-fr: " in text
    happened = [line.split()[3] for line in text.splitlines() if line.startswith("  2026-03-01")]
    assert happened == ["joined", "opened", "joined", "opened", "told", "silence"]
    assert 'Ada silenced it until 2026-03-01 01:00 UTC: "we know"' in text


def test_what_is_part_of_a_larger_one_says_in_words_of_which(office: Office) -> None:
    """And how to see that one."""
    larger = office.opened(DE, FR, group="data/weather")
    smaller = office.opened(DE, alert="eta-de/20260301T000001")
    text = run(office, "incidents", smaller)
    assert (
        f"  Part of: {run(office, 'incidents', larger).splitlines()[0].split(': ', 1)[1]}" in text
    )
    assert f"(`driftloop incidents {larger}`)" in text


def test_one_that_is_anothers_is_not_shown_as_theirs(office: Office) -> None:
    """An owner that is asked for and is not its own is a mistake, and said to be one."""
    id_ = office.opened(DE)
    assert run(office, "incidents", id_, "--owner", "logistics").startswith(id_)
    with pytest.raises(BadRequest, match=f"{id_}: is for logistics"):
        run(office, "incidents", id_, "--owner", "growth")


def test_all_of_it_comes_as_json(office: Office) -> None:
    """A list, or the one that is asked for."""
    id_ = office.opened(DE)
    (listed,) = json.loads(run(office, "incidents", "--json"))
    one = json.loads(run(office, "incidents", id_, "--json"))
    assert listed == one
    assert (one["id"], one["status"], one["owner"]) == (id_, "open", "logistics")


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["ack", "eta-de"], Status.ACKED, "root acknowledged it until 2026-03-01 04:00 UTC"),
        (["silence", "eta-de"], Status.SILENCED, "root silenced it until 2026-03-01 01:00 UTC"),
        (["silence", "eta-d", "--for", "2d"], Status.SILENCED, "until 2026-03-03 00:00 UTC"),
        (["silence", "eta-de", "--for", "tomorrow"], Status.SILENCED, "until 2026-03-02 08:00"),
        (["resolve", "eta-de", "--why", "seen"], Status.RESOLVED, 'resolved it by hand: "seen"'),
        (
            ["resolve", "eta-de", "--not-a-problem", "--why", "a feast"],
            Status.RESOLVED,
            'not a problem: "a feast"',
        ),
    ],
)
def test_the_buttons_acts_by_hand(
    office: Office, words: list[str], status: Status, said: str
) -> None:
    """A model's name, or how it begins, is enough; who runs it is who did it."""
    id_ = office.opened(DE)
    office.opened(FR)
    text = run(office, *words)
    assert text.startswith(f"{id_}: root ")
    assert said in text
    assert office.incident(id_).status is status
    (notice,) = office.teller.told
    assert notice.stage is Stage.ACTED


def test_what_slack_is_told_later_is_said(office: Office) -> None:
    """Where nothing is up the act waits in the ledger."""
    office.opened(DE)
    office.teller.away = "nobody answers"
    assert "; Slack shows it later: nobody answers" in run(office, "ack", DE)


def test_reasons_of_people_are_listed(office: Office) -> None:
    """What they said is not a problem, when, who and why; brackets are no markup."""
    assert run(office, "incidents", "--denied") == "people denied no page\n"
    id_ = office.opened(DE)
    run(office, "resolve", DE, "--not-a-problem", "--why", "[bold]a feast[/bold]")
    text = run(office, "incidents", "--denied")
    assert id_ in text
    assert "[bold]a feast[/bold]" in text
    (act,) = json.loads(run(office, "incidents", "--denied", "--json"))
    assert act["models"] == [DE]
    assert run(office, "incidents", "--denied", "--owner", "growth") == "people denied no page\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["ack", "eta"], "eta: may be one of 2 incidents: eta-de/20260301T000000, eta-fr/2026"),
        (["silence", "churn-uk"], "churn-uk: no incident that is not over has this id"),
        (["silence", "eta-de", "--for", "ever"], "For how long?"),
        (["resolve", "eta-de"], "resolve: says not why"),
        (["resolve", "eta-de", "--why", " "], "resolve: says not why"),
        (["incidents", "nothing"], "nothing: no incident that is not over has this id"),
        (["incidents", "--owner", "me"], "--owner me: owners.toml declares no such owner"),
    ],
)
def test_what_cannot_be_done_is_said(office: Office, words: list[str], message: str) -> None:
    """What, where and a hint; nothing is done. The command line exits with 2 for it."""
    office.opened(DE)
    office.opened(FR)
    with pytest.raises(BadRequest) as refused:
        run(office, *words)
    assert message in str(refused.value)
    assert office.acts() == ()


def test_an_incident_that_is_over_is_told_and_not_acted_upon(office: Office) -> None:
    """Its whole id shows it; an act says that it is over."""
    id_ = office.opened(DE)
    run(office, "resolve", DE, "--why", "seen")
    assert "Resolved" in run(office, "incidents", id_)
    with pytest.raises(BadRequest, match="It is over since"):
        run(office, "ack", id_)
