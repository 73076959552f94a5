import http.client
import json
import logging
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import NamedTuple
from urllib.parse import urlsplit

import httpx
import pytest
from fakes.clicked import FakeDesk, Listener, block_actions, form, served, signed

from driftloop.errors import LedgerError
from driftloop.page.clicks import value_of
from driftloop.page.interactive import LARGEST, actions_app
from driftloop.page.reception import Reception
from driftloop.page.signing import Signatures
from driftloop.records import Act, Answer

INCIDENT = "eta-de/2013-04-09"
VALUE = value_of(INCIDENT)


class Door(NamedTuple):
    """A desk's service that listens, with all that is around it."""

    url: str
    desk: FakeDesk
    slack: Listener

    def post(self, body: bytes, headers: dict[str, str] | None = None) -> httpx.Response:
        headers = signed(body) if headers is None else headers
        return httpx.post(f"{self.url}/slack/actions", content=body, headers=headers, timeout=10)

    def click(self, action: str = "driftloop.ack", **given: str) -> httpx.Response:
        given = {"value": VALUE, "response_url": f"{self.slack.url}/actions/1"} | given
        return self.post(form(block_actions(action, **given)))

    def submit(self, why: str | None) -> httpx.Response:
        metadata = {"incident": INCIDENT, "channel": "C0CHANNEL1"}
        view = {
            "id": "V0VIEW1",
            "callback_id": "driftloop.why",
            "private_metadata": json.dumps(metadata),
            "state": {"values": {"why": {"why": {"type": "plain_text_input", "value": why}}}},
        }
        return self.post(
            form({"type": "view_submission", "user": {"id": "U0OPERATOR1"}, "view": view})
        )


@pytest.fixture
def door() -> Iterator[Door]:
    """One whose patience is a fifth of a second."""
    desk = FakeDesk()
    with closing(Listener()) as slack:
        reception = Reception(desk, token="xoxb-x", base_url=slack.api, patience=0.2)
        app = actions_app(reception, Signatures("8f742231b10e8888abcd99yyyzzz85a5"))
        with served(app) as url:
            yield Door(url, desk, slack)
        reception.close()


def eventually(check: Callable[[], object]) -> None:
    """Wait until `check` is true."""
    until = time.monotonic() + 5
    while not check():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_click_is_done_and_who_clicked_is_told(door: Door) -> None:
    """200 with nothing in it; the desk's words go to the click's own address, escaped."""
    answer = door.click()
    assert (answer.status_code, answer.content) == (200, b"")
    (click,) = door.desk.done.values()
    assert (click.act, click.incident, click.user) == (Act.ACK, INCIDENT, "U0OPERATOR1")
    eventually(lambda: door.slack.heard)
    ((path, said),) = door.slack.heard
    assert path == "/actions/1"
    assert said == {
        "text": "It is yours: &lt;eta-de&gt; &amp; all.",
        "response_type": "ephemeral",
        "replace_original": False,
    }


def test_what_takes_long_is_answered_at_once_and_told_later(door: Door) -> None:
    """Slack's three seconds are kept whatever the desk takes; the act is not given up."""
    door.desk.delay = 0.8
    began = time.monotonic()
    assert door.click().status_code == 200
    assert time.monotonic() - began < 0.7
    assert not door.desk.done
    eventually(lambda: door.slack.bodies("/actions/1"))
    assert door.desk.done


@pytest.mark.parametrize(
    ("error", "said"), [(LedgerError("the ledger is away"), "away"), (RuntimeError("x"), "log")]
)
def test_a_desk_that_fails_is_told_of_and_not_a_5xx(
    door: Door, error: Exception, said: str
) -> None:
    """Who clicked hears that it was not done; the door goes on."""
    door.desk.error = error
    assert door.click().status_code == 200
    eventually(lambda: door.slack.heard)
    assert said in door.slack.heard[0][1]["text"]
    door.desk.error = None
    assert door.click(at="1.2").status_code == 200
    assert door.desk.done


def test_an_unknown_action_is_told_so_and_nothing_is_done(door: Door) -> None:
    """It may be a button of a newer version, or of an older one."""
    assert door.click("driftloop.explode").status_code == 200
    eventually(lambda: door.slack.heard)
    assert "Nothing was done" in door.slack.heard[0][1]["text"]
    assert not door.desk.calls


def test_without_an_address_the_channel_is_used(door: Door) -> None:
    """As an ephemeral message; also where the address does not answer, or is not Slack's."""
    door.click(response_url="")
    eventually(lambda: door.slack.bodies("/api/chat.postEphemeral"))
    (said,) = door.slack.bodies("/api/chat.postEphemeral")
    assert (said["channel"], said["user"]) == ("C0CHANNEL1", "U0OPERATOR1")
    with closing(Listener()) as other:
        door.click(at="1.2", response_url=f"{other.url}/actions/1")
        eventually(lambda: len(door.slack.bodies("/api/chat.postEphemeral")) == 2)
        assert not other.heard


def test_no_problem_needs_a_reason(door: Door) -> None:
    """The button opens a form; an empty one stays open and asks, a full one is the click."""
    assert door.click("driftloop.not-a-problem").status_code == 200
    (asked,) = door.slack.bodies("/api/views.open")
    assert asked["trigger_id"] == "1.2.abc"
    assert not door.desk.calls
    empty = door.submit(" ")
    assert empty.json() == {"response_action": "errors", "errors": {"why": "Say why, please."}}
    assert not door.desk.calls
    full = door.submit("a holiday")
    assert (full.status_code, full.content) == (200, b"")
    (click,) = door.desk.done.values()
    assert (click.act, click.why) == (Act.NO_PROBLEM, "a holiday")
    eventually(lambda: door.slack.bodies("/api/chat.postEphemeral"))


def test_a_form_that_is_refused_says_so_itself(door: Door) -> None:
    """Whoever filled it in sees why, and has their words still; too late, they are told apart."""
    door.desk.answer = Answer(done=False, said="You are not of its owners.")
    refused = door.submit("a holiday").json()
    assert refused == {
        "response_action": "errors",
        "errors": {"why": "You are not of its owners."},
    }
    door.desk.delay = 0.5
    assert door.submit("a holiday again").content == b""
    eventually(lambda: door.slack.bodies("/api/chat.postEphemeral"))
    assert "owners" in door.slack.bodies("/api/chat.postEphemeral")[0]["text"]


def test_a_form_that_cannot_be_opened_is_told_of(door: Door) -> None:
    """What opens it is good for three seconds: who clicked may click again."""
    door.slack.reply = {"ok": False, "error": "expired_trigger_id"}
    assert door.click("driftloop.not-a-problem").status_code == 200
    eventually(lambda: door.slack.bodies("/actions/1"))
    assert "Click once more" in door.slack.bodies("/actions/1")[0]["text"]


def test_a_link_and_a_look_at_the_certificate_are_answered(door: Door) -> None:
    """Nothing is asked with either."""
    assert door.click("driftloop.report").status_code == 200
    assert door.post(b"ssl_check=1&token=x", {}).status_code == 200
    assert (door.desk.calls, door.slack.heard) == (0, [])


def without(name: str, headers: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in headers.items() if key != name}


BODY = form(block_actions("driftloop.ack", VALUE))
FORGED: dict[str, Callable[[], dict[str, str]]] = {
    "no headers": dict,
    "no signature": lambda: without("X-Slack-Signature", signed(BODY)),
    "no timestamp": lambda: without("X-Slack-Request-Timestamp", signed(BODY)),
    "another secret": lambda: signed(BODY, secret="another"),
    "of another body": lambda: signed(BODY + b"&x=1"),
    "stale": lambda: signed(BODY, at=time.time() - 301),
    "from the future": lambda: signed(BODY, at=time.time() + 330),
    "junk timestamp": lambda: signed(BODY) | {"X-Slack-Request-Timestamp": "soon"},
    "huge timestamp": lambda: signed(BODY) | {"X-Slack-Request-Timestamp": "9" * 4000},
    "junk signature": lambda: signed(BODY) | {"X-Slack-Signature": "v0=\xff"},
}


@pytest.mark.parametrize("kind", FORGED)
def test_what_slack_did_not_sign_is_turned_away(
    door: Door, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """401 and one line in the log, which holds neither what was posted nor the signature."""
    headers = {name: value.encode("latin-1") for name, value in FORGED[kind]().items()}
    with caplog.at_level(logging.INFO):
        answer = httpx.post(f"{door.url}/slack/actions", content=BODY, headers=headers)
    assert answer.status_code == 401
    assert not door.desk.calls
    (line,) = [one.getMessage() for one in caplog.records if "driftloop" in one.name]
    assert line.startswith("turned away (401) 127.0.0.1: ")
    assert "v0=" not in line
    assert "payload" not in line


def test_headers_that_come_twice_are_turned_away(door: Door) -> None:
    """Nobody could say which of them counts."""
    host = urlsplit(door.url).netloc
    connection = http.client.HTTPConnection(host, timeout=5)
    connection.putrequest("POST", "/slack/actions")
    for name, value in signed(BODY).items():
        connection.putheader(name, value)
    connection.putheader("X-Slack-Signature", "v0=" + "0" * 64)
    connection.putheader("Content-Length", str(len(BODY)))
    connection.endheaders(BODY)
    assert connection.getresponse().status == 401
    connection.close()
    assert not door.desk.calls


def test_a_replay_is_turned_away_and_does_nothing(
    door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    """The same request again, within its five minutes: 401, a line, and the act once."""
    headers = signed(BODY)
    assert door.post(BODY, headers).status_code == 200
    assert door.post(BODY, headers).status_code == 401
    assert door.desk.calls == 1
    assert "it is a replay" in caplog.text


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"payload",
        b"payload=",
        b"payload=%FF%FE",
        b"payload=" + b"%5B" * 10_000,
        b"payload={}&payload={}",
        b"other={}",
        b"&".join(b"a=1" for _ in range(5000)),
        form('{"type":"block_actions","user":' + "9" * 10_000 + "}"),
        form('{"type":"block_actions"}'),
        form('{"type":"interactive_message"}'),
        form("null"),
    ],
    ids=lambda body: body[:24].decode(),
)
def test_what_slack_never_sends_is_a_400_with_words(door: Door, body: bytes) -> None:
    """Signed or not, it is no fault of ours; nothing is done."""
    answer = door.post(body)
    assert answer.status_code == 400
    assert answer.text.strip()
    assert not door.desk.calls


@pytest.mark.parametrize("kind", ["", "application/json", "multipart/form-data; boundary=x"])
def test_what_is_no_form_is_a_400(door: Door, kind: str) -> None:
    """Slack posts forms."""
    answer = door.post(BODY, signed(BODY) | {"Content-Type": kind})
    assert answer.status_code == 400
    assert "content type" in answer.text


def test_a_body_that_is_too_large_is_not_read(door: Door) -> None:
    """413 by what is declared, before anything is sent; in chunks as soon as it is too much."""
    connection = http.client.HTTPConnection(urlsplit(door.url).netloc, timeout=5)
    connection.putrequest("POST", "/slack/actions")
    connection.putheader("Content-Length", "9" * 18)
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()
    sent = []

    def chunks() -> Iterator[bytes]:
        for _ in range(64):
            sent.append(1)
            yield b"x" * (LARGEST // 4)
            time.sleep(0.02)

    try:
        answer = httpx.post(f"{door.url}/slack/actions", content=chunks(), timeout=5)
        assert answer.status_code == 413
    except httpx.TransportError:
        pass  # the connection was closed while it was being written to
    assert len(sent) < 60
    assert door.post(BODY).status_code == 200


def test_a_body_that_does_not_come_is_not_waited_for(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """408 after a while; one that hangs up is no fault of ours either."""
    monkeypatch.setattr("driftloop.page.interactive.ARRIVE_WITHIN", 0.2)
    address = urlsplit(door.url)
    head = b"POST /slack/actions HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\npay"
    with socket.create_connection((str(address.hostname), address.port or 0), 5) as waits:
        waits.sendall(head)
        assert b" 408 " in waits.recv(100)
    with socket.create_connection((str(address.hostname), address.port or 0), 5) as leaves:
        leaves.sendall(head)
    assert door.post(BODY).status_code == 200


def test_nothing_else_is_on_that_port(door: Door) -> None:
    """No documentation, no other method; its health tells nothing of what it does."""
    for path in ("/", "/docs", "/openapi.json", "/slack", "/messages.json"):
        assert httpx.get(f"{door.url}{path}").status_code == 404
    assert httpx.get(f"{door.url}/slack/actions").status_code == 405
    assert httpx.get(f"{door.url}/healthz").json() == {"ok": True}
