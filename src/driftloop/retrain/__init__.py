"""Order to candidate: rows, recipes, fit. The door to scikit-learn."""

from driftloop.retrain.file import pack, unpack
from driftloop.retrain.fit import (
    Fitted,
    answer,
    fit,
    predict,
    probabilities,
    unfitted,
    weight_name,
)
from driftloop.retrain.model import FittedModel
from driftloop.retrain.score import score

__all__ = [
    "Fitted",
    "FittedModel",
    "answer",
    "fit",
    "pack",
    "predict",
    "probabilities",
    "score",
    "unfitted",
    "unpack",
    "weight_name",
]
