"""A small installation: one writer's spool, the ingester and its lake."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from driftloop.prediction_log import Ingester, Lake, SegmentSpool
from driftloop.records import Label, ModelId, Prediction, Window

NOON = datetime(2026, 2, 28, 12, tzinfo=UTC)
MODEL = ModelId("eta-de")


@pytest.fixture
def prediction() -> Callable[..., Prediction]:
    """Make a prediction of eta-de at noon; anything may be given."""

    def make(id_: str, **given: Any) -> Prediction:
        usual = {
            "model": MODEL,
            "version": 1,
            "epoch": 1,
            "event_time": NOON,
            "predicted_at": NOON,
            "prediction": 21.5,
            "features": {"distance": 3.0, "load": 0.5, "vehicle": "van"},
        }
        return Prediction(id=id_, **(usual | given))

    return make


@pytest.fixture
def label() -> Callable[..., Label]:
    """Make a label of eta-de observed at noon."""

    def make(id_: str, value: float, **given: Any) -> Label:
        return Label(**({"id": id_, "model": MODEL, "value": value, "observed_at": NOON} | given))

    return make


@pytest.fixture
def window() -> Callable[..., Window]:
    """Make a window of the day round noon; anything may be given."""

    def make(**given: Any) -> Window:
        usual = {
            "model": MODEL,
            "start": NOON - timedelta(hours=12),
            "end": NOON + timedelta(hours=12),
            "known_at": NOON + timedelta(days=30),
        }
        return Window(**(usual | given))

    return make


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[SegmentSpool]:
    """A writer whose segments are sealed only when asked."""
    with SegmentSpool(tmp_path / "spool" / "one", seal_rows=10**6, seal_every=3600.0) as spool:
        yield spool


@pytest.fixture
def lake(tmp_path: Path, fleet: Any) -> Iterator[Lake]:
    """The lake, writable."""
    with Lake(tmp_path / "lake", fleet, read_only=False) as lake:
        yield lake


@pytest.fixture
def ingester(tmp_path: Path, lake: Lake, clock: Any) -> Iterator[Ingester]:
    """The ingester of the spool into the lake."""
    with Ingester(tmp_path / "spool", lake, clock) as ingester:
        yield ingester
