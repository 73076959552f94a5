"""An incident made of its facts: what it is then, and what may be done about it."""

from datetime import UTC, datetime, timedelta

import pytest

from driftloop.incident import alone, fold, shown
from driftloop.records import (
    PLATFORM,
    Act,
    Acted,
    Fact,
    Grouped,
    ModelId,
    Noted,
    Notice,
    Origin,
    Phase,
    Posted,
    Receipt,
    Rollout,
    Severity,
    Stage,
    Status,
)

DE, FR = ModelId("eta-de"), ModelId("eta-fr")
AT = datetime(2026, 3, 2, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
ID = "data/x/0"


def noted(
    stage: Stage, hours: float = 0.0, *, model: ModelId = DE, alert: str = "", **more: object
) -> Noted:
    """Return that something of a model is to be told."""
    alert = alert or f"{model}/1"
    at = AT + hours * HOUR
    notice = Notice(
        key=f"{alert}/{stage}/{hours}",
        incident=alert,
        model=model,
        stage=stage,
        at=at,
        since=at - HOUR,
        channel="#c",
        mention="",
        headline=f"{model} {stage}",
        doing="d",
        owner="o",
        **more,  # type: ignore[arg-type]
    )
    return Noted(model=model, at=at, notice=notice, incident=ID)


def acted(act: Act, hours: float = 0.0, **more: object) -> Acted:
    """Return that Ada did something."""
    given: dict[str, object] = {"model": DE, "who": "ada", "user": "U0ADA000"}
    return Acted(at=AT + hours * HOUR, incident=ID, act=act, **(given | more))  # type: ignore[arg-type]


OPENED = noted(Stage.OPENED)
OVER = noted(Stage.RECOVERED, 2)
ROLLOUT = {"alert": "rollout/eta-de#2"}


@pytest.mark.parametrize(
    ("facts", "status"),
    [
        ((OPENED,), Status.OPEN),
        ((OPENED, OVER), Status.RESOLVED),
        ((OPENED, noted(Stage.OPENED, model=FR), OVER), Status.OPEN),
        ((OPENED, OVER, noted(Stage.WORSENED, 3)), Status.OPEN),
        # Noted late, of before it was over: it changes nothing.
        ((OPENED, OVER, noted(Stage.WORSENED, 1)), Status.RESOLVED),
        ((OPENED, noted(Stage.PROMOTED, 1)), Status.OPEN),
        ((noted(Stage.HELD, **ROLLOUT), noted(Stage.PROMOTED, 1, **ROLLOUT)), Status.RESOLVED),
        ((noted(Stage.PROMOTED, **ROLLOUT), noted(Stage.STUCK, 1, **ROLLOUT)), Status.OPEN),
        ((noted(Stage.QUARANTINED, until=AT + 4 * HOUR),), Status.OPEN),
        ((noted(Stage.QUARANTINED, until=AT + 3 * HOUR),), Status.RESOLVED),
        ((OPENED, acted(Act.ACK, until=AT + 4 * HOUR)), Status.ACKED),
        ((OPENED, acted(Act.ACK, until=AT + 3 * HOUR)), Status.OPEN),
        ((OPENED, acted(Act.SILENCE, until=AT + 4 * HOUR)), Status.SILENCED),
        ((OPENED, acted(Act.SILENCE, until_version=True, version=1)), Status.SILENCED),
        ((OPENED, acted(Act.SILENCE, until_version=True, version=0)), Status.OPEN),
        ((OPENED, acted(Act.RESOLVE)), Status.RESOLVED),
        ((OPENED, acted(Act.NO_PROBLEM), OVER), Status.RESOLVED),
        ((OPENED, acted(Act.RESOLVE), noted(Stage.RETRAINING, 1)), Status.RESOLVED),
        ((OPENED, acted(Act.RESOLVE), noted(Stage.WORSENED, 1)), Status.OPEN),
        (
            (
                OPENED,
                acted(Act.ACK, until=AT + 9 * HOUR),
                acted(Act.SILENCE, until=AT + 4 * HOUR),
            ),
            Status.SILENCED,
        ),
    ],
)
def test_the_status_follows_from_the_facts(facts: tuple[Fact, ...], status: Status) -> None:
    """Three hours on, with version 1 answering."""
    found = fold(facts, now=AT + 3 * HOUR, versions={DE: 1})
    assert (found.status, found.asks == ()) == (status, status is Status.RESOLVED)


def test_what_explains_it_counts_while_it_is_open() -> None:
    """Acknowledged it is somebody's; over it is explained by nothing."""
    given = {"now": AT + 3 * HOUR, "explained_by": "larger"}
    assert fold((OPENED,), **given).status is Status.EXPLAINED  # type: ignore[arg-type]
    acked = fold((OPENED, acted(Act.ACK, until=AT + 9 * HOUR)), **given)  # type: ignore[arg-type]
    assert (acked.status, acked.explained_by) == (Status.ACKED, "larger")
    assert fold((OPENED, OVER), **given).explained_by is None  # type: ignore[arg-type]


def test_it_has_all_that_people_ask() -> None:
    """Its owner and group, the worst severity, the newest cause, each model's part."""
    facts = (
        Grouped(model=DE, at=AT, alert="eta-de/1", incident=ID, group="data/x", owner="ops"),
        noted(Stage.OPENED, severity=Severity.CRITICAL, origin=Origin.INPUTS),
        noted(Stage.OPENED, 1, model=FR, severity=Severity.INFO, origin=Origin.DATA),
        noted(Stage.RETRAINING, 1.5, severity=Severity.INFO),
        noted(Stage.RECOVERED, 2, model=FR, severity=Severity.INFO),
        Posted(
            model=DE,
            at=AT + HOUR,
            incident=ID,
            channel="#c",
            receipt=Receipt(channel="C", ts="1"),
            shown="",
        ),
    )
    found = fold(facts, now=AT + 3 * HOUR)
    assert (found.id, found.group, found.owner) == (ID, "data/x", "ops")
    assert (found.severity, found.origin) == (Severity.CRITICAL, Origin.DATA)
    assert (found.opened, found.since, found.told) == (AT, AT - HOUR, AT + HOUR)
    assert [(m.model, m.stage, m.over) for m in found.members] == [
        (DE, Stage.RETRAINING, None),
        (FR, Stage.RECOVERED, AT + 2 * HOUR),
    ]
    assert found.members[1].headline == "eta-fr opened"
    assert found.models == (DE, FR)


def rollout(phase: Phase, *, held: str | None = None) -> Rollout:
    """Return a rollout of version 2."""
    return Rollout(
        model=DE,
        order="eta-de/1",
        epoch=2,
        version=2,
        digest="",
        artifact="",
        champion=1,
        phase=phase,
        reason="",
        begun=AT,
        since=AT,
        held=held,
    )


ALL = (Act.ACK, Act.SILENCE)


@pytest.mark.parametrize(
    ("facts", "rollouts", "asks"),
    [
        ((OPENED,), {}, (*ALL, Act.RETRAIN, Act.NO_PROBLEM)),
        (
            (OPENED, acted(Act.ACK, until=AT + 9 * HOUR)),
            {},
            (Act.SILENCE, Act.RETRAIN, Act.NO_PROBLEM),
        ),
        ((OPENED, noted(Stage.RETRAINING, 1)), {}, (*ALL, Act.NO_PROBLEM)),
        ((noted(Stage.OPENED, origin=Origin.DATA),), {}, (*ALL, Act.NO_PROBLEM)),
        (
            (OPENED,),
            {DE: rollout(Phase.CANARY)},
            (*ALL, Act.HOLD, Act.PROMOTE, Act.ROLL_BACK, Act.NO_PROBLEM),
        ),
        (
            (noted(Stage.HELD, **ROLLOUT),),
            {DE: rollout(Phase.CANARY, held="ada")},
            (*ALL, Act.RESUME, Act.PROMOTE, Act.ROLL_BACK),
        ),
        (
            (noted(Stage.STUCK, **ROLLOUT),),
            {DE: rollout(Phase.STUCK)},
            (*ALL, Act.RESUME, Act.ROLL_BACK),
        ),
        (
            (OPENED, noted(Stage.PROMOTED, 1)),
            {DE: rollout(Phase.WATCHED)},
            (*ALL, Act.ROLL_BACK, Act.NO_PROBLEM),
        ),
        ((noted(Stage.QUARANTINED, alert="quarantine/eta-de/1"),), {}, ALL),
        ((noted(Stage.OPENED, model=PLATFORM),), {}, ALL),
    ],
)
def test_only_what_makes_sense_is_asked(
    facts: tuple[Fact, ...], rollouts: dict[ModelId, Rollout], asks: tuple[Act, ...]
) -> None:
    """A retraining of what is retrained, or of wrong data, is not; a rollout's acts if it runs."""
    assert fold(facts, now=AT + 3 * HOUR, rollouts=rollouts).asks == asks
    assert fold(facts, now=AT + 3 * HOUR, rollouts=rollouts, clickable=False).asks == ()


def test_what_it_shows_differs_where_something_happened() -> None:
    """Not because it became later, or because the message was posted."""
    before = fold((OPENED,), now=AT)
    posted = Posted(
        model=DE, at=AT, incident=ID, channel="#c", receipt=Receipt(channel="C", ts="1"), shown=""
    )
    assert shown(fold((OPENED, posted), now=AT + HOUR)) == shown(before)
    after = (
        fold((OPENED, noted(Stage.RETRAINING, 1)), now=AT + HOUR),
        fold((OPENED, acted(Act.ACK, until=AT + 9 * HOUR)), now=AT + HOUR),
        fold((OPENED,), now=AT, explained_by="larger"),
    )
    assert len({shown(each) for each in (before, *after)}) == 4


def test_one_notice_alone_is_an_incident_too() -> None:
    """For where no ledger is there to remember it: nothing can be clicked."""
    found = alone(OPENED.notice)
    assert (found.id, found.status, found.asks) == ("eta-de/1", Status.OPEN, ())


def test_nothing_noted_is_no_incident() -> None:
    """An act alone makes none."""
    with pytest.raises(ValueError, match="nothing was noted"):
        fold((acted(Act.ACK),), now=AT)
