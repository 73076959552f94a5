"""Rows to a fitted pipeline, checked; and its answers."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from driftloop.errors import DriftloopError, TrainingFailed, named
from driftloop.records import FeatureValue, Task
from driftloop.spec import Family, load_recipe

if TYPE_CHECKING:
    import pandas as pd

Floats = npt.NDArray[np.float64]

CLASSIFIED = (Task.BINARY, Task.MULTICLASS)
"""Tasks whose estimators give probabilities."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """A fitted scikit-learn pipeline and what it must be fed.

    `columns` are (feature, "numeric" or "categorical") in the order it was fitted with; `classes`
    the names of the classes that it was fitted to tell apart.
    """

    pipeline: Any
    task: Task
    columns: tuple[tuple[str, str], ...]
    classes: tuple[str, ...] = ()


def fit(family: Family, rows: pa.Table, *, seed: int, weights: Floats | None = None) -> Fitted:
    """Return the family's recipe fitted on `rows`, which hold its inputs and `label`.

    With `weights`, shape [n] and above 0, a row counts that much: they reach the pipeline's last
    step as `sample_weight`.

    Features are float32 before they are fitted, and the thresholds of boosted trees are rounded
    down to float32 afterwards: no float32 value changes sides by it, so that scikit-learn and
    ONNX, which knows only float32 thresholds, send every row the same way. A numeric feature that
    is null in every row is fitted as 0, and so ignored: boosted trees cannot bin nothing.

    Raises:
        TrainingFailed: too few rows, unusable labels, or the recipe raised or gave no estimator,
            or one that takes no weights where there are some.
    """
    labels = _labels(family, rows)
    columns = tuple((name, feature.kind) for name, feature in family.inputs.items())
    frame = _frame(columns, rows)
    for name in family.numeric:
        if frame[name].isna().all():
            frame[name] = np.float32(0.0)
    pipeline = unfitted(family, seed=seed)
    weighted = {} if weights is None else {weight_name(family, pipeline): weights}
    try:
        pipeline.fit(frame, labels, **weighted)
    except (DriftloopError, MemoryError):
        raise
    except (Exception, SystemExit) as error:  # an estimator is anybody's code
        raise _raised(family, error, hint="see retrain.recipe and retrain.parameters") from error
    for booster in _boosters(pipeline, set()):
        for predictor in (each for stage in booster._predictors for each in stage):  # noqa: SLF001 - thresholds are kept nowhere else
            predictor.nodes["num_threshold"] = _floor32(predictor.nodes["num_threshold"])
    return Fitted(pipeline=pipeline, task=family.task, columns=columns, classes=family.classes)


def unfitted(family: Family, *, seed: int) -> Any:  # noqa: ANN401 - an estimator of scikit-learn
    """Return the estimator that the family's recipe gives.

    Raises:
        TrainingFailed: the recipe raised, or gave none.
    """
    try:
        recipe = load_recipe(family.retrain.recipe)
        pipeline = recipe(family, seed=seed, **family.retrain.parameters)
    except (DriftloopError, MemoryError):
        raise
    except (Exception, SystemExit) as error:  # a recipe is anybody's code
        raise _raised(
            family, error, hint="a recipe takes (family, *, seed, **parameters)"
        ) from error
    _check_estimator(family, pipeline)
    return pipeline


def weight_name(family: Family, pipeline: Any) -> str:  # noqa: ANN401 - an estimator of scikit-learn
    """Return what weights of rows are called where `pipeline` is fitted.

    As in "model__sample_weight": of a pipeline its last step takes them.

    Raises:
        TrainingFailed: it takes none.
    """
    name = _weight_name(pipeline)
    if name is None:
        raise TrainingFailed(
            f"the recipe's {type(pipeline).__name__} takes no weights of rows, which the memory"
            ' "decayed" needs',
            where=f"{family.name}: {family.retrain.recipe}",
            hint="let its last step take sample_weight in fit, or leave the memory out",
        )
    return name


def predict(fitted: Fitted, rows: pa.Table) -> Floats:
    """Return shape [n]: the target in its unit, the probability of 1, or the likeliest class.

    Raises:
        TrainingFailed: the pipeline's answers are not one number for each row, or as many
            probabilities as it was fitted with classes.
    """
    return _predicted(fitted, _frame(fitted.columns, rows))


def answer(fitted: Fitted, columns: Mapping[str, Sequence[FeatureValue]]) -> Floats:
    """Return what `predict` does for rows that stand in `columns`, at least one.

    Raises:
        TrainingFailed: as `predict`.
    """
    import pandas as pd

    return _predicted(
        fitted,
        pd.DataFrame(
            {
                name: np.array(columns[name], np.float32)
                if kind == "numeric"
                else np.array([value or "" for value in columns[name]], object)
                for name, kind in fitted.columns
            }
        ),
    )


def probabilities(fitted: Fitted, rows: pa.Table) -> Floats:
    """Return the probability of each class of a multiclass pipeline, in the column of its index.

    The shape is [n, highest index it was fitted with + 1]; what it never saw has probability 0.

    Raises:
        TrainingFailed: the pipeline's answers are not a probability for each of its classes.
    """
    return _spread(fitted, _frame(fitted.columns, rows))


# -- answers --------------------------------------------------------------------------------


def _predicted(fitted: Fitted, frame: "pd.DataFrame") -> Floats:
    if fitted.task is Task.MULTICLASS:
        likeliest: Floats = _spread(fitted, frame).argmax(axis=1).astype(float)
        return likeliest
    size = len(frame)
    if fitted.task is Task.BINARY:
        answers = np.asarray(fitted.pipeline.predict_proba(frame))
        shapes: tuple[tuple[int, ...], ...] = ((size, 2),)
    else:
        answers = np.asarray(fitted.pipeline.predict(frame))
        shapes = ((size,), (size, 1))
    _check_shape(fitted, answers, shapes)
    answers = answers[:, 1] if fitted.task is Task.BINARY else answers.reshape(-1)
    return answers.astype(np.float64)


def _spread(fitted: Fitted, frame: "pd.DataFrame") -> Floats:
    answers = np.asarray(fitted.pipeline.predict_proba(frame))
    seen = np.asarray(fitted.pipeline.classes_, dtype=np.int64)
    _check_shape(fitted, answers, ((len(frame), seen.size),))
    spread = np.zeros((len(frame), int(seen.max()) + 1))
    spread[:, seen] = answers
    return spread


# -- rows -----------------------------------------------------------------------------------


def _frame(columns: tuple[tuple[str, str], ...], rows: pa.Table) -> "pd.DataFrame":
    import pandas as pd

    missing = [name for name, _ in columns if name not in rows.column_names]
    if missing:
        raise TrainingFailed(f"the rows lack the features {', '.join(missing)}")
    return pd.DataFrame(
        {
            name: _numbers(rows[name])
            if kind == "numeric"
            else pd.Series(_strings(rows[name]), dtype=object)
            for name, kind in columns
        }
    )


def _numbers(column: pa.ChunkedArray) -> npt.NDArray[np.float32]:
    plain: npt.NDArray[np.float64] = pc.fill_null(column.cast(pa.float64()), np.nan).to_numpy()
    with np.errstate(over="ignore"):
        return plain.astype(np.float32)


def _strings(column: pa.ChunkedArray) -> npt.NDArray[np.object_]:
    filled = pc.fill_null(column.cast(pa.string()), "")
    texts: npt.NDArray[np.object_] = filled.to_pandas().to_numpy(dtype=object)
    return texts


def _labels(family: Family, rows: pa.Table) -> npt.NDArray[np.float64] | npt.NDArray[np.int64]:
    least = family.retrain.min_rows
    if rows.num_rows < least:
        raise TrainingFailed(
            f"{rows.num_rows} labelled rows, {least} are needed",
            where=f"{family.name}: retrain.min_rows",
            hint="a longer retrain.span gives more rows",
        )
    labels: npt.NDArray[np.float64] = (
        pc.fill_null(rows["label"].cast(pa.float64()), np.nan).to_numpy().astype(np.float64)
    )
    if wrong := int((~np.isfinite(labels)).sum()):
        raise TrainingFailed(
            f"{wrong} of {labels.size} labels are no finite number",
            where=family.name,
            hint="train on labelled rows only",
        )
    if family.task in CLASSIFIED:
        outcomes = range(len(family.classes)) if family.classes else (0, 1)
        if wrong := int((~np.isin(labels, outcomes)).sum()):
            none = f"none of the {len(outcomes)} classes" if family.classes else "neither 0 nor 1"
            raise TrainingFailed(f"{wrong} of {labels.size} labels are {none}", where=family.name)
        if np.unique(labels).size == 1:
            raise TrainingFailed(
                f"all {labels.size} labels are {_said(family, labels[0])}: there is nothing to tell"
                " apart",
                where=family.name,
                hint="a longer retrain.span may hold other outcomes",
            )
    # Indexes of classes are whole numbers to estimators too: they come back as they went in.
    return labels.astype(np.int64) if family.classes else labels


def _said(family: Family, label: float) -> str:
    shown = family.shown(label)
    return f"{shown:.0f}" if isinstance(shown, float) else repr(shown)


def _check_shape(
    fitted: Fitted, answers: npt.NDArray[Any], shapes: tuple[tuple[int, ...], ...]
) -> None:
    if answers.shape not in shapes or answers.dtype.kind not in "fiub":
        raise TrainingFailed(
            f"the fitted pipeline answers {shapes[0][0]} rows with {answers.dtype}"
            f" {list(answers.shape)}, where numbers {list(shapes[0])} are needed",
            hint=f"return a scikit-learn estimator for a {fitted.task} task",
        )


# -- pipelines ------------------------------------------------------------------------------


def _raised(family: Family, error: BaseException, *, hint: str) -> TrainingFailed:
    return TrainingFailed(
        f"the recipe raised {named(error)}",
        where=f"{family.name}: {family.retrain.recipe}",
        hint=hint,
    )


def _check_estimator(family: Family, pipeline: object) -> None:
    wanted = ("fit", "predict_proba" if family.task in CLASSIFIED else "predict")
    lacking = [name for name in wanted if not callable(getattr(pipeline, name, None))]
    if isinstance(pipeline, type) or lacking:
        returned = (
            f"the class {pipeline.__name__} instead of one of it"
            if isinstance(pipeline, type)
            else f"a {type(pipeline).__name__} without {' and '.join(lacking)}"
        )
        raise TrainingFailed(
            f"the recipe returned {returned}",
            where=f"{family.name}: {family.retrain.recipe}",
            hint=f"return an unfitted scikit-learn estimator for a {family.task} task",
        )


def _weight_name(part: Any) -> str | None:  # noqa: ANN401 - an estimator of scikit-learn
    from sklearn.utils.validation import has_fit_parameter

    steps = getattr(part, "steps", None)
    if steps:
        name, last = steps[-1]
        inner = _weight_name(last)
        return None if inner is None else f"{name}__{inner}"
    if has_fit_parameter(part, "sample_weight"):
        return "sample_weight"
    # What wraps another estimator hands on what it is given.
    wrapped = getattr(part, "estimator", None) or getattr(part, "regressor", None)
    takes = inspect.signature(part.fit).parameters.values()
    handed_on = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in takes)
    return _weight_name(wrapped) if wrapped is not None and handed_on else None


def _boosters(part: Any, seen: set[int]) -> Iterator[Any]:  # noqa: ANN401 - anything an estimator may hold
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    if id(part) in seen:
        return
    seen.add(id(part))
    if isinstance(part, HistGradientBoostingClassifier | HistGradientBoostingRegressor):
        if hasattr(part, "_predictors"):
            yield part
    elif isinstance(part, list | tuple):
        for each in part:
            yield from _boosters(each, seen)
    elif isinstance(part, dict):
        yield from _boosters(list(part.values()), seen)
    elif type(part).__module__.startswith("sklearn.") and hasattr(part, "__dict__"):
        yield from _boosters(list(vars(part).values()), seen)


def _floor32(thresholds: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the largest float32 that is not above each threshold."""
    with np.errstate(over="ignore"):
        near = thresholds.astype(np.float32)
        below = np.nextafter(near, np.float32(-np.inf))
    return np.where(near.astype(np.float64) > thresholds, below, near).astype(np.float64)
