"""The model in hand: loaded, checked, warmed, then swapped in one assignment; and how many are."""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from driftloop.errors import ArtifactError, ModelAway, UnknownModel
from driftloop.ports import Model
from driftloop.records import Head, ModelId
from driftloop.serve.model import check_order, check_samples, load_model, warm
from driftloop.spec import Family, Fleet

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


class Slot:
    """Has the champion of one model; taking another is one reference assignment.

    Its model is loaded when it is first asked for, and again when it was let go meanwhile.
    """

    __slots__ = ("_changing", "_has", "_load", "_refused", "family", "model", "used")

    def __init__(self, model: ModelId, family: Family, load: "Callable[[Slot], None]") -> None:
        self.model = model
        self.family = family
        self.used = 0.0
        """When it was last asked for, by the monotonic clock."""
        self._load = load
        # A head alone is one whose model is not loaded. One reference: it is read without a lock.
        self._has: Held | Head | None = None
        self._refused: Failure | None = None
        self._changing = threading.Lock()

    def take(self, head: Head, model: Model) -> None:
        """Answer with `model` from the next `hand` on; requests that run keep what they hold."""
        with self._changing:
            self._has = Held(head, model)
            self._refused = None

    def expect(self, head: Head) -> None:
        """Answer with `head` once its model is loaded, which the next `hand` sees to."""
        with self._changing:
            self._has = head

    def refuse(self, failure: Failure) -> None:
        """Remember why a head was not taken; what is held, or another one, keeps answering."""
        with self._changing:
            if self._has is failure.head:
                self._has = None
            self._refused = failure

    def cool(self) -> None:
        """Let the loaded model go; requests that run keep it until they are answered."""
        with self._changing:
            if isinstance(self._has, Held):
                self._has = self._has.head

    def hand(self) -> Held:
        """Return the champion, loaded if it was not; take it once for each request.

        Raises:
            NoChampion: there is none yet.
            ChampionRefused: there is one, it was refused, and none before it is held.
        """
        held = self._has
        while isinstance(held, Head):
            self._load(self)
            held = self._has
        if held is None:
            raise self._why_empty()
        self.used = time.monotonic()
        return held

    @property
    def head(self) -> Head | None:
        """Whoever answers, loaded or not, or None."""
        has = self._has
        return has.head if isinstance(has, Held) else has

    @property
    def held(self) -> Held | None:
        """The champion and its loaded model, or None."""
        has = self._has
        return has if isinstance(has, Held) else None

    @property
    def cold(self) -> bool:
        """Whether there is a champion whose model has to be loaded first."""
        return isinstance(self._has, Head)

    @property
    def refused(self) -> Failure | None:
        """The newest head that was refused and not yet replaced, or None."""
        return self._refused

    def _why_empty(self) -> NoChampion:
        # Read once: the polling thread may clear it meanwhile.
        refused = self._refused
        if refused is None:
            return NoChampion(
                "the model has no champion yet",
                where=self.model,
                hint="one is made by its first training; ask again later",
            )
        error = ChampionRefused(
            f"version {refused.head.version} is champion and was refused: {refused.error.what}",
            where=self.model,
            hint=refused.error.hint,
        )
        error.__cause__ = refused.error
        return error


class Memory:
    """Bounds what loaded models take; the one that was asked for longest ago is let go first.

    Several `Slots` may share one.

    Args:
        most: bytes, by what each model says it takes; the newest stays even if it takes more.
    """

    def __init__(self, most: int | None = None) -> None:
        self._most = most
        self._sizes: dict[Slot, int] = {}
        self._changing = threading.Lock()

    @property
    def used(self) -> int:
        """Bytes that the loaded models take, by what they say."""
        return sum(self._sizes.copy().values())

    def has_room(self, size: int) -> bool:
        """Return whether a model of `size` bytes can be added with none let go."""
        return self._most is None or self.used + size <= self._most

    def add(self, slot: Slot, size: int) -> None:
        """Count what `slot` holds now, and let others go until all that are left have room."""
        with self._changing:
            self._sizes[slot] = size
            if self._most is None:
                return
            for each in sorted(self._sizes, key=lambda each: each.used):
                if self.used <= self._most:
                    return
                if each is not slot:
                    each.cool()
                    del self._sizes[each]
                    _log.debug("%s is let go from memory until it is asked for", each.model)

    def drop(self, slot: Slot) -> None:
        """Count `slot` no longer: it holds nothing."""
        with self._changing:
            self._sizes.pop(slot, None)


class Slots:
    """The slots of a fleet, and what was refused on the way into them.

    Args:
        fleet: whose models get a slot.
        memory: bounds what the loaded models take.
        lazy: whether models that a process begins with wait until they are asked for, or `fill`.
        load: returns the model of a head, once its file is known to be what its digest names.
        retry_after: seconds before a refused digest is tried again.
        tick: the monotonic clock, in seconds.
    """

    def __init__(
        self,
        fleet: Fleet,
        *,
        memory: Memory | None = None,
        lazy: bool = False,
        load: Callable[[Head], Model] = lambda head: load_model(Path(head.artifact), head.digest),
        retry_after: float = 30.0,
        tick: Callable[[], float] = time.monotonic,
    ) -> None:
        self._slots: dict[str, Slot] = {
            model: Slot(model, family, self._warm_up)
            for family in fleet.families
            for model in family.models
        }
        self._memory = memory or Memory()
        self._lazy = lazy
        self._loaded = load
        self._retry_after = retry_after
        self._tick = tick
        self._loading = {slot: threading.Lock() for slot in self._slots.values()}
        self._unseen: dict[Slot, Head] = {}

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
        """Take up every head that is newer than what its slot has; say which, and which not.

        A head is taken once its model is loaded, checked and warmed; until then, or if it is
        refused, the champion in hand keeps answering. A refused digest is tried again only
        `retry_after` seconds later. Where a slot has nothing and they are lazy, the head is taken
        as it is, and its model loaded when it is asked for. Call it from one thread at a time.
        """
        taken: list[Head] = []
        failed: list[Failure] = []
        for head in heads:
            slot = self._slots.get(head.model)
            if slot is None or not self._due(head, slot):
                continue
            if self._lazy and slot.head is None and slot.refused is None:
                slot.expect(head)
                self._unseen[slot] = head
                taken.append(head)
                continue
            with self._loading[slot]:
                failure = self._taken(slot, head)
            if failure is None:
                taken.append(head)
            else:
                failed.append(failure)
        return tuple(taken), tuple(failed)

    def fill(self, *, within: float) -> tuple[Failure, ...]:
        """Load what waits to be asked for, as long as there is room; return what was refused.

        Nothing that was asked for is let go for it. What finds no room is checked all the same,
        so that a damaged file is known before somebody needs it. Call it where `refresh` is
        called; it begins with none after `within` seconds, and goes on at the next call.
        """
        failed: list[Failure] = []
        until = self._tick() + within
        while self._unseen and self._tick() < until:
            slot, head = next(iter(self._unseen.items()))
            with self._loading[slot]:
                if slot.cold and slot.head is head:
                    failure = self._taken(slot, head, spare=True)
                    failed += [failure] if failure else []
            del self._unseen[slot]
        return tuple(failed)

    def let_go(self, model: str) -> None:
        """Free the memory of `model` until it is asked for again."""
        slot = self.slot(model)
        slot.cool()
        self._memory.drop(slot)

    def _due(self, head: Head, slot: Slot) -> bool:
        has, failure = slot.head, slot.refused
        if has is not None and head.epoch <= has.epoch:
            return False
        if failure is None or failure.head.digest != head.digest:
            return True
        if isinstance(failure.error, ModelAway):
            # The file may be all right: who answers for it is back any moment.
            return True
        return self._tick() - failure.tried_at >= self._retry_after

    def _warm_up(self, slot: Slot) -> None:
        """Load what `slot` expects, unless another thread did meanwhile; a failure is kept in it.

        Requests for one model wait here for each other, and for no other model.
        """
        with self._loading[slot]:
            head = slot.head
            if slot.cold and head is not None:
                self._taken(slot, head)

    def _taken(self, slot: Slot, head: Head, *, spare: bool = False) -> Failure | None:
        """Load `head` and take it, or say why not; with `spare` only if none must be let go."""
        try:
            model = self._ready(head, slot)
        except ArtifactError as error:
            failure = Failure(head, error, self._tick())
            slot.refuse(failure)
            _log.error("%s version %d is refused: %s", head.model, head.version, error)
            return failure
        if not spare or self._memory.has_room(model.size):
            slot.take(head, model)
            self._memory.add(slot, model.size)
            _log.info("%s answers with version %d", head.model, head.version)
        return None

    def _ready(self, head: Head, slot: Slot) -> Model:
        if slot.held is not None and slot.held.model.digest == head.digest:
            return slot.held.model
        model = self._loaded(head)
        check_order(model, slot.family)
        warm(model, slot.family)
        check_samples(model)
        return model
