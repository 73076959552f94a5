"""Which partitions of a model's rows are bad, by what is usual in the others. Pure.

A partition is one block of time, `window.block`: rows that near share what troubles them, so that
a fault is of a block as a whole, and a block is what the gate counts as one piece of evidence. It
is judged against the model's other partitions: the median of what they have and, as a measure of
their spread, the median absolute deviation from it (Hampel 1974, "The influence curve and its role
in robust estimation", section 5.4), which up to half of them can be bad without moving. How much is
too much says the family: `[quality]` and `[quarantine]`.

A change that lasts is drift, and must train. So disagreement of labels and answers is a fault only
where it shows that it is not of the world: it begins and ends with a partition and the relation
before it is back, or labels that arrived in one block of time disagree where the others of the
same rows agree. Whatever else it may have been, it does not tell how things are now. The newest
partitions, of which nobody can say yet, are left alone, and it is said that they may be wrong.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from math import asin, atanh, hypot, inf, log, sqrt

import numpy as np
import numpy.typing as npt

from driftloop.records import Agreement, Partition, Quarantined, Released, Task
from driftloop.spec import Family

CONTEXT = 56
"""So many partitions are judged by each other."""
LEAST = 7
"""With fewer other partitions nothing is usual."""
SAME_PLACE = 3
"""With fewer others at the same place in the week no number of rows is usual."""
SURE = 1e-6
"""So improbable must a count be by chance alone."""
SPREADS = 6.0
"""So many robust standard deviations from the median is outside."""
FAR = 8.0
"""Values this many times further out than usual are impossible, or more where that varies much:
beyond so many `SPREADS` of its logarithm."""
RENAMED = 0.5
"""A smaller share of new levels may be news, as the first snow is: it pages, and trains."""
FEW_ROWS = 20
FEW_LABELS = 30
OFTEN = 3
"""What came on so many other occasions as well, at least half as bad, is how the column is."""
MINORITY = 20.0
"""So many other labels must be missing where all are the same."""
RUN = 3
"""Disagreement of more partitions in a row is a change of the relation, and no fault."""
AGREES = 0.2
"""Where labels and answers usually agree by less nothing can be told of their agreement."""
GONE, BACK = 0.25, 0.5
"""Agreement below the first share of the usual is gone; above the second it is as before."""
_WEEK = timedelta(days=7)
_EPOCH = datetime(1970, 1, 5, tzinfo=UTC)  # a Monday
_SHOWN = 4

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspect:
    """A partition with what is wrong with it, or with what cannot be told of it yet."""

    partition: Partition
    reasons: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Rows with events in [start, end) that are in quarantine now, by the fact of it."""

    start: datetime
    end: datetime
    fact: Quarantined


def suspects(
    partitions: Sequence[Partition], family: Family, *, now: datetime
) -> tuple[Suspect, ...]:
    """Return which partitions of one model are bad, or may be, and why; oldest first.

    Of a long past each `CONTEXT` partitions are judged by each other: what is usual changes.

    Args:
        partitions: of one model, oldest first; those in quarantine too.
        family: the model's, for its limits.
        now: what ends later is not judged by how many rows it has.
    """
    found: list[Suspect] = []
    end = len(partitions)
    while end > 0:
        # What is left of the oldest, too few to say what is usual, goes with those after it.
        start = end - CONTEXT if end >= CONTEXT + LEAST + 1 else 0
        seen = _suspects(partitions[start:end], family, now=now)
        newest = end == len(partitions)
        found[:0] = seen if newest else [replace(each, doubts=()) for each in seen if each.reasons]
        end = start
    return tuple(found)


def _suspects(partitions: Sequence[Partition], family: Family, *, now: datetime) -> list[Suspect]:
    """Return the suspects among partitions that are judged by each other."""
    reasons: list[list[str]] = [[] for _ in partitions]
    doubts: list[list[str]] = [[] for _ in partitions]
    for place, partition in enumerate(partitions):
        if partition.impossible:
            said = f"schema: {partition.impossible} labels or answers that cannot be"
            reasons[place].append(said)
    if len(partitions) > LEAST:
        for check in (_columns, _counts, _volume, _constant):
            for place, said in check(partitions, family, now):
                reasons[place].append(said)
        for place, said, sure in _flips(partitions, family):
            (reasons if sure else doubts)[place].append(said)
    return [
        Suspect(partition=partition, reasons=tuple(wrong), doubts=tuple(unsure))
        for partition, wrong, unsure in zip(partitions, reasons, doubts, strict=True)
        if wrong or unsure
    ]


def standing(
    facts: Sequence[Quarantined | Released], *, now: datetime | None
) -> tuple[Standing, ...]:
    """Return what is in quarantine of one model, in order of time.

    Args:
        facts: of one model, in the order they were appended.
        now: what was to be kept until then is out; None keeps it all.
    """
    held: list[Standing] = []
    for fact in facts:
        held = [part for each in held for part in _without(each, fact.start, fact.end)]
        if isinstance(fact, Quarantined):
            held.append(Standing(start=fact.start, end=fact.end, fact=fact))
    return tuple(
        sorted(
            (each for each in held if now is None or each.fact.until > now),
            key=lambda each: each.start,
        )
    )


def trusted(facts: Sequence[Quarantined | Released], partition: Partition) -> bool:
    """Return whether somebody's word is the last on all of a partition, and lets it train."""
    left = [(partition.start, partition.end)]
    for fact in reversed(facts):
        if isinstance(fact, Quarantined):
            if any(start < fact.end and fact.start < end for start, end in left):
                return False
            continue
        left = [
            piece
            for start, end in left
            for piece in ((start, min(end, fact.start)), (max(start, fact.end), end))
            if piece[0] < piece[1]
        ]
        if not left:
            return True
    return False


def kinds(reasons: Sequence[str]) -> frozenset[str]:
    """Return what is wrong, without by how much.

    >>> sorted(kinds(["nulls of age: 80 %, usually 1 %"]))
    ['nulls of age']
    """
    return frozenset(reason.partition(":")[0] for reason in reasons)


def floor(at: datetime, block: timedelta) -> datetime:
    """Return the beginning of the block that `at` is in; blocks are counted from 1970 on."""
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    return epoch + (at - epoch) // block * block


def _without(held: Standing, start: datetime, end: datetime) -> Iterator[Standing]:
    if end <= held.start or held.end <= start:
        yield held
        return
    if held.start < start:
        yield Standing(start=held.start, end=start, fact=held.fact)
    if end < held.end:
        yield Standing(start=end, end=held.end, fact=held.fact)


# -- shares of rows --------------------------------------------------------------------------

Found = Iterator[tuple[int, str]]


def _columns(partitions: Sequence[Partition], family: Family, _: datetime) -> Found:
    quality = family.quality
    rows = _numbers(partition.rows for partition in partitions)
    for number, name in enumerate(column.name for column in partitions[0].columns):
        counts = [partition.columns[number] for partition in partitions]
        nulls = _numbers(each.nulls for each in counts)
        values = rows - nulls
        if name != "label":
            for place, share, usual in _rare(nulls, rows, quality.nulls):
                lacks = nulls[place] == rows[place]
                said = "schema: {}, which has no value at all" if lacks else "nulls of {}"
                yield place, f"{said.format(name)}: {_usually(share, usual)}"
            outside = _numbers(each.outside for each in counts)
            for place, share, usual in _over(outside, values, quality.out_of_range, ever=False):
                yield place, f"range of {name}: {_usually(share, usual)} out of range"
            unseen = _numbers(each.unseen for each in counts)
            for place, share, usual in _rare(unseen, values, max(quality.unseen, RENAMED)):
                yield place, f"levels of {name}: {_usually(share, usual)} never seen before"
        lows = _numbers(np.nan if each.low is None else each.low for each in counts)
        highs = _numbers(np.nan if each.high is None else each.high for each in counts)
        for place, times in _far(lows, highs):
            if _can_be(family, name, lows[place], highs[place]):
                continue
            said = f"{lows[place]:.4g} to {highs[place]:.4g}"
            yield place, f"range of {name}: {said}, {times:,.0f} times as far out as usual"


def _counts(partitions: Sequence[Partition], family: Family, _: datetime) -> Found:
    rows = _numbers(partition.rows for partition in partitions)
    again = _numbers(partition.duplicates for partition in partitions)
    for place, share, usual in _over(again, rows + again, family.quality.duplicates):
        yield place, f"duplicates: {_usually(share, usual)} of the rows"
    late = _numbers(partition.late for partition in partitions)
    for place, share, usual in _over(late, rows, 0.5):
        stale = family.quality.stale / timedelta(hours=1)
        yield place, f"freshness: {_usually(share, usual)} arrived {stale:g} hours late or more"


def _over(
    counts: Numbers, of: Numbers, limit: float, *, ever: bool = True
) -> Iterator[tuple[int, float, float]]:
    """Yield the places whose share is over the usual by `limit`, for certain: and the two.

    Where none was seen some may be usual all the same, up to three in all rows with a certainty of
    95 % (Hanley and Lippman-Hand 1983, "If nothing goes wrong, is everything all right?"); unless
    they ought not `ever` to be.
    """
    if not counts.any():
        return
    shares = np.divide(counts, of, out=np.zeros_like(counts), where=of > 0)
    # The worst tenth does not say what is usual: it may be what is looked for.
    kept = np.argsort(shares, kind="stable")[: len(shares) - -(-len(shares) // 10)]
    total = of[kept].sum()
    usual = float(max(counts[kept].sum() / total, np.median(shares))) if total else 0.0
    spread = _spread(shares)
    chance = max(usual, 3.0 / total) if ever and total else usual
    for place in np.flatnonzero(counts):
        share = float(shares[place])
        over = share - usual
        if (
            over >= limit
            and over > SPREADS * spread
            and _tail(counts[place], of[place] * chance) < log(SURE)
        ):
            yield int(place), share, usual


def _rare(counts: Numbers, of: Numbers, limit: float) -> Iterator[tuple[int, float, float]]:
    """Yield what `_over` does but for what comes and goes, as in storms a sensor does.

    An occasion is a run of partitions, however long. That rows of a day share what befalls them is
    why so many nulls are no accident, and yet may be no fault.
    """
    shares = np.divide(counts, of, out=np.zeros_like(counts), where=of >= FEW_ROWS / 2)
    for place, share, usual in _over(counts, of, limit):
        bad = np.append(shares >= usual + (share - usual) / 2.0, False)
        occasions = int(np.count_nonzero(bad[:-1] & ~bad[1:]))
        if occasions <= OFTEN:
            yield place, share, usual


def _can_be(family: Family, name: str, low: float, high: float) -> bool:
    """Say whether values are within the range that the family itself declares for the column."""
    feature = family.features.get(name)
    span = None if feature is None else feature.range
    return span is not None and span[0] <= low and high <= span[1]


def _tail(count: float, expected: float) -> float:
    """Return the logarithm of Chernoff's bound on a Poisson count of at least `count`."""
    if count <= expected:
        return 0.0
    return -inf if expected <= 0 else count - expected - count * log(count / expected)


def _far(lows: Numbers, highs: Numbers) -> Iterator[tuple[int, float]]:
    """Yield the places whose tails reach impossibly far out, and how many times the usual."""
    # Of what is mostly one value, as rain is 0, that value.
    centre = np.nanmedian([lows, highs]) if np.isfinite(lows).any() else 0.0
    reach = np.fmax(centre - lows, highs - centre)
    some = np.flatnonzero(np.isfinite(reach) & (reach > 0))
    if len(some) <= LEAST:
        return
    logs = np.log(reach[some])
    most = np.median(logs) + max(log(FAR), SPREADS * _spread(logs))
    for place in some[logs > most]:
        yield int(place), float(reach[place] / np.exp(np.median(logs)))


# -- how many, and when ----------------------------------------------------------------------


def _volume(partitions: Sequence[Partition], family: Family, now: datetime) -> Found:
    """Yield partitions with far fewer or more rows than is usual at that time of the week.

    Rows may come until they are stale: before, too few are no fault. Of the oldest partition a
    part may have gone, or never been given.
    """
    block, stale = family.window.block, family.quality.stale
    week = _WEEK // block if not _WEEK % block else 1
    settled = [
        place
        for place, partition in enumerate(partitions)
        if place and partition.end + stale <= now
    ]
    places: dict[int, list[int]] = {}
    for place in settled:
        places.setdefault((partitions[place].start - _EPOCH) // block % week, []).append(place)
    told = [
        (place, float(partitions[place].rows), usual, float(partitions[place].slots), filled)
        for same in places.values()
        if len(same) > SAME_PLACE
        for usual, filled in [_medians([partitions[each] for each in same])]
        for place in same
    ]
    if not told:
        return
    off = _numbers(log(rows / usual) for _, rows, usual, _, _ in told)
    empty = _numbers(filled - slots for *_, slots, filled in told)
    spread, gaps = _spread(off), max(_spread(empty), 1.0)
    least = family.quarantine.volume
    for (place, rows, usual, slots, filled), by, lacks in zip(told, off, empty, strict=True):
        noise = hypot(spread, 1.0 / sqrt(usual))
        if usual >= FEW_ROWS and abs(by) > max(-log(least), SPREADS * noise):
            yield place, f"volume: {rows:,.0f} rows, usually {usual:,.0f} at that time of the week"
        elif filled >= FEW_ROWS / 2 and slots <= filled / 2 and lacks > SPREADS * gaps:
            yield (
                place,
                f"freshness: rows in {slots:.0f} of 24 parts of it, usually {filled:.0f}",
            )


def _medians(partitions: Sequence[Partition]) -> tuple[float, float]:
    return (
        float(np.median([partition.rows for partition in partitions])),
        float(np.median([partition.slots for partition in partitions])),
    )


# -- labels ----------------------------------------------------------------------------------


def _constant(partitions: Sequence[Partition], family: Family, _: datetime) -> Found:
    """Yield partitions whose labels are all the same, where they usually differ."""
    told = _labelled(partitions)
    same = [p for p in told if partitions[p].label_low == partitions[p].label_high]
    others = len(told) - len(same)
    if not same or others < LEAST or len(same) - 1 > max(1, others // 20):
        return
    mixed = [partitions[place] for place in told if place not in same]
    total = sum(each.labels * (each.label_mean or 0.0) for each in mixed)
    usual = total / sum(each.labels for each in mixed)
    for place in same:
        partition, value = partitions[place], partitions[place].label_low or 0.0
        missing = partition.labels * (1.0 - usual if value else usual)
        if family.task is Task.BINARY and missing < MINORITY:
            continue
        if family.task is Task.MULTICLASS and partition.labels < 100:  # noqa: PLR2004 - labels
            continue
        yield place, f"labels: all {partition.labels} are {family.shown(value)}"


def _labelled(partitions: Sequence[Partition]) -> list[int]:
    """Return the partitions with labels enough: the first to arrive are no random sample."""
    shares = [p.labels / p.rows for p in partitions]
    usual = float(np.median(shares))
    return [
        place
        for place, (partition, share) in enumerate(zip(partitions, shares, strict=True))
        if partition.labels >= FEW_LABELS and share >= 0.8 * usual
    ]


def _flips(partitions: Sequence[Partition], family: Family) -> Iterator[tuple[int, str, bool]]:
    """Yield partitions whose labels disagree with the answers, and whether that is a fault."""
    known = {
        place: value
        for place in _labelled(partitions)
        if (value := _agreement(partitions[place].agreements, family)) is not None
    }
    if len(known) <= LEAST:
        return
    usual = float(np.median([value for value, _ in known.values()]))
    if usual < AGREES:
        return
    spread = _spread(_numbers(_z(value, family) for value, _ in known.values()))
    bad = {
        place
        for place, (value, n) in known.items()
        if value <= GONE * usual
        and _z(usual, family) - _z(value, family) > SPREADS * hypot(spread, 1 / sqrt(n))
    }
    order = sorted(known)
    for place in order:
        said = f"labels: agreement with the answers {known[place][0]:.2f}, usually {usual:.2f}"
        if batch := _batch(partitions[place], family, usual):
            yield place, f"labels: those that arrived {batch} disagree, the others agree", True
        elif place in bad:
            run = _run(order, bad, place)
            before = [known[each][0] for each in order if each < run[0]][-1:]
            after = [known[each][0] for each in order if each > run[-1]][:1]
            back = all(value >= BACK * usual for value in (*before, *after))
            if len(run) <= RUN and back and before and after:
                yield place, f"{said}, and after it as before", True
            elif len(run) <= RUN and not after:
                yield place, f"{said}: wrong labels, or the relation has changed", False


def _run(order: Sequence[int], bad: set[int], place: int) -> list[int]:
    """Return the places in a row, `place` among them, that are bad."""
    at = order.index(place)
    first = last = at
    while first > 0 and order[first - 1] in bad:
        first -= 1
    while last + 1 < len(order) and order[last + 1] in bad:
        last += 1
    return list(order[first : last + 1])


def _batch(partition: Partition, family: Family, usual: float) -> str | None:
    """Return when labels arrived that disagree, where others of the same rows agree."""
    told = [
        (each.batch, found[0])
        for each in partition.agreements
        if (found := _agreement((each,), family)) is not None
    ]
    wrong = [batch for batch, value in told if value <= min(-GONE * usual, 0.0)]
    if family.task is Task.MULTICLASS:
        wrong = [batch for batch, value in told if value <= GONE * usual]
    right = [batch for batch, value in told if value >= BACK * usual]
    if not wrong or not right:
        return None
    at = datetime(1970, 1, 1, tzinfo=UTC) + wrong[0] * family.window.block
    return f"{at:%Y-%m-%d %H:%M} to {at + family.window.block:%Y-%m-%d %H:%M}"


def _agreement(agreements: Sequence[Agreement], family: Family) -> tuple[float, int] | None:
    """Return how labels and answers agree and on how many rows; None on too few to tell.

    Pearson's correlation: it turns its sign with the labels, whatever unit they are in, as the
    area under the ROC curve falls below one half. Of classes the share that is equal.
    """
    n = sum(each.n for each in agreements)
    if n < FEW_LABELS:
        return None
    if family.task is Task.MULTICLASS:
        return sum(each.equal for each in agreements) / n, n
    y, p, yy, pp, yp = (
        sum(getattr(each, name) for each in agreements) / n for name in ("y", "p", "yy", "pp", "yp")
    )
    spread = (yy - y * y) * (pp - p * p)
    # What hardly differs agrees with nothing.
    if spread <= 1e-12 * max(yy * pp, 1e-300):
        return None
    return (yp - y * p) / sqrt(spread), n


def _z(value: float, family: Family) -> float:
    """Return an agreement on a scale whose noise is 1/sqrt(n): Fisher's, or that of shares."""
    if family.task is Task.MULTICLASS:
        return 2 * asin(sqrt(min(max(value, 0.0), 1.0)))
    return atanh(min(max(value, -0.999), 0.999))


# -- numbers ---------------------------------------------------------------------------------


def _numbers(values: Iterator[float]) -> Numbers:
    return np.array(list(values), dtype=np.float64)


def _spread(values: Numbers) -> float:
    """Return the standard deviation, were they normal, by the median absolute deviation."""
    return float(1.4826 * np.median(np.abs(values - np.median(values))))


def _usually(share: float, usual: float) -> str:
    return f"{share:.1%}, usually {usual:.1%}"
