"""Every family's log behind one port: ours in the lake, and those that somebody else writes."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

import pyarrow as pa

from driftloop.ports import Look
from driftloop.prediction_log.foreign import ForeignLog
from driftloop.prediction_log.lake import Lake
from driftloop.records import LogSummary, ModelId, Partition, Window
from driftloop.spec import Family


class RoutedLog:
    """Implements `ports.PredictionLog`; each question goes to the log that the family is in.

    Args:
        lake: ours.
        foreign: the others, by the name of the family.
    """

    def __init__(self, lake: Lake, foreign: Mapping[str, ForeignLog]) -> None:
        """Open nothing yet."""
        self._lake = lake
        self._foreign = foreign

    def of(self, family: Family) -> Lake | ForeignLog:
        """Return the log that `family` is in."""
        return self._foreign.get(family.name, self._lake)

    def rows(self, family: Family, window: Window) -> pa.Table:
        """Return one row for each id; see `ports.PredictionLog`."""
        return self.of(family).rows(family, window)

    def sample(self, family: Family, window: Window) -> tuple[pa.Table, int]:
        """Return rows, or a part of them if they are many; see `ports.PredictionLog`."""
        return self.of(family).sample(family, window)

    def summary(self, family: Family, window: Window) -> LogSummary:
        """Return counts over the window's rows; see `ports.PredictionLog`."""
        return self.of(family).summary(family, window)

    def looks(self, family: Family, windows: Sequence[Window]) -> Iterator[tuple[ModelId, Look]]:
        """Return `rows` and `summary` of many models; see `ports.PredictionLog`."""
        return self.of(family).looks(family, windows)

    def horizon(self, family: Family) -> datetime | None:
        """Return when the newest rows arrived; see `ports.PredictionLog`."""
        return self.of(family).horizon(family)

    def partitions(
        self, family: Family, windows: Sequence[Window]
    ) -> dict[ModelId, list[Partition]]:
        """Return the partitions of many models; see `ports.PredictionLog`."""
        return self.of(family).partitions(family, windows)
