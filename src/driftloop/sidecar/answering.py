"""Batches of requests to replies: each model loaded once its digest is known to be right."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from math import isfinite
from pathlib import Path

from driftloop.errors import ArtifactError
from driftloop.records import FeatureValue
from driftloop.retrain import FittedModel
from driftloop.serve.frames import Answers, Ask, Load, Loaded, Refused, Reply, Request
from driftloop.serve.model import read_checked
from driftloop.sidecar.gather import Waiting

LATE = "the model did not come to it in time"


def open_model(file: str, digest: str) -> FittedModel:
    """Return the model in `file`, of which nothing is read but its bytes if they are not `digest`.

    Raises:
        ArtifactError: the file is missing, is not the one its digest names, or does not load.
    """
    return FittedModel(read_checked(Path(file), digest), digest=digest, where=file)


class Answering:
    """Answers batches by models that it keeps; to be called from several threads.

    Args:
        most_bytes: of model files that are kept; who was asked for longest ago goes first.
        load: opens a model.
        tick: the monotonic clock, in seconds.
    """

    def __init__(
        self,
        *,
        most_bytes: int,
        load: Callable[[str, str], FittedModel] = open_model,
        tick: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin with no model."""
        self._most_bytes = most_bytes
        self._load = load
        self._tick = tick
        self._models: OrderedDict[str, FittedModel] = OrderedDict()
        self._lock = threading.Lock()

    def answer(self, batch: Sequence[Waiting]) -> None:
        """Reply to each request of `batch`, all for one model; never raises for one of them."""
        now = self._tick()
        kept = [waiting for waiting in batch if waiting.until > now]
        for waiting in batch:
            if waiting.until <= now:
                waiting.reply(Refused(waiting.request.number, LATE, busy=True))
        if not kept:
            return
        try:
            model = self._model(kept[0].request)
        except (ArtifactError, MemoryError) as error:
            for waiting in kept:
                waiting.reply(_refused(waiting.request, error))
            return
        asked: list[tuple[Waiting, Ask]] = []
        for waiting in kept:
            match waiting.request:
                case Load(number=number):
                    waiting.reply(Loaded(number, model.inputs, model.classes, model.samples))
                case Ask() as ask:
                    asked.append((waiting, ask))
        replies = _answered(model, [ask for _, ask in asked])
        for (waiting, _), reply in zip(asked, replies, strict=True):
            waiting.reply(reply)

    def _model(self, request: Request) -> FittedModel:
        with self._lock:
            if (held := self._models.get(request.digest)) is not None:
                self._models.move_to_end(request.digest)
                return held
        model = self._load(request.file, request.digest)
        with self._lock:
            self._models[request.digest] = model
            # Whoever runs one that goes keeps it until he is done.
            while len(self._models) > 1 and self._bytes() > self._most_bytes:
                self._models.popitem(last=False)
        return model

    def _bytes(self) -> int:
        return sum(model.size for model in self._models.values())


def _answered(model: FittedModel, asks: Sequence[Ask]) -> list[Reply]:
    """Return the replies to `asks`, answered as one where that can be."""
    replies: dict[int, Reply] = {}
    fit: list[tuple[int, Ask, int]] = []
    for place, ask in enumerate(asks):
        sizes = {len(values) for values in ask.columns.values()}
        lacking = [name for name in model.inputs if name not in ask.columns]
        if lacking:
            what = f"the model needs features it is not given: {', '.join(sorted(lacking))}"
            replies[place] = Refused(ask.number, what, model.where)
        elif len(sizes) != 1 or sizes == {0}:
            replies[place] = Refused(ask.number, "the columns are not of one length", model.where)
        else:
            fit.append((place, ask, sizes.pop()))
    if fit:
        replies |= _together(model, fit)
    return [replies[place] for place in range(len(asks))]


def _together(model: FittedModel, fit: Sequence[tuple[int, Ask, int]]) -> dict[int, Reply]:
    columns: dict[str, list[FeatureValue]] = {
        name: [value for _, ask, _ in fit for value in ask.columns[name]] for name in model.inputs
    }
    try:
        answers = model.predict(columns)
    except (ArtifactError, MemoryError) as error:
        if len(fit) == 1:
            place, ask, _ = fit[0]
            return {place: _refused(ask, error)}
        # One by one: a fault of one request is none of the others'.
        return {place: reply for each in fit for place, reply in _together(model, [each]).items()}
    replies: dict[int, Reply] = {}
    start = 0
    for place, ask, size in fit:
        mine = answers[start : start + size]
        start += size
        replies[place] = _finite(ask, mine, model.where)
    return replies


def _finite(ask: Ask, answers: list[float], where: str) -> Reply:
    row = next((row for row, value in enumerate(answers) if not isfinite(value)), None)
    if row is None:
        return Answers(ask.number, answers)
    return Refused(
        ask.number,
        f"the model answers no finite number (row {row} of {len(answers)})",
        where,
        "its recipe should impute nulls, or the features be required",
    )


def _refused(request: Request, error: ArtifactError | MemoryError) -> Refused:
    if isinstance(error, ArtifactError):
        return Refused(request.number, error.what, error.where, error.hint)
    return Refused(request.number, "the sidecar ran out of memory", request.file)
