"""The daily digest: what the ledger has of an owner's day, told once."""

import logging
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

from driftloop.errors import BadRequest, PagerError
from driftloop.incident.day import DAY, Day, digest_of, due, due_at
from driftloop.judge import rates
from driftloop.judge.partitions import standing
from driftloop.loop.standing import Standing
from driftloop.ports import Clock, FactT, Ledger, Pager
from driftloop.records import (
    PLATFORM,
    Act,
    Acted,
    Address,
    Advanced,
    Decided,
    Digest,
    Failed,
    Gated,
    Incident,
    Link,
    ModelId,
    Moved,
    Noted,
    Ordered,
    Passed,
    Quarantined,
    Relayed,
    Released,
    Trained,
)
from driftloop.spec import Fleet, Owner

LEASE = timedelta(seconds=60)
"""A digest that could not be told is tried again so much later."""
PREFIX = "digest/"
WEEKS = 4
LONGEST = timedelta(days=7)
"""An order that is older is not thought to be under way."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Digests:
    """Tells each owner once a day how their models are."""

    fleet: Fleet
    ledger: Ledger
    clock: Clock
    pager: Pager
    standing: Standing
    links: tuple[Link, ...] = ()
    _over: set[str] = field(default_factory=set)

    def tell_due(self) -> tuple[str, ...]:
        """Return the keys of the digests that were told now.

        Of days that passed untold, as the loop was down, nothing is made up for.
        """
        now = self.clock.now()
        told = []
        for name, owner in self.fleet.owners.items():
            found = due(owner, now)
            if found is None or (key := _key(name, found[0])) in self._over:
                continue
            if not self.ledger.facts(Passed, before=found[1], last=1):
                continue  # on its first day there is nothing to tell
            if self._told(name, owner, key=key, until=found[1]):
                told.append(key)
        return tuple(told)

    def send(self, name: str, *, day: date | None = None) -> Digest | None:
        """Return an owner's digest once it is told, again if it was before; see `of`.

        Raises:
            PagerError: it was not taken.
        """
        digest = self.of(name, day=day)
        if digest is not None:
            owner = self.fleet.owners[name]
            self.pager.summarize(digest, Address(channel=owner.channel), reconcile=False)
        return digest

    def of(self, name: str, *, day: date | None = None) -> Digest | None:
        """Return an owner's digest of the 24 hours until now, or until that of `day` was due.

        None where they have no models and there is nothing to tell.

        Raises:
            BadRequest: there is no such owner, or the day is still to come.
        """
        owner = self.fleet.owners.get(name)
        if owner is None:
            known = ", ".join(sorted(self.fleet.owners))
            raise BadRequest("there is no such owner", where=name, hint=f"known: {known}")
        now = self.clock.now()
        until = now if day is None else due_at(owner, day)
        if until > now:
            raise BadRequest("is still to come", where=f"{day}", hint=f"now is {now:%Y-%m-%d}")
        key = _key(name, day) if day is not None else f"{PREFIX}{name}/{now:%Y-%m-%dT%H:%M}"
        return digest_of(self._day(name, until), key=key, links=self.links)

    def _told(self, name: str, owner: Owner, *, key: str, until: datetime) -> bool:
        intent = self.ledger.claim(key, lease=LEASE)
        if not intent.mine:
            if intent.outcome is not None:
                self._over.add(key)
            return False
        digest = digest_of(self._day(name, until), key=key, links=self.links)
        outcome = "told" if digest is not None else "nothing to tell"
        if digest is not None:
            try:
                to = Address(channel=owner.channel)
                self.pager.summarize(digest, to, reconcile=intent.retaken)
            except PagerError as error:
                _log.warning("%s was not told: %s", key, error)
                if error.retry or error.away:
                    return False  # once the lease is over
                outcome = f"gave up: {error}"
        self.ledger.finish(key, outcome)
        self._over.add(key)
        return outcome == "told"

    def _day(self, name: str, until: datetime) -> Day:
        since = until - DAY
        families = [family for family in self.fleet.families if family.owner == name]
        models = tuple(model for family in families for model in family.models)
        latest = {model: self._latest(model, until) for model in models}
        heads = {head.model for head in self.ledger.heads()}
        incidents = tuple(self._incidents(name, since, until))
        whole = name == self.fleet.platform.owner
        theirs = {each.id for each in incidents}
        relayed = self.ledger.facts(Relayed, since=since, before=until)
        allowed = rates(self.fleet, self.fleet.models)
        return Day(
            owner=name,
            since=since,
            until=until,
            models=models,
            decisions={model: each.decision for model, each in latest.items() if each is not None},
            unserved=tuple(model for model in models if model not in heads),
            retraining=self._under_way(models, until),
            waiting=self._waiting(latest),
            rollouts=tuple(each for each in self.ledger.rollouts() if each.model in models),
            trained=self._of(Trained, models, since, until),
            gated=self._of(Gated, models, since, until),
            failed=self._of(Failed, models, since, until),
            moved=self._of(Moved, models, since, until),
            advanced=self._of(Advanced, models, since, until),
            quarantined=self._quarantined(models, until),
            incidents=incidents,
            denied=len(self._denied(models, until)),
            allowed=WEEKS * sum(allowed[model] for model in models),
            problems=self._problems(since, until) if whole else (),
            relayed=tuple(each for each in relayed if whole or each.incident in theirs),
        )

    def _incidents(self, owner: str, since: datetime, until: datetime) -> Iterator[Incident]:
        """Yield the incidents that were open at `until`, and those that ended since `since`."""
        touched = {fact.incident for fact in self.ledger.facts(Noted, since=since)}
        touched |= {fact.incident for fact in self.ledger.facts(Acted, since=since)}
        for incident in sorted(touched | {*self.standing.live_ids()}):
            facts = [fact for fact in self.ledger.incident(incident) if fact.at < until]
            found = self.standing.of(facts, until)
            if found is None or found.owner != owner:
                continue
            if found.resolved is None or found.resolved >= since:
                yield found

    def _of(
        self,
        kind: type[FactT],
        models: Collection[ModelId],
        since: datetime,
        until: datetime,
    ) -> tuple[FactT, ...]:
        found = self.ledger.facts(kind, since=since, before=until)
        return tuple(each for each in found if each.model in models)

    def _latest(self, model: ModelId, until: datetime) -> Decided | None:
        return next(iter(self.ledger.facts(Decided, model=model, before=until, last=1)), None)

    def _under_way(self, models: tuple[ModelId, ...], until: datetime) -> tuple[ModelId, ...]:
        since = until - LONGEST
        over = {each.candidate.order.key for each in self._of(Trained, models, since, until)}
        over |= {each.order_key for each in self._of(Failed, models, since, until)}
        over |= {each.order_key for each in self._of(Gated, models, since, until)}
        begun = self._of(Ordered, models, since, until)
        return tuple(each.model for each in begun if each.order.key not in over)

    def _waiting(self, latest: dict[ModelId, Decided | None]) -> tuple[ModelId, ...]:
        """Return the models whose newest decision calls for a retraining that has not begun."""
        wanted = {
            each.decision.key: model
            for model, each in latest.items()
            if each is not None and each.decision.retrain
        }
        begun = self.ledger.appended(Ordered, wanted)
        return tuple(model for key, model in wanted.items() if key not in begun)

    def _quarantined(self, models: tuple[ModelId, ...], until: datetime) -> tuple[Quarantined, ...]:
        facts: dict[ModelId, list[Quarantined | Released]] = {model: [] for model in models}
        both: list[Quarantined | Released] = [
            *self.ledger.facts(Quarantined, before=until),
            *self.ledger.facts(Released, before=until),
        ]
        for fact in sorted(both, key=lambda each: each.at):
            facts.get(fact.model, []).append(fact)
        return tuple(one.fact for each in facts.values() for one in standing(each, now=until))

    def _denied(self, models: tuple[ModelId, ...], until: datetime) -> tuple[Acted, ...]:
        acts = self._of(Acted, models, until - timedelta(weeks=WEEKS), until)
        return tuple(each for each in acts if each.act is Act.NO_PROBLEM)

    def _problems(self, since: datetime, until: datetime) -> tuple[str, ...]:
        passes = self.ledger.facts(Passed, model=PLATFORM, since=since, before=until)
        return tuple(problem for each in passes for problem in each.problems)


def _key(owner: str, day: date) -> str:
    return f"{PREFIX}{owner}/{day.isoformat()}"
