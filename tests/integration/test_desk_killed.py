"""A desk that is killed between doing what a click asks and answering: nothing is done twice."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from fakes.clicked import SECRET, form, signed
from fakes.sandbox_server import SandboxServer, running
from integration.house import eventually, free_ports

from driftloop.ledger import SqlLedger
from driftloop.page.clicks import value_of
from driftloop.records import Acted
from driftloop.settings import Settings

MONITORS = Path(__file__).parents[1] / "monitors"
INCIDENT, ADA = "eta-de/2013-04-09", "U0OPERATOR1"
DESK = '''
import os, time
from datetime import UTC, datetime
from pathlib import Path
from driftloop.cli import main
from driftloop.records import Acted, Answer, ModelId
from driftloop.wiring import System

class Desk:
    """Keeps what is asked under the click's key, and then takes its time."""

    def __init__(self, ledger):
        self.ledger = ledger

    def take(self, click):
        acted = Acted(
            model=ModelId("eta-de"), at=datetime.now(UTC), incident=click.incident, act=click.act,
            who=click.who, user=click.user,
        )
        if not self.ledger.append(acted, key=click.key):
            return Answer(done=True, said="It was yours already.")
        Path(os.environ["TAKEN"]).write_text(str(os.getpid()))
        time.sleep(60)

System.desk = property(lambda self: Desk(self.ledger))
System.chores = {}
main()
'''


class Running(NamedTuple):
    """A desk's service, and where it takes clicks."""

    process: subprocess.Popen[bytes]
    url: str


@contextmanager
def desk(home: Path, slack: SandboxServer, **given: Any) -> Iterator[Running]:
    """Run the desk's service in one home until the block ends, once it answers."""
    (port,) = free_ports(1)
    settings = Settings(
        home=home,
        monitors=MONITORS,
        desk_port=port,
        slack_api=slack.api,
        slack_token="xoxb-x",
        slack_signing_secret=SECRET,
        **given,
    )
    before = json.loads(slack.get("/healthz"))["sockets"]
    process = subprocess.Popen(
        [sys.executable, "-c", DESK, "_desk"],
        env={**os.environ, **settings.environment(), "TAKEN": str(home / "taken")},
    )
    try:
        eventually(lambda: _answers(settings), "the desk to answer", within=60)
        if given:
            more = f'"sockets":{before + 1}'
            eventually(lambda: more in slack.get("/healthz"), "its connection", within=30)
        else:
            slack.clicks_go_to(settings.actions_url)
        yield Running(process, settings.actions_url)
    finally:
        process.kill()
        process.wait()


def _answers(settings: Settings) -> bool:
    try:
        return httpx.get(settings.actions_url.replace("/slack/actions", "/healthz")).is_success
    except httpx.HTTPError:
        return False


def _clicked(slack: SandboxServer) -> tuple[threading.Thread, list[dict[str, Any]]]:
    """Click, and let what comes of it be in the list once the thread has ended."""
    channel, came = slack.add_channel("ml"), list[dict[str, Any]]()
    message = slack.call("chat.postMessage", channel=channel, text="x")
    about = {"user": ADA, "value": value_of(INCIDENT)}
    clicking = threading.Thread(
        target=lambda: came.append(slack.click(message, "driftloop.ack", **about))
    )
    clicking.start()
    return clicking, came


def _acted(home: Path) -> int:
    with closing(SqlLedger(f"sqlite:///{home / 'ledger.db'}")) as ledger:
        return len(ledger.facts(Acted))


def test_what_is_posted_again_after_a_kill_is_done_once(tmp_path: Path) -> None:
    """Slack hears nothing and shows so; the same click, signed anew, gets its answer."""
    home = tmp_path / "home"
    home.mkdir()
    with running(tmp_path / "slack.db", signing_secret=SECRET) as slack:
        with desk(home, slack) as first:
            clicking, came = _clicked(slack)
            eventually((home / "taken").exists, "the click to be taken")
            first.process.kill()
            clicking.join(10)
        assert "didn't respond" in came[0]["trouble"]
        with desk(home, slack) as again:
            body = form(came[0]["payload"])
            answer = httpx.post(again.url, content=body, headers=signed(body))
            assert answer.status_code == 200
            eventually(lambda: slack.whispers(ADA), "the answer")
            assert slack.whispers(ADA)[0]["text"] == "It was yours already."
    assert _acted(home) == 1


def test_what_was_not_acknowledged_goes_to_the_other_desk_and_is_done_once(tmp_path: Path) -> None:
    """Two runners at once, one killed at it: Slack sends it down the other connection."""
    home = tmp_path / "home"
    home.mkdir()
    with running(tmp_path / "slack.db", signing_secret=SECRET) as slack:
        with (
            desk(home, slack, slack_app_token="xapp-1") as first,
            desk(home, slack, slack_app_token="xapp-1") as second,
        ):
            clicking, came = _clicked(slack)
            eventually((home / "taken").exists, "the click to be taken")
            taker = int((home / "taken").read_text())
            assert taker in {first.process.pid, second.process.pid}
            os.kill(taker, signal.SIGKILL)
            clicking.join(10)
            eventually(lambda: slack.whispers(ADA), "the answer")
        assert came[0]["ok"]
        assert slack.whispers(ADA)[0]["text"] == "It was yours already."
    assert _acted(home) == 1
