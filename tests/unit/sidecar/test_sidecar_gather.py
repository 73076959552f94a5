"""Whose turn it is: what gathers, how much at once, and that no model keeps the others waiting."""

import threading

from driftloop.serve.frames import Load
from driftloop.sidecar.gather import Gather, Waiting


def waiting(model: str, number: int = 0, *, rows: int = 1) -> Waiting:
    return Waiting(Load(number, "file", model), rows, 1e9, lambda reply: None)


def told(batch: list[Waiting]) -> list[tuple[str, int]]:
    return [(each.request.digest, each.request.number) for each in batch]


def test_what_comes_while_a_batch_runs_is_the_next_batch() -> None:
    """The first goes alone and at once; the others together, in their order, when it is done."""
    gather = Gather(most_rows=100, most_waiting=100)
    for number in range(4):
        assert gather.add(waiting("a", number))
        if number == 0:
            assert told(gather.take()) == [("a", 0)]
    gather.done("a")
    assert told(gather.take()) == [("a", 1), ("a", 2), ("a", 3)]


def test_a_batch_is_bounded_by_its_rows() -> None:
    """As many requests as fit; one that is larger by itself is a batch of its own."""
    gather = Gather(most_rows=10, most_waiting=1000)
    for number, rows in enumerate((4, 6, 1, 50, 2)):
        gather.add(waiting("a", number, rows=rows))
    batches = []
    for _ in range(4):
        batches.append([number for _, number in told(gather.take())])
        gather.done("a")
    assert batches == [[0, 1], [2], [3], [4]]


def test_a_flood_for_one_model_leaves_the_others_their_turn() -> None:
    """One that comes after a thousand requests for another model is next when that batch ends."""
    gather = Gather(most_rows=10, most_waiting=10_000)
    for number in range(1000):
        gather.add(waiting("flood", number))
    gather.take()
    gather.add(waiting("quiet"))
    gather.done("flood")
    assert told(gather.take()) == [("quiet", 0)]
    assert {model for model, _ in told(gather.take())} == {"flood"}


def test_a_model_has_one_batch_at_a_time() -> None:
    """Another thread gets another model, or waits: two batches of one model never run at once."""
    gather = Gather(most_rows=1, most_waiting=100)
    for number in range(2):
        gather.add(waiting("a", number))
    gather.take()
    got: list[list[Waiting]] = []
    other = threading.Thread(target=lambda: got.append(gather.take()))
    other.start()
    gather.add(waiting("b", 7))
    other.join(10)
    assert [told(batch) for batch in got] == [[("b", 7)]]


def test_too_much_for_one_model_is_turned_away() -> None:
    """The bound is each model's own, counts rows, and is free again once they are taken."""
    gather = Gather(most_rows=100, most_waiting=10)
    assert gather.add(waiting("a", 0, rows=9))
    assert gather.add(waiting("a", 1))
    assert not gather.add(waiting("a", 2))
    assert gather.add(waiting("b", 3, rows=10_000))
    gather.take()
    assert gather.add(waiting("a", 4, rows=10))


def test_at_the_end_what_waits_is_handed_out_and_nothing_is_taken_more() -> None:
    """Threads that wait are let go with an empty batch."""
    gather = Gather(most_rows=100, most_waiting=100)
    gather.add(waiting("a", 0))
    gather.close()
    assert not gather.add(waiting("a", 1))
    assert told(gather.take()) == [("a", 0)]
    gather.done("a")
    assert gather.take() == []
