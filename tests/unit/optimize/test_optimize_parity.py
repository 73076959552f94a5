"""What is lowered answers the same; what would answer otherwise is refused with its cause."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pyarrow as pa
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder

from driftloop.errors import ParityError, TrainingFailed
from driftloop.optimize import lower, parity
from driftloop.optimize.parity import _trials
from driftloop.retrain import Fitted, fit, predict, probabilities
from driftloop.retrain.fit import _frame
from driftloop.serve.model import OnnxModel
from driftloop.spec import Family, Feature, load_fleet

MONITORS = Path(__file__).parents[2] / "monitors"
ROWS = 600


def rows(family: Family, *, seed: int = 0, scale: float = 100.0, shift: float = 500.0) -> pa.Table:
    """Rows with nulls where the family allows them, and a label that depends on all features."""
    rng = np.random.default_rng(seed)
    signal = np.zeros(ROWS)
    columns = {}
    for name, feature in family.features.items():
        null = np.zeros(ROWS, bool) if feature.required else rng.random(ROWS) < 0.1
        if feature.kind == "numeric":
            values = rng.normal(shift, scale, ROWS)
            columns[name] = pa.array(values, pa.float64(), mask=null)
            signal += np.where(null, 2.0, (values - shift) / scale)
        else:
            values = rng.choice(["bike", "van", "truck", "cargo"], ROWS)
            columns[name] = pa.array(values, pa.string(), mask=null)
            signal += np.where(null, -1.0, np.char.str_len(values) - 4.0)
    label = signal * 10 if family.task == "regression" else (signal > np.median(signal)) * 1.0
    return pa.table(columns | {"label": label})


def with_recipe(family: Family, name: str, **parameters: Any) -> Family:
    policy = family.retrain.model_copy(
        update={"recipe": f"driftloop.retrain.recipes:{name}", "parameters": parameters}
    )
    return family.model_copy(update={"retrain": policy})


def by_hand(family: Family, table: pa.Table, pipeline: Pipeline) -> Fitted:
    """Fit a pipeline of one's own on the frame that `fit` would give it."""
    columns = tuple((n, f.kind) for n, f in family.features.items())
    pipeline.fit(_frame(columns, table), table["label"].to_numpy())
    return Fitted(pipeline=pipeline, task=family.task, columns=columns)


def compared(family: Family, table: pa.Table, fitted: Fitted, *, tolerance: float = 1e-4) -> float:
    return parity(
        lower(fitted.pipeline, family),
        family,
        table,
        lambda asked: predict(fitted, asked),
        tolerance=tolerance,
        pipeline=fitted.pipeline,
    )


@pytest.fixture(params=["eta", "churn"])
def family(request: pytest.FixtureRequest) -> Family:
    """Both families in turn."""
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("recipe", ["gradient_boosting", "linear"])
def test_our_recipes_are_lowered_exactly(family: Family, recipe: str) -> None:
    """Nulls, unseen categories and extremes included, within float32's rounding."""
    family = with_recipe(family, recipe)
    table = rows(family)
    assert compared(family, table, fit(family, table, seed=1)) < 1e-5


@pytest.mark.parametrize("kind", ["numeric", "categorical"])
def test_a_family_of_one_kind_of_feature_is_lowered_too(family: Family, kind: str) -> None:
    """Neither encoder nor numbers need to be there."""
    features = {n: f for n, f in family.features.items() if f.kind == kind}
    for recipe in ("gradient_boosting", "linear"):
        cut = with_recipe(family, recipe).model_copy(update={"features": features})
        table = rows(cut)
        assert compared(cut, table, fit(cut, table, seed=1)) < 1e-5


def test_a_model_is_given_no_text(family: Family) -> None:
    """With one in the monitor file the fitted model and its file are those without it."""
    told = family.model_copy(
        update={"features": {**family.features, "said": Feature(kind="text", required=True)}}
    )
    table = rows(family)
    with_text = table.append_column("said", pa.array(["some words"] * ROWS))
    fitted = fit(told, with_text, seed=1)
    assert compared(told, with_text, fitted) < 1e-5
    assert fitted.columns == fit(family, table, seed=1).columns
    assert lower(fitted.pipeline, told) == lower(fit(family, table, seed=1).pipeline, family)


def test_odd_rows_do_not_grow_with_the_square_of_the_features(eta: Family) -> None:
    """Of 400 features each kind of odd row has fewer rows, and every kind is there."""
    features = {f"x{n}": Feature(kind="numeric") for n in range(400)}
    wide = eta.model_copy(update={"features": features})
    table = pa.table({name: np.arange(100.0) for name in features})
    kinds = [(kind, trial.num_rows) for kind, trial in _trials(wide, table)]
    assert len(kinds) == 1 + 400 + 1 + 3 * 400 + 1
    assert kinds[0] == ("real rows", 100)
    assert sum(count for _, count in kinds[1:]) < 25_000


def test_a_feature_that_is_null_throughout_is_lowered_too(eta: Family) -> None:
    """A column that arrived empty does not stop the fleet."""
    table = rows(eta)
    table = table.set_column(1, "load", pa.nulls(ROWS, pa.float64()))
    table = table.set_column(2, "vehicle", pa.nulls(ROWS, pa.string()))
    for recipe in ("gradient_boosting", "linear"):
        family = with_recipe(eta, recipe)
        assert compared(family, table, fit(family, table, seed=1)) < 1e-5


def test_the_file_says_what_it_takes_and_gives(churn: Family) -> None:
    """All numbers in one input, one output, and who made it; the same bytes every time."""
    table = rows(churn)
    fitted = fit(churn, table, seed=1)
    content = lower(fitted.pipeline, churn)
    session = onnxruntime.InferenceSession(content)
    assert [(i.name, i.type, i.shape) for i in session.get_inputs()] == [
        ("driftloop.numbers", "tensor(float)", [None, 2]),
        ("plan", "tensor(string)", [None, 1]),
    ]
    assert [(o.name, o.type, o.shape) for o in session.get_outputs()] == [
        ("prediction", "tensor(float)", [None])
    ]
    said = session.get_modelmeta().custom_metadata_map
    assert (said["driftloop.family"], said["driftloop.task"]) == ("churn", "binary")
    assert json.loads(said["driftloop.features"]) == {
        "tenure": "numeric",
        "spend": "numeric",
        "plan": "categorical",
    }
    assert json.loads(said["driftloop.numbers"]) == ["tenure", "spend"]
    assert lower(fit(churn, table, seed=1).pipeline, churn) == content


@pytest.mark.parametrize("recipe", ["gradient_boosting", "linear"])
def test_the_service_answers_the_same_by_rows_and_by_columns(churn: Family, recipe: str) -> None:
    """Online and in batches: what the fitted model says, nulls among it."""
    family, table = with_recipe(churn, recipe), rows(churn)
    fitted = fit(family, table, seed=1)
    model = OnnxModel(lower(fitted.pipeline, family), digest="d", where="here")
    given = {name: table[name].to_pylist() for name in family.features}
    columns = {name: np.array(given[name], np.float32) for name in family.numeric}
    columns |= {n: np.array([v or "" for v in given[n]], object) for n in family.categorical}
    expected = predict(fitted, table)
    assert model.predict(given) == pytest.approx(expected, abs=1e-5)
    assert model.predict_columns(columns).tolist() == model.predict(given)


def test_another_process_makes_the_same_file() -> None:
    """Whatever order its sets come in: a fit that was killed is made again, to the same digest."""
    code = (
        "import hashlib; from pathlib import Path\n"
        "from driftloop.optimize import lower; from driftloop.retrain import fit\n"
        "from driftloop.spec import load_fleet\n"
        "from unit.optimize.test_optimize_parity import rows\n"
        f"eta = load_fleet(Path({str(MONITORS)!r})).family_named('eta')\n"
        "content = lower(fit(eta, rows(eta), seed=1).pipeline, eta)\n"
        "print(hashlib.sha256(content).hexdigest())"
    )
    paths = [str(MONITORS.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    made = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(paths)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    eta = load_fleet(MONITORS).family_named("eta")
    here = lower(fit(eta, rows(eta), seed=1).pipeline, eta)
    assert made == {f"{hashlib.sha256(here).hexdigest()}\n"}


def test_the_probability_is_that_of_one(churn: Family) -> None:
    """The output rises with the outcome's frequency; it is not the other column."""
    table = rows(churn)
    fitted = fit(churn, table, seed=1)
    session = onnxruntime.InferenceSession(lower(fitted.pipeline, churn))
    numbers = [table[name].fill_null(float("nan")).to_numpy() for name in ("tenure", "spend")]
    feed = {
        "driftloop.numbers": np.column_stack(numbers).astype(np.float32),
        "plan": table["plan"].fill_null("").to_numpy(zero_copy_only=False).reshape(-1, 1),
    }
    answers, label = session.run(None, feed)[0], table["label"].to_numpy()
    assert answers[label == 1].mean() > answers[label == 0].mean() + 0.5


def encoded(model: Any) -> Pipeline:
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    columns = ColumnTransformer([("c", encoder, ["vehicle"])], remainder="passthrough")
    return Pipeline([("columns", columns), ("model", model)])


@pytest.mark.parametrize(
    ("model", "cause"),
    [
        (HistGradientBoostingRegressor(categorical_features=[0], max_iter=20), "categorical"),
        (HistGradientBoostingRegressor(loss="poisson", max_iter=20), "log link"),
        (RandomForestRegressor(20, random_state=0), "SimpleImputer in front"),
    ],
    ids=["native-categoricals", "poisson", "forest-with-nulls"],
)
def test_a_regression_that_converts_silently_wrong_is_refused(
    eta: Family, model: Any, cause: str
) -> None:
    """Conversion and onnxruntime succeed, the answers differ: refused, with the likely cause."""
    table = rows(eta)
    table = table.set_column(3, "label", pa.array(np.abs(table["label"].to_numpy())))
    fitted = by_hand(eta, table, encoded(model))
    with pytest.raises(ParityError) as caught:
        compared(eta, table, fitted)
    assert cause in caught.value.hint
    assert "answers otherwise on" in caught.value.what


def test_isotonic_calibration_is_refused(churn: Family) -> None:
    """Its steps fall between float32 values: a few rows differ, and are found."""
    features = {n: f for n, f in churn.features.items() if f.kind == "numeric"}
    family = churn.model_copy(update={"features": features})
    table = rows(family)
    model = HistGradientBoostingClassifier(max_iter=30, random_state=0)
    calibrated = CalibratedClassifierCV(model, method="isotonic", cv=3)
    columns = ColumnTransformer([("n", "passthrough", list(features))])
    fitted = by_hand(family, table, Pipeline([("c", columns), ("m", calibrated)]))
    with pytest.raises(ParityError) as caught:
        compared(family, table, fitted, tolerance=1e-6)
    assert "isotonic" in caught.value.hint


def test_a_lost_missing_indicator_is_refused(churn: Family) -> None:
    """`add_indicator` is dropped by the conversion or stops it; either way it is refused."""
    features = {n: f for n, f in churn.features.items() if f.kind == "numeric"}
    family = churn.model_copy(update={"features": features})
    table = rows(family)
    imputer = SimpleImputer(add_indicator=True)
    columns = ColumnTransformer([("n", imputer, list(features))])
    pipeline = Pipeline([("c", columns), ("m", LogisticRegression(max_iter=1000))])
    fitted = by_hand(family, table, pipeline)
    with pytest.raises(TrainingFailed, match=r"answers otherwise|cannot be lowered"):
        compared(family, table, fitted)


def test_thresholds_between_float32_values_are_repaired_by_fit(eta: Family) -> None:
    """Epoch seconds: fitted by hand rows take other branches in ONNX, fitted by us none does."""
    table = rows(eta, scale=2000.0, shift=1.7e9)
    recipe = encoded(HistGradientBoostingRegressor(max_iter=20))
    with pytest.raises(ParityError):
        compared(eta, table, by_hand(eta, table, recipe))
    assert compared(eta, table, fit(eta, table, seed=1)) < 1e-5


def test_a_model_that_cannot_take_what_may_be_asked_is_refused(churn: Family) -> None:
    """An encoder that raises on unseen categories would have no right answer to compare with."""
    columns = ColumnTransformer(
        [
            ("c", OneHotEncoder(), ["plan"]),
            ("n", SimpleImputer(), ["tenure", "spend"]),
        ]
    )
    table = rows(churn)
    fitted = by_hand(churn, table, Pipeline([("c", columns), ("m", LogisticRegression())]))
    with pytest.raises(ParityError, match="cannot answer rows with plan unseen: ValueError"):
        compared(churn, table, fitted)


def test_required_features_are_not_tried_with_nulls(eta: Family) -> None:
    """A model may rely on a feature being there when the monitor file says so."""
    required = {n: f.model_copy(update={"required": True}) for n, f in eta.features.items()}
    strict = eta.model_copy(update={"features": required})
    table = rows(strict)
    columns = ColumnTransformer(
        [("c", OneHotEncoder(handle_unknown="ignore"), ["vehicle"])], remainder="passthrough"
    )
    fitted = by_hand(strict, table, Pipeline([("c", columns), ("m", LinearRegression())]))
    assert compared(strict, table, fitted) < 1e-5
    with pytest.raises(ParityError, match=r"with load null: ValueError"):
        compared(eta, table, fitted)


def test_an_answer_of_nan_is_never_equal(eta: Family) -> None:
    """NaN on both sides is no agreement."""
    table = rows(eta)
    fitted = fit(eta, table, seed=1)
    content = lower(fitted.pipeline, eta)
    with pytest.raises(ParityError, match="by up to inf"):
        parity(content, eta, table, lambda asked: np.full(asked.num_rows, np.nan), tolerance=1e-4)


def test_what_cannot_be_converted_says_so(eta: Family) -> None:
    """A function of one's own has no converter: the error names the recipe and a way out."""
    table = rows(eta)
    double: Callable[[Any], Any] = lambda x: x * 2  # noqa: E731 - a function without a name
    numbers = Pipeline([("f", FunctionTransformer(double)), ("i", SimpleImputer())])
    columns = ColumnTransformer([("n", numbers, ["load"])])
    fitted = by_hand(eta, table, Pipeline([("c", columns), ("m", LinearRegression())]))
    with pytest.raises(TrainingFailed, match="cannot be lowered to ONNX") as caught:
        lower(fitted.pipeline, eta)
    assert "driftloop.retrain.recipes" in caught.value.hint


def colours(family: Family, known: tuple[int, ...] = (0, 1, 2, 3)) -> pa.Table:
    """Rows of as many classes as are `known`, equally many of each."""
    table = rows(family)
    signal = table["tenure"].fill_null(0.0).to_numpy()
    place = np.searchsorted(np.quantile(signal, np.arange(1, len(known)) / len(known)), signal)
    label = pa.array(np.array(known)[place] * 1.0)
    return table.set_column(table.schema.get_field_index("label"), "label", label)


def of_classes(family: Family, table: pa.Table, fitted: Fitted, onnx: bytes | None = None) -> float:
    return parity(
        onnx or lower(fitted.pipeline, family),
        family,
        table,
        lambda asked: probabilities(fitted, asked),
        tolerance=1e-4,
        pipeline=fitted.pipeline,
    )


@pytest.mark.parametrize("recipe", ["gradient_boosting", "linear"])
@pytest.mark.parametrize("known", [(0, 1, 2, 3), (0, 3), (1, 2, 3)])
def test_classes_are_lowered_to_their_places(
    colour: Family, recipe: str, known: tuple[int, ...]
) -> None:
    """The model file answers with the likeliest class, on odd rows too, and has their names."""
    few = {"max_iter": 20} if recipe == "gradient_boosting" else {}
    family = with_recipe(colour, recipe, **few)
    table = colours(family, known)
    fitted = fit(family, table, seed=1)
    assert of_classes(family, table, fitted) <= 1e-4
    session = onnxruntime.InferenceSession(lower(fitted.pipeline, family))
    assert json.loads(session.get_modelmeta().custom_metadata_map["driftloop.classes"]) == [
        *colour.classes
    ]
    assert [(each.name, each.shape) for each in session.get_outputs()] == [("prediction", [None])]


def test_another_class_is_told(colour: Family) -> None:
    """A file that answers with other classes is refused, with how much less likely they are."""
    table = colours(colour)
    fitted = fit(colour, table, seed=1)
    other = fit(colour, colours(colour, (3, 2, 1, 0)), seed=1)
    with pytest.raises(ParityError, match=r"by up to 0\.\d+ in the class's probability"):
        of_classes(colour, table, fitted, lower(other.pipeline, colour))


def test_of_two_classes_as_likely_either_is_right(colour: Family) -> None:
    """Rounding decides there, and is no reason to keep an old model."""
    table = colours(colour)
    fitted = fit(colour, table, seed=1)
    onnx = lower(fitted.pipeline, colour)

    def level(asked: pa.Table) -> np.ndarray:
        return np.full((asked.num_rows, 4), 0.25)

    assert parity(onnx, colour, table, level, tolerance=1e-4) == 0.0

    def short(asked: pa.Table) -> np.ndarray:
        return level(asked)[:, :2]

    with pytest.raises(ParityError, match="by up to inf"):
        parity(onnx, colour, table, short, tolerance=1e-4)
