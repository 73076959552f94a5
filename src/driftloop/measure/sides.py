"""Rows of before and of now, cut alike, and since when they differ."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import pyarrow as pa

from driftloop.measure.bins import Bins, Column, bins_of, counts
from driftloop.measure.columns import Codes, Floats, Unmeasurable, numbers
from driftloop.measure.faults import Side
from driftloop.records import Task
from driftloop.rows import Rows
from driftloop.spec import Family

NOW = "the champion's rows"
MOST = 4000
"""Rows that are compared of either side; of more as many evenly in time."""
LEAST = 100
"""Fewer rows are no part of a window to compare."""
SPANS = 8
"""At least so many spans of before show how far things usually swing."""
MOST_SPANS = 400
RARE = 4.0
MOVED = 6.0
"""Standard errors of a column that has moved."""
STRETCH, STILL, MORE = 25, 0.6, 0.3
"""Of so many training rows in turn one value has such a share, and so much more than of all rows,
where a column stands still."""
FINER, ROUNDS = 9, 2
"""So many places are looked at to find when a change began, and so many times nearer to it."""
EPS = 1e-7


@dataclass(frozen=True, slots=True)
class Answered:
    """Rows of one side in the order of time.

    `time` is in microseconds since 1970, `loss` and `residual` (label less answer) are NaN where
    there is no label, and so is `label`.
    """

    columns: Mapping[str, Column]
    time: Floats | None
    label: Floats
    answer: Floats
    loss: Floats
    residual: Floats

    @property
    def size(self) -> int:
        """How many rows there are."""
        return len(self.label)

    def part(self, at: Codes) -> "Answered":
        """Return the rows `at`."""
        return Answered(
            {
                name: Column(
                    each.codes[at],
                    None if each.values is None else each.values[at],
                    each.unseen[at],
                )
                for name, each in self.columns.items()
            },
            None if self.time is None else self.time[at],
            self.label[at],
            self.answer[at],
            self.loss[at],
            self.residual[at],
        )

    @property
    def labelled(self) -> "Answered":
        """The rows that have a label."""
        return self.part(np.flatnonzero(np.isfinite(self.loss)))


@dataclass(frozen=True, slots=True)
class Sides:
    """Both sides: `changed` are the newest rows of now from which on the inputs differ most.

    `worse` are the newest labelled ones from which on the loss does.
    """

    bins: Mapping[str, Bins]
    before: Answered
    changed: Answered
    worse: Answered
    still: frozenset[str]
    """Columns that stand still for long, as a month does: they tell the time."""
    sooner: Answered | None
    """What is in the window before `changed`, if that is enough to compare."""
    moved: Mapping[str, float]
    """By how many standard errors each column of `changed` has moved."""

    @property
    def telling(self) -> Mapping[str, Bins]:
        """The columns that tell more than the time."""
        return {name: bins for name, bins in self.bins.items() if name not in self.still}

    def column(self, name: str) -> Side:
        """Return one column of before and of `changed`."""
        bins, was, now = self.bins[name], self.before.columns[name], self.changed.columns[name]
        span = spans(self.before, self.changed)
        swing = swings(span, was.codes, bins.size)
        return Side(
            bins,
            was,
            now,
            swing,
            self.moved[name],
            still=name in self.still,
            sudden=self._sudden(name),
        )

    def _sudden(self, name: str) -> bool:
        """Say whether a column was as usual in the window at first, and has moved nearly alone."""
        if self.sooner is None or name in self.still:
            return False
        at_first = moves({name: self.bins[name]}, self.before, self.sooner)[name]
        least = max(MOVED, self.moved[name] / 4.0)
        others = [self.moved[each] for each in self.telling if each != name]
        with_it = sum(far >= least for far in others)
        return at_first < least and with_it <= len(others) / 4.0


def sides(family: Family, now: Rows, before: pa.Table, reference: pa.Table) -> Sides:
    """Return the sides of one model.

    Args:
        family: gives the task and the features.
        now: the champion's rows of the window.
        before: rows that it answered before it was released, and was not fitted on; as `now`.
        reference: the rows it was fitted on; they say how columns are cut.

    Raises:
        Unmeasurable: there are too few rows on either side.
    """
    cut = bins_of(family, reference)
    if before.num_rows < LEAST:
        raise Unmeasurable(f"{before.num_rows} rows from before its release, {LEAST} are needed")
    if now.num_rows < LEAST:
        raise Unmeasurable(f"{now.num_rows} rows, {LEAST} are needed", n=now.num_rows)
    was = _answered(family, cut, before, _evenly(before.num_rows))
    picked = np.unique(
        np.concatenate([_evenly(now.num_rows, first=f) for f in _halves(now.num_rows)])
    )
    is_now = _answered(family, cut, now, picked)
    shared = [name for name in cut if name in was.columns and name in is_now.columns]
    cut = {name: cut[name] for name in shared}

    def moved(part: Answered) -> float:
        return max(moves(cut, was, part).values(), default=0.0)

    changed, first = _newest(is_now, moved)
    labelled = is_now.labelled
    worse = labelled
    if labelled.size >= LEAST and was.labelled.size >= LEAST:
        known = was.labelled
        worse, _ = _newest(labelled, lambda part: sure_of_worse(known, part)[1])
    sooner = is_now.part(np.arange(first)) if first >= max(LEAST, is_now.size // 10) else None
    trained = _answered(family, cut, reference, _evenly(reference.num_rows))
    still = frozenset(
        name
        for name, column in trained.columns.items()
        if name in cut and _stands_still(column.codes, cut[name].size)
    )
    return Sides(cut, was, changed, worse, still, sooner, moves(cut, was, changed))


def losses(family: Family, label: Floats, answer: Floats) -> Floats:
    """Return what each answer costs, in the unit of the judged metric where it is a mean of rows.

    Of other metrics: the squared error of numbers, the log loss of probabilities, and 1 for a
    class missed.
    """
    metric = family.decay.metric if family.decay is not None else ""
    if family.task is Task.REGRESSION:
        apart = np.abs(answer - label)
        if metric in ("mape", "mape_abs"):
            return 100.0 * apart / np.maximum(np.abs(label), EPS)
        return apart if metric in ("mae", "abs_max_error") else apart**2
    if family.task is Task.MULTICLASS:
        return np.where(np.isnan(label) | np.isnan(answer), np.nan, (label != answer) * 1.0)
    if metric in ("accuracy", "precision", "recall", "tpr", "tnr", "fpr", "fnr", "f1"):
        missed = (answer >= 0.5) != (label == 1.0)  # noqa: PLR2004 - where all of them are cut
        return np.where(np.isnan(label) | np.isnan(answer), np.nan, missed * 1.0)
    likely = np.clip(np.where(label == 1.0, answer, 1.0 - answer), EPS, 1.0)
    found: Floats = np.where(np.isnan(label), np.nan, -np.log(likely))
    return found


def swings(span: Codes | None, codes: Codes, size: int) -> Floats:
    """Return how far the share of each bin usually swings between spans; see `spans`.

    It is the standard deviation beyond what so few rows have by chance; 0 where rows have no time.
    A part of a day has other hours than a week, and that is no change.
    """
    if span is None:
        return np.zeros(size)
    many = int(span[-1]) + 1
    table = np.bincount(span * size + codes, minlength=many * size).reshape(many, size)
    rows = table.sum(axis=1)
    table, rows = table[rows > 0], rows[rows > 0]
    shares = table / rows[:, None]
    mean = shares.mean(axis=0)
    return _beyond_chance(
        shares.var(axis=0, ddof=1), mean * (1.0 - mean) * np.mean(1.0 / rows), len(rows)
    )


def swing_of_mean(before: Answered, now: Answered, values: Floats) -> float:
    """Return the same of the mean of `values`, which are those of the rows of `before`."""
    span = spans(before, now)
    if span is None:
        return 0.0
    rows = np.bincount(span)
    means = np.bincount(span, weights=values)[rows > 0] / rows[rows > 0]
    by_chance = np.asarray(values.var() * np.mean(1.0 / rows[rows > 0]))
    return float(_beyond_chance(np.asarray(means.var(ddof=1)), by_chance, len(means)))


def _beyond_chance(variance: Floats, by_chance: Floats, many: int) -> Floats:
    """Return the standard deviation that `variance` has beyond chance, 0 where it may be chance."""
    most = by_chance * (1.0 + 2.0 * np.sqrt(2.0 / max(many - 1, 1)))
    return np.where(variance > most, np.sqrt(np.maximum(variance - by_chance, 0.0)), 0.0)


# -- rows ----------------------------------------------------------------------------------


def _answered(family: Family, cut: Mapping[str, Bins], rows: Rows, at: Codes) -> Answered:
    of = NOW
    columns: dict[str, Column] = {}
    order, time = _ordered(rows, at)
    for name, bins in cut.items():
        try:
            columns[name] = bins.of(rows, order, of=of)
        except Unmeasurable:
            continue
    label, answer = (numbers(rows, name, of=of)[order] for name in ("label", "prediction"))
    loss = losses(family, label, answer)
    return Answered(columns, time, label, answer, loss, label - answer)


def _ordered(rows: Rows, at: Codes) -> tuple[Codes, Floats | None]:
    if "event_time" not in rows.column_names:
        return at, None
    times = rows.column("event_time")
    if not pa.types.is_timestamp(times.type) or times.null_count:
        return at, None
    us = times.cast(pa.timestamp("us", tz=times.type.tz), safe=False).cast(pa.int64()).to_numpy()
    order = np.argsort(us, kind="stable")[at]
    return order, us[order].astype(np.float64)


def _evenly(n: int, *, first: int = 0) -> Codes:
    if n - first <= MOST:
        return np.arange(first, n)
    return np.linspace(first, n - 1, MOST).astype(np.int64)


def _halves(n: int) -> list[int]:
    """Return where all rows begin, the newer half, the newest quarter, and so on."""
    found: list[int] = []
    size = n
    while size >= LEAST or not found:
        found.append(n - size)
        size //= 2
    return found


def _newest(rows: Answered, apart: Callable[[Answered], float]) -> tuple[Answered, int]:
    """Return the newest rows that are furthest `apart`, and where they begin.

    Halves are looked at first, then nearer to the best.

    A part that begins before the change is diluted, and one that begins after it is small: the
    standardised difference is largest where it began (Page 1954, of a mean).
    """

    def part(first: int) -> Answered:
        return rows.part(_evenly(rows.size, first=first))

    def score(first: int) -> float:
        return apart(part(first))

    last = max(rows.size - LEAST, 0)
    best = max(_halves(rows.size), key=score)
    step = rows.size - best
    for _ in range(ROUNDS):
        low, high = max(best - step, 0), min(best + step // 2, last)
        near = {best, *np.linspace(low, high, FINER).astype(int).tolist()}
        best = max(sorted(near), key=score)
        step = (high - low) // (FINER - 1)
    return part(best), best


def _stands_still(codes: Codes, size: int) -> bool:
    """Say whether a column has one value for long stretches, and over all of them several."""
    parts = np.array_split(codes, max(len(codes) // STRETCH, 1))
    within = [float(counts(part, size).max()) / max(len(part), 1) for part in parts]
    whole = float(counts(codes, size).max()) / max(len(codes), 1)
    usual = float(np.median(within))
    return usual >= STILL and usual - whole >= MORE


# -- how far they are apart ----------------------------------------------------------------


def moves(cut: Mapping[str, Bins], before: Answered, now: Answered) -> Mapping[str, float]:
    """Return by how many standard errors each column has moved: in the bin that did so most."""
    span = spans(before, now)
    return {
        name: float(
            np.max(np.abs(apart(bins, before.columns[name].codes, now.columns[name].codes, span)))
        )
        for name, bins in cut.items()
    }


def apart(bins: Bins, was: Codes, is_now: Codes, span: Codes | None) -> Floats:
    """Return by how many standard errors the share of each bin has changed."""
    n, m = len(was), len(is_now)
    old, new = counts(was, bins.size), counts(is_now, bins.size)
    # Of what is rare a few rows more are no news, however unlikely by the normal law.
    both = np.clip((old + new) / (n + m), RARE / min(n, m), 0.5)
    noise = both * (1.0 - both) * (1.0 / n + 1.0 / m)
    found: Floats = (new / m - old / n) / np.sqrt(noise + swings(span, was, bins.size) ** 2)
    return found


def sure_of_worse(before: Answered, now: Answered) -> tuple[float, float]:
    """Return by how much the mean loss is greater, and by how many standard errors."""
    gap = float(now.loss.mean() - before.loss.mean())
    noise = before.loss.var() / before.size + now.loss.var() / now.size
    swing = swing_of_mean(before, now, before.loss)
    return gap, gap / float(np.sqrt(noise + swing**2 + 1e-24))


def spans(before: Answered, now: Answered) -> Codes | None:
    """Return which span of before each of its rows is in, spans being as long as `now` is.

    None where rows have no time, or too short a one.
    """
    if before.time is None or now.time is None or before.size < LEAST or now.size < 1:
        return None
    whole = before.time[-1] - before.time[0]
    second = timedelta(seconds=1) / timedelta(microseconds=1)
    if whole < SPANS * second:
        return None
    length = max(min(float(now.time[-1] - now.time[0]), whole / SPANS), whole / MOST_SPANS, second)
    # What is left at the end is no span.
    last = max(int(whole // length), 1) - 1
    found: Codes = np.minimum((before.time - before.time[0]) // length, last).astype(np.int64)
    return found
