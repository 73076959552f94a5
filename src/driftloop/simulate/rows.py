"""The rows of a plan: predictions, and the labels that come after them.

What a model would say is a known function of its features, clipped to what it saw before any
fault, as trees do not extrapolate. The outcome is the same function of the world as it is.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from statistics import NormalDist
from zlib import crc32

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from driftloop.records import Head, ModelId, Task
from driftloop.simulate.faults import Fault, FaultKind
from driftloop.simulate.plan import DAY, Plan, Shape

BROKEN_NUMBER, BROKEN_LEVEL = -999.0, "broken"
"""What a broken feature delivers."""
SEEN = 2.5
"""Standard deviations up to which a model saw a number, and beyond which it does not follow."""
MOST_ROWS, MOST_CELLS = 100_000, 4_000_000
_MEAN, _SPREAD, _NOISE, _ERROR = 10.0, 5.0, 1.0, 0.3
_STEEPNESS, _HESITATION = 2.0, 0.1
_TIME = pa.timestamp("us", tz="UTC")
_MICROSECOND = timedelta(microseconds=1)

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]


def rows(
    plan: Plan, model: ModelId, start: datetime, end: datetime, *, version: int = 1, epoch: int = 1
) -> tuple[pa.Table, pa.Table]:
    """Return what happened to `model` and what became known of it in [start, end).

    Predictions (id, model, version, epoch, event_time, predicted_at, prediction, features, a
    struct) are those whose event falls into the time, and labels (id, model, value, observed_at)
    those observed in it, both as `SegmentSpool.checked_history` takes them. Before the plan's
    start version and epoch are 0 and the prediction is null: known outcomes, predicted by nobody.

    Of adjoining times the rows are those of the whole time, in the same order.

    >>> plan = Plan(start=datetime(2026, 3, 1, tzinfo=UTC), end=datetime(2026, 3, 3, tzinfo=UTC))
    >>> predictions, labels = rows(plan, ModelId("simulated-m000"), plan.start, plan.end)
    >>> predictions.num_rows, labels.num_rows
    (800, 800)
    """
    made = list(_days(plan, model, start, end, version, epoch))
    if not made:  # a table without rows has its columns all the same
        made = [_tables(plan, model, plan.start.date(), (start, start), version, epoch)]
    return pa.concat_tables([p for p, _ in made]), pa.concat_tables([k for _, k in made])


def batches(
    plan: Plan, start: datetime, end: datetime, heads: Mapping[ModelId, Head]
) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Yield the `rows` of every model, about 100,000 at once and fewer where they are wide.

    A model in `heads` answers as its champion, one that is not as version 1 in epoch 1.
    """
    limit = min(MOST_ROWS, MOST_CELLS // len(plan.shape.columns))
    held: list[tuple[pa.Table, pa.Table]] = []
    count = 0
    for model in plan.ids:
        head = heads.get(model)
        version, epoch = (1, 1) if head is None else (head.version, head.epoch)
        for made in _days(plan, model, start, end, version, epoch):
            held.append(made)
            count += max(made[0].num_rows, made[1].num_rows)
            if count >= limit:
                yield pa.concat_tables([p for p, _ in held]), pa.concat_tables([k for _, k in held])
                held, count = [], 0
    if count:
        yield pa.concat_tables([p for p, _ in held]), pa.concat_tables([k for _, k in held])


@dataclass(frozen=True, slots=True)
class _World:
    """What the outcome depends on in one model's world: weights, and an effect of each level."""

    weights: Floats
    effects: Floats
    """(categorical, levels)"""

    def signal(self, numbers: Floats, codes: Codes) -> Floats:
        """Return the signal of each row: mean 0 and variance 1 while nothing is wrong.

        A code of -1 is a level without an effect.
        """
        found: Floats = self.weights @ numbers
        for effect, code in zip(self.effects, codes, strict=True):
            found += np.append(effect, 0.0)[code]
        return found


@dataclass(slots=True)
class _Day:
    """One model's day in the world, and what the model is given of it."""

    number: npt.NDArray[np.int64]
    at: npt.NDArray[np.int64]
    """Microseconds since 1970."""
    kept: Mask
    numbers: Floats
    codes: Codes
    nulls: dict[int, Mask]
    broken: dict[int, Mask]
    """Both by the column's place among all."""
    truth: Floats


@lru_cache(maxsize=4096)
def _world(seed: int, shape: Shape, model: ModelId) -> _World:
    rng = _rng(seed, model, "world")
    size = 1.0 / (1.0 + np.arange(shape.numeric))
    weights: Floats = size * rng.choice([-1.0, 1.0], shape.numeric)
    effects: Floats = rng.standard_normal((shape.categorical, shape.levels))
    shares = _shares(shape)
    effects -= (effects @ shares)[:, None]
    effects /= np.sqrt(effects**2 @ shares)[:, None]
    effects *= (1.0 / (1.0 + np.arange(shape.categorical)))[:, None]
    spread = float(np.sqrt((weights**2).sum() + (effects**2 @ shares).sum()))
    return _World(weights / spread, effects / spread)


def _shares(shape: Shape) -> Floats:
    """Return how frequent each level is: the first most of all."""
    shares: Floats = 1.0 / np.arange(1.0, shape.levels + 1.0)
    shares /= shares.sum()
    return shares


def _days(
    plan: Plan, model: ModelId, start: datetime, end: datetime, version: int, epoch: int
) -> Iterator[tuple[pa.Table, pa.Table]]:
    day = max(start - plan.label_delay, plan.began).astimezone(UTC).date()
    while _midnight(day) < min(end, plan.end):
        yield _tables(plan, model, day, (start, end), version, epoch)
        day += DAY


def _tables(
    plan: Plan,
    model: ModelId,
    day: date,
    asked: tuple[datetime, datetime],
    version: int,
    epoch: int,
) -> tuple[pa.Table, pa.Table]:
    made = _day(plan, model, day)
    start, end = map(_micros, asked)
    known = made.at + plan.label_delay // _MICROSECOND
    labelled = made.kept & (start <= known) & (known < end)
    if plan.unlabelled:
        draws = _rng(plan.seed, model, "labels", day).random(plan.rows)
        labelled &= draws >= plan.unlabelled
    happened = made.kept & (start <= made.at) & (made.at < end)
    return (
        _predictions(plan, model, day, made, happened, version, epoch),
        _labels(plan, model, day, made, labelled, known),
    )


def _day(plan: Plan, model: ModelId, day: date) -> _Day:
    shape, count = plan.shape, plan.rows
    rng = _rng(plan.seed, model, "rows", day)
    order = np.arange(count)
    into = (order + rng.random(count)) / count * (DAY // _MICROSECOND)
    at = _micros(_midnight(day)) + into.astype(np.int64)
    bounds = np.cumsum(_shares(shape))[:-1]
    made = _Day(
        number=order,
        at=at,
        kept=(_micros(plan.began) <= at) & (at < _micros(plan.end)),
        numbers=rng.standard_normal((shape.numeric, count)),
        codes=np.searchsorted(
            bounds, rng.random((shape.categorical, count), dtype=np.float32), "right"
        ).astype(np.int32),
        nulls={},
        broken={},
        truth=np.zeros(count),
    )
    flipped: Floats = np.ones(count)
    for fault in plan.faults_of(model):
        hit = at >= _micros(fault.at)
        if fault.until is not None:
            hit &= at < _micros(fault.until)
        if hit.any():
            _inflict(fault, hit, made, flipped, shape, _rng(plan.seed, model, str(fault), day))
    np.round(made.numbers, 4, out=made.numbers)
    made.truth = _world(plan.seed, shape, model).signal(made.numbers, made.codes) * flipped
    if shape.nulls:
        draws = _rng(plan.seed, model, "nulls", day).random((len(shape.columns), count))
        for place, lost in enumerate(draws < shape.nulls):
            made.nulls[place] = made.nulls.get(place, False) | lost
    return made


def _inflict(
    fault: Fault, hit: Mask, made: _Day, flipped: Floats, shape: Shape, rng: np.random.Generator
) -> None:
    place = shape.columns.index(fault.column) if fault.column else -1
    struck = hit & (rng.random(hit.size) < fault.size)
    match fault.kind:
        case FaultKind.MEAN_SHIFT:
            made.numbers[place, hit] += fault.size
        case FaultKind.SCALE:
            made.numbers[place, hit] *= fault.size
        case FaultKind.CATEGORY_MIX:
            draws = rng.random(hit.size)
            rare = np.searchsorted(np.cumsum(_shares(shape)[::-1])[:-1], draws, "right")
            made.codes[place - shape.numeric, struck] = rare[struck]
        case FaultKind.CONCEPT_FLIP:
            flipped[hit] *= 1.0 - 2.0 * fault.size
        case FaultKind.NULL_BURST:
            made.nulls[place] = made.nulls.get(place, False) | struck
        case FaultKind.BROKEN_FEATURE:
            made.broken[place] = made.broken.get(place, False) | struck
        case FaultKind.VOLUME_DROP:
            made.kept &= ~struck


def _predictions(
    plan: Plan, model: ModelId, day: date, made: _Day, kept: Mask, version: int, epoch: int
) -> pa.Table:
    answered = made.at[kept] >= _micros(plan.start)
    at = pa.array(made.at[kept], pa.int64()).cast(_TIME)
    answers = _answers(plan, model, day, made)[kept]
    return pa.table(
        {
            "id": _ids(model, day, made.number[kept]),
            "model": pa.repeat(pa.scalar(str(model)), len(at)),
            "version": pa.array(np.where(answered, version, 0).astype(np.int32)),
            "epoch": pa.array(np.where(answered, epoch, 0).astype(np.int32)),
            "event_time": at,
            "predicted_at": at,
            "prediction": pa.array(answers, mask=~answered),
            "features": _features(plan.shape, made, kept),
        }
    )


def _labels(
    plan: Plan, model: ModelId, day: date, made: _Day, kept: Mask, known: npt.NDArray[np.int64]
) -> pa.Table:
    rng = _rng(plan.seed, model, "outcomes", day)
    match plan.shape.task:
        case Task.REGRESSION:
            value = _MEAN + _SPREAD * made.truth + _NOISE * rng.standard_normal(plan.rows)
            value = np.round(value, 4)
        case Task.MULTICLASS:
            blurred = made.truth + _NOISE / _SPREAD * rng.standard_normal(plan.rows)
            value = _class(blurred, plan.shape.classes)
        case _:
            value = (rng.random(plan.rows) < _probability(made.truth)).astype(np.float64)
    return pa.table(
        {
            "id": _ids(model, day, made.number[kept]),
            "model": pa.repeat(pa.scalar(str(model)), int(kept.sum())),
            "value": pa.array(value[kept]),
            "observed_at": pa.array(known[kept], pa.int64()).cast(_TIME),
        }
    )


def _answers(plan: Plan, model: ModelId, day: date, made: _Day) -> Floats:
    """Return what the model says: it takes a null for the mean, and an unseen level for none."""
    numbers, codes = np.clip(made.numbers, -SEEN, SEEN), made.codes.copy()
    for lost, instead in ((made.broken, -SEEN), (made.nulls, 0.0)):
        for place, rows in lost.items():
            if place < plan.shape.numeric:
                numbers[place, rows] = instead
            else:
                codes[place - plan.shape.numeric, rows] = -1
    said = _world(plan.seed, plan.shape, model).signal(numbers, codes)
    error = _rng(plan.seed, model, "answers", day).standard_normal(plan.rows)
    if plan.shape.task is Task.REGRESSION:
        return np.round(_MEAN + _SPREAD * said + _ERROR * error, 4)
    if plan.shape.task is Task.MULTICLASS:
        return _class(said + _ERROR / _SPREAD * error, plan.shape.classes)
    return np.round(_probability(said + _HESITATION / _STEEPNESS * error), 6)


def _class(signal: Floats, classes: int) -> Floats:
    """Return the index of the class that the signal falls into: each takes an equal part of it."""
    bounds = [NormalDist().inv_cdf(number / classes) for number in range(1, classes)]
    found: Floats = np.searchsorted(bounds, signal, "right").astype(np.float64)
    return found


def _probability(signal: Floats) -> Floats:
    return 1.0 / (1.0 + np.exp(-_STEEPNESS * signal))


def _features(shape: Shape, made: _Day, kept: Mask) -> pa.StructArray:
    levels = pa.array([f"level-{number}" for number in range(shape.levels)] + [BROKEN_LEVEL])
    columns = []
    for place in range(len(shape.columns)):
        null, broken = made.nulls.get(place), made.broken.get(place)
        mask = None if null is None else null[kept]
        if place < shape.numeric:
            values = made.numbers[place]
            if broken is not None:
                values = np.where(broken, BROKEN_NUMBER, values)
            columns.append(pa.array(values[kept], mask=mask))
        else:
            codes = made.codes[place - shape.numeric]
            if broken is not None:
                codes = np.where(broken, shape.levels, codes)
            columns.append(levels.take(pa.array(codes[kept], pa.int32(), mask=mask)))
    return pa.StructArray.from_arrays(columns, names=list(shape.columns))


def _ids(model: ModelId, day: date, numbers: npt.NDArray[np.int64]) -> pa.Array:
    stem = pa.scalar(f"{model}-{day:%Y%m%d}")
    return pc.binary_join_element_wise(stem, pa.array(numbers).cast(pa.string()), "-")


def _rng(seed: int, model: ModelId, purpose: str, day: date = date.min) -> np.random.Generator:
    """Return a stream of its own: what one purpose draws moves nothing of another."""
    key = [seed, crc32(model.encode()), crc32(purpose.encode()), day.toordinal()]
    return np.random.default_rng(key)


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


def _micros(at: datetime) -> int:
    return (at - datetime(1970, 1, 1, tzinfo=UTC)) // _MICROSECOND
