"""Who owns the data of a model: of its family, or of the source that a feature comes from."""

import shutil
from pathlib import Path

import pytest

from driftloop.errors import SpecError
from driftloop.spec import load_fleet

MONITORS = Path(__file__).parents[2] / "monitors"
SOURCE = """
[departures]
kind = "events"
time = "departed_at"
fields = { origin = "categorical", delay = "numeric" }
owner = "growth"
"""
LATE = (
    'origin = { kind = "key", required = true }\n'
    'late = { kind = "numeric", from = "departures", key = "origin", aggregate = "mean",'
    ' of = "delay", window = "30m" }\n'
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The tests' monitors, of which eta looks up a feature in a source of somebody else's."""
    folder = Path(shutil.copytree(MONITORS, tmp_path / "monitors"))
    (folder / "sources.toml").write_text(SOURCE, encoding="utf-8")
    eta = folder / "eta.toml"
    text = eta.read_text(encoding="utf-8").replace("[features]\n", f"[features]\n{LATE}")
    eta.write_text(text, encoding="utf-8")
    return folder


def test_a_sources_owner_owns_what_comes_from_it(folder: Path) -> None:
    """A feature of the source is its owner's; all others are the family's."""
    fleet = load_fleet(folder)
    channels = [fleet.data_owner("eta-de", name).channel for name in ("late", "load", None)]
    assert channels == ["#ml-growth", "#ml-logistics", "#ml-logistics"]


def test_a_familys_data_may_have_another_owner(folder: Path) -> None:
    """`data_owner` is told of the data, `owner` of the model."""
    eta = folder / "eta.toml"
    eta.write_text(f'data_owner = "growth"\n{eta.read_text(encoding="utf-8")}', encoding="utf-8")
    fleet = load_fleet(folder)
    assert fleet.data_owner("eta-de").channel == "#ml-growth"
    assert fleet.owner("eta-de").channel == "#ml-logistics"


def test_owners_of_data_must_be_in_owners_toml(folder: Path) -> None:
    """Both faults are told at once, each where it stands."""
    eta, sources = folder / "eta.toml", folder / "sources.toml"
    eta.write_text(f'data_owner = "nobody"\n{eta.read_text(encoding="utf-8")}', encoding="utf-8")
    sources.write_text(SOURCE.replace("growth", "noone"), encoding="utf-8")
    with pytest.raises(SpecError) as caught:
        load_fleet(folder)
    told = str(caught.value)
    assert "eta.toml: data_owner: 'nobody' is not in owners.toml" in told
    assert "sources.toml: departures.owner: 'noone' is not in owners.toml" in told
