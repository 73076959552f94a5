"""The decay metric of a model over its windows. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from driftloop.records import Kind, Measured
from driftloop.spec import LOSSES, Family


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """The decay metric over one window; `value` is None where it could not be measured.

    `limit` is the value at which the policy alarms; `blind` says that too few labels came for
    the value to be judged.
    """

    at: datetime
    value: float | None
    low: float | None
    high: float | None
    n: int
    baseline: float | None
    limit: float | None
    blind: bool

    @property
    def over(self) -> bool:
        """Whether the value stands where the policy alarms, however sure that is."""
        if self.value is None or self.limit is None or self.baseline is None:
            return False
        worse_high = self.limit >= self.baseline
        return self.value >= self.limit if worse_high else self.value <= self.limit


def points(measured: Sequence[Measured], family: Family) -> tuple[Point, ...]:
    """Return the decay metric of each window, oldest first, with the value that alarms."""
    return tuple(
        Point(
            at=fact.at,
            value=reading.value,
            low=reading.low,
            high=reading.high,
            n=reading.n,
            baseline=reading.baseline,
            limit=alarm_at(reading.baseline, family),
            blind=reading.value is None or reading.n < family.window.min_labels,
        )
        for fact in measured
        for reading in fact.readings
        if reading.kind is Kind.DECAY
        and reading.column is None
        and reading.segment is None
        and reading.metric == family.decay.metric
    )


def alarm_at(baseline: float | None, family: Family) -> float | None:
    """Return the value at which the policy alarms, on the side where the metric is worse."""
    if baseline is None:
        return None
    sign = 1.0 if family.decay.metric in LOSSES else -1.0
    return baseline + sign * family.decay.alarm * abs(baseline)
