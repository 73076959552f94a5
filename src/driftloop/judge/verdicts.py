"""Readings against the policy's limits: a verdict for each. Pure."""

from collections.abc import Sequence
from functools import lru_cache
from math import erfc, expm1, log1p, sqrt

from driftloop.records import DOUBTED, Z90, Decision, Kind, Level, Reading, Verdict, metric_name
from driftloop.spec import LOSSES, DecayPolicy, Family

_OF_QUALITY = {
    "null_share": "nulls",
    "empty_share": "nulls",
    "out_of_range": "out_of_range",
    "unseen": "unseen",
    "duplicates": "duplicates",
}
"""Which limit each share of rows is held to."""
LOOKED = "looked"
"""The reading that stands for all others of a model that could not be looked at."""


def judged(readings: Sequence[Reading], family: Family) -> tuple[Verdict, ...]:
    """Return a verdict for each reading that the policy has a limit for.

    A reading on too few rows or labels, or one that could not be measured, is BLIND. Drift
    alarms only where the shift is large enough and sure enough; decay only where even the
    better end of the interval is worse than the baseline. A segment is not judged: among many
    of them some are always worse by chance. Nor is what is fresh: it adds up, see `findings`.
    An estimate can only alarm, with its whole interval beyond the limit, or be in doubt.
    """
    return tuple(
        verdict
        for reading in readings
        if reading.kind is not Kind.FRESH and (verdict := _verdict(reading, family)) is not None
    )


def certain(verdict: Verdict, family: Family, weight: float) -> bool:
    """Return whether a window's alarm alone is sure enough to page within the budget.

    Where nothing fresh is read every look may page with the probability `weight`, of whatever
    overlaps with the looks before: the sum over all looks is the budget (Bonferroni). Certainty of
    performance counts the window's blocks: Student's distribution, by the normal approximation of
    Wallace (1959). A metric without an interval is taken at its word.
    """
    reading = verdict.reading
    if reading.kind is Kind.DRIFT:
        return reading.p_value is None or reading.p_value * (len(family.measured) + 1) <= weight
    lower = reading.metric in LOSSES
    bound = reading.low if lower else reading.high
    if bound is None or reading.value is None or reading.baseline is None:
        return True
    blocks = max(int(family.window.span / family.window.block), 2) - 1
    scale = (8.0 * blocks + 3.0) / (8.0 * blocks + 1.0)
    reach = sqrt(blocks * expm1((Z90 * scale) ** 2 / blocks))
    half = abs(reading.value - bound)
    if half <= 0.0:
        return True
    t = abs(reading.value - reading.baseline) / half * reach
    z = sqrt(blocks * log1p(t * t / blocks)) / scale
    return 0.5 * erfc(z / sqrt(2.0)) <= weight


def is_decisive(reading: Reading, family: Family) -> bool:
    """Return whether `reading` is what a model of `family` is judged by."""
    if family.decay is None:
        return reading.kind is Kind.DRIFT and reading.column == "prediction"
    of_all = reading.kind is Kind.DECAY and reading.column is None and reading.segment is None
    return of_all and reading.metric == family.decay.metric


def expected_gain(decision: Decision) -> float:
    """Return by what share of its baseline the judged metric is worse: what a renewal may win back.

    0 where that is unknown, or it is no worse. Of labels and of an estimate it is the larger.
    """
    worse = (
        worsening(reading, reading.value, reading.baseline)[0]
        for verdict in decision.verdicts
        for reading in [verdict.reading]
        if reading.kind in (Kind.DECAY, Kind.ESTIMATE) and verdict.limit is not None
        if reading.value is not None and reading.baseline is not None
    )
    return max([0.0, *worse])


# -- one reading ---------------------------------------------------------------------------


def _verdict(reading: Reading, family: Family) -> Verdict | None:
    if reading.metric == LOOKED:
        return _blind(reading, f"could not be looked at: {reading.problem}")
    if reading.segment is not None:
        return None
    if reading.kind is Kind.ESTIMATE:
        return _estimate(reading, family, family.decay)
    if reading.kind is Kind.DRIFT:
        return _drift(reading, family)
    if reading.kind is Kind.DECAY:
        limits = family.decay
        judged = limits is not None and reading.metric == limits.metric
        return _decay(reading, family, limits) if limits is not None and judged else None
    return _quality(reading, family)


def _drift(reading: Reading, family: Family) -> Verdict:
    limits = family.drift
    least = family.window.min_rows
    value = reading.value
    if value is None:
        return _blind(reading, reading.problem or "could not be measured")
    if reading.n < least:
        return _blind(reading, f"{reading.n} rows, at least {least} are needed")
    said = f"{metric_name(reading.metric)} {value:.3g}, n={reading.n}"
    sure = reading.p_value is not None and reading.p_value < limits.p_value
    if not sure or value < limits.warn:
        return Verdict(reading=reading, level=Level.OK, limit=limits.warn, reason=said)
    level, limit = (
        (Level.ALARM, limits.alarm) if value >= limits.alarm else (Level.WARN, limits.warn)
    )
    return Verdict(reading=reading, level=level, limit=limit, reason=f"{said}, limit {limit:g}")


def _decay(reading: Reading, family: Family, limits: DecayPolicy) -> Verdict:
    least = family.window.min_labels
    if reading.n < least:
        return _blind(reading, f"{reading.n} labels, at least {least} are needed")
    if reading.value is None:
        return _blind(reading, reading.problem or "could not be measured")
    if reading.baseline is None:
        return _blind(reading, "the champion has no baseline for it")
    worse, sure = worsening(reading, reading.value, reading.baseline)
    said = (
        f"{metric_name(reading.metric)} {reading.value:.4g} is {abs(worse):.0%} "
        f"{'worse' if worse > 0 else 'better'} than its baseline {reading.baseline:.4g}, "
        f"n={reading.n}"
    )
    for level, limit in ((Level.ALARM, limits.alarm), (Level.WARN, limits.warn)):
        if worse >= limit and sure:
            return Verdict(
                reading=reading, level=level, limit=limit, reason=f"{said}, limit {limit:.0%}"
            )
    if worse >= limits.warn:
        # Neither an alarm nor a recovery: it may be worse.
        return Verdict(
            reading=reading, level=Level.WARN, limit=limits.warn, reason=f"{said}, within its noise"
        )
    return Verdict(reading=reading, level=Level.OK, limit=limits.warn, reason=said)


def _estimate(reading: Reading, family: Family, limits: DecayPolicy | None) -> Verdict | None:
    """Return an alarm, or BLIND where what was expected is in doubt; it is never OK.

    Performance that is believed to be good is no reason to call a model fresh.
    """
    if reading.metric == DOUBTED:
        return _blind(reading, reading.problem or "what was expected is in doubt")
    if limits is None or not family.estimate.decides:
        return None
    bound = reading.low if reading.metric in LOSSES else reading.high
    if reading.value is None or bound is None or reading.baseline is None:
        return None
    worse, _ = worsening(reading, reading.value, reading.baseline)
    if worsening(reading, bound, reading.baseline)[0] < limits.alarm:
        return None
    said = (
        f"{metric_name(reading.metric)} is estimated at {reading.value:.4g}, {worse:.0%} worse than"
        f" its baseline {reading.baseline:.4g}, n={reading.n} labels, limit {limits.alarm:.0%}"
    )
    return Verdict(reading=reading, level=Level.ALARM, limit=limits.alarm, reason=said)


def worsening(reading: Reading, value: float, baseline: float) -> tuple[float, bool]:
    """Return by what share of `baseline` a metric is worse, and whether that is no noise."""
    scale = max(abs(baseline), 1e-12)
    if reading.metric in LOSSES:
        return (value - baseline) / scale, reading.low is None or reading.low > baseline
    return (baseline - value) / scale, reading.high is None or reading.high < baseline


def _quality(reading: Reading, family: Family) -> Verdict | None:
    policy = family.quality
    least = family.window.min_rows
    if reading.metric == "volume":
        few = reading.value is None or reading.value < least
        said = f"{reading.n} rows"
        if few:
            return _blind(reading, f"{said}, at least {least} are needed")
        return Verdict(reading=reading, level=Level.OK, limit=float(least), reason=said)
    if reading.metric == "freshness":
        limit = policy.stale.total_seconds() / 3600
    elif reading.metric in _OF_QUALITY:
        limit = getattr(policy, _OF_QUALITY[reading.metric])
    else:
        return None
    if reading.value is None:
        return _blind(reading, reading.problem or "could not be measured")
    if reading.metric != "freshness" and reading.n < least:
        return _blind(reading, f"{reading.n} rows, at least {least} are needed")
    usual = reading.baseline or 0.0
    shown = _told(reading.metric, reading.value, usual, reading.n)
    over = reading.value - usual >= limit if limit > 0 else reading.value - usual > 0
    level = Level.ALARM if over else Level.OK
    return Verdict(reading=reading, level=level, limit=limit, reason=shown)


@lru_cache(maxsize=4096)
def _told(metric: str, value: float, usual: float, n: int) -> str:
    # Most columns of a look have the same to say: none of its rows, as ever.
    if metric == "freshness":
        return f"{value:.1f} hours old"
    return f"{metric_name(metric)} {value:.1%} (usually {usual:.1%}), n={n}"


def _blind(reading: Reading, why: str) -> Verdict:
    return Verdict(reading=reading, level=Level.BLIND, limit=None, reason=why)
