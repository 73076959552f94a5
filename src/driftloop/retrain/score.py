"""How well a candidate did on rows it was not fitted on."""

import numpy as np

from driftloop.records import Metric, Task


def score(task: Task, label: np.ndarray, prediction: np.ndarray) -> tuple[Metric, ...]:
    """Return the figures that decay is later judged against.

    Regression: mae, rmse, r2. Binary, from probabilities of 1: roc_auc, f1 (at 0.5), log_loss,
    accuracy; roc_auc is left out when only one class was seen. Multiclass, from indexes of
    classes: accuracy, and f1, precision and recall as macro averages. Scores have none.

    Args:
        task: which figures.
        label: true outcomes, shape (n,).
        prediction: answers, shape (n,), in the label's unit or as probabilities.
    """
    if task is Task.SCORE:
        return ()
    from sklearn import metrics

    if task is Task.MULTICLASS:
        precision, recall, f1, _ = metrics.precision_recall_fscore_support(
            label, prediction, average="macro", zero_division=0.0
        )
        return (
            Metric(name="accuracy", value=float(metrics.accuracy_score(label, prediction))),
            Metric(name="f1", value=float(f1)),
            Metric(name="precision", value=float(precision)),
            Metric(name="recall", value=float(recall)),
        )

    if task is Task.REGRESSION:
        return (
            Metric(name="mae", value=float(metrics.mean_absolute_error(label, prediction))),
            Metric(name="rmse", value=float(metrics.root_mean_squared_error(label, prediction))),
            Metric(name="r2", value=float(metrics.r2_score(label, prediction))),
        )
    chosen = prediction >= 0.5  # noqa: PLR2004 - the cut that F1 and accuracy are defined at
    found = [
        Metric(name="f1", value=float(metrics.f1_score(label, chosen, zero_division=0.0))),
        Metric(name="log_loss", value=float(metrics.log_loss(label, prediction, labels=[0, 1]))),
        Metric(name="accuracy", value=float(metrics.accuracy_score(label, chosen))),
    ]
    if np.unique(label).size > 1:
        found.insert(
            0, Metric(name="roc_auc", value=float(metrics.roc_auc_score(label, prediction)))
        )
    return tuple(found)
