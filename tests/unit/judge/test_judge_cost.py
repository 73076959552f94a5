"""When a retraining pays: the arithmetic, and what is counted of it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from driftloop.judge import balance, decide, window_at
from driftloop.records import (
    Candidate,
    Kind,
    ModelHistory,
    ModelId,
    Order,
    Reading,
    Trained,
    Window,
)
from driftloop.spec import CostPolicy, Family

DE = ModelId("eta-de")
NOW = datetime(2026, 3, 1, tzinfo=UTC)
RATE = CostPolicy(value=0.05, compute=36.0, risk=2.0, horizon=timedelta(days=7))


def policed(eta: Family, *triggers: str, rate: CostPolicy | None = RATE, **more: object) -> Family:
    update = {"triggers": triggers or ("cost",), "cost": rate, **more}
    return eta.model_copy(update={"retrain": eta.retrain.model_copy(update=update)})


def mae(value: float, *, low: float | None, kind: Kind = Kind.DECAY, n: int = 100) -> Reading:
    return Reading(kind=kind, metric="mae", column=None, value=value, n=n, low=low, baseline=10.0)


def volume(rows: int) -> Reading:
    return Reading(kind=Kind.QUALITY, metric="volume", column=None, value=float(rows), n=rows)


def order_at(at: datetime, key: str = "k") -> Order:
    window = Window(model=DE, start=at, end=at, known_at=at)
    return Order(key=key, model=DE, at=at, reason="r", window=window, holdout_from=at, seed=1)


def trained(at: datetime, *, seconds: float = 100.0) -> Trained:
    candidate = Candidate(
        order=order_at(at, "first"),
        digest="d",
        folder="f",
        rows=1,
        holdout_rows=1,
        metrics=(),
        parity=0.0,
        fit_seconds=seconds,
        lower_seconds=0.0,
    )
    return Trained(model=DE, at=at, version=1, candidate=candidate)


def past(*orders: Order, ago: timedelta = timedelta(days=30)) -> ModelHistory:
    return ModelHistory(orders=orders, champion=trained(NOW - ago))


def test_what_is_avoided_and_what_it_takes(eta: Family) -> None:
    """2 minutes more on 200 rows a day at 0.05 is 20 a day; 100 s at 36 an hour and 2 cost 3."""
    found = balance([volume(2800), mae(12.0, low=11.0)], past(), policed(eta))
    assert found is not None
    assert (found.worse, found.rows_a_day, found.days) == (2.0, 200.0, 7.0)
    assert found.avoided == pytest.approx(20.0)
    assert found.takes == pytest.approx(3.0)
    assert found.pays
    assert str(found) == (
        "mean absolute error is worse by 2 on 200 rows a day; a new version avoids 20 a day, 140 in"
        " 7 days, and costs 3"
    )


def test_it_is_a_reason_to_retrain_with_its_numbers(eta: Family) -> None:
    """A model under every limit of decay is retrained where that pays, and says why."""
    family = policed(eta)
    readings = [volume(2800), mae(10.5, low=10.1)]
    decision = decide(
        family=family,
        window=window_at(family, DE, now=NOW),
        readings=readings,
        history=past(),
        now=NOW,
    )
    assert decision.retrain
    assert "retraining because of cost: mean absolute error is worse by 0.5" in decision.reason
    dear = policed(eta, rate=RATE.model_copy(update={"risk": 100.0}))
    again = decide(
        family=dear,
        window=window_at(dear, DE, now=NOW),
        readings=readings,
        history=past(),
        now=NOW,
    )
    assert not again.retrain


@pytest.mark.parametrize(
    ("reading", "worse"),
    [
        pytest.param(mae(12.0, low=9.9), 0.0, id="may-be-noise"),
        pytest.param(mae(8.0, low=7.0), 0.0, id="better"),
        pytest.param(mae(12.0, low=None), 2.0, id="no-interval"),
        pytest.param(mae(12.0, low=11.0, kind=Kind.ESTIMATE, n=0), 2.0, id="labels-to-come"),
        pytest.param(mae(12.0, low=11.0, n=29), None, id="too-few-labels"),
        pytest.param(replace(mae(12.0, low=11.0), segment="carrier=AA"), None, id="a-segment"),
        pytest.param(replace(mae(12.0, low=11.0), problem="UNKNOWN"), None, id="unknown"),
    ],
)
def test_only_what_is_surely_worse_counts(
    eta: Family, reading: Reading, worse: float | None
) -> None:
    """Of many looks some are worse by chance, and none of these may spend money."""
    found = balance([volume(2800), reading], past(), policed(eta))
    assert (None if found is None else found.worse) == worse


def test_fresh_rows_tell_where_no_window_does(eta: Family) -> None:
    """A worsening by a quarter of the baseline of 10, as a share, is 2.5."""
    fresh = Reading(
        kind=Kind.FRESH, metric="loss", column=None, value=0.25, n=50, low=0.1, baseline=10.0
    )
    found = balance([volume(2800), fresh], past(), policed(eta))
    assert found is not None
    assert found.worse == 2.5


def test_orders_in_vain_make_the_next_one_less_likely_to_gain(eta: Family) -> None:
    """What came to nothing twice is counted for a third, until the champion changes."""
    vain = [order_at(NOW - timedelta(days=days), f"k{days}") for days in (9, 18, 40)]
    readings = [volume(28), mae(12.0, low=11.0)]
    once = balance(readings, past(), policed(eta, rate=CostPolicy(value=0.05, risk=1.0)))
    found = balance(readings, past(*vain), policed(eta, rate=CostPolicy(value=0.05, risk=1.0)))
    assert once is not None
    assert found is not None
    assert found.chance == pytest.approx(1 / 3)
    assert "of which 33% is counted" in str(found)
    assert (once.pays, found.pays) == (True, False)


def test_without_an_exchange_rate_nothing_pays(eta: Family) -> None:
    """Who did not say what an error is worth is not retrained for it."""
    assert balance([volume(2800), mae(99.0, low=50.0)], past(), policed(eta, rate=None)) is None


@pytest.mark.parametrize(
    ("last", "due"),
    [(timedelta(days=8), True), (timedelta(days=6), False), (timedelta(days=7), True)],
)
def test_a_schedule_counts_from_the_last_order(eta: Family, last: timedelta, *, due: bool) -> None:
    """Whatever came of that: a refused candidate is not tried again before its time."""
    family = policed(eta, "schedule", every=timedelta(days=7), cooldown=timedelta(days=1))
    decision = decide(
        family=family,
        window=window_at(family, DE, now=NOW),
        readings=[volume(2800), mae(10.0, low=9.0)],
        history=past(order_at(NOW - last)),
        now=NOW,
    )
    assert decision.retrain is due
    assert ("its schedule" in decision.reason) is due


@pytest.mark.parametrize(
    ("ago", "blocked"),
    [
        pytest.param([6], True, id="one-in-vain-waits-for-a-holdout"),
        pytest.param([8], False, id="and-no-longer"),
        pytest.param([8, 20], True, id="two-wait-twice-as-long"),
        pytest.param([15, 22], False, id="until-then"),
        pytest.param([55, *range(60, 90)], True, id="at-most-eight-times"),
        pytest.param([57, *range(60, 90)], False, id="and-then-tries-again"),
    ],
)
def test_orders_in_vain_wait_for_rows_that_no_attempt_has_used(
    eta: Family, ago: list[int], *, blocked: bool
) -> None:
    """A holdout of 7 days, doubled by each; a change of version ends it."""
    family = policed(eta, "harm", rate=None, cooldown=timedelta(days=1))
    vain = [order_at(NOW - timedelta(days=days), f"k{days}") for days in reversed(ago)]
    decision = decide(
        family=family,
        window=window_at(family, DE, now=NOW),
        readings=[volume(2800), mae(14.0, low=13.0)],
        history=past(*vain, ago=timedelta(days=100)),
        now=NOW,
    )
    assert decision.retrain is not blocked
    assert ("in vain" in (decision.blocked or "")) is blocked


@pytest.mark.parametrize("trigger", ["harm", "decay"])
def test_harm_is_what_decay_was_called(eta: Family, trigger: str) -> None:
    """Monitor files with the old name go on as they are."""
    family = policed(eta, trigger, rate=None)
    decision = decide(
        family=family,
        window=window_at(family, DE, now=NOW),
        readings=[volume(2800), mae(14.0, low=13.0)],
        history=past(),
        now=NOW,
    )
    assert decision.retrain
    assert decision.reason.endswith("retraining because of decay")
