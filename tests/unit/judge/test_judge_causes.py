"""What a cause means for a decision, and which models share one."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from driftloop.judge import explains, heeded, sharing, upstream
from driftloop.records import (
    Carrier,
    Cause,
    Decision,
    Explained,
    ModelId,
    Origin,
    State,
    Window,
)
from driftloop.spec import Feature, Fleet, Source

DE, FR, UK = ModelId("eta-de"), ModelId("eta-fr"), ModelId("churn-uk")
AT = datetime(2026, 3, 1, tzinfo=UTC)
DECAYING = Decision(
    key="eta-de/1",
    model=DE,
    at=AT,
    state=State.DECAYING,
    reason="decaying: mae 14; retraining because of decay",
    version=1,
    window=Window(model=DE, start=AT - timedelta(days=14), end=AT, known_at=AT),
    verdicts=(),
    retrain=True,
    incident="eta-de/1",
    opens=True,
)
FAULT = Cause(
    origin=Origin.DATA,
    said="the data is wrong: distance is 1000 times what it was",
    carriers=(Carrier(name="distance", share=1.0, said=""),),
)
INPUTS = replace(FAULT, origin=Origin.INPUTS, said="the inputs have changed")


def explained(model: ModelId, cause: Cause = FAULT) -> Explained:
    return Explained(model=model, at=AT, decision=f"{model}/1", cause=cause)


def test_wrong_data_blocks_a_retraining_that_no_limit_of_quality_did() -> None:
    """The decision keeps its incident, and is about the data from then on."""
    left = heeded(DECAYING, FAULT)
    assert (left.state, left.retrain, left.opens) == (State.DATA_FAULT, False, True)
    assert left.blocked == "the data is at fault, and must be right first"
    assert left.reason.startswith("data-fault: the data is wrong: distance is 1000 times")


@pytest.mark.parametrize("origin", [Origin.INPUTS, Origin.RELATION, Origin.UNKNOWN])
def test_any_other_cause_changes_nothing(origin: Origin) -> None:
    """Other inputs, another relation, or nothing known: it is retrained all the same."""
    assert heeded(DECAYING, replace(FAULT, origin=origin)) == DECAYING


def test_a_scheduled_retraining_waits_for_wrong_data_too() -> None:
    """What is fresh stays so, but is not trained on such rows."""
    aged = replace(DECAYING, state=State.FRESH, incident=None, opens=False)
    left = heeded(aged, FAULT)
    assert (left.state, left.retrain) == (State.FRESH, False)
    assert left.blocked is not None


def test_what_is_a_data_fault_already_stays_as_it_was_judged() -> None:
    """Quality's own words are not replaced."""
    judged = replace(DECAYING, state=State.DATA_FAULT, retrain=False, blocked="so")
    assert heeded(judged, FAULT) == judged


@pytest.mark.parametrize(
    ("now", "before", "expected"),
    [
        pytest.param({}, None, True, id="opens"),
        pytest.param({"opens": False}, DECAYING, True, id="retrains"),
        pytest.param({"opens": False, "retrain": False}, DECAYING, False, id="goes-on"),
        pytest.param(
            {"opens": False, "retrain": False},
            replace(DECAYING, state=State.DATA_FAULT),
            True,
            id="turns",
        ),
        pytest.param(
            {"opens": False, "retrain": False, "found": ("loss",)}, DECAYING, True, id="found"
        ),
        pytest.param(
            {"opens": False, "retrain": False, "state": State.FRESH}, DECAYING, False, id="recovers"
        ),
    ],
)
def test_a_cause_is_looked_for_where_something_follows(
    now: dict[str, object],
    before: Decision | None,
    expected: bool,  # noqa: FBT001 - a case's outcome
) -> None:
    """Where an incident opens, turns, or is to be trained away; not at every pass."""
    assert explains(replace(DECAYING, **now), before) is expected  # type: ignore[arg-type]


def test_models_with_the_same_cause_list_each_other(fleet: Fleet) -> None:
    """The same column and origin in two models are one cause; another origin is another."""
    de, fr, uk = sharing((explained(DE), explained(FR), explained(UK, INPUTS)), fleet)
    assert (de.cause.shared, fr.cause.shared, uk.cause.shared) == ((FR,), (DE,), ())


def test_what_is_not_known_is_shared_with_none(fleet: Fleet) -> None:
    """Two models whose causes are unknown have nothing in common by that."""
    unknown = Cause(origin=Origin.UNKNOWN, said="")
    assert all(
        not fact.cause.shared
        for fact in sharing((explained(DE, unknown), explained(FR, unknown)), fleet)
    )


def test_columns_of_one_source_come_from_one_place(fleet: Fleet) -> None:
    """Two columns looked up in one stream, and one computed of one of them: one upstream."""
    lookup = {"kind": "numeric", "from": "departures", "key": "vehicle"}
    features = {
        "late": Feature.model_validate(lookup),
        "busy": Feature.model_validate(lookup),
        "later": Feature(kind="numeric", expression="late * 2"),
        "vehicle": Feature(kind="categorical"),
    }
    eta = fleet.family_named("eta").model_copy(update={"features": features})
    source = Source(name="departures", kind="events", time="at", fields={"vehicle": "categorical"})
    fleet = replace(fleet, families=(eta,), sources={"departures": source})
    found = [upstream(fleet, DE, name) for name in ("late", "busy", "later", "vehicle=van")]
    assert found == ["source departures"] * 3 + ["vehicle"]
