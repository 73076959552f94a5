"""What the values in monitor files may be: durations, shares, and tables of them."""

import re
from datetime import timedelta
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

LONGEST = timedelta(days=36_500)
"""What is longer than a century is a mistake, and reaches back to before there were calendars."""


def duration(text: object) -> object:
    """Return `text` as a timedelta: a number and one of s, m, h, d, as in "90s" or "14d".

    >>> duration("14d")
    datetime.timedelta(days=14)
    """
    if isinstance(text, timedelta):
        return text
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd])", text) if isinstance(text, str) else None
    if match is None:
        msg = 'should be a duration such as "90s", "10m", "6h" or "14d"'
        raise ValueError(msg)
    unit = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}[match[2]]
    try:
        length = timedelta(**{unit: float(match[1])})
    except OverflowError:
        length = timedelta.max
    if length > LONGEST:
        msg = f"should be at most {LONGEST.days} days"
        raise ValueError(msg)
    return length


def _not_nothing(length: timedelta) -> timedelta:
    if not length:
        msg = "must be longer than nothing"
        raise ValueError(msg)
    return length


Pause = Annotated[timedelta, BeforeValidator(duration)]
Duration = Annotated[Pause, AfterValidator(_not_nothing)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]


class Table(BaseModel):
    """A table of a monitor file: strict, and nothing in it that is not declared."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
