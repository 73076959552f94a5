"""The daily digest: when it is due, and what it says of a day."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest

from driftloop.incident.day import Day, digest_of, due, due_at
from driftloop.records import (
    Decision,
    Digest,
    Failed,
    Gated,
    GateResult,
    Head,
    Incident,
    Member,
    ModelId,
    Moved,
    Notice,
    Origin,
    Quarantined,
    Relayed,
    Severity,
    Stage,
    State,
    Status,
    Window,
)
from driftloop.spec import Owner

AT = datetime(2026, 3, 10, 8, 0, tzinfo=UTC)
DE, FR = ModelId("eta-de"), ModelId("eta-fr")


def decision(model: ModelId, state: State = State.FRESH, **more: object) -> Decision:
    window = Window(model=model, start=AT, end=AT, known_at=AT)
    made = Decision(
        key=f"{model}/d",
        model=model,
        at=AT,
        state=state,
        reason="r",
        version=1,
        window=window,
        verdicts=(),
    )
    return replace(made, **more)  # type: ignore[arg-type]


def day(*models: ModelId, **more: object) -> Day:
    every = models or (DE, FR)
    return Day(
        owner="logistics",
        since=AT - timedelta(days=1),
        until=AT,
        models=every,
        **{"decisions": {model: decision(model) for model in every}, **more},  # type: ignore[arg-type]
    )


def incident(n: int = 0, status: Status = Status.OPEN, **more: object) -> Incident:
    model = ModelId(f"m{n:03}")
    notice = Notice(
        key=f"{model}/a/opened",
        incident=f"{model}/a",
        model=model,
        stage=Stage.OPENED,
        at=AT,
        since=AT,
        channel="#eta",
        mention="",
        headline=f"{model}: errors doubled",
        doing="",
    )
    made = Incident(
        id=notice.incident,
        group="",
        owner="logistics",
        severity=Severity.WARNING,
        origin=Origin.UNKNOWN,
        status=status,
        opened=AT,
        since=AT,
        members=(
            Member(
                alert=notice.incident,
                model=model,
                stage=Stage.OPENED,
                since=AT,
                at=AT,
                headline=notice.headline,
            ),
        ),
        notices=(notice,),
    )
    return replace(made, **more)  # type: ignore[arg-type]


def told(given: Day) -> Digest:
    digest = digest_of(given, key="digest/logistics/2026-03-10")
    assert digest is not None
    return digest


def section(digest: Digest, title: str) -> tuple[str, ...]:
    return dict(digest.sections)[title]


@pytest.mark.parametrize(
    ("zone", "now", "expected"),
    [
        ("UTC", datetime(2026, 3, 10, 7, 59, tzinfo=UTC), None),
        ("UTC", datetime(2026, 3, 10, 8, 0, tzinfo=UTC), date(2026, 3, 10)),
        ("UTC", datetime(2026, 3, 10, 23, 59, tzinfo=UTC), date(2026, 3, 10)),
        ("Asia/Tokyo", datetime(2026, 3, 9, 22, 59, tzinfo=UTC), None),
        ("Asia/Tokyo", datetime(2026, 3, 9, 23, 0, tzinfo=UTC), date(2026, 3, 10)),
        ("Europe/Berlin", datetime(2026, 3, 28, 7, 0, tzinfo=UTC), date(2026, 3, 28)),
        ("Europe/Berlin", datetime(2026, 3, 29, 6, 0, tzinfo=UTC), date(2026, 3, 29)),
    ],
)
def test_a_digest_is_due_from_its_local_time_on(
    zone: str, now: datetime, expected: date | None
) -> None:
    """In the owner's zone, through the change of the clocks, until the local day ends."""
    found = due(Owner(channel="#eta", time_zone=zone), now)
    assert (found[0] if found else None) == expected
    assert found is None or found[1] <= now


def test_who_wants_no_digest_has_none_due() -> None:
    """An empty time says so."""
    assert due(Owner(channel="#eta", digest=""), AT) is None  # type: ignore[arg-type]


def test_a_time_that_the_clock_leaps_over_is_due_all_the_same() -> None:
    """02:30 does not exist on that day in Berlin."""
    berlin = Owner(channel="#eta", time_zone="Europe/Berlin", digest="02:30")
    assert due_at(berlin, date(2026, 3, 29)) == datetime(2026, 3, 29, 1, 30, tzinfo=UTC)


def test_a_quiet_day_is_one_line() -> None:
    """Nothing wrong, nothing done: no sections to read."""
    digest = told(day())
    assert digest.headline == "2 models, all fresh; a quiet day"
    assert digest.sections == ()


def test_who_has_no_models_and_nothing_to_hear_is_told_nothing() -> None:
    """An owner of data alone hears of their incidents, and else of nothing."""
    nobody = Day(owner="feeds", since=AT, until=AT, models=())
    assert digest_of(nobody, key="k") is None
    theirs = digest_of(replace(nobody, incidents=(incident(),)), key="k")
    assert theirs is not None
    assert theirs.headline == "1 incident (1 open)"


def test_health_is_counted_first_and_named_then() -> None:
    """What is wrong by name; what is well as a number."""
    states = {
        DE: decision(DE, State.DECAYING),
        FR: decision(FR),
        ModelId("eta-uk"): decision(ModelId("eta-uk"), State.BLIND),
    }
    digest = told(day(DE, FR, ModelId("eta-uk"), ModelId("eta-it"), decisions=states))
    assert digest.headline == "4 models: 1 fresh, 1 decaying, 1 blind, 1 not looked at yet"
    assert section(digest, "Health") == ("decaying: eta-de", "blind: eta-uk")


def test_models_that_nobody_looked_at_are_no_quiet_day() -> None:
    """Nothing is known of them: they are not called fresh."""
    digest = told(day(decisions={}))
    assert digest.headline == "2 models: 2 not looked at yet"


def test_hundreds_of_models_fit_in_a_line() -> None:
    """Eight are named, and how many more there are."""
    models = tuple(ModelId(f"m{n:03}") for n in range(300))
    states = {model: decision(model, State.DRIFTING) for model in models}
    (line,) = section(told(day(*models, decisions=states)), "Health")
    assert line.startswith("drifting: 300: m000, m001,")
    assert line.endswith("m007 and 292 more")


def test_incidents_tell_who_has_them() -> None:
    """Open ones first, then those that somebody has; what ended is named."""
    digest = told(
        day(
            incidents=(
                incident(1, Status.ACKED, who="Ada", until=AT + timedelta(hours=8)),
                incident(2),
                incident(3, Status.SILENCED, who="Grace", until_version=True),
                incident(4, Status.RESOLVED, resolved=AT),
            )
        )
    )
    assert "3 incidents (1 open, 1 acked, 1 silenced)" in digest.headline
    first, second, third, last = section(digest, "Incidents")
    assert first == "m002: errors doubled. Open since 10 Mar 2026 08:00 UTC."
    assert second.startswith("m001: errors doubled. Ada has it until 10 Mar 2026 16:00 UTC;")
    assert "until the next version" in third
    assert last == "over: m004: errors doubled"


def test_many_incidents_are_cut_and_counted() -> None:
    """A bad day is still read in a minute."""
    lines = section(told(day(incidents=tuple(incident(n) for n in range(50)))), "Incidents")
    assert len(lines) == 9
    assert lines[-1] == "and 42 more; `driftloop incidents` lists them"


def moved(model: ModelId, version: int, previous: int | None, reason: str = "gate") -> Moved:
    head = Head(model=model, epoch=version, version=version, digest="d", artifact="a")
    return Moved(model=model, at=AT, head=head, previous=previous, reason=reason)


def test_versions_that_came_and_went_are_told() -> None:
    """Promoted, refused with why, rolled back with why."""
    refused = GateResult(
        passed=False,
        reason="not better\nthan the champion",
        loss="mae",
        n=100,
        champion_loss=1.0,
        candidate_loss=1.1,
        gain=None,
        low=None,
        high=None,
        confidence=0.9,
    )
    digest = told(
        day(
            moved=(moved(DE, 3, 2), moved(FR, 4, 5, "Ada rolled it back")),
            gated=(Gated(model=FR, at=AT, order_key="o", version=5, result=refused),),
        )
    )
    assert section(digest, "New versions") == (
        "promoted: eta-de (version 3)",
        "refused: eta-fr (not better than the champion)",
        "rolled back: eta-fr (Ada rolled it back)",
    )


def test_what_the_loop_could_not_do_is_told() -> None:
    """Fits that failed, retrainings that were held back and why, passes that had problems."""
    blocked = decision(DE, State.DATA_FAULT, blocked="its data is at fault")
    digest = told(
        day(
            decisions={DE: blocked, FR: decision(FR)},
            failed=(Failed(model=FR, at=AT, order_key="o", error="out of memory " * 50),),
            waiting=(FR,),
            problems=("eta-de: the log cannot be read",) * 3,
        )
    )
    lines = section(digest, "What the loop could not do")
    assert lines[0].startswith("eta-fr could not be retrained: out of memory")
    assert len(lines[0]) < 250
    assert lines[1:] == (
        "not retrained (its data is at fault): eta-de",
        "retrainings that wait for their turn: eta-fr",
        "eta-de: the log cannot be read (3 times)",
    )


def test_rows_in_quarantine_denied_pages_and_other_ways_are_told() -> None:
    """How many, until when, and against which budget."""
    bad = Quarantined(
        model=DE,
        at=AT,
        start=AT - timedelta(days=2),
        end=AT - timedelta(days=1),
        reasons=("rows",),
        until=AT + timedelta(days=30),
        rows=1200,
    )
    relayed = Relayed(model=DE, at=AT, incident="i", way="e-mail", to="a@b", why="w")
    digest = told(day(quarantined=(bad, bad), denied=3, allowed=4.0, relayed=(relayed,)))
    assert section(digest, "Left out") == (
        "rows in quarantine, which train nothing: eta-de (2,400 rows, until 2026-04-09)",
    )
    assert section(digest, "Pages that were none") == (
        "3 in the last four weeks, by what people said; 4 may be",
    )
    assert section(digest, "Told another way") == (
        "1 incident by e-mail, as Slack was out of reach",
    )
