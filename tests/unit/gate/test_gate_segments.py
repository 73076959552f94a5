"""A gain on the whole does not buy harm to a part."""

import numpy as np
import pytest

from driftloop.gate import Beside, compare
from driftloop.records import GateResult, Task
from driftloop.spec import GatePolicy

POLICY = GatePolicy(holdout="7d", min_rows=30, margin=0.0, confidence=0.8)
DAYS = 7


def judged(
    rng: np.random.Generator, worse: dict[str, float], rows: dict[str, int], **changed: float
) -> GateResult:
    """The verdict on a candidate that errs 40 % less but for the carriers that it is worse in."""
    carrier = np.repeat(list(rows), list(rows.values()))
    rng.shuffle(carrier)
    day = np.arange(carrier.size) % DAYS
    champion = rng.normal(0, 8, carrier.size)
    times = np.array([worse.get(name, 0.6) for name in carrier])
    candidate = times * (champion * np.sqrt(15 / 16) + rng.normal(0, 2, carrier.size))
    return compare(
        np.zeros(carrier.size),
        champion,
        candidate,
        day,
        task=Task.REGRESSION,
        policy=POLICY.model_copy(update=changed),
        beside=Beside(segments={"carrier": carrier.tolist()}),
    )


def test_a_segment_that_is_certainly_worse_refuses_the_candidate() -> None:
    """It is named, with both losses, its rows and what is allowed."""
    rng = np.random.default_rng(1)
    result = judged(rng, {"AA": 1.6}, {"AA": 200, "UA": 800, "DL": 500})
    assert result.gain > 0.2
    assert not result.passed
    assert "clears the margin" in result.reason
    assert ", but carrier=AA is worse for certain: " in result.reason
    assert result.reason.endswith(" on 200 rows, and 10% more is allowed")


def test_a_larger_tolerance_lets_it_through() -> None:
    """What an owner allows is allowed."""
    rng = np.random.default_rng(1)
    rows = {"AA": 200, "UA": 800, "DL": 500}
    assert judged(rng, {"AA": 1.6}, rows, segment_margin=1.0).passed


@pytest.mark.parametrize(
    ("worse", "rows"),
    [
        ({}, {"AA": 200, "UA": 800}),
        ({"AA": 1.6}, {"AA": 29, "UA": 800}),
        ({"AA": 1.05}, {"AA": 200, "UA": 800}),
    ],
    ids=["none-is-worse", "too-few-rows", "within-the-tolerance"],
)
def test_no_harm_for_certain_is_no_reason_to_refuse(
    worse: dict[str, float], rows: dict[str, int]
) -> None:
    """Better everywhere, worse on too few rows to tell, or by no more than is allowed."""
    assert judged(np.random.default_rng(2), worse, rows).passed


def test_many_segments_do_not_make_harm_up() -> None:
    """Twenty equal segments, each exactly as much worse as is allowed: at most 10 % are refused."""
    rng = np.random.default_rng(3)
    names = [f"c{n}" for n in range(20)]
    refused = 0
    for _ in range(100):
        result = judged(rng, dict.fromkeys(names, 1.1), {**dict.fromkeys(names, 40), "big": 4000})
        assert "clears the margin" in result.reason
        refused += not result.passed
    assert refused <= 10 + 9


def test_a_champion_without_error_in_a_segment_is_no_exception() -> None:
    """Classes that were all right in a segment and now are not: harm, though no ratio says so."""
    rng = np.random.default_rng(4)
    label = rng.integers(0, 3, 1400) * 1.0
    small, day = np.arange(1400) % 10 == 0, np.arange(1400) // 200
    champion = np.where(small | (rng.random(1400) < 0.5), label, (label + 1) % 3)
    candidate = np.where(small & (rng.random(1400) < 0.4), (label + 1) % 3, label)
    levels = ["odd" if one else None for one in small.tolist()]
    result = compare(
        label,
        champion,
        candidate,
        day,
        task=Task.MULTICLASS,
        policy=POLICY,
        beside=Beside(segments={"kind": levels}),
    )
    assert not result.passed
    assert "kind=odd is worse for certain: 0 for the champion" in result.reason


def test_segments_of_other_rows_are_a_mistake() -> None:
    """One level for each row."""
    zero = np.zeros(70)
    with pytest.raises(ValueError, match="every segment must have one value for each row"):
        compare(
            zero,
            zero + 2,
            zero + 1,
            np.arange(70) % 7,
            task=Task.REGRESSION,
            policy=POLICY,
            beside=Beside(segments={"carrier": ["AA"]}),
        )
