"""Our distances beside the functions that they stand for, on columns meant to break them."""

import numpy as np
import pandas as pd
import pytest
from evidently.legacy.calculations.stattests import (
    jensenshannon_stat_test,
    wasserstein_stat_test,
)
from evidently.legacy.core import ColumnType
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import chi2_contingency, ks_2samp

from driftloop.measure.columns import Floats
from driftloop.measure.distances import (
    EVIDENTLY_FLOOR,
    chi_square_p_value,
    gap_and_area,
    jensen_shannon,
    ks_p_values,
    wasserstein,
)

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
    assert jensen_shannon(reference, current) ** 2 == pytest.approx(
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
