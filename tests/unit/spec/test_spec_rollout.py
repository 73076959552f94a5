"""The table [rollout]: how a version comes to answer."""

import shutil
from datetime import timedelta
from pathlib import Path

import pytest

from driftloop.errors import SpecError
from driftloop.spec import RolloutPolicy, load_fleet

MONITORS = Path(__file__).parents[2] / "monitors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the tests' monitors."""
    return Path(shutil.copytree(MONITORS, tmp_path / "monitors"))


def add(folder: Path, text: str, file: str = "eta.toml") -> None:
    with (folder / file).open("a", encoding="utf-8") as out:
        out.write(f"\n{text}\n")


def test_without_it_nothing_is_rolled_out(folder: Path) -> None:
    """What passed its gate answers at once, as it always did."""
    assert load_fleet(folder).family_named("eta").rollout is None


def test_a_family_inherits_it_and_says_otherwise_key_by_key(folder: Path) -> None:
    """From the defaults; an empty table takes what is usual."""
    add(folder, "[rollout]", "defaults.toml")
    add(folder, '[rollout]\nshadow = "30m"\nshares = [0.2]')
    fleet = load_fleet(folder)
    assert fleet.family_named("churn").rollout == RolloutPolicy()
    eta = fleet.family_named("eta").rollout
    assert eta is not None
    assert (eta.shadow, eta.shares, eta.watch) == (
        timedelta(minutes=30),
        (0.2,),
        RolloutPolicy().watch,
    )


def test_what_is_served_elsewhere_inherits_none(folder: Path) -> None:
    """Who serves it decides how a version comes to answer there."""
    add(folder, "[rollout]", "defaults.toml")
    add(folder, '[log]\nsource = "scored.parquet"\n[handover]\ncommand = ["true"]')
    fleet = load_fleet(folder)
    assert fleet.family_named("eta").rollout is None
    assert fleet.family_named("churn").rollout is not None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("shares = [0.5, 0.25]", "rollout: shares must grow, each above 0 and below 1"),
        ("shares = [0.5, 1.0]", "rollout: shares must grow, each above 0 and below 1"),
        ('shadow = "0s"\nshares = []', "rollout: give shadow or shares"),
        ('patience = "10m"', "rollout: patience must not be shorter than shadow or step"),
        ("latency = 0.5", "rollout.latency"),
        ("quality = 0", "rollout.quality"),
        ('shadows = "1h"', "rollout.shadows: unknown key"),
    ],
)
def test_each_fault_is_named(folder: Path, text: str, said: str) -> None:
    """File, key and what; one a case."""
    add(folder, f"[rollout]\n{text}")
    with pytest.raises(SpecError) as caught:
        load_fleet(folder)
    assert f"eta.toml: {said}" in str(caught.value)
