"""Incidents as a fold of facts would make them, for tests of what tells them."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from driftloop.records import (
    Chart,
    Entry,
    Incident,
    Member,
    ModelId,
    Notice,
    Origin,
    Severity,
    Stage,
    Status,
)

OPENED_AT = datetime(2026, 3, 1, 6, tzinfo=UTC)


def noticed(stage: Stage = Stage.OPENED, *, hours: float = 0.0, **changed: Any) -> Notice:
    """Return what is told some hours after the incident `eta-de/2026-03-01` opened."""
    notice = Notice(
        key=f"eta-de/2026-03-01/{stage}",
        incident="eta-de/2026-03-01",
        model=ModelId("eta-de"),
        stage=stage,
        at=OPENED_AT + timedelta(hours=hours),
        since=OPENED_AT - timedelta(hours=6),
        channel="#ml-logistics",
        mention="@here",
        headline="eta-de predicts worse than its limit allows",
        doing=f"It is {stage}.",
        owner="logistics",
    )
    return replace(notice, **changed)


def charted() -> Chart:
    """Return a metric that rose above its limit within two days."""
    points = tuple((OPENED_AT + timedelta(hours=4 * n - 48), 9.0 + n / 2) for n in range(13))
    return Chart(title="MAE, eta-de", points=points, unit="min", limit=13.0, baseline=9.0)


def incident(*notices: Notice, **changed: Any) -> Incident:
    """Return the incident that `notices` tell of; of one that just opened if there are none."""
    told = notices or (noticed(),)
    first, last = told[0], told[-1]
    over = last.at if last.stage is Stage.RECOVERED else None
    member = Member(
        alert=first.incident,
        model=first.model,
        stage=last.stage,
        since=first.since,
        at=last.at,
        headline=first.headline,
        over=over,
    )
    made = Incident(
        id=first.incident,
        group="",
        owner="logistics",
        severity=Severity.WARNING,
        origin=Origin.RELATION,
        status=Status.OPEN if over is None else Status.RESOLVED,
        opened=first.at,
        since=first.since,
        members=(member,),
        notices=told,
        resolved=over,
    )
    return replace(made, **changed)


def entry(*notices: Notice, **changed: Any) -> Entry:
    """Return what is added to the incident's thread of `notices`."""
    made = Entry(key=notices[0].key, incident=notices[0].incident, notices=notices)
    return replace(made, **changed)
