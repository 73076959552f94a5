"""A model file, loaded: checked against its digest, warmed, and asked."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from math import isclose, isfinite
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from driftloop.errors import ArtifactError
from driftloop.ports import Model
from driftloop.records import FeatureValue, Samples
from driftloop.spec import Family

PAIR = 2
"""Columns of a classifier's answer: the probabilities of 0 and of 1."""
NUMBERS = "driftloop.numbers"
"""The input that holds all numbers, and the metadata that names its columns; see `lower`."""
AGREES = 1e-4
"""How far, relative to its size, an answer may lie from the recorded one: machines round."""
SMALLEST = 0.01
"""What is smaller counts as this size."""
IN_MEMORY = 8
"""Bytes of memory for a byte of file: 6.9 were measured of boosted trees, fewer of other models."""
LEAST = 2**18
"""Bytes that a session takes by itself, as measured of small models, and somewhat more."""


def load_model(file: Path, digest: str) -> "OnnxModel":
    """Return the model in `file`, once its SHA-256 is known to be `digest`.

    The bytes that were checked are the bytes that are loaded: the file is read once.

    Raises:
        ArtifactError: the file is missing, is not the one its digest names, or does not load.
    """
    return OnnxModel(read_checked(file, digest), digest=digest, where=str(file))


def read_checked(file: Path, digest: str) -> bytes:
    """Return what is in `file`, once its SHA-256 is known to be `digest`.

    Raises:
        ArtifactError: the file is missing, or is not the one its digest names.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise ArtifactError(
            f"the model file cannot be read: {error.strerror or error}", where=str(file)
        ) from error
    found = hashlib.sha256(content).hexdigest()
    if found != digest:
        raise ArtifactError(
            f"the model file is not the one its digest names: SHA-256 {found[:12]}..., "
            f"not {digest[:12]}...",
            where=str(file),
            hint="it was damaged or replaced; restore it, or roll back to another version",
        )
    return content


def warm(model: Model, family: Family) -> None:
    """Let `model` answer a typical row and one with every null that a request may hold.

    Raises:
        ArtifactError: it needs a feature that `family` lacks, fails, or answers no finite number,
            or a class that is none of the family's.
    """
    typical = {name: _typical(family, name) for name in family.features}
    columns: dict[str, list[FeatureValue]] = {
        name: [typical[name], typical[name] if feature.required else None]
        for name, feature in family.features.items()
    }
    check_classes(model.predict(columns), family, where="warm-up")


def check_samples(model: Model) -> None:
    """Refuse a model that answers its recorded samples otherwise than it did when it was made.

    One without samples passes.

    Raises:
        ArtifactError: an answer differs by more than `AGREES`; the first that does is told.
    """
    samples = model.samples
    if samples is None:
        return
    answers = model.predict(samples.columns)
    for row, (said, answer) in enumerate(zip(samples.answers, answers, strict=True)):
        if not isclose(said, answer, rel_tol=AGREES, abs_tol=AGREES * SMALLEST):
            raise ArtifactError(
                f"the model answers its recorded sample {row + 1} of {len(answers)} with"
                f" {answer:g}, where it answered {said:g} when it was made",
                where="samples",
                hint="onnxruntime or the machine computes otherwise than where it was trained",
            )


def check_classes(answers: Sequence[float], family: Family, *, where: str) -> None:
    """Refuse answers of a multiclass family that are the index of none of its classes.

    Raises:
        ArtifactError: one is not; `where` is what it is called.
    """
    known = len(family.classes)
    if known and (strange := [x for x in answers if not (0 <= x < known and x.is_integer())]):
        raise ArtifactError(
            f"the model answers class {strange[0]:g}, counted from 0, and {family.name} has"
            f" {known} classes",
            where=where,
            hint="classes keep their order, and new ones are added at the end: the monitor file"
            " lost one that the model was trained with",
        )


def check_order(model: Model, family: Family) -> None:
    """Refuse a model of classes that the monitor file now calls otherwise, or in another order.

    Raises:
        ArtifactError: its classes are not the first ones of the family's.
    """
    trained = model.classes
    if family.classes and trained and trained != family.classes[: len(trained)]:
        pairs = zip_longest(trained, family.classes, fillvalue="none")
        was, now = next((each, other) for each, other in pairs if each != other)
        raise ArtifactError(
            f"the model was trained with class {was!r} where {family.name}.toml now has {now!r}",
            where=model.where,
            hint="classes keep their names and their order, and new ones are added at the end",
        )


class OnnxModel:
    """A model file in onnxruntime, one thread a call; safe to call from several threads.

    Every input is one feature: float32 [n, 1] (null is NaN) or string [n, 1] (null is ""); but
    `driftloop.numbers`, if there is one, float32 [n, k], has those that its metadata lists. The
    answer is the graph's one floating-point output: [n], [n, 1], or [n, 2] for a classifier,
    whose second column is the probability of 1.

    Args:
        content: the ONNX file.
        digest: its SHA-256.
        where: what errors call it; kept.
    """

    def __init__(self, content: bytes, *, digest: str, where: str) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        # An arena keeps what the largest batch ever took, in each of hundreds of sessions.
        options.enable_cpu_mem_arena = False
        options.enable_mem_pattern = False
        self._digest = digest
        self._size = LEAST + IN_MEMORY * len(content)
        self.where = where
        try:
            self._session: Any = onnxruntime.InferenceSession(
                content, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's errors share no base but Exception
            raise ArtifactError(
                f"onnxruntime cannot load the model: {_first_line(error)}", where=where
            ) from error
        # What Python checks again before each call costs as much as a small model's answer; what
        # is fed is made here, and the session itself refuses what does not fit.
        self._bare: Any = self._session._sess  # noqa: SLF001 - see above
        kinds = {each.name: self._kind(each) for each in self._session.get_inputs()}
        self._numbers = tuple(name for name, kind in kinds.items() if kind == "tensor(float)")
        self._joined = self._numbers == (NUMBERS,)
        if self._joined:
            self._numbers = tuple(json.loads(self._said(NUMBERS, "[]")))
        self._texts = tuple(name for name, kind in kinds.items() if kind == "tensor(string)")
        self._output = self._answer_name()

    @property
    def digest(self) -> str:
        """SHA-256 of the file it was loaded from."""
        return self._digest

    @property
    def size(self) -> int:
        """Bytes of memory that it takes, estimated by its file."""
        return self._size

    @property
    def inline(self) -> bool:
        """It answers in microseconds."""
        return True

    @property
    def classes(self) -> tuple[str, ...]:
        """What it was trained to tell apart, if it says so: `lower` writes it into the file."""
        return tuple(json.loads(self._said("driftloop.classes", "[]")))

    @property
    def samples(self) -> Samples | None:
        """What it answered to some rows when it was made, if it says so."""
        said = self._said("driftloop.samples", "null")
        try:
            return msgspec.json.decode(said, type=Samples | None)
        except msgspec.MsgspecError as error:
            raise ArtifactError(
                f"its recorded samples cannot be read: {error}", where=self.where
            ) from error

    def predict(self, columns: dict[str, list[FeatureValue]]) -> list[float]:
        """Return one answer a row: the target, the probability of 1, or the class's index.

        Raises:
            ArtifactError: a feature it needs is not in `columns`, it failed, or an answer is not
                a finite number.
        """
        self._need(columns)
        return self._plain(self._run(self._feed(columns)))

    def predict_columns(self, columns: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[np.float64]:
        """Return one answer a row, as `predict` does, without a Python object for each value.

        A column is [n]: float32 where null is NaN, or str objects where null is "".

        Raises:
            ArtifactError: as `predict`.
        """
        self._need(columns)
        apart = self._texts if self._joined else (*self._numbers, *self._texts)
        feed = {name: columns[name][:, None] for name in apart}
        if self._joined:
            feed[NUMBERS] = np.stack([columns[name] for name in self._numbers], axis=1)
        answer = self._one_a_row(self._run(feed))
        if not np.isfinite(answer).all():
            self._plain(answer)  # tells the row
        return answer.astype(np.float64)

    def _need(self, columns: Mapping[str, object]) -> None:
        wanted = (*self._numbers, *self._texts)
        if lacking := [name for name in wanted if name not in columns]:
            raise ArtifactError(
                f"the model needs features it is not given: {', '.join(sorted(lacking))}",
                where=self.where,
            )

    def _run(self, feed: dict[str, npt.NDArray[Any]]) -> npt.NDArray[np.floating[Any]]:
        try:
            answer: npt.NDArray[np.floating[Any]] = self._bare.run([self._output], feed, None)[0]
        except Exception as error:  # onnxruntime's errors share no base but Exception
            raise ArtifactError(
                f"the model failed to answer: {_first_line(error)}", where=self.where
            ) from error
        return answer

    def _said(self, key: str, otherwise: str) -> str:
        said: str = self._session.get_modelmeta().custom_metadata_map.get(key, otherwise)
        return said

    def _feed(self, columns: dict[str, list[FeatureValue]]) -> dict[str, npt.NDArray[Any]]:
        """Return each input, [n, 1], cut out of one array for each type: many are dear to make."""
        feed: dict[str, npt.NDArray[Any]] = {}
        if self._numbers:
            numbers = np.array([columns[name] for name in self._numbers], dtype=np.float32)
            if self._joined:
                feed[NUMBERS] = numbers.T
            else:
                feed.update(zip(self._numbers, numbers[:, :, None], strict=True))
        if self._texts:
            texts = [[value or "" for value in columns[name]] for name in self._texts]
            feed.update(zip(self._texts, np.array(texts, dtype=object)[:, :, None], strict=True))
        return feed

    def _one_a_row(self, answer: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.floating[Any]]:
        if answer.ndim == PAIR and answer.shape[1] == PAIR:
            return answer[:, 1]
        if answer.size != answer.shape[0]:
            raise ArtifactError(
                f"the model answers in the shape {answer.shape}, not one number a row",
                where=self.where,
            )
        return answer.reshape(-1)

    def _plain(self, answer: npt.NDArray[np.floating[Any]]) -> list[float]:
        # A float32 is a Python float as it is; no array of float64 has to be made for that.
        plain: list[float] = self._one_a_row(answer).tolist()
        if not all(map(isfinite, plain)):
            row = next(row for row, value in enumerate(plain) if not isfinite(value))
            raise ArtifactError(
                f"the model answers no finite number (row {row} of {len(plain)})",
                where=self.where,
                hint="its recipe should impute nulls, or the features be required",
            )
        return plain

    def _kind(
        self,
        given: Any,  # noqa: ANN401 - onnxruntime's NodeArg, which has no type information
    ) -> str:
        kind: str = given.type
        if kind not in ("tensor(float)", "tensor(string)"):
            raise ArtifactError(
                f"input {given.name!r} is {kind}; an input is one feature, "
                "tensor(float) or tensor(string)",
                where=self.where,
            )
        return kind

    def _answer_name(self) -> str:
        outputs: dict[str, str] = {each.name: each.type for each in self._session.get_outputs()}
        floating = [n for n, kind in outputs.items() if kind in ("tensor(float)", "tensor(double)")]
        if len(floating) != 1:
            listed = ", ".join(f"{name} {kind}" for name, kind in outputs.items())
            raise ArtifactError(
                f"the model should have one floating-point output, and has: {listed}",
                where=self.where,
                hint="lower classifiers without ZipMap",
            )
        return floating[0]


def _typical(family: Family, name: str) -> FeatureValue:
    feature = family.features[name]
    if feature.kind != "numeric":
        return "typical"
    low, high = feature.range or (0.0, 0.0)
    return (low + high) / 2


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0][:300]
