"""What the loop may rely on in any pager: the fake of its tests, and Slack's over real HTTP."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import pytest
from fakes.incidents import OPENED_AT, entry, incident, noticed
from fakes.pager import FakePager
from fakes.sandbox_server import running

from driftloop.errors import PagerError
from driftloop.page.slack import SlackPager
from driftloop.ports import Pager
from driftloop.records import Address, Digest, Entry, Incident, Receipt, Stage

TO = Address(channel="#ml-logistics", mention="@here")
OPENED = incident()

Told = list[tuple[str, str, list[str]]]


class Rig(Protocol):
    """A pager, and a hand on its world."""

    pager: Pager

    def told(self) -> Told:
        """Each message: its incident, the newest stage it shows, the keys in its thread."""

    def delete(self, receipt: Receipt) -> None: ...

    def lose_reply(self) -> None: ...

    def refuse(self) -> None: ...

    def limit(self) -> None: ...


@dataclass
class FakeRig:
    pager: Any

    def told(self) -> Told:
        return [
            (one.incident.id, one.shown.at.isoformat(), [said.key for said in one.entries])
            for one in self.pager.told
        ]

    def delete(self, receipt: Receipt) -> None:
        (message,) = (one for one in self.pager.told if one.receipt == receipt)
        self.pager.delete(message)

    def lose_reply(self) -> None:
        self.pager.lose_reply = 1

    def refuse(self) -> None:
        self.pager.refuse = 1

    def limit(self) -> None:
        self.pager.limit = 1


@dataclass
class SlackRig:
    pager: Pager
    server: Any
    lose_by: str

    def told(self) -> Told:
        messages = self.server.messages()
        payload = {one["ts"]: one["metadata"]["event_payload"] for one in messages}
        return [
            (
                payload[one["ts"]]["key"],
                payload[one["ts"]]["at"],
                [
                    payload[said["ts"]]["key"]
                    for said in messages
                    if said.get("thread_ts") == one["ts"] != said["ts"]
                ],
            )
            for one in messages
            if one.get("thread_ts", one["ts"]) == one["ts"]
        ]

    def delete(self, receipt: Receipt) -> None:
        self.server.call("chat.delete", channel=receipt.channel, ts=receipt.ts)

    def lose_reply(self) -> None:
        self.server.control(lose_reply_next=1, lose_by=self.lose_by, method="chat.postMessage")

    def refuse(self) -> None:
        self.server.control(fail_next=1, error="service_unavailable", status=503)

    def limit(self) -> None:
        self.server.control(fail_next=1, error="ratelimited", retry_after=1)


@pytest.fixture(params=["FakePager", "SlackPager-drop", "SlackPager-error"])
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    """Each pager in turn; Slack's with both ways of losing a reply."""
    name, _, lose_by = request.param.partition("-")
    if name == "FakePager":
        yield FakeRig(FakePager())
        return
    with running(tmp_path / "slack.db") as server:
        yield SlackRig(SlackPager("xoxb-check", server.api), server, lose_by)


def later(stage: Stage, hours: int) -> Incident:
    """Return the incident some hours on."""
    return incident(noticed(), noticed(stage, hours=hours))


def told(stage: Stage, hours: int = 1) -> Entry:
    """Return what its thread is told then."""
    return entry(noticed(stage, hours=hours))


def at(hours: int) -> str:
    """Return the time of what is told so many hours on."""
    return noticed(hours=hours).at.isoformat()


def test_an_incident_is_posted_once_although_the_reply_was_lost(rig: Rig) -> None:
    """After a lost reply the caller reconciles and is handed the message that stands."""
    rig.lose_reply()
    with pytest.raises(PagerError) as lost:
        rig.pager.post(OPENED, TO, reconcile=False)
    assert (lost.value.retry, lost.value.lost) == (True, True)
    receipt = rig.pager.post(OPENED, TO, reconcile=True)
    rig.pager.update(later(Stage.RETRAINING, 1), receipt)
    assert rig.told() == [(OPENED.id, at(1), [])]


def test_reconciling_posts_what_never_arrived(rig: Rig) -> None:
    """A refused message is posted when the caller comes again; another incident's is not it."""
    other = incident(noticed(incident="eta-fr/1"))
    rig.pager.post(other, TO, reconcile=False)
    rig.refuse()
    with pytest.raises(PagerError) as refused:
        rig.pager.post(OPENED, TO, reconcile=False)
    assert refused.value.retry
    assert [name for name, _, _ in rig.told()] == [other.id]
    rig.pager.post(OPENED, TO, reconcile=True)
    assert [name for name, _, _ in rig.told()] == [other.id, OPENED.id]


def test_each_channel_has_its_own_message(rig: Rig) -> None:
    """Whom an incident is escalated to reads it too: what stands elsewhere is not it."""
    receipts = [
        rig.pager.post(OPENED, replace(TO, channel=channel), reconcile=True)
        for channel in ("#ml-logistics", "#ml-operations", "#ml-logistics")
    ]
    assert receipts[0] == receipts[2] != receipts[1]
    assert len(rig.told()) == 2


def test_the_message_is_edited_and_its_thread_goes_on(rig: Rig) -> None:
    """What follows shows in the one message, and is told in its thread, in order."""
    receipt = rig.pager.post(OPENED, TO, reconcile=False)
    stages = [Stage.RETRAINING, Stage.PROMOTED, Stage.RECOVERED]
    for hours, stage in enumerate(stages, start=1):
        assert rig.pager.update(later(stage, hours), receipt) == receipt
        rig.pager.reply(told(stage, hours), receipt, reconcile=False)
    assert rig.told() == [(OPENED.id, at(3), [told(stage).key for stage in stages])]


def test_an_edit_can_be_repeated(rig: Rig) -> None:
    """It changes nothing that was not changed."""
    receipt = rig.pager.post(OPENED, TO, reconcile=False)
    for _ in range(2):
        rig.pager.update(later(Stage.RETRAINING, 1), receipt)
    assert rig.told() == [(OPENED.id, at(1), [])]


def test_a_reply_is_told_once_although_its_answer_was_lost(rig: Rig) -> None:
    """With reconcile the thread is searched first: no line of it repeats."""
    receipt = rig.pager.post(OPENED, TO, reconcile=False)
    said = told(Stage.REFUSED)
    rig.lose_reply()
    with pytest.raises(PagerError) as lost:
        rig.pager.reply(said, receipt, reconcile=False)
    assert lost.value.retry
    rig.pager.reply(said, receipt, reconcile=True)
    assert rig.told() == [(OPENED.id, at(0), [said.key])]


def test_a_digest_is_told_once_although_its_answer_was_lost(rig: Rig) -> None:
    """It has a key of its own, beside incidents."""
    digest = Digest(key="digest/ops/1", owner="ops", at=OPENED_AT, headline="Well", sections=())
    rig.lose_reply()
    with pytest.raises(PagerError):
        rig.pager.summarize(digest, TO, reconcile=False)
    first = rig.pager.summarize(digest, TO, reconcile=True)
    assert rig.pager.summarize(digest, TO, reconcile=True) == first


@pytest.mark.parametrize(
    "act",
    [
        lambda pager, receipt: pager.update(later(Stage.RETRAINING, 1), receipt),
        lambda pager, receipt: pager.reply(told(Stage.RETRAINING), receipt, reconcile=True),
    ],
    ids=["update", "reply"],
)
def test_what_somebody_deleted_is_said_to_be_gone(rig: Rig, act: Any) -> None:
    """The caller may post it again; to come again with the same cannot help."""
    receipt = rig.pager.post(OPENED, TO, reconcile=False)
    rig.delete(receipt)
    with pytest.raises(PagerError) as gone:
        act(rig.pager, receipt)
    assert (gone.value.gone, gone.value.retry) == (True, False)


def test_an_unknown_channel_is_not_tried_again(rig: Rig) -> None:
    """The error names the channel and says that a retry cannot help."""
    with pytest.raises(PagerError) as refused:
        rig.pager.post(OPENED, replace(TO, channel="C0NOWHERE"), reconcile=False)
    assert (refused.value.retry, refused.value.away) == (False, False)
    assert refused.value.where == "C0NOWHERE"
    assert rig.told() == []


def test_a_rate_limit_is_waited_for(rig: Rig) -> None:
    """A limited call was not accepted: it is sent again, and the message stands once."""
    rig.limit()
    rig.pager.post(OPENED, TO, reconcile=False)
    assert rig.told() == [(OPENED.id, at(0), [])]
