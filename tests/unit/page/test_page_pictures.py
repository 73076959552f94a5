import time
from collections.abc import Iterator
from typing import Any

import pytest
from fakes.incidents import charted, incident, noticed

from driftloop.page import pictures as module
from driftloop.page.slack import SlackPager
from driftloop.page.standing import Standing
from driftloop.records import Address, Incident, Stage

TO = Address(channel="#ml-logistics", mention="@here")
OPENED = noticed(chart=charted())


@pytest.fixture
def pager(slack: Any) -> Iterator[SlackPager]:
    """A pager of the running local Slack, whose pictures are done before that ends."""
    made = SlackPager("xoxb-check", slack.api)
    yield made
    assert made.settle(20.0)


@pytest.fixture
def other(slack: Any) -> Iterator[SlackPager]:
    """A pager of another process."""
    made = SlackPager("xoxb-check", slack.api)
    yield made
    assert made.settle(20.0)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ELSEWHERE", 0.3)
    monkeypatch.setattr(module, "UNREADY", (0.0, 0.3, 0.3))


def later(hours: float = 1.0) -> Incident:
    """Return the incident after its retraining began."""
    return incident(OPENED, noticed(Stage.RETRAINING, hours=hours))


def shown(slack: Any) -> list[str]:
    """Return the files that the incident's message shows."""
    first = slack.messages()[0]
    return [block["slack_file"]["id"] for block in first["blocks"] if block["type"] == "image"]


def test_the_picture_follows_the_page(slack: Any, pager: SlackPager) -> None:
    """The message stands before it, has it soon after, and words for who cannot see it."""
    slack.control(fail_next=0, file_delay=0.2)
    pager.post(incident(OPENED), TO, reconcile=False)
    assert shown(slack) == []
    assert pager.settle(20.0)
    (file,) = shown(slack)
    (message,) = slack.messages()
    assert message["metadata"]["event_payload"]["picture"] == file
    told = slack.call("files.info", file=file)["file"]
    assert (told["mimetype"], "limit 13 min" in told["alt_txt"]) == ("image/png", True)


def test_a_picture_is_uploaded_once(slack: Any, pager: SlackPager, other: SlackPager) -> None:
    """Neither an edit, nor another process, nor a look for the message draws it again."""
    receipt = pager.post(incident(OPENED), TO, reconcile=False)
    assert pager.settle(20.0)
    first = shown(slack)
    pager.update(later(), receipt)
    other.update(later(2.0), receipt)
    other.post(later(3.0), TO, reconcile=True)
    assert other.settle(20.0)
    assert shown(slack) == first
    assert "retraining" in str(slack.messages()[0]["blocks"])


def test_a_killed_process_leaves_it_to_the_next(slack: Any, other: SlackPager) -> None:
    """Who updates a message that has no picture yet adds it."""
    bare = SlackPager("xoxb-check", slack.api).post(incident(), TO, reconcile=False)
    other.update(later(), bare)
    assert other.settle(20.0)
    assert len(shown(slack)) == 1


def test_what_slack_will_not_show_is_put_in_the_thread(
    slack: Any, pager: SlackPager, other: SlackPager
) -> None:
    """Once, and the message stays as it is."""
    slack.control(fail_next=0, file_delay=60.0)
    receipt = pager.post(incident(OPENED), TO, reconcile=False)
    assert pager.settle(20.0)
    other.update(later(), receipt)
    assert other.settle(20.0)
    message, reply = slack.messages()
    assert shown(slack) == []
    assert "retraining" in str(message["blocks"])
    assert (reply["thread_ts"], len(reply["files"])) == (receipt.ts, 1)


@pytest.mark.parametrize(
    ("fault", "again"),
    [
        ({"error": "missing_scope", "status": 200}, False),
        ({"error": "fatal_error", "status": 500}, True),
    ],
    ids=["may not", "out of reach"],
)
def test_a_page_does_without_its_picture(
    slack: Any,
    pager: SlackPager,
    fault: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
    *,
    again: bool,
) -> None:
    """The log says why; the next edit tries again where that can help."""
    slack.control(fail_next=1, method="files.getUploadURLExternal", **fault)
    receipt = pager.post(incident(OPENED), TO, reconcile=False)
    assert pager.settle(20.0)
    assert (len(slack.messages()), shown(slack)) == (1, [])
    assert "no picture for" in caplog.text
    pager.update(later(), receipt)
    assert pager.settle(20.0)
    assert len(shown(slack)) == int(again)


def test_a_broken_chart_costs_no_page(
    slack: Any, pager: SlackPager, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    """Whatever drawing raises, it is logged, and the next picture is drawn."""
    draw = module.draw
    monkeypatch.setattr(module, "draw", lambda *_, **__: 1 / 0)
    pager.post(incident(OPENED), TO, reconcile=False)
    assert pager.settle(20.0)
    monkeypatch.setattr(module, "draw", draw)
    pager.post(incident(noticed(incident="fraud/1", chart=charted())), TO, reconcile=False)
    assert pager.settle(20.0)
    first, second = slack.messages()
    assert "ZeroDivisionError" in caplog.text
    assert "slack_file" not in str(first["blocks"])
    assert "slack_file" in str(second["blocks"])


def test_a_picture_does_not_set_the_message_back(
    slack: Any, pager: SlackPager, other: SlackPager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process tells more just while it is added: in the end both are there."""
    show = pager._pictures._show

    def race(standing: Standing, *, strictly: bool = False) -> None:
        monkeypatch.setattr(pager._pictures, "_show", show)
        other.update(later(), standing.receipt)
        show(standing, strictly=strictly)

    monkeypatch.setattr(pager._pictures, "_show", race)
    pager.post(incident(OPENED), TO, reconcile=False)
    assert pager.settle(20.0)
    assert "retraining" not in str(slack.messages()[0]["blocks"])
    assert other.settle(20.0)
    assert "retraining" in str(slack.messages()[0]["blocks"])
    assert len(shown(slack)) == 1


def test_without_a_chart_nothing_is_drawn(
    slack: Any, pager: SlackPager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No thread, no upload."""
    monkeypatch.setattr(pager._pictures, "_work", lambda: pytest.fail("nothing to draw"))
    receipt = pager.post(incident(), TO, reconcile=False)
    pager.update(incident(noticed(), noticed(Stage.RETRAINING, hours=1.0)), receipt)
    assert shown(slack) == []


def test_no_post_waits_for_a_picture(slack: Any, pager: SlackPager) -> None:
    """A slow upload delays the picture alone."""
    slack.control(
        lose_reply_next=1, lose_by="delay", delay=1.5, method="files.completeUploadExternal"
    )
    begun = time.monotonic()
    pager.post(incident(OPENED), TO, reconcile=False)
    pager.post(incident(noticed(incident="fraud/1")), TO, reconcile=False)
    assert time.monotonic() - begun < 1.4
    assert len(slack.messages()) == 2
