"""One id read back from a real log and ledger; a whole story is in the test of an installation."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from driftloop.errors import BadRequest
from driftloop.records import Decided, Decision, ModelId, State, Window

DE = ModelId("eta-de")


def test_a_row_its_newest_label_and_who_judged_it(place: Callable[..., Any]) -> None:
    """The answer, the label as corrected, and the decision whose window held it, by time."""
    here = place()
    id_ = here.history([1])["id"][0].as_py()
    here.correct([id_], [77.0])
    now = here.system.clock.now()
    decision = Decision(
        key=f"{DE}/20260301T000100",
        model=DE,
        at=now + timedelta(minutes=1),
        state=State.FRESH,
        reason="fresh",
        version=0,
        window=Window(
            model=DE,
            start=now - timedelta(days=14),
            end=now + timedelta(minutes=1),
            known_at=now + timedelta(minutes=1),
        ),
        verdicts=(),
    )
    here.system.ledger.append(
        Decided(model=DE, at=decision.at, decision=decision), key=decision.key
    )
    steps = here.system.trace(id_)
    assert [step.what for step in steps] == ["predicted", "labelled", "decided"]
    assert steps[1].said == f"{id_}: 77"
    assert steps[2].trace == decision.key
    assert here.system.trace(decision.key) == steps[2:]


@pytest.mark.parametrize("id_", ["", "none", f"{DE}#9", f"{DE}/20260301T000000", "'; --"])
def test_an_id_that_nothing_has_is_refused(place: Callable[..., Any], id_: str) -> None:
    """With what may be given; quotes in it are no SQL."""
    here = place()
    here.history([1])
    with pytest.raises(BadRequest, match=r"nothing has that id.*prediction's id"):
        here.system.trace(id_)


def test_a_label_without_its_prediction_shows(place: Callable[..., Any]) -> None:
    """Whoever sent it can see that it came, and what is missing."""
    here = place()
    here.history([1])
    here.correct(["never-asked"], [12.0])
    (step,) = here.system.trace("never-asked")
    assert step.what == "labelled"
    assert step.said == "never-asked of eta-de: 12, and no prediction with that id has come"
