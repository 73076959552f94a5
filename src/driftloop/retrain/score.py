"""How well a candidate did on rows it was not fitted on."""

from typing import assert_never

import numpy as np

from driftloop.records import Metric, Task


def score(task: Task, label: np.ndarray, prediction: np.ndarray) -> tuple[Metric, ...]:
    """Return the figures that decay is later judged against.

    Regression: mae, rmse, r2, mean_error (prediction less label), mape_abs (in percent of the
    label's size; 100 where that is 0), mape, the same where no label is negative, and
    abs_max_error. Binary, from probabilities of 1: roc_auc, f1, log_loss,
    accuracy, precision, recall, tpr, tnr, fpr and fnr, with 1 predicted from 0.5 on. What is a
    share of nothing is left out, as roc_auc is when only one class was seen. Multiclass, from
    indexes of classes: accuracy, and f1, precision and recall as macro averages. Scores have none.

    Args:
        task: which figures.
        label: true outcomes, shape (n,).
        prediction: answers, shape (n,), in the label's unit or as probabilities.
    """
    match task:
        case Task.REGRESSION:
            found = _regression(label, prediction)
        case Task.BINARY:
            found = _binary(label, prediction)
        case Task.MULTICLASS:
            found = _classes(label, prediction)
        case Task.SCORE:
            found = {}
        case _:
            assert_never(task)
    return tuple(Metric(name=name, value=float(value)) for name, value in found.items())


def _regression(label: np.ndarray, prediction: np.ndarray) -> dict[str, float]:
    from sklearn import metrics

    eps = np.finfo(np.float64).eps
    zero = np.abs(label) <= eps
    apart = np.abs(prediction - label) / np.where(zero, 1.0, np.abs(label))
    percent = 100.0 * np.mean(np.where(zero, 1.0, apart))
    return {
        "mae": metrics.mean_absolute_error(label, prediction),
        "rmse": metrics.root_mean_squared_error(label, prediction),
        "r2": metrics.r2_score(label, prediction),
        "mean_error": np.mean(prediction - label),
        **({} if (label < -eps).any() else {"mape": percent}),
        "mape_abs": percent,
        "abs_max_error": metrics.max_error(label, prediction),
    }


def _binary(label: np.ndarray, prediction: np.ndarray) -> dict[str, float]:
    from sklearn import metrics

    chosen = prediction >= 0.5  # noqa: PLR2004 - the cut that all but two of them are defined at
    (tn, fp), (fn, tp) = metrics.confusion_matrix(label, chosen, labels=[0, 1]).tolist()
    found: dict[str, float] = {}
    if tp + fn and tn + fp:
        # The mean of the areas of p and of 1 - p, as Evidently has it: they differ below 1e-16.
        flipped = metrics.roc_auc_score(1.0 - label, 1.0 - prediction)
        found["roc_auc"] = (metrics.roc_auc_score(label, prediction) + flipped) / 2.0
    found |= {
        "f1": metrics.f1_score(label, chosen, zero_division=0.0),
        "log_loss": metrics.log_loss(label, prediction, labels=[0, 1]),
        "accuracy": metrics.accuracy_score(label, chosen),
    }
    if tp + fp:
        found["precision"] = tp / (tp + fp)
    if tp + fn:
        found |= {"recall": tp / (tp + fn), "tpr": tp / (tp + fn), "fnr": fn / (tp + fn)}
    if tn + fp:
        found |= {"tnr": tn / (tn + fp), "fpr": fp / (tn + fp)}
    return found


def _classes(label: np.ndarray, prediction: np.ndarray) -> dict[str, float]:
    from sklearn import metrics

    precision, recall, f1, _ = metrics.precision_recall_fscore_support(
        label, prediction, average="macro", zero_division=0.0
    )
    accuracy = metrics.accuracy_score(label, prediction)
    return {"accuracy": accuracy, "f1": f1, "precision": precision, "recall": recall}
