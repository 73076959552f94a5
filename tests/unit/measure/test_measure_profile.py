"""What is usual, learnt of slices, and what slices then tell."""

from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from benchmarks._slices import DAY, STEP, World, held, slices

from driftloop.measure.follow import changed, followed, innovations, lags
from driftloop.measure.learn import profile_of_scores
from driftloop.measure.profile import Profile, Series, joined, profile_of
from driftloop.measure.profile_file import read_profile, write_profile
from driftloop.measure.season import HOURS

TEN = timedelta(minutes=10)
QUIET = {
    "independent": {},
    "noise": {"noise": 0.1},
    "season": {"season": 0.5, "weekend": 0.3},
    "all": {"noise": 0.1, "phi": 0.9, "season": 0.5, "weekend": 0.3},
}


@pytest.mark.parametrize("rows", [1, 30, 5000])
@pytest.mark.parametrize("pattern", QUIET)
def test_no_change_looks_like_none(pattern: str, rows: int) -> None:
    """Over a month z has mean 0, a deviation of 1 and no runs, whatever the season and noise."""
    found = held(World(rows=rows, **QUIET[pattern]), np.random.default_rng(3), k=8)
    assert abs(found.mean) < 0.02
    assert found.sd < 1.06
    assert abs(found.follows) < 0.1
    assert found.days < 1.25


@pytest.mark.parametrize("zone", [0, 7])
@pytest.mark.parametrize("noise", [{}, {"noise": 0.1}, {"noise": 0.1, "phi": 0.9}])
def test_a_weekend_may_begin_at_once(noise: dict[str, float], zone: int) -> None:
    """At any hour UTC, on top of a season or none: z is as quiet in those hours as in others."""
    for season in (0.0, 0.5):
        world = World(rows=5000, season=season, weekend=0.6, zone=zone, **noise)
        found = held(world, np.random.default_rng(12), k=8)
        assert found.sd < 1.1
        assert found.steps < 1.25
        assert found.largest < 5.0


def test_chance_makes_no_steps() -> None:
    """Where levels are smooth hardly any of the 168 full hours of 40 series has one."""
    world = World(rows=200, season=0.5, noise=0.1, phi=0.5)
    times, means = slices(world, np.random.default_rng(13), 28 * DAY, 40)
    profile = profile_of(means, np.full(len(times), 200.0), times, TEN)
    steps = profile.levels[HOURS:]
    assert np.count_nonzero(steps) < 0.003 * steps.size


@pytest.mark.parametrize("moved", [-0.3, 0.1, 0.5])
def test_a_change_is_told_as_large_as_it_is(moved: float) -> None:
    """On average, under season and correlated noise."""
    world = World(rows=200, **QUIET["all"])
    found = held(world, np.random.default_rng(4), k=8, moved=moved)
    assert found.value == pytest.approx(moved, abs=0.02)


def one(**given: float) -> Profile:
    """A profile of one series without a season."""
    usual = dict.fromkeys(("common", "noise", "phi", "white", "skew"), 0.0)
    usual |= {"scatter": 1.0, "unit": 1.0}
    return Profile(
        series=(Series(metric="shift", column="x"),),
        cadence=600.0,
        levels=np.zeros((2 * HOURS, 1)),
        errors=np.zeros((2 * HOURS, 1)),
        **{name: np.array([value]) for name, value in (usual | given).items()},
    )


@pytest.mark.parametrize("share", [1e-4, 0.01, 0.3, 0.99])
@pytest.mark.parametrize("rows", [1, 5, 100, 1000])
def test_bets_on_few_rare_rows_are_fair(share: float, rows: int) -> None:
    """exp(b z - b^2 / 2) is 1 at most on average, for counts of what is rare, however few rows."""
    from scipy.stats import binom

    scatter = share * (1.0 - share)
    profile = one(scatter=scatter, skew=(1.0 - 2.0 * share) / np.sqrt(scatter))
    counts = np.arange(rows + 1)
    left = (counts / rows - share)[:, None]
    found = innovations(profile, left, np.full((rows + 1, 1), float(rows)), np.ones(rows + 1))
    z = (found.told / np.sqrt(found.variance))[:, 0]
    for bet in (-2.0, -1.0, -0.25, 0.25, 1.0, 2.0):
        fair = np.sum(np.exp(binom.logpmf(counts, rows, share) + bet * z - bet**2 / 2.0))
        assert fair <= 1.0 + 1e-9


def test_slices_of_one_look_tell_what_they_would_one_by_one() -> None:
    """Together they are the least squares of what each tells that those before do not."""
    rng = np.random.default_rng(5)
    profile = one(noise=0.01, phi=0.8)
    left, counts = rng.normal(0.0, 0.3, (12, 1)), np.full((12, 1), 40.0)
    apart = innovations(profile, left, counts, np.ones(12))
    together = changed(profile, left, counts, np.ones(12), np.zeros(1), seen=4)
    weight = (apart.moved**2 / apart.variance)[4:, 0]
    each = (apart.told / apart.moved)[4:, 0]
    assert together.value[0] == pytest.approx(np.average(each, weights=weight))
    assert together.error[0] == pytest.approx(1.0 / np.sqrt(weight.sum()))


def test_slices_without_rows_tell_nothing_and_break_nothing() -> None:
    """What is foretold fades over the gap, as the noise does."""
    profile = one(noise=1.0, phi=0.5)
    left = np.array([[2.0], [np.nan], [1.0]])
    counts = np.array([[1e9], [0.0], [1e9]])
    found = innovations(profile, np.nan_to_num(left), counts, np.array([0.0, 1.0, 1.0]))
    assert np.isnan(found.told[1, 0])
    assert found.told[2, 0] == pytest.approx(1.0 - 0.25 * 2.0, abs=1e-6)
    assert found.variance[2, 0] == pytest.approx(1.0 - 0.25**2, abs=1e-6)


def test_only_correlated_noise_asks_for_earlier_slices() -> None:
    """The more it drowns in that of few rows, the more of them."""
    assert lags(one(), 5000) == 0
    assert lags(one(white=0.01), 5000) == 0
    assert lags(one(noise=0.01, phi=0.9), 1e9) == 1
    assert 5 < lags(one(noise=0.01, phi=0.9), 100) <= 24


def test_one_day_tells_nothing_of_how_days_differ() -> None:
    """Then no change is told: its error is infinite."""
    times, means = slices(World(rows=10), np.random.default_rng(6), DAY, 1)
    profile = profile_of(means, np.full(DAY, 10.0), times, TEN)
    assert np.isinf(followed(profile, means, np.full(DAY, 10.0), times).error).all()


@pytest.mark.parametrize("count", [1, 2, 5])
def test_few_slices_are_learnt_of_as_well(count: int) -> None:
    """Fewer than the lags that the noise is told by; they tell of one day."""
    times, means = slices(World(rows=10), np.random.default_rng(6), count, 2)
    profile = profile_of(means, np.full(count, 10.0), times, TEN)
    assert np.isinf(profile.common).all()
    assert profile.phi.tolist() == [0.0, 0.0]


def test_what_days_share_is_found_where_slices_hide_it() -> None:
    """A noise of whole days is no white one: two slices of a day do not count as two."""
    rng = np.random.default_rng(7)
    world = World(rows=30, noise=0.05)
    times, means = slices(world, rng, 40 * DAY, 6)
    means += np.repeat(rng.normal(0.0, 0.1, (40, 6)), DAY, axis=0)
    profile = profile_of(means, np.full(len(times), 30.0), times, TEN)
    assert (profile.phi > 0.9).all()


def test_a_longer_cadence_averages_noise() -> None:
    """A profile of ten minutes serves hours, as one learnt of them would."""
    times, means = slices(World(rows=50, noise=0.2, phi=0.7), np.random.default_rng(8), 56 * DAY, 4)
    counts = np.full(len(times), 50.0)
    minutes = profile_of(means, counts, times, TEN)
    hours = profile_of(means, counts, times, timedelta(hours=1))
    assert minutes.paced(TEN) is minutes
    paced = minutes.paced(timedelta(hours=1))
    assert paced.cadence == 3600.0
    assert paced.noise + paced.white == pytest.approx(hours.noise + hours.white, rel=0.2)


def test_a_profile_comes_back_from_its_file(tmp_path: Path) -> None:
    """Whole; and what is of another layout, or not there, is none."""
    rng = np.random.default_rng(9)
    times = rng.uniform(0.0, 20 * 86_400.0, 3000)
    made = joined(
        profile_of_scores(
            rng.normal(size=(3000, 2)),
            times,
            TEN,
            series=(Series(metric="shift", column="x"), Series(metric="share", column="c")),
        ),
        profile_of_scores(
            rng.exponential(size=(3000, 1)),
            times,
            TEN,
            series=(Series(metric="loss", column=None),),
        ),
    )
    file = tmp_path / "profile.parquet"
    assert read_profile(file) is None
    write_profile(made, file)
    again = read_profile(file)
    assert again is not None
    assert again.series == made.series
    assert (again.cadence, again.clip, again.loss) == (made.cadence, made.clip, made.loss)
    for name in ("levels", "errors", "common", "noise", "phi", "white", "scatter", "skew"):
        assert getattr(again, name) == pytest.approx(getattr(made, name), rel=1e-6, abs=1e-9)
    assert [each.name for each in tmp_path.iterdir()] == ["profile.parquet"]
    assert made.cadence == STEP
