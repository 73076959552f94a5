"""Settings from a file: what wins over what, where each comes from, and what is refused."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from driftloop.errors import BadRequest
from driftloop.settings import Setting, explained, read_settings


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder, with no settings in the environment."""
    for variable in list(os.environ):
        if variable.startswith("DRIFTLOOP_"):
            monkeypatch.delenv(variable)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def named(name: str, **given: object) -> Setting:
    return next(each for each in explained(**given) if each.name == name)


def test_command_line_over_environment_over_file_over_default(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each source wins over those below it, and says that it was the one."""
    assert named("host") == Setting(
        "host", "127.0.0.1", "default", "What every service listens on."
    )
    (folder / "driftloop.toml").write_text('host = "from-file"\n')
    assert (named("host").value, named("host").origin) == ("from-file", "driftloop.toml: host")
    monkeypatch.setenv("DRIFTLOOP_HOST", "from-environment")
    assert (named("host").value, named("host").origin) == ("from-environment", "DRIFTLOOP_HOST")
    found = named("host", host="from-option")
    assert (found.value, found.origin) == ("from-option", "--host")
    assert read_settings(host="from-option").host == "from-option"


def test_a_named_file_is_read_instead(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`DRIFTLOOP_CONFIG` and `--config` name another file, whose paths are relative to it."""
    (folder / "driftloop.toml").write_text("watch_every = 1\n")
    elsewhere = folder / "etc"
    elsewhere.mkdir()
    (elsewhere / "ours.toml").write_text('home = "data"\nmonitors = "/abs/monitors"\n')
    monkeypatch.setenv("DRIFTLOOP_CONFIG", "etc/ours.toml")
    assert read_settings().home == elsewhere / "data"
    assert read_settings().monitors == Path("/abs/monitors")
    assert read_settings().watch_every == 600.0
    assert read_settings(config=folder / "driftloop.toml").watch_every == 1.0


def test_secrets_are_not_shown(folder: Path) -> None:
    """A token in the file is used, and never printed."""
    (folder / "driftloop.toml").write_text('slack_token = "xoxb-secret"\n')
    token = read_settings().slack_token
    assert token is not None
    assert token.get_secret_value() == "xoxb-secret"
    assert not any("secret" in each.value for each in explained() if each.name == "slack_token")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("watch_evry = 1\n", "driftloop.toml: watch_evry: there is no such setting"),
        ('watch_every = "soon"\n', "driftloop.toml: watch_every: "),
        ("watch_every = -1\n", "driftloop.toml: watch_every: "),
        ("online_port = 99999\n", "driftloop.toml: online_port: "),
        ("online_port = true\n", "online_port: Input should be a valid integer, got true"),
        ("online_port = 8400.0\n", "online_port: Input should be a valid integer, got 8400.0"),
        ('watch_every = "60"\n', "watch_every: Input should be a valid number, got '60'"),
        ("watch_every = inf\n", "driftloop.toml: watch_every: "),
        ("restart = 1\n", "restart: Input should be a valid boolean, got 1"),
        ("home = 3\n", "home: Input should be a path, got 3"),
        ('home = ""\n', "home: Input should be a path, got ''"),
        ('host = ""\n', "driftloop.toml: host: "),
        ("seal_rows = 0\nrenew_slots = 0\n", "driftloop.toml: renew_slots: "),
        (
            "Home = 'x'\n",
            "driftloop.toml: Home: there is no such setting (hint: did you mean home?)",
        ),
        ("zzz = 1\n", "(hint: known: "),
        ("online_port = 8401\n", "online_port and pages_port are the same port"),
        ("[online]\nport = 1\n", "driftloop.toml: online: there is no such setting"),
        ("host = \n", "driftloop.toml: not valid TOML"),
    ],
)
def test_a_wrong_file_says_what_and_where(folder: Path, text: str, said: str) -> None:
    """File and key are named; nothing falls back to a default."""
    (folder / "driftloop.toml").write_text(text)
    with pytest.raises(BadRequest) as raised:
        read_settings()
    assert said in str(raised.value)


def test_a_wrong_value_is_refused_where_another_source_wins(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broken file is told today, not on the day that the variable is gone."""
    (folder / "driftloop.toml").write_text("online_port = true\n")
    monkeypatch.setenv("DRIFTLOOP_ONLINE_PORT", "9001")
    with pytest.raises(BadRequest, match="online_port"):
        read_settings()


def test_a_wrong_token_is_not_shown_either(folder: Path) -> None:
    """The error of a secret has its name alone."""
    (folder / "driftloop.toml").write_text('slack_token = ["xoxb-secret"]\n')
    with pytest.raises(BadRequest, match="slack_token") as raised:
        read_settings()
    assert "secret" not in str(raised.value)


def test_a_variable_in_small_letters_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be in force without anybody seeing where it comes from."""
    monkeypatch.setenv("driftloop_host", "elsewhere")
    with pytest.raises(BadRequest, match=r"driftloop_host.*did you mean DRIFTLOOP_HOST"):
        read_settings()


def test_a_named_file_that_is_not_there_is_an_error() -> None:
    """Only the working folder's file may be absent."""
    with pytest.raises(BadRequest, match="No such file"):
        read_settings(config="absent.toml")


def test_children_read_no_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service gets what `up` began with, whatever has become of the file since."""
    file = folder / "driftloop.toml"
    file.write_text("watch_every = 60\nonline_port = 9001\n")
    given = read_settings().environment()
    file.write_text("watch_every = 1\nonline_port = 9002\nnonsense = 1\n")
    for variable, value in given.items():
        monkeypatch.setenv(variable, value)
    assert (read_settings().watch_every, read_settings().online_port) == (60.0, 9001)


def test_the_command_shows_them_and_fails_on_a_wrong_file(folder: Path) -> None:
    """`driftloop settings` prints name, value, source and purpose; bad input is exit code 2."""
    (folder / "driftloop.toml").write_text("watch_every = 60\n")
    argv = [sys.executable, "-m", "driftloop", "settings"]
    shown = subprocess.run(argv, capture_output=True, text=True, check=True)
    line = next(line for line in shown.stdout.splitlines() if line.startswith("watch_every"))
    assert line.split()[1:4] == ["60.0", "driftloop.toml:", "watch_every"]
    (folder / "driftloop.toml").write_text("nonsense = 1\n")
    failed = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert failed.returncode == 2
    assert "driftloop.toml: nonsense" in failed.stderr
