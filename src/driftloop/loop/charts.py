"""What a page has a picture of: the metric that decided, as it was measured over time."""

from collections.abc import Sequence
from dataclasses import replace
from math import copysign, isfinite

from driftloop.judge import is_decisive
from driftloop.loop.notices import SHARES
from driftloop.ports import Ledger
from driftloop.records import (
    Chart,
    Decision,
    Kind,
    Level,
    Measured,
    Notice,
    Reading,
    Stage,
    Verdict,
    metric_name,
)
from driftloop.spec import LOSSES, Family

LAST = 60
"""Looks that a chart goes back."""

_DRAWN = (Stage.OPENED, Stage.WORSENED)
_ORDER = (Kind.QUALITY, Kind.DECAY, Kind.ESTIMATE, Kind.FRESH, Kind.DRIFT)


def with_charts(
    notices: Sequence[Notice],
    ledger: Ledger,
    decision: Decision,
    family: Family,
    drawn: set[tuple[str, str]],
) -> tuple[Notice, ...]:
    """Return what is told of a decision, with the chart where that is what people see first.

    Reading a metric's past takes hundredths of a second: of what is told together one has a chart.
    `drawn` is which groups have theirs, and grows.
    """

    def with_chart(notice: Notice) -> Notice:
        together = (notice.group, notice.owner)
        if notice.stage not in _DRAWN or (notice.group and together in drawn):
            return notice
        drawn.add(together)
        return replace(notice, chart=chart_of(ledger, decision, family))

    return tuple(map(with_chart, notices))


def chart_of(ledger: Ledger, decision: Decision, family: Family) -> Chart | None:
    """Return how the metric came to be that a decision was taken for, None if there is no such.

    It is the first that is in alarm, in the order in which a page tells them; where none is, what
    the model is judged by.
    """
    verdict = decisive(decision, family)
    if verdict is None:
        return None
    reading = verdict.reading
    past = ledger.facts(Measured, model=decision.model, last=LAST)
    values = {fact.at: value_in(fact.readings, reading) for fact in past}
    # A decision is told of before or after its measurement is kept.
    values[decision.at] = reading.value
    points = tuple(
        (at, value) for at, value in sorted(values.items()) if value is not None and isfinite(value)
    )
    limit, usual = lines(verdict)
    # As the page has it, so that both are seen to be the same number.
    times, unit = (
        (100.0, "%") if reading.metric in SHARES else (1.0, family.unit_of(reading.metric))
    )
    of = " of the newest rows" if reading.kind is Kind.FRESH else ""
    column = f" of {reading.column}" if reading.column else ""
    return Chart(
        title=f"{metric_name(reading.metric)}{column}{of}, {decision.model}",
        points=tuple((at, value * times) for at, value in points),
        unit=unit,
        limit=limit * times if limit is not None else None,
        baseline=usual * times if usual is not None else None,
    )


def decisive(decision: Decision, family: Family) -> Verdict | None:
    """Return what a decision is about most of all, None where nothing was measured."""
    measured = [v for v in decision.verdicts if v.reading.value is not None]
    alarms = [v for v in measured if v.level is Level.ALARM and v.reading.kind in _ORDER]
    if alarms:
        # The worst of a kind, as the page has it.
        return min(
            alarms,
            key=lambda v: (_ORDER.index(v.reading.kind), -(v.reading.value or 0.0)),
        )
    return next((v for v in measured if is_decisive(v.reading, family)), None)


def value_in(readings: tuple[Reading, ...], like: Reading) -> float | None:
    """Return the value of the same metric, of the same rows and column, at another time."""
    for one in readings:
        if (one.metric, one.column) == (like.metric, like.column) and (
            (one.kind, one.segment) == (like.kind, like.segment)
        ):
            return one.value
    return None


def lines(verdict: Verdict) -> tuple[float | None, float | None]:
    """Return limit and usual level of a verdict's metric in its own unit, None where it has none.

    A limit of performance is a share of the baseline, in the direction in which it is worse; one
    of quality is above the baseline; what is fresh is told as a change, on either side of none.
    """
    reading, limit, usual = verdict.reading, verdict.limit, verdict.reading.baseline
    if reading.kind is Kind.FRESH:
        return (None if limit is None else copysign(limit, reading.value or 0.0)), 0.0
    if limit is None or usual is None:
        return limit, usual
    if reading.kind in (Kind.DECAY, Kind.ESTIMATE):
        worse = abs(usual) * limit
        return usual + (worse if reading.metric in LOSSES else -worse), usual
    if reading.kind is Kind.QUALITY:
        return usual + limit, usual
    return limit, None
