"""What `driftloop init` gives somebody without a fleet: files that hold, and never overwrite."""

import re
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

import pytest

from driftloop.errors import BadRequest
from driftloop.settings import Settings, read_settings
from driftloop.spec import load_fleet
from driftloop.starter import write_starter


def test_what_is_written_is_a_sound_installation(tmp_path: Path) -> None:
    """The files load, settings and fleet, and say everything by themselves."""
    written = write_starter(tmp_path / "new" / "place")
    assert {str(file.relative_to(tmp_path / "new" / "place")) for file in written} == {
        "driftloop.toml",
        "monitors/defaults.toml",
        "monitors/owners.toml",
        "monitors/parcels.toml",
        "monitors/platform.toml",
        "monitors/routes.toml",
    }
    settings = read_settings(config=written[0])
    assert settings.home == tmp_path / "new" / "place" / ".driftloop"
    fleet = load_fleet(settings.monitors)
    assert fleet.models == ("parcels-north", "parcels-south")
    assert fleet.platform.owner == "operations"


def test_what_is_switched_off_in_the_files_of_people_holds_too(tmp_path: Path) -> None:
    """Switched on as it stands, with one more owner to go to."""
    monitors = write_starter(tmp_path)[0].parent / "monitors"
    for name in ("owners.toml", "routes.toml"):
        file = monitors / name
        on = re.sub(r"^# (?=[\[\]] ?|    |\w+ = )", "", file.read_text(), flags=re.MULTILINE)
        more = '\n[somebody]\nchannel = "#somebody"\n' if name == "owners.toml" else ""
        file.write_text(on + more)
    fleet = load_fleet(monitors)
    operations, (route,) = fleet.owners["operations"], fleet.routes.routes
    assert operations.on_call is not None
    assert len(operations.on_call.overrides) == 1
    assert (operations.time_zone, operations.quiet) == ("Europe/Berlin", ("22:00-07:00",))
    assert (route.owner, route.escalate) == ("operations", ("somebody",))


def test_the_settings_file_has_every_setting_with_its_default(tmp_path: Path) -> None:
    """Switching a line on without editing it changes nothing."""
    file = write_starter(tmp_path)[0]
    on = re.sub(r"^# (\w+ = )", r"\1", file.read_text(), flags=re.MULTILINE)
    assert re.findall(r"^(\w+) = ", on, re.MULTILINE) == list(Settings.model_fields)
    file.write_text(on)
    # What has no default stands there as a place to fill in.
    empty = dict.fromkeys(n for n, field in Settings.model_fields.items() if field.default is None)
    assert read_settings(config=file).model_copy(update=empty) == read_settings(
        home=tmp_path / ".driftloop", monitors=tmp_path / "monitors"
    )


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    """One file that is there stops all of it, and is named."""
    (tmp_path / "monitors").mkdir()
    (tmp_path / "monitors" / "owners.toml").write_text("mine")
    with pytest.raises(BadRequest, match=r"owners\.toml: already there"):
        write_starter(tmp_path)
    assert (tmp_path / "monitors" / "owners.toml").read_text() == "mine"
    assert not (tmp_path / "driftloop.toml").exists()


def test_a_disk_that_fills_leaves_no_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was written before the failure goes again."""
    really = Path.open

    def opened(file: Path, *how: Any, **more: Any) -> IO[Any]:
        if file.name == "parcels.toml" and how == ("x",):
            raise OSError(28, "No space left on device", str(file))
        return really(file, *how, **more)

    monkeypatch.setattr(Path, "open", opened)
    with pytest.raises(OSError, match="No space left"):
        write_starter(tmp_path)
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == []


def test_the_command_says_what_it_wrote_and_refuses_with_exit_code_2(tmp_path: Path) -> None:
    """A second time, each file that is there is named."""
    argv = [sys.executable, "-m", "driftloop", "init", "mine"]
    first = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "mine/monitors/parcels.toml" in first.stdout
    second = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (second.returncode, second.stdout) == (2, "")
    assert "mine/driftloop.toml" in second.stderr
