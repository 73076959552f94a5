"""The tree of routes: who owns what, told as a table, and what is inherited."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from driftloop.errors import UnknownModel
from driftloop.records import PLATFORM, ModelId, Origin, Severity
from driftloop.route import routed, turns
from driftloop.spec import Fleet, Owner, Platform, Route, Routes

DE, FR, UK = ModelId("eta-de"), ModelId("eta-fr"), ModelId("churn-uk")
NINE = datetime(2026, 3, 4, 9, tzinfo=UTC)
TREE = Routes.model_validate(
    {
        "repeat": timedelta(hours=4),
        "escalate": ("boss",),
        "ack_within": timedelta(minutes=15),
        "routes": (
            {"family": ("driftloop",), "owner": "nights", "severity": ("critical",)},
            {"cause": ("data",), "market": ("uk",), "wait": timedelta(minutes=2)},
            {
                "family": ("e*",),
                "wait": timedelta(seconds=30),
                "routes": (
                    {"market": ("fr",), "owner": "france", "escalate": ()},
                    {"severity": ("critical",), "owner": "nights"},
                    {"cause": ("relation",), "escalate": ("nights", "logistics", "boss", "nights")},
                ),
            },
            {"severity": ("critical",), "owner": "boss"},
        ),
    }
)


@pytest.fixture
def routes(fleet: Fleet) -> Fleet:
    """The tests' fleet with a tree; logistics owns eta and the platform, growth owns churn."""
    more = {name: Owner(channel=f"#{name}") for name in ("nights", "france", "boss")}
    platform = Platform(owner="logistics")
    return replace(fleet, routes=TREE, platform=platform, owners={**fleet.owners, **more})


@pytest.mark.parametrize(
    ("model", "origin", "severity", "owner", "path"),
    [
        (DE, Origin.INPUTS, Severity.WARNING, "logistics", (2,)),
        (DE, Origin.INPUTS, Severity.CRITICAL, "nights", (2, 1)),
        (DE, Origin.RELATION, Severity.WARNING, "logistics", (2, 2)),
        (DE, Origin.RELATION, Severity.CRITICAL, "nights", (2, 1)),
        (FR, Origin.RELATION, Severity.CRITICAL, "france", (2, 0)),
        (UK, Origin.DATA, Severity.CRITICAL, "growth", (1,)),
        (UK, Origin.UNKNOWN, Severity.CRITICAL, "boss", (3,)),
        (UK, Origin.UNKNOWN, Severity.INFO, "growth", ()),
        (PLATFORM, Origin.UNKNOWN, Severity.CRITICAL, "nights", (0,)),
        (PLATFORM, Origin.UNKNOWN, Severity.WARNING, "logistics", ()),
    ],
)
def test_the_first_route_that_fits_is_taken_and_then_those_in_it(
    routes: Fleet,
    model: ModelId,
    origin: Origin,
    severity: Severity,
    owner: str,
    path: tuple[int, ...],
) -> None:
    """Depth first; a route without an owner leaves it to who owns the model or the platform."""
    found = routed(routes, model, origin=origin, severity=severity)
    assert (found.owner, found.path) == (owner, path)


def test_a_route_inherits_what_it_does_not_say(routes: Fleet) -> None:
    """From those around it, and at last from the defaults; an empty list is something said."""
    german = routed(routes, DE, origin=Origin.RELATION, severity=Severity.WARNING)
    french = routed(routes, FR, origin=Origin.RELATION, severity=Severity.WARNING)
    assert (german.wait, german.repeat) == (timedelta(seconds=30), timedelta(hours=4))
    assert german.ack_expires == timedelta(hours=8)
    assert (german.escalate, french.escalate) == (("nights", "boss"), ())
    assert french.ack_within == timedelta(minutes=15)


def test_nobody_is_next_after_themselves(routes: Fleet) -> None:
    """Who is told first stands in the chain around, and is left out of it."""
    found = routed(routes, UK, origin=Origin.UNKNOWN, severity=Severity.CRITICAL)
    assert (found.owner, found.escalate) == ("boss", ())


def test_data_at_fault_go_to_who_owns_them(routes: Fleet) -> None:
    """To the family's `data_owner` where no route says otherwise; any other cause does not."""
    churn = routes.family_named("churn").model_copy(update={"data_owner": "france"})
    eta = routes.family_named("eta")
    fleet = replace(routes, families=(eta, churn))
    origins = (Origin.DATA, Origin.INPUTS, Origin.RELATION, Origin.UNKNOWN)
    found = [routed(fleet, UK, origin=each, severity=Severity.WARNING).owner for each in origins]
    assert found == ["france", "growth", "growth", "growth"]


def test_an_owner_at_the_root_owns_everything(routes: Fleet) -> None:
    """The platform's own trouble too."""
    fleet = replace(routes, routes=Routes(owner="boss"))
    found = {
        routed(fleet, model, origin=origin, severity=Severity.INFO).owner
        for model in (*fleet.models, PLATFORM)
        for origin in Origin
    }
    assert found == {"boss"}


def test_a_model_that_nobody_declares_has_no_owner(routes: Fleet) -> None:
    """It is an error, and not somebody's."""
    with pytest.raises(UnknownModel, match="eta-xx"):
        routed(routes, ModelId("eta-xx"), origin=Origin.DATA, severity=Severity.INFO)


def test_a_star_stands_for_any_ending() -> None:
    """And for nothing else; without one the whole name is meant."""
    route = Route(family=("eta*", "churn"), market=("d*",))
    asked = [("eta-2", "de"), ("churn", "de"), ("churned", "de"), ("eta", "fr")]
    found = [route.takes(*each, Origin.DATA, Severity.INFO) for each in asked]
    assert found == [True, True, False, False]


def test_the_next_is_told_in_their_own_waking_hours(routes: Fleet) -> None:
    """Each waits so long for an acknowledgement of the one before, and for its quiet hours."""
    asleep = Owner(channel="#boss", quiet=("09:00-10:00",))
    fleet = replace(routes, owners={**routes.owners, "boss": asleep})
    route = routed(fleet, DE, origin=Origin.RELATION, severity=Severity.WARNING)
    found = turns(route, fleet.owners, Severity.WARNING, NINE)
    assert [(turn.owner, turn.at - NINE, turn.waits) for turn in found] == [
        ("logistics", timedelta(seconds=30), False),
        ("nights", timedelta(minutes=15, seconds=30), False),
        ("boss", timedelta(hours=1), True),
    ]
