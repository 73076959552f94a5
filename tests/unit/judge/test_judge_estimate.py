"""What an estimate may decide, and what it may not."""

from datetime import UTC, datetime

import pytest

from driftloop.judge import decide, expected_gain, judged, window_at
from driftloop.records import (
    DOUBTED,
    Decision,
    Kind,
    Level,
    ModelHistory,
    ModelId,
    Reading,
    State,
)
from driftloop.spec import EstimatePolicy, Family

DE = ModelId("eta-de")
NOW = datetime(2026, 3, 1, tzinfo=UTC)
VOLUME = Reading(kind=Kind.QUALITY, metric="volume", column=None, value=500.0, n=500)


def mae(kind: Kind, value: float | None, *, n: int, low: float | None = None) -> Reading:
    return Reading(kind=kind, metric="mae", column=None, value=value, n=n, low=low, baseline=10.0)


def decided(family: Family, *readings: Reading) -> Decision:
    return decide(
        family=family,
        window=window_at(family, DE, now=NOW),
        readings=[VOLUME, *readings],
        history=ModelHistory(),
        now=NOW,
    )


def test_a_good_estimate_makes_nothing_fresh(eta: Family) -> None:
    """Labels are too few to tell: however good it is believed to be, the model stays BLIND."""
    found = decided(eta, mae(Kind.DECAY, 9.0, n=3), mae(Kind.ESTIMATE, 9.0, n=3, low=8.0))
    assert found.state is State.BLIND


@pytest.mark.parametrize(("low", "state"), [(13.5, State.DECAYING), (12.5, State.BLIND)])
def test_it_alarms_where_its_whole_interval_does(eta: Family, low: float, state: State) -> None:
    """Worse beyond decay.alarm (30 %) at the better end of the interval, and not before."""
    found = decided(eta, mae(Kind.DECAY, None, n=3), mae(Kind.ESTIMATE, 15.0, n=3, low=low))
    assert found.state is state
    if state is State.DECAYING:
        assert expected_gain(found) == pytest.approx(0.5)
        assert "estimated at 15, 50% worse" in found.reason
        assert "n=3 labels" in found.reason


def test_it_decides_nothing_if_so_told(eta: Family) -> None:
    """`estimate.decides = false` leaves it to the labels."""
    family = eta.model_copy(update={"estimate": EstimatePolicy(decides=False)})
    bad = mae(Kind.ESTIMATE, 15.0, n=3, low=14.0)
    assert decided(family, mae(Kind.DECAY, None, n=3), bad).state is State.BLIND


def test_labels_that_were_good_are_no_health_once_newer_ones_deny_them(eta: Family) -> None:
    """The window's labels are fine; what is still to come is in doubt: BLIND, and not FRESH."""
    good = mae(Kind.DECAY, 9.0, n=500, low=8.5)
    doubt = Reading(
        kind=Kind.ESTIMATE, metric=DOUBTED, column=None, value=0.4, n=500, problem="labels deny it"
    )
    assert decided(eta, good).state is State.FRESH
    found = decided(eta, good, doubt)
    assert found.state is State.BLIND
    assert "labels deny it" in found.reason


def test_it_is_never_ok(eta: Family) -> None:
    """An estimate that is good, or unknown, or of a part of the rows, has no verdict at all."""
    good = mae(Kind.ESTIMATE, 9.0, n=50, low=8.0)
    part = Reading(
        kind=Kind.ESTIMATE,
        metric="mae",
        column=None,
        value=20.0,
        n=5,
        low=19.0,
        baseline=10.0,
        segment="age=day",
    )
    verdicts = judged([good, mae(Kind.ESTIMATE, None, n=0), part], eta)
    assert [v.level for v in verdicts if v.level is not Level.BLIND] == []
    assert verdicts == ()
