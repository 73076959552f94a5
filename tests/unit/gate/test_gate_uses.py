"""However often rows are used again, the gate errs as seldom as its policy says."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftloop.gate import Beside, Span, Uses, compare, uses
from driftloop.records import GateResult, Task
from driftloop.sequential import left
from driftloop.spec import GatePolicy
from tests.benchmarks._gates import EVERY, HOLDOUT, Stream, let_through, promotions

POLICY = GatePolicy(holdout="7d", min_rows=30, margin=0.0, confidence=0.8)
DAY = timedelta(days=1)
START = datetime(2026, 3, 1, tzinfo=UTC)


def hours(first: float, last: float) -> np.ndarray:
    """One row an hour, from `first` to before `last`, in days from the start."""
    return np.datetime64("2026-03-01T00:00", "us") + np.arange(
        round(first * 24), round(last * 24)
    ) * np.timedelta64(1, "h")


def span(first: float, last: float) -> Span:
    return Span(start=START + first * DAY, end=START + last * DAY - timedelta(hours=1))


def spent(found: Uses, confidence: float) -> float:
    """The chance that a candidate no better passes: one end of the interval errs by half."""
    return (1.0 - left(confidence, found.all, found.new)) / 2


def test_rows_are_counted_by_the_attempts_that_had_them() -> None:
    """Each row by itself: old ones by all attempts, those of the overlap by some, new ones not."""
    found = uses(hours(0, 9), [span(0, 7), span(1, 8)], block=DAY)
    expected = [1] * 24 + [2] * 6 * 24 + [1] * 24 + [0] * 24
    assert found.all.tolist() == expected
    assert found.new is not None
    assert found.new.tolist() == expected


def test_an_attempt_within_the_same_day_brings_nothing_new() -> None:
    """It has no part in what is kept for attempts that bring a day, and takes nothing of it."""
    again = uses(hours(0, 7), [span(0, 7)], block=DAY)
    assert again.new is None
    later = uses(hours(1, 8), [span(0, 7), span(0, 7)], block=DAY)
    assert later.all.max() == 2
    assert later.new is not None
    assert later.new.max() == 1


def test_rows_that_nobody_used_are_judged_as_ever() -> None:
    """With a cooldown longer than the holdout nothing is changed: no use, the policy's interval."""
    fresh = uses(hours(7, 14), [span(0, 7)], block=DAY)
    assert left(0.8, fresh.all, fresh.new) == 0.8
    assert left(0.8) == 0.8


@given(
    steps=st.lists(st.integers(0, 60), min_size=1, max_size=60),
    length=st.integers(24, 24 * 9),
    confidence=st.floats(0.6, 0.99),
)
def test_what_all_attempts_may_err_is_bounded_by_the_rows_there_were(
    steps: list[int], length: int, confidence: float
) -> None:
    """Whatever their rhythm: at most 1 - confidence for each holdout's worth of rows.

    By Boole's inequality that bounds the wrong promotions, so the sum itself is what is held.
    """
    ends = np.cumsum(steps) + length
    past: list[Span] = []
    total = 0.0
    for end in ends.tolist():
        rows = hours((end - length) / 24, end / 24)
        total += spent(uses(rows, past, block=DAY), confidence)
        past.append(span((end - length) / 24, end / 24))
    distinct = int(np.unique(np.concatenate([np.arange(e - length, e) for e in ends])).size)
    assert total <= (1.0 - confidence) * distinct / length + 1e-9


def test_the_same_rows_for_ever_cost_what_the_policy_says_and_no_more() -> None:
    """Ten thousand attempts on the very same rows sum to less than 1 - confidence."""
    counts = np.arange(10_000)
    total = sum((1.0 - left(0.8, [u], [u])) / 2 for u in counts.tolist())
    assert 0.199 < total < 0.2


def judged(gain: float, beside: Beside, *, confidence: float = 0.8) -> GateResult:
    """The verdict on a candidate whose errors are smaller by `gain`, with some noise."""
    rng = np.random.default_rng(3)
    day = np.repeat(np.arange(7), 40)
    errors = rng.normal(0, 8, day.size)
    mine = (1.0 - gain) * errors + rng.normal(0, 2, day.size)
    policy = POLICY.model_copy(update={"confidence": confidence})
    zero = np.zeros(day.size)
    return compare(zero, errors, mine, day, task=Task.REGRESSION, policy=policy, beside=beside)


def counted(all_: int, new: int | None = None) -> Uses:
    once = np.ones(280, np.int64)
    return Uses(all=all_ * once, new=None if new is None else new * once)


def test_a_small_gain_on_worn_rows_is_refused_and_said_why() -> None:
    """The same numbers pass on fresh rows; the reason names attempts, rows and both levels."""
    fresh = judged(0.08, Beside())
    worn = judged(0.08, Beside(uses=counted(6)))
    assert fresh.passed
    assert not worn.passed
    assert (fresh.gain, fresh.n) == (worn.gain, worn.n)
    assert worn.low < fresh.low
    assert worn.confidence == pytest.approx(1 - 0.2 / 2 * 2 / 7 / 8)
    assert (
        "at 99.6% confidence instead of 80% as up to 6 earlier attempts used 100% of the rows"
        in worn.reason
    )
    assert "instead" not in fresh.reason


def test_a_large_gain_passes_on_worn_rows_too() -> None:
    """Being corrected is not being closed: 30 % less error passes after twenty attempts."""
    assert judged(0.3, Beside(uses=counted(20))).passed


def test_the_best_of_many_candidates_has_to_show_more() -> None:
    """Each of ten that were tried on these rows has a tenth of the error; less than one is odd."""
    many = judged(0.08, Beside(tried=10))
    assert many.confidence == pytest.approx(0.98)
    assert not many.passed
    assert "instead of 80% as it is the best of 10 candidates" in many.reason
    with pytest.raises(ValueError, match="at least the candidate itself"):
        Beside(tried=0)


def test_the_best_of_ten_equal_candidates_passes_seldom() -> None:
    """Picked on the gate's own rows, one of ten no better passes in at most 10 %: 29 % uncorrected.

    Trials of one day's rows each, seven days, errors independent.
    """
    rng = np.random.default_rng(9)
    day, zero, passed, blind = np.repeat(np.arange(7), 20), np.zeros(140), 0, 0
    for _ in range(150):
        champion = rng.normal(0, 8, 140)
        several = [0.8 * champion + 0.6 * rng.normal(0, 8, 140) for _ in range(10)]
        best = min(several, key=lambda errors: float(np.abs(errors).mean()))
        for tried in (1, 10):
            told = compare(
                zero,
                champion,
                best,
                day,
                task=Task.REGRESSION,
                policy=POLICY,
                beside=Beside(tried=tried),
            )
            passed += told.passed and tried == 10
            blind += told.passed and tried == 1
    assert passed <= 0.1 * 150 + 3 * np.sqrt(150 * 0.1 * 0.9)
    assert blind > 2 * passed


def test_uses_of_other_rows_are_a_mistake() -> None:
    """One number for each row, or nothing can be said."""
    with pytest.raises(ValueError, match="one value for each row"):
        judged(0.1, Beside(uses=Uses(all=np.zeros(3, np.int64), new=None)))


@pytest.mark.parametrize(
    ("kind", "every"), [("refits", "hour"), ("refits", "day"), ("twins", "day")]
)
def test_equal_models_do_not_take_turns(kind: str, every: str) -> None:
    """Attempts on overlapping weeks: the old gate's promotions exceed the bound, the new one's not.

    With good and bad days that rows share; the bound is 1 - confidence for each week of rows,
    which leaves three standard errors of a count for chance.
    """
    cycles = 350
    weeks = cycles * EVERY[every] / HOLDOUT + 1
    most = 0.2 * weeks + 3 * np.sqrt(0.2 * weeks)
    new = promotions(Stream(4, 48), EVERY[every], cycles, kind=kind, remembers=True)
    old = promotions(Stream(4, 48), EVERY[every], cycles, kind=kind, remembers=False)
    assert new <= most
    assert old > 2 * new


def test_a_better_model_is_let_through_although_the_rows_are_worn() -> None:
    """A tenth less error, after a week of daily attempts that came to nothing: within ten days."""
    delays = [
        let_through(Stream(seed, 96, better=0.1), EVERY["day"], remembers=True)
        for seed in range(20, 26)
    ]
    assert all(delay is not None and delay <= 10 for delay in delays)
