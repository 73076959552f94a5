"""Ready-made recipes; a recipe takes a family and gives an unfitted scikit-learn pipeline.

A recipe is called as `recipe(family, seed=..., **parameters)` with the family's
`retrain.parameters`, and is given a frame: numeric features float32 with NaN for null,
categorical ones str with "" for null, in the order of the monitor file; no texts. Both recipes here
answer the same in ONNX, unseen categories and nulls included.
"""

from typing import Any

from driftloop.errors import TrainingFailed
from driftloop.records import Task
from driftloop.spec import Family


def gradient_boosting(family: Family, *, seed: int, **parameters: Any) -> Any:  # noqa: ANN401 - an estimator of scikit-learn
    """Return ordinal codes in front of HistGradientBoosting, with `parameters` handed to it.

    Its native categoricals would not survive lowering, so each category is a number: its rank
    among those seen, or -1 when unseen. "" (null) is a category like any other. Numbers pass
    as they are: the trees have a branch for NaN.

    Raises:
        TrainingFailed: the estimator does not know one of the parameters.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.preprocessing import OrdinalEncoder

    kind = (
        HistGradientBoostingRegressor
        if family.task is Task.REGRESSION
        else HistGradientBoostingClassifier
    )
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, dtype="float32")
    return _pipeline(family, encoder, "passthrough", _estimator(kind, seed, parameters))


def linear(family: Family, *, seed: int, **parameters: Any) -> Any:  # noqa: ANN401 - an estimator of scikit-learn
    """Return scaled numbers and one-hot categories in front of Ridge or LogisticRegression.

    A null number becomes the mean of the training rows; an unseen category is all zeros.

    Raises:
        TrainingFailed: the estimator does not know one of the parameters.
    """
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    kind = Ridge if family.task is Task.REGRESSION else LogisticRegression
    encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False, dtype="float32")
    numbers = Pipeline([("impute", SimpleImputer()), ("scale", StandardScaler())])
    return _pipeline(family, encoder, numbers, _estimator(kind, seed, parameters))


def _pipeline(family: Family, encoder: Any, numbers: Any, estimator: Any) -> Any:  # noqa: ANN401 - estimators of scikit-learn
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import Pipeline

    parts = (
        ("categories", encoder, list(family.categorical)),
        ("numbers", numbers, list(family.numeric)),
    )
    columns = ColumnTransformer([part for part in parts if part[2]])
    return Pipeline([("columns", columns), ("model", estimator)])


def _estimator(kind: Any, seed: int, parameters: dict[str, Any]) -> Any:  # noqa: ANN401 - an estimator of scikit-learn
    known = sorted(set(kind().get_params()) - {"random_state"})
    unknown = sorted(set(parameters) - set(known))
    if unknown:
        hint = f"{kind.__name__} knows {', '.join(known)}"
        if "random_state" in unknown:
            hint = "set retrain.seed instead of random_state"
        raise TrainingFailed(
            f"unknown parameter {', '.join(unknown)}", where="retrain.parameters", hint=hint
        )
    return kind(**parameters, random_state=seed)
