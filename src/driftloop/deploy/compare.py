"""Challenger against champion, each respect with its noise. Numbers in, findings out.

A rollout is looked at again and again, and the first look that seems to show harm ends it. An
interval made for one look would be wrong at some look far too often, so each is made at the
confidence `sequential.looked_at` gives: all looks together then err as seldom as the policy says.
"""

import math
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from driftloop.latencies import upper_end
from driftloop.records import Counts, Finding, Harm, metric_name
from driftloop.sequential import Paired

FLOOR = 0.001
"""Seconds by which a percentile may grow whatever the ratio: nobody waits for that."""
MOST_TIMES = 1e4
"""More than so many times the requests seen are not reckoned with."""
CUTS = 19
"""Points at which two distributions are compared: the champion's twentieths."""

Floats = npt.NDArray[np.float64]


def errors(challenger: Counts, champion: Counts, *, limit: float, confidence: float) -> Finding:
    """Return by how much the challenger fails on a larger share of the requests.

    Newcombe's hybrid score interval ("Interval estimation for the difference between independent
    proportions: comparison of eleven methods", Statistics in Medicine 17, 1998, method 10).

    >>> clean, bad = Counts(requests=2000), Counts(requests=2000, errors=100)
    >>> errors(bad, clean, limit=0.01, confidence=0.95).said
    'fails on 5.0% of 2000 requests, the champion on 0.0% of 2000: +4.1% to +6.0%, limit +1.0%'
    """
    n, of = challenger.requests, champion.requests
    if not n or not of:
        return _nothing("errors", limit, n, of, "requests")
    share, usual = challenger.errors / n, champion.errors / of
    value, low, high = _between(challenger, champion, confidence)
    said = (
        f"fails on {share:.1%} of {n} requests, the champion on {usual:.1%} of {of}:"
        f" {low:+.1%} to {high:+.1%}, limit {limit:+.1%}"
    )
    if value < limit < high:
        enough = _enough(challenger, champion, limit=limit, confidence=confidence)
        said += f"; too few to tell: about {enough} might do"
    return _found("errors", said, limit=limit, n=n, of=of, interval=(value, low, high))


def latency(
    share: float, challenger: Counts, champion: Counts, *, limit: float, confidence: float
) -> Finding:
    """Return how many times the champion's a percentile of the challenger's latency is.

    Each percentile lies between two order statistics (Conover, "Practical Nonparametric
    Statistics", 3rd edition, section 3.2); the ratio between the worst and the best that both
    intervals allow, each at half the error. A difference below `FLOOR` is none.

    Args:
        share: 0.5 for the median, as for `tail`.
        challenger: its requests.
        champion: its requests, of the same time.
        limit: the largest ratio allowed.
        confidence: of the interval.
    """
    what = f"p{share * 100:g}"
    n, of = sum(challenger.seconds), sum(champion.seconds)
    if not n or not of:
        return _nothing(what, limit, n, of, "requests")
    each = (1.0 + confidence) / 2
    slow, slow_low, slow_high = _percentile(challenger.seconds, share, each)
    usual, usual_low, usual_high = _percentile(champion.seconds, share, each)
    value, low, high = slow / usual, slow_low / usual_high, slow_high / usual_low
    if slow_low <= usual_high + FLOOR:
        low = min(low, limit)
    if slow_high <= usual_low + FLOOR:
        high = min(high, limit)
    said = (
        f"{what} {slow * 1e3:.3g} ms, the champion's {usual * 1e3:.3g} ms:"
        f" {_times(low, high)}, limit {limit:g}"
    )
    return _found(what, said, limit=limit, n=n, of=of, interval=(value, low, high))


def tail(n: int, *, confidence: float) -> float | None:
    """Return the highest percentile, as a share, that `n` requests can bound from above.

    None where they bound none of p99, p95 and p90.

    >>> [tail(n, confidence=0.9976) for n in (2000, 300, 50)]
    [0.99, 0.95, None]
    """
    reach = NormalDist().inv_cdf((3.0 + confidence) / 4)
    for share in (0.99, 0.95, 0.9):
        if n * (1.0 - share) >= reach * math.sqrt(n * share * (1.0 - share)) + 1:
            return share
    return None


def scores(
    challenger: npt.ArrayLike,
    champion: npt.ArrayLike,
    *,
    paired: bool,
    classes: int = 0,
    limit: float,
    confidence: float,
) -> Finding:
    """Return how far apart the two distributions of answers are, 0 to 1.

    The largest difference of the two cumulative shares at the champion's twentieths, which is the
    Kolmogorov-Smirnov statistic on these points; of classes that of one class's share. All
    points hold together by Bonferroni. Of the same rows the difference at a point has the
    variance of paired proportions (Agresti, "Categorical Data Analysis", 3rd edition, 11.1.1),
    else that of independent ones.

    Args:
        challenger: shape [n]: its answers.
        champion: shape [m]: the champion's; of the same rows in the same order if `paired`.
        paired: whether they are of the same rows.
        classes: number of classes, 0 where answers are numbers.
        limit: the largest distance allowed.
        confidence: of the interval.
    """
    mine, theirs = np.asarray(challenger, np.float64), np.asarray(champion, np.float64)
    n, of = mine.size, theirs.size
    if not n or not of:
        return _nothing("scores", limit, n, of, "rows")
    if classes:
        cuts = np.arange(classes, dtype=np.float64)
    else:
        cuts = np.unique(np.quantile(theirs, np.linspace(0.0, 1.0, CUTS + 2)[1:-1]))
    reach = NormalDist().inv_cdf(1.0 - (1.0 - confidence) / (2 * cuts.size))
    value = low = high = 0.0
    for cut in cuts:
        in1, in0 = (mine == cut, theirs == cut) if classes else (mine <= cut, theirs <= cut)
        at1, at0 = float(in1.mean()), float(in0.mean())
        if paired:
            # One more of each kind, or a few rows that agree would count as certain.
            split = (float((in1 != in0).sum()) + 1.0) / n
            variance = max(split - (at1 - at0) ** 2, 0.0) / n
        else:
            variance = _spread(at1, n) + _spread(at0, of)
        apart, noise = abs(at1 - at0), reach * math.sqrt(variance)
        value, low = max(value, apart), max(low, apart - noise)
        high = max(high, apart + noise)
    high = min(high, 1.0)
    said = (
        f"answers lie {value:.2f} ({low:.2f} to {high:.2f}) from the champion's, limit {limit:g},"
        f" on {n} rows"
    )
    return _found("scores", said, limit=limit, n=n, of=of, interval=(value, low, high))


def quality(result: Paired, *, limit: float) -> Finding:
    """Return by how much the challenger's loss is larger, of the very rows that both answered.

    `result` is the paired comparison that the gate makes too: it counts blocks of time, not rows.
    """
    said = f"on {result.n} labelled rows that both answered"
    if result.gain is None or result.low is None or result.high is None:
        reason = result.problem or "nothing to compare"
        return _nothing("quality", limit, result.n, result.n, "labelled rows", said=reason)
    worse, low, high = -result.gain, -result.high, -result.low
    said = (
        f"{metric_name(result.loss)} {worse:+.1%} ({low:+.1%} to {high:+.1%}) {said},"
        f" limit {limit:+.1%}"
    )
    n = result.n
    return _found("quality", said, limit=limit, n=n, of=n, interval=(worse, low, high))


def unpaired(
    challenger: npt.ArrayLike,
    champion: npt.ArrayLike,
    *,
    loss: str,
    limit: float,
    confidence: float,
) -> Finding:
    """Return by how much the challenger's mean loss is larger, each on the rows it answered.

    The ratio of two independent means, linearised (Deng, Knoblich and Lu, "Applying the Delta
    Method in Metric Analytics", KDD 2018, section 2.2): who answers is decided by a hash, so
    that both see the same weather.

    Args:
        challenger: shape [n]: losses of its labelled rows.
        champion: shape [m]: losses of the champion's.
        loss: what the loss is called.
        limit: the largest relative increase allowed.
        confidence: of the interval.
    """
    mine, theirs = np.asarray(challenger, np.float64), np.asarray(champion, np.float64)
    n, of = mine.size, theirs.size
    if min(n, of) < 2 or not theirs.any():  # noqa: PLR2004 - one row has no variance
        return _nothing("quality of own rows", limit, n, of, "labelled rows")
    usual = float(theirs.mean())
    ratio = float(mine.mean()) / usual
    variance = (mine.var(ddof=1) / n + ratio**2 * theirs.var(ddof=1) / of) / usual**2
    reach = NormalDist().inv_cdf((1.0 + confidence) / 2) * math.sqrt(float(variance))
    value = ratio - 1.0
    low, high = value - reach, value + reach
    said = (
        f"{metric_name(loss)} {value:+.1%} ({low:+.1%} to {high:+.1%}) on {n} labelled rows of"
        f" its own against {of}, limit {limit:+.1%}"
    )
    return _found("quality of own rows", said, limit=limit, n=n, of=of, interval=(value, low, high))


def _found(
    what: str,
    said: str,
    *,
    limit: float,
    n: int,
    of: int,
    interval: tuple[float, float, float],
) -> Finding:
    value, low, high = interval
    harm = Harm.CERTAIN if low > limit else Harm.NONE if high <= limit else Harm.UNSURE
    return Finding(
        what=what, harm=harm, limit=limit, n=n, of=of, said=said, value=value, low=low, high=high
    )


def _nothing(what: str, limit: float, n: int, of: int, unit: str, *, said: str = "") -> Finding:
    said = said or f"{what} cannot be told yet: {n} {unit} of the challenger, {of} of the champion"
    return Finding(what=what, harm=Harm.UNSURE, limit=limit, n=n, of=of, said=said)


def _times(low: float, high: float) -> str:
    """Return a range of ratios in words.

    >>> _times(0.75, 1.5), _times(0.75, math.inf)
    ('0.75 to 1.50 times', '0.75 times or more')
    """
    return f"{low:.2f} times or more" if math.isinf(high) else f"{low:.2f} to {high:.2f} times"


def _between(challenger: Counts, champion: Counts, confidence: float) -> tuple[float, float, float]:
    """Return by how much more the challenger fails, and between what that lies."""
    n, of = challenger.requests, champion.requests
    share, usual = challenger.errors / n, champion.errors / of
    low1, high1 = _wilson(challenger.errors, n, confidence)
    low0, high0 = _wilson(champion.errors, of, confidence)
    value = share - usual
    low = value - math.hypot(share - low1, high0 - usual)
    return value, low, value + math.hypot(high1 - share, usual - low0)


def _enough(challenger: Counts, champion: Counts, *, limit: float, confidence: float) -> int:
    """Return how many requests would do that fail as these did, to two digits, rounded up.

    At this look's confidence; that of a later one is lower at first, so that fewer may do.
    """
    times = 1.0
    while times < MOST_TIMES:
        times *= 1.05
        more = [
            Counts(requests=math.ceil(each.requests * times), errors=round(each.errors * times))
            for each in (challenger, champion)
        ]
        if _between(more[0], more[1], confidence)[2] <= limit:
            break
    found = challenger.requests * times
    digit = int(10 ** max(int(math.log10(found)) - 1, 0))
    return math.ceil(found / digit) * digit


def _wilson(errors: int, n: int, confidence: float) -> tuple[float, float]:
    z = NormalDist().inv_cdf((1.0 + confidence) / 2)
    share, square = errors / n, z * z
    middle = (share + square / (2 * n)) / (1 + square / n)
    reach = z / (1 + square / n) * math.sqrt(share * (1 - share) / n + square / (4 * n * n))
    low, high = middle - reach, middle + reach
    # With no errors, or nothing else, one end is the edge itself, but for rounding.
    return (low if errors else 0.0), (high if errors < n else 1.0)


def _percentile(
    seconds: tuple[int, ...], share: float, confidence: float
) -> tuple[float, float, float]:
    """Return a percentile and the two that it lies between; infinite where none is known."""
    n = sum(seconds)
    reach = NormalDist().inv_cdf((1.0 + confidence) / 2) * math.sqrt(n * share * (1.0 - share))
    ends = np.cumsum(seconds)

    def at(rank: float) -> float:
        return upper_end(int(np.searchsorted(ends, max(math.ceil(rank), 1))))

    above = n * share + reach
    return at(n * share), at(n * share - reach), at(above + 1) if above + 1 <= n else math.inf


def _spread(share: float, n: int) -> float:
    # One more on either side, as for the paired: a share of 0 of ten rows is not certain.
    nearer = (share * n + 1.0) / (n + 2.0)
    return nearer * (1.0 - nearer) / n
