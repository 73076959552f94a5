"""Incidents as they stand: what the ledger has of them, the policy of now, and each other."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from driftloop.incident import explainer, fold
from driftloop.incident.explain import STARVED
from driftloop.incident.words import headline
from driftloop.ports import Ledger
from driftloop.records import (
    PLATFORM,
    Act,
    Acted,
    Fact,
    Grouped,
    Incident,
    ModelId,
    Noted,
    Notice,
    Paged,
    Rollout,
    Status,
)
from driftloop.route import Routed, on_call, quiet_until, routed
from driftloop.spec import Fleet, Owner
from driftloop.spec.people import DEFAULTS

INCIDENT = "incident/"
"""How the claim of an incident begins: it is finished once the incident is over and all told."""
NEWEST = 20
"""So many of a model's newest incidents may be one that explains another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Reads incidents, without changing any."""

    fleet: Fleet
    ledger: Ledger

    def one(self, incident: str, now: datetime) -> Incident | None:
        """Return an incident as it stands `now`, None where nothing was noted of it."""
        return self.of(self.ledger.incident(incident), now)

    def live_ids(self) -> tuple[str, ...]:
        """Return the ids of the incidents that are not over, or not told to their end."""
        return tuple(key.removeprefix(INCIDENT) for key, _ in self.ledger.live(INCIDENT))

    def of(self, facts: Sequence[Fact], now: datetime) -> Incident | None:
        """Return the incident that `facts` are of as it stands `now`, None without a notice."""
        rollouts = {each.model: each for each in self.ledger.rollouts()}
        found = self.folded(facts, now, rollouts)
        if found is None or found.status is Status.RESOLVED:
            return found
        return self.within(found, self._around(found, now, rollouts), now)

    def folded(
        self,
        facts: Sequence[Fact],
        now: datetime,
        rollouts: Mapping[ModelId, Rollout] | None = None,
    ) -> Incident | None:
        """Return the incident by itself: without what explains it, and never waiting."""
        noted = [fact.notice for fact in facts if isinstance(fact, Noted)]
        if not noted:
            return None
        if rollouts is None and noted[0].model != PLATFORM:
            rollouts = {each.model: each for each in self.ledger.rollouts()}
        named = next((fact.owner for fact in facts if isinstance(fact, Grouped)), noted[0].owner)
        owner = self.owner(named, noted[0])
        silenced = {f.model for f in facts if isinstance(f, Acted) and f.until_version}
        heads = {model: self.ledger.head(model) for model in silenced}
        return fold(
            facts,
            now=now,
            versions={model: head.version for model, head in heads.items() if head is not None},
            rollouts=rollouts or {},
            clickable=bool(owner.members) or on_call(owner, now) is not None,
        )

    def within(self, incident: Incident, others: Sequence[Incident], now: datetime) -> Incident:
        """Return an incident as it stands among `others`, and whether it waits to be told."""
        by, status = explainer(incident, others), incident.status
        if by is not None and status is Status.OPEN:
            status = Status.EXPLAINED
        known = next((headline(other) for other in others if other.id == by), "")
        found = replace(incident, explained_by=by, explained_as=known, status=status)
        if status is Status.OPEN and incident.told is None and self.opens_at(found, now) > now:
            return replace(found, status=Status.WAITING)
        return found

    def opens_at(self, incident: Incident, now: datetime) -> datetime:
        """Return from when on it may be told for the first time."""
        gathered = incident.opened
        if incident.group:
            gathered += self.policy(incident).wait
        when = max(gathered, now)
        owner = self.owner(incident.owner, incident.notices[0])
        return quiet_until(owner, incident.severity, when) or when

    def policy(self, incident: Incident) -> Routed:
        """Return how insistent paging is for it, as its first model is routed.

        Where no monitor declares a model of it that has not recovered, nobody looks at those any
        more: it is called to nobody's mind, and stands until somebody resolves it.
        """
        left = {member.model for member in incident.members if member.over is None}
        declared = {PLATFORM, *self.fleet.models}
        known = [model for model in incident.models if model in declared]
        if not known or (left and not left & declared):
            return Routed(
                owner=incident.owner,
                wait=DEFAULTS.wait or timedelta(),
                repeat=timedelta(),
                ack_within=None,
                ack_expires=DEFAULTS.ack_expires or timedelta(),
                escalate=(),
            )
        return routed(self.fleet, known[0], origin=incident.origin, severity=incident.severity)

    def owner(self, name: str, notice: Notice) -> Owner:
        """Return an owner by name; who was meant by `notice` where no file knows the name."""
        known = self.fleet.owners.get(name)
        if known is not None:
            return known
        return Owner.model_construct(channel=notice.channel, mention=notice.mention)

    def told_to(self, incident: Incident) -> tuple[Owner, ...]:
        """Return who is told, first its owner, then who was told as nobody acknowledged."""
        chain = self.policy(incident).escalate[: incident.level]
        names = (incident.owner, *chain)
        return tuple(self.owner(name, incident.notices[0]) for name in names)

    def _around(
        self, incident: Incident, now: datetime, rollouts: Mapping[ModelId, Rollout]
    ) -> list[Incident]:
        """Return the live incidents that may explain this one."""
        live = set(self.live_ids()) - {incident.id}
        if not live:
            return []
        if incident.models == (PLATFORM,):
            near = {each for each in live if each.startswith(f"{PLATFORM}/")}
        else:
            left = next((m.model for m in incident.members if m.over is None), incident.models[0])
            facts = self.ledger.facts(Grouped, model=left, last=NEWEST)
            near = {fact.incident for fact in facts} & live
            if incident.group.endswith(STARVED):
                near |= {each for each in live if each.startswith(f"{PLATFORM}/")}
        found = (self.folded(self.ledger.incident(each), now, rollouts) for each in sorted(near))
        return [each for each in found if each is not None]


def noted(ledger: Ledger, keys: Collection[str]) -> frozenset[str]:
    """Return those of `keys` under which a notice is told, or will be."""
    return ledger.appended(Noted, keys) | ledger.appended(Paged, keys)


def who_acked(incident: Incident) -> str:
    """Return how to call who acknowledged it last, "" where that was not in Slack."""
    acks = [act for act in incident.acts if act.act is Act.ACK]
    return f"<@{acks[-1].user}>" if acks and acks[-1].user else ""
