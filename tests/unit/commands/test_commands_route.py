"""`driftloop route`: who would be told, when, and who comes next, in words."""

from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta

import pytest
import typer
from typer.testing import CliRunner

from driftloop.commands.route import people, route_command
from driftloop.errors import BadRequest
from driftloop.spec import Fleet, OnCall, Owner, Platform, Routes

AT = datetime(2026, 3, 4, 23, tzinfo=UTC)


@dataclass
class Installed:
    """An installation that has a fleet and a clock."""

    fleet: Fleet

    @property
    def clock(self) -> "Installed":
        return self

    def now(self) -> datetime:
        return AT


@pytest.fixture
def installed(fleet: Fleet) -> Installed:
    """Logistics sleeps at night, and has somebody on call; after a quarter hour growth is told."""
    rota = OnCall(people=("U0ADA00", "U0GRACE"), start=date(2026, 3, 2))
    logistics = Owner(
        channel="#ml-logistics",
        time_zone="Europe/Berlin",
        quiet=("22:00-07:00",),
        on_call=rota,
        members=("U0ADA00",),
    )
    minutes = timedelta(minutes=15)
    routes = Routes.model_validate({"ack_within": minutes, "escalate": ("growth",)})
    owners = {**fleet.owners, "logistics": logistics}
    platform = Platform(owner="logistics")
    return Installed(replace(fleet, owners=owners, routes=routes, platform=platform))


def run(installed: Installed, *words: str) -> list[str]:
    app = typer.Typer()
    app.command()(route_command(lambda: installed))  # type: ignore[arg-type, return-value]
    ran = CliRunner().invoke(app, words, catch_exceptions=False)
    assert ran.exit_code == 0, ran.output
    return ran.output.splitlines()


def test_what_is_for_the_record_reminds_nobody(installed: Installed) -> None:
    """As paging does: neither called to mind nor told to the next."""
    said = run(installed, "eta-de", "--severity", "info")
    assert "  reminded  never, and nobody else is told: it is for the record" in said
    assert not any(line.startswith("  then") for line in said)


def test_quiet_hours_and_who_comes_next_are_said(installed: Installed) -> None:
    """In UTC, and in the owner's own time; the next is told when nobody acknowledged."""
    assert run(installed, "eta-de") == [
        "eta-de: cause unknown, warning, at 2026-03-04 23:00 UTC",
        "  owner     logistics in #ml-logistics (no route: its owner)",
        (
            "  told      2026-03-05 06:00:00 UTC (07:00 Europe/Berlin), after the quiet hours,"
            " calls <@U0ADA00>"
        ),
        "  then      growth in #ml-growth, unless acknowledged:",
        "            2026-03-05 06:15:00 UTC, calls nobody by name",
        "  reminded  every 1d while it is open",
        "  an acknowledgement lasts 8h",
    ]


def test_what_is_only_for_the_record_goes_to_nobody_else(installed: Installed) -> None:
    """Nobody is woken or waited for; and without members no button works."""
    shown = run(installed, "churn-uk", "--severity", "info", "--at", "2026-03-05T12:00")
    assert shown[2] == "  told      2026-03-05 12:00:01 UTC, calls nobody by name"
    assert not any("then" in line for line in shown)
    assert shown[-1] == "  growth lists no members: nobody may press its buttons"


def test_data_at_fault_lead_to_who_owns_them(installed: Installed) -> None:
    """The platform's own trouble to the platform's owner."""
    eta = installed.fleet.family_named("eta").model_copy(update={"data_owner": "growth"})
    installed.fleet = replace(installed.fleet, families=(eta,))
    shown = run(installed, "eta-de", "--cause", "data", "--feature", "load")
    assert shown[1].startswith("  owner     growth in #ml-growth")
    assert run(installed, "driftloop")[1].startswith("  owner     logistics")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("eta-xx",), "no monitor declares the model 'eta-xx'"),
        (("eta-de", "--at", "soon"), "--at: 'soon' is not a date or time"),
        (("eta-de", "--feature", "load"), "--feature: is of data at fault alone"),
        (("eta-de", "--cause", "data", "--feature", "lod"), "did you mean 'load'"),
        (("driftloop", "--cause", "data", "--feature", "load"), "--feature: is of data"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    installed: Installed, words: tuple[str, ...], said: str
) -> None:
    """With what was wrong, where, and a hint."""
    with pytest.raises(BadRequest, match=said):
        run(installed, *words)


def test_check_tells_who_is_on_call_and_who_has_no_buttons(installed: Installed) -> None:
    """A line for each owner; a warning where nobody may press what the message offers."""
    asleep = "quiet 22:00-07:00 Europe/Berlin"
    assert list(people(installed.fleet, AT)) == [
        (f"owner logistics (#ml-logistics), 1 member, on call <@U0ADA00>, {asleep}", False),
        ("owner growth (#ml-growth)", False),
        ("growth lists no members: nobody may press its buttons", True),
    ]
