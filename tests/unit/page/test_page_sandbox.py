import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import pytest
from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError

SECTION = {"type": "section", "text": {"type": "mrkdwn", "text": "x"}}
METADATA = {"event_type": "e", "event_payload": {"key": "k"}}


@pytest.fixture
def client(slack: Any) -> WebClient:
    """Slack's own client, which sends nothing again by itself."""
    return WebClient("xoxb-test", base_url=slack.api, timeout=5, retry_handlers=[])


def error_of(call: Callable[..., object], **asked: object) -> str:
    """Return the code that the client is refused with."""
    with pytest.raises(SlackApiError) as refused:
        call(**asked)
    return refused.value.response["error"]


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        ({"channel": "#c"}, "no_text"),
        ({"channel": "#Not A Name", "text": "x"}, "channel_not_found"),
        ({"channel": "C0NOWHERE", "text": "x"}, "channel_not_found"),
        ({"channel": "#c", "text": "x" * 40_001}, "msg_too_long"),
        ({"channel": "#c", "text": "x", "blocks": [SECTION] * 51}, "invalid_blocks"),
        ({"channel": "#c", "text": "x", "blocks": [{"type": "nonsense"}]}, "invalid_blocks"),
        ({"channel": "#c", "text": "x", "blocks": "{"}, "invalid_blocks_format"),
        ({"channel": "#c", "text": "x", "metadata": {"key": 1}}, "invalid_metadata_format"),
        ({"channel": "#c", "text": "x", "thread_ts": "nonsense"}, "invalid_thread_ts"),
    ],
)
def test_a_bad_message_is_refused_with_slacks_code(
    client: WebClient, slack: Any, asked: dict[str, Any], error: str
) -> None:
    """The real client raises what it would raise at Slack, and nothing is kept."""
    assert error_of(client.api_call, api_method="chat.postMessage", json=asked) == error
    assert slack.messages() == []


@pytest.mark.parametrize(
    ("block", "pointer"),
    [
        (
            {"type": "header", "text": {"type": "plain_text", "text": "x" * 151}},
            "must be less than 151 characters [json-pointer:/blocks/0/text/text]",
        ),
        (
            {"type": "section", "text": {"type": "mrkdwn", "text": ""}},
            "must be more than 0 characters [json-pointer:/blocks/0/text/text]",
        ),
        (
            {"type": "section", "fields": [{"type": "mrkdwn", "text": "x" * 2001}]},
            "must be less than 2001 characters [json-pointer:/blocks/0/fields/0/text]",
        ),
        (
            {"type": "section", "fields": [SECTION["text"]] * 11},
            "no more than 10 items allowed [json-pointer:/blocks/0/fields]",
        ),
    ],
)
def test_a_bad_block_is_pointed_at(client: WebClient, block: dict[str, Any], pointer: str) -> None:
    """Slack tells where in the blocks the fault lies; so does the stand-in."""
    with pytest.raises(SlackApiError) as refused:
        client.chat_postMessage(channel="#c", text="x", blocks=[block])
    assert refused.value.response["error"] == "invalid_blocks"
    assert refused.value.response["errors"] == [pointer]


def test_unknown_things_are_refused_with_slacks_codes(client: WebClient, slack: Any) -> None:
    """Methods, tokens, messages and cursors that do not exist each have their code."""
    posted = client.chat_postMessage(channel="#c", text="x")
    ghost = {"channel": posted["channel"], "ts": "1700000000.000100"}
    assert error_of(client.api_call, api_method="no.such") == "unknown_method"
    assert error_of(client.chat_update, text="y", **ghost) == "message_not_found"
    assert error_of(client.conversations_replies, **ghost) == "thread_not_found"
    assert error_of(client.conversations_history, channel="#c") == "channel_not_found"
    history = client.conversations_history
    assert error_of(history, channel=posted["channel"], cursor="junk") == "invalid_cursor"
    assert error_of(history, channel=posted["channel"], limit=5000) == "invalid_limit"
    for token, error in (("", "not_authed"), ("secret", "invalid_auth")):
        asked = WebClient(token, base_url=slack.api, timeout=5, retry_handlers=[])
        assert error_of(asked.auth_test) == error


def test_a_form_says_what_json_says(slack: Any) -> None:
    """A plain form with the token as a field posts the same message."""
    form = {"token": "xoxb-1", "channel": "#c", "text": "a form", "blocks": json.dumps([SECTION])}
    with urlopen(f"{slack.api}chat.postMessage", urlencode(form).encode(), timeout=5) as answer:
        said = json.loads(answer.read())
    (block,) = said["message"]["blocks"]
    assert said["ok"]
    assert block.pop("block_id"), "Slack gives an id to each block that has none"
    assert block == SECTION


def test_history_is_paged_newest_first_without_threads(client: WebClient) -> None:
    """A message posted between two pages shifts nothing; replies only count at their parent."""
    ts = [client.chat_postMessage(channel="#c", text=f"{n}")["ts"] for n in range(5)]
    channel = client.conversations_list()["channels"][0]["id"]
    client.chat_postMessage(channel=channel, text="reply", thread_ts=ts[0])
    first = client.conversations_history(channel=channel, limit=3)
    assert first["has_more"]
    client.chat_postMessage(channel=channel, text="meanwhile")
    cursor = first["response_metadata"]["next_cursor"]
    second = client.conversations_history(channel=channel, limit=3, cursor=cursor)
    assert not second["has_more"]
    shown = first["messages"] + second["messages"]
    assert [one["ts"] for one in shown] == ts[::-1]
    assert (shown[-1]["reply_count"], shown[-1]["thread_ts"]) == (1, ts[0])
    thread = client.conversations_replies(channel=channel, ts=ts[0])["messages"]
    assert [one["text"] for one in thread] == ["0", "reply"]


def test_metadata_is_shown_only_to_who_asks(client: WebClient) -> None:
    """As at Slack, and an update without metadata keeps it."""
    posted = client.chat_postMessage(channel="#c", text="x", metadata=METADATA)
    client.chat_update(channel=posted["channel"], ts=posted["ts"], text="y")
    (without,) = client.conversations_history(channel=posted["channel"])["messages"]
    asked = client.conversations_history(channel=posted["channel"], include_all_metadata=True)
    assert "metadata" not in without
    assert asked["messages"][0]["metadata"] == METADATA
    assert (without["text"], without["edited"]["user"]) == ("y", without["user"])


def test_many_threads_post_at_once_and_each_message_has_its_own_time(
    client: WebClient, slack: Any
) -> None:
    """Timestamps identify messages: no two in a channel are the same, and none is lost."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: client.chat_postMessage(channel="#c", text=f"{n}"), range(60)))
    messages = slack.messages()
    assert {one["text"] for one in messages} == {f"{n}" for n in range(60)}
    assert len({one["ts"] for one in messages}) == 60


def test_messages_survive_a_kill(serve: Any, tmp_path: Path) -> None:
    """What was answered is there after kill -9 and a restart, edits included."""
    store = tmp_path / "new" / "slack.db"
    code = (
        "import socket, sys, pathlib, uvicorn\n"
        "from driftloop.page.sandbox import sandbox_app\n"
        "app = sandbox_app(pathlib.Path(sys.argv[1]))\n"
        "uvicorn.run(app, port=int(sys.argv[2]), log_level='critical', ws='none')\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as door:
        port = door.getsockname()[1]
    with subprocess.Popen([sys.executable, "-c", code, str(store), str(port)]) as server:
        base = f"http://127.0.0.1:{port}"
        for _ in range(200):
            try:
                urlopen(f"{base}/healthz", timeout=5).close()
                break
            except OSError:
                time.sleep(0.05)
        client = WebClient("xoxb-1", base_url=f"{base}/api/", timeout=5, retry_handlers=[])
        kept = client.chat_postMessage(channel="#c", text="kept", metadata=METADATA)
        client.chat_update(channel=kept["channel"], ts=kept["ts"], text="edited")
        server.send_signal(signal.SIGKILL)
    with serve(store) as again:
        (message,) = again.messages()
    assert (message["ts"], message["text"], message["channel_name"]) == (kept["ts"], "edited", "c")
    assert message["metadata"] == METADATA


def test_the_page_shows_messages_and_runs_nothing_of_them(client: WebClient, slack: Any) -> None:
    """Blocks, threads and edits are readable; what was sent is text, never markup."""
    evil = "<script>alert(1)</script> <javascript:alert(1)|click> &lt;b&gt;"
    blocks = [
        {"type": "header", "text": {"type": "plain_text", "text": "MAE &lt; 13 <img src=x>"}},
        {"type": "section", "text": {"type": "mrkdwn", "text": f"*bold* `co<de` {evil}"}},
        {"type": "section", "fields": [{"type": "mrkdwn", "text": "<http://h/a_b_c|see>"}]},
    ]
    posted = client.chat_postMessage(channel="#ml-a", text="x", blocks=blocks)
    client.chat_update(channel=posted["channel"], ts=posted["ts"], text="x", blocks=blocks)
    client.chat_postMessage(channel=posted["channel"], text="in thread", thread_ts=posted["ts"])
    client.chat_postMessage(channel="#ml-b", text="elsewhere")
    page = slack.get(f"/?channel={posted['channel']}")
    assert page.count("<script") == 1, "the page's own"
    assert "<img" not in page
    assert 'href="javascript' not in page
    for shown in (
        '<h3 dir="auto">MAE &lt; 13 &lt;img src=x&gt;</h3>',
        "<b>bold</b>",
        "<code>co&lt;de</code>",
        '<a href="http://h/a_b_c">see</a>',
        "&lt;b&gt;",
        "in thread",
        "1 reply",
        "(edited)",
        "Nothing here has left this machine",
    ):
        assert shown in page
    assert "elsewhere" not in page
    assert "elsewhere" in slack.get("/"), "without a choice, the channel written to last"


def test_an_empty_page_says_how_a_channel_comes_to_be(slack: Any) -> None:
    """A fresh start is a page, not an error."""
    assert "No channel yet" in slack.get("/")
    assert json.loads(slack.get("/healthz"))["ok"]


def test_a_long_channel_is_cut_and_says_so(client: WebClient, slack: Any) -> None:
    """The page shows the newest hundred and counts the others."""
    for number in range(103):
        client.chat_postMessage(channel="#c", text=f"number {number}.")
    page = slack.get("/?channel=c")
    assert "number 3." in page
    assert "number 2." not in page
    assert "and 3 older" in page


def test_a_misspelt_fault_is_refused(slack: Any) -> None:
    """A test that sets a fault that does not exist must not pass silently."""
    asked = Request(
        f"{slack.url}/control", b'{"fail_nxt": 1}', {"Content-Type": "application/json"}
    )
    with pytest.raises(HTTPError) as refused:
        urlopen(asked, timeout=5)
    with refused.value as answer:
        assert answer.code == 422
