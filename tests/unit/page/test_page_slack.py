import logging
import socket
import traceback
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from driftloop.errors import PagerError
from driftloop.page.slack import SlackPager
from driftloop.records import Notice, Stage

TOKEN = "xoxb-do-not-show-me"


@pytest.fixture
def pager(slack: Any) -> SlackPager:
    """A pager of the running local Slack."""
    return SlackPager(TOKEN, slack.api)


def test_check_tells_who_the_bot_is(pager: SlackPager) -> None:
    """Name and workspace, as auth.test answers."""
    assert pager.check() == ("driftloop", "driftloop-local")


@pytest.mark.parametrize(
    ("error", "status", "retry"),
    [
        ("invalid_auth", 200, False),
        ("token_revoked", 200, False),
        ("channel_not_found", 200, False),
        ("not_in_channel", 200, False),
        ("is_archived", 200, False),
        ("missing_scope", 200, False),
        ("internal_error", 200, True),
        ("service_unavailable", 503, True),
        ("bad_gateway", 502, True),
    ],
)
def test_a_refusal_says_what_to_do(
    slack: Any, pager: SlackPager, notice: Notice, error: str, status: int, *, retry: bool
) -> None:
    """Slack's code, the channel, a hint, and whether another try can help."""
    slack.control(fail_next=1, error=error, status=status)
    with pytest.raises(PagerError) as refused:
        pager.open(notice, reconcile=False)
    said = refused.value
    assert (said.retry, said.where) == (retry, "#ml-logistics")
    assert (error if status == 200 else str(status)) in said.what
    assert bool(said.hint) or retry


def test_a_limit_that_lasts_is_handed_back(slack: Any, pager: SlackPager, notice: Notice) -> None:
    """After two waits the caller decides; nothing was posted."""
    slack.control(fail_next=3, error="ratelimited", retry_after=0)
    with pytest.raises(PagerError, match="ratelimited") as refused:
        pager.open(notice, reconcile=False)
    assert refused.value.retry
    assert slack.messages() == []


@pytest.mark.parametrize("lose_by", ["drop", "error", "delay"])
def test_a_lost_reply_is_never_sent_again_by_itself(
    slack: Any, notice: Notice, lose_by: str
) -> None:
    """Cut, 500 or too late: one message stands, and the caller is told to come again."""
    slack.control(lose_reply_next=1, lose_by=lose_by, delay=0.6)
    pager = SlackPager(TOKEN, slack.api, timeout=0.3)
    with pytest.raises(PagerError) as lost:
        pager.open(notice, reconcile=False)
    assert lost.value.retry
    (standing,) = slack.messages()
    found = pager.open(notice, reconcile=True)
    assert found.ts == standing["ts"]
    assert len(slack.messages()) == 1


def test_the_message_is_found_behind_many_others(
    slack: Any, pager: SlackPager, notice: Notice
) -> None:
    """A busy channel does not make the pager repeat itself: it reads further pages."""
    first = pager.open(notice, reconcile=False)
    for number in range(205):
        pager._client.chat_postMessage(channel=first.channel, text=f"chatter {number}")
    assert SlackPager(TOKEN, slack.api).open(notice, reconcile=True) == first


def test_a_channel_named_by_its_id_is_used_as_it_is(
    slack: Any, pager: SlackPager, notice: Notice
) -> None:
    """Private channels are named by id; reconciling there needs no list of channels."""
    first = pager.open(notice, reconcile=False)
    slack.control(fail_next=1, error="missing_scope", status=200, method="conversations.list")
    by_id = replace(notice, channel=first.channel)
    assert SlackPager(TOKEN, slack.api).open(by_id, reconcile=True) == first


def test_a_failed_update_is_made_good_by_repeating(
    slack: Any, pager: SlackPager, notice: Notice
) -> None:
    """The update comes first: when it fails nothing is in the thread, and a repetition does all."""
    receipt = pager.open(notice, reconcile=False)
    after = replace(notice, key="k2", stage=Stage.RETRAINING, at=notice.at + timedelta(hours=1))
    slack.control(fail_next=1, status=503, method="chat.update")
    with pytest.raises(PagerError):
        pager.follow(after, receipt, reconcile=False)
    assert len(slack.messages()) == 1
    pager.follow(after, receipt, reconcile=True)
    main, reply = slack.messages()
    assert "Retraining" in main["text"]
    assert reply["metadata"]["event_payload"]["key"] == "k2"


def test_a_deleted_message_is_not_tried_again(
    slack: Any, pager: SlackPager, notice: Notice
) -> None:
    """Nobody can follow up on what is gone; the hint says so."""
    receipt = pager.open(notice, reconcile=False)
    with pytest.raises(PagerError, match="thread_not_found") as gone:
        pager.follow(notice, replace(receipt, ts="1700000000.000100"), reconcile=False)
    assert not gone.value.retry
    assert "deleted" in gone.value.hint


def test_another_service_behind_the_address_is_named(slack: Any, notice: Notice) -> None:
    """A wrong base URL is a fault to mend, not to retry."""
    with pytest.raises(PagerError, match="HTTP 404") as refused:
        SlackPager(TOKEN, f"{slack.url}/elsewhere/").open(notice, reconcile=False)
    assert not refused.value.retry


def test_a_closed_door_can_be_tried_again(notice: Notice) -> None:
    """Nobody listens yet: the error is one line that says so."""
    with socket.create_server(("127.0.0.1", 0)) as door:
        url = f"http://127.0.0.1:{door.getsockname()[1]}/api/"
    with pytest.raises(PagerError, match="refused") as closed:
        SlackPager(TOKEN, url).open(notice, reconcile=False)
    assert closed.value.retry


@pytest.mark.parametrize("token", ["", "xoxb-do-not\nshow-me", "xoxb-do-not-shöw"])
def test_what_cannot_be_a_token_is_refused_unseen(slack: Any, token: str) -> None:
    """An HTTP library would quote a broken token in its error; ours never gets there."""
    with pytest.raises(PagerError) as refused:
        SlackPager(token, slack.api)
    assert "xoxb-do" not in str(refused.value)
    assert not refused.value.retry


@pytest.mark.parametrize("fault", [{"fail_next": 9}, {"lose_reply_next": 9}])
def test_the_token_is_never_shown(
    slack: Any, notice: Notice, fault: dict[str, int], caplog: pytest.LogCaptureFixture
) -> None:
    """Not in an error, its causes or its traceback, nor in a log at its most talkative."""
    caplog.set_level(logging.DEBUG)
    slack.control(**fault)
    pager = SlackPager(TOKEN, slack.api)
    with pytest.raises(PagerError) as failed:
        pager.open(notice, reconcile=False)
    shown = "".join(traceback.format_exception(failed.value)) + repr(pager) + repr(failed.value)
    assert TOKEN not in shown + caplog.text
