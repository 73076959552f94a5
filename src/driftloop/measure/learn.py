"""A champion's profile, learnt of its training rows."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from driftloop.measure.columns import Codes, Floats, Unmeasurable
from driftloop.measure.outlook import losses_ahead, outlook
from driftloop.measure.profile import Profile, Series, joined, profile_of
from driftloop.measure.profile_file import read_profile, write_profile
from driftloop.measure.reference import Reference
from driftloop.measure.scores import centred, losses_of, scored, series_of, unit_of
from driftloop.measure.season import HOURS, middles, positions
from driftloop.records import HOLDOUT_FILE, PROFILE_FILE
from driftloop.spec import Family

HOUR = timedelta(hours=1)
MOST_SLICES = 20_000
"""Of more, the newest are learnt of: 139 days at ten minutes."""
AT_ONCE = 50_000
"""Rows that are scored at once."""
FEWEST = 30
"""Rows within slices that have others beside them, to tell how much rows scatter."""
CUT = 0.995
"""Losses are cut at this quantile of the held-out ones: a mean of few rows is no one row's."""
TINY = 1e-12
DAY = 86_400.0


def learnt(family: Family, reference: Reference, rows: pa.Table, held_out: pa.Table) -> Profile:
    """Return what is usual of a champion's rows and losses.

    Levels, noise and its correlation are those of the training rows; of the prediction they are
    set by the held-out rows, which the champion did not see. So are all of the loss, and what
    losses are expected by before there are labels. What has no event time has no profile: it has
    no series then.

    Args:
        family: whose cadence, features and judged metric.
        reference: the champion's, `prepared`: ranks are taken in it.
        rows: event_time, the features and the champion's prediction, of all training rows.
        held_out: event_time, label, as `candidate` what the champion answered, and `features`.
    """
    series = series_of(family, reference)
    found = _of_rows(family, reference, rows, series)
    found = _answered_anew(family, reference, found, held_out)
    loss = learnt_losses(family, held_out)
    if loss is None:
        return found
    expected = _expected(family, reference, rows, held_out, loss)
    return joined(joined(found, loss), expected) if expected is not None else joined(found, loss)


def learnt_losses(family: Family, held_out: pa.Table) -> Profile | None:
    """Return what is usual of the losses of rows with a label; None where there are none.

    Its `unit` makes a change of the mean loss the judged metric's worsening, as a share of the
    baseline; the losses are cut at `clip`.
    """
    losses = losses_of(family)
    if losses is None or "candidate" not in held_out.column_names:
        return None
    label, answer = (
        held_out[name].cast(pa.float64()).to_numpy() for name in ("label", "candidate")
    )
    there = np.isfinite(label) & np.isfinite(answer)
    if np.count_nonzero(there) < FEWEST:
        return None
    times = seconds(held_out)[there]
    found = losses.of(label[there], answer[there])
    clip = float("inf") if losses.counted else float(np.quantile(found, CUT))
    found = np.minimum(found, clip)[:, None]
    made = profile_of_scores(
        found, times, family.window.cadence, series=(Series(metric="loss", column=None),)
    )
    usual = float(found.mean())
    if losses.counted:
        usual = float((found.sum() + 0.5) / (len(found) + 1.0))
        made = _as_counted(made, np.array([usual]))
    unit = np.array([max(losses.worsening(usual), TINY)])
    return replace(made, unit=unit, clip=clip, loss=losses.name)


def profile_of_scores(
    scores: Floats, times: Floats, cadence: timedelta, *, series: Sequence[Series]
) -> Profile:
    """Return what is usual of rows' scores, of which NaN are not there.

    Args:
        scores: shape (rows, k).
        times: shape (rows,), seconds since 1970.
        cadence: what a slice is at run time.
        series: what the columns are.
    """
    sums = _Sums(times, cadence, len(series))
    order = sums.order
    for first in range(0, len(order), AT_ONCE):
        here = order[first : first + AT_ONCE]
        sums.add(scores[here], first)
    return sums.profile(cadence, series)


def seconds(rows: pa.Table) -> Floats:
    """Return the event times of rows in seconds since 1970."""
    at = rows["event_time"].cast(pa.timestamp("us", "UTC"), safe=False).cast(pa.int64())
    found: Floats = at.to_numpy() / 1e6
    return found


def profile_beside(family: Family, reference: Reference, file: Path) -> Profile:
    """Return the profile beside a reference's file; that of a champion from before is made now.

    It is then learnt of the reference's rows alone, which are a sample, and kept.

    Raises:
        ArtifactError: a file is damaged.
        OSError, pa.ArrowException: the reference cannot be read.
    """
    kept = file.with_name(PROFILE_FILE)
    found = read_profile(kept)
    if found is not None:
        return found
    rows = pq.read_table(file, use_threads=False)
    beside = file.with_name(HOLDOUT_FILE)
    held_out = pa.table({})
    if beside.exists():
        held_out = pq.read_table(beside, use_threads=False)
    made = learnt(family, reference, rows, held_out)
    with suppress(OSError):
        write_profile(made, kept)
    return made


# -- rows to slices -------------------------------------------------------------------------


def _of_rows(
    family: Family, reference: Reference, rows: pa.Table, series: tuple[Series, ...]
) -> Profile:
    cadence = family.window.cadence
    if "event_time" not in rows.column_names or not rows.num_rows:
        return profile_of_scores(np.zeros((0, 0)), np.zeros(0), cadence, series=())
    sums = _Sums(seconds(rows), cadence, len(series))
    for first in range(0, len(sums.order), AT_ONCE):
        part = rows.take(pa.array(sums.order[first : first + AT_ONCE]))
        sums.add(scored(family, part, reference, series)[0], first)
    made = sums.profile(cadence, series)
    unit = np.array([unit_of(each, reference) for each in series])
    counted = np.array([each.metric in {"share", "nulls"} for each in series])
    usual = (sums.first.sum(axis=0) + 0.5) / (sums.count.sum(axis=0) + 1.0)
    made = _as_counted(made, np.where(counted, usual, np.nan))
    alive = [at for at in range(len(series)) if unit[at] > 0.0 and np.isfinite(made.common[at])]
    return replace(made, unit=unit).only(alive)


def _as_counted(profile: Profile, usual: Floats) -> Profile:
    """Return the profile with scatter and skew of what is 0 or 1; `usual` is NaN for the others.

    None is quite 0 or 1: what never was has been rare enough not to be seen.
    """
    counted = np.isfinite(usual)
    share = np.where(counted, usual, 0.5)
    scatter = share * (1.0 - share)
    return replace(
        profile,
        scatter=np.where(counted, np.maximum(scatter, 0.0), profile.scatter),
        skew=np.where(counted, (1.0 - 2.0 * share) / np.sqrt(scatter), profile.skew),
    )


def _answered_anew(
    family: Family, reference: Reference, profile: Profile, held_out: pa.Table
) -> Profile:
    """Return the profile with the prediction's levels set by rows that the champion did not see."""
    at = [place for place, each in enumerate(profile.series) if each.column == "prediction"]
    if not at or "candidate" not in held_out.column_names or not held_out.num_rows:
        return profile
    rows = pa.table({"event_time": held_out["event_time"], "prediction": held_out["candidate"]})
    scores, problems = scored(family, rows, reference, [profile.series[each] for each in at])
    if problems:
        return profile
    times = seconds(rows)
    usual = positions(middles(times, profile.cadence)) @ profile.levels[:, at]
    left = scores - usual
    shifts = [place for place, each in enumerate(at) if profile.series[each].metric == "shift"]
    for place, each in enumerate(at):
        if profile.series[each].metric == "spread" and shifts:
            # As `centred`, of single rows: to the first order round the usual level.
            level, rank = usual[:, shifts[0]], scores[:, shifts[0]]
            left[:, place] -= level * (2.0 * rank - level)
    return _set_by(left, times, profile, at)


def _set_by(left: Floats, times: Floats, profile: Profile, at: list[int]) -> Profile:
    """Return the profile with the levels of the series `at` moved by what held-out rows have left.

    The errors of that count as well.
    """
    cadence = timedelta(seconds=profile.cadence)
    plain = [Series(metric="", column=None) for _ in at]
    moved = profile_of_scores(left, times, cadence, series=plain)
    # Of a single day nothing can be said.
    known = np.isfinite(moved.common)
    levels, common = profile.levels.copy(), profile.common.copy()
    levels[:HOURS, at] += np.where(known, moved.levels[:HOURS].mean(axis=0), 0.0)
    common[at] += np.where(known, moved.common, 0.0)
    return replace(profile, levels=levels, common=common)


def _expected(
    family: Family, reference: Reference, rows: pa.Table, held_out: pa.Table, loss: Profile
) -> Profile | None:
    """Return what is usual of the losses that are expected of rows; None where none can be."""
    losses = losses_of(family)
    there = {"event_time", "prediction"} <= set(rows.column_names) and rows.num_rows
    if losses is None or not there or "features" not in held_out.column_names:
        return None
    label, answer = (
        held_out[name].cast(pa.float64()).to_numpy() for name in ("label", "candidate")
    )
    features = held_out["features"].combine_chunks()
    names = [features.type.field(place).name for place in range(features.type.num_fields)]
    inputs = pa.table(dict(zip(names, features.flatten(), strict=True)))
    with np.errstate(invalid="ignore", over="ignore"):
        found = np.minimum(losses.of(label, answer), loss.clip)
    found = np.where(np.isfinite(label) & np.isfinite(answer), found, np.nan)
    times = seconds(held_out)
    model = outlook(family, reference, inputs, answer, found, np.floor(times / DAY))
    if model is None:
        return None

    def told(of: pa.Table, answers: Floats) -> Floats:
        return losses_ahead(family, reference, of, answers, model)[:, None]

    cadence = family.window.cadence
    sums = _Sums(seconds(rows), cadence, 1)
    try:
        for first in range(0, len(sums.order), AT_ONCE):
            part = rows.take(pa.array(sums.order[first : first + AT_ONCE]))
            sums.add(told(part, part["prediction"].cast(pa.float64()).to_numpy()), first)
        held = told(inputs, answer)
    except Unmeasurable:
        return None
    made = sums.profile(cadence, (Series(metric="expected", column=None),))
    left = held - positions(middles(times, made.cadence)) @ made.levels
    made = _set_by(left, times, made, [0])
    if not np.isfinite(made.common[0]):
        return None
    return replace(made, unit=loss.unit, outlook=model)


class _Sums:
    """Sums of rows' scores and their powers, slice by slice; `order` puts rows in order of time."""

    def __init__(self, times: Floats, cadence: timedelta, k: int) -> None:
        grain = min(cadence, HOUR).total_seconds()
        number = np.floor(times / grain).astype(np.int64)
        order = np.argsort(number, kind="stable")
        each, place = np.unique(number[order], return_inverse=True)
        gone = max(0, len(each) - MOST_SLICES)
        kept = place >= gone
        self.order: Codes = order[kept]
        self._place: NDArray[np.int64] = place[kept] - gone
        self.times: Floats = np.asarray((each[gone:] + 0.5) * grain, np.float64)
        shape = (len(self.times), k)
        self.count: Floats = np.zeros(shape)
        self.first: Floats = np.zeros(shape)
        self.second: Floats = np.zeros(k)
        self.third: Floats = np.zeros(k)

    def add(self, scores: Floats, first: int) -> None:
        """Take up the scores of the rows from place `first` in `order` on."""
        place = self._place[first : first + len(scores)]
        there = np.isfinite(scores)
        told = np.where(there, scores, 0.0)
        starts = np.flatnonzero(np.diff(place, prepend=place[:1] - 1))
        at = place[starts]
        count = np.add.reduceat(there.astype(np.float64), starts, axis=0)
        sums = np.add.reduceat(told, starts, axis=0)
        self.count[at] += count
        self.first[at] += sums
        self.second += (told**2).sum(axis=0)
        self.third += (told**3).sum(axis=0)

    def profile(self, cadence: timedelta, series: Sequence[Series]) -> Profile:
        if not len(self.times):
            none = np.zeros((1, len(series)))
            return profile_of(none, none, np.zeros(1), cadence, series=series)
        safe = np.where(self.count > 0.0, self.count, 1.0)
        means = centred(self.first / safe, self.count, series)
        rows = np.maximum(self.count.sum(axis=0), 1.0)
        free = np.maximum(self.count - 1.0, 0.0).sum(axis=0)
        within = self.second - (self.first**2 / safe).sum(axis=0)
        mean = self.first.sum(axis=0) / rows
        whole = self.second / rows - mean**2
        scatter = np.where(free >= FEWEST, within / np.maximum(free, 1.0), whole)
        third = self.third / rows - 3.0 * mean * self.second / rows + 2.0 * mean**3
        skew = np.divide(third, whole**1.5, out=np.zeros_like(third), where=whole > TINY)
        return profile_of(
            means,
            self.count,
            self.times,
            cadence,
            scatter=np.maximum(scatter, 0.0),
            skew=skew,
            series=series,
        )
