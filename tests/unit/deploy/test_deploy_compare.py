import numpy as np
import pytest

from driftloop.deploy import errors, latency, quality, scores, unpaired
from driftloop.latencies import BINS, bin_of
from driftloop.records import Counts, Harm
from driftloop.sequential import Paired, looked_at

SURE = 0.9976


def timed(seconds: np.ndarray) -> Counts:
    counted = [0] * BINS
    for each in seconds:
        counted[bin_of(float(each))] += 1
    return Counts(requests=len(seconds), seconds=tuple(counted))


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(1)


@pytest.mark.parametrize(
    ("failed", "of", "harm"),
    [
        (0, 1000, Harm.NONE),
        (60, 1000, Harm.CERTAIN),
        (12, 1000, Harm.UNSURE),
        (0, 100, Harm.UNSURE),
        (0, 0, Harm.UNSURE),
    ],
)
def test_failures_are_harm_once_certain_and_fine_once_certain(
    failed: int, of: int, harm: Harm
) -> None:
    """A clean challenger passes on 1000 requests; few requests, or a few failures, are unsure."""
    challenger, champion = Counts(requests=of, errors=failed), Counts(requests=1000)
    found = errors(challenger, champion, limit=0.01, confidence=SURE)
    assert found.harm is harm


def test_of_too_few_requests_it_is_said_how_many_might_do() -> None:
    """So many do, failing as they did; of one that seems to fail too often nothing is promised."""
    sure = looked_at(0.95, 202, first=1000)
    few = errors(Counts(requests=202), Counts(requests=1800), limit=0.01, confidence=sure)
    assert few.said.endswith("limit +1.0%; too few to tell: about 1200 might do")
    enough = errors(Counts(requests=1200), Counts(requests=10_800), limit=0.01, confidence=sure)
    assert (few.harm, enough.harm) == (Harm.UNSURE, Harm.NONE)
    assert "too few" not in enough.said
    bad = errors(Counts(requests=202, errors=4), Counts(requests=202), limit=0.01, confidence=sure)
    assert bad.harm is Harm.UNSURE
    assert "too few" not in bad.said


def test_a_champion_that_fails_as_often_excuses_the_challenger() -> None:
    """It is the difference that counts, as when what both look up is down."""
    bad = Counts(requests=5000, errors=1000)
    assert errors(bad, bad, limit=0.05, confidence=SURE).harm is Harm.NONE


@pytest.mark.parametrize("share", [0.5, 0.99])
def test_a_slower_challenger_is_found_and_a_like_one_is_fine(
    share: float, rng: np.random.Generator
) -> None:
    """Three times as slow is harm at either percentile, as slow is not."""
    usual = timed(rng.lognormal(np.log(0.01), 0.3, 3000))
    slow = timed(rng.lognormal(np.log(0.03), 0.3, 3000))
    like = timed(rng.lognormal(np.log(0.01), 0.3, 3000))
    assert latency(share, slow, usual, limit=2.0, confidence=SURE).harm is Harm.CERTAIN
    assert latency(share, like, usual, limit=2.0, confidence=SURE).harm is Harm.NONE


def test_a_slow_tail_shows_at_p99_alone(rng: np.random.Generator) -> None:
    """Three requests of a hundred that take ten times as long are no matter of the median."""
    usual = rng.lognormal(np.log(0.01), 0.1, 4000)
    tail = usual * np.where(np.arange(4000) % 33 == 0, 10.0, 1.0)
    assert latency(0.5, timed(tail), timed(usual), limit=2.0, confidence=SURE).harm is Harm.NONE
    found = latency(0.99, timed(tail), timed(usual), limit=2.0, confidence=SURE)
    assert found.harm is Harm.CERTAIN


def test_microseconds_are_nobodys_wait(rng: np.random.Generator) -> None:
    """Five times 20 us is 80 us more: below a millisecond it is no harm, whatever the ratio."""
    quick, slower = timed(np.full(2000, 2e-5)), timed(np.full(2000, 1e-4))
    assert latency(0.5, slower, quick, limit=2.0, confidence=SURE).harm is Harm.NONE


def test_few_requests_tell_no_p99() -> None:
    """Of 100 nobody knows how high the highest hundredth goes."""
    few = timed(np.full(100, 0.01))
    found = latency(0.99, few, few, limit=2.0, confidence=SURE)
    assert (found.harm, found.high) == (Harm.UNSURE, np.inf)


@pytest.mark.parametrize("paired", [True, False])
def test_answers_that_lie_elsewhere_are_found(paired: bool, rng: np.random.Generator) -> None:  # noqa: FBT001
    """A shift by two deviations is harm, and so is one constant answer; a little noise is not."""
    usual = rng.normal(50.0, 10.0, 2000)
    for harmful in (usual + 20.0, np.full(2000, 50.0)):
        found = scores(harmful, usual, paired=paired, limit=0.3, confidence=SURE)
        assert found.harm is Harm.CERTAIN
    near = scores(usual + rng.normal(0, 1, 2000), usual, paired=paired, limit=0.3, confidence=SURE)
    assert near.harm is Harm.NONE


def test_the_same_rows_tell_more_than_others(rng: np.random.Generator) -> None:
    """Paired, the interval is a fraction as wide."""
    usual = rng.normal(50.0, 10.0, 1000)
    near = usual + rng.normal(0.0, 1.0, 1000)
    widths = []
    for paired in (True, False):
        found = scores(near, usual, paired=paired, limit=0.3, confidence=SURE)
        assert found.low is not None
        assert found.high is not None
        widths.append(found.high - found.low)
    assert widths[0] < 0.6 * widths[1]


def test_classes_are_compared_by_their_shares(rng: np.random.Generator) -> None:
    """One class answered for another is seen, also where the two lie far apart in the list."""
    usual = rng.integers(0, 4, 4000).astype(float)
    swapped = np.where(usual == 3.0, 0.0, usual)
    found = scores(swapped, usual, paired=True, classes=4, limit=0.1, confidence=SURE)
    assert found.harm is Harm.CERTAIN
    assert found.value == pytest.approx(0.25, abs=0.03)


def test_quality_on_the_same_rows_is_the_gates_with_its_sign_turned() -> None:
    """A loss that is certainly a tenth larger is beyond a limit of a twentieth."""
    result = Paired(loss="mae", n=500, gain=-0.1, low=-0.12, high=-0.08)
    found = quality(result, limit=0.05)
    assert (found.harm, found.low, found.high) == (Harm.CERTAIN, 0.08, 0.12)


def test_what_could_not_be_compared_is_unsure() -> None:
    """With its reason."""
    result = Paired(loss="mae", n=500, gain=-0.1, problem="all rows are of one day")
    found = quality(result, limit=0.05)
    assert (found.harm, found.said) == (Harm.UNSURE, "all rows are of one day")


def test_quality_of_each_ones_own_rows(rng: np.random.Generator) -> None:
    """Twice the loss is certain harm on 500 rows each, the same loss on 5000 is fine."""
    usual = rng.exponential(1.0, 5000)

    def harm(worse: float, n: int) -> Harm:
        mine = worse * rng.exponential(1.0, n)
        return unpaired(mine, usual, loss="mae", limit=0.15, confidence=SURE).harm

    assert harm(2.0, 500) is Harm.CERTAIN
    assert harm(1.0, 5000) is Harm.NONE
    assert harm(1.0, 1) is Harm.UNSURE
