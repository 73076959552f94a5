"""Faults of the data: nulls, ranges, unseen categories, empty texts, duplicates, freshness."""

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from functools import partial

import numpy as np

from driftloop.measure.columns import Unmeasurable, counted, nulls, numbers, texts
from driftloop.measure.reference import Reference
from driftloop.records import Kind, LogSummary, Reading, Task
from driftloop.rows import Rows
from driftloop.spec import Family


def quality_readings(
    family: Family, current: Rows, reference: Reference, summary: LogSummary, now: datetime
) -> Iterator[Reading]:
    """Yield the readings of quality, each with the rows it was taken over.

    For each feature `null_share` (share of rows; its baseline is the reference's share), then
    `out_of_range` for numbers with a declared range (share of values; infinities are outside),
    `unseen` for categories (share of values the reference never has; its baseline is the share
    that is to be expected, by how many levels the reference has a single time), and `empty_share`
    for texts (share of values; its baseline is the reference's). For the model
    `duplicates` (share of rows as they arrived), `volume` (rows as they arrived), `freshness`
    (hours since the newest event) and `labelled` (share of the window's rows with a label) or, of
    scores, the `null_share` of the prediction itself.
    """
    for name, feature in family.measured.items():
        yield _nulls(name, current, reference)
        if feature.range is not None:
            low, high = feature.range
            yield _share(
                "out_of_range",
                name,
                partial(_outside, name, current, low, high),
            )
        if feature.kind == "categorical":
            yield _share(
                "unseen",
                name,
                partial(_unseen, name, current, reference),
                baseline=reference.unseen_share(name),
            )
        if feature.kind == "text":
            yield _share(
                "empty_share",
                name,
                partial(_empty, name, current),
                baseline=reference.empty_share(name),
            )
    yield _share("duplicates", None, lambda: (summary.duplicates, summary.rows))
    yield Reading(
        kind=Kind.QUALITY, metric="volume", column=None, value=float(summary.rows), n=summary.rows
    )
    yield _freshness(summary, now)
    if family.task is Task.SCORE:
        # Nothing else would tell that scores are no longer written.
        yield _nulls("prediction", current, reference)
    else:
        yield _share("labelled", None, lambda: _labelled(current))


def _share(
    metric: str,
    column: str | None,
    counted: Callable[[], tuple[int, int]],
    *,
    baseline: float | None = None,
) -> Reading:
    try:
        share, n = _over(*counted(), what=column)
    except Unmeasurable as problem:
        return Reading(
            kind=Kind.QUALITY,
            metric=metric,
            column=column,
            value=None,
            n=problem.n,
            baseline=baseline,
            problem=str(problem),
        )
    return Reading(
        kind=Kind.QUALITY, metric=metric, column=column, value=share, n=n, baseline=baseline
    )


def _over(count: int, n: int, *, what: str | None) -> tuple[float, int]:
    if not n:
        raise Unmeasurable(f"{what} has no values in the window" if what else "no rows")
    return count / n, n


def _nulls(name: str, current: Rows, reference: Reference) -> Reading:
    return _share(
        "null_share",
        name,
        lambda: (nulls(current, name, of="the window"), current.num_rows),
        baseline=reference.null_share(name),
    )


def _outside(name: str, current: Rows, low: float, high: float) -> tuple[int, int]:
    values = numbers(current, name, of="the window")
    values = values[~np.isnan(values)]
    outside = (values < low) | (values > high) | np.isinf(values)
    return int(np.count_nonzero(outside)), len(values)


def _unseen(name: str, current: Rows, reference: Reference) -> tuple[int, int]:
    codes, names = texts(current, name, of="the window")
    levels = reference.levels(name)
    counts = counted(codes, names, levels.names)
    n = int(counts.sum())
    if not len(levels.names):
        raise Unmeasurable(f"{name} has no values in the reference", n=n)
    if levels.distinct > len(levels.names):
        raise Unmeasurable(
            f"{name} has {levels.distinct} levels in the reference, too many to keep them all", n=n
        )
    return int(counts[len(levels.names) :].sum()), n


def _empty(name: str, current: Rows) -> tuple[int, int]:
    length = numbers(current, f"{name}.length", of="the window")
    return int(np.count_nonzero(length == 0.0)), int(np.count_nonzero(~np.isnan(length)))


def _freshness(summary: LogSummary, now: datetime) -> Reading:
    age = None if summary.newest_event is None else now - summary.newest_event
    return Reading(
        kind=Kind.QUALITY,
        metric="freshness",
        column=None,
        value=None if age is None else age / timedelta(hours=1),
        n=summary.rows,
        problem="no rows" if age is None else None,
    )


def _labelled(current: Rows) -> tuple[int, int]:
    labels = numbers(current, "label", of="the window")
    return int(np.count_nonzero(~np.isnan(labels))), len(labels)
