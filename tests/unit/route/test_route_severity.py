"""How urgent what was found is, as a table."""

from datetime import UTC, datetime, timedelta

import pytest

from driftloop.records import (
    Decision,
    Kind,
    Level,
    ModelId,
    Reading,
    Severity,
    Stage,
    State,
    Verdict,
    Window,
)
from driftloop.route import severity_of, severity_of_stage
from driftloop.spec import Family, SeverityPolicy

DE = ModelId("eta-de")
AT = datetime(2026, 3, 1, tzinfo=UTC)
INFO, WARNING, CRITICAL = Severity


def worse(times: float, level: Level = Level.ALARM) -> Verdict:
    """Decay by so many times the alarm limit of eta, which is 0.3."""
    reading = Reading(
        kind=Kind.DECAY, metric="mae", column=None, value=10 + 3 * times, n=500, baseline=10.0
    )
    return Verdict(reading=reading, level=level, limit=0.3, reason="")


def moved(column: str) -> Verdict:
    reading = Reading(kind=Kind.DRIFT, metric="ks", column=column, value=0.9, n=500)
    return Verdict(reading=reading, level=Level.ALARM, limit=0.5, reason="")


def decision(state: State, *verdicts: Verdict, found: tuple[str, ...] = ()) -> Decision:
    window = Window(model=DE, start=AT - timedelta(days=14), end=AT, known_at=AT)
    return Decision(
        key="k", model=DE, at=AT, state=state, reason="", version=1, window=window,
        verdicts=verdicts, found=found,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (decision(State.DECAYING, worse(1.9)), WARNING),
        (decision(State.DECAYING, worse(2.0)), CRITICAL),
        (decision(State.DECAYING, worse(3.0, Level.WARN)), WARNING),  # within its noise
        (decision(State.DECAYING, worse(3.0, Level.WARN), found=("loss",)), CRITICAL),
        (decision(State.DECAYING, found=("loss",)), WARNING),
        (decision(State.DATA_FAULT, worse(0.0, Level.OK)), WARNING),
        (decision(State.DATA_FAULT, worse(1.0)), CRITICAL),
        (decision(State.DATA_FAULT, found=("loss",)), CRITICAL),
        (decision(State.DATA_FAULT, found=("shift:load",)), WARNING),
        (decision(State.DRIFTING, moved("load")), INFO),
        (decision(State.DRIFTING, moved("prediction")), INFO),
        (decision(State.FRESH, worse(0.0, Level.OK)), INFO),
        (decision(State.BLIND), INFO),
    ],
)
def test_harm_is_more_urgent_than_change(eta: Family, found: Decision, expected: Severity) -> None:
    """And for certain far beyond the limit, or with wrong data too, it is critical."""
    assert severity_of(found, eta) == expected


def test_scores_have_nothing_else_to_show_that_they_are_wrong(eta: Family) -> None:
    """Where no label ever tells, that the answers have changed is a warning."""
    scores = eta.model_copy(update={"decay": None})
    found = [
        severity_of(decision(State.DRIFTING, moved(c)), scores) for c in ("load", "prediction")
    ]
    assert found == [INFO, WARNING]


def test_a_family_may_say_otherwise(eta: Family) -> None:
    """Of each kind of page by itself."""
    said = SeverityPolicy(harm=CRITICAL, data=INFO, drift=WARNING, rollout=INFO)
    family = eta.model_copy(update={"severity": said})
    found = {
        state: severity_of(decision(state), family)
        for state in (State.DECAYING, State.DATA_FAULT, State.DRIFTING, State.FRESH)
    }
    assert list(found.values()) == [CRITICAL, INFO, WARNING, INFO]
    stages = (Stage.STUCK, Stage.FAILED)
    assert [severity_of_stage(stage, family) for stage in stages] == [INFO, WARNING]


def test_what_follows_a_decision_is_urgent_where_a_person_is_needed(eta: Family) -> None:
    """Stuck and rolled back at once, what came to nothing soon, the rest is for the record."""
    found = {stage: severity_of_stage(stage, eta) for stage in Stage}
    critical = {stage for stage, severity in found.items() if severity is CRITICAL}
    warning = {stage for stage, severity in found.items() if severity is WARNING}
    assert critical == {Stage.STUCK, Stage.ROLLED_BACK}
    assert warning == {Stage.HELD, Stage.REFUSED, Stage.FAILED}
