"""Order to candidate: rows, recipes, fit. The door to scikit-learn."""

from driftloop.retrain.fit import Fitted, fit, load, predict, probabilities, save
from driftloop.retrain.score import score

__all__ = ["Fitted", "fit", "load", "predict", "probabilities", "save", "score"]
