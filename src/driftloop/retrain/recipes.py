"""Ready-made recipes; a recipe takes a family and gives an unfitted scikit-learn pipeline."""

from typing import Any

from driftloop.spec import Family


def gradient_boosting(family: Family, *, seed: int, **parameters: Any) -> Any:  # noqa: ANN401 - an estimator of scikit-learn
    """Return encoders in front of HistGradientBoosting, with `parameters` handed to it."""
    raise NotImplementedError
