"""An incident as it is looked at before it is told: how it stands, and what is to be done."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from driftloop.incident import next_due, shown, timed
from driftloop.incident.plan import Plan, plan
from driftloop.loop.pauses import Pauses
from driftloop.loop.standing import INCIDENT, Standing
from driftloop.ports import Clock, Ledger
from driftloop.records import Fact, Incident, Noted, Notice, Paged, Posted, Stage, Status
from driftloop.route import platform_owner


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """An incident as it was looked at, and what is to be done about it."""

    incident: Incident
    facts: tuple[Fact, ...]
    plan: Plan
    timed: tuple[Notice, ...]
    told: frozenset[str]
    explains: bool
    finished: bool
    due: datetime | None
    again: float | None

    @property
    def is_over(self) -> bool:
        """Whether nothing will follow."""
        return self.plan.over and self.plan.is_done and not self.timed and not self.explains

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to do now."""
        if self.is_over:
            return self.finished
        return self.plan.is_done and not self.timed and not self.explains


@dataclass(frozen=True, slots=True, kw_only=True)
class Looker:
    """Looks at incidents, and changes none."""

    standing: Standing
    ledger: Ledger
    clock: Clock
    wall: Callable[[], float]
    pauses: Pauses

    def look(self, incident: str) -> Seen | None:
        """Return an incident as it stands and what is to be done, None where nothing is noted."""
        facts, now = self.ledger.incident(incident), self.clock.now()
        found = self.standing.of(facts, now)
        if found is None:
            return None
        policy, owners = self.standing.policy(found), self.standing.fleet.owners
        told = self.ledger.appended(Paged, [notice.key for notice in found.notices])
        opens_at = self.standing.opens_at(found, now)
        what = plan(
            found,
            facts,
            told=told,
            channels=[owner.channel for owner in self.standing.told_to(found)],
            shows=shown(found),
            now=now,
            fallback=self.platform_channel(),
            may_open=opens_at <= now,
        )
        again = self.pauses.edits_again(incident, self.wall())
        waits = bool(what.update) and len(found.members) > 1 and not what.batches
        waits = waits and again is not None and found.status is not Status.RESOLVED
        dues = [what.due, next_due(found, policy, owners, now)]
        dues += [opens_at] if found.told is None else []
        return Seen(
            incident=found,
            facts=facts,
            plan=replace(what, update=()) if waits else what,
            timed=timed(found, policy, owners, now),
            told=told,
            explains=self._is_to_explain(found, what, told),
            finished=what.over and not self._is_live(incident),
            due=min((due for due in dues if due is not None and due > now), default=None),
            again=again if waits else None,
        )

    def _is_live(self, incident: str) -> bool:
        key = INCIDENT + incident
        return any(each == key for each, _ in self.ledger.live(key))

    def _is_to_explain(self, incident: Incident, what: Plan, told: frozenset[str]) -> bool:
        if incident.status is not Status.EXPLAINED or incident.explained_by is None:
            return False
        if self.ledger.fact(Noted, key=line_key(incident)) is None:
            return True
        left = any(notice.key not in told for notice in incident.notices)
        return left and not what.stands and self.larger_stands(incident) is not None

    def larger_stands(self, incident: Incident) -> Posted | None:
        """Return where the incident stands that explains this one, None where it does not yet."""
        facts = self.ledger.incident(incident.explained_by or "")
        return next((fact for fact in facts if isinstance(fact, Posted)), None)

    def platform_channel(self) -> str | None:
        """Return the channel of the platform's owner, None where nobody is named."""
        fleet = self.standing.fleet
        owner = fleet.owners.get(platform_owner(fleet))
        return owner.channel if owner is not None else None


def line_key(incident: Incident) -> str:
    """Return the key of the line that an incident leaves where it is explained."""
    return f"{incident.explained_by}/{Stage.EXPLAINS}/{incident.id}"
