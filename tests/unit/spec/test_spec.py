"""Monitor files: what they declare, and every fault at once with file, key and hint."""

import shutil
from datetime import timedelta
from pathlib import Path

import pytest

from driftloop.errors import SpecError, UnknownModel
from driftloop.records import ModelId, Task
from driftloop.spec import Fleet, load_fleet

MONITORS = Path(__file__).parents[2] / "monitors"
SHIPPED = Path(__file__).parents[3] / "monitors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the tests' monitors that a test may spoil."""
    return Path(shutil.copytree(MONITORS, tmp_path / "monitors"))


def spoil(folder: Path, file: str, old: str, new: str) -> None:
    text = (folder / file).read_text(encoding="utf-8")
    assert old in text
    (folder / file).write_text(text.replace(old, new, 1), encoding="utf-8")


def test_a_family_inherits_defaults_and_overrides_key_by_key(fleet: Fleet) -> None:
    """A table in a family's file replaces only the keys it names."""
    eta = fleet.family_named("eta")
    assert (eta.task, eta.models) == (Task.REGRESSION, (ModelId("eta-de"), ModelId("eta-fr")))
    assert eta.window.span == timedelta(days=14)
    assert eta.decay.alarm == 0.3
    assert fleet.owner("churn-uk").channel == "#ml-growth"
    assert (eta.numeric, eta.categorical) == (("distance", "load"), ("vehicle",))


def test_the_shipped_monitors_are_well() -> None:
    """29 markets in two families, as the README says."""
    assert len(load_fleet(SHIPPED).models) == 58


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("eta.toml", '"regression"', '"ranking"', "eta.toml: task: Input should be 'regression'"),
        ("eta.toml", 'owner = "logistics"', 'owner = "nobody"', "eta.toml: owner: 'nobody' is not"),
        ("eta.toml", 'metric = "mae"', 'metric = "f1"', "'f1' is not a metric of regression"),
        ("eta.toml", "warn = 0.15", "warn = 0.4", "decay: warn must not be above alarm"),
        ("eta.toml", "[decay]", "[decay]\nlimt = 1", "eta.toml: decay.limt: unknown key"),
        ("eta.toml", "[0.0, 1.0]", "[1.0, 0.0]", "features.load: range must be"),
        ("eta.toml", '"numeric", range', '"number", range', "features.distance.kind"),
        ("eta.toml", "load =", "version =", "features.version: not a usable column name"),
        ("eta.toml", "load =", "asked_at =", "'asked_at' is also a feature"),
        ("eta.toml", '["de", "fr"]', '["de", "de"]', "markets: one stands twice"),
        ("eta.toml", '["de", "fr"]', '["DE"]', "markets: 'DE' should be lower case"),
        ("eta.toml", '["de", "fr"]', "[]", "eta.toml: markets"),
        ("eta.toml", 'unit = "min"', 'name = "x"', "the file's name is the family's"),
        ("defaults.toml", 'span = "14d"', 'span = "two weeks"', "window.span: should be a"),
        ("defaults.toml", 'span = "56d"', 'span = "5d"', "gate.holdout: must be shorter"),
        ("defaults.toml", 'label_expiry = "3d"', "", "window.label_expiry: missing"),
        ("defaults.toml", "recipes:gradient", "recipes:nothing", "retrain.recipe: recipe"),
        ("defaults.toml", "[window]", 'markets = ["a"]\n[window]', "belongs in a family's own"),
        ("owners.toml", '"#ml-growth"', '"ml growth"', "owners.toml: growth.channel"),
        ("owners.toml", "[growth]", "[growth", "owners.toml: not valid TOML"),
    ],
)  # fmt: skip
def test_each_fault_names_file_key_and_what(
    folder: Path, file: str, old: str, new: str, said: str
) -> None:
    """One fault a case; the message leads to it."""
    spoil(folder, file, old, new)
    with pytest.raises(SpecError) as caught:
        load_fleet(folder)
    assert said in str(caught.value)


def test_all_faults_are_told_at_once(folder: Path) -> None:
    """Three faults in two files are three lines."""
    spoil(folder, "eta.toml", 'metric = "mae"', 'metric = "f1"')
    spoil(folder, "eta.toml", 'unit = "min"', "unit = 3")
    spoil(folder, "churn.toml", 'owner = "growth"', 'owner = "gone"')
    with pytest.raises(SpecError) as caught:
        load_fleet(folder)
    places = [line.split(": ")[:2] for line in str(caught.value).splitlines()]
    assert places == [["churn.toml", "owner"], ["eta.toml", "unit"], ["eta.toml", "decay.metric"]]


def test_an_empty_or_missing_folder_says_so(tmp_path: Path) -> None:
    """No monitors is an error with a hint, not an empty fleet."""
    with pytest.raises(SpecError, match="no such folder"):
        load_fleet(tmp_path / "none")
    with pytest.raises(SpecError, match="no family is declared"):
        load_fleet(tmp_path)


def test_two_families_must_not_name_the_same_model(folder: Path) -> None:
    """`eta-de` + market `x` and `eta` + market `de-x` are the same name."""
    text = (folder / "eta.toml").read_text(encoding="utf-8")
    (folder / "eta-de.toml").write_text(text.replace('["de", "fr"]', '["x"]'), encoding="utf-8")
    spoil(folder, "eta.toml", '["de", "fr"]', '["de-x"]')
    with pytest.raises(SpecError, match="is also a model of"):
        load_fleet(folder)


def test_only_cuts_the_fleet_and_refuses_strangers(fleet: Fleet) -> None:
    """`--models` keeps the named ones; an unknown one is an error."""
    assert fleet.only((ModelId("eta-fr"),)).models == ("eta-fr",)
    with pytest.raises(UnknownModel, match="eta-xx"):
        fleet.only((ModelId("eta-xx"),))
