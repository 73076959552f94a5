"""Rows to a fitted pipeline: what is fitted, what is refused, what its file holds."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import skops.io
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.preprocessing import FunctionTransformer

from driftloop.errors import ArtifactError, TrainingFailed
from driftloop.measure import decay
from driftloop.records import Task
from driftloop.retrain import Fitted, answer, fit, pack, predict, probabilities, score, unpack
from driftloop.retrain.fit import _floor32, _frame
from driftloop.spec import Family

N = 400


def rows(family: Family, label: Any = None) -> pa.Table:
    """Rows of a family with nulls, and labels that the features explain."""
    rng = np.random.default_rng(3)
    columns: dict[str, Any] = {}
    signal = np.zeros(N)
    for name, feature in family.features.items():
        null = rng.random(N) < 0.1
        if feature.kind == "numeric":
            values = rng.normal(0, 1, N)
            columns[name] = pa.array(values, pa.float64(), mask=null)
            signal += np.where(null, 2, values)
        else:
            codes = rng.integers(0, 3, N)
            columns[name] = pa.array(np.array(["a", "b", "c"])[codes], pa.string(), mask=null)
            signal += np.where(null, -3, codes)
    if label is None:
        label = signal if family.task == "regression" else (signal > 1) * 1.0
    return pa.table(columns | {"label": pa.array(label)})


def changed(family: Family, **policy: Any) -> Family:
    return family.model_copy(update={"retrain": family.retrain.model_copy(update=policy)})


@pytest.fixture(params=["eta", "churn"])
def family(request: pytest.FixtureRequest) -> Family:
    """Both families in turn."""
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("recipe", ["gradient_boosting", "linear"])
def test_a_recipe_learns_what_the_features_explain(family: Family, recipe: str) -> None:
    """Answers are the target, or the probability of 1, and far better than the average."""
    family = changed(family, recipe=f"driftloop.retrain.recipes:{recipe}", parameters={})
    table = rows(family)
    answers, label = predict(fit(family, table, seed=1), table), table["label"].to_numpy()
    assert answers.shape == (N,)
    assert answers.dtype == np.float64
    error, average = np.abs(answers - label).mean(), np.abs(label.mean() - label).mean()
    assert error < 0.6 * average
    if family.task == "binary":
        assert answers.min() >= 0.0
        assert answers.max() <= 1.0


def test_the_same_rows_and_seed_give_the_same_model(family: Family) -> None:
    """Training is repeatable to the last digit."""
    table = rows(family)
    first, second = (predict(fit(family, table, seed=5), table) for _ in range(2))
    assert np.array_equal(first, second)


def test_null_and_empty_categories_are_one(eta: Family) -> None:
    """The stated rule: a null category is the category ""."""
    table = rows(eta)
    fitted = fit(eta, table, seed=1)
    at = table.schema.get_field_index("vehicle")
    emptied = table.set_column(at, "vehicle", table["vehicle"].fill_null(""))
    assert np.array_equal(predict(fitted, emptied), predict(fitted, table))


def test_features_are_float32_before_they_are_fitted(eta: Family) -> None:
    """Numbers that differ only beyond float32 are answered alike."""
    table = rows(eta)
    fitted = fit(eta, table, seed=1)
    rounded = table["distance"].cast(pa.float32(), safe=False).cast(pa.float64())
    assert rounded != table["distance"]
    same = table.set_column(table.schema.get_field_index("distance"), "distance", rounded)
    assert np.array_equal(predict(fitted, same), predict(fitted, table))


def test_thresholds_are_the_nearest_float32_below() -> None:
    """Rounding down keeps every float32 on its side, infinities and extremes included."""
    rng = np.random.default_rng(0)
    given = np.r_[rng.normal(0, 10.0 ** rng.integers(-30, 30, 2000)), np.inf, -np.inf, 1e300, 0.1]
    floor = _floor32(given)
    assert np.array_equal(floor, floor.astype(np.float32))
    assert (floor <= given).all()
    with np.errstate(over="ignore"):
        above = np.nextafter(floor.astype(np.float32), np.float32(np.inf)).astype(np.float64)
    assert ((above > given) | np.isinf(given)).all()


def test_fitted_thresholds_are_float32(family: Family) -> None:
    """The boosted trees inside the pipeline have been rounded."""
    fitted = fit(family, rows(family), seed=1)
    trees = [tree for stage in fitted.pipeline["model"]._predictors for tree in stage]
    thresholds = np.concatenate([tree.nodes["num_threshold"] for tree in trees])
    assert len(trees) == 20
    assert np.array_equal(thresholds, thresholds.astype(np.float32))


def test_a_feature_without_any_number_is_ignored(eta: Family) -> None:
    """A column that arrived empty does not stop a retraining, whatever comes in it later."""
    full = rows(eta)
    at = full.schema.get_field_index("load")
    empty = full.set_column(at, "load", pa.nulls(N, pa.float64()))
    fitted = fit(eta, empty, seed=1)
    assert np.array_equal(predict(fitted, empty), predict(fitted, full))


@pytest.mark.parametrize(
    ("label", "what"),
    [
        ([1.0] * N, "all 400 labels are 1"),
        ([0.0, 1.0, 0.5, 1.0] * (N // 4), "100 of 400 labels are neither 0 nor 1"),
        ([0.0, None, 1.0, 1.0] * (N // 4), "100 of 400 labels are no finite number"),
    ],
    ids=["one-class", "half", "null"],
)
def test_unusable_outcomes_are_refused(churn: Family, label: list[Any], what: str) -> None:
    """Nothing is fitted on labels that mean nothing."""
    with pytest.raises(TrainingFailed, match=what):
        fit(churn, rows(churn, label), seed=1)


def test_an_infinite_target_is_refused(eta: Family) -> None:
    """One infinite label would swallow the fit."""
    with pytest.raises(TrainingFailed, match="1 of 400 labels are no finite number"):
        fit(eta, rows(eta, [np.inf, *[1.0] * (N - 1)]), seed=1)


def test_too_few_rows_are_refused_with_the_key(eta: Family) -> None:
    """The error says how many, how many are needed, and where that is set."""
    with pytest.raises(TrainingFailed, match="99 labelled rows, 100 are needed") as caught:
        fit(eta, rows(eta).slice(0, 99), seed=1)
    assert caught.value.where == "eta: retrain.min_rows"


def test_rows_without_a_feature_are_refused(eta: Family) -> None:
    """A missing column is named."""
    with pytest.raises(TrainingFailed, match="lack the features load"):
        fit(eta, rows(eta).drop_columns(["load"]), seed=1)


@pytest.mark.parametrize(
    ("parameters", "what", "hint"),
    [
        ({"max_itr": 5}, "unknown parameter max_itr", "max_iter"),
        ({"random_state": 5}, "unknown parameter random_state", "retrain.seed"),
        ({"max_iter": -1}, "raised InvalidParameterError", "retrain.parameters"),
    ],
)
def test_wrong_parameters_are_refused_with_a_hint(
    eta: Family, parameters: dict[str, Any], what: str, hint: str
) -> None:
    """A misspelt name, a seed in the wrong place, a value out of range."""
    with pytest.raises(TrainingFailed, match=what) as caught:
        fit(changed(eta, parameters=parameters), rows(eta), seed=1)
    assert hint in caught.value.hint


RECIPES = """
from sklearn.linear_model import Ridge

def boom(family, *, seed):
    return 1 / 0

def nothing(family, *, seed):
    return None

def regressor(family, *, seed):
    return Ridge()

def kind(family, *, seed):
    return Ridge

def generator(family, *, seed):
    yield Ridge()

def leaves(family, *, seed):
    raise SystemExit

def shouts(family, *, seed):
    raise ValueError("no " * 10**6)
"""


@pytest.mark.parametrize(
    ("recipe", "what"),
    [
        ("boom", "the recipe raised ZeroDivisionError"),
        ("nothing", "returned a NoneType without fit and predict_proba"),
        ("regressor", "returned a Ridge without predict_proba"),
        ("kind", "returned the class Ridge instead of one of it"),
        ("generator", "returned a generator without fit and predict_proba"),
        ("leaves", r"the recipe raised SystemExit \(hint"),
        ("shouts", r"the recipe raised ValueError: no (no ){100,165}n?o?\.\.\."),
    ],
)
def test_a_recipe_of_ones_own_is_checked(
    churn: Family, recipe: str, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it raised or lacks is said, and which recipe it was."""
    (tmp_path / "driftloop_test_recipes.py").write_text(RECIPES)
    monkeypatch.syspath_prepend(str(tmp_path))
    family = changed(churn, recipe=f"driftloop_test_recipes:{recipe}", parameters={})
    with pytest.raises(TrainingFailed, match=what) as caught:
        fit(family, rows(churn), seed=1)
    assert caught.value.where == f"churn: driftloop_test_recipes:{recipe}"
    assert len(str(caught.value)) < 1000


class Answering:
    """What answers all rows with one array."""

    def __init__(self, answers: Any) -> None:
        self.answers = answers

    def predict(self, frame: Any) -> Any:
        return self.answers

    predict_proba = predict


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        (np.zeros((5, 2)), "answers 5 rows with float64 [5, 2], where numbers [5] are needed"),
        (np.zeros(3), "with float64 [3]"),
        (np.array(["a"] * 5), "with <U1 [5]"),
        (np.array([None] * 5), "with object [5]"),
        (None, "with object []"),
    ],
)
def test_answers_that_are_no_number_a_row_are_refused(eta: Family, answers: Any, said: str) -> None:
    """Neither cut to size nor broadcast: the shape that came is told, and the one needed."""
    fitted = Fitted(
        pipeline=Answering(answers),
        task=eta.task,
        columns=tuple((name, each.kind) for name, each in eta.features.items()),
    )
    with pytest.raises(TrainingFailed) as caught:
        predict(fitted, rows(eta).slice(0, 5))
    assert said in caught.value.what


def test_one_probability_a_row_is_not_enough(churn: Family) -> None:
    """Of a binary family both are needed, that of 1 being the second."""
    columns = tuple((name, each.kind) for name, each in churn.features.items())
    fitted = Fitted(pipeline=Answering(np.zeros((5, 1))), task=churn.task, columns=columns)
    with pytest.raises(TrainingFailed, match=r"\[5, 1\], where numbers \[5, 2\] are needed"):
        predict(fitted, rows(churn).slice(0, 5))


@pytest.mark.parametrize("recipe", ["gradient_boosting", "linear"])
def test_a_packed_pipeline_answers_the_same(family: Family, recipe: str) -> None:
    """It comes back whole; the same rows and seed are the same bytes."""
    family = changed(family, recipe=f"driftloop.retrain.recipes:{recipe}", parameters={})
    table = rows(family)
    fitted = fit(family, table, seed=1)
    again = unpack(pack(fitted), where="pipeline.skops")
    assert np.array_equal(predict(again, table), predict(fitted, table))
    assert (again.task, again.columns) == (fitted.task, fitted.columns)
    assert pack(fitted) == pack(fit(family, table, seed=1))


@pytest.mark.parametrize("recipe", ["gradient_boosting", "linear"])
def test_rows_in_lists_are_answered_as_those_in_a_table(family: Family, recipe: str) -> None:
    """Nulls are NaN and "" in both."""
    family = changed(family, recipe=f"driftloop.retrain.recipes:{recipe}", parameters={})
    table = rows(family)
    fitted = fit(family, table, seed=1)
    assert np.array_equal(answer(fitted, table.to_pydict()), predict(fitted, table))


def test_a_pickle_or_a_foreign_type_is_not_loaded() -> None:
    """Only skops files are read, and of their types those that were there at the fit."""
    with pytest.raises(ArtifactError, match="cannot be read as a pipeline"):
        unpack(pickle.dumps({"pipeline": 1}), where="evil.skops")
    with pytest.raises(ArtifactError, match=r"not trusted: .*pathlib"):
        unpack(skops.io.dumps({"pipeline": Path("x")}), where="foreign.skops")


def test_types_of_a_recipe_are_listed_in_its_file(eta: Family) -> None:
    """Native categories bring functions that skops does not trust: the file says so itself."""
    pipeline = HistGradientBoostingRegressor(max_iter=2, categorical_features=[0])
    columns = (("vehicle", "numeric"), ("load", "numeric"))
    fitted = Fitted(pipeline=pipeline, task=eta.task, columns=columns)
    table = pa.table({"vehicle": [0.0, 1.0] * 50, "load": np.arange(100.0)})
    pipeline.fit(_frame(columns, table), np.arange(100.0))
    assert "functools.partial" in skops.io.get_untrusted_types(data=pack(fitted))
    again = unpack(pack(fitted), where="pipeline.skops")
    assert np.array_equal(predict(again, table), predict(fitted, table))


def test_what_lives_in_this_process_alone_cannot_be_packed(eta: Family) -> None:
    """An estimator may refuse to be written down: said at training."""

    class Bound(FunctionTransformer):
        def __getstate__(self) -> Any:
            raise TypeError("holds a connection")

    fitted = Fitted(pipeline=Bound(), task=eta.task, columns=())
    with pytest.raises(TrainingFailed, match="cannot be written to a file"):
        pack(fitted)


def of_classes(family: Family, *known: int) -> pa.Table:
    """Rows whose class is told by the features; only `known` ones are there."""
    table = rows(family, np.zeros(N))
    spend = table["spend"].fill_null(0.0).to_numpy()
    place = np.searchsorted(np.quantile(spend, np.arange(1, len(known)) / len(known)), spend)
    return table.set_column(
        table.schema.get_field_index("label"), "label", pa.array(np.array(known)[place] * 1.0)
    )


@pytest.mark.parametrize("recipe", ["gradient_boosting", "linear"])
@pytest.mark.parametrize("known", [(0, 1, 2, 3), (0, 1, 3), (1, 3)])
def test_a_recipe_learns_classes(colour: Family, recipe: str, known: tuple[int, ...]) -> None:
    """Answers are their places in the family's list, whichever of them were there to be seen."""
    few = {"max_iter": 20} if recipe == "gradient_boosting" else {}
    family = changed(colour, recipe=f"driftloop.retrain.recipes:{recipe}", parameters=few)
    table = of_classes(family, *known)
    fitted = fit(family, table, seed=1)
    answers, label = predict(fitted, table), table["label"].to_numpy()
    assert set(answers.tolist()) == {float(each) for each in known}
    assert (answers == label).mean() > 0.8
    found = probabilities(fitted, table)
    assert found.shape == (N, 4)
    assert found.sum(axis=1) == pytest.approx(np.ones(N))
    unseen = [each for each in range(4) if each not in known]
    assert (found[:, unseen] == 0.0).all()
    assert np.array_equal(found.argmax(axis=1), answers)


def test_labels_of_no_class_are_not_learned(colour: Family) -> None:
    """Nor are those of a single one; both are said by name or number."""
    table = of_classes(colour, 0, 2)
    at = table.schema.get_field_index("label")
    label = table["label"].to_numpy().copy()
    label[3] = 4.0
    with pytest.raises(TrainingFailed, match="1 of 400 labels are none of the 4 classes"):
        fit(colour, table.set_column(at, "label", pa.array(label)), seed=1)
    with pytest.raises(TrainingFailed, match="all 400 labels are 'blue': there is nothing to tell"):
        fit(colour, of_classes(colour, 2), seed=1)


def test_a_pipeline_of_classes_is_kept(colour: Family) -> None:
    """What is unpacked answers as what was packed, and knows what the classes were called."""
    table = of_classes(colour, 0, 1, 3)
    fitted = fit(colour, table, seed=1)
    again = unpack(pack(fitted), where="pipeline.skops")
    assert np.array_equal(predict(again, table), predict(fitted, table))
    assert again.classes == colour.classes


def test_classes_are_scored_as_they_are_measured() -> None:
    """The baseline is of the same numbers as what is later held against it; scores have none."""
    rng = np.random.default_rng(2)
    label, answer = rng.integers(0, 4, 200) * 1.0, rng.integers(0, 5, 200) * 1.0
    found = {metric.name: metric.value for metric in score(Task.MULTICLASS, label, answer)}
    expected = {name: each()[0] for name, each in decay.classes(label, answer).items()}
    assert list(found) == ["accuracy", "f1", "precision", "recall"]
    assert found == pytest.approx(expected, rel=1e-12)
    assert score(Task.SCORE, label, answer) == ()
