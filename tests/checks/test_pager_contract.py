"""What the loop may rely on in any pager: the fake of its tests, and Slack's over real HTTP."""

import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import pytest

from driftloop.errors import PagerError
from driftloop.incident import alone
from driftloop.page.slack import SlackPager
from driftloop.ports import Pager
from driftloop.records import Address, Digest, Entry, Incident, ModelId, Notice, Stage

OPENED_AT = datetime(2026, 3, 1, 6, tzinfo=UTC)
TO = Address(channel="#ml-logistics", mention="@here")


def _fake(name: str) -> Any:
    file = Path(__file__).parents[1] / "fakes" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"driftloop_fakes_{name}", file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


Told = list[tuple[str, datetime, list[str]]]


class Rig(Protocol):
    """A pager, and a hand on its world."""

    pager: Pager

    def told(self) -> Told:
        """Each message: its key, of when the newest is that it shows, the keys in its thread."""

    def delete(self) -> None:
        """Let somebody delete the first message."""

    def lose_reply(self) -> None: ...

    def refuse(self) -> None: ...

    def away(self) -> None: ...

    def limit(self) -> None: ...


@dataclass
class FakeRig:
    pager: Any

    def told(self) -> Told:
        messages = [
            (
                one.incident.id,
                max(notice.at for notice in one.incident.notices),
                [entry.key for entry in one.entries],
            )
            for one in self.pager.told
        ]
        return messages + [(digest.key, digest.at, []) for digest, _ in self.pager.digests]

    def delete(self) -> None:
        self.pager.delete(self.pager.told[0])

    def lose_reply(self) -> None:
        self.pager.lose_reply = 1

    def refuse(self) -> None:
        self.pager.refuse = 1

    def away(self) -> None:
        self.pager.away = True

    def limit(self) -> None:
        self.pager.limit = 1


@dataclass
class SlackRig:
    pager: Pager
    server: Any
    lose_by: str

    def told(self) -> Told:
        messages = self.server.messages()
        carried = {one["ts"]: one["metadata"]["event_payload"] for one in messages}
        return [
            (
                carried[one["ts"]]["key"],
                datetime.fromisoformat(carried[one["ts"]]["at"]),
                [
                    carried[said["ts"]]["key"]
                    for said in messages
                    if said.get("thread_ts") == one["ts"] != said["ts"]
                ],
            )
            for one in messages
            if one.get("thread_ts", one["ts"]) == one["ts"]
        ]

    def delete(self) -> None:
        first = self.server.messages()[0]
        self.pager._slack.ask("chat_delete", where="", channel=first["channel"], ts=first["ts"])  # type: ignore[attr-defined]

    def lose_reply(self) -> None:
        self.server.control(lose_reply_next=1, lose_by=self.lose_by, method="chat.postMessage")

    def refuse(self) -> None:
        self.server.control(fail_next=1, error="service_unavailable", status=503)

    def away(self) -> None:
        self.server.control(fail_next=99, error="service_unavailable", status=503)

    def limit(self) -> None:
        self.server.control(fail_next=1, error="ratelimited", retry_after=1)


@pytest.fixture(params=["FakePager", "SlackPager-drop", "SlackPager-error"])
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    """Each pager in turn; Slack's with both ways of losing a reply."""
    name, _, lose_by = request.param.partition("-")
    if name == "FakePager":
        yield FakeRig(_fake("pager").FakePager())
        return
    with _fake("sandbox_server").running(tmp_path / "slack.db") as server:
        yield SlackRig(SlackPager("xoxb-check", server.api), server, lose_by)


@pytest.fixture
def opened() -> Incident:
    """An incident that opens."""
    return alone(
        Notice(
            key="eta-de/2026-03-01/opened",
            incident="eta-de/2026-03-01",
            model=ModelId("eta-de"),
            stage=Stage.OPENED,
            at=OPENED_AT,
            since=OPENED_AT - timedelta(hours=6),
            channel=TO.channel,
            mention=TO.mention,
            headline="eta-de is off by 14.2 minutes",
            doing="A retraining is ordered.",
        )
    )


def later(incident: Incident, stage: Stage, hours: int) -> Incident:
    """Return what becomes of `incident` some hours on."""
    first = incident.notices[0]
    key, at = f"{incident.id}/{stage.value}", first.at + timedelta(hours=hours)
    notice = replace(first, key=key, stage=stage, at=at)
    return replace(incident, notices=(*incident.notices, notice))


def entry_of(incident: Incident) -> Entry:
    """Return the newest of `incident` for its thread."""
    newest = incident.notices[-1]
    return Entry(key=newest.key, incident=incident.id, notices=(newest,))


def test_an_incident_is_posted_once_although_the_reply_was_lost(rig: Rig, opened: Incident) -> None:
    """After a lost reply the caller reconciles and is handed the message that stands."""
    rig.lose_reply()
    with pytest.raises(PagerError) as lost:
        rig.pager.post(opened, TO, reconcile=False)
    assert lost.value.retry
    receipt = rig.pager.post(opened, TO, reconcile=True)
    retraining = later(opened, Stage.RETRAINING, 1)
    rig.pager.reply(entry_of(retraining), receipt, reconcile=False)
    assert rig.told() == [(opened.id, OPENED_AT, [f"{opened.id}/retraining"])]


def test_reconciling_posts_what_never_arrived(rig: Rig, opened: Incident) -> None:
    """A refused message is posted when the caller comes again; another incident's is not it."""
    rig.pager.post(replace(opened, id="eta-fr/1"), TO, reconcile=False)
    rig.refuse()
    with pytest.raises(PagerError) as refused:
        rig.pager.post(opened, TO, reconcile=False)
    assert refused.value.retry
    assert [incident for incident, _, _ in rig.told()] == ["eta-fr/1"]
    rig.pager.post(opened, TO, reconcile=True)
    assert [incident for incident, _, _ in rig.told()] == ["eta-fr/1", opened.id]


def test_an_update_changes_the_message_in_place(rig: Rig, opened: Incident) -> None:
    """As often as it comes: no second message, and nothing in its thread."""
    receipt = rig.pager.post(opened, TO, reconcile=False)
    recovered = later(opened, Stage.RECOVERED, 3)
    for _ in range(2):
        assert rig.pager.update(recovered, receipt) == receipt
    assert rig.told() == [(opened.id, OPENED_AT + timedelta(hours=3), [])]


def test_what_follows_is_told_in_its_thread_in_order(rig: Rig, opened: Incident) -> None:
    """Each entry is one reply."""
    receipt = rig.pager.post(opened, TO, reconcile=False)
    stages = [Stage.RETRAINING, Stage.PROMOTED, Stage.RECOVERED]
    for hours, stage in enumerate(stages, start=1):
        rig.pager.reply(entry_of(later(opened, stage, hours)), receipt, reconcile=False)
    keys = [f"{opened.id}/{stage.value}" for stage in stages]
    assert rig.told() == [(opened.id, OPENED_AT, keys)]


def test_an_entry_is_told_once_although_the_reply_was_lost(rig: Rig, opened: Incident) -> None:
    """With reconcile the thread is searched first: no line of it repeats."""
    receipt = rig.pager.post(opened, TO, reconcile=False)
    entry = entry_of(later(opened, Stage.REFUSED, 1))
    rig.lose_reply()
    with pytest.raises(PagerError) as lost:
        rig.pager.reply(entry, receipt, reconcile=False)
    assert lost.value.retry
    rig.pager.reply(entry, receipt, reconcile=True)
    assert rig.told() == [(opened.id, OPENED_AT, [entry.key])]


def test_a_message_that_is_gone_says_so(rig: Rig, opened: Incident) -> None:
    """So that it can be posted again: then it is, though another stood for it before."""
    receipt = rig.pager.post(opened, TO, reconcile=False)
    rig.delete()
    with pytest.raises(PagerError) as gone:
        rig.pager.update(later(opened, Stage.RETRAINING, 1), receipt)
    assert (gone.value.gone, gone.value.retry) == (True, False)
    rig.pager.post(opened, TO, reconcile=True)
    assert rig.told() == [(opened.id, OPENED_AT, [])]


def test_a_pager_that_is_away_says_so(rig: Rig, opened: Incident) -> None:
    """The whole of it, whatever the channel."""
    rig.away()
    with pytest.raises(PagerError) as away:
        rig.pager.post(opened, TO, reconcile=False)
    assert (away.value.away, away.value.retry) == (True, True)


def test_an_unknown_channel_is_not_tried_again(rig: Rig, opened: Incident) -> None:
    """The error names the channel and says that a retry cannot help."""
    with pytest.raises(PagerError) as refused:
        rig.pager.post(opened, replace(TO, channel="C0NOWHERE"), reconcile=False)
    assert (refused.value.retry, refused.value.away) == (False, False)
    assert refused.value.where == "C0NOWHERE"
    assert rig.told() == []


def test_a_rate_limit_is_waited_for(rig: Rig, opened: Incident) -> None:
    """A limited call was not accepted: it is sent again, and the message stands once."""
    rig.limit()
    rig.pager.post(opened, TO, reconcile=False)
    assert rig.told() == [(opened.id, OPENED_AT, [])]


def test_a_digest_is_told_once_although_the_reply_was_lost(rig: Rig) -> None:
    """By its key, as an incident is by its id."""
    digest = Digest(
        key="digest/ops/2026-03-01",
        owner="ops",
        at=OPENED_AT,
        headline="All is well.",
        sections=(("Fresh", ("eta-de",)),),
    )
    rig.lose_reply()
    with pytest.raises(PagerError):
        rig.pager.summarize(digest, TO, reconcile=False)
    rig.pager.summarize(digest, TO, reconcile=True)
    assert rig.told() == [(digest.key, OPENED_AT, [])]
