"""Monitor files of classes and of scores: what they may say, and what contradicts it."""

import shutil
from pathlib import Path

import pytest

from driftloop.errors import BadRequest, SpecError
from driftloop.records import Task
from driftloop.spec import Family, load_fleet

MONITORS = Path(__file__).parents[2] / "monitors"
COLOUR = """
task = "multiclass"
classes = ["red", "green", "blue"]
target = "colour"
time = "asked_at"
owner = "growth"
markets = ["uk"]
[features]
size = { kind = "numeric" }
[decay]
metric = "accuracy"
warn = 0.1
alarm = 0.2
"""
RISK = """
task = "score"
target = "risk"
time = "asked_at"
owner = "growth"
markets = ["uk"]
[features]
size = { kind = "numeric" }
[log]
source = "scored.parquet"
[retrain]
triggers = []
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the tests' monitors that a test may add to."""
    return Path(shutil.copytree(MONITORS, tmp_path / "monitors"))


def faults(folder: Path, file: str, text: str) -> str:
    (folder / file).write_text(text, encoding="utf-8")
    with pytest.raises(SpecError) as caught:
        load_fleet(folder)
    return str(caught.value)


def test_classes_keep_their_order(folder: Path) -> None:
    """The log keeps the place of a class in the list; people are shown its name."""
    (folder / "colour.toml").write_text(COLOUR, encoding="utf-8")
    colour = load_fleet(folder).family_named("colour")
    assert (colour.task, colour.classes) == (Task.MULTICLASS, ("red", "green", "blue"))
    assert [colour.shown(value) for value in (0.0, 2.0)] == ["red", "blue"]
    assert [colour.shown(value) for value in (3.0, -1.0, 0.5)] == [3.0, -1.0, 0.5]
    assert load_fleet(folder).family_named("eta").shown(1.0) == 1.0


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ('["red"]', "classes: should be 2 to 1000 classes, got 1"),
        (f"{[str(n) for n in range(1001)]}", "classes: should be 2 to 1000 classes, got 1001"),
        ('["red", "red"]', "classes: 'red' stands twice"),
        ('["red", ""]', "classes: '' should be a text of printable characters"),
        ('["red", " blue"]', "classes: ' blue' should be a text"),
        ('["red", "a\\tb"]', "should be a text of printable"),
        ("[1, 2]", "classes.0: Input should be a valid string, got 1"),
        ('"red"', "classes: should be a list, got 'red'"),
    ],
)
def test_classes_are_strictly_checked(folder: Path, given: str, said: str) -> None:
    """Two to a thousand distinct names, as people can read and write them."""
    text = COLOUR.replace('["red", "green", "blue"]', given)
    assert said in faults(folder, "colour.toml", text)


def test_a_thousand_classes_are_well(folder: Path) -> None:
    """The most there may be."""
    text = COLOUR.replace('["red", "green", "blue"]', f"{[str(n) for n in range(1000)]}")
    (folder / "colour.toml").write_text(text, encoding="utf-8")
    assert len(load_fleet(folder).family_named("colour").classes) == 1000


def test_classes_belong_to_multiclass_alone(folder: Path) -> None:
    """Missing there, and given elsewhere, they are a fault; so is a metric of another task."""
    without = COLOUR.replace('classes = ["red", "green", "blue"]\n', "")
    assert "colour.toml: classes: a multiclass family needs them" in faults(
        folder, "colour.toml", without
    )
    said = faults(folder, "colour.toml", COLOUR.replace("multiclass", "binary"))
    assert "colour.toml: classes: only a multiclass family has classes" in said
    said = faults(folder, "colour.toml", COLOUR.replace('"accuracy"', '"log_loss"'))
    assert "'log_loss' is not a metric of multiclass" in said
    (folder / "colour.toml").unlink()
    text = (folder / "defaults.toml").read_text(encoding="utf-8")
    said = faults(folder, "defaults.toml", f'classes = ["a", "b"]\n{text}')
    assert "defaults.toml: classes: belongs in a family's own file" in said


def test_scores_need_neither_decay_nor_labels(folder: Path) -> None:
    """What other families inherit of decay is no business of theirs."""
    text = (folder / "defaults.toml").read_text(encoding="utf-8")
    decay = "[decay]\nwarn = 0.1\nalarm = 0.2\n"
    (folder / "defaults.toml").write_text(decay + text, encoding="utf-8")
    (folder / "risk.toml").write_text(RISK, encoding="utf-8")
    risk = load_fleet(folder).family_named("risk")
    assert (risk.task, risk.decay) == (Task.SCORE, None)
    risk.need_handover()  # another reference is nobody's to take
    with pytest.raises(BadRequest, match="served elsewhere"):
        risk.need_own_log()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            '[log]\nsource = "scored.parquet"\n',
            "",
            "log: scores are watched where they are served: driftloop trains and serves none",
        ),
        ("[log]", '[decay]\nmetric = "mae"\nwarn = 0.1\nalarm = 0.2\n[log]', "decay: no outcome"),
        ("triggers = []", 'triggers = ["drift"]', "retrain.triggers: a score cannot be retrained"),
        ("[retrain]", '[handover]\ncommand = ["./x"]\n[retrain]', "handover: no version of a"),
        ("[retrain]", '[log.labels]\nsource = "y.parquet"\n[retrain]', "log.labels: a score has"),
        ('t"\n[r', 't"\ncolumns = { label = "y" }\n[r', "log.columns.label: is no column of ours"),
    ],
)
def test_what_contradicts_a_score_is_told(folder: Path, old: str, new: str, said: str) -> None:
    """Each with what to do instead."""
    assert old in RISK
    assert f"risk.toml: {said}" in faults(folder, "risk.toml", RISK.replace(old, new))


def test_inherited_triggers_are_told_too(folder: Path) -> None:
    """A family of scores says itself that nothing is retrained."""
    said = faults(folder, "risk.toml", RISK.replace("[retrain]\ntriggers = []\n", ""))
    assert "retrain.triggers: a score cannot be retrained" in said


def test_only_scores_go_without_decay(folder: Path) -> None:
    """Any other family without it is told where to give it."""
    text = COLOUR[: COLOUR.index("[decay]")]
    said = faults(folder, "colour.toml", text)
    assert "colour.toml: decay: missing (hint: give it here or in defaults.toml" in said


def test_what_a_family_shows_is_cheap_to_tell(colour: Family) -> None:
    """The name by the index, and no index of what is none."""
    assert colour.shown(3.0) == "off white"
    assert colour.shown(4.0) == 4.0
