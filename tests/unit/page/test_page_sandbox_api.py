import threading
import time
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from fakes.sandbox_server import SandboxServer
from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError
from slack_sdk.http_retry.builtin_handlers import RateLimitErrorRetryHandler

from driftloop.page.sandbox.faults import Limits

PNG = b"\x89PNG\r\n\x1a\n" + b"picture"
PLAIN = {"type": "plain_text", "text": "x"}
BUTTON = {"type": "button", "text": PLAIN, "action_id": "a", "value": "v"}
OPTION = {"text": PLAIN, "value": "v"}
SELECT = {"type": "static_select", "action_id": "s", "options": [OPTION]}


@pytest.fixture
def client(slack: SandboxServer) -> WebClient:
    return WebClient("xoxb-test", base_url=slack.api, timeout=5, retry_handlers=[])


def error_of(call: Callable[..., object], **asked: object) -> str:
    """Return the code that the client is refused with."""
    with pytest.raises(SlackApiError) as refused:
        call(**asked)
    return refused.value.response["error"]


def pointers(client: WebClient, *blocks: dict[str, Any]) -> list[str]:
    """Return the faults that the blocks are refused for."""
    with pytest.raises(SlackApiError) as refused:
        client.chat_postMessage(channel="#c", text="x", blocks=list(blocks))
    assert refused.value.response["error"] == "invalid_blocks"
    return refused.value.response["errors"]


def actions(*elements: dict[str, Any]) -> dict[str, Any]:
    return {"type": "actions", "elements": list(elements)}


@pytest.mark.parametrize(
    ("elements", "fault"),
    [
        (
            [BUTTON | {"action_id": f"{n}"} for n in range(26)],
            "no more than 25 items allowed [json-pointer:]",
        ),
        (
            [BUTTON, BUTTON],
            '`action_id` "a" already exists for another action [json-pointer:/1/action_id]',
        ),
        (
            [BUTTON | {"action_id": "x" * 256}],
            "must be less than 256 characters [json-pointer:/0/action_id]",
        ),
        (
            [BUTTON | {"value": "x" * 2001}],
            "must be less than 2001 characters [json-pointer:/0/value]",
        ),
        (
            [BUTTON | {"text": {"type": "mrkdwn", "text": "x"}}],
            "unsupported type: mrkdwn [json-pointer:/0/text/type]",
        ),
        (
            [BUTTON | {"text": PLAIN | {"text": "x" * 76}}],
            "must be less than 76 characters [json-pointer:/0/text/text]",
        ),
        (
            [BUTTON | {"style": "blue"}],
            "must be a valid enum value [json-pointer:/0/style]",
        ),
        (
            [BUTTON | {"disabled": True}],
            "invalid additional property: disabled [json-pointer:/0]",
        ),
        (
            [BUTTON | {"confirm": {"text": PLAIN | {"text": "x" * 301}}}],
            "must be less than 301 characters [json-pointer:/0/confirm/text/text]",
        ),
        (
            [BUTTON | {"confirm": {"text": PLAIN, "deny": PLAIN | {"text": "x" * 31}}}],
            "must be less than 31 characters [json-pointer:/0/confirm/deny/text]",
        ),
        (
            [SELECT | {"options": [OPTION] * 101}],
            "no more than 100 items allowed [json-pointer:/0/options]",
        ),
        (
            [SELECT | {"options": [OPTION | {"value": "x" * 151}]}],
            "must be less than 151 characters [json-pointer:/0/options/0/value]",
        ),
        (
            [{"type": "nonsense"}],
            "unsupported type: nonsense [json-pointer:/0/type]",
        ),
        (["nonsense"], "must provide an object [json-pointer:/0]"),
    ],
)
def test_bad_buttons_are_pointed_at(
    client: WebClient, elements: list[dict[str, Any]], fault: str
) -> None:
    """What Slack does not take as a button or a menu is refused, and the place is named."""
    where = "[json-pointer:/blocks/0/elements"
    assert pointers(client, actions(*elements)) == [fault.replace("[json-pointer:", where)]


def test_an_actions_block_needs_an_element(client: WebClient) -> None:
    """Slack has no empty rows of buttons: a message without any leaves the block out."""
    fault = "missing required field: elements [json-pointer:/blocks/0]"
    assert pointers(client, actions()) == [fault]


def test_a_block_id_stands_once(client: WebClient) -> None:
    """Two blocks of one message cannot share an id; each block without one is given one."""
    rule = {"type": "divider", "block_id": "same"}
    (fault,) = pointers(client, rule, rule)
    assert fault.startswith('`block_id` "same" already exists for another block')
    blocks = client.chat_postMessage(
        channel="#c", text="x", blocks=[{"type": "divider"}, actions(SELECT)]
    )["message"]["blocks"]
    assert len({block["block_id"] for block in blocks}) == 2


def test_a_picture_is_uploaded_and_shown(client: WebClient, slack: SandboxServer) -> None:
    """The SDK's files_upload_v2, then an image block: the page shows the very bytes."""
    file = client.files_upload_v2(filename="mae.png", content=PNG, title="MAE", alt_txt="up")[
        "file"
    ]
    told = client.files_info(file=file["id"])["file"]
    assert (told["mimetype"], told["size"], told["title"]) == ("image/png", len(PNG), "MAE")
    image = {"type": "image", "alt_text": "MAE", "slack_file": {"id": file["id"]}}
    client.chat_postMessage(channel="#c", text="x", blocks=[image])
    by_url = image | {"slack_file": {"url": told["url_private"]}}
    client.chat_postMessage(channel="#c", text="x", blocks=[by_url])
    src = told["url_private"].removeprefix(slack.url)
    assert slack.get("/?channel=c").count(f'<img src="{src}"') == 2
    with urlopen(told["url_private"], timeout=5) as shown:
        assert shown.read() == PNG
        assert "sandbox" in shown.headers["Content-Security-Policy"]


def test_a_picture_can_be_shared_into_a_thread(client: WebClient) -> None:
    """With a channel and a thread the file becomes a reply, and tells where it stands."""
    posted = client.chat_postMessage(channel="#c", text="x")
    file = client.files_upload_v2(
        filename="a.png", content=PNG, channel=posted["channel"], thread_ts=posted["ts"]
    )["file"]
    (share,) = file["shares"]["public"][posted["channel"]]
    _, reply = client.conversations_replies(channel=posted["channel"], ts=posted["ts"])["messages"]
    assert (reply["ts"], reply["files"][0]["id"]) == (share["ts"], file["id"])


def test_an_unready_or_unknown_picture_is_refused(client: WebClient, slack: SandboxServer) -> None:
    """As Slack does until it has looked at an upload, if the test wants it so."""
    slack.control(file_delay=0.5)
    file = client.files_upload_v2(filename="a.png", content=PNG)["file"]
    image = {"type": "image", "alt_text": "a", "slack_file": {"id": file["id"]}}
    fault = "invalid slack file [json-pointer:/blocks/0/slack_file]"
    assert pointers(client, image) == [fault]
    assert pointers(client, image | {"slack_file": {"id": "F0NOWHERE"}}) == [fault]
    time.sleep(0.5)
    client.chat_postMessage(channel="#c", text="x", blocks=[image])


def test_bad_uploads_are_refused(client: WebClient, slack: SandboxServer) -> None:
    """Each step has its own code: no bytes, other bytes, no such file, no such place."""
    place = client.files_getUploadURLExternal(filename="a.png", length=3)
    done = client.files_completeUploadExternal
    assert error_of(done, files=[{"id": place["file_id"]}]) == "file_not_found"
    for url, content in ((place["upload_url"], b"four"), (f"{place['upload_url']}x", b"xyz")):
        with pytest.raises(HTTPError) as refused:
            urlopen(Request(url, content), timeout=5)
        with refused.value as answer:
            assert answer.code == 400
    with urlopen(Request(place["upload_url"], b"xyz"), timeout=5) as taken:
        assert taken.read() == b"OK - 3"
    wanted = [{"id": place["file_id"]}]
    assert error_of(done, files=wanted, channel_id="C0NOWHERE") == "channel_not_found"
    channel = slack.add_channel("c")
    assert error_of(done, files=wanted, channel_id=channel, thread_ts="1.2") == "invalid_thread_ts"
    assert error_of(client.files_info, file=place["file_id"]) == "file_not_found"
    asked = client.files_getUploadURLExternal
    assert error_of(asked, filename="", length=3) == "invalid_arguments"
    assert error_of(asked, filename="a", length=0) == "invalid_arguments"
    assert error_of(asked, filename="a", length=2**40) == "file_upload_size_restricted"


def test_people_and_groups_are_there(client: WebClient, slack: SandboxServer) -> None:
    """Four people and a group from the start; a test can add its own."""
    slack.add_person("U0NEWCOMER", name="lin", real_name="林")
    slack.add_person("S0NEWGROUP", handle="new", users=["U0NEWCOMER"])
    assert client.users_info(user="U0NEWCOMER")["user"]["real_name"] == "林"
    names = [one["name"] for one in client.users_list()["members"]]
    assert {"ada", "grace", "edith", "eve", "lin"} <= set(names)
    groups = client.usergroups_list(include_users=True)["usergroups"]
    assert {one["handle"]: one["users"] for one in groups}["new"] == ["U0NEWCOMER"]
    assert "users" not in client.usergroups_list()["usergroups"][0]
    assert client.usergroups_users_list(usergroup="S0ONCALL01")["users"] == [
        "U0OPERATOR1",
        "U0OPERATOR2",
    ]
    assert error_of(client.users_info, user="U0NOBODY") == "user_not_found"
    assert error_of(client.usergroups_users_list, usergroup="S0NOTHING") == "no_such_subteam"


def test_an_archived_channel_can_be_read_alone(client: WebClient) -> None:
    """Each way of writing to it has Slack's own code; unarchived, all is as before."""
    posted = client.chat_postMessage(channel="#c", text="x")
    place = {"channel": posted["channel"]}
    client.conversations_archive(**place)
    assert error_of(client.chat_postMessage, text="y", **place) == "is_archived"
    assert error_of(client.chat_update, text="y", ts=posted["ts"], **place) == "is_inactive"
    assert error_of(client.conversations_join, **place) == "is_archived"
    assert error_of(client.conversations_archive, **place) == "already_archived"
    assert client.conversations_info(**place)["channel"]["is_archived"]
    assert client.conversations_list(exclude_archived=True)["channels"] == []
    assert len(client.conversations_history(**place)["messages"]) == 1
    client.conversations_unarchive(**place)
    client.chat_postMessage(text="y", **place)
    assert error_of(client.conversations_unarchive, **place) == "not_archived"


def test_a_deleted_message_is_gone(client: WebClient) -> None:
    """One with replies leaves Slack's note; neither can be updated."""
    alone, parent = (client.chat_postMessage(channel="#c", text=f"{n}") for n in range(2))
    channel = parent["channel"]
    client.chat_postMessage(channel=channel, text="reply", thread_ts=parent["ts"])
    for message in (alone, parent):
        client.chat_delete(channel=channel, ts=message["ts"])
        update = error_of(client.chat_update, channel=channel, ts=message["ts"], text="y")
        assert update == "message_not_found"
    (left,) = client.conversations_history(channel=channel)["messages"]
    assert (left["subtype"], left["ts"]) == ("tombstone", parent["ts"])


def test_an_update_keeps_what_it_does_not_say(client: WebClient) -> None:
    """Blocks that are not given stay; an empty list takes them away."""
    posted = client.chat_postMessage(channel="#c", text="x", blocks=[{"type": "divider"}])
    place = {"channel": posted["channel"], "ts": posted["ts"]}
    kept = client.chat_update(text="y", **place)["message"]
    assert (kept["text"], len(kept["blocks"])) == ("y", 1)
    assert client.chat_update(text="y", blocks=[], **place)["message"]["blocks"] == []


def test_history_between_two_times(client: WebClient) -> None:
    """`oldest` and `latest` are outside, unless they are `inclusive`."""
    ts = [client.chat_postMessage(channel="#c", text=f"{n}")["ts"] for n in range(4)]
    channel = client.conversations_list()["channels"][0]["id"]
    asked = {"channel": channel, "oldest": ts[0], "latest": ts[3]}
    inside = client.conversations_history(**asked)["messages"]
    assert [one["text"] for one in inside] == ["2", "1"]
    assert len(client.conversations_history(inclusive=True, **asked)["messages"]) == 4
    link = client.chat_getPermalink(channel=channel, message_ts=ts[0])["permalink"]
    with urlopen(link, timeout=5) as page:
        assert f'id="m{ts[0]}"'.encode() in page.read()


def test_a_whisper_is_in_no_history(client: WebClient, slack: SandboxServer) -> None:
    """chat.postEphemeral reaches one person, and nobody who reads the channel later."""
    posted = client.chat_postMessage(channel="#c", text="x")
    said = {"channel": posted["channel"], "text": "psst"}
    assert client.chat_postEphemeral(user="U0STRANGER", **said)["message_ts"]
    assert error_of(client.chat_postEphemeral, user="U0NOBODY", **said) == "user_not_in_channel"
    assert len(client.conversations_history(channel=posted["channel"])["messages"]) == 1
    assert [one["text"] for one in slack.whispers("U0STRANGER")] == ["psst"]


def test_a_channel_takes_a_message_a_second(serve: Any, tmp_path: Path) -> None:
    """After a short burst 429 and Retry-After, in that channel alone; the SDK's handler waits."""
    with serve(tmp_path / "slack.db", limits=Limits(burst=3)) as slack:
        client = WebClient("xoxb-test", base_url=slack.api, timeout=5, retry_handlers=[])
        post = client.chat_postMessage
        began = time.monotonic()
        taken = [post(channel="#a", text=f"{n}")["ts"] for n in range(3)]
        with pytest.raises(SlackApiError) as refused:
            post(channel="#a", text="too many")
        assert (refused.value.response["error"], refused.value.response.status_code) == (
            "ratelimited",
            429,
        )
        assert refused.value.response.headers["Retry-After"] == "1"
        post(channel="#b", text="elsewhere")
        patient = WebClient(
            "xoxb-test",
            base_url=slack.api,
            retry_handlers=[RateLimitErrorRetryHandler(max_retry_count=2)],
        )
        taken.append(patient.chat_postMessage(channel="#a", text="3")["ts"])
        assert time.monotonic() - began >= 0.9
        assert [one["ts"] for one in slack.messages() if one["channel_name"] == "a"] == taken


def test_methods_have_their_tiers(serve: Any, tmp_path: Path) -> None:
    """A method is taken so often a minute, whoever it is about."""
    limits = Limits(tiers={"users.info": 6})
    with serve(tmp_path / "slack.db", limits=limits) as slack:
        client = WebClient("xoxb-test", base_url=slack.api, timeout=5, retry_handlers=[])
        for _ in range(6):
            client.users_info(user="U0STRANGER")
        with pytest.raises(SlackApiError) as refused:
            client.users_info(user="U0STRANGER")
        assert int(refused.value.response.headers["Retry-After"]) in {9, 10}
        client.auth_test()


@pytest.mark.parametrize(
    ("error", "status"),
    [
        ("token_revoked", 200),
        ("not_in_channel", 200),
        ("missing_scope", 200),
        ("internal_error", 503),
        ("fatal_error", 500),
        ("ratelimited", 429),
    ],
)
def test_each_error_has_slacks_status(
    client: WebClient, slack: SandboxServer, error: str, status: int
) -> None:
    """A test names the error; how HTTP carries it is as at Slack."""
    slack.control(fail_next=1, error=error, retry_after=7)
    with pytest.raises(SlackApiError) as refused:
        client.auth_test()
    answer = refused.value.response
    assert (answer["error"], answer.status_code) == (error, status)
    assert answer.headers.get("Retry-After") == ("7" if status == 429 else None)
    client.auth_test()


def test_faults_keep_to_their_method_and_channel(client: WebClient, slack: SandboxServer) -> None:
    """Several faults at once, each for what it names: a method, a channel by id or by name."""
    channel = client.chat_postMessage(channel="#a", text="x")["channel"]
    slack.control(
        {"for_seconds": 0.4, "error": "is_archived", "channel": "#a"},
        fail_next=1,
        error="missing_scope",
        method="conversations.list",
    )
    assert error_of(client.chat_postMessage, channel="#a", text="y") == "is_archived"
    assert error_of(client.chat_postMessage, channel=channel, text="y") == "is_archived"
    assert error_of(client.conversations_list) == "missing_scope"
    client.conversations_list()
    client.chat_postMessage(channel="#b", text="y")
    time.sleep(0.4)
    client.chat_postMessage(channel="#a", text="y")


@pytest.mark.parametrize("how", ["cut", "error"])
def test_an_outage_is_for_everybody_and_passes(
    client: WebClient, slack: SandboxServer, how: str
) -> None:
    """While it lasts no call is answered by Slack, and none does anything."""
    slack.down(0.4, how)
    with pytest.raises((SlackApiError, HTTPException, OSError)):
        client.chat_postMessage(channel="#a", text="x")
    time.sleep(0.4)
    client.chat_postMessage(channel="#a", text="y")
    assert [one["text"] for one in slack.messages()] == ["y"]


def test_an_outage_may_hang(slack: SandboxServer) -> None:
    """The client's own timeout is all that ends such a call."""
    slack.down(5.0, "hang")
    client = WebClient("xoxb-test", base_url=slack.api, timeout=1, retry_handlers=[])
    began = time.monotonic()
    with pytest.raises(OSError, match="timed out"):
        client.auth_test()
    assert 0.9 < time.monotonic() - began < 4.0


def test_clicks_and_posts_at_once_lose_nothing(client: WebClient, slack: SandboxServer) -> None:
    """Whispers, modals and messages come from many threads."""
    channel = client.chat_postMessage(channel="#c", text="x")["channel"]

    def whisper(number: int) -> None:
        client.chat_postEphemeral(channel=channel, user="U0STRANGER", text=f"{number}")

    threads = [threading.Thread(target=whisper, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    told = {one["text"] for one in slack.whispers("U0STRANGER")}
    assert told == {f"{number}" for number in range(20)}
