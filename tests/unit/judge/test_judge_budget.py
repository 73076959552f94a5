"""Who may make how many false pages: what is stated, and what is left for the others."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftloop.judge import can_page, decide, denied_pages, rates, spending, window_at
from driftloop.judge.budget import weight_of
from driftloop.judge.verdicts import LOOKED
from driftloop.records import Act, Acted, Head, Kind, ModelHistory, ModelId, Reading
from driftloop.spec import BudgetPolicy, Family, Fleet

DE, FR, UK = ModelId("eta-de"), ModelId("eta-fr"), ModelId("churn-uk")
NOW = datetime(2026, 3, 1, tzinfo=UTC)


def stating(fleet: Fleet, *, whole: float = 1.0, **budgets: BudgetPolicy) -> Fleet:
    families = tuple(
        family.model_copy(update={"budget": budgets.get(family.name, family.budget)})
        for family in fleet.families
    )
    platform = fleet.platform.model_copy(update={"false_pages_per_week": whole})
    return replace(fleet, families=families, platform=platform)


def test_without_more_all_models_share_the_fleets(fleet: Fleet) -> None:
    """Three models, three pages a week: one each."""
    assert rates(stating(fleet, whole=3.0), fleet.models) == {DE: 1.0, FR: 1.0, UK: 1.0}


def test_what_is_stated_more_closely_wins(fleet: Fleet) -> None:
    """A model's is taken out of its family's, and a family's out of the fleet's."""
    eta = BudgetPolicy(false_pages_per_week=0.6, markets={"de": 0.5})
    found = rates(stating(fleet, whole=1.0, eta=eta), fleet.models)
    assert found == pytest.approx({DE: 0.5, FR: 0.1, UK: 0.4})
    alone = rates(stating(fleet, whole=1.0, eta=BudgetPolicy(markets={"de": 0.5})), fleet.models)
    assert alone == pytest.approx({DE: 0.5, FR: 0.25, UK: 0.25})


def test_models_that_cannot_page_leave_theirs_to_those_they_share_with(fleet: Fleet) -> None:
    """What a family states stays in the family, and what a model states is its own."""
    found = rates(stating(fleet, whole=3.0), [DE, UK])
    assert (found[DE], found[UK]) == (1.5, 1.5)
    own = stating(fleet, whole=3.0, eta=BudgetPolicy(false_pages_per_week=0.5))
    assert rates(own, [DE, UK])[DE] == 0.5
    assert rates(own, [UK])[UK] == 2.5


@given(
    whole=st.floats(1.0, 9.0),
    family=st.none() | st.floats(0.4, 0.9),
    market=st.none() | st.floats(0.05, 0.3),
    able=st.sets(st.sampled_from([DE, FR, UK])),
)
def test_no_budget_is_ever_exceeded(
    whole: float, family: float | None, market: float | None, able: set[ModelId]
) -> None:
    """Whoever can page: models', family's and fleet's budgets hold for those who can."""
    from conftest import MONITORS

    from driftloop.spec import load_fleet

    policy = BudgetPolicy(
        false_pages_per_week=family, markets={} if market is None else {"de": market}
    )
    found = rates(stating(load_fleet(MONITORS), whole=whole, eta=policy), able)
    spent = {model: pages for model, pages in found.items() if model in able}
    assert all(pages > 0 for pages in found.values())
    assert sum(spent.values()) <= whole * (1 + 1e-9)
    if family is not None:
        assert spent.get(DE, 0.0) + spent.get(FR, 0.0) <= family * (1 + 1e-9)
    if market is not None:
        assert found[DE] == market


def test_who_can_page(eta: Family) -> None:
    """A champion, something to page on, no open incident, and a model that can be looked at."""
    head = Head(model=DE, epoch=1, version=1, digest="d", artifact="a")
    quiet = ModelHistory(head=head)
    assert can_page(eta, quiet)
    assert not can_page(eta, ModelHistory())
    mute = eta.model_copy(update={"budget": BudgetPolicy(page_on=())})
    assert not can_page(mute, quiet)
    nulls = Reading(
        kind=Kind.QUALITY, metric="null_share", column="load", value=0.9, n=99, baseline=0.0
    )
    gone = Reading(
        kind=Kind.QUALITY, metric=LOOKED, column=None, value=None, n=0, problem="the disk is gone"
    )
    for reading in (nulls, gone):
        made = decide(
            family=eta,
            window=window_at(eta, DE, now=NOW),
            readings=[reading],
            history=quiet,
            now=NOW,
        )
        assert not can_page(eta, replace(quiet, decisions=(made,)))


def test_a_look_stands_for_the_time_since_the_last_and_no_more_than_a_cadence(eta: Family) -> None:
    """So many looks a week as the cadence has add up to the rate, however late they come."""
    day = timedelta(days=1)
    assert weight_of(eta, DE, rate=7.0, last=None, now=NOW) == pytest.approx(1.0)
    assert weight_of(eta, DE, rate=7.0, last=NOW - day / 2, now=NOW) == pytest.approx(0.5)
    assert weight_of(eta, DE, rate=7.0, last=NOW - 9 * day, now=NOW) == pytest.approx(1.0)
    assert weight_of(eta, DE, rate=7.0, last=NOW + day, now=NOW) == 0.0
    assert weight_of(eta, DE, rate=None, last=None, now=NOW) == pytest.approx(1 / 2 / 7)


def test_what_a_family_may_spend_is_told(fleet: Fleet) -> None:
    """In `driftloop check`: of the family, of each model, and on what."""
    eta = BudgetPolicy(markets={"de": 0.5}, page_on=("harm",))
    told = stating(fleet, eta=eta)
    assert spending(told, told.family_named("eta")) == (
        "false pages a week: at most 0.75 (0.25 a model, 0.5 of eta-de), on harm"
    )
    mute = stating(fleet, eta=BudgetPolicy(page_on=()))
    assert spending(mute, mute.family_named("eta")) == "pages on nothing"


def denial(days: float, *models: ModelId, incident: str = "", act: Act = Act.NO_PROBLEM) -> Acted:
    """Return that somebody did something about a page of `models`, `days` ago."""
    at = NOW - timedelta(days=days)
    named = incident or f"{models[0]}/{days}"
    return Acted(model=models[0], at=at, incident=named, act=act, who="ada", models=models)


def test_a_denied_page_counts_once_and_for_four_weeks() -> None:
    """Of its time, its act, and once however many people said so."""
    acts = [
        denial(29, DE),
        denial(27, DE, FR),
        denial(3, UK, incident="same"),
        denial(2, UK, incident="same"),
        denial(1, UK, act=Act.RESOLVE),
        denial(-1, UK),
    ]
    assert denied_pages(acts, NOW) == ((DE, FR), (UK,))


def test_who_denies_more_pages_than_the_budget_bears_is_paged_for_more(fleet: Fleet) -> None:
    """Eight denied where four weeks bear four: half. Others keep theirs; so do those within."""
    apart = stating(fleet, whole=2.0, eta=BudgetPolicy(false_pages_per_week=1.0))
    before = rates(apart, apart.models)
    assert rates(apart, apart.models, [[DE]] * 4) == before
    after = rates(apart, apart.models, [[DE, FR]] * 3 + [[DE]] * 5)
    assert after == pytest.approx({DE: before[DE] / 2, FR: before[FR] / 2, UK: before[UK]})


@given(pages=st.lists(st.sets(st.sampled_from([DE, FR, UK]), min_size=1), max_size=30))
def test_denials_never_give_more(pages: list[set[ModelId]]) -> None:
    """Whatever people deny, nobody may page more than before, and everybody may still page."""
    from conftest import MONITORS

    from driftloop.spec import load_fleet

    fleet = load_fleet(MONITORS)
    before, after = rates(fleet, fleet.models), rates(fleet, fleet.models, pages)
    assert all(0 < after[model] <= before[model] for model in before)


def test_check_says_what_was_denied(fleet: Fleet) -> None:
    """How many pages, and that the budget is cut down for them; nothing where there are none."""
    eta = next(family for family in fleet.families if family.name == "eta")
    assert "denied" not in spending(fleet, eta)
    few, many = spending(fleet, eta, [[DE]]), spending(fleet, eta, [[DE]] * 9)
    assert few.endswith("people denied 1 page in 28 days")
    assert many.endswith("people denied 9 pages in 28 days, so it is cut down")
