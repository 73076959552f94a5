"""However often one looks, and however few the blocks: errors are as seldom as they are said."""

from math import erf, sqrt

import numpy as np
import pytest
from scipy.stats import t as student

from driftloop.records import Task
from driftloop.sequential import clustered, left, looked_at, losses, paired, t_quantile


def test_looking_all_the_time_errs_as_seldom_as_promised() -> None:
    """Of 400 challengers like their champions at most 5 % are ever, in 80 looks, accused."""
    rng, accused = np.random.default_rng(1), 0
    for _ in range(400):
        apart = np.cumsum(rng.normal(0.0, 1.0, 4000))
        for n in range(50, 4000, 50):
            z = abs(apart[n - 1]) / np.sqrt(n)
            # As a finding would: beyond the quantile of this look's confidence.
            if _two_sided(z) > looked_at(0.95, n, first=500):
                accused += 1
                break
    assert accused <= 20


def _two_sided(z: float) -> float:
    return erf(z / sqrt(2))


def test_t_quantiles_agree_with_scipy() -> None:
    """Few and many days, usual and extreme confidence: equal to SciPy's to nine digits."""
    for freedom in (1, 2, 3, 6, 7, 13, 30, 365):
        for probability in (0.05, 0.5, 0.75, 0.95, 0.975, 0.9995):
            expected = student.ppf(probability, freedom)
            assert t_quantile(probability, freedom) == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_rare_errors_keep_their_quantiles() -> None:
    """What is left after thousands of uses is tiny, and still right to a millionth."""
    for error in (1e-4, 1e-6, 1e-8):
        expected = student.isf(error, 6)
        assert t_quantile(1.0 - error, 6) == pytest.approx(expected, rel=1e-6)


def test_days_are_counted_and_not_rows() -> None:
    """A hundred times the same row tells no more than the row: the error is that of the days."""
    rng = np.random.default_rng(2)
    day = rng.normal(0, 1, 8)
    found = clustered(np.repeat(day, 100), np.repeat(np.arange(8), 100))
    assert (found.mean, found.blocks, found.freedom) == (pytest.approx(day.mean()), 8, 7)
    assert found.error == pytest.approx(day.std(ddof=1) / np.sqrt(8))


@pytest.mark.parametrize(
    ("sizes", "freedom"),
    [([48] * 7, 6), ([44, 52] * 4, 7), ([47] + [48] * 6 + [1], 6), ([1, 1000], 1)],
    ids=["alike", "nearly-alike", "a-day-just-begun", "one-is-nearly-all"],
)
def test_blocks_that_differ_in_size_count_as_fewer(sizes: list[int], freedom: int) -> None:
    """Else the first minutes of a day would make all that was seen before look surer."""
    block = np.repeat(np.arange(len(sizes)), sizes)
    assert clustered(np.arange(block.size) * 1.0, block).freedom == freedom


def test_one_block_has_no_certainty() -> None:
    """Its error is infinite, and a comparison says so instead of an interval."""
    assert clustered(np.arange(5.0), np.zeros(5)).error == np.inf
    found = paired(
        np.arange(5.0),
        np.ones(5),
        np.arange(5.0),
        np.zeros(5),
        task=Task.REGRESSION,
        confidence=0.9,
        unit="block",
    )
    assert (found.low, found.high) == (None, None)
    assert found.problem.endswith("but all 5 rows are of one block, and certainty needs two")


def test_nothing_labelled_is_said() -> None:
    """Rows whose labels are all to come cannot be compared, and are no error of ours."""
    found = paired([np.nan], [1.0], [1.0], [0], task=Task.BINARY, confidence=0.9)
    assert (found.n, found.gain, found.problem) == (0, None, "no labelled rows")


def test_what_cannot_be_is_told_of_either_model() -> None:
    """As at the gate: the label first, then the candidate's answers, then the champion's."""
    label, good, bad = np.array([0.0, 1.0]), np.array([0.2, 0.7]), np.array([0.2, 1.7])
    block = np.arange(2)
    told = [
        paired(*given, block, task=Task.BINARY, confidence=0.9).problem
        for given in ((label + 0.5, good, good), (label, good, bad), (label, bad, good))
    ]
    assert told == [
        "2 of 2 labels cannot be: an outcome is 0 or 1",
        "the candidate answers no probability on 1 of 2 rows",
        "no fair comparison: the champion answers no probability on 1 of 2 rows",
    ]


def test_a_loss_of_an_unknown_label_is_unknown() -> None:
    """NaN stays NaN; of scores there is no loss to ask for."""
    called, found = losses([1.0, np.nan], [3.0, 3.0], task=Task.REGRESSION)
    assert called == "mae"
    assert found.tolist() == pytest.approx([2.0, np.nan], nan_ok=True)
    with pytest.raises(ValueError, match="no right answer"):
        losses([1.0], [1.0], task=Task.SCORE)


def test_a_purse_that_is_not_drawn_on_gives_nothing() -> None:
    """Half of the error is kept for others; however worn the rows, some is left."""
    assert left(0.8, [0], None) == pytest.approx(0.9)
    assert left(0.8, [10**6], [10**6]) < 1.0
