"""The door to Evidently: its distances, and its snapshot of what was measured.

Imports Evidently (3 s, 290 MB), so it is itself imported only inside functions of this room,
after DO_NOT_TRACK is set.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import lru_cache

import numpy as np
import pandas as pd
import pyarrow as pa
from evidently import (
    BinaryClassification,
    DataDefinition,
    Dataset,
    MulticlassClassification,
    Regression,
    Report,
)
from evidently.core.metric_types import MetricConfig, SingleValueCalculation, SingleValueMetric
from evidently.core.report import Snapshot
from evidently.legacy.calculations.stattests import (
    jensenshannon_stat_test,
    wasserstein_stat_test,
)
from evidently.legacy.core import ColumnType
from evidently.metrics import (
    MAE,
    RMSE,
    Accuracy,
    F1Score,
    LogLoss,
    Precision,
    R2Score,
    Recall,
    RocAuc,
)

from driftloop.measure.columns import Codes, Floats, answered, counted, numbers, texts
from driftloop.measure.distances import EVIDENTLY_FLOOR
from driftloop.measure.reference import Reference
from driftloop.records import Kind, Reading, Task
from driftloop.spec import Family

Key = tuple[str, str, str | None]
"""Kind, metric and column of a reading."""

_TESTS = {
    "wasserstein": (wasserstein_stat_test, ColumnType.Numerical),
    "jensenshannon": (jensenshannon_stat_test, ColumnType.Categorical),
}
_PERFORMANCE = {
    "mae": MAE,
    "rmse": RMSE,
    "r2": R2Score,
    "roc_auc": RocAuc,
    "f1": F1Score,
    "log_loss": LogLoss,
    "accuracy": Accuracy,
    "precision": Precision,
    "recall": Recall,
}


def recheck(family: Family, reading: Reading, rows: pa.Table, reference: Reference) -> float | None:
    """Return what Evidently itself measures of `rows` where we have `reading`.

    None for what it cannot tell from nothing: a column whose spread is below its floor.

    Raises:
        Exception: whatever Evidently raises on data that it cannot digest.
    """
    if reading.kind is Kind.DECAY:
        return _performance(family, reading.metric, rows)
    name, of = reading.column or "", "the window"
    sides: tuple[Floats | Codes, ...]
    if reading.metric == "jensenshannon":
        levels = reference.levels(name)
        rows = rows if name in family.features else answered(family, rows, of=of)
        counts = counted(*texts(rows, name, of=of), levels.names)
        every = np.arange(len(counts))
        sides = tuple(np.repeat(every[: len(side)], side) for side in (levels.counts, counts))
    else:
        column, values = reference.numbers(name), numbers(rows, name, of=of)
        if not EVIDENTLY_FLOOR <= column.spread < np.inf:
            return None
        sides = (column.ascending, values[np.isfinite(values)])
    test, kind = _TESTS[reading.metric]
    return float(test(*(pd.Series(side) for side in sides), kind, None).drift_score)


def _performance(family: Family, metric: str, rows: pa.Table) -> float:
    frame = rows.select(["prediction", "label"]).to_pandas()
    frame = frame[np.isfinite(frame).all(axis=1)]
    none: dict[str, list[str]] = {
        f"{kind}_columns": [] for kind in ("datetime", "text", "unknown", "list")
    }
    if family.task is Task.REGRESSION:
        defined = DataDefinition(
            regression=[Regression(target="label", prediction="prediction")],
            numerical_columns=["prediction", "label"],
            categorical_columns=[],
            **none,
        )
    elif family.task is Task.MULTICLASS:
        # By name: where only two classes are there, Evidently raises instead of taking the second
        # for the positive one of a binary model.
        named = dict(enumerate(family.classes))
        frame = frame.apply(lambda column: column.map(named))
        defined = DataDefinition(
            classification=[
                MulticlassClassification(target="label", prediction_labels="prediction")
            ],
            numerical_columns=[],
            categorical_columns=["prediction", "label"],
            **none,
        )
    else:
        frame["label"] = frame["label"].astype(int)
        binary = BinaryClassification(target="label", prediction_probas="prediction", pos_label=1)
        defined = DataDefinition(
            classification=[binary],
            numerical_columns=["prediction"],
            categorical_columns=["label"],
            **none,
        )
    data = Dataset.from_pandas(frame, data_definition=defined)
    value = Report([_PERFORMANCE[metric]()]).run(data, None).dict()["metrics"][0]["value"]
    return float(value["mean"] if isinstance(value, dict) else value)


def recorded(
    readings: Sequence[Reading], *, family: str, at: datetime
) -> tuple[tuple[Reading, ...], Snapshot]:
    """Return the readings as an Evidently report holds them, and its snapshot.

    A reading without a value is no metric of the snapshot; its problem stands in the metadata.
    """
    pushed = {_key(reading): reading.value for reading in readings if reading.value is not None}
    problems = {
        " ".join(part for part in _key(reading) if part): reading.problem
        for reading in readings
        if reading.problem is not None
    }
    report = _report(tuple(pushed))
    snapshot = report.run(
        _Values(pushed), None, timestamp=at, metadata={"family": family, "problems": problems}
    )
    found = snapshot.metric_results
    held = {
        (metric.kind, metric.metric, metric.column): float(found[metric.metric_id].value)
        for metric in report.items()
    }
    return tuple(replace(reading, value=held.get(_key(reading))) for reading in readings), snapshot


# -- what Evidently needs to take a number that was computed elsewhere -------------------------


class PushedReading(SingleValueMetric):  # type: ignore[misc]  # Evidently has no types
    """One of our readings as a metric of Evidently's; its fields become the metric's labels."""

    kind: str
    metric: str
    column: str | None = None

    def get_fingerprint(self) -> str:
        """Return what Evidently calls it: the same for the same fields, so computed once."""
        key = (self.kind, self.metric, self.column)
        found = _fingerprints.get(key)
        if found is None:
            found = _fingerprints[key] = str(super().get_fingerprint())
        return found


_fingerprints: dict[Key, str] = {}


class PushedReadingCalculation(SingleValueCalculation[PushedReading]):  # type: ignore[misc]
    """Looks the value up; Evidently binds it to the metric by the generic argument."""

    metric: PushedReading

    def calculate(
        self, _context: object, current_data: "_Values", _reference_data: object
    ) -> object:
        """Return the value, with no widget: None would draw Evidently's default one."""
        key = (self.metric.kind, self.metric.metric, self.metric.column)
        result = self.result(current_data.pushed[key])
        result.widget = []
        return result

    def to_metric_config(self) -> MetricConfig:
        """Return what is recorded of the metric: as Evidently makes it, once."""
        found = _configs.get(self.id)
        if found is None:
            found = _configs[self.id] = super().to_metric_config()
        return found

    def display_name(self) -> str:
        """Return what the metric is called in Evidently's UI."""
        return f"{self.metric.metric} of {self.metric.column or 'the model'}"


_configs: dict[str, MetricConfig] = {}


class _Values(Dataset):  # type: ignore[misc]
    """Values by key in the shape of a dataset: no pandas, no column statistics."""

    def __init__(self, pushed: Mapping[Key, float]) -> None:
        self._data_definition = DataDefinition()
        self._metadata: dict[str, str] = {}
        self._tags: list[str] = []
        self.pushed = pushed

    def as_dataframe(self) -> pd.DataFrame:
        return pd.DataFrame()

    def column(self, column_name: str) -> object:
        raise KeyError(column_name)

    def subdataset(self, column_name: str, label: object) -> Dataset:
        raise NotImplementedError

    def stats(self) -> None:
        return None


def _key(reading: Reading) -> Key:
    return str(reading.kind), reading.metric, reading.column


@lru_cache(maxsize=256)
def _report(keys: tuple[Key, ...]) -> Report:
    # Built once for each set of metrics: fingerprinting them costs more than running them.
    return Report(
        [PushedReading(kind=kind, metric=metric, column=column) for kind, metric, column in keys]
    )
