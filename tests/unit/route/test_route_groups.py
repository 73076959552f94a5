"""What is told as one: by the place that a fault comes from, and never by chance."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from driftloop.records import (
    Carrier,
    Cause,
    Decision,
    Kind,
    Level,
    ModelId,
    Origin,
    Quarantined,
    Reading,
    State,
    Verdict,
    Window,
)
from driftloop.route import at_fault, group, origin_of, quarantine_group, quarantined_feature
from driftloop.spec import Feature, Fleet, Source

DE, FR, UK = ModelId("eta-de"), ModelId("eta-fr"), ModelId("churn-uk")
AT = datetime(2026, 3, 1, tzinfo=UTC)
UNKNOWN = Cause(origin=Origin.UNKNOWN, said="the cause is not known")


def decision(state: State, *verdicts: Verdict, **more: object) -> Decision:
    made = Decision(
        key="eta-de/1",
        model=DE,
        at=AT,
        state=state,
        reason="",
        version=1,
        window=Window(model=DE, start=AT - timedelta(days=14), end=AT, known_at=AT),
        verdicts=verdicts,
    )
    return replace(made, **more)  # type: ignore[arg-type]


def alarm(kind: Kind, metric: str, column: str | None = None, value: float = 1.0) -> Verdict:
    reading = Reading(kind=kind, metric=metric, column=column, value=value, n=100)
    return Verdict(reading=reading, level=Level.ALARM, limit=0.1, reason="")


def cause(origin: Origin, *names: str, shared: tuple[ModelId, ...] = ()) -> Cause:
    carriers = tuple(Carrier(name=name, share=1.0, said="") for name in names)
    return Cause(origin=origin, said="", carriers=carriers, shared=shared)


@pytest.fixture
def looked_up(fleet: Fleet) -> Fleet:
    """Eta looks `load` and `temp` up in one source."""
    source = Source.model_validate(
        {"name": "weather", "kind": "events", "time": "at", "fields": {"load": "numeric"}}
    )
    from_weather = {
        "kind": "numeric",
        "from": "weather",
        "key": "vehicle",
        "aggregate": "mean",
        "of": "load",
        "window": "30m",
    }
    eta = fleet.family_named("eta")
    features = {
        **eta.features,
        "load": Feature.model_validate(from_weather),
        "temp": Feature.model_validate(from_weather),
    }
    eta = eta.model_copy(update={"features": features})
    others = tuple(family for family in fleet.families if family.name != "eta")
    return replace(fleet, families=(eta, *others), sources={"weather": source})


NULLS = alarm(Kind.QUALITY, "null_share", "distance")
LATE = alarm(Kind.QUALITY, "freshness")
MOVED = alarm(Kind.DRIFT, "wasserstein", "distance", 0.6)
MORE = alarm(Kind.DRIFT, "wasserstein", "vehicle", 0.9)
SCORES = alarm(Kind.DRIFT, "wasserstein", "prediction", 2.0)


@pytest.mark.parametrize(
    ("found", "why", "expected"),
    [
        (decision(State.DATA_FAULT, NULLS), None, "data/distance"),
        (decision(State.DATA_FAULT), cause(Origin.DATA, "distance"), "data/distance"),
        (decision(State.DATA_FAULT, NULLS), cause(Origin.DATA, "load"), "data/source-weather"),
        (decision(State.DATA_FAULT), cause(Origin.DATA, "temp.length"), "data/source-weather"),
        (decision(State.DATA_FAULT, found=("nulls:vehicle",)), None, "data/vehicle"),
        (decision(State.DATA_FAULT, LATE), None, "data/eta/freshness"),
        (decision(State.DATA_FAULT, LATE), cause(Origin.DATA, "freshness"), "data/eta/freshness"),
        (decision(State.DATA_FAULT), None, ""),
        (decision(State.DECAYING), cause(Origin.INPUTS, "distance"), "inputs/distance"),
        (decision(State.DECAYING), cause(Origin.INPUTS, "vehicle=van"), "inputs/vehicle"),
        (decision(State.DECAYING), cause(Origin.INPUTS), ""),
        (decision(State.DECAYING), cause(Origin.RELATION, "vehicle=van"), ""),
        (decision(State.DECAYING), cause(Origin.RELATION, "x", shared=(FR,)), "relation/eta"),
        (decision(State.DECAYING), UNKNOWN, ""),
        (decision(State.DRIFTING, MOVED, MORE, SCORES), UNKNOWN, "inputs/vehicle"),
        (decision(State.DRIFTING, SCORES), UNKNOWN, ""),
        (decision(State.DRIFTING, found=("shift:prediction", "shift:load")), None,
         "inputs/source-weather"),
        (decision(State.DECAYING, found=("loss",)), None, ""),
        (decision(State.FRESH, MOVED), cause(Origin.DATA, "distance"), ""),
    ],
)  # fmt: skip
def test_what_has_one_cause_is_told_as_one(
    looked_up: Fleet, found: Decision, why: Cause | None, expected: str
) -> None:
    """By source, column, or what is measured of a family's rows; what is not known is alone."""
    assert group(found, why, looked_up) == expected


def test_data_at_fault_come_from_the_data_whatever_else_was_found() -> None:
    """Else the origin is the cause's."""
    inputs = cause(Origin.INPUTS, "load")
    found = [
        origin_of(decision(State.DATA_FAULT), inputs),
        origin_of(decision(State.DECAYING), inputs),
        origin_of(decision(State.DRIFTING), None),
    ]
    assert found == [Origin.DATA, Origin.INPUTS, Origin.UNKNOWN]


def test_the_feature_at_fault_is_the_causes_or_that_of_an_alarm() -> None:
    """The cause is surer; a metric of all rows is no feature of an alarm."""
    found = [
        at_fault(decision(State.DATA_FAULT, NULLS), cause(Origin.DATA, "load.length")),
        at_fault(decision(State.DATA_FAULT, LATE, NULLS), None),
        at_fault(decision(State.DATA_FAULT, LATE), None),
    ]
    assert found == ["load", "distance", None]


def quarantined(model: ModelId, *reasons: str, who: str | None = None) -> Quarantined:
    until = AT + timedelta(days=30)
    return Quarantined(model=model, at=AT, start=AT, end=AT, reasons=reasons, until=until, who=who)


def test_a_day_that_is_bad_alike_in_many_models_is_told_once(looked_up: Fleet) -> None:
    """By family, day and kind; by how much is each model's own; by hand is by itself."""
    first = quarantined(DE, "nulls of load: 80 %", "duplicates: 9 %")
    other = quarantined(FR, "duplicates: 7 %", "nulls of temp: 60 %")
    expected = "quarantine/eta/2026-03-01/duplicates+nulls-of-source-weather"
    assert [quarantine_group(each, looked_up) for each in (first, other)] == [expected] * 2
    assert quarantine_group(quarantined(DE, "by hand: torn", who="ada"), looked_up) == ""
    assert quarantine_group(first, looked_up, again=2) == f"{expected}/again-2"
    many = quarantined(UK, *(f"nulls of x{n}: 1" for n in range(9)))
    assert quarantine_group(many, looked_up).endswith("nulls-of-x0+nulls-of-x1+nulls-of-x2+6")


def test_rows_in_quarantine_are_of_who_owns_the_column(looked_up: Fleet) -> None:
    """The first that is a feature; what is wrong with all rows is no column's."""
    eta = looked_up.family_named("eta")
    found = [
        quarantined_feature(quarantined(DE, *reasons), eta)
        for reasons in (
            ("volume: 3", "nulls of load.length: 1"),
            ("volume: 3",),
            ("nulls of z: 1",),
        )
    ]
    assert found == ["load", None, None]
