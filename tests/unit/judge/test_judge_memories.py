"""Which memories are worth a fit: what was compared speaks, until it lost."""

from datetime import UTC, datetime

import pytest

from driftloop.judge import memories_to_try
from driftloop.judge.memories import AGAIN, RECALLED, standing
from driftloop.records import Candidate, Memory, ModelId, Order, Trained, Tried, Window

AT = datetime(2026, 3, 1, tzinfo=UTC)
DE = ModelId("eta-de")
ALL = (Memory.RECENT, Memory.ALL, Memory.DECAYED)


def training(*losses: float | None) -> Trained:
    """A renewal that compared the memories with these losses; with none it had one alone."""
    window = Window(model=DE, start=AT, end=AT, known_at=AT)
    order = Order(key="k", model=DE, at=AT, reason="r", window=window, holdout_from=AT, seed=1)
    candidate = Candidate(
        order=order,
        digest="d",
        folder="f",
        rows=1,
        holdout_rows=1,
        metrics=(),
        parity=0.0,
        fit_seconds=3.0,
        lower_seconds=0.0,
    )
    tried = tuple(
        Tried(memory=memory, loss=loss, fit_seconds=2.0)
        for memory, loss in zip(ALL, losses, strict=False)
    )
    return Trained(model=DE, at=AT, version=1, candidate=candidate, tried=tried)


@pytest.mark.parametrize(
    ("past", "lost", "worth"),
    [
        pytest.param([], False, ALL, id="nothing-known"),
        pytest.param([training(3.0, 1.0, 2.0)], False, (Memory.ALL,), id="the-best-so-far"),
        pytest.param([training(3.0, 1.0, 2.0)], True, ALL, id="it-lost"),
        pytest.param([training(1.0, 1.0, 1.0)], False, (Memory.RECENT,), id="equals-as-listed"),
        pytest.param([training(1.0, 2.0)], False, ALL, id="one-never-compared"),
        pytest.param([training(1.0, None, 2.0)], False, ALL, id="one-that-failed"),
        pytest.param(
            [training(3.0, 1.0, 2.0), *[training()] * (AGAIN - 1)],
            False,
            (Memory.ALL,),
            id="again-not-yet",
        ),
        pytest.param(
            [training(3.0, 1.0, 2.0), *[training()] * AGAIN], False, ALL, id="now-and-then-again"
        ),
        pytest.param(
            [training(1.0, 1.1, 9.0), training(3.0, 1.0, 9.0)], False, (Memory.ALL,), id="by-ratio"
        ),
        pytest.param(
            [training(1.0, 99.0, 99.0), *[training(2.0, 1.0, 9.0)] * RECALLED],
            False,
            (Memory.ALL,),
            id="what-was-long-ago-is-forgotten",
        ),
    ],
)
def test_the_history_chooses(past: list[Trained], *, lost: bool, worth: tuple[Memory, ...]) -> None:
    """All of them at first, where it lost, and now and then; else the one that did best."""
    assert memories_to_try(ALL, past, lost=lost) == worth


def test_one_memory_is_never_compared() -> None:
    """The usual policy costs one fit."""
    assert memories_to_try((Memory.ALL,), [training(1.0, 2.0, 3.0)], lost=True) == (Memory.ALL,)


def test_standing_counts_ratios_and_no_units() -> None:
    """Losses a thousand times as large say the same."""
    small = {Memory.RECENT: 1.0, Memory.ALL: 2.0}
    large = {memory: 1000.0 * loss for memory, loss in small.items()}
    assert standing(tuple(small), [small]) == pytest.approx(standing(tuple(small), [large]))


def test_all_fits_count_as_what_a_training_took() -> None:
    """Three fits of two seconds are six; one alone is what it took itself."""
    assert training(1.0, 2.0, 3.0).fit_seconds == 6.0
    assert training().fit_seconds == 3.0
