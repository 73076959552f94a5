"""What the log knows of a rollout, from a real lake."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from driftloop.errors import LogError
from driftloop.ports import Trial
from driftloop.prediction_log import Ingester, Lake, LogTrials, SegmentSpool
from driftloop.records import (
    Label,
    ModelId,
    Phase,
    Prediction,
    Role,
    Rollout,
    Served,
    Shadow,
)
from driftloop.spec import Fleet

DE, FR = ModelId("eta-de"), ModelId("eta-fr")
AT = datetime(2026, 3, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
ROLLOUT = Rollout(
    model=DE,
    order="o",
    epoch=2,
    version=2,
    digest="",
    artifact="",
    champion=1,
    phase=Phase.SHADOW,
    reason="",
    begun=AT,
    since=AT,
)
CANARY = replace(ROLLOUT, phase=Phase.CANARY, share=0.25, since=AT + 2 * HOUR)


def predicted(id_: str, hours: float, *, version: int = 1, model: ModelId = DE) -> Prediction:
    return Prediction(
        id=id_,
        model=model,
        version=version,
        epoch=1,
        event_time=AT + hours * HOUR,
        predicted_at=AT + hours * HOUR,
        prediction=10.0 * version,
        features={"distance": 1.0, "load": None, "vehicle": "van"},
    )


def shadowed(id_: str, hours: float, *, answer: float | None = 20.0) -> Shadow:
    return Shadow(
        id=id_,
        model=DE,
        version=2,
        epoch=2,
        event_time=AT + hours * HOUR,
        predicted_at=AT + hours * HOUR,
        prediction=answer,
    )


def served(version: int, role: Role, hours: float, *, requests: int, errors: int = 0) -> Served:
    seconds = [0] * 160
    seconds[50] = requests - errors
    return Served(
        model=DE,
        version=version,
        role=role,
        start=AT + hours * HOUR,
        end=AT + (hours + 0.1) * HOUR,
        requests=requests,
        errors=errors,
        seconds=tuple(seconds),
    )


def labelled(id_: str, value: float) -> Label:
    return Label(id=id_, model=DE, value=value, observed_at=AT)


@pytest.fixture
def trial(fleet: Fleet, clock: Any, tmp_path: Path) -> Iterator[Callable[[Rollout], Trial]]:
    """A shadow of three rows, then a canary; some labels, one corrected, one of another model."""
    spool = SegmentSpool(tmp_path / "spool" / "online", seal_rows=1000, seal_every=60)
    spool.predictions(
        "eta",
        [
            predicted("before", -1),
            predicted("a", 0.1),
            predicted("b", 0.2),
            predicted("c", 0.3),
            predicted("d", 2.1),
            predicted("e", 2.2, version=2),
            predicted("f", 2.3, version=2),
            predicted("e", 2.2, version=2, model=FR),
        ],
    )
    rows = [shadowed("a", 0.1), shadowed("b", 0.2), shadowed("c", 0.3, answer=None)]
    spool.shadows("eta", rows)
    spool.served(
        "eta",
        [
            served(1, Role.CHAMPION, -1, requests=1000),
            served(1, Role.CHAMPION, 0.1, requests=30),
            served(2, Role.SHADOW, 0.1, requests=20, errors=1),
            served(1, Role.CHAMPION, 2.1, requests=7),
            served(2, Role.CANARY, 2.1, requests=3, errors=1),
            served(2, Role.CANARY, 2.2, requests=4),
        ],
    )
    spool.labels("eta", [labelled("a", 1.0), labelled("a", 12.0), labelled("e", 5.0)])
    spool.close()
    with (
        Lake(tmp_path / "lake", fleet, read_only=False) as lake,
        Ingester(tmp_path / "spool", lake, clock) as ingester,
    ):
        lake.migrate()
        assert ingester.ingest().bad == 0
    with Lake(tmp_path / "lake", fleet, read_only=True) as read:
        family = fleet.family_named("eta")
        yield lambda rollout: LogTrials(read).trial(family, rollout)


def test_in_shadow_the_rows_of_both_stand_side_by_side(trial: Callable[[Rollout], Trial]) -> None:
    """With the newest label; a row that the challenger failed on is an error, and no pair."""
    found = trial(ROLLOUT)
    told = found.both.drop_columns(["event_time", "predicted_at"]).to_pylist()
    assert told == [
        {"challenger": 20.0, "champion": 10.0, "label": 12.0},
        {"challenger": 20.0, "champion": 10.0, "label": None},
    ]
    assert (found.challenger.requests, found.challenger.errors) == (20, 1)
    assert sum(found.challenger.seconds) == 19
    assert found.champion.requests == 37


def test_in_canary_each_has_its_own_rows_of_that_step(trial: Callable[[Rollout], Trial]) -> None:
    """Of this share alone; the shadow's rows stay, for labels still come."""
    found = trial(CANARY)
    rows = [tuple(row.values()) for row in found.apart.to_pylist()]
    assert sorted(rows, key=str) == [(1, 10.0, None), (2, 20.0, 5.0), (2, 20.0, None)]
    assert found.both.num_rows == 2
    assert (found.challenger.requests, found.challenger.errors) == (7, 1)
    assert found.champion.requests == 7


def test_once_it_answers_alone_all_of_the_rollout_counts(trial: Callable[[Rollout], Trial]) -> None:
    """Its predecessor answers nothing any more: what it did before is what there is."""
    found = trial(replace(CANARY, phase=Phase.WATCHED, share=1.0, since=AT + 9 * HOUR))
    assert found.champion.requests == 37
    assert found.challenger.requests == 7
    assert found.apart.num_rows == 6


def test_a_rollout_that_nobody_asked_is_empty(trial: Callable[[Rollout], Trial]) -> None:
    """No request yet is no error: the phase waits."""
    found = trial(replace(CANARY, since=AT + 9 * HOUR))
    assert (found.challenger.requests, found.champion.seconds) == (0, ())
    assert found.apart.num_rows == 0


def test_without_a_lake_it_says_so(fleet: Fleet, tmp_path: Path) -> None:
    """The rollout stays where it is, with the reason."""
    with (
        Lake(tmp_path / "none", fleet, read_only=True) as lake,
        pytest.raises(LogError, match="no prediction log"),
    ):
        LogTrials(lake).trial(fleet.family_named("eta"), ROLLOUT)
