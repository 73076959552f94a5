"""Scores, judged: no labels are missed, and drift that lasts is what opens an incident."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from driftloop.judge import decide, window_at
from driftloop.loop.notices import Places, opened, recovered
from driftloop.records import Decision, Kind, ModelHistory, ModelId, Reading, State
from driftloop.spec import Family, Owner

UK = ModelId("risk-uk")
NOW = datetime(2026, 3, 1, tzinfo=UTC)
OWNER = Owner(channel="#risk")
PLACES = Places(pages="http://pages", prefect="http://prefect")
VOLUME = Reading(kind=Kind.QUALITY, metric="volume", column=None, value=100.0, n=100)


def shift(value: float | None, column: str = "prediction", *, n: int = 100) -> Reading:
    problem = None if value is not None else "prediction has no values in the window"
    return Reading(
        kind=Kind.DRIFT,
        metric="wasserstein",
        column=column,
        value=value,
        n=n,
        p_value=1e-9,
        problem=problem,
    )


def decision(
    family: Family, *readings: Reading, before: tuple[Decision, ...] = (), days: int = 0
) -> Decision:
    now = NOW + timedelta(days=days)
    return decide(
        family=family,
        window=window_at(family, UK, now=now),
        readings=(VOLUME, *readings),
        history=ModelHistory(decisions=before),
        now=now,
    )


def test_scores_need_no_labels_to_be_fresh(risk: Family) -> None:
    """Their distance from the reference is what is judged, and said."""
    found = decision(risk, shift(0.02), shift(0.2, "spend"))
    assert (found.state, found.opens) == (State.FRESH, False)
    assert found.reason == "fresh: prediction: Wasserstein distance 0.02, n=100"


@pytest.mark.parametrize("reading", [shift(None, n=0), shift(0.02, n=10)])
def test_without_scores_it_is_blind(risk: Family, reading: Reading) -> None:
    """Too few of them, or none, is not fresh; neither is nothing at all."""
    assert decision(risk, reading).state is State.BLIND
    assert decision(risk).state is State.BLIND


def test_drift_that_lasts_opens_an_incident(risk: Family) -> None:
    """After as many decisions as the policy says, and with nothing to be retrained."""
    patient = risk.hysteresis.model_copy(update={"open_after": 2})
    risk = risk.model_copy(update={"hysteresis": patient})
    first = decision(risk, shift(0.5))
    assert (first.state, first.opens) == (State.DRIFTING, False)
    second = decision(risk, shift(0.5), before=(first,), days=1)
    assert second.opens
    assert second.since == first.at
    assert not second.retrain
    page = opened(second, risk, OWNER, PLACES)
    assert page.headline == "risk-uk: its scores have drifted: Wasserstein distance 0.5, limit 0.25"
    assert page.doing == "Watching; the policy does not retrain for this."
    assert [line.what for line in page.evidence] == ["Wasserstein distance of prediction"]


def test_many_features_that_drift_do_too(risk: Family) -> None:
    """Before the scores themselves move; a single one of three does not."""
    tenure, spend = shift(0.4, "tenure"), shift(0.6, "spend")
    found = decision(risk, shift(0.02), tenure, spend)
    assert found.opens
    page = opened(found, risk, OWNER, PLACES)
    assert page.headline == (
        "risk-uk: spend has drifted: Wasserstein distance 0.6, limit 0.25, and 1 columns more"
    )
    few = risk.model_copy(update={"drift": risk.drift.model_copy(update={"columns": 0.5})})
    assert decision(few, shift(0.02), tenure).state is State.FRESH


def test_it_is_over_once_the_scores_are_clearly_back(risk: Family) -> None:
    """A warning is no calm; the page that ends it says how the scores lie."""
    bad = decision(risk, shift(0.5))
    warned = decision(risk, shift(0.2), before=(bad,), days=1)
    assert (warned.state, warned.calm, warned.alarms) == (State.FRESH, 0, 0)
    calm = decision(risk, shift(0.02), before=(bad, warned), days=2)
    assert (calm.calm, calm.resolves) == (1, None)
    over = decision(risk, shift(0.02), before=(bad, warned, calm), days=3)
    assert over.resolves == bad.incident
    end = recovered(over, risk, OWNER, PLACES)
    assert [line.what for line in end.evidence] == ["Wasserstein distance of prediction"]


def test_of_other_tasks_drift_opens_nothing(churn: Family) -> None:
    """There labels tell the harm, and drift alone is none."""
    loss = Reading(kind=Kind.DECAY, metric="log_loss", column=None, value=0.5, n=100, baseline=0.5)
    found = decision(churn, loss, shift(0.5))
    assert (found.state, found.opens) == (State.DRIFTING, False)


def test_bad_data_of_scores_is_a_data_fault(risk: Family) -> None:
    """As of any other model."""
    nulls = replace(VOLUME, metric="null_share", column="spend", value=0.9, baseline=0.0)
    assert decision(risk, shift(0.5), nulls).state is State.DATA_FAULT
