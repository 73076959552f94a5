"""Settings: from the environment, to children, and what is wrong with them."""

from pathlib import Path

import pytest

from driftloop.errors import BadRequest
from driftloop.settings import Settings, read_settings


def test_a_child_reads_what_its_parent_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """Through `environment` every setting arrives as it was."""
    parent = read_settings(models="a-b,c-d", watch_every=3.0, restart=False)
    for name, value in parent.environment().items():
        monkeypatch.setenv(name, value)
    assert read_settings() == parent


def test_a_token_taken_away_does_not_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A demo that sets no token must not page with the one in the shell's environment."""
    monkeypatch.setenv("DRIFTLOOP_SLACK_TOKEN", "xoxb-real")
    settings = read_settings()
    assert settings.slack_token is not None
    assert settings.slack_base == "https://slack.com/api/"
    local = settings.model_copy(update={"slack_token": None})
    for name, value in local.environment().items():
        monkeypatch.setenv(name, value)
    assert read_settings().slack_token is None
    assert "127.0.0.1" in read_settings().slack_base


def test_a_token_is_not_shown() -> None:
    """Neither repr nor dump has it."""
    shown = Settings(slack_token="xoxb-real")  # type: ignore[arg-type]
    assert "xoxb-real" not in repr(shown)
    assert "xoxb-real" not in shown.model_dump_json()


def test_every_wrong_setting_is_named_by_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both faults in one error."""
    monkeypatch.setenv("DRIFTLOOP_WATCH_EVERY", "0")
    monkeypatch.setenv("DRIFTLOOP_ONLINE_PORT", "many")
    with pytest.raises(
        BadRequest,
        match=r"DRIFTLOOP_ONLINE_PORT.*DRIFTLOOP_WATCH_EVERY|"
        r"DRIFTLOOP_WATCH_EVERY.*DRIFTLOOP_ONLINE_PORT",
    ):
        read_settings()


def test_a_misspelt_setting_is_refused_with_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody reads is not silently ignored."""
    monkeypatch.setenv("DRIFTLOOP_WATCH_EVRY", "60")
    with pytest.raises(
        BadRequest, match=r"DRIFTLOOP_WATCH_EVRY.*did you mean DRIFTLOOP_WATCH_EVER"
    ):
        read_settings()


def test_two_services_on_one_port_are_refused() -> None:
    """Both settings are named."""
    with pytest.raises(BadRequest, match="online_port and pages_port are the same port"):
        read_settings(online_port=9000, pages_port=9000)


def test_a_folder_has_one_name_however_it_is_called(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Dots are followed at once: what a home holds is written down under its name."""
    (tmp_path / "in").mkdir()
    monkeypatch.chdir(tmp_path / "in")
    monkeypatch.setenv("DRIFTLOOP_HOME", "../home")
    assert read_settings().home == tmp_path / "home"
    assert read_settings(home=tmp_path / "in" / ".." / "home").home == tmp_path / "home"
