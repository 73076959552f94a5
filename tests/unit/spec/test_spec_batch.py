"""Monitor files of models that are scored on a schedule: [batch]."""

import shutil
from datetime import timedelta
from pathlib import Path

import pytest

from driftloop.errors import SpecError
from driftloop.spec import load_fleet

MONITORS = Path(__file__).parents[2] / "monitors"
WHOLE = 'source = "in/{market}.parquet"\nout = "out/{model}/{date}.parquet"\nevery = "1d"\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the tests' monitors that a test may add to."""
    return Path(shutil.copytree(MONITORS, tmp_path / "monitors"))


def add(folder: Path, text: str) -> None:
    with (folder / "eta.toml").open("a", encoding="utf-8") as file:
        file.write(f"\n[batch]\n{text}")


def test_a_batch_is_declared(folder: Path) -> None:
    """What is read and written, how often, and whether it is published."""
    add(folder, WHOLE + "publish = true\n")
    batch = load_fleet(folder).family_named("eta").batch
    assert batch is not None
    assert (batch.every, batch.publish) == (timedelta(days=1), True)
    assert load_fleet(folder).family_named("churn").batch is None


@pytest.mark.parametrize(
    ("was", "now", "said"),
    [
        ("{model}/{date}.parquet", "{day}.parquet", r"batch.out: there is no \{day\}"),
        ("in/{market}", "in/{foo}", r"batch.source: there is no \{foo\}"),
        ("in/{market}", "out/./{model}/{date}", "batch.out: would overwrite its own source"),
        ("{model}/{date}.parquet", "{date}.parquet", "batch.out: one model's file would replace"),
        ("{date}.parquet", "{date}", "batch.out"),
        ("1d", "soon", "batch.every: should be a duration"),
        ('"in/{market}.parquet"', '""', "batch.source"),
        ("every", "often", "batch.often: unknown key"),
    ],
)
def test_what_cannot_be_meant_is_refused(folder: Path, was: str, now: str, said: str) -> None:
    """With the key at fault."""
    add(folder, WHOLE.replace(was, now))
    with pytest.raises(SpecError, match=said):
        load_fleet(folder)


def test_braces_of_a_query_are_its_own(folder: Path) -> None:
    """In SQL they make structs."""
    add(folder, WHOLE.replace('"in/{market}.parquet"', """"SELECT {'a': 1} AS b FROM 'x.csv'\""""))
    assert load_fleet(folder).family_named("eta").batch is not None


def test_what_is_served_elsewhere_is_not_scored_here(folder: Path) -> None:
    """Its log is only read."""
    add(folder, WHOLE + '[log]\nsource = "a.parquet"\n[retrain]\ntriggers = []\n')
    with pytest.raises(SpecError, match="batch: these models are served elsewhere"):
        load_fleet(folder)
