"""Clicks at the stand-in for Slack, taken to a desk both ways over real sockets."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from fakes.clicked import FakeDesk, served
from fakes.sandbox_server import SECRET, SandboxServer, running
from slack_sdk import WebClient

from driftloop.page.clicks import action_of, option_of, value_of
from driftloop.page.interactive import actions_app
from driftloop.page.reception import Reception
from driftloop.page.signing import Signatures
from driftloop.page.socket_mode import SocketMode
from driftloop.records import Act, Answer

INCIDENT = "eta-de/2013-04-09"
ADA, EVE = "U0OPERATOR1", "U0STRANGER"


class Place(NamedTuple):
    """A stand-in with one message in it, and the desk that its clicks go to, by one way."""

    slack: SandboxServer
    desk: FakeDesk
    message: dict[str, Any]
    way: str

    def click(self, act: Act | str, **more: Any) -> dict[str, Any]:
        action = action_of(act) if isinstance(act, Act) else act
        return self.slack.click(self.message, action, **{"user": ADA, "by": self.way} | more)

    def submit(self, why: str) -> dict[str, Any]:
        (view,) = self.slack.views(ADA)
        values = {"why": {"why": why}}
        click = {"user": ADA, "view_id": view["view"]["id"], "values": values, "by": self.way}
        return self.slack.post("/control/click", click)

    def told(self) -> list[str]:
        """What Ada alone was told since the message was posted."""
        return [one["text"] for one in self.slack.whispers(ADA)]


def button(act: Act) -> dict[str, Any]:
    label = {"type": "plain_text", "text": act.value}
    return {"type": "button", "action_id": action_of(act), "text": label} | {
        "value": value_of(INCIDENT)
    }


def menu() -> dict[str, Any]:
    options = [
        {"text": {"type": "plain_text", "text": until}, "value": option_of(INCIDENT, until)}
        for until in ("1h", "tomorrow")
    ]
    holder = {"type": "plain_text", "text": "Silence"}
    return {"type": "static_select", "action_id": action_of(Act.SILENCE)} | {
        "placeholder": holder,
        "options": options,
    }


@contextmanager
def connected(reception: Reception, slack: SandboxServer) -> Iterator[SocketMode]:
    """Receive by Socket Mode while the block lasts, once connected."""
    mode, stop = SocketMode(reception, app_token="xapp-1", base_url=slack.api), threading.Event()
    thread = threading.Thread(target=mode.run, args=(stop,), daemon=True)
    thread.start()
    eventually(mode.is_connected)
    try:
        yield mode
    finally:
        stop.set()
        thread.join(10)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[SandboxServer, Reception]]:
    """A stand-in whose clicks may come both ways; what takes them has half a second to answer."""
    with running(tmp_path_factory.mktemp("slack") / "slack.db") as slack:
        slack.add_channel("ml")
        reception = Reception(FakeDesk(), token="xoxb-x", base_url=slack.api, patience=0.5)
        with (
            served(actions_app(reception, Signatures(SECRET))) as url,
            connected(reception, slack),
        ):
            slack.clicks_go_to(f"{url}/slack/actions")
            yield slack, reception
        reception.close()


@pytest.fixture(params=["http", "socket"])
def place(both: tuple[SandboxServer, Reception], request: pytest.FixtureRequest) -> Place:
    """A message of its own, and a desk that nobody was at."""
    slack, reception = both
    reception._desk = desk = FakeDesk()
    desk.answer = Answer(done=True, said=f"It is yours, {request.node.name}.")
    row = [button(Act.ACK), button(Act.NO_PROBLEM), menu()]
    blocks = [{"type": "actions", "block_id": "do", "elements": row}]
    client = WebClient("xoxb-x", base_url=slack.api)
    client.chat_postMessage(channel="#ml", text="x", blocks=blocks)
    return Place(slack, desk, slack.messages()[-1], request.param)


def eventually(check: Callable[[], object], within: float = 10.0) -> None:
    """Wait until `check` is true."""
    until = time.monotonic() + within
    while not check():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_click_reaches_the_desk_and_its_answer_who_clicked(place: Place) -> None:
    """Within Slack's three seconds, and nobody else sees what was said."""
    came, before = place.click(Act.ACK), len(place.slack.messages())
    assert (came["ok"], came["trouble"], came["way"]) == (True, "", place.way)
    assert came["seconds"] < 3
    (click,) = place.desk.done.values()
    assert (click.act, click.incident, click.user, click.who) == (Act.ACK, INCIDENT, ADA, "ada")
    eventually(lambda: place.desk.answer.said in place.told())
    assert not place.slack.whispers(EVE)
    assert len(place.slack.messages()) == before


def test_a_desk_that_takes_long_does_not_keep_slack_waiting(place: Place) -> None:
    """No triangle appears; what came of it follows."""
    place.desk.delay = 3.5
    came = place.click(Act.ACK)
    assert (came["ok"], came["seconds"] < 3) == (True, True)
    assert not place.desk.done
    eventually(lambda: place.desk.answer.said in place.told())
    assert place.desk.done


def test_a_choice_is_how_long_to_be_silent(place: Place) -> None:
    """As the menu's option says."""
    assert place.click(Act.SILENCE, option=option_of(INCIDENT, "tomorrow"))["ok"]
    (click,) = place.desk.done.values()
    assert (click.act, click.silence) == (Act.SILENCE, "tomorrow")


def test_no_problem_is_a_form_with_a_reason(place: Place) -> None:
    """Without one it stays open and says so; refused, it says why; with one it closes."""
    done, refused = place.desk.answer, Answer(done=False, said="You are not of its owners.")
    assert place.click(Act.NO_PROBLEM)["ok"]
    for answer, why, said in ((done, " ", "Say why, please."), (refused, "Eve", refused.said)):
        place.desk.answer = answer
        assert place.submit(why)["ok"]
        (view,) = place.slack.views(ADA)
        assert view["errors"] == {"why": said}
    place.desk.answer = done
    assert place.submit("Christmas")["ok"]
    assert place.slack.views(ADA) == []
    (click,) = place.desk.done.values()
    assert (click.act, click.why) == (Act.NO_PROBLEM, "Christmas")
    eventually(lambda: done.said in place.told())


def test_who_may_not_is_asked_for_no_reason(place: Place) -> None:
    """They are told so at the click, and no form opens."""
    place.desk.refuses = "owners.toml does not list you there."
    assert place.click(Act.NO_PROBLEM)["ok"]
    eventually(lambda: place.desk.refuses in place.told())
    assert place.slack.views(ADA) == []


def test_a_right_that_takes_long_to_look_at_is_looked_at_later(place: Place) -> None:
    """The form opens within Slack's three seconds all the same."""
    place.desk.looks, place.desk.refuses = 3.0, "owners.toml does not list you there."
    assert place.click(Act.NO_PROBLEM)["ok"]
    eventually(lambda: len(place.slack.views(ADA)) == 1, within=2.5)


def test_an_unknown_action_is_told_so(place: Place) -> None:
    """Nothing is done, and no triangle appears."""
    told = len(place.told())
    assert place.click("driftloop.explode", value="{}")["ok"]
    eventually(lambda: len(place.told()) > told)
    assert "Nothing was done" in place.told()[-1]
    assert not place.desk.calls


def test_what_was_not_acknowledged_comes_again_and_is_done_once(
    both: tuple[SandboxServer, Reception], place: Place
) -> None:
    """A connection that ends while the desk is at it, said before or not: another brings it."""
    slack, reception = both
    reception._patience, place.desk.delay = 2.0, 1.0
    clicking = threading.Thread(target=lambda: place.click(Act.ACK, by="socket"))
    clicking.start()
    eventually(lambda: place.desk.calls)
    assert slack.end_sockets("drop" if place.way == "http" else "refresh_requested") == 1
    eventually(lambda: place.desk.calls > 1 and place.desk.done, within=20)
    assert len(place.desk.done) == 1
    clicking.join(10)
    reception._patience = 0.5
    eventually(lambda: json.loads(slack.get("/healthz"))["sockets"] == 1)


def test_slack_that_is_away_at_first_is_asked_again(tmp_path: Path) -> None:
    """The connection is made once it is there; nothing else waits for it."""
    with running(tmp_path / "slack.db") as slack:
        reception = Reception(FakeDesk(), token="xoxb-x", base_url=slack.api)
        mode = SocketMode(reception, app_token="xapp-1", base_url=slack.api)
        stop = threading.Event()
        thread = threading.Thread(target=mode.run, args=(stop,), daemon=True)
        with slack.away():
            thread.start()
            time.sleep(0.3)
            assert not mode.is_connected()
        eventually(mode.is_connected)
        stop.set()
        thread.join(10)
        assert not thread.is_alive()
        reception.close()
