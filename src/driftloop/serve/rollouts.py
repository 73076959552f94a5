"""Challengers of open rollouts: what they answer, and what they only would have answered.

In canary a request is answered by the challenger if its key's hash lies below the share: the same
key at every process, and the same ones as the share grows. In shadow the champion's rows are
answered again, in a thread, after the reply; nobody is told, and nobody waits.
"""

import hashlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby

from driftloop.errors import ArtifactError, DriftloopError
from driftloop.latencies import BINS, bin_of
from driftloop.ports import Clock, Spool
from driftloop.records import ModelId, Prediction, Role, Rollout, Served, Shadow
from driftloop.serve.answer import answer
from driftloop.serve.request import Row
from driftloop.serve.slot import Held, Slot, Slots

FLUSH_EVERY = 5.0
"""Seconds of wall time after which it is written down how each version did."""
MOST_ROWS = 10_000
"""Rows that may wait for their shadow; more are dropped, and counted."""
AFTER = 0.005
"""Seconds that a shadow waits, so that the reply goes first and more rows come together."""
JOIN = 5.0

_log = logging.getLogger(__name__)


def place(rollout: Rollout, key: bytes) -> float:
    """Return where in [0, 1) a request's key lies in a rollout, everywhere and always the same.

    Salted with the rollout, so that it is not always the same callers who meet new versions.
    """
    salted = hashlib.sha256(rollout.order.encode() + b"\0" + key).digest()
    return int.from_bytes(salted[:8]) / 2**64


@dataclass(slots=True)
class _Count:
    """How one version did since `start`."""

    start: datetime
    requests: int = 0
    errors: int = 0
    seconds: list[int] = field(default_factory=lambda: [0] * BINS)


@dataclass(frozen=True, slots=True)
class _Asked:
    """Rows that the champion answered, of one turn, and how many requests they came in."""

    slot: Slot
    predictions: Sequence[Prediction]
    requests: int


class Challengers:
    """Holds the challengers of one process; implements `service.Rollouts`.

    Args:
        slots: where challengers are loaded and checked, as champions are.
        rollouts: reads those that are open.
        spool: takes what shadows answered, and how each version did.
        clock: the time of both.
        tick: the monotonic clock, in seconds.
    """

    def __init__(
        self,
        *,
        slots: Slots,
        rollouts: Callable[[], Sequence[Rollout]],
        spool: Spool,
        clock: Clock,
        tick: Callable[[], float] = time.monotonic,
    ) -> None:
        self._slots = slots
        self._read = rollouts
        self._spool = spool
        self._clock = clock
        self._tick = tick
        # Replaced whole: requests read it without a lock.
        self._open: dict[str, Rollout] = {}
        self._counting = threading.Lock()
        self._counts: dict[tuple[ModelId, int, Role], _Count] = {}
        self._flushed = tick()
        self._dropped = self._told = 0
        self._waiting: deque[_Asked] = deque()
        self._rows = 0
        self._wake = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None

    def refresh(self) -> None:
        """Take up what the ledger says, and write down from time to time how each version did."""
        found: dict[str, Rollout] = {
            rollout.model: rollout
            for rollout in self._read()
            if self._slots.knows(rollout.model) and (rollout.share or rollout.shadows)
        }
        # A challenger that became champion is loaded by then as one.
        self._slots.refresh([each.head for each in found.values() if each.share < 1.0])
        changed = {model: each.epoch for model, each in found.items()} != {
            model: each.epoch for model, each in self._open.items()
        }
        if changed or self._tick() - self._flushed >= FLUSH_EVERY:
            # What was counted before a step is not counted after it.
            self._flush()
        gone = self._open.keys() - found.keys()
        self._open = found
        for model in gone:
            self._slots.let_go(model)
        if self._thread is None and any(each.shadows for each in found.values()):
            self._thread = threading.Thread(target=self._run, name="shadows", daemon=True)
            self._thread.start()

    def is_quick(self, slot: Slot) -> bool:
        """Return whether a challenger that may answer for `slot` does so in microseconds."""
        rollout = self._open.get(slot.model)
        if rollout is None or rollout.shadows:
            return True
        held = self._held(rollout)
        return held is None or held.model.inline

    def choose(
        self, slot: Slot, champion: Held, rows: Sequence[Row], *, key: bytes | None = None
    ) -> Held:
        """Return who answers all rows of one request: `key` decides, or the first row's id."""
        rollout = self._open.get(slot.model)
        if rollout is None or not 0.0 < rollout.share < 1.0 or not rows:
            return champion
        if place(rollout, rows[0].id.encode() if key is None else key) >= rollout.share:
            return champion
        challenger = self._held(rollout)
        if challenger is None:
            # Nobody waits for it, but it is no version to be promoted.
            self._count(slot.model, rollout.version, Role.CANARY, errors=1)
            return champion
        return challenger

    def answered(
        self,
        slot: Slot,
        held: Held,
        predictions: Sequence[Prediction],
        seconds: float,
        *,
        requests: int = 1,
    ) -> None:
        """Take note of what `held` answered to `requests`, in how many seconds, once logged."""
        rollout = self._open.get(slot.model)
        if rollout is None:
            return
        mine = held.head.version == rollout.version
        role = Role.CANARY if mine and rollout.share < 1.0 else Role.CHAMPION
        self._count(slot.model, held.head.version, role, took=seconds, answered=requests)
        if rollout.shadows and not mine:
            self._to_be_shadowed(_Asked(slot, predictions, requests))

    def failed(self, slot: Slot, held: Held) -> None:
        """Take note that `held` could not answer a request."""
        rollout = self._open.get(slot.model)
        if rollout is not None:
            mine = held.head.version == rollout.version
            role = Role.CANARY if mine and rollout.share < 1.0 else Role.CHAMPION
            self._count(slot.model, held.head.version, role, errors=1)

    def close(self) -> None:
        """Answer what waits for its shadow, and write down how each version did."""
        self._stopping = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(JOIN)
        self._flush()

    @property
    def dropped(self) -> int:
        """Rows that were not answered in shadow, for too many waited."""
        return self._dropped

    # -- counting ----------------------------------------------------------------------------

    def _count(
        self,
        model: ModelId,
        version: int,
        role: Role,
        *,
        took: float = 0.0,
        answered: int = 0,
        errors: int = 0,
    ) -> None:
        with self._counting:
            count = self._counts.get((model, version, role))
            if count is None:
                count = self._counts[model, version, role] = _Count(self._clock.now())
            count.requests += answered + errors
            count.errors += errors
            if answered:
                count.seconds[bin_of(took)] += answered

    def _flush(self) -> None:
        """Write down what was counted; what cannot be written is counted on."""
        with self._counting:
            counts, self._counts = self._counts, {}
            dropped, self._told = self._dropped - self._told, self._dropped
        if dropped:
            _log.warning("%d rows were not answered in shadow: too many waited", dropped)
        self._flushed, now = self._tick(), self._clock.now()
        for (model, version, role), count in counts.items():
            row = Served(
                model=model,
                version=version,
                role=role,
                start=count.start,
                end=now,
                requests=count.requests,
                errors=count.errors,
                seconds=tuple(count.seconds),
            )
            try:
                self._spool.served(self._slots.slot(model).family.name, [row])
            except (DriftloopError, OSError) as error:
                _log.error("how %s did is not written down: %s", model, error)

    # -- shadows -----------------------------------------------------------------------------

    def _to_be_shadowed(self, asked: _Asked) -> None:
        with self._counting:
            if self._rows + len(asked.predictions) > MOST_ROWS:
                self._dropped += len(asked.predictions)
                return
            self._rows += len(asked.predictions)
        self._waiting.append(asked)
        self._wake.set()

    def _run(self) -> None:
        while not self._stopping or self._waiting:
            self._wake.wait(1.0)
            if not self._stopping:
                time.sleep(AFTER)
            self._wake.clear()
            waiting = [self._waiting.popleft() for _ in range(len(self._waiting))]
            with self._counting:
                self._rows -= sum(len(each.predictions) for each in waiting)
            for _, together in groupby(waiting, key=lambda each: each.slot.model):
                try:
                    self._shadow([*together])
                except Exception:  # noqa: BLE001 - nobody waits for it: the log is all there is
                    _log.exception("a shadow broke")

    def _shadow(self, asked: Sequence[_Asked]) -> None:
        """Answer what the champion answered, turn by turn, and write it down."""
        slot = asked[0].slot
        rollout = self._open.get(slot.model)
        if rollout is None or not rollout.shadows:
            return
        held, now, rows = self._held(rollout), self._clock.now(), []
        for each in asked:
            began = time.perf_counter()
            answers: list[float | None]
            try:
                answers = [*_again(held, slot, each.predictions, now)]
            except ArtifactError as error:
                _log.warning("%s version %d in shadow: %s", slot.model, rollout.version, error)
                answers = [None] * len(each.predictions)
                self._count(slot.model, rollout.version, Role.SHADOW, errors=each.requests)
            else:
                took = time.perf_counter() - began
                self._count(
                    slot.model, rollout.version, Role.SHADOW, took=took, answered=each.requests
                )
            rows += [
                Shadow(
                    id=row.id,
                    model=slot.model,
                    version=rollout.version,
                    epoch=rollout.epoch,
                    event_time=row.event_time,
                    predicted_at=now,
                    prediction=value,
                )
                for row, value in zip(each.predictions, answers, strict=True)
            ]
        self._spool.shadows(slot.family.name, rows)

    def _held(self, rollout: Rollout) -> Held | None:
        """Return the challenger and its loaded model; None where it was refused."""
        slot = self._slots.slot(rollout.model)
        head = slot.head
        if head is None or head.version != rollout.version:
            return None
        try:
            return slot.hand()
        except DriftloopError:
            return None


def _again(
    held: Held | None, slot: Slot, predictions: Sequence[Prediction], now: datetime
) -> list[float]:
    """Return what `held` answers to the rows of `predictions`.

    Raises:
        ArtifactError: it failed, or there is none.
    """
    if held is None:
        raise ArtifactError("the challenger was refused", where=slot.model)
    rows = [
        Row(id=each.id, event_time=each.event_time, features=dict(each.features))
        for each in predictions
    ]
    return [each.prediction for each in answer(held, slot.family, rows, now=now)]
