from datetime import UTC, datetime

import pytest

from driftloop.judge import expected_gain
from driftloop.records import Decision, Kind, Level, ModelId, Reading, State, Verdict, Window

AT = datetime(2026, 3, 1, tzinfo=UTC)
DE = ModelId("eta-de")


def decided(metric: str, value: float | None, baseline: float | None) -> Decision:
    reading = Reading(
        kind=Kind.DECAY, metric=metric, column=None, value=value, n=100, baseline=baseline
    )
    return Decision(
        version=1,
        key="eta-de/1",
        model=DE,
        at=AT,
        state=State.DECAYING,
        reason="worse",
        window=Window(model=DE, start=AT, end=AT, known_at=AT),
        verdicts=(Verdict(reading=reading, level=Level.ALARM, limit=0.2, reason="worse"),),
        retrain=True,
    )


@pytest.mark.parametrize(
    ("metric", "value", "baseline", "gain"),
    [
        ("mae", 15.0, 10.0, 0.5),
        ("mae", 9.0, 10.0, 0.0),
        ("roc_auc", 0.6, 0.8, 0.25),
        ("roc_auc", 0.9, 0.8, 0.0),
        ("mae", None, 10.0, 0.0),
        ("mae", 15.0, None, 0.0),
    ],
)
def test_a_gain_is_what_was_lost(
    metric: str, value: float | None, baseline: float | None, gain: float
) -> None:
    """Whatever way is better, by the share of the baseline; unknown is nothing."""
    assert expected_gain(decided(metric, value, baseline)) == pytest.approx(gain)
