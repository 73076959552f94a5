"""The table [retrain]: policies, memories and their contradictions."""

import shutil
from datetime import timedelta
from pathlib import Path

import pytest

from driftloop.errors import SpecError
from driftloop.records import Memory
from driftloop.spec import CostPolicy, load_fleet

MONITORS = Path(__file__).parents[2] / "monitors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the tests' monitors."""
    return Path(shutil.copytree(MONITORS, tmp_path / "monitors"))


def add(folder: Path, text: str, file: str = "eta.toml") -> None:
    with (folder / file).open("a", encoding="utf-8") as out:
        out.write(f"\n{text}\n")


def test_by_default_recent_rows_alone_are_remembered(folder: Path) -> None:
    """As it was before there were other memories; nothing is capped."""
    fleet = load_fleet(folder)
    policy = fleet.family_named("eta").retrain
    assert policy.memory == (Memory.RECENT,)
    assert (policy.every, policy.cost, policy.half_life) == (None, None, None)
    assert (policy.compute_per_day, fleet.platform.compute_per_day) == (None, None)


def test_all_of_it_may_be_said(folder: Path) -> None:
    """Each option of its kind, in the units that the docs name."""
    add(
        folder,
        '[retrain]\ntriggers = ["harm", "schedule", "cost"]\nevery = "7d"\nhalf_life = "30d"\n'
        'memory = ["recent", "all", "decayed"]\ncompute_per_day = "2h"\n'
        "[retrain.cost]\nvalue = 0.05\ncompute = 0.4\nrisk = 2.0",
    )
    add(folder, 'compute_per_day = "8h"', "platform.toml")
    fleet = load_fleet(folder)
    policy = fleet.family_named("eta").retrain
    assert policy.due_to("harm", "decay")
    assert not policy.due_to("drift", "age")
    assert policy.memory == (Memory.RECENT, Memory.ALL, Memory.DECAYED)
    assert policy.cost == CostPolicy(value=0.05, compute=0.4, risk=2.0, horizon=timedelta(days=7))
    assert policy.compute_per_day == timedelta(hours=2)
    assert fleet.platform.compute_per_day == timedelta(hours=8)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('triggers = ["schedule"]', 'retrain.every: the trigger "schedule" needs it'),
        ('triggers = ["cost"]', 'retrain.cost: the trigger "cost" needs it'),
        ('triggers = ["harm", "whim"]', "retrain.triggers.1: Input should be 'harm', 'decay'"),
        (
            'triggers = ["schedule"]\nevery = "1d"',
            "retrain.every: must not be shorter than retrain.cooldown",
        ),
        ('memory = ["recent", "recent"]', "retrain.memory: 'recent' stands twice"),
        ("memory = []", "retrain.memory: Tuple should have at least 1 item"),
        ('memory = ["old"]', "retrain.memory.0: Input should be 'recent', 'all' or 'decayed'"),
        (
            'memory = ["all"]\nspan = "400d"',
            "retrain.memory: no row older than retrain.span is kept",
        ),
        ("[retrain.cost]\nvalue = 0.0", "retrain.cost.value: Input should be greater than 0"),
        ("[retrain.cost]\nvalue = 1.0\nrisk = -1.0", "retrain.cost.risk: Input should be greater"),
    ],
)
def test_contradictions_are_told(folder: Path, text: str, said: str) -> None:
    """Where they stand, and in words."""
    add(folder, f'[retrain]\n{text}\n[retention]\nlog = "400d"')
    with pytest.raises(SpecError) as caught:
        load_fleet(folder)
    assert f"eta.toml: {said}" in str(caught.value)
