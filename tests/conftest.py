"""Fixtures that every room's tests share: a small fleet, and a clock that stands still."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from driftloop.spec import Family, Fleet, load_fleet

MONITORS = Path(__file__).parent / "monitors"


@dataclass
class StoppedClock:
    """A clock that shows what a test sets."""

    shown: datetime = datetime(2026, 3, 1, tzinfo=UTC)

    def now(self) -> datetime:
        return self.shown


@pytest.fixture
def fleet() -> Fleet:
    """Two families: eta (regression, de and fr) and churn (binary, uk)."""
    return load_fleet(MONITORS)


@pytest.fixture
def eta(fleet: Fleet) -> Family:
    """The regression family."""
    return fleet.family_named("eta")


@pytest.fixture
def churn(fleet: Fleet) -> Family:
    """The binary family."""
    return fleet.family_named("churn")


@pytest.fixture
def clock() -> StoppedClock:
    """A clock at 2026-03-01, settable."""
    return StoppedClock()
