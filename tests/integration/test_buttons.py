"""Buttons from end to end: a real stand-in for Slack, the desk's service, a real ledger."""

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from fakes.clicked import served
from fakes.sandbox_server import SECRET, SandboxServer, running
from fakes.world import FakeRegistry

from driftloop.records import (
    Act,
    Acted,
    Advanced,
    Decided,
    Decision,
    Head,
    ModelId,
    Notice,
    Phase,
    Rollout,
    Severity,
    Stage,
    State,
    Window,
)
from driftloop.settings import Settings
from driftloop.up.desk import working
from driftloop.wiring import System

MONITORS = Path(__file__).parents[1] / "monitors"
DE = ModelId("eta-de")
ALERT = "eta-de/20260301T000000"
NAME = "ada"
ADA, EVE = "U0OPERATOR1", "U0STRANGER"
WITHIN = 15.0


@dataclass
class House:
    """An installation with one open incident, Slack, and the desk between them."""

    system: System
    slack: SandboxServer

    @property
    def message(self) -> dict[str, Any]:
        """The incident's message."""
        return next(one for one in self.slack.messages() if not _in_thread(one))

    @property
    def thread(self) -> list[str]:
        """What its thread says."""
        return [one["text"] for one in self.slack.messages() if _in_thread(one)]

    def click(self, action: str, user: str = ADA, **more: Any) -> dict[str, Any]:
        """Return what came of a click on the message, checked to be in time."""
        came = self.slack.click(self.message, f"driftloop.{action}", user=user, **more)
        assert came["ok"], came
        assert came["seconds"] < 3
        return came

    def told(self, user: str = ADA) -> str:
        """Return all that was said to one user alone."""
        return " | ".join(one["text"] for one in self.slack.whispers(user))

    def acts(self) -> tuple[Acted, ...]:
        return self.system.ledger.facts(Acted)

    def shows(self, *words: str) -> bool:
        """Say whether the message shows all of that."""
        return all(word in str(self.message) for word in words)


def _in_thread(message: dict[str, Any]) -> bool:
    return message.get("thread_ts") not in {None, message["ts"]}


def wait_for(what: Callable[[], object]) -> None:
    """Return once that is so."""
    until = time.monotonic() + WITHIN
    while not what():
        assert time.monotonic() < until, "it never came"
        time.sleep(0.05)


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    monitors = Path(shutil.copytree(MONITORS, tmp_path / "monitors"))
    owners = monitors / "owners.toml"
    staffed = f'mention = "@here"\nmembers = ["{ADA}"]\n'
    owners.write_text(owners.read_text().replace('mention = "@here"\n', staffed))
    # What a version answers is for other tests; here its file is not looked at.
    monkeypatch.setattr(System, "_verify", lambda *_: None)
    with running(tmp_path / "slack.db", signing_secret=SECRET) as slack:
        slack.add_channel("ml-logistics")
        settings = Settings(
            home=tmp_path / "home",
            monitors=monitors,
            slack_api=slack.api,
            slack_token="xoxb-test",
            slack_signing_secret=SECRET,
            tell_every=0.1,
        )
        system = System(settings)
        system.__dict__["registry"] = FakeRegistry()
        opened(system)
        with working(system) as app, served(app) as address:
            slack.clicks_go_to(f"{address}/slack/actions")
            house = House(system, slack)
            wait_for(slack.messages)
            yield house


def opened(system: System) -> None:
    """Let the model decay, and its owner be told."""
    now = datetime.now(UTC)
    decision = Decision(
        key=ALERT,
        model=DE,
        at=now,
        state=State.DECAYING,
        reason="mae 14.2, above 10.5",
        version=1,
        window=Window(model=DE, start=now, end=now, known_at=now),
        verdicts=(),
        incident=ALERT,
        opens=True,
    )
    system.ledger.append(Decided(model=DE, at=now, decision=decision), key=ALERT)
    notice = Notice(
        key=f"{ALERT}/opened",
        incident=ALERT,
        model=DE,
        stage=Stage.OPENED,
        at=now,
        since=now,
        channel="#ml-logistics",
        mention="@here",
        headline="eta-de predicts worse than its limit allows",
        doing="A retraining is ordered.",
        owner="logistics",
        severity=Severity.WARNING,
    )
    system.teller.tell(notice)


def test_who_may_acknowledges_and_everybody_sees_it(house: House) -> None:
    """Ada is told that she has it, the message shows it, and its thread says who and until when."""
    house.click("ack")
    wait_for(lambda: house.shows(f"{NAME} has it"))
    wait_for(lambda: f"{NAME} acknowledged it until" in " ".join(house.thread).lower())
    wait_for(lambda: f"{NAME} acknowledged it until" in house.told())
    (act,) = house.acts()
    assert (act.act, act.user, act.incident) == (Act.ACK, ADA, ALERT)
    assert len([one for one in house.slack.messages() if not _in_thread(one)]) == 1


def test_who_may_not_is_told_so_and_nothing_changes(house: House) -> None:
    """Eve alone reads that it is not hers, is asked no reason, and the message stays as it was."""
    before = house.message
    house.click("ack", EVE)
    wait_for(lambda: "owners.toml does not list you" in house.told(EVE))
    house.click("not-a-problem", EVE)
    wait_for(lambda: house.told(EVE).count("owners.toml does not list you") == 2)
    assert house.slack.views(EVE) == []
    assert house.acts() == ()
    assert house.message == before
    assert house.told(ADA) == ""


def test_a_reason_is_asked_for_and_kept(house: House) -> None:
    """The button opens a window; what is written in it ends the incident, and counts."""
    house.click("not-a-problem")
    (view,) = house.slack.views(ADA)
    house.slack.submit(view, user=ADA, why={"why": "a public holiday"})
    wait_for(house.acts)
    wait_for(lambda: house.shows("Resolved"))
    (act,) = house.acts()
    assert (act.act, act.why, act.models) == (Act.NO_PROBLEM, "a public holiday", (DE,))
    assert house.system.denied() == ((DE,),)


def test_retrain_now_becomes_an_order(house: House) -> None:
    """The next run of the flows starts it; a second click says that it is asked for."""
    house.click("retrain")
    wait_for(house.acts)
    (order,) = house.system.wanted()
    assert (order.model, order.reason, order.incident) == (DE, f"asked for by {NAME}", ALERT)


def test_a_rollout_is_promoted_by_its_button_once(house: House) -> None:
    """The challenger answers from then on; the button of a message that is older does nothing."""
    ledger, now = house.system.ledger, datetime.now(UTC)
    head = Head(model=DE, epoch=1, version=4, digest="d", artifact="a/model.onnx")
    ledger.move(head, at=now, previous=None, reason="first")
    rollout = Rollout(
        model=DE,
        order="order",
        epoch=2,
        version=5,
        digest="d5",
        artifact="b/model.onnx",
        champion=4,
        phase=Phase.CANARY,
        reason="first rows",
        begun=now,
        since=now,
        share=0.1,
    )
    ledger.advance(Advanced(model=DE, at=now, rollout=rollout))
    wait_for(lambda: house.shows("driftloop.promote"))
    button = _button(house.message, "driftloop.promote")
    house.click("promote")
    wait_for(house.acts)
    newest = ledger.head(DE)
    assert newest is not None
    assert (newest.version, house.acts()[0].version) == (5, 5)
    wait_for(lambda: not house.shows("driftloop.promote"))
    house.click("promote", value=button["value"])
    wait_for(lambda: "Version 5 of eta-de answers already" in house.told())
    assert len(house.acts()) == 1


def _button(message: dict[str, Any], action: str) -> dict[str, Any]:
    """Return a button of a message, as it stands in it."""
    elements = [each for block in message["blocks"] for each in block.get("elements", ())]
    return next(each for each in elements if each.get("action_id") == action)
