"""The door to Evidently: its own number for a reading of ours.

Imports Evidently (3 s, 290 MB), so it is itself imported only inside functions of this room,
after DO_NOT_TRACK is set.
"""

import numpy as np
import pandas as pd
from evidently import (
    BinaryClassification,
    DataDefinition,
    Dataset,
    MulticlassClassification,
    Regression,
    Report,
)
from evidently.legacy.calculations.stattests import (
    jensenshannon_stat_test,
    psi_stat_test,
    wasserstein_stat_test,
)
from evidently.legacy.core import ColumnType
from evidently.metrics import (
    FNR,
    FPR,
    MAE,
    MAPE,
    RMSE,
    TNR,
    TPR,
    AbsMaxError,
    Accuracy,
    F1Score,
    LogLoss,
    MeanError,
    Precision,
    R2Score,
    Recall,
    RocAuc,
)

from driftloop.measure.columns import Codes, Floats, categories, measured_columns, numbers
from driftloop.measure.distances import EVIDENTLY_FLOOR
from driftloop.measure.reference import Reference
from driftloop.records import Kind, Reading, Task
from driftloop.rows import Rows
from driftloop.spec import Family

NO_OTHERS: dict[str, list[str]] = {
    # Evidently guesses the type of every column unless all lists are given.
    "datetime_columns": [],
    "text_columns": [],
    "unknown_columns": [],
    "list_columns": [],
}
_TESTS = {
    "wasserstein": wasserstein_stat_test,
    "jensenshannon": jensenshannon_stat_test,
    "psi": psi_stat_test,
}
_PERFORMANCE = {
    "mae": MAE,
    "rmse": RMSE,
    "r2": R2Score,
    "mean_error": MeanError,
    "mape": MAPE,
    "abs_max_error": AbsMaxError,
    "roc_auc": RocAuc,
    "f1": F1Score,
    "log_loss": LogLoss,
    "accuracy": Accuracy,
    "precision": Precision,
    "recall": Recall,
    "tpr": TPR,
    "tnr": TNR,
    "fpr": FPR,
    "fnr": FNR,
}


def recheck(family: Family, reading: Reading, rows: Rows, reference: Reference) -> float | None:
    """Return what Evidently itself measures of `rows` where we have `reading`.

    None for what it has no measure of, and for what it cannot tell from nothing: a column whose
    spread is below its floor.

    Raises:
        Exception: whatever Evidently raises on data that it cannot digest.
    """
    if reading.kind is Kind.DECAY:
        known = reading.metric in _PERFORMANCE
        return _performance(family, reading.metric, rows) if known else None
    name, of = reading.column or "", "the window"
    if reading.metric not in _TESTS:
        return None
    sides: tuple[Floats | Codes, ...]
    if name in measured_columns(family)[1]:
        kind, levels = ColumnType.Categorical, reference.levels(name)
        sides = tuple(
            np.repeat(np.arange(len(side)), side)
            for side in levels.beside(*categories(family, rows, name, of=of))
        )
    else:
        kind, column = ColumnType.Numerical, reference.numbers(name)
        values = numbers(rows, name, of=of)
        if not EVIDENTLY_FLOOR <= column.spread < np.inf:
            return None
        sides = (column.ascending, values[np.isfinite(values)])
    found = _TESTS[reading.metric](*(pd.Series(side) for side in sides), kind, None)
    return float(found.drift_score)


def definition(task: Task) -> DataDefinition:
    """Return how Evidently is to read the columns `label` and `prediction` of a task.

    Of regression both are numbers; of classes both are names; else labels are 0 and 1, and
    predictions probabilities of 1.
    """
    match task:
        case Task.REGRESSION:
            return DataDefinition(
                numerical_columns=["prediction", "label"],
                categorical_columns=[],
                regression=[Regression(target="label", prediction="prediction")],
                **NO_OTHERS,
            )
        case Task.MULTICLASS:
            return of_names(
                MulticlassClassification(target="label", prediction_labels="prediction")
            )
    binary = BinaryClassification(target="label", prediction_probas="prediction", pos_label=1)
    return DataDefinition(
        numerical_columns=["prediction"],
        categorical_columns=["label"],
        classification=[binary],
        **NO_OTHERS,
    )


def of_names(task: BinaryClassification | MulticlassClassification) -> DataDefinition:
    """Return how Evidently is to read labels and predictions that are names of classes."""
    return DataDefinition(
        numerical_columns=[],
        categorical_columns=["prediction", "label"],
        classification=[task],
        **NO_OTHERS,
    )


def _performance(family: Family, metric: str, rows: Rows) -> float:
    frame = pd.DataFrame(
        {name: numbers(rows, name, of="the champion's rows") for name in ("prediction", "label")}
    )
    frame = frame[np.isfinite(frame.to_numpy()).all(axis=1)]
    if family.task is Task.MULTICLASS:
        # By name: where only two classes are there, Evidently raises instead of taking the second
        # for the positive one of a binary model.
        named = dict(enumerate(family.classes))
        frame = frame.apply(lambda column: column.map(named))
    elif family.task is not Task.REGRESSION:
        frame["label"] = frame["label"].astype(int)
    data = Dataset.from_pandas(frame, data_definition=definition(family.task))
    value = Report([_PERFORMANCE[metric]()]).run(data, None).dict()["metrics"][0]["value"]
    return float(value["mean"] if isinstance(value, dict) else value)
