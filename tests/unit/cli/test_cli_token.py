"""`driftloop token`, and where the services do not start without."""

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from driftloop.commands.token import token_commands
from driftloop.errors import BadRequest
from driftloop.serve.tokens import read_tokens
from driftloop.settings import Settings, need_tokens
from driftloop.up import services


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", tokens=tmp_path / "tokens.toml")


def run(settings: Settings, *words: str) -> Result:
    return CliRunner().invoke(token_commands(lambda: settings), [*words])


def test_a_token_is_printed_once(settings: Settings) -> None:
    """`create` prints it alone, `list` what is kept of it, `revoke` takes it away."""
    secret = run(settings, "create", "ci", "--scope", "predict, read").stdout.strip()
    assert secret.startswith("dl_")
    listed = run(settings, "list").stdout
    assert listed.startswith("ci\tpredict,read\t20")
    assert secret not in listed
    assert run(settings, "revoke", "ci").stdout == "ci is revoked\n"
    assert settings.tokens is not None
    assert read_tokens(settings.tokens) == ()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("create", "ci", "--scope", "all"), "there is no scope 'all'"),
        (("create", "ci", "--scope", ","), "a token without a scope"),
        (("create", "a b"), "is no name of a token"),
        (("revoke", "ci"), "the tokens cannot be read"),
        (("list",), "the tokens cannot be read"),
    ],
)
def test_bad_input_writes_nothing(settings: Settings, words: tuple[str, ...], said: str) -> None:
    """It is a BadRequest, which the command line ends with 2 for, and no file is made of it."""
    ran = run(settings, *words)
    assert isinstance(ran.exception, BadRequest)
    assert said in str(ran.exception)
    assert settings.tokens is not None
    assert not settings.tokens.exists()


def test_without_a_file_the_command_says_which_setting(tmp_path: Path) -> None:
    """There is no default place that the service would not look in."""
    ran = run(Settings(home=tmp_path), "create", "ci")
    assert "set tokens" in str(ran.exception)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.1", "localhost", "::1"])
def test_on_this_machine_alone_no_token_is_needed(tmp_path: Path, host: str) -> None:
    """As it was before there were any."""
    need_tokens(Settings(home=tmp_path, host=host))


@pytest.mark.parametrize("host", ["::", "192.0.2.1", "models.example.com"])
def test_where_others_reach_it_nothing_starts_without(tmp_path: Path, host: str) -> None:
    """Unless tokens are named, or it is said that anybody may ask."""
    with pytest.raises(BadRequest, match="other machines reach the services there"):
        services(Settings(home=tmp_path, host=host))
    need_tokens(Settings(home=tmp_path, host=host, open=True))
    need_tokens(Settings(home=tmp_path, host=host, tokens=tmp_path / "tokens.toml"))
