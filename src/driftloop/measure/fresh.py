"""What came since the last look, and that alone, against what is usual at its hours.

No row is fresh twice: what these readings tell of a change adds up, look by look.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import floor, log10

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from driftloop.measure.columns import Codes, Floats, Unmeasurable, numbers
from driftloop.measure.follow import Changes, changed, lags
from driftloop.measure.outlook import losses_ahead, seen
from driftloop.measure.profile import Profile
from driftloop.measure.reference import Reference
from driftloop.measure.scores import centred, losses_of, scored
from driftloop.measure.season import middles, positions
from driftloop.records import Z90, Kind, Reading, Window
from driftloop.rows import Rows, chosen
from driftloop.spec import Family

DIGITS = 6
ASKED = 500
"""By so many of the fresh rows it is told how unsure the expected loss is of them."""
MOST = 48
"""Slices that a long time without a look is cut into; of a longer one each is longer."""

RAREST = 1e-300
"""Below that there are hardly any doubles left."""


@dataclass(frozen=True, slots=True)
class Usual:
    """What fresh rows are compared with: the champion's profile, from `window.since` on."""

    profile: Profile
    window: Window


def fresh_readings(
    family: Family, current: Rows, own: Rows, reference: Reference, usual: Usual
) -> Iterator[Reading]:
    """Yield how what arrived after `window.since` differs from what is usual; none, if nothing did.

    Of each numeric column and prediction "shift" and "spread", in standard deviations of what is
    scored of the reference (see `scores.scored`); of each category "share", which is that of the
    level that has risen most, in its own standard deviations; of each feature "nulls", as a share
    of rows; and "loss", the judged metric's worsening as a share of its baseline, on rows whose
    labels arrived since; "expected" is the same of all that arrived since, as their answers and
    inputs tell it (see `outlook`). Positive is more, or worse. `n` counts the values that are
    new; `low` and `high` are 1.645 standard errors away: what rows scatter, slices share (see
    `profile`), and the profile's own errors. The baseline of a loss is the upper end of its 90 %
    interval, and of the change that is expected the lower end counts. Predictions and losses are
    those of the champion's own rows: what another answered foretells nothing of them. Where
    nothing can be fresh, one reading "fresh" without a value says why.

    Args:
        family: gives the columns and the judged metric.
        current: the window's rows.
        own: those that the champion answered.
        reference: the champion's, `prepared`.
        usual: the champion's profile, and the window; without its `since` nothing is yielded.
    """
    slices = _slices(family, usual.window)
    if slices is None:
        return
    if (problem := _mute(usual.profile, current)) is not None:
        yield _unknown(problem, metric="fresh")
        return
    profile = usual.profile.paced(family.window.cadence)
    known = {*family.measured, *family.numbers}
    inputs = [at for at, each in enumerate(profile.series) if each.column in known]
    answers = [at for at, each in enumerate(profile.series) if each.column == "prediction"]
    yield from _of_rows(family, current, reference, profile.only(inputs), slices)
    yield from _of_rows(family, own, reference, profile.only(answers), slices)
    if family.decay is not None and losses_of(family) is not None:
        loss = [at for at, each in enumerate(profile.series) if each.metric == "loss"]
        yield from _of_losses(family, own, profile.only(loss), slices)
        expected = [at for at, each in enumerate(profile.series) if each.metric == "expected"]
        yield from _of_outlook(family, own, reference, profile.only(expected), slices)


def sidak(z: Floats) -> float:
    """Return the largest of `z` as the standard normal value that is as rare as it is among them.

    After Sidak 1967: were they independent, it is normal itself; where they hinder each other, as
    shares do, it is hardly larger.

    >>> round(sidak(np.array([3.0])), 6), round(sidak(np.array([3.0, -1.0, 0.0])), 3)
    (3.0, 2.648)
    """
    from scipy.special import log_ndtr, ndtri

    largest = float(z.max())
    rare = -float(np.expm1(len(z) * log_ndtr(largest)))
    # There so many levels hardly matter.
    return float(-ndtri(rare)) if rare > RAREST else largest


@dataclass(frozen=True, slots=True)
class _Slices:
    """Times in seconds since 1970: fresh is what came in (since, until], in `count` slices."""

    since: float
    until: float
    cadence: float
    count: int

    def of(self, arrived: Floats, before: int) -> Codes:
        """Return the slice of each arrival: `before` ones that are not fresh come first."""
        length = (self.until - self.since) / self.count
        fresh = arrived > self.since
        with np.errstate(invalid="ignore"):
            new = before + np.minimum(np.ceil((arrived - self.since) / length) - 1, self.count - 1)
            old = before - 1 - np.floor((self.since - arrived) / self.cadence)
        return np.where(fresh, new, old).astype(np.int64)

    def gaps(self, before: int) -> Floats:
        """Return the cadences from the middle of each slice to the one before it."""
        length = (self.until - self.since) / self.count / self.cadence
        lengths = np.append(np.ones(before), np.full(self.count, length))
        return np.append(0.0, (lengths[1:] + lengths[:-1]) / 2.0)


def _slices(family: Family, window: Window) -> _Slices | None:
    if window.since is None or window.since >= window.known_at:
        return None
    cadence = family.window.cadence
    count = round((window.known_at - window.since) / cadence)
    return _Slices(
        since=window.since.timestamp(),
        until=window.known_at.timestamp(),
        cadence=cadence.total_seconds(),
        count=min(max(count, 1), MOST),
    )


def _mute(profile: Profile, current: Rows) -> str | None:
    """Return why nothing of a model can be fresh; None where it can."""
    if not any(each.metric not in {"loss", "expected"} for each in profile.series):
        return "the champion's reference has no event_time, or is of a single day"
    if current.num_rows and _untold(current, "arrived_at"):
        return "the log does not tell when rows arrive"
    return None


def _untold(rows: Rows, name: str) -> bool:
    """Say whether a column is not there, or nothing is in it."""
    if name not in rows.column_names:
        return True
    column = rows.column(name)
    return bool(column.null_count == len(column))


def _of_rows(
    family: Family, current: Rows, reference: Reference, profile: Profile, slices: _Slices
) -> Iterator[Reading]:
    rows, before = _since(current, "arrived_at", profile, slices)
    if rows is None:
        return
    scores, problems = scored(family, rows, reference, profile.series)
    there, found = _found(scores, rows, "arrived_at", profile, slices, before)
    yield from (
        Reading(
            kind=Kind.FRESH,
            metric=profile.series[at].metric,
            column=name,
            value=None,
            n=0,
            problem=problem,
        )
        for name, problem in problems.items()
        for at in [next(at for at, each in enumerate(profile.series) if each.column == name)]
    )
    shares: dict[str | None, list[int]] = {}
    for at, each in enumerate(profile.series):
        if each.metric == "share":
            shares.setdefault(each.column, []).append(at)
        elif there[at]:
            yield _reading(each.metric, each.column, found.value[at], found.error[at], there[at])
    for column, places in shares.items():
        value, error = found.value[places], found.error[places]
        if not there[places[0]] or not np.isfinite(value).all():
            continue
        z = value / error
        most = int(np.argmax(z))
        risen = sidak(z) * float(error[most])
        yield _reading("share", column, risen, float(error[most]), there[places[0]])


def _of_losses(family: Family, own: Rows, profile: Profile, slices: _Slices) -> Iterator[Reading]:
    losses = losses_of(family)
    if losses is None or not own.num_rows or _untold(own, "label"):
        return
    if _untold(own, "labelled_at"):
        yield _unknown("the log does not tell when labels arrive")
        return
    if not profile.series:
        yield _unknown("the champion has too few held-out rows for it")
        return
    if profile.loss != losses.name:
        yield _unknown(f"the champion's profile is of {profile.loss}, not of {losses.name}")
        return
    rows, before = _since(own, "labelled_at", profile, slices)
    if rows is None:
        return
    label, answer = (
        rows.column(name).cast(pa.float64()).to_numpy() for name in ("label", "prediction")
    )
    with np.errstate(invalid="ignore", over="ignore"):
        found = np.minimum(losses.of(label, answer), profile.clip)
    found = np.where(np.isfinite(label) & np.isfinite(answer), found, np.nan)[:, None]
    # The baseline is an estimate too: only what is worse than it may well be counts.
    careful = np.sqrt(profile.common)
    there, change = _found(
        found - Z90 * careful,
        rows,
        "labelled_at",
        _without_common(profile),
        slices,
        before,
    )
    if there[0]:
        yield _reading("loss", None, change.value[0], change.error[0], there[0])


def _of_outlook(
    family: Family, own: Rows, reference: Reference, profile: Profile, slices: _Slices
) -> Iterator[Reading]:
    rows, before = _since(own, "arrived_at", profile, slices)
    if rows is None or profile.outlook is None or profile.loss != _name(family):
        return
    model = profile.outlook
    try:
        answer = numbers(rows, "prediction", of="the fresh rows")
        ahead = losses_ahead(family, reference, rows, answer, model)[:, None]
        fresh = np.flatnonzero((_seconds(rows, "arrived_at") > slices.since) & np.isfinite(answer))
        if not len(fresh):
            return
        few = fresh[:: -(-len(fresh) // ASKED)]
        wrong = model.error(seen(family, reference, _at(rows, few), answer[few], model.names))
    except Unmeasurable as problem:
        yield _unknown(str(problem), metric="expected")
        return
    ahead -= Z90 * np.sqrt(profile.common)
    there, change = _found(ahead, rows, "arrived_at", _without_common(profile), slices, before)
    # How wrong the model is stays the same look after look: no more of it adds up than may be.
    careful = Z90 * wrong / profile.unit[0]
    yield _reading("expected", None, change.value[0] - careful, change.error[0], there[0])


def _at(rows: Rows, places: Codes) -> Rows:
    wanted = np.zeros(rows.num_rows, dtype=np.bool_)
    wanted[places] = True
    return chosen(rows, pa.chunked_array([wanted]))


def _name(family: Family) -> str | None:
    losses = losses_of(family)
    return None if losses is None else losses.name


def _found(
    scores: Floats,
    rows: Rows,
    came: str,
    profile: Profile,
    slices: _Slices,
    before: int,
) -> tuple[list[int], Changes]:
    """Return how many fresh values each series has, and the changes that they tell of."""
    which = slices.of(_seconds(rows, came), before)
    at = middles(_seconds(rows, "event_time"), profile.cadence)
    total = before + slices.count
    order = np.argsort(which, kind="stable")
    kept = order[(which[order] >= 0) & (which[order] < total)]
    ordered = which[kept]
    starts = np.flatnonzero(np.diff(ordered, prepend=-1))
    counts, sums = np.zeros((total, scores.shape[1])), np.zeros((total, scores.shape[1]))
    # Series by series, as they lie in memory.
    for at_series, series in enumerate(scores.T):
        told = series[kept]
        there = np.isfinite(told)
        if there.all():
            counts[ordered[starts], at_series] = np.diff(starts, append=len(kept))
        else:
            counts[ordered[starts], at_series] = np.add.reduceat(there, starts, dtype=np.float64)
            told[~there] = 0.0
        sums[ordered[starts], at_series] = np.add.reduceat(told, starts)
    means = np.divide(sums, counts, out=np.zeros_like(sums), where=counts > 0.0)
    means = centred(means, counts, profile.series)
    expected = positions(at[kept], ordered, total) @ profile.levels
    fresh = kept[ordered >= before]
    whole = positions(at[fresh], np.zeros(len(fresh), dtype=np.int64), 1)
    _, wrong = profile.expected(whole)
    found = changed(profile, means - expected, counts, slices.gaps(before), wrong[0], seen=before)
    return counts[before:].sum(axis=0).astype(np.int64).tolist(), found


def _since(rows: Rows, came: str, profile: Profile, slices: _Slices) -> tuple[Rows | None, int]:
    """Return the fresh rows with those that foretell them, and how many slices these are.

    None where there are no fresh rows, or nothing is known of them.
    """
    if came not in rows.column_names or not rows.num_rows or not profile.series:
        return None, 0
    arrived = _seconds(rows, came)
    fresh = int(np.count_nonzero(arrived > slices.since))
    if not fresh:
        return None, 0
    before = lags(profile, fresh / slices.count)
    return _some(rows, arrived > slices.since - before * slices.cadence), before


def _some(rows: Rows, wanted: NDArray[np.bool_]) -> Rows:
    """Return the rows that are wanted; where they lie side by side none is copied."""
    at = np.flatnonzero(wanted)
    if isinstance(rows, pa.Table):
        first, last = int(at[0]), int(at[-1]) + 1
        rows, wanted = rows.slice(first, last - first), wanted[first:last]
        if len(at) == len(wanted):
            return rows
    return chosen(rows, pa.chunked_array([wanted]))


def _seconds(rows: Rows, name: str) -> Floats:
    at = rows.column(name).cast(pa.timestamp("us", "UTC")).cast(pa.int64())
    # What is null is NaN, and later than nothing.
    found: Floats = at.to_numpy() / 1e6
    return found


def _without_common(profile: Profile) -> Profile:
    return replace(profile, common=np.zeros_like(profile.common))


def _reading(metric: str, column: str | None, value: float, error: float, n: int) -> Reading:
    if not np.isfinite(value) or not np.isfinite(error):
        return Reading(
            kind=Kind.FRESH,
            metric=metric,
            column=column,
            value=None,
            n=n,
            problem="the champion's profile is of a single day",
        )
    half = Z90 * float(error)
    return Reading(
        kind=Kind.FRESH,
        metric=metric,
        column=column,
        value=_short(value, half),
        n=n,
        low=_short(value - half, half),
        high=_short(value + half, half),
    )


def _short(value: float, half: float) -> float:
    """Return six significant digits of the interval: what is judged, and is kept for ever."""
    return round(float(value), DIGITS - 1 - floor(log10(half))) if half > 0.0 else float(value)


def _unknown(problem: str, *, metric: str = "loss") -> Reading:
    return Reading(kind=Kind.FRESH, metric=metric, column=None, value=None, n=0, problem=problem)
