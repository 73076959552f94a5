"""Our distances beside the functions that they stand for, on columns meant to break them."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from evidently.legacy.calculations.stattests import (
    StatTest,
    chi_stat_test,
    jensenshannon_stat_test,
    psi_stat_test,
    wasserstein_stat_test,
)
from evidently.legacy.core import ColumnType
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import chi2_contingency, distributions, ks_2samp

from driftloop.measure.apart import gap_and_area, in_numpy
from driftloop.measure.columns import Floats
from driftloop.measure.distances import (
    EVIDENTLY_FLOOR,
    by_value,
    chi_square_p_value,
    histograms,
    jensen_shannon,
    one_sample_p_value,
    psi,
    psi_p_values,
    up_to,
    wasserstein,
)
from driftloop.measure.kolmogorov import ks_p_values

VALUES = st.one_of(
    st.floats(-1e6, 1e6, allow_subnormal=False),
    st.integers(-3, 3).map(float),
    st.sampled_from([0.0, 0.1, 0.1 + 1e-9, 1e9, -1e9, 1e-9]),
)
COLUMN = st.lists(VALUES, min_size=2, max_size=60).map(lambda found: np.sort(np.array(found)))


@settings(max_examples=300, deadline=None)
@given(reference=COLUMN, current=COLUMN)
def test_wasserstein_is_evidentlys(reference: Floats, current: Floats) -> None:
    """Ties, few values, one outlier, tiny steps: the number is Evidently's own."""
    spread = float(np.std(reference))
    assume(spread >= EVIDENTLY_FLOOR)
    expected = wasserstein_stat_test(
        pd.Series(reference), pd.Series(current), ColumnType.Numerical, None
    ).drift_score
    assert wasserstein(reference, current, spread)[1] == pytest.approx(expected, rel=1e-12)


@settings(max_examples=300, deadline=None)
@given(reference=COLUMN, current=COLUMN)
def test_the_gap_is_scipys(reference: Floats, current: Floats) -> None:
    """The Kolmogorov-Smirnov statistic and its asymptotic p-value are SciPy's."""
    expected = ks_2samp(reference, current, method="asymp")
    gap, _ = gap_and_area(reference, current)
    assert gap == pytest.approx(expected.statistic, abs=1e-12)
    (p_value,) = ks_p_values([gap], [(len(reference), len(current))])
    assert p_value == pytest.approx(expected.pvalue, rel=1e-9, abs=1e-300)


@settings(max_examples=300, deadline=None)
@given(reference=COLUMN, current=COLUMN)
def test_the_loop_and_numpy_agree(reference: Floats, current: Floats) -> None:
    """Compiled or not, the gap and the area are the same numbers."""
    assert gap_and_area(reference, current) == pytest.approx(
        in_numpy(reference, current), rel=1e-12, abs=1e-300
    )


@pytest.mark.parametrize("sizes", [(141, 150), (900, 400), (10_000, 5_000), (200_000, 300_000)])
def test_p_values_are_scipys_near_and_far(sizes: tuple[int, int]) -> None:
    """Whatever the gap, where SciPy changes its method and between."""
    n, m = sizes
    effective = float(np.round(n * m / (n + m)))
    gaps = np.append(np.geomspace(0.02, 25.0, 80) / np.sqrt(effective), [0.0, 0.5, 1.0])
    gaps = np.minimum(gaps, 1.0)
    expected = np.clip(distributions.kstwo.sf(gaps, effective), 0.0, 1.0)
    found = ks_p_values(list(gaps), [sizes] * len(gaps))
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-300)


MANY = st.integers(0, 2**32 - 1).flatmap(
    lambda seed: st.sampled_from(["normal", "ties", "outlier", "tiny", "heavy"]).map(
        lambda kind: _column(np.random.default_rng(seed), kind)
    )
)


def _column(rng: np.random.Generator, kind: str) -> Floats:
    values = rng.normal(size=int(rng.integers(25, 400)))
    match kind:
        case "ties":
            values = np.round(values, 1)
        case "outlier":
            values[0] = 1e9
        case "tiny":
            values *= 1e-9
        case "heavy":
            values = np.sign(values) * np.exp(np.abs(values) * 5.0)
    return np.sort(values)


@pytest.mark.parametrize(
    ("ours", "theirs"), [(psi, psi_stat_test), (jensen_shannon, jensenshannon_stat_test)]
)
@settings(max_examples=150, deadline=None)
@given(reference=st.one_of(MANY, COLUMN), current=st.one_of(MANY, COLUMN))
def test_numbers_in_bins_are_evidentlys(
    ours: Callable[..., Floats], theirs: StatTest, reference: Floats, current: Floats
) -> None:
    """In bins above 20 values, value by value up to there: the number is Evidently's own."""
    values, counts = np.unique(reference, return_counts=True)
    sides = (
        by_value(values, counts, current) if len(values) <= 20 else histograms(reference, current)
    )
    assert sides is not None
    expected = theirs(
        pd.Series(reference), pd.Series(current), ColumnType.Numerical, None
    ).drift_score
    power = 2 if ours is jensen_shannon else 1  # the square root makes much of what rounding leaves
    assert float(ours(*sides)) ** power == pytest.approx(
        0.0 if np.isnan(expected) else expected**power, rel=1e-12, abs=1e-15
    )


@pytest.mark.filterwarnings("ignore:divide by zero")
@settings(max_examples=300, deadline=None)
@given(counts=st.lists(st.tuples(st.integers(0, 200), st.integers(0, 200)), min_size=2))
def test_categories_are_evidentlys(counts: list[tuple[int, int]]) -> None:
    """PSI and the one-sample chi-square, with categories that one side alone has."""
    counts = [each for each in counts if any(each)]
    assume(len(counts) > 1)
    reference, current = (np.array(side) for side in zip(*counts, strict=True))
    assume(reference.sum() and current.sum())
    codes = np.arange(len(reference))
    sides = [pd.Series(np.repeat(codes, side)) for side in (reference, current)]
    index, score = (
        test(*sides, ColumnType.Categorical, 0.1).drift_score
        for test in (psi_stat_test, chi_stat_test)
    )
    assert float(psi(reference, current)) == pytest.approx(index, rel=1e-12, abs=1e-15)
    assert one_sample_p_value(reference, current) == pytest.approx(score, rel=1e-9, abs=1e-300)


def test_tenths_are_sure_as_often_as_they_say() -> None:
    """Without a change, p-values of PSI on the reference's tenths are below 5 % about as often."""
    rng = np.random.default_rng(7)
    below = 0
    for _ in range(400):
        reference, current = np.sort(rng.normal(size=2000)), np.sort(rng.normal(size=1000))
        cuts = np.quantile(reference, np.arange(1, 10) / 10, method="inverted_cdf")
        filled, found = up_to(reference, cuts), up_to(current, cuts)
        assert filled.tolist() == [200] * 10
        index = psi(filled, found)
        (p_value,) = psi_p_values(np.array([index]), np.array([10]), [(2000, 1000)])
        below += p_value < 0.05
    assert 8 <= below <= 36


@settings(max_examples=300, deadline=None)
@given(counts=st.lists(st.tuples(st.integers(0, 200), st.integers(0, 200)), min_size=1))
def test_jensen_shannon_is_evidentlys(counts: list[tuple[int, int]]) -> None:
    """Categories on one side alone, a single one, many: the number is Evidently's own."""
    reference, current = (np.array(side) for side in zip(*counts, strict=True))
    assume(reference.sum() and current.sum())
    codes = np.arange(len(reference))
    expected = jensenshannon_stat_test(
        pd.Series(np.repeat(codes, reference)),
        pd.Series(np.repeat(codes, current)),
        ColumnType.Categorical,
        None,
    ).drift_score
    # The square root makes a millionth of what rounding leaves of nothing.
    assert float(jensen_shannon(reference, current)) ** 2 == pytest.approx(
        0.0 if np.isnan(expected) else expected**2, rel=1e-12, abs=1e-15
    )


@settings(max_examples=300, deadline=None)
@given(counts=st.lists(st.tuples(st.integers(5, 200), st.integers(5, 200)), min_size=2))
def test_chi_square_is_scipys(counts: list[tuple[int, int]]) -> None:
    """Where nothing is rare enough to be pooled, the p-value is SciPy's."""
    reference, current = (np.array(side) for side in zip(*counts, strict=True))
    table = np.stack([reference, current])
    expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0) / table.sum()
    assume(expected.min() >= 5.0)
    found = chi2_contingency(table, correction=False).pvalue
    assert chi_square_p_value(reference, current) == pytest.approx(found, rel=1e-9, abs=1e-300)


@pytest.mark.parametrize("scale", [2.0**-40, 2.0**700])
def test_a_unit_that_evidently_cannot_take(scale: float) -> None:
    """Below its floor a shift vanishes, and squares of huge values overflow: ours is unmoved."""
    rng = np.random.default_rng(1)
    reference, current = np.sort(rng.normal(size=500)), np.sort(rng.normal(0.5, size=300))
    spread = float(np.std(reference))
    _, expected = wasserstein(reference, current, spread)
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = float(np.std(reference * scale))
        theirs = wasserstein_stat_test(
            pd.Series(reference * scale), pd.Series(current * scale), ColumnType.Numerical, None
        ).drift_score
    _, ours = wasserstein(reference * scale, current * scale, scaled)
    assert ours == pytest.approx(expected, rel=1e-12)
    assert theirs != pytest.approx(expected, rel=1e-3)
