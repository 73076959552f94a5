"""How far columns have moved from their reference, and how sure that is."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from driftloop.measure.columns import (
    Codes,
    Floats,
    Unmeasurable,
    categories,
    measured_columns,
    numbers,
)
from driftloop.measure.distances import (
    FEWEST,
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
from driftloop.measure.reference import Numbers, Reference
from driftloop.records import Kind, Reading
from driftloop.rows import Rows
from driftloop.spec import Family

OF = "the window"
HELD = 10_000_000
"""Values of numeric columns that are in memory at once, or one column's."""


def drift_readings(family: Family, current: Rows, reference: Reference) -> Iterator[Reading]:
    """Yield the readings of each feature and of the prediction.

    Numbers: `wasserstein` (over the reference's standard deviation), `psi` and `jensenshannon`
    as Evidently has them, and `ks` (the statistic), all four with the p-value of a two-sample
    Kolmogorov-Smirnov test; and `psi_quantile`, PSI on bins that hold a tenth of the reference
    each, with its own: one outlier does not blind it. Categories: `jensenshannon` and `psi` as
    Evidently has them, with the p-value of a two-sample chi-square test, and `chisquare`,
    Evidently's score, which is one-sample and forgets the reference's noise. The prediction of a
    class is a category, any other a number. A category with more than `reference.APART` levels in
    the reference is compared by the most frequent of them, all others being one: with many rare
    levels any distance is large. Texts are compared by what is told of them in numbers: see
    `columns.numbers`.

    The first of each column is the one that the family's policy judges by; `judged` tells. What
    of the others cannot be measured is left out. `n` counts the window's usable values; null,
    NaN and infinity are none.
    """
    yield from _numeric(family, current, reference)
    _, categorical = measured_columns(family)
    for name in categorical:
        moved = _categorical(family, name, current, reference)
        yield from _told(name, family.drift.categorical, moved)


def judged(family: Family, readings: Iterable[Reading]) -> tuple[Reading, ...]:
    """Return those readings that a decision may rest on; the other drifts stand beside them."""
    _, names = measured_columns(family)
    categorical, policy = set(names), family.drift
    return tuple(
        reading
        for reading in readings
        if reading.kind is not Kind.DRIFT
        or reading.metric
        == (policy.categorical if reading.column in categorical else policy.numeric)
    )


@dataclass(frozen=True, slots=True)
class _Moved:
    """What was measured of a column: metrics with their p-values, on `n` values of the window."""

    n: int
    found: Mapping[str, tuple[float, float | None] | str]
    """A metric's value and p-value, or in words why it cannot be had."""


def _told(name: str, policy: str, moved: _Moved | Unmeasurable) -> Iterator[Reading]:
    if isinstance(moved, Unmeasurable):
        yield Reading(
            kind=Kind.DRIFT, metric=policy, column=name, value=None, n=moved.n, problem=str(moved)
        )
        return
    for metric in (policy, *(other for other in moved.found if other != policy)):
        found = moved.found[metric]
        problem = found if isinstance(found, str) else None
        value, p_value = (None, None) if isinstance(found, str) else found
        if value is not None and not np.isfinite(value):
            value, p_value, problem = None, None, f"the distance is {value}"
        if problem is not None and metric != policy:
            continue
        yield Reading(
            kind=Kind.DRIFT,
            metric=metric,
            column=name,
            value=value,
            n=moved.n,
            p_value=p_value,
            problem=problem,
        )


def _numeric(family: Family, current: Rows, reference: Reference) -> Iterator[Reading]:
    """Yield the readings of the numeric columns; what NumPy is slow to begin is done for many."""
    names, _ = measured_columns(family)
    many = max(1, HELD // max(1, current.num_rows))
    for first in range(0, len(names), many):
        yield from _numbers(family, names[first : first + many], current, reference)


def _numbers(
    family: Family, names: Sequence[str], current: Rows, reference: Reference
) -> Iterator[Reading]:
    pairs = [_pair(name, current, reference) for name in names]
    usable = [pair for pair in pairs if isinstance(pair, _Pair)]
    moved = iter(_compared(usable))
    for name, pair in zip(names, pairs, strict=True):
        found = next(moved) if isinstance(pair, _Pair) else pair
        yield from _told(name, family.drift.numeric, found)


@dataclass(frozen=True, slots=True)
class _Pair:
    """A numeric column on both sides, in order."""

    name: str
    reference: Numbers
    current: Floats

    @property
    def sizes(self) -> tuple[int, int]:
        return len(self.reference.ascending), len(self.current)

    @property
    def constant(self) -> str | None:
        """In words that the reference does not vary, if so: then a distance has no unit."""
        values = self.reference.ascending
        if values[0] != values[-1]:
            return None
        changed = int(np.count_nonzero(self.current != values[0]))
        return (
            f"{self.name} is constant in the reference ({values[0]:g}), so a distance has no unit;"
            f" {changed} of {len(self.current)} values differ from it"
        )


def _pair(name: str, current: Rows, reference: Reference) -> _Pair | Unmeasurable:
    try:
        values = numbers(current, name, of=OF)
        pair = _Pair(name, reference.numbers(name), np.sort(values[np.isfinite(values)]))
        _enough(name, *pair.sizes)
    except Unmeasurable as problem:
        return problem
    return pair


def _compared(pairs: Sequence[_Pair]) -> list[_Moved]:
    sizes = [pair.sizes for pair in pairs]
    walked = [wasserstein(p.reference.ascending, p.current, p.reference.spread) for p in pairs]
    sure = ks_p_values([gap for gap, _ in walked], sizes)
    counts = [_bins(pair) for pair in pairs]
    indices, distances = (_each_width(measured, counts) for measured in (psi, jensen_shannon))
    shares = [(p.reference.filled, up_to(p.current, p.reference.cuts)) for p in pairs]
    tenths = _each_width(psi, shares)
    bins = np.array([len(filled) for filled, _ in shares])
    sure_of_tenths = psi_p_values(np.array(tenths), bins, sizes)
    return [
        _Moved(
            n=len(pair.current),
            found={
                "wasserstein": pair.constant or (area, p_value),
                "ks": (gap, p_value),
                "psi": (index, p_value),
                "jensenshannon": (distance, p_value),
                "psi_quantile": pair.constant or (tenth, float(sure_of_tenth)),
            },
        )
        for pair, (gap, area), p_value, index, distance, tenth, sure_of_tenth in zip(
            pairs, walked, sure, indices, distances, tenths, sure_of_tenths, strict=True
        )
    ]


def _bins(pair: _Pair) -> tuple[Codes, Codes] | None:
    if pair.reference.few is not None:
        return by_value(*pair.reference.few, pair.current)
    return histograms(pair.reference.ascending, pair.current)


def _each_width(
    measured: Callable[[Codes, Codes], Floats], counts: Sequence[tuple[Codes, Codes] | None]
) -> list[float]:
    """Return `measured` of each pair of counts; those with as many bins are computed together."""
    found = [float("nan")] * len(counts)
    widths: dict[int, list[int]] = {}
    for at, each in enumerate(counts):
        if each is not None:
            widths.setdefault(len(each[0]), []).append(at)
    for places in widths.values():
        sides = np.array([counts[at] for at in places])
        for at, value in zip(places, measured(sides[:, 0], sides[:, 1]), strict=True):
            found[at] = float(value)
    return found


def _categorical(
    family: Family, name: str, current: Rows, reference: Reference
) -> _Moved | Unmeasurable:
    try:
        found = categories(family, current, name, of=OF)
        ref, cur = reference.levels(name).beside(*found)
        _enough(name, int(ref.sum()), n := int(cur.sum()))
    except Unmeasurable as problem:
        return problem
    p_value = chi_square_p_value(ref, cur)
    return _Moved(
        n=n,
        found={
            "jensenshannon": (float(jensen_shannon(ref, cur)), p_value),
            "psi": (float(psi(ref, cur)), p_value),
            "chisquare": (one_sample_p_value(ref, cur), p_value),
        },
    )


def _enough(name: str, reference: int, current: int) -> None:
    if current < FEWEST:
        raise Unmeasurable(f"{name} has {_values(current)} in the window", n=current)
    if reference < FEWEST:
        raise Unmeasurable(f"{name} has {_values(reference)} in the reference", n=current)


def _values(n: int) -> str:
    return "a single value" if n else "no values"
