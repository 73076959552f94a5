"""How far columns have moved from their reference, and how sure that is."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa

from driftloop.measure.columns import (
    Floats,
    Unmeasurable,
    answered,
    counted,
    measured_columns,
    numbers,
    texts,
)
from driftloop.measure.distances import (
    FEWEST,
    chi_square_p_value,
    jensen_shannon,
    ks_p_values,
    wasserstein,
)
from driftloop.measure.reference import Reference
from driftloop.records import Kind, Reading
from driftloop.spec import Family

NUMERIC, CATEGORICAL = "wasserstein", "jensenshannon"
OF = "the window"


def drift_readings(family: Family, current: pa.Table, reference: Reference) -> Iterator[Reading]:
    """Yield one reading for each feature and for the prediction.

    Numbers: Evidently's Wasserstein distance over the reference's standard deviation, with the
    p-value of a two-sample Kolmogorov-Smirnov test. Categories: Evidently's Jensen-Shannon
    distance (natural logarithm), with that of a two-sample chi-square test, because Evidently's
    own is one-sample and forgets the reference's noise. `n` counts the window's usable values;
    null, NaN and infinity are none. The prediction of a class is a category, any other a number.
    """
    numeric, categorical = measured_columns(family)
    moved = {name: _tried(partial(_numeric, name, current, reference)) for name in numeric}
    tested = {name: found for name, found in moved.items() if isinstance(found, _Moved)}
    p_values = ks_p_values(
        [found.gap for found in tested.values()], [(found.of, found.n) for found in tested.values()]
    )
    sure = dict(zip(tested, p_values, strict=True))
    for name, found in moved.items():
        yield _reading(NUMERIC, name, found, sure.get(name))
    for name in categorical:
        found = _tried(partial(_categorical, name, current, reference, family))
        sure_of_it = found.p_value if isinstance(found, _Moved) else None
        yield _reading(CATEGORICAL, name, found, sure_of_it)


@dataclass(frozen=True, slots=True)
class _Moved:
    """How far a column has moved; `n` values of the window, `of` the reference."""

    distance: float
    n: int
    of: int
    gap: float = 0.0
    p_value: float | None = None


def _tried(measured: Callable[[], _Moved]) -> _Moved | Unmeasurable:
    try:
        found = measured()
    except Unmeasurable as problem:
        return problem
    if not np.isfinite(found.distance):
        return Unmeasurable(f"the distance is {found.distance}", n=found.n)
    return found


def _reading(
    metric: str, column: str, found: _Moved | Unmeasurable, p_value: float | None
) -> Reading:
    if isinstance(found, Unmeasurable):
        return Reading(
            kind=Kind.DRIFT, metric=metric, column=column, value=None, n=found.n, problem=str(found)
        )
    return Reading(
        kind=Kind.DRIFT,
        metric=metric,
        column=column,
        value=found.distance,
        n=found.n,
        p_value=p_value,
    )


def _numeric(name: str, current: pa.Table, reference: Reference) -> _Moved:
    cur = _sorted(numbers(current, name, of=OF))
    column = reference.numbers(name)
    ref = column.ascending
    _enough(name, len(ref), len(cur))
    if ref[0] == ref[-1]:
        changed = int(np.count_nonzero(cur != ref[0]))
        raise Unmeasurable(
            f"{name} is constant in the reference ({ref[0]:g}), so a distance has no unit;"
            f" {changed} of {len(cur)} values differ from it",
            n=len(cur),
        )
    gap, distance = wasserstein(ref, cur, column.spread)
    return _Moved(distance, len(cur), len(ref), gap=gap)


def _categorical(name: str, current: pa.Table, reference: Reference, family: Family) -> _Moved:
    if name not in family.features:
        current = answered(family, current, of=OF)
    codes, names = texts(current, name, of=OF)
    levels = reference.levels(name)
    cur = counted(codes, names, levels.names)
    ref = np.concatenate([levels.counts, np.zeros(len(cur) - len(levels.counts), dtype=np.int64)])
    _enough(name, int(ref.sum()), n := int(cur.sum()))
    return _Moved(jensen_shannon(ref, cur), n, int(ref.sum()), p_value=chi_square_p_value(ref, cur))


def _sorted(values: Floats) -> Floats:
    return np.sort(values[np.isfinite(values)])


def _enough(name: str, reference: int, current: int) -> None:
    if current < FEWEST:
        raise Unmeasurable(f"{name} has {_values(current)} in the window", n=current)
    if reference < FEWEST:
        raise Unmeasurable(f"{name} has {_values(reference)} in the reference", n=current)


def _values(n: int) -> str:
    return "a single value" if n else "no values"
