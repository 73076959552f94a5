"""The compute cap: what fits took within a day holds back the next ones, and says so."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from driftloop.loop.budget import Ask, Cap, afforded, caps_of
from driftloop.records import Candidate, Memory, ModelId, Order, Ordered, Trained, Tried, Window
from driftloop.spec import Fleet

AT = datetime(2026, 3, 1, tzinfo=UTC)
DE, FR, UK = ModelId("eta-de"), ModelId("eta-fr"), ModelId("churn-uk")


def order(model: ModelId) -> Order:
    window = Window(model=model, start=AT, end=AT, known_at=AT)
    return Order(key=model, model=model, at=AT, reason="r", window=window, holdout_from=AT, seed=0)


def ask(model: ModelId, gain: float, seconds: float) -> Ask:
    return Ask(order=order(model), gain=gain, seconds=seconds)


def trained(model: ModelId, *seconds: float) -> Trained:
    candidate = Candidate(
        order=order(model),
        digest="d",
        folder="f",
        rows=1,
        holdout_rows=1,
        metrics=(),
        parity=0.0,
        fit_seconds=seconds[0],
        lower_seconds=0.0,
    )
    tried = tuple(Tried(memory=Memory.RECENT, loss=1.0, fit_seconds=each) for each in seconds)
    return Trained(
        model=model, at=AT, version=1, candidate=candidate, tried=tried if tried[1:] else ()
    )


def cap(seconds: float, spent: float, *models: ModelId) -> Cap:
    return Cap(named="the family eta", models=frozenset(models), seconds=seconds, spent=spent)


@pytest.mark.parametrize(
    ("caps", "started"),
    [
        pytest.param([cap(100.0, 0.0, DE, FR)], [DE, FR, UK], id="room-for-all"),
        pytest.param([cap(25.0, 0.0, DE, FR)], [DE, UK], id="others-are-not-held-back"),
        pytest.param([cap(25.0, 16.0, DE, FR)], [UK], id="what-was-spent-counts"),
        pytest.param([cap(5.0, 0.0, DE, FR)], [DE, UK], id="one-that-is-too-large-has-its-turn"),
        pytest.param([cap(30.0, 15.0, DE, FR)], [UK, DE], id="the-largest-gain-first"),
        pytest.param(
            [cap(100.0, 0.0, DE, FR), cap(15.0, 0.0, DE, FR, UK)], [DE], id="the-fleet-has-one-too"
        ),
    ],
)
def test_a_cap_holds_back_its_own_models(caps: list[Cap], started: list[ModelId]) -> None:
    """In order of what they gain: de, fr, uk, each taking ten seconds or more."""
    asks = [ask(DE, 0.9, 10.0), ask(FR, 0.5, 20.0), ask(UK, 0.1, 10.0)]
    now, waits = afforded(asks, None, caps)
    assert {each.order.model for each in now} == set(started)
    assert set(waits) == {DE, FR, UK} - set(started)
    assert all("s in 24 hours, and this may take" in why for why in waits.values())


def test_a_smaller_one_is_not_let_past() -> None:
    """Else a large one might wait for ever for a day that has room for it."""
    now, waits = afforded([ask(DE, 0.9, 50.0), ask(FR, 0.1, 1.0)], None, [cap(60.0, 20.0, DE, FR)])
    assert now == ()
    assert set(waits) == {DE, FR}


def test_caps_say_what_was_spent(fleet: Fleet) -> None:
    """All fits of a renewal count, those under way by what they are likely to take."""
    eta, churn = fleet.families
    if eta.name != "eta":
        eta, churn = churn, eta
    policy = eta.retrain.model_copy(update={"compute_per_day": timedelta(minutes=1)})
    platform = fleet.platform.model_copy(update={"compute_per_day": timedelta(hours=1)})
    capped = replace(
        fleet, families=(eta.model_copy(update={"retrain": policy}), churn), platform=platform
    )
    done = [trained(DE, 3.0, 4.0), trained(UK, 5.0)]
    under_way = [(Ordered(model=FR, at=AT, order=order(FR)), 2.0)]
    family, whole = caps_of(capped, done, under_way)
    assert (family.named, family.seconds, family.spent) == ("the family eta", 60.0, 9.0)
    assert (whole.named, whole.seconds, whole.spent) == ("the fleet", 3600.0, 14.0)
    assert caps_of(fleet, done, under_way) == ()
