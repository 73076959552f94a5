"""Each invariant holds of what is right, and names the fault of what is not."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from kill.invariants import (
    Row,
    every_turn_told,
    logged_once,
    moved_in_order,
    of_one_version,
    told_once,
)

from driftloop.records import (
    Decided,
    Decision,
    Head,
    ModelId,
    Moved,
    Notice,
    Order,
    Ordered,
    Paged,
    Receipt,
    Stage,
    State,
    Window,
)

DE = ModelId("eta-de")
AT = datetime(2026, 3, 1, tzinfo=UTC)
WINDOW = Window(model=DE, start=AT, end=AT, known_at=AT)
ROW = Row("a", version=1, epoch=1, prediction=2.0)
OTHER = Row("b", version=1, epoch=1, prediction=3.0)


def test_rows_that_were_answered_are_there_once() -> None:
    """Answered rows once as they were answered; rows not answered once at most."""
    both = {"a": ROW, "b": OTHER}
    assert logged_once(both, {"c"}, [ROW, OTHER]) == []
    assert logged_once({"a": ROW}, {"b", "c"}, [ROW, OTHER]) == []


@pytest.mark.parametrize(
    ("logged", "fault"),
    [
        ([], "a was answered and is in the lake 0 times"),
        ([ROW, ROW], "a was answered and is in the lake 2 times"),
        ([replace(ROW, epoch=2)], "a was answered as"),
        ([replace(ROW, prediction=9.0)], "a was answered as"),
        ([ROW, OTHER, OTHER], "b was not answered and is in the lake 2 times"),
        ([ROW, replace(OTHER, id="z")], "z is in the lake and nobody asked for it"),
    ],
)
def test_a_row_lost_doubled_changed_or_made_up_is_a_fault(logged: list[Row], fault: str) -> None:
    """Each is named by its id."""
    (said,) = logged_once({"a": ROW}, {"b"}, logged)
    assert said.startswith(fault)


def test_a_reply_is_of_the_version_that_it_names() -> None:
    """Two versions in one reply, or another version's number, are faults; noise of bits is none."""

    def predict(version: int, ids: object) -> list[float]:
        return [2.0 * version, 3.0 * version]

    assert of_one_version([[ROW, OTHER]], predict) == []
    assert of_one_version([[replace(ROW, prediction=2.0 + 1e-7), OTHER]], predict) == []
    (mixed,) = of_one_version([[ROW, replace(OTHER, version=2)]], predict)
    assert mixed == "a reply names [(1, 1), (2, 1)]"
    (torn,) = of_one_version([[ROW, replace(OTHER, epoch=2)]], predict)
    assert torn == "a reply names [(1, 1), (1, 2)]"
    (wrong,) = of_one_version([[ROW, replace(OTHER, prediction=6.0)]], predict)
    assert wrong == "b: 6.0, but version 1 says 3.0"


def paged(stage: Stage, *, key: str = "", incident: str = "i") -> Paged:
    notice = Notice(
        key=f"{incident}/{stage}{key}",
        incident=incident,
        model=DE,
        stage=stage,
        at=AT,
        since=AT,
        channel="#c",
        mention="",
        headline="",
        doing="",
    )
    return Paged(model=DE, at=AT, notice=notice, receipt=Receipt(channel="C", ts="1"))


def test_what_was_told_stands_there_once() -> None:
    """A message lost, repeated, unknown to the ledger, or never sent is a fault."""
    facts = [paged(Stage.OPENED), paged(Stage.RECOVERED)]
    assert told_once(facts, ["i", "i/recovered"], []) == []
    assert told_once(facts, ["i"], []) == [
        "i/recovered is told in the ledger and stands there 0 times"
    ]
    assert told_once(facts, ["i", "i", "i/recovered"], []) == [
        "i is told in the ledger and stands there 2 times"
    ]
    assert told_once(facts[:1], ["i", "x"], []) == [
        "x stands there 1 times and the ledger does not know"
    ]
    assert told_once([], [], ["notice/i/opened: nothing"]) == [
        "never told: notice/i/opened: nothing"
    ]


DECISION = Decision(
    key="i",
    model=DE,
    at=AT,
    state=State.DECAYING,
    reason="",
    version=1,
    window=WINDOW,
    verdicts=(),
    retrain=True,
    incident="i",
    opens=True,
)
ORDER = Order(
    key="i", model=DE, at=AT, reason="", window=WINDOW, holdout_from=AT, seed=1, incident="i"
)


def test_every_turn_of_an_incident_is_told() -> None:
    """Its opening, its end, that an order was begun, and how it ended: none is left out."""
    over = replace(DECISION, key="j", retrain=False, incident=None, opens=False, resolves="i")
    decided = [Decided(model=DE, at=AT, decision=each) for each in (DECISION, over)]
    ordered = [Ordered(model=DE, at=AT, order=ORDER)]
    told = [paged(Stage.OPENED), paged(Stage.PROMOTED, key="/i"), paged(Stage.RECOVERED)]
    moves = [moved(1, 1, None), moved(2, 2, 1)]
    assert every_turn_told(decided, ordered, moves, told) == []
    for left, fault in (
        (told[1:], "i was opened and nobody was told"),
        (told[:2], "i was over and nobody was told"),
        ([told[0], told[2]], "i was renewed and 0 ends were told"),
        ([*told, paged(Stage.REFUSED, key="/i")], "i was renewed and 2 ends were told"),
    ):
        assert every_turn_told(decided, ordered, moves, left) == [fault]


def test_an_order_that_nobody_began_is_a_fault_while_it_makes_sense() -> None:
    """Not once another version answers, its incident is over, or its failure was told."""
    opened = Decided(model=DE, at=AT, decision=DECISION)
    over = Decided(model=DE, at=AT, decision=replace(DECISION, key="j", incident=None))
    told, first = [paged(Stage.OPENED)], [moved(1, 1, None)]
    fault = "i was to be renewed and nobody began"
    assert every_turn_told([opened], [], first, told) == [fault]
    assert every_turn_told([opened], [], [*first, moved(2, 2, 1)], told) == []
    quiet = replace(over, decision=replace(over.decision, retrain=False, opens=False))
    assert every_turn_told([opened, quiet], [], first, told) == []
    failed = [*told, paged(Stage.FAILED, key="/i")]
    assert every_turn_told([opened], [], first, failed) == []


def moved(epoch: int, version: int, previous: int | None) -> Moved:
    head = Head(model=DE, epoch=epoch, version=version, digest="", artifact="")
    return Moved(model=DE, at=AT, head=head, previous=previous, reason="")


def test_heads_follow_one_another() -> None:
    """A gap, a move from elsewhere, and a move to the same version are faults."""
    first = moved(1, 1, None)
    assert moved_in_order([first, moved(2, 2, 1), moved(3, 1, 2)]) == []
    assert moved_in_order([first, moved(3, 2, 1)]) == ["eta-de: epoch 3 follows 1"]
    assert moved_in_order([first, moved(2, 2, 7)]) == ["eta-de: leaves version 7, which was 1"]
    assert moved_in_order([first, moved(2, 1, 1)]) == ["eta-de: moved from version 1 to itself"]
