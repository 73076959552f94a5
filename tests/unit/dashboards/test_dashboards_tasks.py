"""The pages of classes and of scores: what these are judged by, in its words."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from dashboards.charts import chart
from dashboards.points import metric_said, points
from driftloop.ledger import SqlLedger
from driftloop.records import Head, Kind, Measured, ModelId, Reading, Window
from driftloop.spec import Family
from driftloop.wiring import System

NOW = datetime(2026, 3, 1, tzinfo=UTC)
RISK = ModelId("risk-uk")


def seen(days: int, value: float | None, *, n: int = 400) -> Measured:
    at = NOW - timedelta(days=days)
    readings = [
        Reading(kind=Kind.DRIFT, metric="wasserstein", column=column, value=value, n=n)
        for column in ("spend", "prediction")
    ]
    window = Window(model=RISK, start=at - timedelta(days=14), end=at, known_at=at)
    return Measured(model=RISK, at=at, window=window, rows=n, labels=0, readings=tuple(readings))


def test_scores_are_drawn_by_their_distance(risk: Family) -> None:
    """With the line that alarms, without a baseline, and by the rows that there were."""
    assert metric_said(risk) == "Wasserstein distance of the scores"
    found = points([seen(3, 0.1), seen(2, 0.4), seen(1, 0.4, n=10), seen(0, None, n=0)], risk)
    assert [point.value for point in found] == [0.1, 0.4, 0.4, None]
    assert [point.over for point in found] == [False, True, True, False]
    assert [point.blind for point in found] == [False, False, True, True]
    assert {(point.baseline, point.limit) for point in found} == {(None, 0.25)}
    drawn = chart(found, [], title="t", unit="")
    assert "400 rows" in drawn
    assert "labels" not in drawn


def test_other_distances_are_said_by_their_name(risk: Family) -> None:
    """The one that the policy judges by."""
    other = risk.model_copy(update={"drift": risk.drift.model_copy(update={"numeric": "psi"})})
    assert metric_said(other) == "PSI of the scores"


@pytest.mark.parametrize("family", ["risk", "colour"])
def test_both_pages_show_what_it_is_judged_by(
    installed: Callable[..., System],
    serve: Callable[[System], Any],
    request: pytest.FixtureRequest,
    family: str,
    tmp_path: Path,
) -> None:
    """Scores have no baseline to be held against, and of classes the names are told."""
    system = installed(eta=("de",), churn=("uk",))
    declared = request.getfixturevalue(family)
    model = ModelId(f"{family}-uk")
    system.__dict__["fleet"] = _with(system, declared)
    ledger = system.ledger
    assert isinstance(ledger, SqlLedger)
    head = Head(model=model, epoch=1, version=1, digest="0" * 64, artifact="a/reference.parquet")
    ledger.move(head, at=NOW - timedelta(days=9), previous=None, reason="first")
    ledger.append(seen(1, 0.4))
    with serve(system) as client:
        fleet, page = client.get("/").text, client.get(f"/models/{model}").text
    if family == "risk":
        assert "Wasserstein distance of the scores over time" in page
        assert ">Wasserstein distance of the scores<" in fleet
        assert "0.4" in page
    else:
        assert "multiclass: red, green, blue, off white" in page
        assert "Accuracy vs baseline" in page


def _with(system: System, family: Family) -> Any:
    return replace(system.fleet, families=(*system.fleet.families, family))
