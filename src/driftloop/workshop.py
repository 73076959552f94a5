"""Rows to a whole candidate, as it is made in a process of its own."""

import hashlib
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from driftloop.errors import ArtifactError, TrainingFailed
from driftloop.ports import Model
from driftloop.records import (
    HOLDOUT_FILE,
    MODEL_FILE,
    PIPELINE_FILE,
    PROFILE_FILE,
    REFERENCE_FILE,
    Candidate,
    FeatureValue,
    Head,
    Memory,
    Order,
    Samples,
    Task,
)
from driftloop.rows import outside
from driftloop.spec import Family

if TYPE_CHECKING:
    from driftloop.retrain import Fitted

PRELOADED = (
    "sklearn.ensemble",
    "sklearn.compose",
    "skl2onnx",
    "onnxruntime",
    "skops.io",
    "driftloop.workshop",
)
"""What the server that fits are forked from has imported already."""
REFERENCE_ROWS = 5000
SAMPLES = 16
"""Rows whose answers a model file carries, so that whoever loads it sees that it still does."""


def build_candidate(
    family: Family, order: Order, champion: Head | None, rows: pa.Table, artifacts: Path
) -> Candidate:
    """Return the candidate that `order` asks for: split, fit, lower, parity, score, keep.

    Args:
        family: of the order's model.
        order: what to make, and which rows to hold out.
        champion: who answers now, scored on the held-out rows too.
        rows: the rows of the order's window; see `PredictionLog.rows`.
        artifacts: folder that each model has a folder in, and each candidate one in that.

    Raises:
        TrainingFailed: too few labelled rows, or the recipe came to nothing, or to what cannot be
            lowered where `retrain.serve` asks for it.
        ParityError: the lowered model, or the file of the fitted one, answers otherwise.
        ArtifactError: the champion's file is lost or damaged, or knows the classes by other names.
    """
    from driftloop.measure import keep_profile
    from driftloop.retrain import answer, fit, pack, predict, score

    if champion is not None and champion.found:
        # Only what it answered can be compared.
        rows = _answered(rows, since=order.holdout_from)
    training, held_out = split(family, order, rows)

    began = time.perf_counter()
    fitted = fit(family, training, seed=order.seed, weights=weights(family, order, training))
    fit_seconds = time.perf_counter() - began
    began = time.perf_counter()
    samples = _samples(family, training, lambda columns: answer(fitted, columns).tolist())
    pipeline_file = pack(fitted, samples)
    trial = pa.concat_tables([training, held_out])
    model_file, difference, unlowered = _answering(family, fitted, pipeline_file, trial)
    if model_file:
        model_file = _with_samples(model_file, family, training)
    lower_seconds = time.perf_counter() - began

    answers = predict(fitted, held_out)
    metrics = score(family.task, held_out["label"].to_numpy(), answers)
    digest = hashlib.sha256(model_file or pipeline_file).hexdigest()
    folder = artifacts / order.model / digest[:16]
    candidate = Candidate(
        order=order,
        digest=digest,
        folder=str(folder),
        rows=training.num_rows,
        holdout_rows=held_out.num_rows,
        metrics=metrics,
        parity=difference,
        fit_seconds=fit_seconds,
        lower_seconds=lower_seconds,
        unlowered=unlowered,
    )
    with _whole(folder) as part:
        if model_file:
            (part / MODEL_FILE).write_bytes(model_file)
        (part / PIPELINE_FILE).write_bytes(pipeline_file)
        answered = _with_answers(training, fitted)
        pq.write_table(_sample(answered, order.seed), part / REFERENCE_FILE)
        compared = _held_out(family, held_out, pa.array(answers, pa.float64()))
        if champion is not None:
            compared = compared.append_column("champion", _answers(champion, family, held_out))
        pq.write_table(compared, part / HOLDOUT_FILE)
        keep_profile(family, answered, compared, part / REFERENCE_FILE)
        (part / "card.json").write_bytes(msgspec.json.format(msgspec.json.encode(candidate)))
    return candidate


def loaded(head: Head, family: Family) -> Model:
    """Return the model that answers as `head`, lowered or as it was fitted, in this process.

    Raises:
        ArtifactError: its file is missing or damaged, or it was trained on the family's classes in
            another order: all labels in the log would mean others than they did.
    """
    from driftloop.retrain import FittedModel
    from driftloop.serve.model import check_order, load_model, read_checked

    file, digest = Path(head.artifact), head.digest
    model: Model = (
        load_model(file, digest)
        if head.lowered
        else FittedModel(read_checked(file, digest), digest=digest, where=str(file))
    )
    check_order(model, family)
    return model


def found_candidate(family: Family, order: Order, rows: pa.Table, artifacts: Path) -> Candidate:
    """Return what answers already, elsewhere, made of the answers that the log has.

    Its baseline is what it scored on the newest of them; the older ones are its reference. Scores
    have no baseline, and their reference is the newest `window.span`.

    Args:
        family: of the order's model.
        order: which rows are the newest.
        rows: the rows of the order's window; see `PredictionLog.rows`.
        artifacts: folder that each model has a folder in, and each candidate one in that.

    Raises:
        TrainingFailed: too few rows have an answer, and a label unless they are scores.
    """
    from driftloop.measure import keep_profile
    from driftloop.retrain import score

    rows = _answered(rows)
    if family.task is Task.SCORE:
        older, newer = _newest(family, order, rows), rows.slice(0, 0)
    else:
        older, newer = split(family, order, rows)
    answers = newer["prediction"].to_numpy()
    reference = pa.BufferOutputStream()
    pq.write_table(_sample(older, order.seed), reference)
    content = reference.getvalue().to_pybytes()
    digest = hashlib.sha256(content).hexdigest()
    folder = artifacts / order.model / digest[:16]
    candidate = Candidate(
        order=order,
        digest=digest,
        folder=str(folder),
        rows=older.num_rows,
        holdout_rows=newer.num_rows,
        metrics=score(family.task, newer["label"].to_numpy(), answers),
        parity=0.0,
        fit_seconds=0.0,
        lower_seconds=0.0,
        found=True,
    )
    with _whole(folder) as part:
        (part / REFERENCE_FILE).write_bytes(content)
        compared = _held_out(family, newer, newer["prediction"])
        pq.write_table(compared, part / HOLDOUT_FILE)
        keep_profile(family, older, compared, part / REFERENCE_FILE)
        (part / "card.json").write_bytes(msgspec.json.format(msgspec.json.encode(candidate)))
    return candidate


def split(family: Family, order: Order, rows: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Return the labelled rows to train on and the newer ones to hold out.

    Raises:
        TrainingFailed: either has too few outside of what is in quarantine.
    """
    rows = outside(rows, order.window.left_out)
    labelled = rows.filter(pc.is_valid(rows["label"]))
    newer = pc.greater_equal(labelled["event_time"], pa.scalar(order.holdout_from))
    training, held_out = labelled.filter(pc.invert(newer)), labelled.filter(newer)
    for part, least, key in (
        (training, family.retrain.min_rows, "retrain.min_rows"),
        (held_out, family.gate.min_rows, "gate.min_rows"),
    ):
        if part.num_rows < least:
            raise TrainingFailed(
                f"{part.num_rows} labelled rows, {least} are needed ({key})",
                where=order.model,
                hint=_in_quarantine(order)
                or "a longer retrain.span or gate.holdout gives more rows",
            )
    return training, held_out


def weights(family: Family, order: Order, training: pa.Table) -> npt.NDArray[np.float64] | None:
    """Return how much each row counts, shape [n], the newest as 1; None where all count the same.

    With the memory "decayed" a row counts 2 ** -(its age / half life), its age being that before
    the newest row it is trained on.
    """
    if order.memory is not Memory.DECAYED:
        return None
    at = training["event_time"].to_numpy().astype("datetime64[us]").astype(np.float64)
    half = (family.retrain.half_life or family.retrain.span).total_seconds() * 1e6
    counted: npt.NDArray[np.float64] = np.exp2((at - at.max()) / half)
    # What is older than a thousand half lives would count nothing, and nothing is no weight.
    return np.maximum(counted, np.finfo(np.float32).tiny)


def _newest(family: Family, order: Order, rows: pa.Table) -> pa.Table:
    """Return the rows of the newest `window.span`: what a window is like now.

    Raises:
        TrainingFailed: they are too few.
    """
    since = order.window.end - family.window.span
    rows = outside(rows, order.window.left_out)
    newest = rows.filter(pc.greater_equal(rows["event_time"], pa.scalar(since)))
    if newest.num_rows < family.retrain.min_rows:
        raise TrainingFailed(
            f"{newest.num_rows} scored rows in the newest window.span,"
            f" {family.retrain.min_rows} are needed (retrain.min_rows)",
            where=order.model,
            hint=_in_quarantine(order) or "a longer window.span gives more rows",
        )
    return newest


def _in_quarantine(order: Order) -> str:
    """Return what of the order's window is in quarantine, as a hint; "" for nothing."""
    spans = order.window.left_out
    rows = sum(span.rows for span in spans)
    return (
        f"{rows} of its rows are in quarantine: `driftloop quarantine` shows why, and releases"
        " what is right"
        if spans
        else ""
    )


def _answering(
    family: Family, fitted: "Fitted", pipeline_file: bytes, rows: pa.Table
) -> tuple[bytes, float, str]:
    """Return the lowered model, how far apart it answers, and why it is none: then it is empty.

    Raises:
        TrainingFailed: it cannot be lowered, or answers otherwise, and has to be.
        ParityError: the pipeline in its file answers otherwise, and is to answer.
    """
    from driftloop.optimize import agreement, lower, parity
    from driftloop.retrain import predict, probabilities, unpack

    expected = partial(probabilities if family.task is Task.MULTICLASS else predict, fitted)
    tolerance, wanted = family.retrain.parity, family.retrain.serve
    unlowered = "retrain.serve is sklearn"
    if wanted != "sklearn":
        try:
            lowered = lower(fitted.pipeline, family)
            apart = parity(
                lowered, family, rows, expected, tolerance=tolerance, pipeline=fitted.pipeline
            )
        except TrainingFailed as error:
            if wanted == "onnx":
                hint = 'retrain.serve = "either" would serve it as it was fitted'
                error.hint = f"{error.hint}; or {hint}" if error.hint else hint
                raise
            unlowered = error.what
        else:
            return lowered, apart, ""
    try:
        again = unpack(pipeline_file, where=PIPELINE_FILE)
    except ArtifactError as error:
        raise TrainingFailed(
            f"the fitted pipeline cannot be read back from its file: {error.what}",
            where=f"{family.name}: {family.retrain.recipe}",
            hint=error.hint or "a function in it needs a module and a name, which a lambda lacks",
        ) from error
    apart = agreement(
        partial(predict, again),
        family,
        rows,
        expected,
        tolerance=tolerance,
        called="the pipeline in its file",
    )
    return b"", apart, unlowered


@contextmanager
def _whole(folder: Path) -> Iterator[Path]:
    """Give a folder to write in that becomes `folder` at the end, or is gone after an error."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    for left in folder.parent.glob("*.part"):
        # A model has one renewal at a time: this one's process was ended while it wrote.
        shutil.rmtree(left)
    part = folder.with_name(f"{folder.name}.part")
    part.mkdir()
    try:
        yield part
        if folder.exists():
            # The same rows and seed gave the same model before: its folder is as good, but the
            # rows held out now are newer.
            (part / HOLDOUT_FILE).replace(folder / HOLDOUT_FILE)
            (part / PROFILE_FILE).replace(folder / PROFILE_FILE)
        else:
            part.replace(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _answers(champion: Head, family: Family, held_out: pa.Table) -> pa.Array:
    if champion.found:
        return held_out["prediction"].combine_chunks()
    columns = {name: held_out[name].to_pylist() for name in family.inputs}
    return pa.array(loaded(champion, family).predict(columns), pa.float64())


def _held_out(family: Family, rows: pa.Table, candidate: pa.Array | pa.ChunkedArray) -> pa.Table:
    """Return what the gate judges by; a feature of any name has its place in `features`."""
    inputs = list(family.inputs)
    plain = [rows[name].combine_chunks() for name in inputs]
    return (
        rows.select(["id", "event_time", "label"])
        .append_column("candidate", candidate)
        .append_column("features", pa.StructArray.from_arrays(plain, inputs))
    )


def _answered(rows: pa.Table, *, since: datetime | None = None) -> pa.Table:
    """Return the rows that have an answer; with `since`, those before it all the same."""
    kept = pc.is_valid(rows["prediction"])
    if since is not None:
        kept = pc.or_(kept, pc.less(rows["event_time"], pa.scalar(since)))
    return rows.filter(kept)


def _sample(rows: pa.Table, seed: int) -> pa.Table:
    if rows.num_rows <= REFERENCE_ROWS:
        return rows
    chosen = np.random.default_rng(seed).choice(rows.num_rows, REFERENCE_ROWS, replace=False)
    return rows.take(pa.array(np.sort(chosen)))


def _with_samples(model_file: bytes, family: Family, rows: pa.Table) -> bytes:
    """Return the lowered model with what it answers, itself and here, to some of `rows`."""
    from driftloop.optimize import with_samples
    from driftloop.serve.model import OnnxModel

    model = OnnxModel(model_file, digest="", where=family.name)
    return with_samples(model_file, _samples(family, rows, model.predict))


def _samples(
    family: Family,
    rows: pa.Table,
    answer: Callable[[dict[str, list[FeatureValue]]], list[float]],
) -> Samples:
    few = rows.select(list(family.inputs)).take(
        np.linspace(0, rows.num_rows - 1, SAMPLES, dtype=np.int64)
    )
    columns = few.to_pydict()
    return Samples(columns=columns, answers=answer(columns))


def _with_answers(rows: pa.Table, fitted: "Fitted") -> pa.Table:
    from driftloop.retrain import predict

    answers = pa.array(predict(fitted, rows), pa.float64())
    return rows.set_column(rows.schema.get_field_index("prediction"), "prediction", answers)
