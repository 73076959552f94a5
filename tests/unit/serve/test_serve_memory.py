"""Which models are loaded: those that are asked for, as many as there is room for."""

import threading
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from driftloop.errors import ArtifactError
from driftloop.records import FeatureValue, Head, ModelId
from driftloop.serve.slot import ChampionRefused, Memory, Slots
from driftloop.spec import Fleet

DE, FR, UK = ModelId("eta-de"), ModelId("eta-fr"), ModelId("churn-uk")


@dataclass(frozen=True)
class Tens:
    """A model that takes ten bytes, and answers 10."""

    digest: str
    where: str = "memory"
    size: int = 10
    inline: bool = True
    classes: tuple[str, ...] = ()
    samples: None = None

    def predict(self, columns: dict[str, list[FeatureValue]]) -> list[float]:
        return [10.0 for _ in next(iter(columns.values()))]


@dataclass
class Loads:
    """Loads models, and remembers which; refuses those whose file is damaged."""

    loaded: list[str] = field(default_factory=list)
    damaged: set[str] = field(default_factory=set)

    def __call__(self, head: Head) -> Tens:
        self.loaded.append(head.model)
        if head.model in self.damaged:
            raise ArtifactError("the file is not the one its digest names", where=head.artifact)
        return Tens(head.digest)


def head(model: str, epoch: int = 1) -> Head:
    digest = f"{model}-{epoch}"
    return Head(model=ModelId(model), epoch=epoch, version=epoch, digest=digest, artifact="x.onnx")


@pytest.fixture
def loads() -> Loads:
    return Loads()


@pytest.fixture
def slots(fleet: Fleet, loads: Loads) -> Slots:
    """Three models, of which two have room at a time; the heads are known, nothing is loaded."""
    slots = Slots(fleet, memory=Memory(20), lazy=True, load=loads)
    heads = [head(DE), head(FR), head(UK)]
    assert slots.refresh(heads) == (tuple(heads), ())
    return slots


def test_nothing_is_loaded_until_it_is_asked_for(slots: Slots, loads: Loads) -> None:
    """A process begins with heads alone; a model is loaded once, by who asks for it first."""
    assert loads.loaded == []
    assert (slots.slot(DE).cold, slots.slot(DE).head) == (True, head(DE))
    assert slots.slot(DE).hand().head == head(DE)
    assert slots.slot(DE).hand().model.predict({"distance": [1.0]}) == [10.0]
    assert loads.loaded == [DE]


def test_what_was_asked_for_longest_ago_is_let_go(slots: Slots, loads: Loads) -> None:
    """A third model takes the place of the one that rested longest; asked again, that is loaded."""
    for model in (DE, FR, DE, UK):
        slots.slot(model).hand()
    assert [slot.model for slot in slots.all() if slot.cold] == [FR]
    assert slots.slot(FR).head == head(FR)
    assert slots.slot(FR).hand().head == head(FR)
    assert loads.loaded == [DE, FR, UK, FR]
    assert [slot.model for slot in slots.all() if slot.cold] == [DE]


def test_one_that_is_larger_than_all_the_room_answers_alone(fleet: Fleet, loads: Loads) -> None:
    """The bound lets others go, and never the one that is asked for."""
    slots = Slots(fleet, memory=Memory(5), lazy=True, load=loads)
    slots.refresh([head(DE), head(FR)])
    for model in (DE, FR, DE):
        assert slots.slot(model).hand().head == head(model)
        assert [slot.model for slot in slots.all() if slot.held] == [model]


def test_a_request_keeps_what_it_holds(slots: Slots) -> None:
    """A model that is let go while a request runs answers that request."""
    held = slots.slot(DE).hand()
    slots.slot(FR).hand()
    slots.slot(UK).hand()
    assert slots.slot(DE).cold
    assert held.model.predict({"distance": [1.0]}) == [10.0]


def test_one_that_was_damaged_meanwhile_is_refused(slots: Slots, loads: Loads) -> None:
    """A file is held to its digest at every load; the refusal names the version."""
    for model in (DE, FR, UK):
        slots.slot(model).hand()
    loads.damaged.add(DE)
    for _ in range(2):
        with pytest.raises(ChampionRefused, match="version 1 is champion and was refused"):
            slots.slot(DE).hand()
    assert loads.loaded == [DE, FR, UK, DE]
    assert slots.failures[DE].head == head(DE)


def test_filling_loads_what_has_room_and_checks_the_rest(slots: Slots, loads: Loads) -> None:
    """All files are checked once; as many as have room stay loaded, and none is let go for it."""
    slots.slot(UK).hand()
    loads.damaged.add(FR)
    assert [failure.head for failure in slots.fill(within=60)] == [head(FR)]
    assert sorted(loads.loaded) == sorted([UK, DE, FR])
    assert slots.slot(UK).held
    assert slots.slot(DE).held
    assert slots.fill(within=60) == ()


def test_filling_ends_in_time(fleet: Fleet, loads: Loads) -> None:
    """It begins with no model after its time is up, and goes on at the next call."""
    now = iter(range(100))
    slots = Slots(fleet, lazy=True, load=loads, tick=lambda: next(now))
    slots.refresh([head(DE), head(FR), head(UK)])
    slots.fill(within=2)
    assert len(loads.loaded) == 1
    slots.fill(within=60)
    assert len(loads.loaded) == 3


def test_a_newer_version_is_loaded_before_it_is_taken(slots: Slots, loads: Loads) -> None:
    """Laziness is for a beginning: a swap is checked first, of a model that rests as well."""
    slots.slot(DE).hand()
    loads.damaged.add(FR)
    newer = [head(DE, 2), head(FR, 2)]
    taken, failed = slots.refresh(newer)
    assert (taken, [each.head for each in failed]) == ((newer[0],), [newer[1]])
    assert slots.slot(FR).head == head(FR)
    assert slots.slot(DE).hand().head.epoch == 2


def test_two_that_ask_at_once_load_once(fleet: Fleet) -> None:
    """Requests for one cold model wait for one load; another model is loaded meanwhile."""
    begun, go_on = threading.Barrier(2), threading.Event()
    loaded = []

    def load(asked: Head) -> Any:
        loaded.append(asked.model)
        if asked.model == DE:
            begun.wait(10)
            assert go_on.wait(10)
        return Tens(asked.digest)

    slots = Slots(fleet, lazy=True, load=load)
    slots.refresh([head(DE), head(FR)])
    callers = [threading.Thread(target=slots.slot(DE).hand) for _ in range(3)]
    for caller in callers:
        caller.start()
    begun.wait(10)
    assert slots.slot(FR).hand().head == head(FR)
    go_on.set()
    for caller in callers:
        caller.join(10)
        assert not caller.is_alive()
    assert loaded == [DE, FR]
    assert slots.slot(DE).held


def test_a_bound_is_shared(fleet: Fleet, loads: Loads) -> None:
    """Champions and challengers in slots of their own share one bound."""
    memory = Memory(20)
    champions, challengers = (Slots(fleet, memory=memory, lazy=True, load=loads) for _ in range(2))
    champions.refresh([head(DE), head(FR)])
    challengers.refresh([replace(head(DE), version=2)])
    champions.slot(DE).hand()
    champions.slot(FR).hand()
    challengers.slot(DE).hand()
    assert memory.used == 20
    assert champions.slot(DE).cold
