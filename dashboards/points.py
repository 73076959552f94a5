"""What a model is judged by, over its windows: its decay metric, or how its scores drift. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from driftloop.judge import is_decisive
from driftloop.records import Kind, Measured, metric_name
from driftloop.spec import LOSSES, Family


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """The decay metric over one window, or of scores the distance from their reference.

    `value` is None where it could not be measured, and `baseline` for scores.

    `limit` is the value at which the policy alarms; `blind` says that too few labels, or
    scores, came for the value to be judged.
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
        if self.value is None or self.limit is None:
            return False
        worse_high = self.baseline is None or self.limit >= self.baseline
        return self.value >= self.limit if worse_high else self.value <= self.limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Believed:
    """The decay metric of some rows as it is believed to be, labels to come included.

    `of` says which rows. `value` is None where it is not known, and `problem` says why. `labels`
    are those that are here.
    """

    of: str
    value: float | None
    low: float | None
    high: float | None
    labels: int
    baseline: float | None
    problem: str | None


ROWS_OF = {
    None: "all rows",
    "age=day": "rows of the last day",
    "age=newest": "rows younger than most labels are",
}
"""What the parts of an estimate are called."""
UNKNOWN = "UNKNOWN: "


def estimates(measured: Sequence[Measured], family: Family) -> tuple[Believed, ...]:
    """Return what is believed of the newest window, all of its rows first; nothing if all is known.

    A problem is told without the word that it begins with.
    """
    if family.decay is None or not measured:
        return ()
    return tuple(
        Believed(
            of=ROWS_OF[reading.segment],
            value=reading.value,
            low=reading.low,
            high=reading.high,
            labels=reading.n,
            baseline=reading.baseline,
            problem=None if reading.problem is None else reading.problem.removeprefix(UNKNOWN),
        )
        for reading in measured[-1].readings
        if reading.kind is Kind.ESTIMATE
        and reading.metric == family.decay.metric
        and reading.segment in ROWS_OF
    )


def metric_said(family: Family) -> str:
    """Return what the models of `family` are judged by, in words."""
    if family.decay is None:
        return f"{metric_name(family.drift.numeric)} of the scores"
    return metric_name(family.decay.metric)


def points(measured: Sequence[Measured], family: Family) -> tuple[Point, ...]:
    """Return what is judged of each window, oldest first, with the value that alarms."""
    least = family.window.min_rows if family.decay is None else family.window.min_labels
    return tuple(
        Point(
            at=fact.at,
            value=reading.value,
            low=reading.low,
            high=reading.high,
            n=reading.n,
            baseline=reading.baseline,
            limit=alarm_at(reading.baseline, family),
            blind=reading.value is None or reading.n < least,
        )
        for fact in measured
        for reading in fact.readings
        if is_decisive(reading, family)
    )


def alarm_at(baseline: float | None, family: Family) -> float | None:
    """Return the value at which the policy alarms, on the side where the metric is worse."""
    if family.decay is None:
        return family.drift.alarm
    if baseline is None:
        return None
    sign = 1.0 if family.decay.metric in LOSSES else -1.0
    return baseline + sign * family.decay.alarm * abs(baseline)
