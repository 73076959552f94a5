"""Which columns and which segment carry a worsening."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from driftloop.measure.bins import Bins, counts, sums
from driftloop.measure.columns import Codes, Floats
from driftloop.measure.faults import Fault
from driftloop.measure.sides import Answered, Sides, moves
from driftloop.records import Carrier

SURE = 4.0
"""Standard errors of a column that moved."""
FAMILY_WISE = 0.01
"""The chance that any of all bins is named where none is worse than the others (Bonferroni)."""
FEW = 20
"""A bin with fewer rows on either side is not looked at by itself."""
ALONE = 0.35
"""What may be left outside of a segment that alone is the cause, as a share of its excess."""
LEAST_CARRIED = 0.05
TENTHS = 10
FLIPS = 0.02


MANY = 3
"""If so many columns show a changed relation, and most of all do, it has changed in all rows."""


@dataclass(frozen=True, slots=True)
class Excess:
    """A column, or a segment of it, that a relation has changed in."""

    name: str
    share: float
    said: str


def carried(seen: Sides, before: Answered, now: Answered) -> Iterator[Carrier]:
    """Yield the columns whose change of inputs costs most, largest first.

    The loss is foretold from bins of the columns that moved by a ridge regression on the rows of
    both sides. It adds up over columns, so that what each adds by its bins' new shares is its
    Shapley value (Lundberg and Lee 2017, section 4: of a linear model with a column's bins apart).
    """
    moved = moves(seen.telling, before, now)
    names = sorted((n for n in moved if moved[n] >= SURE), key=lambda n: -moved[n])[:8]
    if not names:
        return
    x = np.concatenate(
        [
            np.concatenate(
                [
                    (side.columns[name].codes[:, None] == np.arange(seen.bins[name].size)) * 1.0
                    for name in names
                ],
                axis=1,
            )
            for side in (before, now)
        ]
    )
    loss = np.append(before.loss, now.loss)
    gram = x.T @ x
    gram[np.diag_indices_from(gram)] += 4.0
    beta = np.linalg.solve(gram, x.T @ (loss - loss.mean()))
    gaps = x[before.size :].mean(axis=0) - x[: before.size].mean(axis=0)
    ends = np.cumsum([seen.bins[name].size for name in names])
    each = [
        float(np.sum(part * weight))
        for part, weight in zip(np.split(gaps, ends[:-1]), np.split(beta, ends[:-1]), strict=True)
    ]
    whole = sum(max(part, 0.0) for part in each)
    for part, name in sorted(zip(each, names, strict=True), reverse=True):
        if whole > 0.0 and part / whole >= LEAST_CARRIED:
            share = part / whole
            yield Carrier(name=name, share=share, said=f"{name} ({share:.0%})")


def relation_in(seen: Sides, before: Answered, now: Answered) -> Sequence[Excess]:
    """Return where the relation has changed: a segment, or the bins of a column.

    Scanned are, for each bin, the mean loss beyond that of before and the mean of label less
    answer. A bin that holds nearly all of the excess is the segment (a scan statistic with
    Bonferroni's correction); otherwise the column is named along which the two change most
    (chi-square over its bins, in standard deviations). Nothing is named where all bins are alike.
    """
    tests = sum(bins.size for bins in seen.telling.values())
    bound = _bound(tests)
    segment = _segment(seen, before, now, bound)
    if segment is not None:
        return (segment,)
    scores = sorted(
        ((_along(bins, before, now), name) for name, bins in seen.telling.items()), reverse=True
    )
    found = [(score, name) for score, name in scores if score >= bound]
    if len(found) >= MANY and 2 * len(found) > len(scores):
        return ()  # it has changed everywhere, and each column shows it
    whole = sum(score for score, _ in found)
    return [
        Excess(name, score / whole, f"{name}, at {_worst(seen.bins[name], before, now)}")
        for score, name in found
    ]


def flipped(seen: Sides) -> Fault | None:
    """Return that labels are those of the other class in a share of the rows, all alike.

    Flips move the share of ones at each answer towards its opposite, most where the answer is
    surest (Natarajan and others 2013, section 2). They are told from another relation by that
    nothing else than the answer says where they are.
    """
    before, now = seen.before.labelled, seen.worse
    cuts = np.unique(np.quantile(before.answer, np.arange(1, TENTHS) / TENTHS))
    was, is_now = (np.searchsorted(cuts, side.answer) for side in (before, now))
    size = len(cuts) + 1
    n, m = counts(was, size), counts(is_now, size)
    usable = (n >= FEW) & (m >= FEW)
    if usable.sum() < 3:  # noqa: PLR2004 - a line through two points fits always
        return None
    old = (sums(was, before.label, size) / np.maximum(n, 1.0))[usable]
    new = (sums(is_now, now.label, size) / np.maximum(m, 1.0))[usable]
    weight = 1.0 / (_binomial(old, n[usable]) + _binomial(new, m[usable]))
    lever = 1.0 - 2.0 * old
    share = float(np.sum(weight * (new - old) * lever) / np.sum(weight * lever**2))
    error = float(1.0 / np.sqrt(np.sum(weight * lever**2)))
    left = float(np.sum(weight * (new - old - share * lever) ** 2))
    gone = float(np.sum(weight * (new - old) ** 2)) - left
    freedom = int(usable.sum()) - 1
    fits = left <= freedom + 3.0 * np.sqrt(2.0 * freedom) or left <= 0.1 * gone
    if share < FLIPS or share < 5.0 * error or not fits:
        return None
    if any(_beside(bins, before, now, share) for bins in seen.telling.values()):
        return None
    return Fault("label", f"{share:.0%} of the labels are of the other class", share / error, share)


# -- scans ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Scan:
    """Each usable bin of a column: what its mean is beyond that of before, and with what noise."""

    places: Codes
    rows: Floats
    gap: Floats
    noise: Floats
    """Variances."""


def _scan(bins: Bins, was: Codes, is_now: Codes, before: Floats, now: Floats) -> _Scan:
    n, m = counts(was, bins.size), counts(is_now, bins.size)
    places = np.flatnonzero((n >= FEW) & (m >= FEW))
    means, noise = [], np.zeros(len(places))
    for codes, values, rows in ((was, before, n), (is_now, now, m)):
        mean = sums(codes, values, bins.size)[places] / rows[places]
        square = sums(codes, values**2, bins.size)[places] / rows[places]
        # A bin of few rows may by chance hardly vary.
        var = np.maximum(square - mean**2, 0.25 * float(values.var()) / np.sqrt(rows[places]))
        means.append(mean)
        noise += var / rows[places]
    return _Scan(places, m[places], means[1] - means[0], noise + 1e-24)


def _both(name: str, before: Answered, now: Answered) -> tuple[Codes, Codes]:
    return before.columns[name].codes, now.columns[name].codes


def _segment(seen: Sides, before: Answered, now: Answered, bound: float) -> Excess | None:
    best: tuple[float, str, int] | None = None
    for name, bins in seen.telling.items():
        found = _scan(bins, *_both(name, before, now), before.loss, now.loss)
        if not len(found.gap):
            continue
        sure = found.gap / np.sqrt(found.noise)
        at = int(np.argmax(sure))
        if best is None or sure[at] > best[0]:
            best = float(sure[at]), name, int(found.places[at])
    if best is None or best[0] < bound:
        return None
    _, name, place = best
    old_in, now_in = (codes == place for codes in _both(name, before, now))
    inside = float(now.loss[now_in].mean() - before.loss[old_in].mean())
    outside = float(now.loss[~now_in].mean() - before.loss[~old_in].mean())
    noise = before.loss[~old_in].var() / max((~old_in).sum(), 1)
    noise += now.loss[~now_in].var() / max((~now_in).sum(), 1)
    if outside > ALONE * inside * now_in.mean() and outside > 2.0 * np.sqrt(noise):
        return None
    rest = before.part(np.flatnonzero(~old_in)), now.part(np.flatnonzero(~now_in))
    if min(side.size for side in rest) >= FEW and any(
        _along(bins, *rest) >= bound for bins in seen.telling.values()
    ):
        return None
    share = inside * float(now_in.mean())
    beside = max(outside, 0.0) * (1.0 - float(now_in.mean()))
    part = share / max(share + beside, 1e-12)
    return Excess(name, part, f"{seen.bins[name].said[place]} ({part:.0%} of it)")


def _along(bins: Bins, before: Answered, now: Answered) -> float:
    """Return by how much more than by chance loss or bias change from bin to bin of a column."""
    codes = _both(bins.name, before, now)
    scores = [0.0]
    for was, is_now in ((before.loss, now.loss), (before.residual, now.residual)):
        found = _scan(bins, *codes, was, is_now)
        freedom = len(found.gap) - 1
        if freedom < 1:
            continue
        mean = float(np.average(found.gap, weights=1.0 / found.noise))
        left = float(np.sum((found.gap - mean) ** 2 / found.noise))
        # Wilson and Hilferty 1931: a cube root makes a chi-square nearly normal.
        normal = (np.cbrt(left / freedom) - (1 - 2 / (9 * freedom))) / np.sqrt(2 / (9 * freedom))
        # Far out it saturates: what columns are ranked by is the excess itself.
        far = (left - freedom) / np.sqrt(2 * freedom)
        scores.append(float(max(normal, 0.0) if normal < SURE else far))
    return max(scores)


def _worst(bins: Bins, before: Answered, now: Answered) -> str:
    codes = _both(bins.name, before, now)
    sure, said = 0.0, ""
    for was, is_now in ((before.loss, now.loss), (before.residual, now.residual)):
        found = _scan(bins, *codes, was, is_now)
        if not len(found.gap):
            continue
        far = np.abs(found.gap) / np.sqrt(found.noise)
        at = int(np.argmax(far))
        if far[at] > sure:
            sure, said = float(far[at]), bins.said[int(found.places[at])]
    return said


def _beside(bins: Bins, before: Answered, now: Answered, share: float) -> bool:
    """Say whether a column shows where labels differ beyond what flips of `share` explain."""
    left_now = now.label - (now.answer + share * (1.0 - 2.0 * now.answer))
    # The answers may be off by themselves: so much of that is left by flips.
    left_before = (1.0 - 2.0 * share) * (before.label - before.answer)
    found = _scan(bins, *_both(bins.name, before, now), left_before, left_now)
    freedom = len(found.gap)
    if freedom < 2:  # noqa: PLR2004
        return False
    left = float(np.sum(found.gap**2 / found.noise))
    return left > freedom + 5.0 * float(np.sqrt(2.0 * freedom))


def _binomial(share: Floats, rows: Floats) -> Floats:
    # Laplace's rule keeps a share of 0 from being certain.
    near = (share * rows + 1.0) / (rows + 2.0)
    found: Floats = near * (1.0 - near) / rows
    return found


def _bound(tests: int) -> float:
    from statistics import NormalDist

    return -NormalDist().inv_cdf(FAMILY_WISE / (2.0 * max(tests, 1)))
