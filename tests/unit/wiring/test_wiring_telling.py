"""An outage of Slack, with everything real: slack-sdk, SMTP and HTTP over sockets, the ledger."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from fakes.mail_server import Hook, Mailbox, hook_server, mail_server
from fakes.sandbox_server import SandboxServer, running

from driftloop.records import ModelId, Notice, Passed, Stage
from driftloop.settings import Settings
from driftloop.up.watchdog import Watchdog
from driftloop.wiring import System

MONITORS = Path(__file__).parents[2] / "monitors"
OWNERS = """
[logistics]
channel = "#ml-logistics"
email = ["lee@example.org"]
digest = "00:00"

[growth]
channel = "#ml-growth"
email = ["gil@example.org"]
digest = ""
"""
DE = ModelId("eta-de")


@pytest.fixture
def slack(tmp_path: Path) -> Iterator[SandboxServer]:
    """The stand-in, running."""
    with running(tmp_path / "slack.json") as server:
        yield server


@pytest.fixture
def box() -> Iterator[Mailbox]:
    with mail_server(Mailbox()) as served:
        yield served


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hook]:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with hook_server(Hook()) as served:
        yield served


@pytest.fixture
def start(tmp_path: Path, slack: SandboxServer, box: Mailbox, hook: Hook) -> Callable[[], System]:
    """Opens the installation, as a process does that starts."""
    monitors = tmp_path / "monitors"
    monitors.mkdir()
    for file in MONITORS.glob("*.toml"):
        (monitors / file.name).write_text(file.read_text())
    (monitors / "owners.toml").write_text(OWNERS)
    settings = Settings(
        home=tmp_path / "home",
        monitors=monitors,
        slack_token="xoxb-test",  # type: ignore[arg-type]  # pydantic makes secrets of them
        slack_api=slack.api,
        smtp=f"smtp://127.0.0.1:{box.port}",  # type: ignore[arg-type]
        webhook=hook.url,  # type: ignore[arg-type]
    )
    return lambda: System(settings)


def notice() -> Notice:
    now = datetime.now(UTC)
    return Notice(
        key="eta-de/a/opened",
        incident="eta-de/a",
        model=DE,
        stage=Stage.OPENED,
        at=now,
        since=now,
        channel="#ml-growth",
        mention="",
        headline="eta-de: errors doubled",
        doing="It is being retrained.",
        owner="growth",
    )


def wait(system: System) -> None:
    """Let the time pass, for what waits to be told, after which the second way is used."""
    vars(system)["relay"] = replace(system.relay, wall=lambda: time.time() + 601.0)


def until(holds: Callable[[], object], what: Callable[[], object]) -> None:
    """Do `what` over and over until something holds."""
    end = time.monotonic() + 20.0
    while not holds():
        assert time.monotonic() < end
        what()
        time.sleep(0.05)


def test_an_outage_is_got_over_with_the_second_way(
    start: Callable[[], System], slack: SandboxServer, box: Mailbox, hook: Hook
) -> None:
    """Both ways are used once each, after the time that is set; Slack has all of it afterwards.

    A restart in between changes nothing. Meanwhile `driftloop status` shows what waits for long.
    """
    first = start()
    with slack.away():
        first.teller.tell(notice())
        assert first.relay.relay() == ()
        wait(first)
        assert len(first.relay.relay()) == 4
        second = start()
        wait(second)
        assert second.relay.relay() == ()
        untold = Watchdog(second)._untold()
        assert untold.value is not None
        assert untold.value >= 2
        assert "Slack does not take driftloop/slack/" in str(untold.problem)
    to = {message["To"]: message["Subject"] for _, message in box.taken}
    assert to == {
        "gil@example.org": "[driftloop] eta-de: errors doubled",
        "lee@example.org": "[driftloop] driftloop: Slack cannot be reached",
    }
    assert {told["incident"] for _, told in hook.taken} >= {"eta-de/a"}

    def catch_up() -> None:
        second.teller.tell_unsent()
        second.relay.relay()

    until(lambda: "Slack is back after" in str(slack.messages()), catch_up)
    until(lambda: "Told by webhook to 127.0.0.1" in str(slack.messages()), catch_up)
    mine = [each for each in slack.messages() if each["channel_name"] == "ml-growth"]
    assert sum(each.get("thread_ts", each["ts"]) == each["ts"] for each in mine) == 1
    assert sum("Told by e-mail to gil@example.org" in str(each) for each in mine) == 1
    assert (len(box.taken), len(hook.taken)) == (2, 2)
    assert second.relay.late() == ()


def test_a_digest_stands_in_slack_once(start: Callable[[], System], slack: SandboxServer) -> None:
    """Posted by the real pager into the owner's channel; a second process posts none."""
    first = start()
    long_ago = datetime(2020, 1, 1, tzinfo=UTC)
    first.ledger.append(Passed(at=long_ago, looked=2, seconds=1.0))
    assert len(first.digests.tell_due()) == 1
    assert start().digests.tell_due() == ()
    (message,) = slack.messages()
    assert "eta-de, eta-fr" in str(message)
