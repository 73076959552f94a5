"""The tables of monitor files that say how far a judgement is to be trusted."""

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Field

from driftloop.records import Severity
from driftloop.spec.values import Duration, Positive, Table


class BudgetPolicy(Table):
    """How many pages of a family may be wrong, and what is worth a page at all.

    Without `false_pages_per_week` its models share what is left of the fleet's, of `platform.toml`.
    Both are averages, which hold however often one looks.
    """

    false_pages_per_week: Positive | None = None
    """Of all its models together."""
    markets: dict[str, Positive] = Field(default_factory=dict)
    """False pages a week of single markets' models: a part of the family's."""
    page_on: Annotated[tuple[Literal["harm", "data", "drift"], ...], Field(strict=False)] = (
        "harm",
        "data",
        "drift",
    )
    """What may open an incident: performance, faults of the data, columns that changed. What may
    not still makes the model's state."""
    shift: Positive = 0.2
    """A column pages that is off by so many standard deviations in its fresh rows, and for certain
    by more than half as many."""


class EstimatePolicy(Table):
    """When performance may be told before the labels are there, and what it may decide."""

    min_labels: Annotated[int, Field(ge=50)] = 200
    """It is learnt of so many labels at least, those of the gate's holdout among them."""
    outside: Annotated[float, Field(gt=0.0, le=1.0)] = 0.1
    """A larger share of a column where the training rows had nothing: UNKNOWN."""
    decides: bool = True
    """Whether an estimate that is worse beyond decay.alarm, its whole interval, is an alarm."""


class QuarantinePolicy(Table):
    """Which rows train nothing, and for how long."""

    keep: Duration = timedelta(days=30)
    """Without anybody's word a partition is checked again after so long."""
    volume: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.25
    """Fewer rows than this share of what is usual at that time of the week are a fault, as are
    more than the usual number divided by it."""


Urgency = Annotated[Severity | None, Field(strict=False)]


class SeverityPolicy(Table):
    """How urgent a family's pages are, where that is not as what was found makes it."""

    harm: Urgency = None
    """It predicts worse."""
    data: Urgency = None
    """Its data is at fault."""
    drift: Urgency = None
    """Columns have changed."""
    rollout: Urgency = None
    """A rollout is stuck, held or rolled back."""
