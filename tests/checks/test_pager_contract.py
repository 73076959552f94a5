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
from driftloop.page.slack import SlackPager
from driftloop.ports import Pager
from driftloop.records import ModelId, Notice, Stage

OPENED_AT = datetime(2026, 3, 1, 6, tzinfo=UTC)


def _fake(name: str) -> Any:
    file = Path(__file__).parents[1] / "fakes" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"driftloop_fakes_{name}", file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


Told = list[tuple[str, str, list[str]]]


class Rig(Protocol):
    """A pager, and a hand on its world."""

    pager: Pager

    def told(self) -> Told:
        """Each message: its incident, the stage it shows, the keys in its thread."""

    def lose_reply(self) -> None: ...

    def refuse(self) -> None: ...

    def limit(self) -> None: ...


@dataclass
class FakeRig:
    pager: Any

    def told(self) -> Told:
        return [
            (one.opened.incident, one.shown.stage.value, [said.key for said in one.thread])
            for one in self.pager.told
        ]

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
                payload[one["ts"]]["stage"],
                [
                    payload[said["ts"]]["key"]
                    for said in messages
                    if said.get("thread_ts") == one["ts"] != said["ts"]
                ],
            )
            for one in messages
            if one.get("thread_ts", one["ts"]) == one["ts"]
        ]

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
        yield FakeRig(_fake("pager").FakePager())
        return
    with _fake("sandbox_server").running(tmp_path / "slack.db") as server:
        yield SlackRig(SlackPager("xoxb-check", server.api), server, lose_by)


@pytest.fixture
def opened() -> Notice:
    """An incident that opens."""
    return Notice(
        key="eta-de/2026-03-01/opened",
        incident="eta-de/2026-03-01",
        model=ModelId("eta-de"),
        stage=Stage.OPENED,
        at=OPENED_AT,
        since=OPENED_AT - timedelta(hours=6),
        channel="#ml-logistics",
        mention="@here",
        headline="eta-de is off by 14.2 minutes",
        doing="A retraining is ordered.",
    )


def later(notice: Notice, stage: Stage, hours: int) -> Notice:
    """Return what follows `notice` some hours on."""
    key = f"{notice.incident}/{stage.value}"
    return replace(notice, key=key, stage=stage, at=notice.at + timedelta(hours=hours))


def test_an_incident_is_opened_once_although_the_reply_was_lost(rig: Rig, opened: Notice) -> None:
    """After a lost reply the caller reconciles and is handed the message that stands."""
    rig.lose_reply()
    with pytest.raises(PagerError) as lost:
        rig.pager.open(opened, reconcile=False)
    assert lost.value.retry
    receipt = rig.pager.open(opened, reconcile=True)
    rig.pager.follow(later(opened, Stage.RETRAINING, 1), receipt, reconcile=False)
    assert rig.told() == [(opened.incident, "retraining", [f"{opened.incident}/retraining"])]


def test_reconciling_opens_what_never_arrived(rig: Rig, opened: Notice) -> None:
    """A refused message is posted when the caller comes again; another incident's is not it."""
    rig.pager.open(replace(opened, incident="eta-fr/1", key="eta-fr/1/opened"), reconcile=False)
    rig.refuse()
    with pytest.raises(PagerError) as refused:
        rig.pager.open(opened, reconcile=False)
    assert refused.value.retry
    assert [incident for incident, _, _ in rig.told()] == ["eta-fr/1"]
    rig.pager.open(opened, reconcile=True)
    assert [incident for incident, _, _ in rig.told()] == ["eta-fr/1", opened.incident]


def test_what_follows_updates_the_message_and_is_told_in_its_thread(
    rig: Rig, opened: Notice
) -> None:
    """Each follow-up shows in the one message and is one reply, in order."""
    receipt = rig.pager.open(opened, reconcile=False)
    stages = [Stage.RETRAINING, Stage.PROMOTED, Stage.RECOVERED]
    for hours, stage in enumerate(stages, start=1):
        rig.pager.follow(later(opened, stage, hours), receipt, reconcile=False)
    keys = [f"{opened.incident}/{stage.value}" for stage in stages]
    assert rig.told() == [(opened.incident, "recovered", keys)]


def test_a_follow_up_is_told_once_although_the_reply_was_lost(rig: Rig, opened: Notice) -> None:
    """With reconcile the thread is searched first: no line of it repeats."""
    receipt = rig.pager.open(opened, reconcile=False)
    notice = later(opened, Stage.REFUSED, 1)
    rig.lose_reply()
    with pytest.raises(PagerError) as lost:
        rig.pager.follow(notice, receipt, reconcile=False)
    assert lost.value.retry
    rig.pager.follow(notice, receipt, reconcile=True)
    assert rig.told() == [(opened.incident, "refused", [notice.key])]


def test_a_late_repetition_does_not_set_the_message_back(rig: Rig, opened: Notice) -> None:
    """A follow-up that comes after a later one still enters the thread, not the message."""
    receipt = rig.pager.open(opened, reconcile=False)
    retraining, promoted = later(opened, Stage.RETRAINING, 1), later(opened, Stage.PROMOTED, 2)
    rig.pager.follow(promoted, receipt, reconcile=False)
    rig.pager.follow(retraining, receipt, reconcile=True)
    assert rig.told() == [(opened.incident, "promoted", [promoted.key, retraining.key])]


def test_an_unknown_channel_is_not_tried_again(rig: Rig, opened: Notice) -> None:
    """The error names the channel and says that a retry cannot help."""
    with pytest.raises(PagerError) as refused:
        rig.pager.open(replace(opened, channel="C0NOWHERE"), reconcile=False)
    assert (refused.value.retry, refused.value.where) == (False, "C0NOWHERE")
    assert rig.told() == []


def test_a_rate_limit_is_waited_for(rig: Rig, opened: Notice) -> None:
    """A limited call was not accepted: it is sent again, and the message stands once."""
    rig.limit()
    rig.pager.open(opened, reconcile=False)
    assert rig.told() == [(opened.incident, "opened", [])]
