"""The model in hand: loaded, checked against its digest, warmed, then swapped in one assignment."""

import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from driftloop.errors import ArtifactError, UnknownModel
from driftloop.ports import Model
from driftloop.records import FeatureValue, Head, ModelId
from driftloop.spec import Family, Fleet

PAIR = 2
"""Columns of a classifier's answer: the probabilities of 0 and of 1."""

_log = logging.getLogger(__name__)


class NoChampion(UnknownModel):
    """The model is declared, but no version of it has been made champion and loaded yet."""


class ChampionRefused(NoChampion):
    """The model has a champion, but its file was refused and no earlier one is in hand."""


@dataclass(frozen=True, slots=True)
class Held:
    """A champion and its loaded model: what one request is answered by, wholly."""

    head: Head
    model: Model


@dataclass(frozen=True, slots=True)
class Failure:
    """A head whose model was refused; the champion before it, if one is held, keeps answering.

    `tried_at` is a reading of the monotonic clock, in seconds.
    """

    head: Head
    error: ArtifactError
    tried_at: float


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


def check_order(model: "OnnxModel", family: Family) -> None:
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

    Every input is one feature: float32 [n, 1] (null is NaN) or string [n, 1] (null is ""). The
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
        self._digest = digest
        self.where = where
        try:
            self._session: Any = onnxruntime.InferenceSession(
                content, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's errors share no base but Exception
            raise ArtifactError(
                f"onnxruntime cannot load the model: {_first_line(error)}", where=where
            ) from error
        kinds = {each.name: self._kind(each) for each in self._session.get_inputs()}
        self._numbers = tuple(name for name, kind in kinds.items() if kind == "tensor(float)")
        self._texts = tuple(name for name, kind in kinds.items() if kind == "tensor(string)")
        self._output = self._answer_name()

    @property
    def digest(self) -> str:
        """SHA-256 of the file it was loaded from."""
        return self._digest

    @property
    def classes(self) -> tuple[str, ...]:
        """What it was trained to tell apart, if it says so: `lower` writes it into the file."""
        said = self._session.get_modelmeta().custom_metadata_map.get("driftloop.classes", "[]")
        return tuple(json.loads(said))

    def predict(self, columns: dict[str, list[FeatureValue]]) -> list[float]:
        """Return one answer a row: the target, the probability of 1, or the class's index.

        Raises:
            ArtifactError: a feature it needs is not in `columns`, it failed, or an answer is not
                a finite number.
        """
        wanted = (*self._numbers, *self._texts)
        if lacking := [name for name in wanted if name not in columns]:
            raise ArtifactError(
                f"the model needs features it is not given: {', '.join(sorted(lacking))}",
                where=self.where,
            )
        try:
            answer = self._session.run([self._output], self._feed(columns))[0]
        except Exception as error:  # onnxruntime's errors share no base but Exception
            raise ArtifactError(
                f"the model failed to answer: {_first_line(error)}", where=self.where
            ) from error
        return self._plain(answer)

    def _feed(self, columns: dict[str, list[FeatureValue]]) -> dict[str, npt.NDArray[Any]]:
        """Return each input, [n, 1], cut out of one array for each type: many are dear to make."""
        feed: dict[str, npt.NDArray[Any]] = {}
        if self._numbers:
            numbers = np.array([columns[name] for name in self._numbers], dtype=np.float32)
            feed.update(zip(self._numbers, numbers[:, :, None], strict=True))
        if self._texts:
            texts = [[value or "" for value in columns[name]] for name in self._texts]
            feed.update(zip(self._texts, np.array(texts, dtype=object)[:, :, None], strict=True))
        return feed

    def _plain(self, answer: npt.NDArray[np.floating[Any]]) -> list[float]:
        if answer.ndim == PAIR and answer.shape[1] == PAIR:
            answer = answer[:, 1]
        elif answer.size != answer.shape[0]:
            raise ArtifactError(
                f"the model answers in the shape {answer.shape}, not one number a row",
                where=self.where,
            )
        # A float32 is a Python float as it is; no array of float64 has to be made for that.
        plain: list[float] = answer.reshape(-1).tolist()
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


class Slot:
    """Holds the champion of one model; taking another is one reference assignment."""

    __slots__ = ("_held", "_refused", "family", "model")

    def __init__(self, model: ModelId, family: Family) -> None:
        self.model = model
        self.family = family
        self._held: Held | None = None
        self._refused: Failure | None = None

    def take(self, head: Head, model: Model) -> None:
        """Answer with `model` from the next `hand` on; requests that run keep what they hold."""
        self._held = Held(head, model)
        self._refused = None

    def refuse(self, failure: Failure) -> None:
        """Remember why a head was not taken; what is held keeps answering."""
        self._refused = failure

    def hand(self) -> Held:
        """Return the champion; take it once for each request.

        Raises:
            NoChampion: there is none yet.
            ChampionRefused: there is one, it was refused, and none before it is held.
        """
        held = self._held
        if held is None:
            # Read once: the polling thread may clear it meanwhile.
            refused = self._refused
            if refused is not None:
                raise ChampionRefused(
                    f"version {refused.head.version} is champion and was refused: "
                    f"{refused.error.what}",
                    where=self.model,
                    hint=refused.error.hint,
                ) from refused.error
            raise NoChampion(
                "the model has no champion yet",
                where=self.model,
                hint="one is made by its first training; ask again later",
            )
        return held

    @property
    def held(self) -> Held | None:
        """The champion, or None."""
        return self._held

    @property
    def refused(self) -> Failure | None:
        """The newest head that was refused and not yet replaced, or None."""
        return self._refused


class Slots:
    """The slots of a fleet, and what was refused on the way into them.

    Args:
        fleet: whose models get a slot.
        retry_after: seconds before a refused digest is tried again.
        tick: the monotonic clock, in seconds.
    """

    def __init__(
        self,
        fleet: Fleet,
        *,
        retry_after: float = 30.0,
        tick: Callable[[], float] = time.monotonic,
    ) -> None:
        self._slots: dict[str, Slot] = {
            model: Slot(model, family) for family in fleet.families for model in family.models
        }
        self._retry_after = retry_after
        self._tick = tick

    @property
    def failures(self) -> Mapping[ModelId, Failure]:
        """The newest head of each model that was refused and not yet replaced."""
        refused = [(slot.model, slot.refused) for slot in self._slots.values()]
        return {model: failure for model, failure in refused if failure is not None}

    def knows(self, model: str) -> bool:
        """Return whether a monitor declares `model`."""
        return model in self._slots

    def slot(self, model: str) -> Slot:
        """Return the slot of `model`.

        Raises:
            UnknownModel: no monitor declares it.
        """
        if model not in self._slots:
            raise UnknownModel(
                f"no monitor declares the model {model[:100]!r} as one that is served here",
                hint="GET /v1/models lists them",
            )
        return self._slots[model]

    def all(self) -> tuple[Slot, ...]:
        """Return every slot, in the fleet's order."""
        return tuple(self._slots.values())

    def refresh(self, heads: Sequence[Head]) -> tuple[tuple[Head, ...], tuple[Failure, ...]]:
        """Take up every head that is newer than what its slot holds; say which, and which not.

        A head is taken once its model is loaded, checked and warmed; until then, or if it is
        refused, the champion in hand keeps answering. A refused digest is tried again only
        `retry_after` seconds later. Call it from one thread at a time.
        """
        taken: list[Head] = []
        failed: list[Failure] = []
        for head in heads:
            slot = self._slots.get(head.model)
            if slot is None or not self._due(head, slot):
                continue
            try:
                slot.take(head, self._ready(head, slot))
            except ArtifactError as error:
                failure = Failure(head, error, self._tick())
                slot.refuse(failure)
                failed.append(failure)
                _log.error("%s version %d is refused: %s", head.model, head.version, error)
            else:
                taken.append(head)
                _log.info("%s answers with version %d", head.model, head.version)
        return tuple(taken), tuple(failed)

    def _due(self, head: Head, slot: Slot) -> bool:
        held, failure = slot.held, slot.refused
        if held is not None and head.epoch <= held.head.epoch:
            return False
        if failure is None or failure.head.digest != head.digest:
            return True
        return self._tick() - failure.tried_at >= self._retry_after

    def _ready(self, head: Head, slot: Slot) -> Model:
        if slot.held is not None and slot.held.model.digest == head.digest:
            return slot.held.model
        model = load_model(Path(head.artifact), head.digest)
        check_order(model, slot.family)
        warm(model, slot.family)
        return model


def _typical(family: Family, name: str) -> FeatureValue:
    feature = family.features[name]
    if feature.kind != "numeric":
        return "typical"
    low, high = feature.range or (0.0, 0.0)
    return (low + high) / 2


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0][:300]
