"""Bad data never trains: partitions are checked, kept out, told of once, and let in again."""

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from driftloop.errors import BadRequest, DriftloopError
from driftloop.judge.partitions import (
    CONTEXT,
    Standing,
    floor,
    kinds,
    standing,
    suspects,
    trusted,
)
from driftloop.loop import notices
from driftloop.loop.addressed import addressed
from driftloop.ports import Clock, Ledger, PredictionLog
from driftloop.records import (
    Decided,
    ModelId,
    Noted,
    Notice,
    Origin,
    Paged,
    Partition,
    Passed,
    Quarantined,
    Released,
    Span,
    Stage,
    Window,
)
from driftloop.route import quarantine_group, quarantined_feature, severity_of_stage
from driftloop.spec import Family, Fleet, Owner

_log = logging.getLogger(__name__)
Facts = Sequence[Quarantined | Released]


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantine:
    """Keeps the partitions of a fleet's rows that train nothing; all it knows is in the ledger."""

    fleet: Fleet
    log: PredictionLog
    ledger: Ledger
    clock: Clock

    def sweep(self) -> tuple[Notice, ...]:
        """Return what is to be told after checking what has closed since the last pass.

        Once in a block of time, and in two or three queries for a family: a partition that is
        still filling is judged when it closes, and before, should it come to train. What an
        earlier pass put in quarantine and did not come to tell is returned again.
        """
        now = self.clock.now()
        facts = self._facts()
        last = self.ledger.facts(Passed, last=1)
        said: list[Notice] = []
        heads = {head.model for head in self.ledger.heads()}
        for family in self.fleet.families:
            block = family.window.block
            if last and floor(last[0].at, block) == floor(now, block):
                continue
            try:
                said += self._swept(family, [m for m in family.models if m in heads], facts, now)
            except DriftloopError as error:
                # The looks tell it too; nothing trains without being checked.
                _log.error("the partitions of %s could not be checked: %s", family.name, error)
        return (*self._untold(self._facts(), now), *said)

    def left_out(self, family: Family, window: Window) -> tuple[Span, ...]:
        """Return what of `window` is in quarantine, all its partitions checked as they are now.

        Raises:
            LogError: they cannot be read.
        """
        now, block = self.clock.now(), family.window.block
        whole = Window(
            model=window.model,
            start=floor(window.start, block),
            end=floor(window.end, block) + block,
            known_at=window.known_at,
        )
        counted = self.log.partitions(family, [whole]).get(window.model, ())
        facts = self._facts(window.model)[window.model]
        self._judged(family, counted, facts, now)
        found = standing(self._facts(window.model)[window.model], now=now)
        return tuple(
            Span(
                start=max(each.start, window.start),
                end=min(each.end, window.end),
                rows=sum(p.rows for p in counted if p.start < each.end and each.start < p.end),
            )
            for each in found
            if each.start < window.end and window.start < each.end
        )

    def listed(self) -> tuple[Standing, ...]:
        """Return all that is in quarantine now, by model and time."""
        now, facts = self.clock.now(), self._facts()
        return tuple(each for model in sorted(facts) for each in standing(facts[model], now=now))

    def release(
        self, model: ModelId, start: datetime, end: datetime, *, who: str, why: str
    ) -> tuple[tuple[Standing, ...], tuple[Notice, ...]]:
        """Return what in [start, end) was in quarantine and trains again, and what is to be told.

        Raises:
            BadRequest: there is no such model, or nothing of it is in quarantine there.
        """
        self.fleet.family(model)
        now = self.clock.now()
        held = standing(self._facts(model)[model], now=now)
        found = tuple(each for each in held if each.start < end and start < each.end)
        if not found:
            others = ", ".join(f"{each.start:%Y-%m-%d}" for each in held) or "nothing"
            raise BadRequest(
                f"nothing of it is in quarantine from {start:%Y-%m-%d %H:%M} to"
                f" {end:%Y-%m-%d %H:%M} UTC",
                where=model,
                hint=f"in quarantine: {others}; see `driftloop quarantine`",
            )
        fact = Released(model=model, at=now, start=start, end=end, who=who, why=why)
        self.ledger.append(fact, key=f"release/{model}/{start:%Y%m%dT%H%M%S}/{now.isoformat()}")
        return found, self._untold(self._facts(model), now)

    def add(
        self, model: ModelId, start: datetime, end: datetime, *, who: str, why: str
    ) -> tuple[Quarantined, tuple[Notice, ...]]:
        """Return the quarantine of [start, end) that a person wants, and what is to be told.

        Raises:
            BadRequest: there is no such model, it has no rows there, or all is in quarantine.
            LogError: the rows cannot be counted.
        """
        family = self.fleet.family(model)
        now, block = self.clock.now(), family.window.block
        start, end = floor(start, block), floor(end - timedelta(microseconds=1), block) + block
        window = Window(model=model, start=start, end=end, known_at=self._known_at(family, now))
        rows = sum(each.rows for each in self.log.partitions(family, [window]).get(model, ()))
        span = f"{start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC"
        if not rows:
            raise BadRequest(f"the log has no rows of it from {span}", where=model)
        facts = self._facts(model)[model]
        if any(h.start <= start and end <= h.end for h in standing(facts, now=now)):
            raise BadRequest(f"{span} is in quarantine already", where=model)
        fact = Quarantined(
            model=model,
            at=now,
            start=start,
            end=end,
            reasons=(f"by hand: {why}",),
            until=now + family.quarantine.keep,
            rows=rows,
            who=who,
        )
        self.ledger.append(fact, key=_key(fact, facts))
        return fact, self._untold(self._facts(model), now)

    def _known_at(self, family: Family, now: datetime) -> datetime:
        return self.log.horizon(family) or now

    def _swept(
        self,
        family: Family,
        models: Sequence[ModelId],
        facts: Mapping[ModelId, Facts],
        now: datetime,
    ) -> list[Notice]:
        """Check what has closed of some models of a family; return what is to be told of doubts."""
        block = family.window.block
        # As many as are judged by each other: fewer would not tell what comes again and again.
        reach = min(family.retrain.span, max(family.window.span, CONTEXT * block))
        end, known_at = floor(now, block), self._known_at(family, now)
        counted = self.log.partitions(
            family,
            [
                Window(model=model, start=floor(now - reach, block), end=end, known_at=known_at)
                for model in models
            ],
        )
        said: list[Notice] = []
        for model, partitions in counted.items():
            doubts = self._judged(family, partitions, facts.get(model, ()), now)
            said += self._doubted(model, doubts, now)
        return said

    def _judged(
        self, family: Family, partitions: Sequence[Partition], facts: Facts, now: datetime
    ) -> list[tuple[Partition, tuple[str, ...]]]:
        """Put what is found bad in quarantine; return what cannot be told."""
        held = standing(facts, now=now)
        doubts = []
        before = {each.end: kinds(each.fact.reasons) for each in held}
        for suspect in suspects(partitions, family, now=now):
            partition = suspect.partition
            inside = any(h.start < partition.end and partition.start < h.end for h in held)
            if inside or trusted(facts, partition):
                continue
            if not suspect.reasons:
                doubts.append((partition, suspect.doubts))
                continue
            fact = Quarantined(
                model=partition.model,
                at=now,
                start=partition.start,
                end=partition.end,
                reasons=suspect.reasons,
                until=now + family.quarantine.keep,
                rows=partition.rows,
                continues=before.get(partition.start) == kinds(suspect.reasons),
            )
            before[partition.end] = kinds(suspect.reasons)
            if self.ledger.append(fact, key=_key(fact, facts)):
                _log.info(
                    "%s: %s to %s in quarantine: %s",
                    fact.model,
                    fact.start,
                    fact.end,
                    "; ".join(fact.reasons),
                )
        return doubts

    def _untold(self, facts: Mapping[ModelId, Facts], now: datetime) -> tuple[Notice, ...]:
        """Return what stands in quarantine, was released or is over, and was not told yet."""
        called: list[Notice] = []
        ended: list[tuple[str, Notice]] = []
        over: list[tuple[str, Notice]] = []
        for model, mine in facts.items():
            stands = standing(mine, now=now)
            for key, chain in _chains(mine):
                told = self._to(notices.quarantined(chain, self._owner(model), key=key), chain[0])
                if any(each.fact in chain for each in stands):
                    called.append(told)
                releases = [
                    each
                    for each in mine
                    if isinstance(each, Released) and any(_ends(each, f) for f in chain)
                ]
                for release in releases:
                    end = notices.released(release, chain[0], self._owner(model), key=key)
                    ended.append((told.key, self._to(end, chain[0])))
                if not releases and chain[-1].until <= now:
                    end = notices.let_go(chain, self._owner(model), key=key, at=now)
                    over.append((told.key, self._to(end, chain[0])))
        keys = {each.key for each in (*called, *(end for _, end in (*ended, *over)))}
        keys |= {begun for begun, _ in (*ended, *over)}
        noted = self.ledger.appended(Noted, keys)
        known = self.ledger.appended(Paged, keys) | noted
        return (
            *(notice for notice in called if notice.key not in known),
            # Of what nobody was told of nobody need know the end.
            *(end for begun, end in ended if begun in known and end.key not in known),
            *(end for begun, end in over if begun in noted and end.key not in noted),
        )

    def _owner(self, model: ModelId) -> Owner:
        return self.fleet.data_owner(model)

    def _to(self, notice: Notice, fact: Quarantined) -> Notice:
        """Return `notice` to who owns the data, with others of the same day and kind."""
        family = self.fleet.family(fact.model)
        return addressed(
            self.fleet,
            notice,
            severity=severity_of_stage(notice.stage, family),
            origin=Origin.DATA,
            feature=quarantined_feature(fact, family),
            group=quarantine_group(fact, self.fleet, again=_again(notice.incident)),
        )

    def _doubted(
        self,
        model: ModelId,
        doubts: Sequence[tuple[Partition, tuple[str, ...]]],
        now: datetime,
    ) -> list[Notice]:
        """Return a line for the thread of the model's open incident, once for a partition."""
        last = self.ledger.facts(Decided, model=model, last=1) if doubts else ()
        if not last or last[0].decision.incident is None:
            return []
        owner, family = self.fleet.owner(model), self.fleet.family(model)
        said = [
            addressed(
                self.fleet,
                notices.doubted(partition, why, last[0].decision, owner, now),
                severity=severity_of_stage(Stage.DOUBTED, family),
            )
            for partition, why in doubts
        ]
        keys = [notice.key for notice in said]
        told = self.ledger.appended(Paged, keys) | self.ledger.appended(Noted, keys)
        return [notice for notice in said if notice.key not in told]

    def _facts(self, model: ModelId | None = None) -> dict[ModelId, list[Quarantined | Released]]:
        """Return the facts of each model of the fleet that has some, in the order they came."""
        found: dict[ModelId, list[Quarantined | Released]] = defaultdict(list)
        known = set(self.fleet.models)
        both: list[Quarantined | Released] = [
            *self.ledger.facts(Quarantined, model=model),
            *self.ledger.facts(Released, model=model),
        ]
        for fact in sorted(both, key=lambda fact: fact.at):
            if fact.model in known:
                found[fact.model].append(fact)
        return found


def _chains(facts: Facts) -> list[tuple[str, list[Quarantined]]]:
    """Return what is told as one, by its key: a quarantine and those that continue it."""
    kept = [fact for fact in facts if isinstance(fact, Quarantined)]
    chains: list[tuple[str, list[Quarantined]]] = []
    for place, fact in enumerate(kept):
        into = next((chain for _, chain in reversed(chains) if chain[-1].end == fact.start), None)
        if fact.continues and into is not None:
            into.append(fact)
        else:
            chains.append((_key(fact, kept[:place]), [fact]))
    return chains


def _again(key: str) -> int:
    """Return how often the rows of a quarantine were in it before; see `_key`."""
    return int(key.rpartition("/")[2])


def _ends(release: Released, fact: Quarantined) -> bool:
    return fact.at <= release.at and release.start < fact.end and fact.start < release.end


def _key(fact: Quarantined, before: Facts) -> str:
    """Return the key of a quarantine: which one of its beginning it is, of all there were."""
    same = [f for f in before if isinstance(f, Quarantined) and f.start == fact.start]
    return f"{notices.OF_QUARANTINE}{fact.model}/{fact.start:%Y%m%dT%H%M%S}/{len(same)}"
