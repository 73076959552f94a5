"""An installation whose stores are elsewhere: nothing is done by half."""

from pathlib import Path
from typing import Any

import pytest

from driftloop.errors import BadRequest
from driftloop.keep import backup, refuse_elsewhere, restore
from driftloop.records import Moved
from driftloop.settings import Settings
from driftloop.wiring import System

S3 = {"lake_files": "s3://b/x", "s3_key": "k", "s3_secret": "s"}
DATABASE = "postgresql://ours@127.0.0.1:1/x"


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"ledger": DATABASE}, "ledger"),
        ({"catalog": DATABASE, **S3}, "catalog, lake_files"),
        (S3, "lake_files"),
        ({"mlflow": "http://127.0.0.1:1"}, "mlflow"),
        ({"artifacts": Path("/shared")}, "artifacts"),
    ],
)
def test_a_backup_of_half_is_none(
    house: Any, tmp_path: Path, given: dict[str, Any], named: str
) -> None:
    """The setting is named, what copies the rest too, and no file is written."""
    settings = Settings(home=house.system.settings.home, **given)
    with pytest.raises(BadRequest, match=f"^{named}: a backup holds what is in the home") as told:
        backup(settings, tmp_path / "backup.tar")
    assert "pg_dump" in told.value.hint
    assert list(tmp_path.iterdir()) == []


def test_what_is_all_in_the_home_is_not_refused(tmp_path: Path) -> None:
    """Prefect's runs are in no backup, wherever they are."""
    refuse_elsewhere(Settings(home=tmp_path, prefect="http://127.0.0.1:1/api"))


def test_a_shared_ledger_is_not_changed_for_a_home_that_moved(
    saved: Path, tmp_path: Path, house_at: Any, database: str
) -> None:
    """It is said instead; a home that is where it was, or that never had the files, is well."""
    restore(saved, tmp_path / "before")
    moves = house_at(tmp_path / "before").system.ledger.facts(Moved)
    monitors = house_at(tmp_path / "before").system.settings.monitors
    (tmp_path / "before").rename(tmp_path / "after")
    shared = {"monitors": monitors, "ledger": database}
    system = System(Settings(home=tmp_path / "after", **shared))  # type: ignore[arg-type]
    for number, move in enumerate(moves):
        system.ledger.append(move, key=f"{move.model}#{number}")
    with pytest.raises(BadRequest, match=f"this home was {tmp_path / 'before'}"):
        system.settle()
    assert system.ledger.facts(Moved) == moves
    elsewhere = System(Settings(home=tmp_path / "other", **shared))  # type: ignore[arg-type]
    assert elsewhere.settle() == ()
