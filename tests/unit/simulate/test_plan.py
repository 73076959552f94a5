"""Plans and faults that cannot be are refused, each with what is wrong."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from driftloop.errors import BadRequest
from driftloop.records import Task
from driftloop.simulate import (
    Fault,
    FaultKind,
    Plan,
    Shape,
    monitors,
    parse_fault,
    parse_time,
    write_monitors,
)
from driftloop.spec import load_fleet

START = datetime(2026, 3, 1, tzinfo=UTC)
PLAN = Plan(start=START, end=START + timedelta(days=14))


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("", "not how a fault is written"),
        ("mean-shift", "not how a fault is written"),
        ("mean-shift:x00:2", "not how a fault is written"),
        ("mean-shift:x00:2:3@2026-03-02", "not how a fault is written"),
        ("mean-shift:x00:2@2026-03-02/", "not how a fault is written"),
        ("drift:x00:2@2026-03-02", "no kind of fault 'drift'"),
        ("mean-shift:x00:much@2026-03-02", "'much' is not a number"),
        ("mean-shift:2@2026-03-02", "mean-shift needs a column"),
        ("concept-flip:x00:1@2026-03-02", "takes no column"),
        ("mean-shift:x00:0@2026-03-02", "other than 0"),
        ("mean-shift:x00:nan@2026-03-02", "other than 0"),
        ("scale:x00:-1@2026-03-02", "factor above 0"),
        ("scale:x00:1@2026-03-02", "other than 1"),
        ("null-burst:x00:1.5@2026-03-02", "a share above 0"),
        ("volume-drop:0@2026-03-02", "a share above 0"),
        ("volume-drop:1@yesterday", "'yesterday' is not a date or time"),
        ("volume-drop:1@2026-03-02..2026-03-02", "ends before it begins"),
    ],
)
def test_faults_that_cannot_be(text: str, wrong: str) -> None:
    """The error has the text; the hint says how a fault is written."""
    with pytest.raises(BadRequest, match=wrong) as raised:
        parse_fault(text)
    if "date" not in wrong:
        assert all(kind in raised.value.hint for kind in FaultKind)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("mean-shift:x09:2@2026-03-02", "'x09' is no column that can have a mean-shift"),
        ("scale:c00:2@2026-03-02", "'c00' is no column that can have a scale"),
        ("category-mix:x00:1@2026-03-02", "'x00' is no column that can have a category-mix"),
        ("null-burst:y:1@2026-03-02", "'y' is no column"),
        ("volume-drop:1@2026-03-02/m000,m003", "no market m003"),
        ("volume-drop:1@2026-02-28", "outside the plan's time"),
        ("volume-drop:1@2026-03-15", "outside the plan's time"),
    ],
)
def test_faults_that_do_not_fit_the_plan(text: str, wrong: str) -> None:
    """Columns, markets and times are those of the plan."""
    with pytest.raises(BadRequest, match=wrong):
        replace(PLAN, faults=(parse_fault(text),))


def test_a_fault_is_written_as_it_is_read() -> None:
    """With every part of it, and with the least."""
    for text in (
        "mean-shift:x03:2.0@2026-03-10",
        "concept-flip:0.25@2026-03-10T06:30..2026-03-12/m003,m004",
    ):
        assert str(parse_fault(text)) == text
    with pytest.raises(BadRequest, match="no zone"):
        Fault(kind=FaultKind.VOLUME_DROP, size=1.0, at=datetime(2026, 3, 2))  # noqa: DTZ001 - that is wrong


@pytest.mark.parametrize(
    ("changed", "wrong"),
    [
        ({"models": 0}, "models: should be at least 1, got 0"),
        ({"rows": 0}, "rows: should be at least 1"),
        ({"seed": -1}, "seed: should be at least 0"),
        ({"unlabelled": 1.0}, "unlabelled: should be a share"),
        ({"end": START}, "ends before it begins"),
        ({"start": datetime(2026, 3, 1)}, "need a zone"),  # noqa: DTZ001 - that is wrong
        ({"history": timedelta(days=3)}, "history: should be 4 to 365 days"),
        ({"label_delay": -timedelta(1)}, "label_delay: should be at most"),
        ({"family": "Two words"}, "lower case"),
        ({"family": "owners"}, "none of defaults, owners"),
        ({"start": datetime(1850, 1, 1, tzinfo=UTC)}, "start: should be in 1902"),
    ],
)
def test_plans_that_cannot_be(changed: dict[str, Any], wrong: str) -> None:
    """What is wrong is named."""
    with pytest.raises(BadRequest, match=wrong):
        replace(PLAN, **changed)


@pytest.mark.parametrize(
    ("changed", "wrong"),
    [
        ({"numeric": -1}, "numeric: should be at least 0"),
        ({"numeric": 0, "categorical": 0}, "at least one feature"),
        ({"levels": 1}, "levels: should be at least 2"),
        ({"nulls": float("nan")}, "nulls: should be a share"),
    ],
)
def test_shapes_that_cannot_be(changed: dict[str, Any], wrong: str) -> None:
    """What is wrong is named."""
    with pytest.raises(BadRequest, match=wrong):
        Shape(**changed)


def test_a_time_without_a_zone_is_utc() -> None:
    """One out of all calendars is refused, like any text."""
    assert parse_time("2026-03-01", where="") == START
    with pytest.raises(BadRequest, match="--start: '9990-01-01' is not in 1902 to 2900"):
        parse_time("9990-01-01", where="--start")
    with pytest.raises(BadRequest, match="--start: '0001-01-01T00:00"):
        parse_time("0001-01-01T00:00+14:00", where="--start")


@pytest.mark.parametrize("task", [task for task in Task if task is not Task.SCORE])
@pytest.mark.parametrize("rows", [1, 400])
def test_the_monitor_files_are_sound(tmp_path: Path, task: Task, rows: int) -> None:
    """They load, and declare the plan's models and columns."""
    plan = replace(PLAN, rows=rows, shape=Shape(task=task, numeric=120, categorical=3))
    assert {file.name for file in write_monitors(plan, tmp_path / "new")} == set(monitors(plan))
    (family,) = load_fleet(tmp_path / "new").families
    assert family.models == plan.ids
    assert tuple(family.features) == plan.shape.columns
    assert family.task is task
    assert write_monitors(replace(plan, seed=9), tmp_path / "new") == ()


def test_monitor_files_of_others_stay_as_they_are(tmp_path: Path) -> None:
    """The family goes to the owner that is there; another family of the name is refused."""
    (tmp_path / "owners.toml").write_text('[mine]\nchannel = "#mine"\n')
    (tmp_path / "platform.toml").write_text('owner = "mine"\n')
    write_monitors(PLAN, tmp_path)
    assert load_fleet(tmp_path).families[0].owner == "mine"
    # The platform may go to somebody else later: the options are still those it was made with.
    (tmp_path / "owners.toml").write_text('[mine]\nchannel = "#mine"\n[us]\nchannel = "#us"\n')
    (tmp_path / "platform.toml").write_text('owner = "us"\n')
    assert write_monitors(PLAN, tmp_path) == ()
    assert load_fleet(tmp_path).families[0].owner == "mine"
    (tmp_path / "owners.toml").write_text('[mine]\nchannel = "#mine"\n')
    (tmp_path / "platform.toml").write_text('owner = "mine"\n')
    assert (tmp_path / "owners.toml").read_text() == '[mine]\nchannel = "#mine"\n'
    with pytest.raises(BadRequest, match=r"simulated\.toml: already there, and not what"):
        write_monitors(replace(PLAN, models=4), tmp_path)
    assert len(load_fleet(tmp_path).families[0].models) == 3
