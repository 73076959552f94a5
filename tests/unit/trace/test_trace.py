"""Which decisions are followed from a prediction: those that saw it, and did something."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from driftloop.records import Decision, ModelId, State, Window
from driftloop.trace import Logged, Step, in_order, labelled, predicted, that_judged

DE = ModelId("eta-de")
NOW = datetime(2026, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)
ROW = Logged(
    id="r1",
    model=DE,
    version=2,
    event_time=NOW,
    predicted_at=NOW,
    prediction=12.5,
)


def decision(day: int, **more: object) -> Decision:
    at = NOW + day * DAY
    made = Decision(
        key=f"{DE}/{day}",
        model=DE,
        at=at,
        state=State.FRESH,
        reason="fresh",
        version=2,
        window=Window(model=DE, start=at - 14 * DAY, end=at, known_at=at),
        verdicts=(),
    )
    return replace(made, **more)  # type: ignore[arg-type]


def test_the_first_that_saw_it_and_those_that_acted() -> None:
    """Of two weeks of decisions: the first, and those that opened or retrained."""
    decisions = [decision(day) for day in range(-3, 20)]
    decisions[8] = decision(5, opens=True)
    decisions[10] = decision(7, retrain=True)
    assert [found.key for found in that_judged(ROW, decisions)] == [f"{DE}/{n}" for n in (1, 5, 7)]


@pytest.mark.parametrize(
    "blind",
    [
        pytest.param(decision(1, version=3), id="another-version"),
        pytest.param(decision(0), id="window-that-ends-before"),
        pytest.param(decision(16), id="window-that-begins-after"),
        pytest.param(
            decision(1, window=replace(decision(1).window, known_at=NOW - DAY)), id="not-yet-known"
        ),
    ],
)
def test_a_decision_that_did_not_see_it_is_not_followed(blind: Decision) -> None:
    """Another version's rows, another span, or rows that had not arrived."""
    assert that_judged(ROW, [blind]) == ()


def test_what_was_answered_and_what_is_history() -> None:
    """A row of before driftloop has no answer to show."""
    assert predicted(ROW).said == "r1 by eta-de version 2: 12.5"
    assert predicted(replace(ROW, prediction=None)).said.endswith("history, before driftloop")


def test_every_label_shows_and_which_one_counts() -> None:
    """Oldest first; the newest known counts, and a single one needs no words about it."""
    known = [(NOW, 13.0), (NOW, 15.0), (NOW + DAY, 14.0)]
    found = labelled("r1", DE, known, asked=True)
    assert [(step.at, step.said) for step in found] == [
        (NOW, "r1 of eta-de: 13, corrected later"),
        (NOW, "r1 of eta-de: 15, corrected later"),
        (NOW + DAY, "r1 of eta-de: 14, which counts"),
    ]
    assert [step.said for step in labelled("r1", DE, known[:1], asked=True)] == ["r1 of eta-de: 13"]
    assert [step.said for step in labelled("r1", DE, known[1:], asked=False)] == [
        "r1 of eta-de: 15, corrected later",
        "r1 of eta-de: 14, which counts, and no prediction with that id has come",
    ]


def test_steps_come_by_time_and_once() -> None:
    """Two decisions may share an order; what happened at one moment stays as it was given."""
    first, same, late = (
        Step(at=at, what=what, said="")
        for at, what in ((NOW, "trained"), (NOW, "gated"), (NOW + DAY, "told"))
    )
    assert in_order([late, first, same, late, first]) == (first, same, late)


def test_a_class_is_told_by_its_name() -> None:
    """Both as it was predicted and as it was."""
    assert predicted(replace(ROW, prediction="green")).said == "r1 by eta-de version 2: green"
    (step,) = labelled("r1", DE, [(NOW, "red")], asked=True)
    assert step.said == "r1 of eta-de: red"
