"""Shifts and quiet hours, in each owner's own time."""

from datetime import datetime

from driftloop.records import Severity
from driftloop.spec import Owner


def on_call(owner: Owner, at: datetime) -> str | None:
    """Return Slack's id of who of `owner` has the shift at `at`, None where nobody has."""
    raise NotImplementedError


def quiet_until(owner: Owner, severity: Severity, at: datetime) -> datetime | None:
    """Return when the quiet hours end that `at` lies in, in UTC; None where it is told at once."""
    raise NotImplementedError


def morning(owner: Owner, at: datetime) -> datetime:
    """Return what "until tomorrow" means: 09:00 of the owner's next local day, in UTC."""
    raise NotImplementedError
