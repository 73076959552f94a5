import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes.receiver import Receiver, receiving
from fakes.sandbox_server import SECRET, SandboxServer
from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError
from slack_sdk.signature import SignatureVerifier
from slack_sdk.socket_mode import SocketModeClient
from slack_sdk.socket_mode.request import SocketModeRequest
from slack_sdk.socket_mode.response import SocketModeResponse
from slack_sdk.webhook import WebhookClient

from driftloop.page.sandbox import clicks, workspace

VALUE = '{"incident":"eta-de/1","model":null,"version":3}'
ACTIONS = {
    "type": "actions",
    "block_id": "acts",
    "elements": [
        {
            "type": "button",
            "action_id": "driftloop.ack",
            "text": {"type": "plain_text", "text": "Acknowledge"},
            "value": VALUE,
        },
        {
            "type": "static_select",
            "action_id": "driftloop.silence",
            "placeholder": {"type": "plain_text", "text": "Silence"},
            "options": [
                {"text": {"type": "plain_text", "text": "1 hour"}, "value": "1h"},
                {"text": {"type": "plain_text", "text": "until tomorrow"}, "value": "tomorrow"},
            ],
        },
    ],
}
MODAL = {
    "type": "modal",
    "callback_id": "driftloop.why",
    "private_metadata": VALUE,
    "title": {"type": "plain_text", "text": "Not a problem"},
    "submit": {"type": "plain_text", "text": "Send"},
    "blocks": [
        {
            "type": "input",
            "block_id": "why",
            "label": {"type": "plain_text", "text": "Why?"},
            "element": {"type": "plain_text_input", "action_id": "why"},
        }
    ],
}


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as listening:
        yield listening


@pytest.fixture
def client(slack: SandboxServer) -> WebClient:
    return WebClient("xoxb-test", base_url=slack.api, timeout=5, retry_handlers=[])


@pytest.fixture
def posted(client: WebClient) -> dict[str, Any]:
    """A message with buttons, as Slack answered it."""
    answer = client.chat_postMessage(channel="#ml", text="worse", blocks=[ACTIONS])
    return {"channel": answer["channel"], "ts": answer["ts"]}


@pytest.fixture
def socket(slack: SandboxServer) -> Iterator["Connected"]:
    connected = Connected(slack)
    yield connected
    # Closed from this side alone, the client waits three seconds for something to read.
    connected.client.auto_reconnect_enabled = False
    slack.end_sockets()
    connected.close()


class Connected:
    """slack_sdk's own Socket Mode client, and what it was sent; `silent` acknowledges nothing."""

    def __init__(self, slack: SandboxServer) -> None:
        self.requests: list[SocketModeRequest] = []
        self.messages: list[dict[str, Any]] = []
        self.silent = 0
        self.answer: dict[str, Any] | None = None
        web = WebClient(base_url=slack.api, timeout=5)
        self.client = SocketModeClient("xapp-1-test", web_client=web, ping_interval=1)
        self.client.socket_mode_request_listeners.append(self._take)
        self.client.on_message_listeners.append(self._hear)
        self.client.connect()
        until(lambda: bool(self.messages))

    def close(self) -> None:
        try:
            self.client.close()
        except AttributeError:
            # Two of slack_sdk's threads closed one socket; the second call ends what is left.
            self.client.close()

    def _hear(self, said: str) -> None:
        if said.startswith("{"):
            self.messages.append(json.loads(said))

    def _take(self, client: SocketModeClient, request: SocketModeRequest) -> None:
        self.requests.append(request)
        if self.silent:
            self.silent -= 1
            return
        client.send_socket_mode_response(SocketModeResponse(request.envelope_id, self.answer))


def until(true: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait until it is true, and fail if that takes too long."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.01)


def test_a_click_is_posted_as_slack_posts_it(
    slack: SandboxServer, receiver: Receiver, posted: dict[str, Any]
) -> None:
    """Form-encoded, with the fields of Slack's block_actions, and a signature the SDK believes."""
    slack.clicks_go_to(receiver.url)
    came = slack.click(posted, "driftloop.ack", user="U0OPERATOR2")
    ((headers, body),) = receiver.posted
    assert headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert SignatureVerifier(SECRET).is_valid_request(body, headers)
    assert not SignatureVerifier("another").is_valid_request(body, headers)
    (payload,) = receiver.payloads()
    assert came["ok"], came
    assert (payload["type"], payload["user"]["id"]) == ("block_actions", "U0OPERATOR2")
    assert payload["container"]["message_ts"] == payload["message"]["ts"] == posted["ts"]
    assert payload["channel"] == {"id": posted["channel"], "name": "ml"}
    (action,) = payload["actions"]
    assert (action["type"], action["value"], action["block_id"]) == ("button", VALUE, "acts")
    assert float(action["action_ts"]) > float(posted["ts"])
    menu = {"driftloop.silence": {"type": "static_select", "selected_option": None}}
    assert payload["state"]["values"] == {"acts": menu}


def test_a_chosen_option_is_told_with_its_text(
    slack: SandboxServer, receiver: Receiver, posted: dict[str, Any]
) -> None:
    """A menu sends what was chosen, both as the action and as the message's state."""
    slack.clicks_go_to(receiver.url)
    slack.click(posted, "driftloop.silence", option="tomorrow")
    (payload,) = receiver.payloads()
    chosen = payload["actions"][0]["selected_option"]
    assert (chosen["value"], chosen["text"]["text"]) == ("tomorrow", "until tomorrow")
    assert payload["state"]["values"]["acts"]["driftloop.silence"]["selected_option"] == chosen


@pytest.mark.parametrize(
    ("click", "error"),
    [
        ({"action_id": "driftloop.gone"}, "action_not_found"),
        ({"action_id": "driftloop.silence"}, "option_not_found"),
        ({"action_id": "driftloop.ack", "user": "U0NOBODY"}, "user_not_found"),
        ({"action_id": "driftloop.ack", "ts": "1700000000.000100"}, "message_not_found"),
        ({"action_id": "driftloop.ack", "channel": "#nowhere"}, "channel_not_found"),
        ({"view_id": "V0NONE"}, "view_not_found"),
    ],
)
def test_there_must_be_something_to_click_on(
    slack: SandboxServer, posted: dict[str, Any], click: dict[str, Any], error: str
) -> None:
    """A click on what is not there is the test's fault, and is said: nothing is sent."""
    with pytest.raises(Exception, match="404") as refused:
        slack.post("/control/click", posted | click)
    with refused.value as answer:
        assert json.loads(answer.read())["error"] == error


def test_a_button_that_is_gone_can_still_be_clicked(
    slack: SandboxServer, receiver: Receiver, posted: dict[str, Any]
) -> None:
    """Somebody's window may show an older message: with its value given, the click is sent."""
    slack.clicks_go_to(receiver.url)
    slack.click(posted, "driftloop.rollback", value="{}")
    (payload,) = receiver.payloads()
    assert payload["actions"][0]["action_id"] == "driftloop.rollback"


@pytest.mark.parametrize(
    ("answer", "trouble"),
    [((500, None), "answered with HTTP 500"), ((401, None), "answered with HTTP 401")],
)
def test_a_bad_answer_to_a_click_is_shown_at_the_message(
    slack: SandboxServer,
    receiver: Receiver,
    posted: dict[str, Any],
    answer: tuple[int, Any],
    trouble: str,
) -> None:
    """As Slack's warning sign; an answer in time takes it away."""
    slack.clicks_go_to(receiver.url)
    receiver.answer = lambda _: answer
    assert slack.click(posted, "driftloop.ack")["trouble"] == trouble
    assert f"driftloop {trouble}" in slack.get("/?channel=ml")
    receiver.answer = lambda _: (200, None)
    assert slack.click(posted, "driftloop.ack")["ok"]
    assert trouble not in slack.get("/?channel=ml")


def test_three_seconds_are_all_there_is(
    slack: SandboxServer,
    receiver: Receiver,
    posted: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who answers later, or not at all, did not respond; here they are a tenth as long."""
    assert clicks.ANSWER_WITHIN == 3.0
    monkeypatch.setattr(clicks, "ANSWER_WITHIN", 0.3)
    slack.clicks_go_to(receiver.url)
    receiver.delay = 2.0
    came = slack.click(posted, "driftloop.ack")
    assert "didn't respond in time" in came["trouble"]
    assert 0.3 <= came["seconds"] < 2.0
    monkeypatch.undo()
    slack.clicks_go_to("http://127.0.0.1:9/slack/actions")
    assert "didn't respond (ConnectError)" in slack.click(posted, "driftloop.ack")["trouble"]
    slack.clicks_go_to("")
    assert "no request URL" in slack.click(posted, "driftloop.ack")["trouble"]


def test_the_same_click_can_come_several_times(
    slack: SandboxServer, receiver: Receiver, posted: dict[str, Any]
) -> None:
    """Copies are alike to the byte in their payload: a receiver can know them again."""
    slack.clicks_go_to(receiver.url)
    slack.click(posted, "driftloop.ack", copies=3)
    first, *others = receiver.payloads()
    assert others == [first, first]


def test_a_modal_is_opened_filled_and_sent(
    slack: SandboxServer, client: WebClient, receiver: Receiver, posted: dict[str, Any]
) -> None:
    """views.open within the answer; the submission has what was written; errors keep it open."""
    slack.clicks_go_to(receiver.url)
    opened = []

    def answer(payload: dict[str, Any]) -> tuple[int, Any]:
        if payload["type"] == "block_actions":
            opened.append(client.views_open(trigger_id=payload["trigger_id"], view=MODAL)["view"])
        elif not payload["view"]["state"]["values"]["why"]["why"]["value"]:
            return 200, {"response_action": "errors", "errors": {"why": "say something"}}
        return 200, None

    receiver.answer = answer
    assert slack.click(posted, "driftloop.ack", user="U0OPERATOR2")["ok"]
    (view,) = slack.views("U0OPERATOR2")
    assert view["view"]["id"] == opened[0]["id"]
    assert slack.views("U0OPERATOR1") == []
    assert slack.submit(view, user="U0OPERATOR2")["ok"]
    (view,) = slack.views("U0OPERATOR2")
    assert view["errors"] == {"why": "say something"}
    assert slack.submit(view, user="U0OPERATOR2", why={"why": "a holiday"})["ok"]
    assert slack.views() == []
    sent = receiver.payloads()[-1]
    assert sent["type"] == "view_submission"
    assert (sent["view"]["callback_id"], sent["view"]["private_metadata"]) == (
        "driftloop.why",
        VALUE,
    )
    written = sent["view"]["state"]["values"]["why"]["why"]
    assert written == {"type": "plain_text_input", "value": "a holiday"}


def test_a_modal_whose_submission_fails_stays(
    slack: SandboxServer, client: WebClient, receiver: Receiver, posted: dict[str, Any]
) -> None:
    """What was written is not lost to a server that was away, nor to an answer of nonsense."""
    slack.clicks_go_to(receiver.url)
    receiver.answer = lambda _: (500, None)
    came = slack.click(posted, "driftloop.ack")
    client.views_open(trigger_id=came["payload"]["trigger_id"], view=MODAL)
    (view,) = slack.views()
    assert not slack.submit(view, user="U0OPERATOR1", why={"why": "x"})["ok"]
    receiver.answer = lambda _: (200, {"response_action": "errors", "errors": {"no": "field"}})
    assert not slack.submit(view, user="U0OPERATOR1", why={"why": "x"})["ok"]
    (view,) = slack.views()
    assert "fields that are not there" in view["errors"][""]
    receiver.answer = lambda _: (200, None)
    slack.post(
        "/control/click", {"user": "U0OPERATOR1", "view_id": view["view"]["id"], "closed": True}
    )
    assert slack.views() == []


def test_a_trigger_opens_one_modal_soon_or_none(
    slack: SandboxServer,
    client: WebClient,
    posted: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A trigger id works once, and for three seconds; here one is as good as too old."""
    assert workspace.TRIGGER_LASTS == 3.0
    slack.clicks_go_to("http://127.0.0.1:9/")
    trigger = slack.click(posted, "driftloop.ack")["payload"]["trigger_id"]
    monkeypatch.setattr(workspace, "TRIGGER_LASTS", 0.0)
    late = slack.click(posted, "driftloop.ack")["payload"]["trigger_id"]
    client.views_open(trigger_id=trigger, view=MODAL)
    errors = []
    for given, view in ((trigger, MODAL), (late, MODAL), ("1.2.3", MODAL), (late, {})):
        with pytest.raises(SlackApiError) as refused:
            client.views_open(trigger_id=given, view=view)
        errors.append(refused.value.response["error"])
    assert errors == [
        "exchanged_trigger_id",
        "expired_trigger_id",
        "invalid_trigger_id",
        "invalid_arguments",
    ]


def test_a_click_is_answered_to_one_person_or_in_place(
    slack: SandboxServer, posted: dict[str, Any]
) -> None:
    """The SDK's webhook client answers at the response_url, five times and no more."""
    address = slack.click(posted, "driftloop.ack", user="U0STRANGER")["payload"]["response_url"]
    answers = WebhookClient(address)
    assert answers.send(text="only owners may do that").status_code == 200
    (whisper,) = slack.whispers("U0STRANGER")
    assert whisper["text"] == "only owners may do that"
    assert slack.whispers("U0OPERATOR1") == []
    assert "only owners may" in slack.get("/?channel=ml&user=U0STRANGER")
    assert "only owners may" not in slack.get("/?channel=ml&user=U0OPERATOR1")
    answers.send(text="done", replace_original=True)
    answers.send(text="said to all", response_type="in_channel")
    texts = [one["text"] for one in slack.messages()]
    assert texts == ["done", "said to all"]
    assert answers.send(text="").status_code == 400
    answers.send(delete_original=True)
    assert [one["text"] for one in slack.messages()] == ["said to all"]
    gone = answers.send(text="a sixth")
    assert (gone.status_code, json.loads(gone.body)["error"]) == (404, "used_url")


def test_clicks_come_down_the_sdks_socket(
    slack: SandboxServer, socket: Connected, receiver: Receiver, posted: dict[str, Any]
) -> None:
    """While a connection is open clicks take it, not the address, and its answer counts."""
    slack.clicks_go_to(receiver.url)
    assert socket.messages[0]["type"] == "hello"
    assert socket.messages[0]["num_connections"] == 1
    came = slack.click(posted, "driftloop.ack")
    (request,) = socket.requests
    assert (came["ok"], came["way"], receiver.posted) == (True, "socket", [])
    assert (request.type, request.payload) == ("interactive", came["payload"])
    assert slack.click(posted, "driftloop.ack", by="http")["ok"]
    assert len(receiver.posted) == 1


def test_a_modals_answer_comes_back_up_the_socket(
    slack: SandboxServer, client: WebClient, socket: Connected, posted: dict[str, Any]
) -> None:
    """The acknowledgement of a submission carries what the modal does next."""
    trigger = slack.click(posted, "driftloop.ack")["payload"]["trigger_id"]
    client.views_open(trigger_id=trigger, view=MODAL)
    (view,) = slack.views()
    socket.answer = {"response_action": "errors", "errors": {"why": "more, please"}}
    slack.submit(view, user="U0OPERATOR1", why={"why": "x"})
    assert socket.requests[-1].accepts_response_payload
    assert slack.views()[0]["errors"] == {"why": "more, please"}


def test_what_is_not_acknowledged_comes_again(
    slack: SandboxServer,
    socket: Connected,
    posted: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The clicker is told that nobody responded; the receiver is sent the same once more."""
    monkeypatch.setattr(clicks, "ANSWER_WITHIN", 1.0)
    socket.silent = 1
    assert "didn't respond" in slack.click(posted, "driftloop.ack")["trouble"]
    until(lambda: len(socket.requests) == 2)
    first, again = socket.requests
    assert first.payload == again.payload
    assert first.envelope_id != again.envelope_id
    assert (again.retry_attempt, again.retry_reason) == (1, "timeout")


def test_a_click_survives_a_connection_that_ends(
    slack: SandboxServer,
    socket: Connected,
    posted: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Dropped before it was acknowledged, the click goes down the next connection, in time."""
    monkeypatch.setattr(clicks, "ANSWER_WITHIN", 10.0)  # a machine may be busy
    socket.silent = 1

    def drop() -> None:
        until(lambda: bool(socket.requests))
        slack.end_sockets()

    dropping = threading.Thread(target=drop)
    other = Connected(slack)
    try:
        assert other.messages[0]["num_connections"] == 2
        dropping.start()
        told = [slack.click(posted, "driftloop.ack") for _ in range(2)]
    finally:
        other.close()
        dropping.join()
    assert all(came["ok"] for came in told), told
    reasons = [one.retry_reason for one in (*socket.requests, *other.requests)]
    assert "connection_closed" in reasons


def test_the_sdk_follows_a_refresh(
    slack: SandboxServer, socket: Connected, posted: dict[str, Any]
) -> None:
    """Told to reconnect, the client opens anew before the old connection ends; no click is lost."""
    assert slack.end_sockets("refresh_requested", after=0.5) == 1
    until(lambda: [one["type"] for one in socket.messages] == ["hello", "disconnect", "hello"])
    for _ in range(4):
        assert slack.click(posted, "driftloop.ack")["ok"]
        time.sleep(0.2)
    assert json.loads(slack.get("/healthz"))["sockets"] == 1


def test_only_an_apps_token_opens_a_socket(slack: SandboxServer) -> None:
    """A bot's token is refused with Slack's code, and so is an app's everywhere else."""
    web = WebClient(base_url=slack.api, timeout=5, retry_handlers=[])
    for call, token in (
        (web.apps_connections_open, {"app_token": "xoxb-bot"}),
        (web.auth_test, {"token": "xapp-1-app"}),
    ):
        with pytest.raises(SlackApiError) as refused:
            call(**token)
        assert refused.value.response["error"] == "not_allowed_token_type"


def test_a_server_that_was_away_has_everything_again(
    slack: SandboxServer, client: WebClient, posted: dict[str, Any], tmp_path: Path
) -> None:
    """Connections are refused meanwhile; then the same address answers with what was kept."""
    with slack.away(), pytest.raises(OSError, match="refused"):
        client.auth_test()
    assert [one["ts"] for one in slack.messages()] == [posted["ts"]]
