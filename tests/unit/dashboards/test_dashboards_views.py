from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from dashboards.charts import chart, sparkline
from dashboards.facts import PAGE_MEASURED, ModelFacts, page_facts
from dashboards.fleet import row_view
from dashboards.moment import Moment, loop_view
from dashboards.points import Point, alarm_at, estimates, points
from dashboards.timeline import Marker, retrainings, timeline
from driftloop.clock import Clock
from driftloop.records import (
    Advanced,
    Candidate,
    Decided,
    Decision,
    Failed,
    Gated,
    GateResult,
    Head,
    Kind,
    Measured,
    ModelId,
    Moved,
    Notice,
    Order,
    Ordered,
    Paged,
    Phase,
    Reading,
    Receipt,
    Rollout,
    Stage,
    State,
    Trained,
    Window,
)
from driftloop.spec import Family, Fleet
from driftloop.wiring import System

NOW = datetime(2026, 3, 1, tzinfo=UTC)
WALL = Clock(origin=NOW, started=NOW, speed=1.0)
MODEL = ModelId("eta-de")
WINDOW = Window(model=MODEL, start=NOW - timedelta(days=14), end=NOW, known_at=NOW)
ORDER = Order(
    key="eta-de/1",
    model=MODEL,
    at=NOW,
    reason="decay",
    window=WINDOW,
    holdout_from=NOW - timedelta(days=7),
    seed=1,
)
MOVED = Moved(
    model=MODEL,
    at=NOW,
    head=Head(model=MODEL, epoch=1, version=1, digest="d", artifact="a"),
    previous=None,
    reason="first",
)
PASSED = GateResult(
    passed=True,
    reason="better",
    loss="mae",
    n=9,
    champion_loss=None,
    candidate_loss=1.0,
    gain=None,
    low=None,
    high=None,
    confidence=0.9,
)


def moment(
    after: timedelta,
    *,
    passed: timedelta | None = None,
    newest: timedelta | None = None,
    clock: Clock = WALL,
) -> Moment:
    """Look `after` the start; the last pass was `passed` after it, its window ended `newest`."""
    latest = passed if newest is None else newest
    return Moment(
        clock=clock,
        wall=NOW + after,
        newest=None if latest is None else NOW + latest,
        passed=None if passed is None else NOW + passed,
        watch_every=600.0,
    )


def decided(at: datetime, state: State = State.FRESH, **more: Any) -> Decided:
    """Return a bare decision."""
    key = f"{MODEL}/{at:%Y%m%dT%H%M%S}"
    decision = Decision(
        version=1,
        key=key,
        model=MODEL,
        at=at,
        state=state,
        reason=str(state),
        window=WINDOW,
        verdicts=(),
        **more,
    )
    return Decided(model=MODEL, at=at, decision=decision)


def seen(value: float | None, day: int = 0, **more: Any) -> Point:
    """Return a point with a baseline of 7 and a limit of 9."""
    known = {"low": None, "high": None, "n": 50, "baseline": 7.0, "limit": 9.0, "blind": False}
    return Point(at=NOW + timedelta(days=day), value=value, **{**known, **more})


@pytest.mark.parametrize(
    ("facts", "state", "word"),
    [
        (ModelFacts(), "no champion", None),
        (ModelFacts(moved=(MOVED,)), "not judged", None),
        (ModelFacts(ordered=(Ordered(model=MODEL, at=NOW, order=ORDER),)), "retraining", None),
        (
            ModelFacts(
                moved=(MOVED,),
                ordered=(Ordered(model=MODEL, at=NOW, order=ORDER),),
                failed=(Failed(model=MODEL, at=NOW, order_key=ORDER.key, error="boom"),),
            ),
            "not judged",
            "failed",
        ),
        (
            ModelFacts(
                moved=(MOVED,),
                ordered=(Ordered(model=MODEL, at=NOW, order=ORDER),),
                gated=(Gated(model=MODEL, at=NOW, order_key=ORDER.key, version=1, result=PASSED),),
                decided=(decided(NOW),),
            ),
            "fresh",
            "promoted",
        ),
        (
            ModelFacts(
                moved=(replace(MOVED, at=NOW - timedelta(days=1)),),
                gated=(Gated(model=MODEL, at=NOW, order_key=ORDER.key, version=2, result=PASSED),),
                failed=(Failed(model=MODEL, at=NOW, order_key=ORDER.key, error="stale head"),),
            ),
            "not judged",
            "failed",
        ),
    ],
    ids=["nothing", "served", "first order", "failed", "promoted", "passed and yet failed"],
)
def test_a_state_follows_from_the_facts(
    fleet: Fleet, eta: Family, facts: ModelFacts, state: str, word: str | None
) -> None:
    """The pill and the last retraining's outcome are what the newest facts say."""
    now = moment(timedelta(), passed=timedelta())
    row = row_view(eta, MODEL, facts, now, loop=loop_view(fleet, now, served=True))
    assert (row.state, row.retrain and row.retrain.what) == (state, word)


def advanced(phase: Phase, *, hours: int, held: str | None = None) -> Advanced:
    rollout = Rollout(
        model=MODEL,
        order=ORDER.key,
        epoch=hours,
        version=2,
        digest="",
        artifact="",
        champion=1,
        phase=phase,
        share=0.25 if phase is Phase.CANARY else 0.0,
        reason="so it is",
        begun=NOW,
        since=NOW,
        held=held,
    )
    return Advanced(model=MODEL, at=NOW + timedelta(hours=hours), rollout=rollout)


@pytest.mark.parametrize(
    ("step", "said", "notes"),
    [
        (advanced(Phase.CANARY, hours=2), "v2 in canary 25%", ()),
        (advanced(Phase.CANARY, hours=2, held="anna"), "v2 in canary 25%, held by anna", ()),
        (advanced(Phase.STUCK, hours=2), "v2 in stuck", ("so it is",)),
        (advanced(Phase.ROLLED_BACK, hours=2), None, ()),
    ],
)
def test_a_rollout_under_way_shows_beside_the_champion(
    fleet: Fleet, eta: Family, step: Advanced, said: str | None, notes: tuple[str, ...]
) -> None:
    """How far it has come and who holds it; one that is stuck is something to look at."""
    now = moment(timedelta(), passed=timedelta())
    facts = ModelFacts(moved=(MOVED,), advanced=(advanced(Phase.SHADOW, hours=1), step))
    row = row_view(eta, MODEL, facts, now, loop=loop_view(fleet, now, served=True))
    assert (row.rollout, row.notes, row.urgent) == (said, notes, bool(notes))
    assert row.epoch == 2, "as answers say it"
    assert [event.what for event in timeline(facts)][:2] == ["rollout", "rollout"]


def test_a_challenger_that_was_rolled_back_was_not_promoted(eta: Family) -> None:
    """Also where another version became champion later."""
    gated = Gated(model=MODEL, at=NOW, order_key=ORDER.key, version=2, result=PASSED)
    later = replace(MOVED, at=NOW + timedelta(days=1))
    (event,) = retrainings(ModelFacts(moved=(later,), gated=(gated,)))
    assert event.what == "passed"


@pytest.mark.parametrize("phase", [Phase.ROLLING_BACK, Phase.ROLLED_BACK])
def test_a_version_that_its_rollout_took_back_says_so_and_why(
    fleet: Fleet, eta: Family, phase: Phase
) -> None:
    """It passed its gate, and was even champion for a while."""
    gated = Gated(model=MODEL, at=NOW, order_key=ORDER.key, version=2, result=PASSED)
    swapped = Moved(
        model=MODEL, at=NOW, head=replace(MOVED.head, epoch=2, version=2), previous=1, reason="ok"
    )
    facts = ModelFacts(
        moved=(MOVED, swapped),
        gated=(gated,),
        advanced=(advanced(Phase.WATCHED, hours=1), advanced(phase, hours=2)),
    )
    now = moment(timedelta(), passed=timedelta())
    row = row_view(eta, MODEL, facts, now, loop=loop_view(fleet, now, served=True))
    assert row.retrain is not None
    assert (row.retrain.what, row.retrain.tone) == ("rolled back", "warn")
    assert row.retrain.headline == "version 2: so it is"


def test_a_retraining_that_never_ends_is_noted(fleet: Fleet, eta: Family) -> None:
    """Past its limit and some patience a retraining is something to look at."""
    facts = ModelFacts(moved=(MOVED,), ordered=(Ordered(model=MODEL, at=NOW, order=ORDER),))

    def notes(after: timedelta) -> tuple[str, ...]:
        now = moment(after, passed=after)
        return row_view(eta, MODEL, facts, now, loop=loop_view(fleet, now, served=True)).notes

    assert notes(timedelta(seconds=170)) == ()
    assert notes(timedelta(seconds=190)) == (
        "retraining has come to nothing in 3 min, its limit is 60 s",
    )


def test_a_model_that_passes_leave_out_is_noted(fleet: Fleet, eta: Family) -> None:
    """When others are judged and one is not, its line says so."""
    facts = ModelFacts(moved=(MOVED,), decided=(decided(NOW),))
    after = timedelta(days=3)
    now = moment(after, passed=after)
    row = row_view(eta, MODEL, facts, now, loop=loop_view(fleet, now, served=True))
    assert row.notes == ("not judged for 3 d, due every 24 h",)
    assert row.urgent


@pytest.mark.parametrize(
    ("hours", "warned"), [(0.1, False), (24.4, False), (24.6, True), (100.0, True)]
)
def test_a_pass_is_late_after_its_cadence_and_three_intervals(
    fleet: Fleet, hours: float, *, warned: bool
) -> None:
    """A fleet measured once a day is not late an hour after it was measured."""
    now = moment(timedelta(hours=hours), passed=timedelta())
    loop = loop_view(fleet, now, served=True)
    assert (loop.warning is not None) == warned


def test_no_pass_at_all_is_a_warning_once_something_is_served(fleet: Fleet) -> None:
    """An empty installation is quiet; a served fleet that nobody watches is not."""
    now = moment(timedelta())
    assert loop_view(fleet, now, served=False).warning is None
    assert loop_view(fleet, now, served=True).warning is not None


def test_nothing_is_late_while_the_clock_stands(fleet: Fleet, eta: Family) -> None:
    """Once the demo's year is over nothing falls due, however long one looks at it."""
    clock = Clock(origin=NOW, started=datetime(9999, 1, 1, tzinfo=UTC), speed=1.0)
    facts = ModelFacts(
        moved=(replace(MOVED, at=NOW - timedelta(days=90)),),
        decided=(decided(NOW - timedelta(days=3)),),
        ordered=(Ordered(model=MODEL, at=NOW, order=ORDER),),
    )
    for passed in (None, timedelta()):
        now = moment(timedelta(days=30), passed=passed, clock=clock)
        loop = loop_view(fleet, now, served=True)
        assert (loop.speed, loop.warning) == (0.0, None)
        assert row_view(eta, MODEL, facts, now, loop=loop).notes == ()


def test_a_clock_set_back_is_a_warning(fleet: Fleet) -> None:
    """Facts from the loop's future mean that nothing will be due for long."""
    now = moment(timedelta(), passed=timedelta(), newest=timedelta(days=9))
    loop = loop_view(fleet, now, served=True)
    assert loop.warning is not None
    assert "set back" in loop.warning


def test_like_decisions_are_told_once() -> None:
    """Only changes of state, incident or blocking are on the timeline, and each retraining."""
    hours = [NOW + timedelta(hours=h) for h in range(7)]
    decisions = (
        decided(hours[0]),
        decided(hours[1]),
        decided(hours[2], State.DECAYING, incident="i", opens=True, retrain=True),
        decided(hours[3], State.DECAYING, incident="i", blocked="cooling down until 1"),
        decided(hours[4], State.DECAYING, incident="i", blocked="cooling down until 2"),
        decided(hours[5], incident="i"),
        decided(hours[6], resolves="i"),
    )
    told = timeline(ModelFacts(decided=decisions))
    assert [event.at for event in told] == [hours[i] for i in (6, 5, 3, 2, 0)]
    assert told[3].headline == "decaying, opens an incident, asks for a retraining"


def test_a_cut_past_does_not_begin_with_a_change() -> None:
    """The first decision of a past that is cut is not shown as if it had changed something."""
    many = tuple(decided(NOW + timedelta(hours=h)) for h in range(PAGE_MEASURED))
    assert timeline(ModelFacts(decided=many)) == ()


@pytest.mark.parametrize(
    "points",
    [
        [seen(7.0)],
        [seen(7.0, baseline=None, limit=None)],
        [seen(7.0, 0), seen(7.0, 0)],
        [seen(None, 0), seen(7.5, 1), seen(None, 2), seen(9.5, 3, low=-1e9, high=1e9)],
        [seen(0.0, d, baseline=0.0, limit=0.0) for d in range(3)],
        [seen(1e-9, 0, baseline=None, limit=None), seen(1e12, 1)],
    ],
    ids=["one", "bare", "same time", "gaps", "flat zero", "far apart"],
)
def test_any_points_draw_as_well_formed_svg(points: list[Point]) -> None:
    """Charts of strange series are valid, titled, escaped and hold no NaN."""
    bad = "</title><script>&"
    marks = [Marker(at=NOW, what=what, label=bad) for what in ("page", "retrain", "swap")]
    for drawn in (
        sparkline(points, title=bad),
        chart(points, marks, title=bad, unit="<min>"),
    ):
        svg = ET.fromstring(drawn)  # noqa: S314 - made here
        assert svg.find("title").text == bad  # type: ignore[union-attr]
        assert "nan" not in drawn
        assert "inf" not in drawn.replace("info", "")


def test_nothing_measured_draws_nothing() -> None:
    """No values, no picture: the page says so in words."""
    assert sparkline([seen(None)], title="t") == ""
    assert chart([], [], title="t", unit="") == ""


def test_the_chart_marks_what_it_is_told() -> None:
    """Points over the limit, windows too small to judge, swaps and pages can be told apart."""
    points = [seen(7.0, 0), seen(9.5, 1), seen(8.0, 2, blind=True)]
    drawn = chart(
        points,
        [
            Marker(at=NOW + timedelta(days=1), what="page", label="p"),
            Marker(at=NOW - timedelta(days=90), what="swap", label="before the chart"),
        ],
        title="t",
        unit="min",
    )
    assert [drawn.count(f'class="dot {kind}"') for kind in ("seen", "over", "blind")] == [1, 1, 1]
    assert [drawn.count(f'class="mark {what}"') for what in ("page", "swap")] == [1, 0]


def test_a_metric_that_is_better_high_alarms_below_its_baseline(eta: Family) -> None:
    """The line of the alarm stands on the side where the metric is worse."""
    assert alarm_at(10.0, eta) == pytest.approx(13.0)
    r2 = eta.model_copy(update={"decay": eta.decay.model_copy(update={"metric": "r2"})})
    assert alarm_at(0.8, r2) == pytest.approx(0.56)
    assert alarm_at(-1.0, r2) == pytest.approx(-1.3)


def test_a_page_asks_for_a_bounded_past(
    installed: Callable[..., System], tell: Callable[[System, str], Any]
) -> None:
    """The newest facts are kept and the older left where they are."""
    system = installed(eta=("good",), churn=("none",))
    tell(system, "eta-good")
    facts = page_facts(system.ledger, ModelId("eta-good"))
    assert len(facts.measured) == len(facts.decided) == 6
    assert len(facts.trained) == len(facts.gated) == len(facts.moved) == 1


def test_bad_data_in_an_open_incident_is_an_event_of_its_own() -> None:
    """It belongs to no retraining: a blocked incident stands on the timeline by itself."""
    notice = Notice(
        key="eta-de/opened/blocked/eta-de/later",
        incident="eta-de/opened",
        model=ModelId("eta-de"),
        stage=Stage.BLOCKED,
        at=NOW,
        since=NOW,
        channel="#ml",
        mention="@here",
        headline="eta-de: its data is at fault",
        doing="Not retraining: the data is at fault.",
    )
    fact = Paged(model=notice.model, at=NOW, notice=notice, receipt=Receipt(channel="C1", ts="1.0"))
    (event,) = timeline(ModelFacts(paged=(fact,)))
    assert (event.what, event.tone) == ("blocked", "bad")
    assert event.detail == "told in #ml: Not retraining: the data is at fault."


def test_what_was_found_answering_is_not_called_trained() -> None:
    """Nothing was fitted or lowered: no seconds, and no parity."""
    candidate = Candidate(
        order=ORDER,
        digest="d",
        folder="f",
        rows=2_000,
        holdout_rows=300,
        metrics=(),
        parity=0.0,
        fit_seconds=0.0,
        lower_seconds=0.0,
        found=True,
    )
    made = Trained(model=MODEL, at=NOW, version=1, candidate=candidate)
    begun = Ordered(model=MODEL, at=NOW, order=ORDER)
    (event,) = timeline(ModelFacts(ordered=(begun,), trained=(made,)))
    assert [step.what for step in event.steps] == ["ordered", "found"]
    assert "fitted" not in event.steps[1].said


def test_segments_are_no_points_of_the_models_line(eta: Family) -> None:
    """The chart shows all rows: one point a window, however many segments were measured."""
    whole = Reading(kind=Kind.DECAY, metric="mae", column=None, value=7.0, n=400, baseline=7.1)
    part = replace(whole, value=14.2, n=120, segment="vehicle=van")
    window = Window(model=ModelId("eta-de"), start=NOW, end=NOW, known_at=NOW)
    fact = Measured(
        model=window.model, at=NOW, window=window, rows=9, labels=9, readings=(whole, part)
    )
    (point,) = points([fact], eta)
    assert (point.value, point.n) == (7.0, 400)


def test_an_estimate_stands_beside_what_labels_say(eta: Family) -> None:
    """All rows first, then the parts; what is unknown has its reason, without the first word."""
    told = Reading(
        kind=Kind.ESTIMATE, metric="mae", column=None, value=7.2, n=400, low=6.9, high=7.6
    )
    newest = replace(
        told, value=None, n=3, low=None, high=None, problem="UNKNOWN: why", segment="age=newest"
    )
    doubt = replace(told, metric="doubted", value=0.4)
    window = Window(model=ModelId("eta-de"), start=NOW, end=NOW, known_at=NOW)
    readings = (told, newest, doubt)
    fact = Measured(model=window.model, at=NOW, window=window, rows=9, labels=9, readings=readings)
    found = estimates([fact], eta)
    assert [(b.of, b.value, b.labels, b.problem) for b in found] == [
        ("all rows", 7.2, 400, None),
        ("rows younger than most labels are", None, 3, "why"),
    ]
    assert points([fact], eta) == ()
