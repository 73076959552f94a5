"""The desk: what people want done about an incident, by a button or on the command line."""

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

import msgspec

from driftloop.errors import DriftloopError, LedgerError, named
from driftloop.incident.lines import acted_on, when
from driftloop.loop.acts import notice_of
from driftloop.loop.incidents import Incidents
from driftloop.loop.notices import OF_QUARANTINE, OF_ROLLOUT
from driftloop.loop.rights import Rights
from driftloop.loop.rollout_acts import RolloutActs, RolloutOver
from driftloop.loop.tell import Told
from driftloop.loop.wanted import hindered, wanted
from driftloop.ports import Clock, Ledger
from driftloop.records import Act, Acted, Answer, Click, Incident, ModelId, Notice, Status
from driftloop.route import morning
from driftloop.spec import Fleet, duration

_log = logging.getLogger(__name__)
PREFIX = "act/"
TURN = "desk/"
LEASE = timedelta(seconds=60)
"""Wall time after which an act is taken up whose process died at it."""
PATIENCE = 2.0
"""Wall seconds that a click waits for another that is about the same."""
PAUSE = 0.05
LONGEST = timedelta(days=366)
"""Nothing is silenced for longer."""
OF_ROLLOUTS = frozenset({Act.HOLD, Act.RESUME, Act.PROMOTE, Act.ROLL_BACK})


class Telling(Protocol):
    """What tells notices once; see `loop.tell.Teller`."""

    def tell(self, notice: Notice) -> Told:
        """Return what came of telling `notice`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontDesk:
    """Takes clicks; implements `ports.Desk`."""

    fleet: Fleet
    ledger: Ledger
    clock: Clock
    incidents: Incidents
    rights: Rights
    teller: Telling
    rollouts: RolloutActs
    lease: timedelta = LEASE

    def take(self, click: Click) -> Answer:
        """Return what came of `click`: done if who asks may and it still makes sense; once.

        The same click again, from this process or another, gets the same answer. What a process
        died at is done by `finish_left`, or by the same click again.

        Raises:
            LedgerError: the ledger cannot be read or written.
        """
        taken = _Taken(self.rights.named(click), self.clock.now())
        body, until = msgspec.json.encode(taken).decode(), time.monotonic() + PATIENCE
        key = f"{PREFIX}{click.key}"
        while True:
            intent = self.ledger.claim(key, lease=self.lease, body=body)
            if intent.mine:
                # As it was taken first: who did what is compared with what the ledger has.
                first = self._first(key) if intent.retaken else None
                return self._finished(key, first or taken, again=intent.retaken)
            if intent.outcome is not None:
                return msgspec.json.decode(intent.outcome, type=Answer)
            if time.monotonic() > until:
                return Answer(done=False, said="It is being done; the message will say so.")
            time.sleep(PAUSE)

    def refusal(self, click: Click) -> str:
        """Return why `click` would be refused now, "" if it would be done; nothing is kept.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        try:
            self._check(click)
        except _Refused as no:
            return str(no)
        return ""

    def finish_left(self) -> tuple[Answer, ...]:
        """Return what came of clicks that processes died at before they had answered."""
        found = []
        for key, body in self.ledger.unfinished(PREFIX):
            taken = msgspec.json.decode(body, type=_Taken)
            if self.ledger.claim(key, lease=self.lease).mine:
                found.append(self._finished(key, taken, again=True))
        return tuple(found)

    def _finished(self, key: str, taken: "_Taken", *, again: bool) -> Answer:
        """Return what comes of a click whose intent is held, and keep it as its outcome."""
        click = taken.click
        try:
            answer = self._answer(click, taken.at if again else None)
        except LedgerError:
            raise  # it is taken up again: what of it was done is not known
        except (_Refused, RolloutOver) as no:
            answer = Answer(done=False, said=str(no))
        except DriftloopError as error:
            answer = Answer(done=False, said=f"Nothing was done: {error}")
        except Exception as error:  # noqa: BLE001 - a fault of ours: who clicked is told of it
            _log.exception("%s of %s broke", click.act, click.incident)
            answer = Answer(done=False, said=f"It broke on {named(error)}; the log says more.")
        self.ledger.finish(key, msgspec.json.encode(answer).decode())
        _log.info(
            "%s by %s: %s", click.act, click.who, answer.said, extra={"trace": click.incident}
        )
        return answer

    def _first(self, key: str) -> "_Taken | None":
        bodies = dict(self.ledger.live(key))
        return msgspec.json.decode(bodies[key], type=_Taken) if key in bodies else None

    def _answer(self, click: Click, since: datetime | None) -> Answer:
        """Return what comes of `click`, which was taken first at `since`, if that was before."""
        incident = self._of(click)
        if (done := self.ledger.fact(Acted, key=click.key)) is not None:
            return self._told(done, incident)
        if refusal := self.rights.refusal(click, incident, self.clock.now()):
            raise _Refused(refusal)
        if since is not None and (fact := self._did(click, incident, since)) is not None:
            return self._kept(fact, incident)
        with self._turn(incident.id):
            return self._done(click, self.incidents.of(incident.id) or incident)

    def _check(self, click: Click) -> None:
        incident = self._of(click)
        if refusal := self.rights.refusal(click, incident, self.clock.now()):
            raise _Refused(refusal)
        _check(click, incident)

    def _of(self, click: Click) -> Incident:
        incident = self.incidents.of(click.incident)
        if incident is None:
            raise _Refused(f"There is no incident {click.incident}: nothing was done.")
        return incident

    def _done(self, click: Click, incident: Incident) -> Answer:
        _check(click, incident)
        if click.act in OF_ROLLOUTS:
            subject = self.rollouts.subject(click, incident)
            trouble = self.rollouts.do(click, subject)
            fact = self._fact(click, incident, model=subject.model, version=subject.version)
            answer = self._kept(fact, incident)
            return Answer(done=True, said=f"{answer.said}: {trouble}") if trouble else answer
        acts = {
            Act.ACK: self._acked,
            Act.SILENCE: self._silenced,
            Act.RESOLVE: self._fact,
            Act.NO_PROBLEM: self._denied,
            Act.RETRAIN: self._ordered,
        }
        return self._kept(acts[click.act](click, incident), incident)

    def _did(self, click: Click, incident: Incident, since: datetime) -> Acted | None:
        if click.act not in OF_ROLLOUTS:
            return None
        subject = self.rollouts.did(click, incident, since)
        if subject is None:
            return None
        return self._fact(click, incident, model=subject.model, version=subject.version)

    # -- the acts ----------------------------------------------------------------------------

    def _acked(self, click: Click, incident: Incident) -> Acted:
        before = next((act for act in reversed(incident.acts) if act.act is Act.ACK), None)
        if (
            incident.status is Status.ACKED
            and before is not None
            and (before.user, before.who) != (click.user, click.who)
        ):
            until = f" until {when(before.until)}" if before.until is not None else ""
            raise _Refused(f"{before.who} has it{until}: nothing was changed.")
        lasts = self.incidents.standing.policy(incident).ack_expires
        return self._fact(click, incident, until=self.clock.now() + lasts)

    def _silenced(self, click: Click, incident: Incident) -> Acted:
        now = self.clock.now()
        if click.silence == "next-version":
            head = self.ledger.head(click.model or incident.members[0].model)
            if head is None:
                raise _Refused("It has no version yet: silence it for some time.")
            return self._fact(click, incident, until_version=True, version=head.version)
        if click.silence == "tomorrow":
            owner = self.fleet.owners.get(incident.owner)
            if owner is None:
                raise _Refused(
                    f"owners.toml has no {incident.owner!r} any more, whose tomorrow it would be."
                )
            return self._fact(click, incident, until=morning(owner, now))
        return self._fact(click, incident, until=now + _length(click.silence))

    def _denied(self, click: Click, incident: Incident) -> Acted:
        if not click.why.strip():
            raise _Refused("Say why it is not a problem: the reason is kept. Nothing was done.")
        # Of what counts in the budget: pages that evidence has made.
        beside = (OF_ROLLOUT, OF_QUARANTINE)
        models = (m.model for m in incident.members if not m.alert.startswith(beside))
        return self._fact(click, incident, models=tuple(dict.fromkeys(models)))

    def _ordered(self, click: Click, incident: Incident) -> Acted:
        open_ones = dict.fromkeys(each.model for each in incident.members if each.over is None)
        models = (click.model,) if click.model is not None else tuple(open_ones)
        asked = {order.model for order in wanted(self.fleet, self.ledger)}
        why_not = {model: self._hindered(model, asked) for model in models}
        able = tuple(model for model, why in why_not.items() if not why)
        if not able:
            first = next(iter(why_not), None)
            words = f"{first}: {why_not[first]}" if first is not None else "none of it is left"
            raise _Refused(f"Nothing was ordered. {words}.")
        return self._fact(click, incident, models=able)

    def _hindered(self, model: ModelId, asked: set[ModelId]) -> str:
        if model not in self.fleet.models:
            return "no monitor declares it"
        if model in asked:
            return "its retraining was asked for already, and begins within a minute"
        return hindered(self.fleet, self.ledger, model)

    # -- keeping and telling -----------------------------------------------------------------

    def _fact(self, click: Click, incident: Incident, **given: object) -> Acted:
        shown: Mapping[str, object] = {"model": click.model or incident.members[0].model, **given}
        return Acted(
            at=self.clock.now(),
            incident=incident.id,
            act=click.act,
            who=click.who,
            user=click.user,
            why=" ".join(click.why.split()),
            key=click.key,
            **shown,  # type: ignore[arg-type]
        )

    def _kept(self, fact: Acted, incident: Incident) -> Answer:
        self.ledger.append(fact, key=fact.key)
        return self._told(fact, incident)

    def _told(self, fact: Acted, incident: Incident) -> Answer:
        try:
            told = self.teller.tell(notice_of(fact, incident))
            late = "" if told.told else f"; Slack shows it later: {told.why}"
        except DriftloopError as error:
            # It is done, and will show: the message shows what the ledger holds.
            _log.error("an act was not told: %s", error, extra={"trace": incident.id})
            late = f"; Slack shows it later: {error}"
        return Answer(done=True, said=f"{acted_on(fact)}{late}")

    @contextmanager
    def _turn(self, incident: str) -> Iterator[None]:
        """Let one act upon an incident at a time."""
        key, until = f"{TURN}{incident}", time.monotonic() + PATIENCE
        while not self.ledger.claim(key, lease=self.lease).mine:
            if time.monotonic() > until:
                raise _Refused("Somebody else acts upon it at this moment: look at it again.")
            time.sleep(PAUSE)
        try:
            yield
        finally:
            self.ledger.release(key)


class _Refused(DriftloopError):
    """Who asks may not, or it makes no sense any more, or not so: nothing was done."""


@dataclass(frozen=True, slots=True)
class _Taken:
    """A click as its intent keeps it, and when it was taken."""

    click: Click
    at: datetime


def _check(click: Click, incident: Incident) -> None:
    """Refuse what makes no sense for `incident` as it is now, whatever the act."""
    if incident.status is Status.RESOLVED:
        over = f" since {when(incident.resolved)}" if incident.resolved is not None else ""
        raise _Refused(f"It is over{over}: nothing was done.")
    if click.model is not None and click.model not in incident.models:
        raise _Refused(f"{click.model} is not part of it: nothing was done.")


def _length(text: str) -> timedelta:
    try:
        length = duration(text)
    except (ValueError, OverflowError):
        length = None
    if not isinstance(length, timedelta) or not timedelta() < length <= LONGEST:
        raise _Refused(
            f'For how long? "1h", "tomorrow", "next-version" or up to {LONGEST.days}d,'
            f" not {text!r}. Nothing was done."
        )
    return length
