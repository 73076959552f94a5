"""A desk over a real ledger: a fake world of people, rollouts and messages around it."""

import os
import signal
import time
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from typing import Any

from driftloop.errors import BadRequest, PagerError
from driftloop.loop.desk import FrontDesk
from driftloop.loop.incidents import Incidents
from driftloop.loop.rights import Rights
from driftloop.loop.rollout_acts import RolloutActs
from driftloop.loop.standing import Standing
from driftloop.loop.tell import Told
from driftloop.ports import Clock, Ledger
from driftloop.records import (
    Act,
    Acted,
    Advanced,
    Answer,
    Click,
    Decided,
    Decision,
    Grouped,
    Head,
    Incident,
    ModelId,
    Noted,
    Notice,
    Phase,
    Posted,
    Receipt,
    Rollout,
    Severity,
    Stage,
    State,
    Window,
)
from driftloop.spec import Fleet, OnCall, Route, Routes

DE, FR = ModelId("eta-de"), ModelId("eta-fr")
ADA, GRACE, EDITH, EVE, TURN = (
    "U0OPERATOR1",
    "U0OPERATOR2",
    "U0PASSENGER",
    "U0STRANGER",
    "U0ONTURN01",
)
GROUP = "S0ONCALL01"
NAMES = {ADA: "Ada", GRACE: "Grace", EDITH: "Edith", EVE: "Eve", TURN: "Tom"}


def staffed(fleet: Fleet) -> Fleet:
    """Return `fleet` with people: Ada and a group own it, Tom is on call, Edith comes next."""
    logistics, growth = fleet.owners["logistics"], fleet.owners["growth"]
    owners = {
        "logistics": logistics.model_copy(
            update={
                "members": (ADA, GROUP),
                "time_zone": "Europe/Berlin",
                "on_call": OnCall(people=(TURN,), start=date(2026, 1, 5)),
            }
        ),
        "growth": growth.model_copy(update={"members": (EDITH,)}),
        "nobody": growth,
    }
    routes = Routes(
        ack_within=timedelta(minutes=15),
        ack_expires=timedelta(hours=4),
        escalate=("growth",),
        routes=(Route(family=("churn",), owner="nobody"),),
    )
    return replace(fleet, owners=owners, routes=routes)


@dataclass
class FakePeople:
    """Knows who is in the one user group; or cannot be asked."""

    group: frozenset[str] = frozenset({GRACE})
    broken: bool = False

    def members(self, group: str) -> frozenset[str]:
        if self.broken:
            raise PagerError("Slack does not answer", where=group, retry=True, away=True)
        return self.group

    def name(self, user: str) -> str:
        return NAMES.get(user, user)


@dataclass
class FakeTeller:
    """Notes what it is told in the ledger, and posts nothing; `away` says why."""

    ledger: Ledger
    clock: Clock
    told: list[Notice] = field(default_factory=list)
    away: str = ""

    def tell(self, notice: Notice) -> Told:
        assert self.ledger.incident(notice.incident), f"there is no incident {notice.incident}"
        noted = Noted(
            model=notice.model, at=self.clock.now(), notice=notice, incident=notice.incident
        )
        self.ledger.append(noted, key=notice.key)
        self.told.append(notice)
        return Told(notice, told=not self.away, why=self.away)


@dataclass
class FakeSteps:
    """Steps rollouts in the ledger as the releaser does; `fails` once, before or `after` it.

    Where it `dies` its process is killed after the step.
    """

    ledger: Ledger
    clock: Clock
    fails: BaseException | None = None
    after: bool = False
    dies: bool = False
    done: list[tuple[str, str, str]] = field(default_factory=list)

    def hold(self, model: ModelId, *, who: str) -> Rollout:
        return self._step("hold", model, who, held=who)

    def resume(self, model: ModelId, *, who: str) -> Rollout:
        return self._step("resume", model, who, held=None)

    def promote(self, model: ModelId, *, who: str) -> Rollout:
        return self._step("promote", model, who, phase=Phase.WATCHED)

    def roll_back(self, model: ModelId, *, who: str) -> Rollout:
        return self._step("rollback", model, who, phase=Phase.ROLLED_BACK)

    def move_back(self, model: ModelId, who: str) -> Head:
        self._fail()
        self.done.append(("move-back", model, who))
        head = self.ledger.head(model)
        assert head is not None
        return head

    def _step(self, what: str, model: ModelId, who: str, **changed: Any) -> Rollout:
        if not self.after:
            self._fail()
        (rollout,) = (each for each in self.ledger.rollouts() if each.model == model)
        if what == "hold" and rollout.held:
            raise BadRequest(f"is held already, by {rollout.held}", where=model)
        stepped = replace(rollout, epoch=rollout.epoch + 1, **changed)
        at = self.clock.now()
        self.ledger.advance(Advanced(model=model, at=at, rollout=stepped, who=who))
        self.done.append((what, model, who))
        if self.dies:
            os.kill(os.getpid(), signal.SIGKILL)
        self._fail()
        return stepped

    def _fail(self) -> None:
        if self.fails is not None:
            error, self.fails = self.fails, None
            raise error


@dataclass
class Wall:
    """The wall clock of a ledger, put `ahead` by so many seconds."""

    ahead: float = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


@dataclass
class Office:
    """A desk, its ledger, and ways to make incidents and clicks."""

    fleet: Fleet
    ledger: Ledger
    clock: Any
    people: FakePeople = field(default_factory=FakePeople)
    clicks: int = 0

    def __post_init__(self) -> None:
        """Staff it."""
        self.fleet = staffed(self.fleet)
        self.teller = FakeTeller(self.ledger, self.clock)
        self.steps = FakeSteps(self.ledger, self.clock)

    @property
    def incidents(self) -> Incidents:
        standing = Standing(fleet=self.fleet, ledger=self.ledger)
        return Incidents(standing=standing, ledger=self.ledger, clock=self.clock)

    @property
    def desk(self) -> FrontDesk:
        rollouts = RolloutActs(
            ledger=self.ledger, steps=lambda: self.steps, move_back=self.steps.move_back
        )
        return FrontDesk(
            fleet=self.fleet,
            ledger=self.ledger,
            clock=self.clock,
            incidents=self.incidents,
            rights=Rights(fleet=self.fleet, standing=self.incidents.standing, people=self.people),
            teller=self.teller,
            rollouts=rollouts,
        )

    def opened(
        self,
        *models: ModelId,
        group: str = "",
        owner: str = "logistics",
        told: bool = True,
        alert: str = "",
        stage: Stage = Stage.OPENED,
    ) -> str:
        """Return the id of an incident of `models` that was opened, and told."""
        now = self.clock.now()
        alerts = [alert or f"{model}/20260301T000000" for model in models]
        id_ = f"{group}/0" if group else alerts[0]
        for model, each in zip(models, alerts, strict=True):
            self.note(id_, model, each, stage, owner=owner, group=group)
            if stage is Stage.OPENED:
                self.decided(model, each)
        self.ledger.claim(f"incident/{id_}", lease=timedelta(0), body="{}")
        if told:
            self.ledger.append(
                Posted(
                    model=models[0],
                    at=now,
                    incident=id_,
                    channel="#ml",
                    receipt=Receipt(channel="C1", ts="1.5"),
                    shown="",
                ),
                key=f"{id_}/posted",
            )
        return id_

    def decided(self, model: ModelId, incident: str | None) -> None:
        """Let the newest decision on a model have an incident open, or none."""
        now: datetime = self.clock.now()
        key = f"{model}/{now:%Y%m%dT%H%M%S}/{incident}"
        window = Window(model=model, start=now - timedelta(days=1), end=now, known_at=now)
        decision = Decision(
            key=key,
            model=model,
            at=now,
            state=State.DECAYING if incident else State.FRESH,
            reason="its error is twice what it was",
            version=1,
            window=window,
            verdicts=(),
            incident=incident,
        )
        self.ledger.append(Decided(model=model, at=now, decision=decision), key=key)

    def note(
        self,
        id_: str,
        model: ModelId,
        alert: str,
        stage: Stage,
        *,
        owner: str = "logistics",
        group: str = "",
    ) -> None:
        now = self.clock.now()
        grouped = Grouped(model=model, at=now, alert=alert, incident=id_, group=group, owner=owner)
        self.ledger.append(grouped, key=alert)
        notice = Notice(
            key=f"{alert}/{stage}",
            incident=alert,
            model=model,
            stage=stage,
            at=now,
            since=now,
            channel="#ml",
            mention="",
            headline=f"{model}: its error is twice what it was",
            doing="It is retrained.",
            owner=owner,
            severity=Severity.WARNING,
            group=group,
        )
        noted = Noted(model=model, at=now, notice=notice, incident=id_)
        self.ledger.append(noted, key=notice.key)

    def escalated(self, id_: str) -> None:
        """Let nobody have acknowledged it in time."""
        incident = self.incident(id_)
        made = replace(
            incident.notices[0], key=f"{id_}/escalated/1", incident=id_, stage=Stage.ESCALATED
        )
        noted = Noted(model=made.model, at=self.clock.now(), notice=made, incident=id_)
        self.ledger.append(noted, key=made.key)

    def click(self, act: Act, incident: str, user: str | None = ADA, **given: Any) -> Click:
        """Return a click of its own."""
        self.clicks += 1
        who = NAMES[user] if user is not None else "root"
        given = {"key": f"click-{self.clicks}", **given}
        return Click(act=act, incident=incident, who=who, user=user, **given)

    def take(self, act: Act, incident: str, user: str | None = ADA, **given: Any) -> Answer:
        """Return what came of a click."""
        return self.desk.take(self.click(act, incident, user, **given))

    def incident(self, id_: str) -> Incident:
        found = self.incidents.of(id_)
        assert found is not None
        return found

    def acts(self) -> tuple[Acted, ...]:
        return self.ledger.facts(Acted)

    def served(self, model: ModelId, version: int, *, epoch: int = 1) -> Head:
        """Make a version champion."""
        head = Head(model=model, epoch=epoch, version=version, digest="d", artifact="a/model.onnx")
        previous = self.ledger.head(model)
        head = replace(head, epoch=1 if previous is None else previous.epoch + 1)
        self.ledger.move(head, at=self.clock.now(), previous=previous, reason="test")
        return head

    def rolled_out(self, model: ModelId, version: int, *, phase: Phase = Phase.CANARY) -> Rollout:
        """Let a challenger be on its way."""
        head = self.ledger.head(model) or self.served(model, version - 1)
        now: datetime = self.clock.now()
        rollout = Rollout(
            model=model,
            order=f"order-{version}",
            epoch=head.epoch + 1,
            version=version,
            digest="d",
            artifact="a/model.onnx",
            champion=head.version,
            phase=phase,
            reason="first rows",
            begun=now,
            since=now,
            share=0.1,
        )
        self.ledger.advance(Advanced(model=model, at=now, rollout=rollout))
        return rollout


class Killed(BaseException):
    """The process died there."""
