"""Sources, and features that are looked up or computed: what may be said of them."""

import shutil
from datetime import timedelta
from pathlib import Path

import pytest

from driftloop.errors import SpecError
from driftloop.spec import Feature, load_fleet

MONITORS = Path(__file__).parents[2] / "monitors"
SOURCES = """
[departures]
kind = "events"
time = "departed_at"
fields = { origin = "categorical", delay = "numeric", carrier = "categorical" }
lateness = "15m"
nats = "flights.departures"

[planes]
kind = "table"
source = "planes.parquet"
key = "tailnum"
time = "valid_from"
refresh = "1h"
"""
LOOKUPS = """
origin = { kind = "key", required = true }
tailnum = { kind = "key" }
mean_delay = { kind = "numeric", from = "departures", key = "origin", aggregate = "mean", of = "delay", window = "30m", fallback = 0 }
flights = { kind = "numeric", from = "departures", key = "origin", aggregate = "count", window = "60m" }
newest = { kind = "categorical", from = "departures", key = "origin", aggregate = "last", of = "carrier", window = "1h", fallback = "none" }
age = { kind = "numeric", from = "planes", key = "tailnum", of = "age", max_age = "2d", fallback = "refuse" }
twice = { kind = "numeric", expression = "ratio * 2" }
ratio = { kind = "numeric", expression = "mean_delay / max(flights, 1)" }
"""  # noqa: E501 - as it stands in monitor files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The tests' monitors, of which eta looks up and computes features."""
    folder = Path(shutil.copytree(MONITORS, tmp_path / "monitors"))
    (folder / "sources.toml").write_text(SOURCES, encoding="utf-8")
    eta = folder / "eta.toml"
    eta.write_text(
        eta.read_text(encoding="utf-8").replace("[features]", f"[features]{LOOKUPS}"),
        encoding="utf-8",
    )
    return folder


def test_features_are_sent_looked_up_or_computed(folder: Path) -> None:
    """Each feature is one of the three; models are given neither keys nor texts."""
    fleet = load_fleet(folder)
    eta = fleet.family_named("eta")
    assert tuple(eta.requested) == ("origin", "tailnum", "distance", "load", "vehicle")
    assert tuple(eta.looked_up) == ("mean_delay", "flights", "newest", "age")
    assert tuple(eta.computed) == ("ratio", "twice")
    assert "origin" not in eta.inputs | eta.measured
    assert "ratio" in eta.inputs
    assert fleet.sources["departures"].late_after == timedelta(minutes=15)
    assert fleet.only(eta.models[:1]).sources == fleet.sources


def test_a_fallback_is_a_value_null_or_a_refusal(folder: Path) -> None:
    """A number or word stands for itself; none, and "null", are null."""
    features = load_fleet(folder).family_named("eta").features
    assert (features["mean_delay"].substitute, features["newest"].substitute) == (0.0, "none")
    assert features["flights"].substitute is None
    assert (features["age"].substitute, features["age"].refuses) == (None, True)
    null = Feature.model_validate(
        {"kind": "categorical", "from": "planes", "key": "tailnum", "of": "x", "fallback": "null"}
    )
    assert (null.substitute, null.refuses) == (None, False)


@pytest.mark.parametrize("given", ["nan", "inf", "true", "[1.0]"])
def test_a_fallback_that_is_none_is_one_fault(folder: Path, given: str) -> None:
    """It is said once, and what it may be."""
    file = folder / "eta.toml"
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace("fallback = 0 }", f"fallback = {given} }}"), encoding="utf-8")
    with pytest.raises(SpecError, match=r"mean_delay.fallback: should be a finite") as refused:
        load_fleet(folder)
    assert len(refused.value.faults) == 1


def test_without_sources_nothing_changes() -> None:
    """The file is optional, and features that callers send are all there is."""
    fleet = load_fleet(MONITORS)
    eta = fleet.family_named("eta")
    assert (fleet.sources, eta.looked_up, eta.computed) == ({}, {}, {})
    assert eta.requested == eta.features


FAULTS = [
    (
        "sources.toml",
        'time = "departed_at"\n',
        "",
        "departures: a source of kind 'events' needs time",
    ),
    ("sources.toml", 'refresh = "1h"', "", "planes: a source of kind 'table' needs refresh"),
    (
        "sources.toml",
        'refresh = "1h"',
        'refresh = "1h"\nlateness = "1m"',
        "'table' has no lateness",
    ),
    ("sources.toml", '"15m"', '"soon"', "sources.toml: departures.lateness: should be a duration"),
    (
        "sources.toml",
        'delay = "numeric"',
        'position = "numeric"',
        "departures.fields.position: not a",
    ),
    (
        "sources.toml",
        'delay = "numeric"',
        'delay = "text"',
        "sources.toml: departures.fields.delay",
    ),
    ("sources.toml", '"departed_at"', '"origin"', "departures.time: 'origin' is also a field"),
    ("sources.toml", "[planes]", "[Planes]", "sources.toml: Planes: a source's name is lower case"),
    ("sources.toml", 'nats = "', 'nats = "a b', "sources.toml: departures.nats"),
    ("sources.toml", "nats = ", 'name = "x"\nnats = ', "departures.name: the table's name is the"),
    (
        "sources.toml",
        "nats = ",
        "subject = ",
        "departures.subject: unknown key (hint: known: kind,",
    ),
    (
        "eta.toml",
        'from = "departures", key = "origin", aggregate = "mean"',
        'from = "arrivals", key = "origin", aggregate = "mean"',
        "mean_delay.from: there is no source 'arrivals' (hint: known: departures, pl",
    ),
    (
        "eta.toml",
        'aggregate = "mean", of = "delay"',
        'aggregate = "mean"',
        "mean_delay.of: mean needs a field",
    ),
    (
        "eta.toml",
        'aggregate = "mean", of = "delay"',
        'aggregate = "mean", of = "dela"',
        "departures has no field 'dela'",
    ),
    (
        "eta.toml",
        'aggregate = "mean", of = "delay"',
        'aggregate = "mean", of = "carrier"',
        "mean is of numbers, and 'carrier' is",
    ),
    (
        "eta.toml",
        'aggregate = "mean"',
        'aggregate = "median"',
        "features.mean_delay.aggregate: Input should be",
    ),
    (
        "eta.toml",
        'aggregate = "mean", ',
        "",
        "features.mean_delay.aggregate: missing (hint: one of count,",
    ),
    ("eta.toml", ', window = "60m"', "", "features.flights.window: missing"),
    (
        "eta.toml",
        ', window = "60m"',
        ', window = "60m", of = "delay"',
        "flights.of: a count is of the events",
    ),
    (
        "eta.toml",
        ', window = "60m"',
        ', window = "60m", max_age = "1h"',
        "flights.max_age: events grow old",
    ),
    (
        "eta.toml",
        'kind = "categorical", from',
        'kind = "numeric", from',
        "newest: the fallback of a number is a number",
    ),
    (
        "eta.toml",
        'window = "1h", fallback = "none"',
        'window = "1h", fallback = 1',
        "newest: the fallback of a category is a word",
    ),
    (
        "eta.toml",
        'aggregate = "last", of = "carrier"',
        'aggregate = "last", of = "delay"',
        "features.newest.kind: its values are numeric",
    ),
    (
        "eta.toml",
        'key = "origin", aggregate = "mean"',
        'key = "distance", aggregate = "mean"',
        "'distance' is no key or category that callers send (hint: fitting: origin, tai",
    ),
    (
        "eta.toml",
        'key = "origin", aggregate = "mean"',
        'key = "vehicle", aggregate = "mean"',
        "departures has no categorical field 'vehicle'",
    ),
    (
        "eta.toml",
        'key = "origin", aggregate = "mean"',
        'aggregate = "mean"',
        "features.mean_delay.key: missing",
    ),
    (
        "eta.toml",
        'key = "tailnum"',
        'key = "origin"',
        "features.age.key: planes is looked up by 'tailnum'",
    ),
    ("eta.toml", 'of = "age", ', "", "features.age.of: missing (hint: name the table's column)"),
    (
        "eta.toml",
        'of = "age", ',
        'of = "age", window = "1h", ',
        "features.age.window: planes is a table",
    ),
    (
        "eta.toml",
        'fallback = "refuse"',
        "required = true",
        "features.age: is not sent by callers, so it cannot be required",
    ),
    (
        "eta.toml",
        'origin = { kind = "key", ',
        'origin = { kind = "key", range = [0, 1], ',
        "a key feature has no range",
    ),
    (
        "eta.toml",
        'tailnum = { kind = "key" }',
        'tailnum = { kind = "key", window = "1h" }',
        "features.tailnum: has window, and no source",
    ),
    (
        "eta.toml",
        'tailnum = { kind = "key" }',
        'tailnum = { kind = "key", expression = "1" }',
        "features.tailnum: a key is sent by callers",
    ),
    (
        "eta.toml",
        '"ratio * 2"',
        '"ratio * 2", from = "planes"',
        "features.twice: is either looked up (from) or computed",
    ),
    ("eta.toml", '"ratio * 2"', '"ratio * "', "features.twice.expression: is no expression"),
    (
        "eta.toml",
        '"ratio * 2"',
        '"open(ratio)"',
        "'open(ratio)' may not stand in an expression (known: +",
    ),
    ("eta.toml", '"ratio * 2"', '"ratio.real"', "'ratio.real' may not stand"),
    ("eta.toml", '"ratio * 2"', '"sqrt(ratio, 2)"', "sqrt takes one argument"),
    ("eta.toml", '"ratio * 2"', '"max(ratio)"', "max takes two arguments or more"),
    ("eta.toml", '"ratio * 2"', '"ratio * 1e999"', "is too large"),
    (
        "eta.toml",
        '"ratio * 2"',
        '"ratio * nobody"',
        "features.twice.expression: 'nobody' is no feature to compute with",
    ),
    ("eta.toml", '"ratio * 2"', '"twice * 2"', "'twice' is itself"),
    ("eta.toml", '"ratio * 2"', '"ratio + newest"', "'newest' is a text where a number is needed"),
    ("eta.toml", '"ratio * 2"', "\"1 if newest > 'a' else 0\"", "texts are only equal or not"),
    ("eta.toml", '"ratio * 2"', '"ratio > 2"', "is a condition, and no value"),
    ("eta.toml", '"ratio * 2"', '"newest"', "features.twice.kind: its values are categorical"),
    ("eta.toml", '"mean_delay / max(flights, 1)"', '"twice / 2"', "needs itself, by way of others"),
]


@pytest.mark.parametrize(("file", "old", "new", "said"), FAULTS)
def test_each_fault_is_told(folder: Path, file: str, old: str, new: str, said: str) -> None:
    """One fault a case; the message leads to it."""
    text = (folder / file).read_text(encoding="utf-8")
    assert old in text
    (folder / file).write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(SpecError) as caught:
        load_fleet(folder)
    assert said in str(caught.value)


def test_faults_of_sources_and_families_are_told_at_once(folder: Path) -> None:
    """A source with a fault of its own is one that families may name all the same."""
    for file, old, new in (
        ("sources.toml", '"15m"', '"soon"'),
        ("eta.toml", '"ratio * 2"', '"ratio *"'),
    ):
        text = (folder / file).read_text(encoding="utf-8")
        (folder / file).write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(SpecError) as caught:
        load_fleet(folder)
    assert len(caught.value.faults) == 2


def test_families_served_elsewhere_look_nothing_up(folder: Path) -> None:
    """Their log holds every value."""
    eta = folder / "eta.toml"
    eta.write_text(eta.read_text(encoding="utf-8") + '\n[log]\nsource = "scored.parquet"\n')
    with pytest.raises(SpecError, match="served elsewhere: their log holds every value"):
        load_fleet(folder)
