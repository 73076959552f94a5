"""The judge, by tables: verdicts, states, hysteresis, cooldown, incidents."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftloop.judge import decide, is_due, judged, window_at
from driftloop.records import (
    Decision,
    Kind,
    Level,
    ModelHistory,
    ModelId,
    Order,
    Reading,
    State,
    Window,
)
from driftloop.spec import Family, Feature

DE = ModelId("eta-de")
NOW = datetime(2026, 3, 1, tzinfo=UTC)


def mae(value: float | None, *, n: int = 100, low: float | None = None) -> Reading:
    return Reading(
        kind=Kind.DECAY, metric="mae", column=None, value=value, n=n, low=low, baseline=10.0
    )


def volume(n: int) -> Reading:
    return Reading(kind=Kind.QUALITY, metric="volume", column=None, value=float(n), n=n)


def shift(column: str, value: float, *, p: float = 1e-9, n: int = 100) -> Reading:
    return Reading(
        kind=Kind.DRIFT, metric="wasserstein", column=column, value=value, n=n, p_value=p
    )


def decision(
    eta: Family, *readings: Reading, history: ModelHistory | None = None, now: datetime = NOW
) -> Decision:
    return decide(
        family=eta,
        window=window_at(eta, DE, now=now),
        readings=readings,
        history=history or ModelHistory(),
        now=now,
    )


def after(*decisions: Decision, orders: tuple[Order, ...] = ()) -> ModelHistory:
    return ModelHistory(decisions=decisions, orders=orders)


def order_at(at: datetime) -> Order:
    window = Window(model=DE, start=at, end=at, known_at=at)
    return Order(key="k", model=DE, at=at, reason="r", window=window, holdout_from=at, seed=1)


@pytest.mark.parametrize(
    ("reading", "level"),
    [
        pytest.param(mae(10.0), Level.OK, id="as-released"),
        pytest.param(mae(8.0), Level.OK, id="better"),
        pytest.param(mae(11.4), Level.OK, id="under-warn"),
        pytest.param(mae(11.5), Level.WARN, id="at-warn"),
        pytest.param(mae(13.0), Level.ALARM, id="at-alarm"),
        pytest.param(mae(13.0, low=9.9), Level.WARN, id="large-but-within-noise"),
        pytest.param(mae(13.0, low=10.1), Level.ALARM, id="large-and-sure"),
        pytest.param(mae(99.0, n=29), Level.BLIND, id="too-few-labels"),
        pytest.param(mae(None), Level.BLIND, id="unmeasurable"),
        pytest.param(replace(mae(99.0), baseline=None), Level.BLIND, id="no-baseline"),
        pytest.param(shift("load", 0.3), Level.ALARM, id="drift"),
        pytest.param(shift("load", 0.3, p=1e-4), Level.OK, id="drift-not-sure"),
        pytest.param(shift("load", 0.09), Level.OK, id="drift-sure-but-small"),
        pytest.param(shift("load", 0.1), Level.WARN, id="drift-warn"),
        pytest.param(shift("load", 9.0, n=49), Level.BLIND, id="drift-too-few-rows"),
        pytest.param(volume(50), Level.OK, id="volume"),
        pytest.param(volume(49), Level.BLIND, id="volume-too-low"),
    ],
)
def test_a_reading_gets_its_level(eta: Family, reading: Reading, level: Level) -> None:
    """Each reading is judged by size, certainty and sample size, with a reason."""
    (verdict,) = judged([reading], eta)
    assert verdict.level == level
    assert verdict.reason


def test_a_metric_that_is_better_when_higher_decays_downwards(churn: Family) -> None:
    """For ROC AUC a fall is decay and a rise is not."""
    by_auc = churn.model_copy(
        update={"decay": churn.decay.model_copy(update={"metric": "roc_auc"})}
    )
    fell, rose = (
        Reading(kind=Kind.DECAY, metric="roc_auc", column=None, value=v, n=99, baseline=0.8)
        for v in (0.6, 0.95)
    )
    assert [v.level for v in judged([fell, rose], by_auc)] == [Level.ALARM, Level.OK]


@pytest.mark.parametrize(
    ("metric", "value", "baseline", "level"),
    [
        ("null_share", 0.25, 0.0, Level.ALARM),
        ("null_share", 0.25, 0.2, Level.OK),
        ("out_of_range", 0.05, None, Level.ALARM),
        ("out_of_range", 0.01, None, Level.OK),
        ("unseen", 0.3, None, Level.ALARM),
        ("unseen", 0.3, 0.25, Level.OK),
        ("empty_share", 0.3, 0.0, Level.ALARM),
        ("empty_share", 0.3, 0.25, Level.OK),
        ("duplicates", 0.06, None, Level.ALARM),
        ("freshness", 72.0, None, Level.ALARM),
        ("freshness", 71.0, None, Level.OK),
    ],
)
def test_data_faults_have_limits(
    eta: Family, metric: str, value: float, baseline: float | None, level: Level
) -> None:
    """What is usual in the reference is no fault; of ranges, duplicates and age nothing is."""
    reading = Reading(
        kind=Kind.QUALITY, metric=metric, column="load", value=value, n=100, baseline=baseline
    )
    assert [v.level for v in judged([reading], eta)] == [level]


@pytest.mark.parametrize(
    ("metric", "usual", "worse"), [("fpr", 0.1, 0.2), ("tnr", 0.9, 0.6), ("recall", 0.9, 0.6)]
)
def test_each_metric_is_worse_in_its_own_direction(
    churn: Family, metric: str, usual: float, worse: float
) -> None:
    """More false positives are decay, and fewer true ones."""
    judges = churn.model_copy(update={"decay": churn.decay.model_copy(update={"metric": metric})})
    readings = [
        Reading(kind=Kind.DECAY, metric=metric, column=None, value=v, n=99, baseline=usual)
        for v in (worse, usual, 2 * usual - worse)
    ]
    assert [v.level for v in judged(readings, judges)] == [Level.ALARM, Level.OK, Level.OK]


def of(segment: str, value: float | None, metric: str = "mae") -> Reading:
    return Reading(kind=Kind.DECAY, metric=metric, column=None, value=value, n=120, segment=segment)


def test_segments_say_where_and_never_whether(eta: Family) -> None:
    """However bad a segment is the state is that of all rows; the worst are told of what decays."""
    parts = [of("c=a", 9.0), of("c=b", 99.0), of("c=c", None), of("c=d", 50.0), of("c=e", 60.0)]
    fine = decision(eta, volume(100), mae(10.0), *parts)
    assert (fine.state, fine.worst, len(fine.verdicts)) == (State.FRESH, (), 2)
    bad = decision(eta, volume(100), mae(14.0), *parts)
    assert bad.state == State.DECAYING
    assert [reading.segment for reading in bad.worst] == ["c=b", "c=e", "c=d"]
    assert replace(bad, worst=()) == decision(eta, volume(100), mae(14.0))


def test_the_worst_segment_is_the_lowest_where_higher_is_better(churn: Family) -> None:
    """By ROC AUC 0.5 is worse than 0.55; 0.9 is better than the model as a whole."""
    judges = churn.model_copy(
        update={"decay": churn.decay.model_copy(update={"metric": "roc_auc"})}
    )
    fell = Reading(kind=Kind.DECAY, metric="roc_auc", column=None, value=0.6, n=99, baseline=0.8)
    found = {"c=a": 0.55, "c=b": 0.5, "c=c": 0.9}
    parts = [of(segment, value, "roc_auc") for segment, value in found.items()]
    assert [r.segment for r in decision(judges, volume(99), fell, *parts).worst] == ["c=b", "c=a"]


def test_the_numbers_of_a_text_count_as_one_column(eta: Family) -> None:
    """A third of the columns must drift: one text with three numbers is a quarter of four."""
    features = {**eta.features, "comment": Feature(kind="text")}
    telling = eta.model_copy(update={"features": features})
    readings = [volume(100), mae(10.0)]
    readings += [shift(f"comment.{said}", 0.9) for said in ("length", "words", "non_ascii")]
    assert decision(telling, *readings).state == State.FRESH
    assert decision(telling, *readings, shift("load", 0.9)).state == State.DRIFTING


def test_decay_opens_one_incident_and_orders_one_retraining(eta: Family) -> None:
    """The first alarm pages and retrains; the next in the same incident does neither."""
    first = decision(eta, volume(99), mae(14.0))
    assert (first.state, first.opens, first.retrain) == (State.DECAYING, True, True)
    later = NOW + timedelta(days=1)
    second = decision(
        eta, volume(99), mae(14.0), history=after(first, orders=(order_at(NOW),)), now=later
    )
    assert (second.opens, second.incident, second.retrain) == (False, first.incident, False)
    assert second.blocked is not None
    assert "cooling down until 2026-03-08" in second.blocked
    assert second.since == NOW


def test_an_incident_resolves_after_enough_calm_and_not_before(eta: Family) -> None:
    """Hysteresis: resolve_after = 2 decisions in a row without an alarm."""
    bad = decision(eta, volume(99), mae(14.0))
    calm = decision(eta, volume(99), mae(9.0), history=after(bad))
    assert (calm.incident, calm.resolves) == (bad.incident, None)
    calmer = decision(eta, volume(99), mae(9.0), history=after(bad, calm))
    assert (calmer.incident, calmer.resolves) == (None, bad.incident)
    again = decision(
        eta, volume(99), mae(14.0), history=after(calmer), now=NOW + timedelta(days=30)
    )
    assert again.opens
    assert again.incident != bad.incident


def test_what_may_still_be_worse_has_not_recovered(eta: Family) -> None:
    """Worse than the warning limit, if only within its noise: the incident stays open."""
    made = decision(eta, volume(99), mae(14.0))
    for _ in range(5):
        made = decision(eta, volume(99), mae(12.5, low=9.0), history=after(made))
        assert (made.state, made.resolves, made.calm) == (State.FRESH, None, 0)
    assert made.incident is not None


def test_blind_neither_alarms_nor_calms(eta: Family) -> None:
    """BLIND is not OK: an open incident stays open however long nothing can be seen."""
    bad = decision(eta, volume(99), mae(14.0))
    blind = bad
    for _ in range(5):
        blind = decision(eta, volume(99), mae(9.0, n=3), history=after(blind))
    assert blind.state == State.BLIND
    assert (blind.incident, blind.resolves, blind.calm) == (bad.incident, None, 0)
    assert "3 labels, at least 30 are needed" in blind.reason


def test_open_after_two_waits_for_the_second(eta: Family) -> None:
    """open_after = 2 neither pages nor retrains at the first alarm."""
    patient = eta.model_copy(
        update={"hysteresis": eta.hysteresis.model_copy(update={"open_after": 2})}
    )
    first = decision(patient, volume(99), mae(14.0))
    second = decision(patient, volume(99), mae(14.0), history=after(first))
    assert [(d.opens, d.retrain) for d in (first, second)] == [(False, False), (True, True)]


def test_bad_data_pages_and_blocks_retraining(eta: Family) -> None:
    """A data fault is never answered with a retraining, even when the model decays as well."""
    nulls = Reading(
        kind=Kind.QUALITY, metric="null_share", column="load", value=0.9, n=99, baseline=0.0
    )
    made = decision(eta, volume(99), nulls, mae(20.0))
    assert (made.state, made.opens, made.retrain) == (State.DATA_FAULT, True, False)
    assert made.blocked is not None
    assert "data is at fault" in made.blocked


def test_drift_alone_is_evidence_not_harm(eta: Family) -> None:
    """Drift without decay opens no incident, and retrains only where the policy says so."""
    drifted = (volume(99), mae(10.0), shift("load", 2.0))
    quiet = decision(eta, *drifted)
    assert (quiet.state, quiet.opens, quiet.retrain) == (State.DRIFTING, False, False)
    eager = eta.model_copy(
        update={"retrain": eta.retrain.model_copy(update={"triggers": ("drift",)})}
    )
    assert decision(eager, *drifted).retrain


def test_a_reason_is_in_plain_words(eta: Family) -> None:
    """It names state, metric, size, baseline and sample size, and what follows."""
    made = decision(eta, volume(99), mae(14.0))
    assert made.reason == (
        "decaying: mean absolute error 14 is 40% worse than its baseline 10, n=100, limit 30%; "
        "retraining because of decay"
    )


def test_few_drifted_columns_are_not_a_drifting_model_but_the_prediction_is(eta: Family) -> None:
    """A share of the features must move (0.3 of three), or the prediction itself."""
    sparse = eta.model_copy(update={"drift": eta.drift.model_copy(update={"columns": 0.5})})
    calm = (volume(99), mae(10.0))
    assert decision(sparse, *calm, shift("load", 2.0)).state == State.FRESH
    assert decision(sparse, *calm, shift("prediction", 2.0)).state == State.DRIFTING


def test_a_model_without_anything_measured_is_blind(eta: Family) -> None:
    """No readings at all is BLIND with a reason, never FRESH."""
    assert decision(eta).state == State.BLIND


def test_cadence_decides_who_is_due(eta: Family) -> None:
    """A model is due once in each turn of its cadence of a day, counted as schedules are."""
    made = decision(eta, volume(99), mae(10.0))
    history = after(made)
    assert is_due(eta, ModelHistory(), now=NOW)
    assert not is_due(eta, history, now=NOW + timedelta(hours=23))
    assert is_due(eta, history, now=NOW + timedelta(days=1))


@pytest.mark.parametrize(
    "late", [(0.9, 0.3, 0.0), (30.0, 0.0, 29.9), (0.0, 400.0, 0.0), (0.3, -0.2, 0.1)]
)
def test_no_turn_is_missed_however_late_passes_are(eta: Family, late: tuple[float, ...]) -> None:
    """Every ten minutes, passes come late or early: each finds its model due, and once only."""
    window = eta.window.model_copy(update={"cadence": timedelta(minutes=10)})
    family = eta.model_copy(update={"window": window})
    history = ModelHistory()
    for turn, seconds in enumerate(late):
        now = NOW + timedelta(minutes=10 * turn, seconds=seconds)
        assert is_due(family, history, now=now)
        history = after(decision(family, history=history, now=now))
        assert not is_due(family, history, now=now + timedelta(seconds=0.9))


def test_a_clock_that_jumps_costs_and_gives_no_turn(eta: Family) -> None:
    """Set ahead by years it is one turn and no backlog; set back, the turns that were are not due.

    What the newest decision is later than waits for its time, and is then due as ever.
    """
    ahead = NOW + timedelta(days=3650)
    history = after(decision(eta, history=after(decision(eta)), now=ahead))
    assert not is_due(eta, history, now=ahead + timedelta(hours=1))
    assert not is_due(eta, history, now=NOW + timedelta(days=1))
    assert is_due(eta, history, now=ahead + timedelta(days=1))


def test_a_cooldown_of_one_cadence_lets_every_pass_retrain(eta: Family) -> None:
    """A pass that comes a moment sooner after the last one is not told to cool down."""
    window = eta.window.model_copy(update={"cadence": timedelta(minutes=10)})
    policy = eta.retrain.model_copy(update={"cooldown": timedelta(minutes=10)})
    family = eta.model_copy(update={"window": window, "retrain": policy})
    first = decision(family, mae(20.0), volume(99), now=NOW + timedelta(seconds=20))
    assert first.retrain or first.blocked is None
    ordered = after(replace(first, retrain=True, alarms=9))
    soon = decision(family, mae(20.0), volume(99), history=ordered, now=NOW + timedelta(minutes=10))
    assert soon.retrain, soon.reason
    early = decision(family, mae(20.0), volume(99), history=ordered, now=NOW + timedelta(minutes=9))
    assert early.blocked is not None
    assert "cooling down" in early.blocked


@given(
    values=st.lists(st.floats(0.1, 100) | st.none(), min_size=1, max_size=40),
    labels=st.integers(0, 200),
)
def test_incidents_open_and_resolve_in_turn(values: list[float | None], labels: int) -> None:
    """Over any run of readings: an incident opens only when none is open, and resolves once."""
    from pathlib import Path

    from driftloop.spec import load_fleet

    eta = load_fleet(Path(__file__).parents[2] / "monitors").family_named("eta")
    history: tuple[Decision, ...] = ()
    opened: str | None = None
    for step, value in enumerate(values):
        made = decision(
            eta,
            volume(99),
            mae(value, n=labels),
            history=after(*history),
            now=NOW + timedelta(days=step),
        )
        if made.opens:
            assert opened is None
            opened = made.incident
        if made.resolves is not None:
            assert made.resolves == opened
            opened = None
        assert made.incident == opened
        history = (*history, made)
