"""Rows as numbers whose mean moves when the rows change: what is followed from look to look."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from driftloop.measure.columns import (
    Floats,
    Unmeasurable,
    categories,
    measured_columns,
    numbers,
)
from driftloop.measure.profile import Series
from driftloop.measure.reference import Levels, Numbers, Reference
from driftloop.records import Task
from driftloop.rows import Rows
from driftloop.spec import Family

OF = "the fresh rows"
LEVELS = 15
"""Levels of a category that are followed by themselves, the most frequent; the others together."""
THRESHOLD = 0.5
RANK = 1.0 / 12.0
"""Variance of a rank in the reference."""


def series_of(family: Family, reference: Reference) -> tuple[Series, ...]:
    """Return what can be followed of rows, but for their losses.

    Of a number "shift", which is where its ranks in the reference lie, and "spread", how far from
    their middle; of a category the "share" of each level; of a feature the "nulls".
    """
    return tuple(_series(family, reference))


def scored(
    family: Family, rows: Rows, reference: Reference, series: Sequence[Series]
) -> tuple[Floats, Mapping[str, str]]:
    """Return each row's score in each series, NaN where it has none; and problems by column.

    A number's "shift" is its rank in the reference, ties at their middle, from -1/2 to 1/2, and
    its "spread" the size of that: no outlier, however far, moves a mean by more than a row does.
    """
    # Column by column, as they are filled in.
    found = np.full((rows.num_rows, len(series)), np.nan, order="F")
    places: dict[str, dict[tuple[str, str | None], int]] = {}
    for at, each in enumerate(series):
        if each.column is not None:
            places.setdefault(each.column, {})[each.metric, each.level] = at
    problems: dict[str, str] = {}
    _, categorical = measured_columns(family)
    for name, here in places.items():
        try:
            if name in categorical:
                _of_levels(family, rows, name, here, found)
            elif any(metric != "nulls" for metric, _ in here):
                _of_ranks(rows, name, reference, here, found)
            else:
                found[:, here["nulls", None]] = rows.column(name).is_null().to_numpy()
        except Unmeasurable as problem:
            problems[name] = str(problem)
        except KeyError:
            problems[name] = f"{name} is missing in {OF}"
    return found, problems


def centred(means: Floats, counts: Floats, series: Sequence[Series]) -> Floats:
    """Return means of slices in which "spread" is told about where the slice itself lies.

    The mean size of ranks is 1/4 plus the square of how far they all have moved: of a level that
    wanders the spread would be skewed by as much. The square of few rows' mean is too large by
    their variance, which is 1/12 of a row.

    Args:
        means: shape (slices, k), of scores.
        counts: shape (slices, k), rows that each is of.
        series: what the columns are.
    """
    shifts = {each.column: at for at, each in enumerate(series) if each.metric == "shift"}
    found = means.copy()
    for at, each in enumerate(series):
        if each.metric == "spread" and (shift := shifts.get(each.column)) is not None:
            few = np.divide(
                RANK, counts[:, at], out=np.zeros(len(means)), where=counts[:, at] > 0.0
            )
            found[:, at] -= np.where(counts[:, at] > 0.0, means[:, shift] ** 2 - few, 0.0)
    return found


def unit_of(series: Series, reference: Reference) -> float:
    """Return the standard deviation of a series' scores in the reference; 0 where it has none.

    Nulls are told as they are, as a share of the rows: their unit is 1.
    """
    column = reference.columns.get(series.column or "")
    if series.metric == "nulls":
        return 1.0
    if isinstance(column, Numbers):
        rank = _ranks(column.ascending, column.ascending)
        return float(np.std(rank if series.metric == "shift" else np.abs(rank)))
    if isinstance(column, Levels):
        share = usual_share(column, series.level)
        return float(np.sqrt(share * (1.0 - share)))
    return 0.0


def usual_share(levels: Levels, level: str | None) -> float:
    """Return the share of a level, or of all that are not followed; none is quite 0 or 1."""
    counts = dict(zip(levels.names.to_pylist(), levels.counts.tolist(), strict=True))
    count = counts[level] if level is not None else levels.rows - _followed_rows(levels)
    return float((count + 0.5) / (levels.rows + 1.0))


@dataclass(frozen=True, slots=True)
class Losses:
    """Losses of rows, of which a metric is made.

    `worsening` returns, of the usual mean loss, what a change of the mean is divided by to be the
    metric's worsening as a share of its baseline. `counted` says that each is 0 or 1.
    """

    name: str
    of: Callable[[Floats, Floats], Floats]
    worsening: Callable[[float], float]
    counted: bool = False


def losses_of(family: Family) -> Losses | None:
    """Return the losses that the family's judged metric is made of; None for scores.

    Of the mean absolute error, the log loss, accuracy and the percentage errors these are its own.
    Of the root mean squared error they are squares, and its worsening is half of theirs, to the
    first order. For what is no mean over rows, as ROC AUC, the gate's loss stands in.
    """
    metric = family.decay.metric if family.decay is not None else ""
    if family.task is Task.SCORE:
        return None
    if family.task is Task.REGRESSION:
        return _REGRESSION.get(metric, _REGRESSION["mae"])
    wrong = _wrong_half if family.task is Task.BINARY else _wrong_class
    if metric == "accuracy":
        return Losses("misclassified", wrong, lambda usual: 1.0 - usual, counted=True)
    if family.task is Task.MULTICLASS:
        return Losses("misclassified", wrong, lambda usual: usual, counted=True)
    return Losses("log_loss", _log_loss, lambda usual: usual)


def _series(family: Family, reference: Reference) -> Iterator[Series]:
    numeric, categorical = measured_columns(family)
    for name in numeric:
        column = reference.columns.get(name)
        if isinstance(column, Numbers) and len(column.ascending):
            yield Series(metric="shift", column=name)
            yield Series(metric="spread", column=name)
    for name in categorical:
        column = reference.columns.get(name)
        if isinstance(column, Levels) and column.rows:
            for level in _followed(column):
                yield Series(metric="share", column=name, level=level)
            yield Series(metric="share", column=name, level=None)
    for name in family.measured:
        if reference.null_share(name) is not None:
            yield Series(metric="nulls", column=name)


def _followed(levels: Levels) -> list[str]:
    largest = np.argsort(-levels.counts, kind="stable")[:LEVELS]
    found: list[str] = levels.names.take(pa.array(largest)).to_pylist()
    return found


def _followed_rows(levels: Levels) -> int:
    return int(np.sort(levels.counts)[::-1][:LEVELS].sum())


def _of_ranks(
    rows: Rows,
    name: str,
    reference: Reference,
    at: Mapping[tuple[str, str | None], int],
    found: Floats,
) -> None:
    values = numbers(rows, name, of=OF)
    rank = _ranks(reference.numbers(name).ascending, values)
    rank[~np.isfinite(values)] = np.nan
    for metric, told in (("shift", rank), ("spread", np.abs(rank))):
        if (metric, None) in at:
            found[:, at[metric, None]] = told
    if ("nulls", None) in at:
        found[:, at["nulls", None]] = np.isnan(values)


def _ranks(ascending: Floats, values: Floats) -> Floats:
    count = len(ascending)
    below = np.searchsorted(ascending, values, side="left")
    upto = below.copy()
    # Few numbers stand in the reference to the last digit: the others need no second search.
    tied = np.flatnonzero(ascending[np.minimum(below, count - 1)] == values)
    upto[tied] = np.searchsorted(ascending, values[tied], side="right")
    ranks: Floats = (below + upto) / (2.0 * count) - 0.5
    return ranks


def _of_levels(
    family: Family,
    rows: Rows,
    name: str,
    at: Mapping[tuple[str, str | None], int],
    found: Floats,
) -> None:
    codes, names = categories(family, rows, name, of=OF)
    followed = [level for metric, level in at if metric == "share" and level is not None]
    place = pc.index_in(names, value_set=pa.array(followed, pa.string()))
    of_code = np.append(place.fill_null(len(followed)).to_numpy(), -1)
    which = of_code[codes]
    there = codes >= 0
    whole = bool(there.all())
    for number, level in enumerate((*followed, None)):
        if ("share", level) in at:
            told = which == number
            found[:, at["share", level]] = told if whole else np.where(there, told, np.nan)
    if ("nulls", None) in at:
        found[:, at["nulls", None]] = ~there


def _wrong_half(label: Floats, prediction: Floats) -> Floats:
    return np.asarray((prediction >= THRESHOLD) != (label == 1.0), np.float64)


def _wrong_class(label: Floats, prediction: Floats) -> Floats:
    return np.asarray(prediction != label, np.float64)


def _log_loss(label: Floats, prediction: Floats) -> Floats:
    eps = float(np.finfo(np.float64).eps)
    likely = np.where(label == 1.0, prediction, 1.0 - prediction)
    found: Floats = -np.log(np.clip(likely, eps, 1.0 - eps))
    return found


def _percentage(label: Floats, prediction: Floats) -> Floats:
    size = np.abs(prediction - label)
    told = np.abs(label) > np.finfo(np.float64).eps
    share: Floats = np.divide(size, np.abs(label), out=np.ones_like(size), where=told)
    return 100.0 * share


def _absolute(label: Floats, prediction: Floats) -> Floats:
    return np.abs(prediction - label)


def _squared(label: Floats, prediction: Floats) -> Floats:
    return (prediction - label) ** 2


def _itself(usual: float) -> float:
    return usual


_REGRESSION: Mapping[str, Losses] = {
    "mae": Losses("mae", _absolute, _itself),
    "rmse": Losses("rmse", _squared, lambda usual: 2.0 * usual),
    "mape": Losses("mape", _percentage, _itself),
    "mape_abs": Losses("mape", _percentage, _itself),
}
