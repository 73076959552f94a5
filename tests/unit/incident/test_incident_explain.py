"""Which larger incident a smaller one is part of, as a table."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from driftloop.incident import alone, explainer
from driftloop.records import (
    PLATFORM,
    Incident,
    Member,
    ModelId,
    Notice,
    Origin,
    Severity,
    Stage,
    Status,
)

AT = datetime(2026, 3, 2, 12, tzinfo=UTC)


def incident(id_: str, *models: str, group: str = "", alerts: str = "", **more: object) -> Incident:
    """Return an incident that was told, of models that are not well yet."""
    made = [
        Member(
            alert=f"{alerts}{model}/{id_}",
            model=ModelId(model),
            stage=Stage.OPENED,
            since=AT,
            at=AT,
            headline="h",
        )
        for model in models
    ]
    notice = Notice(
        key="k",
        incident=id_,
        model=ModelId(models[0]),
        stage=Stage.OPENED,
        at=AT,
        since=AT,
        channel="#c",
        mention="",
        headline="h",
        doing="d",
    )
    given: dict[str, object] = {"id": id_, "group": group, "members": tuple(made), "told": AT}
    return replace(alone(notice), **(given | more))  # type: ignore[arg-type]


SMALL = incident("small", "a")
LARGE = incident("large", "a", "b", group="data/x", origin=Origin.DATA)
LAG = incident("driftloop/ingest_lag/1", PLATFORM)
MISSED = incident("driftloop/passes_missed/1", PLATFORM)
DEAD = incident("driftloop/unhealthy/worker/1", PLATFORM)
STALE = incident("stale", "a", "b", group="data/eta/freshness", origin=Origin.DATA)


def over(found: Incident, model: str) -> Incident:
    """Return it once one of its models is well again."""
    members = (replace(m, over=AT) if m.model == model else m for m in found.members)
    return replace(found, members=tuple(members))


@pytest.mark.parametrize(
    ("smaller", "larger", "explains"),
    [
        (SMALL, LARGE, True),
        (LARGE, SMALL, False),
        (SMALL, SMALL, False),
        (incident("other", "c"), LARGE, False),
        (SMALL, replace(LARGE, status=Status.RESOLVED), False),
        (SMALL, replace(LARGE, status=Status.SILENCED), True),
        (replace(SMALL, status=Status.RESOLVED), LARGE, False),
        # Well again in the larger one: what is left is its own.
        (SMALL, over(LARGE, "a"), False),
        # As many models: wrong data explain what is not said to be.
        (SMALL, incident("data", "a", origin=Origin.DATA), True),
        (replace(SMALL, origin=Origin.DATA), incident("data", "a", origin=Origin.DATA), False),
        (replace(SMALL, origin=Origin.DATA), replace(LARGE, origin=Origin.RELATION), False),
        # What waits for the morning explains nothing more urgent.
        (replace(SMALL, severity=Severity.CRITICAL), replace(LARGE, told=None), False),
        (replace(SMALL, severity=Severity.CRITICAL), LARGE, True),
        (SMALL, replace(LARGE, told=None), True),
        # Rollouts and quarantines are no causes, and a rollout has its own.
        (SMALL, incident("q", "a", "b", alerts="quarantine/"), False),
        (incident("r", "a", alerts="rollout/"), LARGE, False),
        (incident("q", "a", alerts="quarantine/", origin=Origin.DATA), LARGE, True),
        # Of one that only some of its models page for as well; not of what most have no part in.
        (incident("q", "a", "b", "c", alerts="quarantine/", origin=Origin.DATA), LARGE, True),
        (incident("q", "b", "c", alerts="quarantine/", origin=Origin.DATA), LARGE, False),
        # The platform.
        (MISSED, DEAD, True),
        (DEAD, MISSED, False),
        (STALE, LAG, True),
        (LARGE, LAG, False),
        (STALE, DEAD, False),
        (MISSED, LARGE, False),
    ],
)
def test_the_larger_explains_the_smaller(
    smaller: Incident,
    larger: Incident,
    explains: bool,  # noqa: FBT001 - the table's
) -> None:
    """By its models and its cause; never each other."""
    assert explainer(smaller, [larger]) == (larger.id if explains else None)
    if explains:
        assert explainer(larger, [smaller]) is None


def test_the_largest_explains() -> None:
    """Of several, so that all of them are told in one place."""
    largest = incident("largest", "a", "b", "c", origin=Origin.DATA)
    assert explainer(SMALL, [LARGE, largest, incident("none", "z")]) == "largest"
