"""What people are told of, as the ledger has it: incidents that live, and those that are over."""

from collections.abc import Iterable
from dataclasses import dataclass

from driftloop.errors import BadRequest
from driftloop.incident import explainer
from driftloop.loop.standing import Standing
from driftloop.ports import Clock, Ledger
from driftloop.records import PLATFORM, Act, Acted, Grouped, Incident, ModelId, Status

LOOKED_BACK = 5000
"""So many alerts are looked back on for incidents that are over."""
CANDIDATES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Incidents:
    """Incidents as the ledger has them now."""

    standing: Standing
    ledger: Ledger
    clock: Clock

    def of(self, id_: str) -> Incident | None:
        """Return the incident `id_`, None where there is none."""
        return self.standing.one(id_, self.clock.now())

    def live(self) -> tuple[Incident, ...]:
        """Return those that are not over, the oldest first."""
        now, standing = self.clock.now(), self.standing
        rollouts = {each.model: each for each in self.ledger.rollouts()}
        facts = (self.ledger.incident(id_) for id_ in standing.live_ids())
        alone = [found for each in facts if (found := standing.folded(each, now, rollouts))]
        # All of them are at hand: each by itself would read those around it again.
        near: dict[ModelId, list[Incident]] = {}
        for each in alone:
            for model in each.models:
                near.setdefault(model, []).append(each)
        platforms = near.get(PLATFORM, [])
        return _in_order(
            standing.within(each, explainer(each, [*near[each.models[0]], *platforms]), now)
            for each in alone
            if each.status is not Status.RESOLVED
        )

    def all(self, *, last: int = 200) -> tuple[Incident, ...]:
        """Return the newest `last` incidents, over or not, the oldest first."""
        grouped = self.ledger.facts(Grouped, last=LOOKED_BACK)
        ids = list(dict.fromkeys(fact.incident for fact in reversed(grouped)))[:last]
        live = {each.id: each for each in self.live()}
        found = {id_: live.get(id_) or self.of(id_) for id_ in ids}
        return _in_order({**live, **{each.id: each for each in found.values() if each}}.values())

    def denied(self) -> tuple[Acted, ...]:
        """Return each "not a problem" that people said, the oldest first."""
        acts = self.ledger.facts(Acted)
        return tuple(act for act in acts if act.act is Act.NO_PROBLEM)

    def find(self, word: str) -> Incident:
        """Return the incident that `word` means: its id, one of its models, or how either begins.

        Those that live come before those that are over, of which the id alone counts, and those
        that ask something before those that a larger one explains.

        Raises:
            BadRequest: there is none, or several; says which.
        """
        live = self.live()
        for fits in (_is, _begins):
            fitting = [each for each in live if fits(each, word)]
            asking = [each for each in fitting if each.status is not Status.EXPLAINED]
            found = asking or fitting
            if len(found) == 1:
                return found[0]
            if found:
                more = f" and {len(found) - CANDIDATES} more" if len(found) > CANDIDATES else ""
                raise BadRequest(
                    f"may be one of {len(found)} incidents: "
                    f"{', '.join(each.id for each in found[:CANDIDATES])}{more}",
                    where=word,
                    hint="give the whole id",
                )
        if (past := self.of(word)) is not None:
            return past
        raise BadRequest(
            "no incident that is not over has this id, or this model",
            where=word,
            hint="`driftloop incidents` lists them; with --all those that are over, too",
        )


def _is(incident: Incident, word: str) -> bool:
    return word == incident.id or word in incident.models


def _begins(incident: Incident, word: str) -> bool:
    names = (incident.id, *incident.models)
    return any(name.startswith(word) for name in names)


def _in_order(incidents: Iterable[Incident]) -> tuple[Incident, ...]:
    return tuple(sorted(incidents, key=lambda each: (each.opened, each.id)))
