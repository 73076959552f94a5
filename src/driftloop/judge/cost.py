"""Whether a retraining pays: expected loss avoided against compute and risk. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

from driftloop.judge.verdicts import worsening
from driftloop.records import Kind, ModelHistory, Reading, metric_name
from driftloop.spec import CostPolicy, Family

DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """What a retraining now would avoid and take, in the currency of the family's owner.

    `worse` is in the judged metric's unit, for each of `rows_a_day`; `avoided` is for each day of
    `days`, of which `chance` is counted. `takes` is paid once.
    """

    metric: str
    worse: float
    rows_a_day: float
    avoided: float
    days: float
    chance: float
    takes: float

    @property
    def pays(self) -> bool:
        """Whether more is avoided than it takes."""
        return self.avoided * self.days * self.chance > self.takes

    def __str__(self) -> str:
        """Return as much in words."""
        whole = self.avoided * self.days
        less = f", of which {self.chance:.0%} is counted" if self.chance < 1.0 else ""
        return (
            f"{metric_name(self.metric)} is worse by {self.worse:.3g} on {self.rows_a_day:.0f} rows"
            f" a day; a new version avoids {self.avoided:.3g} a day, {whole:.3g} in {self.days:g}"
            f" days{less}, and costs {self.takes:.3g}"
        )


def balance(readings: Sequence[Reading], history: ModelHistory, family: Family) -> Balance | None:
    """Return what a retraining would avoid and take; None where nothing shows that it is worse.

    Worsening counts where its 90 % interval lies wholly beyond the baseline: among many looks
    some show one by chance. It is read of labelled rows, or else of the estimate of performance
    with labels to come, or else of the rows that came since the last look. A metric that is better
    when higher is worse by what it fell. Rows a day are those of the window over its span. What
    orders since the last change of version came to nothing make it less likely that the next one
    gains: after n of them 1 / (n + 1) is counted. Fits are taken to last what the champion's did.

    Args:
        readings: those of one look.
        history: of the model.
        family: its policy; without [retrain.cost] there is no exchange rate, and None.
    """
    policy = family.retrain.cost
    worse = next(_worse(readings, family), None)
    if policy is None or worse is None or family.decay is None:
        return None
    rows = next((r.n for r in readings if r.kind is Kind.QUALITY and r.metric == "volume"), 0)
    rows_a_day = rows / (family.window.span / DAY)
    champion = history.champion
    hours = champion.fit_seconds / 3600 if champion is not None else 0.0
    return Balance(
        metric=family.decay.metric,
        worse=worse,
        rows_a_day=rows_a_day,
        avoided=worse * rows_a_day * policy.value,
        days=policy.horizon / DAY,
        chance=1.0 / (1.0 + in_vain(history)),
        takes=_takes(policy, hours),
    )


def in_vain(history: ModelHistory) -> int:
    """Return how many orders changed nothing since the champion was ordered."""
    if history.champion is None:
        return 0
    mine = history.champion.candidate.order
    return sum(order.at > mine.at and order.key != mine.key for order in history.orders)


def _takes(policy: CostPolicy, hours: float) -> float:
    return hours * policy.compute + policy.risk


def _worse(readings: Sequence[Reading], family: Family) -> Iterator[float]:
    """Yield by how much the judged metric is worse, by the surest kind of reading first."""
    if family.decay is None:
        return
    mine = [r for r in readings if r.segment is None and r.column is None and r.problem is None]
    for kind in (Kind.DECAY, Kind.ESTIMATE):
        for reading in mine:
            if reading.kind is not kind or reading.metric != family.decay.metric:
                continue
            if reading.value is None or reading.baseline is None:
                continue
            if kind is Kind.DECAY and reading.n < family.window.min_labels:
                continue
            share, sure = worsening(reading, reading.value, reading.baseline)
            yield max(share, 0.0) * abs(reading.baseline) if sure else 0.0
    for reading in mine:
        # Of fresh rows the worsening itself is read, as a share of the baseline.
        if reading.kind is Kind.FRESH and reading.metric == "loss" and reading.value is not None:
            sure = reading.low is not None and reading.low > 0.0
            if reading.baseline is not None:
                yield max(reading.value, 0.0) * abs(reading.baseline) if sure else 0.0
