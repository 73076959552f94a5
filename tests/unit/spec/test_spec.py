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
        ("eta.toml", 'metric = "mae"', 'metric = "mean_error"', "is worse in neither direction"),
        ("eta.toml", 'unit = "min"', 'segments = ["load"]', "segments: 'load' is no categorical"),
        ("eta.toml", 'unit = "min"', 'segments = ["nobody"]', "categorical features: vehicle"),
        ("eta.toml", 'unit = "min"', 'segments = ["vehicle", "vehicle"]', "'vehicle' stands twice"),
        ("eta.toml", 'unit = "min"', 'segments = "vehicle"', "segments: should be a list, got"),
        ("eta.toml", '"numeric", range', '"text", range', "a text feature has no range"),
        ("churn.toml", "[features]", '[features]\nsaid = { kind = "prose" }', "features.said.kind"),
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
        ("defaults.toml", 'stale = "3d"', 'stale = "14d"', "quality.stale: must be shorter"),
        ("defaults.toml", 'span = "56d"', 'span = "5d"', "gate.holdout: must be shorter"),
        ("defaults.toml", 'label_expiry = "3d"', "", "window.label_expiry: missing"),
        ("defaults.toml", "recipes:gradient", "recipes:nothing", "retrain.recipe: recipe"),
        ("defaults.toml", "[window]", 'markets = ["a"]\n[window]', "belongs in a family's own"),
        ("defaults.toml", 'span = "14d"', 'span = "0d"', "window.span: must be longer"),
        ("defaults.toml", 'cadence = "1d"', 'cadence = "0s"', "window.cadence: must be longer"),
        ("defaults.toml", 'span = "14d"', f'span = "{10**13}d"', "window.span: should be at most"),
        ("defaults.toml", 'span = "14d"', 'span = "999999d"', "window.span: should be at most"),
        ("defaults.toml", "parity = 1e-4", "parity = inf", "retrain.parity: Input should be a fi"),
        ("defaults.toml", "memory_gib = 6.0", "memory_gib = inf", "retrain.memory_gib: Input"),
        ("defaults.toml", "memory_gib = 6.0", "memory_gib = 0.2", "retrain.memory_gib: Input"),
        ("defaults.toml", "seed = 7", "seed = -1", "retrain.seed: Input should be greater"),
        ("defaults.toml", "nulls = 0.2", "nulls = nan", "quality.nulls: Input should be less"),
        ("defaults.toml", "min_rows = 50", "min_rows = 50.5", "window.min_rows: Input should be"),
        ("eta.toml", "warn = 0.15", "warn = nan", "decay.warn: Input should be a finite number"),
        ("eta.toml", "alarm = 0.3", "alarm = inf", "decay.alarm: Input should be a finite number"),
        ("eta.toml", "[0.0, 1.0]", "[nan, 1.0]", "features.load: range must be [low, high]"),
        ("eta.toml", "[0.0, 1.0]", '["a", 1.0]', "features.load.range.0: Input should be a valid"),
        ("eta.toml", '["de", "fr"]', '"de"', "markets: should be a list, got 'de' (hint: as in"),
        ("eta.toml", 'target = "minutes"', 'target = ""', "target: String should have at least"),
        ("platform.toml", '"logistics"', '"nobody"', "platform.toml: owner: 'nobody' is not in"),
        ("platform.toml", "owner", "ownr", "platform.toml: owner: missing (hint: give it here)"),
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


RECIPES = """
def takes_less(family, seed):
    return None


def takes_this(family, *, seed, max_iter):
    return None


class Built:
    def __init__(self, family, *, seed, **parameters):
        pass


number = 3
"""


@pytest.fixture
def recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules of recipes: a sound one, and some that do not even import."""
    for name, text in (
        ("spec_test_recipes", RECIPES),
        ("spec_test_raises", "1 / 0\n"),
        ("spec_test_exits", "raise SystemExit(0)\n"),
        ("spec_test_torn", "def (\n"),
    ):
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.usefixtures("recipes")
@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ("os:system", "the recipe takes (command), and cannot be called as recipes are: got an un"),
        ("spec_test_recipes:takes_less", "unexpected keyword argument 'max_iter' (hint: a recipe"),
        ("spec_test_recipes:number", "recipe 'spec_test_recipes:number' is not callable"),
        ("spec_test_recipes:nobody", "has no attribute 'nobody'"),
        ("spec_test_raises:any", "cannot be loaded: ZeroDivisionError: division by zero"),
        ("spec_test_exits:any", "cannot be loaded: SystemExit: 0"),
        ("spec_test_torn:any", "cannot be loaded: SyntaxError: invalid syntax"),
        ("spec_test_absent:any", "No module named 'spec_test_absent' (hint: write it as"),
        ("spec_test_absent:any", "an installed package or a folder on PYTHONPATH (the working"),
    ],
)
def test_a_recipe_that_cannot_be_one_is_a_fault_of_the_file(
    folder: Path, recipe: str, said: str
) -> None:
    """Whatever its module does, the file that names it and the key are named, once."""
    spoil(folder, "defaults.toml", "driftloop.retrain.recipes:gradient_boosting", recipe)
    with pytest.raises(SpecError) as caught:
        load_fleet(folder)
    told = str(caught.value).splitlines()
    assert [line.split(": ")[:2] for line in told] == [["defaults.toml", "retrain.recipe"]]
    assert said in told[0]


@pytest.mark.usefixtures("recipes")
@pytest.mark.parametrize("recipe", ["takes_this", "Built"])
def test_a_recipe_may_be_whatever_can_be_called_as_one(folder: Path, recipe: str) -> None:
    """It may name the parameters that it knows, and be a class; it is not called here."""
    ours, theirs = "driftloop.retrain.recipes:gradient_boosting", f"spec_test_recipes:{recipe}"
    spoil(folder, "defaults.toml", ours, theirs)
    assert {family.retrain.recipe for family in load_fleet(folder).families} == {theirs}


def test_a_range_may_be_open_to_one_side_and_a_cooldown_nothing(folder: Path) -> None:
    """What looks odd and is not: a plausible value without an upper bound, no pause at all."""
    spoil(folder, "eta.toml", "[0.0, 1.0]", "[0.0, inf]")
    spoil(folder, "defaults.toml", 'cooldown = "7d"', 'cooldown = "0s"')
    eta = load_fleet(folder).family_named("eta")
    assert eta.features["load"].range == (0.0, float("inf"))
    assert eta.retrain.cooldown == timedelta()


def test_all_faults_are_told_at_once(folder: Path) -> None:
    """Three faults in two files are three lines."""
    spoil(folder, "eta.toml", 'metric = "mae"', 'metric = "f1"')
    spoil(folder, "eta.toml", 'unit = "min"', "unit = 3")
    spoil(folder, "churn.toml", 'owner = "growth"', 'owner = "gone"')
    with pytest.raises(SpecError) as caught:
        load_fleet(folder)
    places = [line.split(": ")[:2] for line in str(caught.value).splitlines()]
    assert places == [["churn.toml", "owner"], ["eta.toml", "unit"], ["eta.toml", "decay.metric"]]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("seed = 7", "sed = 7", ["retrain.seed: missing", "retrain.sed: unknown key"]),
        ("seed = 7", 'seed = "7"', ["retrain.seed: Input should be a valid integer"]),
        ("alarm = 0.25", "alarm = 0.05", ["drift: warn must not be above alarm"]),
        ("[window]", "windw = 3\n[window]", ["windw: unknown key"]),
        ("[window]", 'owner = "gone"\n[window]', ["owner: 'gone' is not in owners.toml"]),
        ('holdout = "7d"', 'holdout = "70d"', ["gate.holdout: must be shorter"]),
        ("[window]", "[window", ["not valid TOML"]),
    ],
)  # fmt: skip
def test_a_fault_of_the_defaults_is_told_once_and_as_theirs(
    folder: Path, old: str, new: str, told: list[str]
) -> None:
    """However many families inherit it."""
    spoil(folder, "defaults.toml", old, new)
    for family, owner in (("eta.toml", "logistics"), ("churn.toml", "growth")):
        if "owner" in new:
            spoil(folder, family, f'owner = "{owner}"\n', "")
    with pytest.raises(SpecError) as caught:
        load_fleet(folder)
    lines = str(caught.value).splitlines()
    assert len(lines) == len(told)
    for line, said in zip(lines, told, strict=True):
        assert line.startswith(f"defaults.toml: {said}")


def test_what_a_family_says_itself_stays_its_own_fault(folder: Path) -> None:
    """Also where the defaults say something of the same key, or what it contradicts."""
    spoil(folder, "eta.toml", "[decay]", '[window]\nspan = "two"\n[retrain]\nspan = "6d"\n[decay]')
    spoil(folder, "defaults.toml", "[window]", '[decay]\nmetric = "mae"\n[window]')
    spoil(folder, "churn.toml", 'metric = "log_loss"\n', "")
    with pytest.raises(SpecError) as caught:
        load_fleet(folder)
    assert [line.split(": ")[:2] for line in str(caught.value).splitlines()] == [
        ["churn.toml", "decay.metric"],
        ["eta.toml", "window.span"],
        ["eta.toml", "gate.holdout"],
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "owners.toml: the file is missing (hint: expected in "),
        ("# later\n", "owners.toml: declares nobody (hint: write [operations], and below it chan"),
        ("[growth", "owners.toml: not valid TOML"),
    ],
)
def test_without_owners_that_is_said_and_of_no_family(
    folder: Path, text: str | None, said: str
) -> None:
    """Once, with what to write; that nobody is known is no fault of those who name somebody."""
    (folder / "owners.toml").unlink()
    if text is not None:
        (folder / "owners.toml").write_text(text)
    with pytest.raises(SpecError) as caught:
        load_fleet(folder)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(said)
    assert ("channel = " in line) == (text != "[growth")


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


def test_a_text_is_watched_by_numbers_and_given_to_no_model(folder: Path) -> None:
    """Its names are those of the text and of what is told of it."""
    spoil(folder, "eta.toml", "[features]", '[features]\nsaid = { kind = "text", required = true }')
    spoil(folder, "eta.toml", 'unit = "min"', 'unit = "min"\nsegments = ["vehicle"]')
    eta = load_fleet(folder).family_named("eta")
    assert (eta.texts, eta.segments) == (("said",), ("vehicle",))
    assert eta.numbers == ("distance", "load", "said.length", "said.words", "said.non_ascii")
    assert list(eta.inputs) == ["distance", "load", "vehicle"]
    assert [eta.unit_of(metric) for metric in ("mae", "mape", "r2")] == ["min", "%", ""]


def test_texts_alone_make_no_model(folder: Path) -> None:
    """But what is served elsewhere, and never retrained here, can be watched by them."""
    text = (folder / "eta.toml").read_text(encoding="utf-8")
    head, _, rest = text.partition("[features]")
    decay = rest[rest.index("[decay]") :]
    alone = f'{head}[features]\nsaid = {{ kind = "text" }}\n{decay}'
    (folder / "eta.toml").write_text(alone, encoding="utf-8")
    with pytest.raises(SpecError, match="a model needs a feature that is numeric or categorical"):
        load_fleet(folder)
    watched = f'{alone}\n[retrain]\ntriggers = []\n[log]\nsource = "scored/*.parquet"\n'
    (folder / "eta.toml").write_text(watched, encoding="utf-8")
    assert load_fleet(folder).family_named("eta").inputs == {}


def test_features_are_more_than_enough_and_not_without_end(folder: Path) -> None:
    """The log's catalog could not hold the table."""
    many = "\n".join(f'f{n} = {{ kind = "numeric" }}' for n in range(1498))
    spoil(folder, "eta.toml", "[decay]", f"{many}\n[decay]")
    with pytest.raises(SpecError, match=r"features: Dictionary should have at most 1500 items"):
        load_fleet(folder)
