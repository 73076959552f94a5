"""Seeded tables of the two test families, and one call that measures them."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from driftloop.measure import Measurement, prepared
from driftloop.measure import measured as measured_of
from driftloop.records import Kind, LogSummary, Reading
from driftloop.spec import Family

NOW = datetime(2026, 3, 1, tzinfo=UTC)
Table = Callable[..., pa.Table]


@pytest.fixture
def regression() -> Table:
    """Makes rows of eta: `n` rows over 14 days, numbers moved by `shift` standard deviations."""

    def table(n: int, *, seed: int, shift: float = 0.0) -> pa.Table:
        rng = np.random.default_rng(seed)
        distance = rng.gamma(2.0, 100.0, n) + 200.0 * shift
        prediction = 10.0 + distance / 10.0
        return pa.table(
            {
                "event_time": times(n),
                "distance": distance,
                "load": np.clip(rng.beta(2, 3, n) + 0.2 * shift, 0.0, 1.0),
                "vehicle": rng.choice(
                    ["van", "bike", "truck"], n, p=[0.5 + shift / 10, 0.3, 0.2 - shift / 10]
                ),
                "prediction": prediction,
                "label": prediction + rng.normal(0.0, 5.0, n),
            }
        )

    return table


@pytest.fixture
def binary() -> Table:
    """Makes rows of churn, with labels drawn by their probabilities."""

    def table(n: int, *, seed: int, shift: float = 0.0) -> pa.Table:
        rng = np.random.default_rng(seed)
        prediction = np.round(rng.beta(1.0 + shift, 1.5, n), 3)
        return pa.table(
            {
                "event_time": times(n),
                "tenure": rng.gamma(2.0, 20.0, n),
                "spend": rng.lognormal(shift, 1.0, n),
                "plan": rng.choice([f"p{i}" for i in range(8)], n),
                "prediction": prediction,
                "label": (rng.uniform(size=n) < prediction).astype(np.float64),
            }
        )

    return table


@pytest.fixture
def measured() -> Callable[..., Measurement]:
    """Measures `current` against `reference`; anything else may be overridden."""

    def measure(
        family: Family, current: pa.Table, reference: pa.Table, **other: Any
    ) -> Measurement:
        newest = NOW - timedelta(hours=6) if current.num_rows else None
        given: dict[str, Any] = {
            "own": current,
            "summary": LogSummary(
                rows=current.num_rows, duplicates=0, labels=0, newest_event=newest
            ),
            "baselines": {},
            "now": NOW,
        }
        return measured_of(
            family=family,
            current=current,
            reference=prepared(family, reference),
            **{**given, **other},
        )

    return measure


@pytest.fixture
def pick() -> Callable[..., Reading]:
    """Finds the one reading of a metric and a column."""

    def one(measured: Measurement, metric: str, column: str | None = None) -> Reading:
        told = (r for r in measured.measured if r.kind is not Kind.ESTIMATE)
        (found,) = (r for r in told if (r.metric, r.column) == (metric, column))
        return found

    return one


@pytest.fixture
def put() -> Callable[..., pa.Table]:
    """Replaces a column of a table."""

    def replaced(table: pa.Table, name: str, values: Any) -> pa.Table:
        array = values if isinstance(values, pa.Array) else pa.array(values)
        return table.set_column(table.column_names.index(name), name, array)

    return replaced


def times(n: int) -> pa.Array:
    """Spread `n` event times evenly over the 14 days before NOW."""
    start = NOW - timedelta(days=14)
    steps = [start + timedelta(days=14) * i / max(n, 1) for i in range(n)]
    return pa.array(steps, pa.timestamp("us", tz="UTC"))
