import logging
import socket
import traceback
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fakes.incidents import OPENED_AT, entry, incident, noticed

from driftloop.errors import PagerError
from driftloop.page import slack as module
from driftloop.page.sandbox.faults import Limits
from driftloop.page.slack import SlackPager
from driftloop.records import Act, Acted, Address, Digest, Incident, Receipt, Stage

TOKEN = "xoxb-do-not-show-me"
TO = Address(channel="#ml-logistics", mention="<@U0OPERATOR1>")


@pytest.fixture
def pager(slack: Any) -> SlackPager:
    """A pager of the running local Slack."""
    return SlackPager(TOKEN, slack.api)


def later(stage: Stage = Stage.RETRAINING, hours: float = 1.0) -> Incident:
    """Return the incident after another notice."""
    return incident(noticed(), noticed(stage, hours=hours))


def payloads(slack: Any) -> list[dict[str, Any]]:
    """Return what each message carries, in the order of the channel."""
    return [one["metadata"]["event_payload"] for one in slack.messages()]


def test_check_tells_who_the_bot_is(pager: SlackPager) -> None:
    """Name and workspace, as auth.test answers."""
    assert pager.check() == ("driftloop", "driftloop-local")


# -- what Slack may answer: a row for each ---------------------------------------------------

FOR_GOOD = {"retry": False, "away": False, "gone": False, "lost": False}
NOBODY = {"retry": True, "away": True, "gone": False, "lost": False}
DELETED = {"retry": False, "away": False, "gone": True, "lost": False}
PASSING = {"retry": True, "away": False, "gone": False, "lost": True}
DOWN = {"retry": True, "away": True, "gone": False, "lost": True}


@pytest.mark.parametrize(
    ("error", "status", "expected", "hint"),
    [
        ("channel_not_found", 200, FOR_GOOD, "owners.toml"),
        ("not_in_channel", 200, FOR_GOOD, "/invite"),
        ("is_archived", 200, FOR_GOOD, "unarchive"),
        ("is_inactive", 200, FOR_GOOD, "unarchive"),
        ("restricted_action", 200, FOR_GOOD, "let the bot post"),
        ("something_new", 200, FOR_GOOD, ""),
        ("not_authed", 200, NOBODY, "DRIFTLOOP_SLACK_TOKEN"),
        ("invalid_auth", 200, NOBODY, "DRIFTLOOP_SLACK_TOKEN"),
        ("account_inactive", 200, NOBODY, "DRIFTLOOP_SLACK_TOKEN"),
        ("token_revoked", 200, NOBODY, "DRIFTLOOP_SLACK_TOKEN"),
        ("token_expired", 200, NOBODY, "DRIFTLOOP_SLACK_TOKEN"),
        ("missing_scope", 200, NOBODY, "scopes"),
        ("message_not_found", 200, DELETED, "deleted"),
        ("thread_not_found", 200, DELETED, "deleted"),
        ("internal_error", 200, PASSING, ""),
        ("fatal_error", 200, PASSING, ""),
        ("service_unavailable", 503, DOWN, "address"),
        ("bad_gateway", 502, DOWN, "address"),
    ],
)
def test_a_refusal_says_what_can_be_done(
    slack: Any,
    pager: SlackPager,
    error: str,
    status: int,
    expected: dict[str, bool],
    hint: str,
) -> None:
    """Slack's code, the channel, a hint; whether to come again, and whether to another channel."""
    slack.control(fail_next=1, error=error, status=status)
    with pytest.raises(PagerError) as refused:
        pager.post(incident(), TO, reconcile=False)
    said = refused.value
    assert {name: getattr(said, name) for name in expected} == expected
    assert said.where == "#ml-logistics"
    assert (error if status == 200 else str(status)) in said.what
    assert hint in said.hint
    assert slack.messages() == []


@pytest.mark.parametrize("error", ["invalid_blocks", "msg_blocks_too_long", "msg_too_long"])
def test_a_page_is_not_lost_for_its_looks(
    slack: Any, pager: SlackPager, error: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What Slack will not render is told as plain text, and the log says so."""
    slack.control(fail_next=1, error=error, status=200)
    pager.post(incident(), TO, reconcile=False)
    (message,) = slack.messages()
    assert message["blocks"] == []
    assert "eta-de" in message["text"]
    assert error in caplog.text


def test_an_update_is_not_lost_for_its_looks(slack: Any, pager: SlackPager) -> None:
    """The old blocks are taken away: they would go on showing what is over."""
    receipt = pager.post(incident(), TO, reconcile=False)
    slack.control(fail_next=1, error="invalid_blocks", status=200, method="chat.update")
    pager.update(later(Stage.RECOVERED), receipt)
    (message,) = slack.messages()
    assert message["blocks"] == []


# -- limits ----------------------------------------------------------------------------------


def test_a_limit_that_lasts_is_handed_back(slack: Any, pager: SlackPager) -> None:
    """After two waits the caller decides; nothing was posted."""
    slack.control(fail_next=3, error="ratelimited", retry_after=0)
    with pytest.raises(PagerError, match="ratelimited") as refused:
        pager.post(incident(), TO, reconcile=False)
    assert (refused.value.retry, refused.value.lost) == (True, False)
    assert slack.messages() == []


def test_a_long_limit_of_a_channel_holds_up_no_other(slack: Any, pager: SlackPager) -> None:
    """It is handed back at once with its seconds, and until then Slack is not asked again."""
    slack.control(fail_next=1, error="ratelimited", retry_after=30)
    for _ in range(2):
        with pytest.raises(PagerError) as refused:
            pager.post(incident(), TO, reconcile=False)
        assert 29.0 < refused.value.after <= 30.0
    pager.post(incident(), replace(TO, channel="#elsewhere"), reconcile=False)
    assert [one["channel_name"] for one in slack.messages()] == ["elsewhere"]


def test_a_burst_gets_through_slacks_own_limits(serve: Any, tmp_path: Path) -> None:
    """Two processes post and edit in one channel more than it takes: all of it stands, once."""
    with serve(tmp_path / "limited.db", limits=Limits(every=0.5, burst=2)) as slack:
        one, two = SlackPager(TOKEN, slack.api), SlackPager(TOKEN, slack.api)
        for number in range(3):
            for name, pager in (("one", one), ("two", two)):
                made = incident(noticed(incident=f"{name}/{number}"))
                pager.update(made, pager.post(made, TO, reconcile=False))
        names = [f"{name}/{number}" for number in range(3) for name in ("one", "two")]
        assert [one["key"] for one in payloads(slack)] == names


# -- once ------------------------------------------------------------------------------------


@pytest.mark.parametrize("lose_by", ["drop", "error", "delay"])
def test_a_lost_reply_is_never_sent_again_by_itself(slack: Any, lose_by: str) -> None:
    """Cut, 500 or too late: one message stands, and the caller is told to come again."""
    slack.control(lose_reply_next=1, lose_by=lose_by, delay=0.6)
    pager = SlackPager(TOKEN, slack.api, timeout=0.3)
    with pytest.raises(PagerError) as lost:
        pager.post(incident(), TO, reconcile=False)
    assert (lost.value.retry, lost.value.away, lost.value.lost) == (True, True, True)
    (standing,) = slack.messages()
    found = pager.post(incident(), TO, reconcile=True)
    assert found == Receipt(channel=standing["channel"], ts=standing["ts"])
    assert len(slack.messages()) == 1


def test_what_stands_is_brought_up_to_date(slack: Any, pager: SlackPager) -> None:
    """Who looks for a message knows more by now than when it was posted: it shows that."""
    first = pager.post(incident(), TO, reconcile=False)
    assert SlackPager(TOKEN, slack.api).post(later(), TO, reconcile=True) == first
    (message,) = slack.messages()
    assert "retraining" in str(message["blocks"])
    assert "U0OPERATOR1" in str(message["blocks"])


def test_the_message_is_found_behind_many_others(slack: Any, pager: SlackPager) -> None:
    """A busy channel does not make the pager repeat itself: it reads further pages."""
    first = pager.post(incident(), TO, reconcile=False)
    for number in range(205):
        pager._slack.client.chat_postMessage(channel=first.channel, text=f"chatter {number}")
    assert SlackPager(TOKEN, slack.api).post(incident(), TO, reconcile=True) == first


def test_a_channel_named_by_its_id_is_used_as_it_is(slack: Any, pager: SlackPager) -> None:
    """Private channels are named by id; reconciling there needs no list of channels."""
    first = pager.post(incident(), TO, reconcile=False)
    slack.control(fail_next=1, error="missing_scope", status=200, method="conversations.list")
    by_id = replace(TO, channel=first.channel)
    assert SlackPager(TOKEN, slack.api).post(incident(), by_id, reconcile=True) == first


def test_a_reply_is_written_once_although_its_answer_was_lost(
    slack: Any, pager: SlackPager
) -> None:
    """The thread is searched for the entry's key; another entry is not it."""
    receipt = pager.post(incident(), TO, reconcile=False)
    told = entry(noticed(Stage.RETRAINING))
    slack.control(lose_reply_next=1, lose_by="error", method="chat.postMessage")
    with pytest.raises(PagerError):
        pager.reply(told, receipt, reconcile=False)
    pager.reply(told, receipt, reconcile=True)
    pager.reply(replace(told, key="another"), receipt, reconcile=True)
    assert [one["key"] for one in payloads(slack)] == ["eta-de/2026-03-01", told.key, "another"]


def test_a_digest_is_posted_once(slack: Any, pager: SlackPager) -> None:
    """It is known by its key, beside messages of incidents."""
    digest = Digest(
        key="digest/ops/2026-03-01", owner="ops", at=OPENED_AT, headline="All well", sections=()
    )
    pager.post(incident(), TO, reconcile=False)
    first = pager.summarize(digest, TO, reconcile=True)
    assert pager.summarize(digest, TO, reconcile=True) == first
    assert [one["key"] for one in payloads(slack)] == ["eta-de/2026-03-01", digest.key]


def test_an_unreadable_history_is_waited_for(slack: Any, pager: SlackPager) -> None:
    """Nothing is posted unseen while a look may still succeed."""
    first = pager.post(incident(), TO, reconcile=False)
    slack.control(fail_next=2, error="ratelimited", retry_after=30, method="conversations.history")
    with pytest.raises(PagerError, match="stands already") as unread:
        SlackPager(TOKEN, slack.api).post(incident(), TO, reconcile=True)
    assert (unread.value.retry, unread.value.after > 29.0) == (True, True)
    slack.control()
    assert SlackPager(TOKEN, slack.api).post(incident(), TO, reconcile=True) == first


@pytest.mark.parametrize(
    ("error", "status", "tries"),
    [
        ("missing_scope", 200, module.TRIES_REFUSED),
        ("internal_error", 200, module.TRIES),
        ("internal_error", 500, module.TRIES_AWAY),
    ],
)
def test_no_page_is_lost_to_a_history_that_stays_unreadable(
    slack: Any,
    pager: SlackPager,
    error: str,
    status: int,
    tries: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """After so many looks it is posted unseen, which receipt, message and log all say."""
    slack.control(fail_next=99, error=error, status=status, method="conversations.history")
    pager.post(incident(noticed(incident="other")), TO, reconcile=False)
    for _ in range(tries - 1):
        with pytest.raises(PagerError):
            pager.post(incident(), TO, reconcile=True)
    receipt = pager.post(incident(), TO, reconcile=True)
    pager.update(later(), receipt)
    assert receipt.blind
    assert [one.get("blind", False) for one in payloads(slack)] == [False, True]
    assert "may stand twice" in caplog.text


# -- keeping the message ---------------------------------------------------------------------


def test_an_update_keeps_who_was_called(slack: Any, pager: SlackPager) -> None:
    """Another process, which never knew, reads it from the message."""
    receipt = pager.post(incident(), TO, reconcile=False)
    SlackPager(TOKEN, slack.api).update(later(), receipt)
    (message,) = slack.messages()
    assert "U0OPERATOR1" in str(message["blocks"])
    assert "retraining" in str(message["blocks"])


@pytest.mark.parametrize("other", [False, True], ids=["same process", "another process"])
def test_a_late_repetition_does_not_set_the_message_back(
    slack: Any, pager: SlackPager, *, other: bool
) -> None:
    """What shows something later already is left alone."""
    receipt = pager.post(incident(), TO, reconcile=False)
    pager.update(later(Stage.PROMOTED, 2), receipt)
    (SlackPager(TOKEN, slack.api) if other else pager).update(later(), receipt)
    assert "promoted" in str(slack.messages()[0]["blocks"])


def test_an_update_does_without_a_history(slack: Any, pager: SlackPager) -> None:
    """A bot that may not read still edits what it wrote."""
    receipt = pager.post(incident(), TO, reconcile=False)
    slack.control(fail_next=9, error="missing_scope", status=200, method="conversations.replies")
    SlackPager(TOKEN, slack.api).update(later(), receipt)
    assert "retraining" in str(slack.messages()[0]["blocks"])


@pytest.mark.parametrize(
    "act",
    [
        lambda pager, gone: pager.update(later(), gone),
        lambda pager, gone: pager.reply(entry(noticed()), gone, reconcile=True),
        lambda pager, gone: pager.reply(entry(noticed()), gone, reconcile=False),
    ],
    ids=["update", "reply, reconciled", "reply"],
)
def test_a_deleted_message_is_said_to_be_gone(slack: Any, pager: SlackPager, act: Any) -> None:
    """The caller may post it again; trying the same again cannot help."""
    receipt = pager.post(incident(), TO, reconcile=False)
    gone = replace(receipt, ts="1700000000.000100")
    with pytest.raises(PagerError) as refused:
        act(pager, gone)
    assert (refused.value.gone, refused.value.retry) == (True, False)
    assert (refused.value.where, "deleted" in refused.value.hint) == ("#ml-logistics", True)


# -- Slack out of reach ----------------------------------------------------------------------


def test_another_service_behind_the_address_is_named(slack: Any) -> None:
    """A wrong base URL is a fault of no channel: the page waits until it is mended."""
    with pytest.raises(PagerError, match="HTTP 404") as refused:
        SlackPager(TOKEN, f"{slack.url}/elsewhere/").post(incident(), TO, reconcile=False)
    assert (refused.value.retry, refused.value.away, refused.value.lost) == (True, True, False)


def test_a_closed_door_can_be_tried_again() -> None:
    """Nobody listens yet: the error is one line that says so, and surely nothing was posted."""
    with socket.create_server(("127.0.0.1", 0)) as door:
        url = f"http://127.0.0.1:{door.getsockname()[1]}/api/"
    with pytest.raises(PagerError, match="refused") as closed:
        SlackPager(TOKEN, url).post(incident(), TO, reconcile=False)
    assert (closed.value.retry, closed.value.away, closed.value.lost) == (True, True, False)


@pytest.mark.parametrize("token", ["", "xoxb-do-not\nshow-me", "xoxb-do-not-shöw"])
def test_what_cannot_be_a_token_is_refused_unseen(slack: Any, token: str) -> None:
    """An HTTP library would quote a broken token in its error; ours never gets there."""
    with pytest.raises(PagerError) as refused:
        SlackPager(token, slack.api)
    assert "xoxb-do" not in str(refused.value)
    assert not refused.value.retry


@pytest.mark.parametrize("fault", [{"fail_next": 9}, {"lose_reply_next": 9}])
def test_the_token_is_never_shown(
    slack: Any, fault: dict[str, int], caplog: pytest.LogCaptureFixture
) -> None:
    """Not in an error, its causes or its traceback, nor in a log at its most talkative."""
    caplog.set_level(logging.DEBUG)
    slack.control(**fault)
    pager = SlackPager(TOKEN, slack.api)
    with pytest.raises(PagerError) as failed:
        pager.post(incident(), TO, reconcile=False)
    shown = "".join(traceback.format_exception(failed.value)) + repr(pager) + repr(failed.value)
    assert TOKEN not in shown + caplog.text


def test_what_is_newest_counts_acts(slack: Any, pager: SlackPager) -> None:
    """A message that shows an acknowledgement is not set back by who does not know of it."""
    receipt = pager.post(incident(), TO, reconcile=False)
    act = Acted(
        model=incident().models[0],
        at=OPENED_AT + timedelta(hours=3),
        incident=incident().id,
        act=Act.ACK,
        who="Ada",
    )
    pager.update(incident(acts=(act,)), receipt)
    assert payloads(slack)[0]["at"] == act.at.isoformat()
