"""The tables of monitor files that say how far a judgement is to be trusted."""

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Field

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
    """A column that moved by no more than this, in standard deviations, stays silent."""


class EstimatePolicy(Table):
    """When performance may be told before the labels are there."""


class QuarantinePolicy(Table):
    """Which rows train nothing, and for how long."""

    keep: Duration = timedelta(days=30)
