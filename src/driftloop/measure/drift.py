"""How far columns have moved from their reference, and how sure that is."""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import pyarrow as pa

from driftloop.measure.columns import Codes, Floats, Unmeasurable, categories, numbers
from driftloop.records import Kind, Reading
from driftloop.spec import Family

Distance = Callable[[str, Floats | Codes, Floats | Codes], float]
"""A method's name, the reference and the window -> Evidently's distance of the two."""

NUMERIC, CATEGORICAL = "wasserstein", "jensenshannon"
FEWEST = 2
"""One value has no distribution to compare."""
EXPECTED = 5.0
"""Least expected count of a cell in a chi-square test (Cochran 1954)."""
EVIDENTLY_FLOOR = 1e-3
"""Evidently divides by no standard deviation below this."""


def drift_readings(
    family: Family, current: pa.Table, reference: pa.Table, *, distance: Distance
) -> Iterator[Reading]:
    """Yield one reading for each feature and for the prediction.

    Numbers: Evidently's Wasserstein distance over the reference's standard deviation, with the
    p-value of a two-sample Kolmogorov-Smirnov test. Categories: Evidently's Jensen-Shannon
    distance (natural logarithm), with that of a two-sample chi-square test, because Evidently's
    own is one-sample and forgets the reference's noise. `n` counts the window's usable values;
    null, NaN and infinity are none.
    """
    for name in (*family.numeric, "prediction"):
        yield _reading(NUMERIC, name, partial(_numeric, name, current, reference, distance))
    for name in family.categorical:
        yield _reading(CATEGORICAL, name, partial(_categorical, name, current, reference, distance))


def ks_p_value(reference: Floats, current: Floats) -> float:
    """Return the asymptotic p-value of the two-sample Kolmogorov-Smirnov test.

    Source: Hodges 1958, as in `scipy.stats.ks_2samp(method="asymp")`; two-sided.

    Args:
        reference: sorted finite values, at least one.
        current: likewise.

    >>> ks_p_value(np.arange(100.0), np.arange(100.0))
    1.0
    """
    from scipy.stats import distributions

    n, m = len(reference), len(current)
    both = np.concatenate([reference, current])
    steps = (
        np.searchsorted(reference, both, side="right") / n
        - np.searchsorted(current, both, side="right") / m
    )
    gap = float(np.abs(steps).max())
    return float(np.clip(distributions.kstwo.sf(gap, np.round(n * m / (n + m))), 0.0, 1.0))


def chi_square_p_value(reference: Codes, current: Codes) -> float:
    """Return the p-value of the two-sample chi-square test on counts of the same categories.

    Categories with an expected count below 5 on either side are pooled first, rarest first
    (Cochran 1954); no continuity correction. 1.0 where fewer than two groups remain.

    Args:
        reference: counts of each category in the reference.
        current: counts of each category in the window, in the same order.

    >>> round(chi_square_p_value(np.array([50, 50]), np.array([50, 50])), 3)
    1.0
    """
    from scipy.stats import chi2_contingency

    counts = np.stack([reference, current]).astype(np.float64)
    total = counts.sum(axis=0)
    counts, total = counts[:, total > 0], total[total > 0]
    share = counts.sum(axis=1).min() / counts.sum()
    order = np.argsort(total, kind="stable")
    counts, total = counts[:, order], total[order]
    rare = int(np.searchsorted(total * share, EXPECTED))
    if rare:
        # The pool must itself be large enough: it takes in the next rarest until it is.
        pooled = max(rare, int(np.searchsorted(np.cumsum(total) * share, EXPECTED)) + 1)
        pool = counts[:, :pooled].sum(axis=1, keepdims=True)
        counts = np.hstack([pool, counts[:, pooled:]])
    if counts.shape[1] < FEWEST:
        return 1.0
    return float(chi2_contingency(counts, correction=False).pvalue)


def _reading(metric: str, column: str, measured: Callable[[], tuple[float, int, float]]) -> Reading:
    try:
        value, n, p_value = measured()
    except Unmeasurable as problem:
        return Reading(
            kind=Kind.DRIFT,
            metric=metric,
            column=column,
            value=None,
            n=problem.n,
            problem=str(problem),
        )
    return Reading(kind=Kind.DRIFT, metric=metric, column=column, value=value, n=n, p_value=p_value)


def _numeric(
    name: str, current: pa.Table, reference: pa.Table, distance: Distance
) -> tuple[float, int, float]:
    cur = _sorted(numbers(current, name, of="the window"))
    ref = _sorted(numbers(reference, name, of="the reference"))
    _enough(name, len(ref), len(cur))
    if ref[0] == ref[-1]:
        changed = int(np.count_nonzero(cur != ref[0]))
        raise Unmeasurable(
            f"{name} is constant in the reference ({ref[0]:g}), so a distance has no unit;"
            f" {changed} of {len(cur)} values differ from it",
            n=len(cur),
        )
    return _distance(distance, NUMERIC, name, *_in_scale(ref, cur)), len(cur), ks_p_value(ref, cur)


def _categorical(
    name: str, current: pa.Table, reference: pa.Table, distance: Distance
) -> tuple[float, int, float]:
    cur, ref, levels = categories(current, reference, name)
    cur, ref = cur[cur >= 0], ref[ref >= 0]
    _enough(name, len(ref), len(cur))
    p_value = chi_square_p_value(
        np.bincount(ref, minlength=levels), np.bincount(cur, minlength=levels)
    )
    return _distance(distance, CATEGORICAL, name, ref, cur), len(cur), p_value


def _sorted(values: Floats) -> Floats:
    # Sorted once here, both the distance and the test take a third of the time.
    return np.sort(values[np.isfinite(values)])


def _enough(name: str, reference: int, current: int) -> None:
    if current < FEWEST:
        raise Unmeasurable(f"{name} has {_values(current)} in the window", n=current)
    if reference < FEWEST:
        raise Unmeasurable(f"{name} has {_values(reference)} in the reference", n=current)


def _values(n: int) -> str:
    return "a single value" if n else "no values"


def _in_scale(ref: Floats, cur: Floats) -> tuple[Floats, Floats]:
    # Evidently's floor would hide any shift of a feature with tiny values, and squares of huge
    # ones overflow. The distance has no unit and a power of two costs no digit, so rescale.
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        spread = float(np.std(ref))
        if EVIDENTLY_FLOOR <= spread < np.inf:
            return ref, cur
        reach = -int(np.frexp(max(abs(ref[0]), abs(ref[-1])))[1])
        ref, cur = np.ldexp(ref, reach), np.ldexp(cur, reach)
        unit = -int(np.frexp(float(np.std(ref)))[1])
        return np.ldexp(ref, unit), np.ldexp(cur, unit)


def _distance(
    distance: Distance, method: str, name: str, ref: Floats | Codes, cur: Floats | Codes
) -> float:
    try:
        with np.errstate(all="ignore"):
            value = distance(method, ref, cur)
    except Exception as error:
        raise Unmeasurable(
            f"Evidently's {method} of {name} raised {error!r}", n=len(cur)
        ) from error
    if not np.isfinite(value):
        raise Unmeasurable(f"Evidently's {method} of {name} is {value}", n=len(cur))
    return value
