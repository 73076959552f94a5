"""Evidence: it holds to its budget however often one looks, and finds what matters soon."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from driftloop.judge.evidence import (
    BETS,
    CERTAIN,
    INFLATION,
    MOST,
    errors,
    grown,
    growth,
    kept,
    named,
)
from driftloop.records import Z90

Floats = NDArray[np.float64]
finite = st.floats(-200.0, 200.0)


def pages(z: Floats, n: float, weight: float) -> int:
    """Pages over all looks of many models, each of which begins anew after one.

    `z` has shape (looks, models, streams); `weight` is a model's for one look.
    """
    _, models, streams = z.shape
    mass = np.zeros((models, streams, len(BETS)))
    found = 0
    for look in z:
        mass = grown(mass, look, weight / streams, np.array([[n]]))
        mass = kept(mass, weight / streams)
        over = mass.sum(axis=(1, 2)) >= 1.0
        found += int(over.sum())
        mass[over] = 0.0
    return found


def test_a_day_of_looks_keeps_to_its_budget_at_the_very_floor() -> None:
    """Changes exactly as large as the floor, exact errors: no more pages than weight flowed in.

    500 models, 200 looks, 0.01 each: 1,000 are allowed; their number's deviation is below 40.
    """
    rng = np.random.default_rng(1)
    found = pages(rng.normal(size=(200, 500, 4)), 1e6, 0.01)
    assert 100 < found < 1000 + 3 * 40


def test_streams_that_are_one_keep_to_it_too() -> None:
    """The worst dependence: all streams of all models move together."""
    rng = np.random.default_rng(2)
    z = np.broadcast_to(rng.normal(size=(4000, 1, 1)), (4000, 20, 4))
    assert 0 < pages(z, 1e6, 0.01) < 20 * 4000 * 0.01


@pytest.mark.parametrize("rows", [1, 3, 30])
@pytest.mark.parametrize("noise", ["uniform", "exponential", "rare"])
def test_a_few_rows_of_whatever_shape_keep_to_it(noise: str, rows: int) -> None:
    """Uniform ranks, skewed losses, errors that are rare: by their known spread, no change at all.

    300 models and 300 looks of 0.01 allow 900 pages.
    """
    rng = np.random.default_rng(3)
    shape = (300, 300, 2, rows)
    value, mean, spread = {
        "uniform": (rng.random(shape), 0.5, np.sqrt(1 / 12)),
        "exponential": (rng.exponential(size=shape), 1.0, 1.0),
        "rare": (rng.random(shape) < 0.1, 0.1, 0.3),
    }[noise]
    z = (value.mean(axis=-1) - mean) / (INFLATION * spread / np.sqrt(rows))
    assert pages(z, rows, 0.01) < 900


@pytest.mark.long
@pytest.mark.parametrize("sigma", [0.5, 1.0])
def test_losses_with_heavy_tails_keep_to_it(sigma: float) -> None:
    """Log-normal losses of 1 to 100 rows, by their known spread."""
    rng = np.random.default_rng(4)
    mean, spread = np.exp(sigma**2 / 2), np.exp(sigma**2 / 2) * np.sqrt(np.expm1(sigma**2))
    for rows in (1, 3, 10, 100):
        value = rng.lognormal(0.0, sigma, (400, 400, 2, rows)).mean(axis=-1)
        z = (value - mean) / (INFLATION * spread / np.sqrt(rows))
        assert pages(z, rows, 0.01) < 1600


def test_errors_a_tenth_too_small_are_borne() -> None:
    """What `INFLATION` is for: at the floor, 500 models and 200 looks of 0.01 allow 1,000."""
    rng = np.random.default_rng(5)
    low, high = np.full(1, -Z90), np.full(1, Z90)
    z = rng.normal(0.0, 1.1, size=(200, 500, 4)) / errors(low, high)
    assert 0 < pages(z, 1e6, 0.01) < 1000


@pytest.mark.parametrize("seed", range(3))
def test_too_small_to_matter_stays_silent_however_many_rows_show_it(seed: int) -> None:
    """0.095 standard deviations where 0.2 matter, of 5 million rows a look: no page in 2,000."""
    rng = np.random.default_rng(seed)
    error = 1.0 / np.sqrt(5e6)
    z = (0.095 + rng.normal(0.0, error, size=(2000, 20, 4)) - CERTAIN * 0.2) / error
    assert pages(z, 5e6, 0.1) == 0


@pytest.mark.parametrize(
    ("change", "floor", "looks"), [(0.5, 0.2, 1), (0.21, 0.2, 2), (0.1, 0.0, 2), (0.05, 0.0, 5)]
)
def test_what_matters_is_found_soon(change: float, floor: float, looks: int) -> None:
    """In one of 27 columns, by its share of a page a week over 200 models, 5,000 rows a look."""
    rng = np.random.default_rng(6)
    error = INFLATION / np.sqrt(5000)
    weight = 1.0 / 200 / 1008 / 27 / 2
    mass, delays = np.zeros((400, len(BETS))), np.full(400, np.inf)
    for look in range(1, 30):
        z = (change - CERTAIN * floor) / error + rng.normal(size=400) / INFLATION
        mass = grown(mass, z, weight, np.array([5000.0]))
        delays[(mass.sum(axis=1) >= 1.0) & np.isinf(delays)] = look
    assert np.median(delays) <= looks


@given(z=st.lists(finite, min_size=1, max_size=30), n=st.floats(1.0, 1e7))
def test_evidence_is_finite_and_grows_with_what_is_read(z: list[float], n: float) -> None:
    """Whatever is read: no overflow, never negative, and more for more."""
    rows = np.array([n])
    lower = higher = np.zeros((1, len(BETS)))
    for each in z:
        lower = grown(lower, np.array([each]), 1e-6, rows)
        higher = grown(higher, np.array([each + 0.5]), 1e-6, rows)
        assert np.isfinite(higher).all()
        assert (lower >= 0.0).all()
        assert (higher >= lower).all()


@given(z=finite, n=st.integers(1, 10**6))
def test_one_look_adds_no_more_than_its_rows_can_show(z: float, n: int) -> None:
    """A row tilts by a quarter of its deviation at most: one alone, however far out, is little."""
    found = growth(np.array([z]), np.array([float(n)]))
    assert found.max() <= min(MOST, max(z, 0.0) * np.sqrt(n) / 4.0)


@given(
    looks=st.lists(st.floats(-6.0, 3.0), min_size=1, max_size=5),
    n=st.floats(1.0, 1e6),
    weight=st.floats(1e-9, 1.0),
)
def test_how_bets_share_what_comes_in_leaves_their_sum_alone(
    looks: list[float], n: float, weight: float
) -> None:
    """What a look brings is worth what each bet's own part of it would be, added up."""
    rows, bets = np.array([n]), len(BETS)
    mass = np.zeros((1, bets))
    for z in looks:
        change = np.exp(growth(np.array([z]), rows))
        own = (mass + weight / bets) * change
        mass = grown(mass, np.array([z]), weight, rows)
        assert mass.sum() == pytest.approx(own.sum(), rel=1e-9)


def test_a_change_that_is_new_once_is_found_sooner_for_sharing() -> None:
    """A look far out, then many a little out, as of slices that foretell one another.

    Bets that kept what they made of their own would take a fifth longer.
    """
    rows, weight, bets = np.array([1e6]), 1e-7, len(BETS)
    looks = [np.array([4.0]), *[np.array([0.8])] * 200]
    mass = own = np.zeros((1, bets))
    delays = []
    for number, z in enumerate(looks, 1):
        own = (own + weight / bets) * np.exp(growth(z, rows))
        mass = grown(mass, z, weight, rows)
        delays += [(number, who) for who, m in (("own", own), ("shared", mass)) if m.sum() >= 1.0]
    first = {who: number for number, who in reversed(delays)}
    assert 1.2 * first["shared"] < first["own"]


def test_a_look_without_a_value_neither_adds_nor_takes() -> None:
    """Nothing was read: no inflow, and what was known stays."""
    mass = np.array([[0.1, 0.2, 0.0, 0.0, 0.3]])
    after = grown(mass, np.array([np.nan]), 1.0, np.array([5.0]))
    assert after.tolist() == mass.tolist()
    assert np.isnan(errors(np.array([1.0]), np.array([1.0]))).all()


@given(st.lists(st.floats(0.0, 1e9), min_size=1, max_size=20))
def test_what_is_kept_is_never_more(masses: list[float]) -> None:
    """Cut, not rounded: and by less than a hundredth, where it is kept at all."""
    before = np.array(masses)
    after = kept(before, 1e-6)
    assert (after <= before * (1 + 1e-12)).all()
    worth = before > 1e-6 / len(BETS)
    assert (after[worth] > 0.989 * before[worth]).all()
    assert (after[~worth] == 0.0).all()
    assert kept(after, 0.0).tolist() == after.tolist()


@given(st.lists(st.floats(0.0, 5.0), min_size=1, max_size=12).filter(lambda each: sum(each) >= 1))
def test_what_is_named_is_worth_naming(masses: list[float]) -> None:
    """The largest always, and of k that are named each has at least 1/k: the e-BH rule."""
    found = named(np.array(masses)).tolist()
    assert np.argmax(masses) in {*found} or max(masses) == masses[found[0]]
    if len(found) > 1:
        assert min(masses[place] for place in found) >= 1 / len(found)


def test_named_wrongly_is_within_the_budget_too() -> None:
    """The share of names that are wrong, summed over all pages, is below what flowed in.

    One of five streams has changed; the others are at the floor, and all move together.
    """
    rng = np.random.default_rng(8)
    models, weight, wrong, looks = 400, 0.02, 0.0, 150
    mass = np.zeros((models, 5, len(BETS)))
    for _ in range(looks):
        z = np.repeat(rng.normal(size=(models, 1)), 5, axis=1)
        z[:, 0] += 0.5
        mass = grown(mass, z, weight / 5, np.array([[1e6]]))
        sums = mass.sum(axis=2)
        for model in np.flatnonzero(sums.sum(axis=1) >= 1.0):
            names = named(sums[model])
            wrong += float((names > 0).mean())
            mass[model] = 0.0
    assert 0.0 < wrong < models * weight * looks
