"""The gate lets a truly better candidate through and no other."""

import numpy as np
import pytest

from driftloop.gate import compare
from driftloop.records import GateResult, Task
from driftloop.spec import GatePolicy

POLICY = GatePolicy(holdout="7d", min_rows=30, margin=0.0, confidence=0.9)


def fortnight(
    rng: np.random.Generator, *, days: int = 14, rows: int = 40
) -> tuple[np.ndarray, np.ndarray]:
    """Labels of a fortnight, each day with a shock that no model foresees."""
    day = np.repeat(np.arange(days), rows)
    label = 100 + rng.normal(0, 10, day.size) + rng.normal(0, 3, days)[day]
    return label, day


def judged(
    label: np.ndarray,
    champion: np.ndarray | None,
    candidate: np.ndarray,
    day: np.ndarray,
    **changed: float,
) -> GateResult:
    """The verdict on a regression under the policy, changed where said."""
    policy = POLICY.model_copy(update=changed)
    return compare(label, champion, candidate, day, task=Task.REGRESSION, policy=policy)


def test_equal_models_pass_no_more_often_than_the_confidence_allows() -> None:
    """Two models of equal worth, with day shocks of their own: at most 5 % pass, give or take."""
    rng = np.random.default_rng(7)
    trials, passed = 1000, 0
    for _ in range(trials):
        label, day = fortnight(rng)
        # Each model has good and bad days of its own: rows of one day are not independent.
        first = label + rng.normal(0, 8, day.size) + rng.normal(0, 4, 14)[day]
        second = label + rng.normal(0, 8, day.size) + rng.normal(0, 4, 14)[day]
        passed += judged(label, first, second, day).passed
    assert 0.02 <= passed / trials <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / trials)


def test_the_interval_covers_the_true_gain_as_often_as_it_says() -> None:
    """A candidate with a true gain of 25 % lies inside a 90 % interval in about 90 % of trials."""
    rng = np.random.default_rng(8)
    inside = 0
    for _ in range(500):
        label, day = fortnight(rng)
        result = judged(
            label, label + rng.normal(0, 8, day.size), label + rng.normal(0, 6, day.size), day
        )
        inside += result.low <= 0.25 <= result.high
    assert 0.86 <= inside / 500 <= 0.94


def test_a_truly_better_regression_passes_and_says_by_how_much() -> None:
    """A third less noise passes, with gain, interval, rows and days in the reason."""
    rng = np.random.default_rng(1)
    label, day = fortnight(rng)
    result = judged(
        label, label + rng.normal(0, 9, day.size), label + rng.normal(0, 6, day.size), day
    )
    assert result.passed
    assert result.loss == "mae"
    assert result.low > 0.2
    assert result.low < result.gain < result.high
    assert result.gain == pytest.approx(1 - result.candidate_loss / result.champion_loss)
    assert "560 rows of 14 days" in result.reason
    assert "clears the margin of +0.0%" in result.reason


def test_a_truly_better_classifier_passes() -> None:
    """Probabilities nearer to the truth pass in log loss."""
    rng = np.random.default_rng(2)
    truth = rng.uniform(0.05, 0.95, 1400)
    label = (rng.random(1400) < truth).astype(float)
    day = np.arange(1400) // 100
    result = compare(label, truth**3, truth, day, task=Task.BINARY, policy=POLICY)
    assert result.passed
    assert result.loss == "log_loss"


@pytest.mark.parametrize("how", ["shuffled", "constant", "scaled"])
def test_a_corrupted_candidate_is_refused(how: str) -> None:
    """Answers in the wrong order, one answer for all, or in another unit never pass."""
    rng = np.random.default_rng(3)
    label, day = fortnight(rng)
    good = label + rng.normal(0, 5, day.size)
    bad = {
        "shuffled": rng.permutation(good),
        "constant": np.full(day.size, label.mean()),
        "scaled": good * 60,
    }[how]
    result = judged(label, label + rng.normal(0, 5, day.size), bad, day)
    assert not result.passed
    assert result.gain < 0
    assert "falls short" in result.reason


def test_better_but_not_by_the_margin_is_refused() -> None:
    """A certain gain of about 11 % does not reach a margin of 20 %, and passes one of 0."""
    rng = np.random.default_rng(4)
    label, day = fortnight(rng, rows=400)
    before = label + rng.normal(0, 9, day.size)
    after = label + rng.normal(0, 8, day.size)
    assert judged(label, before, after, day).passed
    refused = judged(label, before, after, day, margin=0.2)
    assert not refused.passed
    assert "falls short of the margin of +20.0%" in refused.reason


def test_one_good_day_is_not_enough() -> None:
    """A gain that all comes from one day of many rows does not pass: days are counted, not rows."""
    rng = np.random.default_rng(5)
    day = np.repeat(np.arange(7), 200)
    label = rng.normal(0, 1, day.size)
    before = label + rng.choice([-1.0, 1.0], day.size) * 5
    after = np.where(day == 3, label, before)
    result = judged(label, before, after, day)
    assert result.gain > 0.1
    assert not result.passed


def test_too_few_labelled_rows_are_refused() -> None:
    """Rows without a label do not count; below the minimum nothing is compared."""
    label = np.r_[np.ones(29), np.full(100, np.nan)]
    result = judged(label, label + 9, label, np.arange(129) % 7)
    assert (result.passed, result.n) == (False, 29)
    assert result.reason == "only 29 labelled rows are held out, and the gate needs 30"


def test_rows_of_a_single_day_are_refused() -> None:
    """One day has no variance between days: refused, with the gain for information."""
    label = np.arange(100.0)
    result = judged(label, label + 9, label + 1, np.zeros(100))
    assert not result.passed
    assert result.gain == pytest.approx(8 / 9)
    assert "all 100 rows are of one day" in result.reason


@pytest.mark.parametrize(("task", "value"), [(Task.BINARY, 0.5), (Task.REGRESSION, np.inf)])
def test_labels_that_cannot_be_are_refused(task: Task, value: float) -> None:
    """Half an outcome or an infinite target: refused with the count, and no loss is made up."""
    label = np.arange(100) % 2 * 1.0
    label[3] = value
    answer = np.full(100, 0.5)
    result = compare(label, answer, answer, np.arange(100) % 7, task=task, policy=POLICY)
    assert (result.passed, result.candidate_loss) == (False, None)
    assert result.reason.startswith("1 of 100 labels cannot be")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_answer_that_is_no_number_is_refused(value: float) -> None:
    """One NaN or infinity among the candidate's answers, and it is refused, first or not."""
    label = np.arange(100.0)
    answer = label.copy()
    answer[3] = value
    for champion in (label + 50, None):
        result = judged(label, champion, answer, np.arange(100) % 7)
        assert not result.passed
        assert result.reason == "the candidate answers no finite number on 1 of 100 rows"


def test_what_is_no_probability_is_refused() -> None:
    """A binary candidate that answers outside of 0 to 1 is refused, however good it looks."""
    label = np.arange(100) % 2 * 1.0
    result = compare(
        label,
        np.full(100, 0.5),
        label * 1.2,
        np.arange(100) % 7,
        task=Task.BINARY,
        policy=POLICY,
    )
    assert not result.passed
    assert "no probability on 50 of 100 rows" in result.reason


def test_a_champion_that_answers_nan_is_no_fair_comparison() -> None:
    """A broken champion is said to be broken; nothing is promoted on guesses."""
    label = np.arange(100.0)
    champion = np.where(label == 5, np.nan, label + 3)
    result = judged(label, champion, label, np.arange(100) % 7)
    assert not result.passed
    assert "the champion answers no finite number on 1 of 100 rows" in result.reason


def test_a_faultless_champion_cannot_be_beaten() -> None:
    """A champion without error stays: the relative gain would divide by nothing."""
    label = np.arange(100.0)
    result = judged(label, label, label, np.arange(100) % 7)
    assert not result.passed
    assert result.gain is None
    assert "nothing to gain" in result.reason


@pytest.mark.parametrize("task", [task for task in Task if task is not Task.SCORE])
def test_the_first_version_must_not_lose_to_a_constant(task: Task) -> None:
    """Without a champion, answers worth something pass and shuffled ones do not."""
    rng = np.random.default_rng(6)
    day = np.arange(700) // 100
    if task is Task.BINARY:
        answer = rng.uniform(0.02, 0.6, 700)
        label = (rng.random(700) < answer) * 1.0
    elif task is Task.MULTICLASS:
        label = np.where(rng.random(700) < 0.5, 1, rng.integers(0, 4, 700)) * 1.0
        answer = np.where(rng.random(700) < 0.8, label, rng.integers(0, 4, 700))
    else:
        answer = rng.normal(50, 10, 700)
        label = answer + rng.normal(0, 5, 700)
    good = compare(label, None, answer, day, task=task, policy=POLICY)
    shuffled = compare(label, None, rng.permutation(answer), day, task=task, policy=POLICY)
    assert good.passed
    assert (good.champion_loss, good.gain, good.low) == (None, None, None)
    assert "against always answering" in good.reason
    assert not shuffled.passed
    assert "worse for certain" in shuffled.reason


def classes(rng: np.random.Generator, label: np.ndarray, right: float) -> np.ndarray:
    """Answers of which a share is right, and the others are the next class."""
    return np.where(rng.random(label.size) < right, label, (label + 1) % 5)


def test_classes_are_compared_by_how_many_are_wrong() -> None:
    """However far apart their indexes are; better passes, as good does not."""
    rng = np.random.default_rng(3)
    label, day = rng.integers(0, 5, 1400) * 1.0, np.arange(1400) // 100
    worse, better = classes(rng, label, 0.7), classes(rng, label, 0.85)
    result = compare(label, worse, better, day, task=Task.MULTICLASS, policy=POLICY)
    assert result.passed
    assert result.loss == "misclassified"
    assert result.champion_loss == (worse != label).mean()
    assert result.candidate_loss == (better != label).mean()
    assert "share misclassified" in result.reason
    assert not compare(label, better, worse, day, task=Task.MULTICLASS, policy=POLICY).passed


@pytest.mark.parametrize("odd", [-1.0, 1.5, np.inf])
def test_what_is_no_class_is_not_compared(odd: float) -> None:
    """Neither as a label nor as an answer; how many there are is said."""
    label, day = np.arange(100) % 3 * 1.0, np.arange(100) % 7
    spoilt = np.where(np.arange(100) == 5, odd, label)
    result = compare(spoilt, label, label, day, task=Task.MULTICLASS, policy=POLICY)
    assert result.reason == "1 of 100 labels cannot be: a class is a whole number from 0 on"
    result = compare(label, label, spoilt, day, task=Task.MULTICLASS, policy=POLICY)
    assert result.reason.startswith("the candidate answers no ")
    assert result.reason.endswith(" on 1 of 100 rows")


def test_scores_have_no_gate() -> None:
    """Nothing says which of two is right: to ask is a mistake."""
    with pytest.raises(ValueError, match="no right answer"):
        compare([1.0], None, [1.0], [1], task=Task.SCORE, policy=POLICY)


def test_columns_of_different_length_are_a_mistake() -> None:
    """Answers that do not belong to the labels are never compared."""
    with pytest.raises(ValueError, match="one value for each row"):
        judged(np.ones(40), np.ones(40), np.ones(39), np.ones(40))
