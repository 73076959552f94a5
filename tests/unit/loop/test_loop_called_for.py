"""Whom a decision has told: by the routes, grouped by cause, and staying with who was told."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from driftloop.loop.called_for import notices_of
from driftloop.loop.notices import Places
from driftloop.records import (
    Carrier,
    Cause,
    Decision,
    Fact,
    Grouped,
    Kind,
    Level,
    ModelId,
    Noted,
    Notice,
    Origin,
    Reading,
    Severity,
    Stage,
    State,
    Verdict,
    Window,
)
from driftloop.spec import Fleet, Owner, Routes

DE = ModelId("eta-de")
AT = datetime(2026, 3, 1, tzinfo=UTC)
PLACES = Places(pages="http://pages", prefect="http://prefect")
LOAD = Cause(
    origin=Origin.DATA, said="load", carriers=(Carrier(name="load", share=1.0, said="load"),)
)
WORSE = Verdict(
    reading=Reading(kind=Kind.DECAY, metric="mae", column=None, value=20, n=500, baseline=10.0),
    level=Level.ALARM,
    limit=0.3,
    reason="mae 20",
)


@dataclass
class Known:
    """A ledger that knows some facts by their keys."""

    known: Mapping[str, Fact] = field(default_factory=dict)

    def fact(self, kind: type, *, key: str) -> Fact | None:
        found = self.known.get(key)
        return found if isinstance(found, kind) else None


@pytest.fixture
def owned(fleet: Fleet) -> Fleet:
    """Data of eta are growth's; what is critical goes to the night shift."""
    eta = fleet.family_named("eta").model_copy(update={"data_owner": "growth"})
    nights = {"severity": ("critical",), "cause": ("relation", "unknown"), "owner": "nights"}
    routes = Routes.model_validate({"routes": (nights,)}, strict=False)
    owners = {**fleet.owners, "nights": Owner(channel="#nights", mention="@here")}
    return replace(fleet, families=(eta,), owners=owners, routes=routes)


def decision(state: State, *verdicts: Verdict, **more: Any) -> Decision:
    window = Window(model=DE, start=AT - timedelta(days=14), end=AT, known_at=AT)
    made = Decision(
        key=f"eta-de/{state}",
        model=DE,
        at=AT,
        state=state,
        reason=str(state),
        version=1,
        window=window,
        verdicts=verdicts,
        incident="eta-de/1",
    )
    return replace(made, **more)


def told(
    fleet: Fleet, now: Decision, cause: Cause | None = None
) -> list[tuple[Stage, str, str, Severity, Origin, str]]:
    ledger: Any = Known()
    return [
        (each.stage, each.owner, each.channel, each.severity, each.origin, each.group)
        for each in notices_of(fleet, ledger, PLACES, now, None, cause)
    ]


def test_a_page_goes_where_the_routes_say(owned: Fleet) -> None:
    """Harm far beyond its limit is critical, and the night shift's; its cause is not known."""
    found = told(owned, decision(State.DECAYING, WORSE, opens=True))
    expected = (Stage.OPENED, "nights", "#nights", Severity.CRITICAL, Origin.UNKNOWN, "")
    assert found == [expected]


def test_data_at_fault_are_told_their_owner_as_one(owned: Fleet) -> None:
    """By the column at fault, whatever model it is in."""
    found = told(owned, decision(State.DATA_FAULT, opens=True), cause=LOAD)
    expected = (Stage.OPENED, "growth", "#ml-growth", Severity.WARNING, Origin.DATA, "data/load")
    assert found == [expected]


def test_a_page_of_one_model_names_what_is_wrong_in_its_data(owned: Fleet) -> None:
    """The column, as that of many models does; and shares in per cent, none of them over all."""
    reading = Reading(kind=Kind.QUALITY, metric="null_share", column="load", value=0.286, n=900)
    wide = replace(reading, kind=Kind.FRESH, metric="nulls", value=1.0, low=0.968, high=1.03)
    verdicts = tuple(
        Verdict(reading=each, level=Level.ALARM, limit=0.02, reason="r") for each in (reading, wide)
    )
    ledger: Any = Known()
    now = decision(State.DATA_FAULT, *verdicts, opens=True)
    (page,) = notices_of(owned, ledger, PLACES, now, None)
    assert page.headline == "eta-de: its data looks wrong: load"
    assert [(each.value, each.limit) for each in page.evidence] == [
        ("28.6%", "2%"),
        ("100% (96.8% to 100%)", "2%"),
    ]


GROUPED = Grouped(model=DE, at=AT, alert="eta-de/1", incident="eta-de/1", group="", owner="nights")


def test_what_follows_stays_with_who_was_told(owned: Fleet) -> None:
    """Where the data turn out wrong their owner is told beside it; it ends for both."""
    before = decision(State.DECAYING, WORSE)
    facts: dict[str, Fact] = {"eta-de/1": GROUPED}
    ledger: Any = Known(facts)
    bad = decision(State.DATA_FAULT)
    found = notices_of(owned, ledger, PLACES, bad, before, LOAD)
    assert [(each.stage, each.owner, each.incident, each.group) for each in found] == [
        (Stage.BLOCKED, "nights", "eta-de/1", ""),
        (Stage.OPENED, "growth", "eta-de/1/data", "data/load"),
    ]
    facts["eta-de/1/data/opened"] = Noted(model=DE, at=AT, notice=found[1], incident="data/load/0")
    over = decision(State.FRESH, incident=None, resolves="eta-de/1")
    ended = notices_of(owned, ledger, PLACES, over, bad)
    assert [(each.stage, each.owner, each.severity) for each in ended] == [
        (Stage.RECOVERED, "nights", Severity.INFO),
        (Stage.RECOVERED, "growth", Severity.INFO),
    ]


def test_an_owner_that_is_gone_leaves_what_follows_to_the_routes(owned: Fleet) -> None:
    """Nobody is asked for who is not in owners.toml any more."""
    ledger: Any = Known({"eta-de/1": replace(GROUPED, owner="gone")})
    over = decision(State.FRESH, incident=None, resolves="eta-de/1")
    (ended,) = notices_of(owned, ledger, PLACES, over, None)
    assert ended.owner == "logistics"


def test_pages_told_before_notices_named_their_owner_keep_theirs(owned: Fleet) -> None:
    """By the channel that they stand in."""
    (page,) = notices_of(
        owned, Known(), PLACES, decision(State.DECAYING, WORSE, opens=True), None  # type: ignore[arg-type]
    )  # fmt: skip
    old: Notice = replace(page, owner="", channel="#ml-growth")
    noted = Noted(model=DE, at=AT, notice=old, incident="eta-de/1")
    ledger: Any = Known({"eta-de/1/opened": noted})
    over = decision(State.FRESH, incident=None, resolves="eta-de/1")
    (ended,) = notices_of(owned, ledger, PLACES, over, None)
    assert ended.owner == "growth"
