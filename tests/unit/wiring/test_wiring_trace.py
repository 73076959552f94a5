"""One id read back from a real log and ledger; a whole story is in the test of an installation."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from driftloop.errors import BadRequest
from driftloop.records import (
    Act,
    Acted,
    Decided,
    Decision,
    Grouped,
    Label,
    ModelId,
    Notice,
    Paged,
    Receipt,
    Stage,
    State,
    Window,
)

DE, FR = ModelId("eta-de"), ModelId("eta-fr")


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
    assert [step.what for step in steps] == ["predicted", "labelled", "labelled", "decided"]
    assert steps[1].said.endswith(", corrected later")
    assert steps[2].said == f"{id_} of eta-de: 77, which counts"
    assert steps[3].trace == decision.key
    assert here.system.trace(decision.key) == steps[3:]


def test_a_decision_that_was_told_shows_what_people_did(place: Callable[..., Any]) -> None:
    """Who was told of what it found, and who did what about the incident that it is part of."""
    here = place()
    ledger, now, alert, home = here.system.ledger, here.system.clock.now(), f"{DE}/1", "data/x/0"
    about: dict[str, Any] = {"model": DE, "at": now, "incident": home}
    notice = Notice(
        key=f"{alert}/opened",
        incident=alert,
        model=DE,
        stage=Stage.OPENED,
        at=now,
        since=now,
        channel="#eta",
        mention="",
        headline="eta-de: its data looks wrong",
        doing="",
    )
    ledger.append(Grouped(alert=alert, group="data/x", owner="ops", **about), key=alert)
    told = Paged(model=DE, at=now, notice=notice, receipt=Receipt(channel="C1", ts="1.2"))
    ledger.append(told, key=notice.key)
    ledger.append(Acted(act=Act.ACK, who="Ada", key="k", **about), key="k")
    steps = here.system.trace(alert)
    assert [step.what for step in steps] == ["told: opened", "somebody acted"]
    assert (steps[1].said, steps[1].trace) == ("eta-de: Ada acknowledged it", home)


def test_the_same_id_of_two_models_is_two_rows(place: Callable[..., Any]) -> None:
    """Each label names its model; one whose prediction has not come is told beside the other."""
    here = place()
    id_ = here.history([1])["id"][0].as_py()
    here.correct([id_], [78.0], model=FR)
    said = [step.said for step in here.system.trace(id_) if step.what == "labelled"]
    assert len(said) == 2
    assert said[0].startswith(f"{id_} of eta-de: ")
    assert said[1] == f"{id_} of eta-fr: 78, and no prediction with that id has come"


def test_an_id_may_wait_for_the_ingester(place: Callable[..., Any]) -> None:
    """Rows that are not in the log yet are a reason not to find one."""
    here = place()
    here.history([1])
    with here.system.spool("labels") as spool:
        spool.labels(
            "eta", [Label(id="new", model=DE, value=1.0, observed_at=here.system.clock.now())]
        )
        for _ in ("open", "sealed"):
            with pytest.raises(BadRequest, match=r"nothing has that id.*wait for the ingester"):
                here.system.trace("new")
            spool.seal()


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
