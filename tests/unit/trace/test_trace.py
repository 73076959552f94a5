"""Which decisions are followed from a prediction: those that saw it, and did something."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from driftloop.records import Decision, ModelId, State, Window
from driftloop.trace import Logged, Step, in_order, predicted, that_judged

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
    label=13.0,
    labelled_at=NOW + DAY,
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


def test_a_row_without_a_label_says_nothing_of_one() -> None:
    """The label is a step of its own, once there is one."""
    assert [step.what for step in predicted(ROW)] == ["predicted", "labelled"]
    assert [step.what for step in predicted(replace(ROW, label=None))] == ["predicted"]


def test_steps_come_by_time_and_once() -> None:
    """Two decisions may share an order; what happened at one moment stays as it was given."""
    first, same, late = (
        Step(at=at, what=what, said="")
        for at, what in ((NOW, "trained"), (NOW, "gated"), (NOW + DAY, "told"))
    )
    assert in_order([late, first, same, late, first]) == (first, same, late)
