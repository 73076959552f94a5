"""Tables into the online store, by hand and when they are due; rows of batches made whole."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from fakes.streamed import NOON, write_monitors

from driftloop import cli
from driftloop.clock import Clock
from driftloop.errors import BadRequest, UnknownSource
from driftloop.settings import Settings
from driftloop.wiring import System


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    """An installation with a table of planes; its clock stands at noon, nearly."""
    settings = Settings(home=tmp_path / "home", monitors=write_monitors(tmp_path / "monitors"))
    settings.home.mkdir()
    made = System(settings)
    stand_at(made, timedelta())
    yield made
    made.tables.close()
    made.states.close()


def stand_at(system: System, after_noon: timedelta) -> None:
    at = NOON + after_noon
    Clock(origin=at, started=at, speed=1e-6).write(system.settings.clock)


def age(system: System, tailnum: str) -> object:
    with system.tables.reading() as view:
        return view.row("planes", tailnum)


def test_a_table_is_read_from_beside_the_monitors(system: System) -> None:
    """A file, or a query in which files are named alike."""
    assert system.refresh("planes") == 2
    assert age(system, "N1") == (3.0,)
    file = system.fleet.folder / "sources.toml"
    query = "SELECT tailnum, age + 1 AS age FROM 'planes.csv' WHERE age IS NOT NULL"
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace('"planes.csv"', f'"{query}"'), encoding="utf-8")
    again = System(system.settings)
    assert again.refresh("planes") == 1
    assert (age(again, "N1"), age(again, "N2")) == ((4.0,), None)
    again.tables.close()


@pytest.mark.parametrize("content", [None, "", "tailnum,age\n", "tailnum,age\nN1,old\n", "a\n1\n"])
def test_a_table_that_cannot_be_read_leaves_the_old_one(
    system: System, content: str | None
) -> None:
    """A file that is gone, empty, without its column, or of another kind."""
    system.refresh("planes")
    file = system.fleet.folder / "planes.csv"
    if content is None:
        file.unlink()
    else:
        file.write_text(content, encoding="utf-8")
    with pytest.raises(BadRequest):
        system.refresh("planes")
    assert age(system, "N1") == (3.0,)


def test_a_table_is_due_when_its_copy_is_as_old_as_it_says(system: System) -> None:
    """By the loop's clock; one that was never read is due, and a stream never is."""
    assert system.due_tables() == ("planes",)
    system.refresh("planes")
    assert system.due_tables() == ()
    stand_at(system, timedelta(minutes=50))
    assert system.due_tables() == ()
    stand_at(system, timedelta(hours=1))
    assert system.due_tables() == ("planes",)
    assert system.refresh_every == timedelta(minutes=1)


def test_what_is_no_table_cannot_be_refreshed(
    system: System, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, with what there is."""
    with pytest.raises(UnknownSource, match="known: planes"):
        system.refresh("departures")
    settings = system.settings
    options = ["--home", str(settings.home), "--monitors", str(settings.monitors)]
    monkeypatch.setattr("sys.argv", ["driftloop", *options, "refresh", "nothing"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert "no table 'nothing'" in capsys.readouterr().err
    monkeypatch.setattr("sys.argv", ["driftloop", *options, "refresh"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    assert "planes: 2 keys" in capsys.readouterr().out
