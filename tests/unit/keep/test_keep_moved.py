from pathlib import Path
from typing import Any

import pytest

from driftloop.keep import backup, restore
from driftloop.records import ModelId, Moved, Trained
from driftloop.serve.model import load_model

DE = ModelId("eta-de")


@pytest.fixture
def moved(house_at: Any, saved: Path, tmp_path: Path) -> Any:
    """An installation that worked in one folder and now lies in another."""
    restore(saved, tmp_path / "before")
    (tmp_path / "before").rename(tmp_path / "after")
    return house_at(tmp_path / "after")


def test_a_moved_home_answers_where_it_is(moved: Any, tmp_path: Path) -> None:
    """Every model file and version is found anew, once; what nobody moved is left as it is."""
    system = moved.system
    assert system.settle() == (tmp_path / "before",)
    for fact in system.ledger.facts(Moved):
        assert Path(fact.head.artifact).is_relative_to(tmp_path / "after")
        load_model(Path(fact.head.artifact), fact.head.digest)
    assert str(tmp_path / "before") not in str(system.ledger.facts(Trained))
    assert [version.version for version in system.registry.versions(DE)] == [2, 1]
    assert moved.version("third/eta-de", seed=3) == 3
    assert system.settle() == ()


def test_what_is_not_here_is_not_said_to_be(moved: Any, tmp_path: Path) -> None:
    """A file that is another, or is not there, brings no path up."""
    for fact in moved.system.ledger.facts(Moved):
        file = tmp_path / "after" / Path(fact.head.artifact).relative_to(tmp_path / "before")
        file.write_bytes(b"another")
    assert moved.system.settle() == ()


def test_a_moved_home_can_be_backed_up_as_it_lies(
    house_at: Any, moved: Any, tmp_path: Path
) -> None:
    """Also before `driftloop up` was there, and under any name: it restores as any other."""
    (tmp_path / "link").symlink_to(tmp_path / "after")
    for name in ("after", "link"):
        made = backup(house_at(tmp_path / name).system.settings, tmp_path / f"{name}.tar")
        assert made.champions == 1
        found = restore(tmp_path / f"{name}.tar", tmp_path / f"{name}-restored")
        (head,) = found.champions
        assert Path(head.artifact).is_relative_to(tmp_path / f"{name}-restored")
    assert Path(moved.system.ledger.heads()[0].artifact).is_relative_to(tmp_path / "before")
