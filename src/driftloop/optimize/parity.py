"""Does the lowered model answer as the fitted one? Some conversions succeed and are wrong."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from driftloop.errors import ParityError, TrainingFailed, named
from driftloop.optimize.lower import NUMBERS
from driftloop.spec import Family

ODD_ROWS = 64
"""How many real rows each kind of odd row is made of."""
MOST_ODD = 20_480
"""About so many odd rows in all, where there are many features."""
FEWEST = 4
SHOWN = 3
"""How many kinds of rows an error names."""
UNSEEN = "\N{WHITE SQUARE} never seen"

Floats = npt.NDArray[np.float64]
Answer = Callable[[pa.Table], Floats]


def parity(
    onnx: bytes,
    family: Family,
    rows: pa.Table,
    answer: Answer,
    *,
    tolerance: float,
    pipeline: object = None,
) -> float:
    """Return the largest difference of the lowered model, relative to max(1, |expected|).

    Of classes: by how much less likely, to the fitted model, the lowered model's class is than the
    likeliest. That is 0 where they agree; where two are as likely, either is right.

    Compared on every one of `rows`, and on odd rows made of the first 64 (fewer where there are
    more than 80 features: what is compared must not grow with their square): each feature null
    (unless it is required), each category unseen, each number at 0 and ten times beyond the range
    seen on either side, and all of a kind at once.

    Args:
        onnx: the lowered model; see `lower`.
        family: whose features it takes.
        rows: real rows, with the family's features; at least one.
        answer: the fitted model's answers to such rows, shape [n], or of a multiclass family its
            probabilities, shape [n, classes].
        tolerance: largest difference allowed.
        pipeline: the fitted pipeline, to name the likely cause by.

    Raises:
        TrainingFailed: the fitted model's answers are not one number for each row.
        ParityError: rows differ by more than `tolerance`, or are answered with NaN by either
            side, or the fitted model cannot answer a row that may be asked; says how many, where
            and by how much, and the likely cause.
    """
    session = _session(onnx)
    return agreement(
        lambda asked: session.run(None, _feed(family, asked))[0].astype(np.float64),
        family,
        rows,
        answer,
        tolerance=tolerance,
        called="the lowered model",
        cause=partial(_cause, pipeline),
    )


def agreement(
    other: Answer,
    family: Family,
    rows: pa.Table,
    answer: Answer,
    *,
    tolerance: float,
    called: str,
    cause: Callable[..., str] = lambda *, nulls: "",  # noqa: ARG005 - none is known
) -> float:
    """Return the largest difference of `other` from `answer`, as `parity` does.

    Args:
        other: the answers that are checked, shape [n]; of a multiclass family the classes' indexes.
        family: whose features the rows have.
        rows: as for `parity`.
        answer: the answers that they are compared with, as for `parity`.
        tolerance: largest difference allowed.
        called: what errors call the one that is checked.
        cause: returns the likely cause, told whether rows with `nulls` are among those that differ.

    Raises:
        TrainingFailed: as `parity`.
        ParityError: as `parity`.
    """
    kinds, tables = zip(*_trials(family, rows), strict=True)
    asked = pa.concat_tables(tables)
    expected = _expected(family, answer, asked, tuple(zip(kinds, tables, strict=True)))
    got = np.asarray(other(asked), np.float64)
    apart = _apart(got, expected)
    worst, wrong = float(apart.max()), apart > tolerance
    if wrong.any():
        starts = np.cumsum([0, *(table.num_rows for table in tables[:-1])])
        found = [
            (f"{bad} of {table.num_rows} {kind}", kind)
            for kind, table, bad in zip(kinds, tables, np.add.reduceat(wrong, starts), strict=True)
            if bad
        ]
        more = f" and {len(found) - SHOWN} kinds more" if len(found) > SHOWN else ""
        raise ParityError(
            f"{called} answers otherwise on {wrong.sum()} of {wrong.size} rows, by up to"
            f" {worst:.3g} {_of_what(expected)}, {tolerance:g} allowed:"
            f" {'; '.join(said for said, _ in found[:SHOWN])}{more}",
            where=f"{family.name}: {family.retrain.recipe}",
            hint=cause(nulls=any("null" in kind for _, kind in found)),
        )
    return worst


# -- rows -----------------------------------------------------------------------------------


def _trials(family: Family, rows: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    rows = rows.select(list(family.inputs))
    yield "real rows", rows
    kinds = 4 * len(family.inputs)
    few = rows.slice(0, min(ODD_ROWS, max(FEWEST, MOST_ODD // kinds)))
    count = few.num_rows
    nullable = [name for name, feature in family.inputs.items() if not feature.required]
    nulls = {name: pa.nulls(count, rows[name].type) for name in nullable}
    for name, values in nulls.items():
        yield f"with {name} null", _with(few, {name: values})
    yield "with every null they may have", _with(few, nulls)
    unseen = pa.array([UNSEEN] * count, pa.string())
    for name in family.categorical:
        yield f"with {name} unseen", _with(few, {name: unseen})
    extremes = {name: _extremes(rows[name]) for name in family.numeric}
    for at, where in enumerate(("far below", "at 0", "far above")):
        for name, values in extremes.items():
            yield f"with {name} {where}", _with(few, {name: pa.array([values[at]] * count)})
    odd = {name: pa.array([values[2]] * count) for name, values in extremes.items()}
    yield "with everything odd", _with(few, odd | dict.fromkeys(family.categorical, unseen))


def _with(rows: pa.Table, columns: dict[str, pa.Array]) -> pa.Table:
    for name, values in columns.items():
        rows = rows.set_column(rows.schema.get_field_index(name), name, values)
    return rows


def _extremes(column: pa.ChunkedArray) -> tuple[float, float, float]:
    """Return a value ten times the range below what was seen, zero, and one as far above."""
    seen = _numbers(column)
    seen = seen[np.isfinite(seen)]
    if seen.size == 0:
        return -1e6, 0.0, 1e6
    low, high = float(seen.min()), float(seen.max())
    reach = 10 * max(high - low, abs(high), 1.0)
    return low - reach, 0.0, high + reach


# -- answers --------------------------------------------------------------------------------


def _session(onnx: bytes) -> Any:  # noqa: ANN401 - onnxruntime has no type information
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])


def _expected(
    family: Family, answer: Answer, asked: pa.Table, trials: tuple[tuple[str, pa.Table], ...]
) -> Floats:
    try:
        return np.asarray(answer(asked), np.float64)
    except TrainingFailed as error:
        where = f"{family.name}: {family.retrain.recipe}"
        raise TrainingFailed(error.what, where=where, hint=error.hint) from error
    except Exception as error:  # an estimator is anybody's code
        kind = next((kind for kind, table in trials if _raises(answer, table)), "together")
        raise ParityError(
            f"the fitted model cannot answer rows {kind}: {named(error)}",
            where=f"{family.name}: {family.retrain.recipe}",
            hint="impute nulls and ignore unseen categories, or declare the feature required",
        ) from error


def _apart(got: Floats, expected: Floats) -> Floats:
    if expected.ndim == 1:
        with np.errstate(invalid="ignore"):
            apart = np.abs(got - expected) / np.maximum(1.0, np.abs(expected))
        return np.where(np.isfinite(got) & np.isfinite(expected), apart, np.inf)
    known = np.isin(got, np.arange(expected.shape[1])) & np.isfinite(expected).all(axis=1)
    place = np.where(known, got, 0.0).astype(np.int64)[:, None]
    less = expected.max(axis=1) - np.take_along_axis(expected, place, axis=1)[:, 0]
    return np.where(known, less, np.inf)


def _of_what(expected: Floats) -> str:
    return "relative to max(1, |answer|)" if expected.ndim == 1 else "in the class's probability"


def _raises(answer: Answer, rows: pa.Table) -> bool:
    try:
        answer(rows)
    except Exception:  # noqa: BLE001 - which error it was is told by the caller
        return True
    return False


def _feed(family: Family, rows: pa.Table) -> dict[str, npt.NDArray[Any]]:
    feed: dict[str, npt.NDArray[Any]] = {
        name: pc.fill_null(rows[name].cast(pa.string()), "")
        .to_pandas()
        .to_numpy(dtype=object)
        .reshape(-1, 1)
        for name in family.categorical
    }
    if family.numeric:
        numbers = [_numbers(rows[name]).astype(np.float32) for name in family.numeric]
        feed[NUMBERS] = np.column_stack(numbers)
    return feed


def _numbers(column: pa.ChunkedArray) -> Floats:
    numbers: Floats = pc.fill_null(column.cast(pa.float64()), np.nan).to_numpy()
    return numbers


# -- causes ---------------------------------------------------------------------------------


def _cause(pipeline: object, *, nulls: bool) -> str:
    """Return the likely cause: conversions of skl2onnx that are known to go wrong silently."""
    for part in _parts(pipeline):
        kind = type(part).__name__
        booster = kind.startswith("HistGradientBoosting")
        if booster and np.any(getattr(part, "is_categorical_", None)):
            return "native categorical splits are lost: encode categories in front of the trees"
        if booster and getattr(part, "loss", "") in ("poisson", "gamma"):
            return f"the log link of loss={part.loss!r} is lost: use squared_error"  # type: ignore[attr-defined]
        if getattr(part, "add_indicator", False):
            return "the indicator of missing values is lost: SimpleImputer without add_indicator"
        if kind == "CalibratedClassifierCV" and getattr(part, "method", "") == "isotonic":
            return "the steps of isotonic calibration move: calibrate with method='sigmoid'"
        if nulls and kind.startswith(("RandomForest", "ExtraTrees", "DecisionTree")):
            return "forests lose their branch for nulls: put a SimpleImputer in front"
    return "driftloop.retrain.recipes holds pipelines that are lowered exactly"


def _parts(pipeline: object) -> Iterator[object]:
    """Yield the estimators of a pipeline, the fitted ones that transformers keep included."""
    seen: set[int] = set()
    waiting = [pipeline]
    while waiting:
        part = waiting.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, list | tuple):
            waiting.extend(part)
        elif hasattr(part, "get_params"):
            yield part
            waiting.extend(vars(part).values())
