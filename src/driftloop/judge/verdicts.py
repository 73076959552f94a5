"""Readings against the policy's limits: a verdict for each. Pure."""

from collections.abc import Sequence
from math import erfc, expm1, log1p, sqrt

from driftloop.judge.evidence import HALF
from driftloop.records import Decision, Kind, Level, Reading, Verdict, metric_name
from driftloop.spec import LOSSES, DecayPolicy, Family

UNJUDGED = (Kind.FRESH, Kind.ESTIMATE)
LOOKED = "looked"
"""The reading that stands for all others of a model that could not be looked at."""


def judged(readings: Sequence[Reading], family: Family) -> tuple[Verdict, ...]:
    """Return a verdict for each reading that the policy has a limit for.

    A reading on too few rows or labels, or one that could not be measured, is BLIND. Drift
    alarms only where the shift is large enough and sure enough; decay only where even the
    better end of the interval is worse than the baseline. A segment is not judged: among many
    of them some are always worse by chance. Nor is what is fresh: it adds up, see `findings`.
    """
    return tuple(
        verdict for reading in readings if (verdict := _verdict(reading, family)) is not None
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
    reach = sqrt(blocks * expm1((HALF * scale) ** 2 / blocks))
    half = abs(reading.value - bound)
    if half <= 0.0:
        return True
    t = abs(reading.value - reading.baseline) / half * reach
    z = sqrt(blocks * log1p(t * t / blocks)) / scale
    return 0.5 * erfc(z / sqrt(2.0)) <= weight


def expected_gain(decision: Decision) -> float:
    """Return by what share of its baseline the judged metric is worse: what a renewal may win back.

    0 where that is unknown, or it is no worse.
    """
    for verdict in decision.verdicts:
        reading = verdict.reading
        known = reading.value is not None and reading.baseline is not None
        if reading.kind is Kind.DECAY and verdict.limit is not None and known:
            return max(worsening(reading, reading.value or 0.0, reading.baseline or 0.0)[0], 0.0)
    return 0.0


# -- one reading ---------------------------------------------------------------------------


def _verdict(reading: Reading, family: Family) -> Verdict | None:
    if reading.metric == LOOKED:
        return _blind(reading, f"could not be looked at: {reading.problem}")
    if reading.segment is not None or reading.kind in UNJUDGED:
        return None
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
    if reading.value is None:
        return _blind(reading, reading.problem or "could not be measured")
    if reading.n < least:
        return _blind(reading, f"{reading.n} rows, at least {least} are needed")
    sure = reading.p_value is not None and reading.p_value < limits.p_value
    said = f"{metric_name(reading.metric)} {reading.value:.3g}, n={reading.n}"
    for level, limit in ((Level.ALARM, limits.alarm), (Level.WARN, limits.warn)):
        if sure and reading.value >= limit:
            return Verdict(
                reading=reading, level=level, limit=limit, reason=f"{said}, limit {limit:g}"
            )
    return Verdict(reading=reading, level=Level.OK, limit=limits.warn, reason=said)


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
    limit = {
        "null_share": policy.nulls,
        "empty_share": policy.nulls,
        "out_of_range": policy.out_of_range,
        "unseen": policy.unseen,
        "duplicates": policy.duplicates,
        "freshness": policy.stale.total_seconds() / 3600,
    }.get(reading.metric)
    if limit is None:
        return None
    if reading.value is None:
        return _blind(reading, reading.problem or "could not be measured")
    if reading.metric != "freshness" and reading.n < least:
        return _blind(reading, f"{reading.n} rows, at least {least} are needed")
    usual = reading.baseline or 0.0
    over = reading.value - usual >= limit if limit > 0 else reading.value - usual > 0
    name = metric_name(reading.metric)
    shown = (
        f"{reading.value:.1f} hours old"
        if reading.metric == "freshness"
        else f"{name} {reading.value:.1%} (usually {usual:.1%}), n={reading.n}"
    )
    level = Level.ALARM if over else Level.OK
    return Verdict(reading=reading, level=level, limit=limit, reason=shown)


def _blind(reading: Reading, why: str) -> Verdict:
    return Verdict(reading=reading, level=Level.BLIND, limit=None, reason=why)
