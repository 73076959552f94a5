from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from fakes.incidents import noticed

from driftloop.loop.charts import LAST, chart_of, lines, with_charts
from driftloop.records import (
    Decision,
    Kind,
    Level,
    Measured,
    ModelId,
    Reading,
    Stage,
    State,
    Verdict,
    Window,
)

ETA = ModelId("eta-de")
NOW = datetime(2026, 3, 1, 6, tzinfo=UTC)
WINDOW = Window(model=ETA, start=NOW - timedelta(days=7), end=NOW, known_at=NOW)
FAMILY: Any = SimpleNamespace(
    unit_of=lambda metric: "min" if metric == "mae" else "",
    decay=SimpleNamespace(metric="mae"),
)
MAE = Reading(kind=Kind.DECAY, metric="mae", column=None, value=14.0, n=300, baseline=10.0)
DRIFT = Reading(kind=Kind.DRIFT, metric="psi", column="hour", value=0.4, n=300)


class Past:
    """A ledger that has measured a model each hour."""

    def __init__(self, *values: float | None, of: Reading = MAE) -> None:
        self.kept = tuple(
            Measured(
                model=ETA,
                at=NOW - timedelta(hours=len(values) - n),
                window=WINDOW,
                rows=300,
                labels=300,
                readings=(replace(of, segment="hour=1", value=99.0), replace(of, value=value)),
            )
            for n, value in enumerate(values)
        )

    def facts(self, kind: type, *, model: ModelId, last: int) -> tuple[Measured, ...]:
        assert (kind, model, last) == (Measured, ETA, LAST)
        return self.kept[-last:]


def verdict(reading: Reading, level: Level = Level.ALARM, limit: float | None = 0.3) -> Verdict:
    """Return a reading judged."""
    return Verdict(reading=reading, level=level, limit=limit, reason="")


def decided(*verdicts: Verdict) -> Decision:
    """Return a decision of now that rests on `verdicts`."""
    return Decision(
        key="k",
        model=ETA,
        at=NOW,
        state=State.DECAYING,
        reason="",
        version=1,
        window=WINDOW,
        verdicts=verdicts,
    )


def test_the_metric_that_decided_is_drawn_up_to_now() -> None:
    """Its past, what could not be measured left out, and the value that the decision rests on."""
    chart = chart_of(Past(9.0, None, 11.0), decided(verdict(MAE)), FAMILY)
    assert chart is not None
    assert [value for _, value in chart.points] == [9.0, 11.0, 14.0]
    assert chart.points[-1][0] == NOW
    assert (chart.title, chart.unit) == ("mean absolute error, eta-de", "min")
    assert (chart.limit, chart.baseline) == (13.0, 10.0)


def test_a_share_is_drawn_in_per_cent() -> None:
    """As the page has it beside the picture."""
    nulls = replace(DRIFT, kind=Kind.QUALITY, metric="null_share", value=0.4, baseline=0.1)
    chart = chart_of(Past(), decided(verdict(nulls, limit=0.25)), FAMILY)
    assert chart is not None
    assert chart.points == ((NOW, 40.0),)
    assert (chart.unit, chart.limit, chart.baseline) == ("%", pytest.approx(35.0), 10.0)


def test_harm_is_drawn_before_drift() -> None:
    """The order in which a page tells its evidence."""
    chart = chart_of(Past(), decided(verdict(DRIFT), verdict(MAE)), FAMILY)
    assert chart is not None
    assert chart.title == "mean absolute error, eta-de"


def test_of_what_is_told_together_one_has_a_chart() -> None:
    """Two hundred models of one cause are one page, and reading each one's past takes time."""
    drawn: set[tuple[str, str]] = set()
    groups = ["", "", "data/hour", "data/hour", "data/day"]
    pages = [
        with_charts([noticed(group=group)], Past(9.0), decided(verdict(MAE)), FAMILY, drawn)
        for group in groups
    ]
    assert [page.chart is not None for (page,) in pages] == [True, True, True, False, True]


def test_what_follows_has_no_chart() -> None:
    """The message has its picture by then."""
    notices = [noticed(Stage.RETRAINING), noticed(Stage.RECOVERED)]
    kept = with_charts(notices, Past(9.0), decided(verdict(MAE)), FAMILY, set())
    assert kept == tuple(notices)


def test_where_nothing_is_in_alarm_what_the_model_is_judged_by_is_drawn() -> None:
    """A page that rests on no single reading is about the model as a whole."""
    well = verdict(replace(MAE, value=10.1), Level.OK)
    chart = chart_of(Past(14.0), decided(verdict(DRIFT, Level.OK), well), FAMILY)
    assert chart is not None
    assert [value for _, value in chart.points] == [14.0, 10.1]


@pytest.mark.parametrize(
    "verdicts", [(), (verdict(replace(MAE, value=None), Level.BLIND),)], ids=["none", "blind"]
)
def test_nothing_is_drawn_of_what_was_not_measured(verdicts: tuple[Verdict, ...]) -> None:
    """No chart is better than one without its point."""
    assert chart_of(Past(9.0), decided(*verdicts), FAMILY) is None


@pytest.mark.parametrize(
    ("reading", "limit", "expected"),
    [
        (MAE, 0.3, (13.0, 10.0)),
        (replace(MAE, metric="r2", baseline=0.8), 0.25, (0.6, 0.8)),
        (replace(MAE, metric="r2", baseline=-0.8), 0.25, (-1.0, -0.8)),
        (replace(MAE, baseline=None), None, (None, None)),
        (replace(DRIFT, baseline=0.01), 0.2, (0.2, None)),
        (replace(DRIFT, kind=Kind.QUALITY, metric="null_share", baseline=0.1), 0.25, (0.35, 0.1)),
        (replace(DRIFT, kind=Kind.QUALITY, metric="freshness"), 6.0, (6.0, None)),
        (replace(DRIFT, kind=Kind.FRESH, metric="shift", value=-0.4), 0.2, (-0.2, 0.0)),
        (replace(DRIFT, kind=Kind.FRESH, metric="loss", column=None), 0.3, (0.3, 0.0)),
    ],
    ids=[
        "loss",
        "gain",
        "negative gain",
        "no baseline",
        "drift",
        "quality",
        "age",
        "shift",
        "fresh loss",
    ],
)
def test_the_limit_is_drawn_where_it_is_crossed(
    reading: Reading, limit: float | None, expected: tuple[float | None, float | None]
) -> None:
    """In the metric's own unit, on the side on which it is worse."""
    assert lines(verdict(reading, limit=limit)) == pytest.approx(expected)
