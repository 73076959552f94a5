"""What must hold whatever was killed: each returns the faults it found, none when all is well."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isclose

from driftloop.records import Decided, Decision, Head, ModelId, Moved, Ordered, Paged, Stage

ENDS = {Stage.PROMOTED, Stage.REFUSED, Stage.FAILED}


@dataclass(frozen=True, slots=True)
class Row:
    """A row as it was answered, or as the lake has it."""

    id: str
    version: int
    epoch: int
    prediction: float


def logged_once(
    answered: Mapping[str, Row], ambiguous: Collection[str], logged: Sequence[Row]
) -> list[str]:
    """Every answered row is in the lake once as it was answered; what was ambiguous once at most.

    Nothing else is there.
    """
    times = Counter(row.id for row in logged)
    faults = [
        f"{id_} was answered and is in the lake {times[id_]} times"
        for id_ in answered
        if times[id_] != 1
    ]
    faults += [
        f"{id_} was not answered and is in the lake {times[id_]} times"
        for id_ in ambiguous
        if times[id_] > 1
    ]
    for row in logged:
        said = answered.get(row.id)
        if said is not None and said != row:
            faults.append(f"{row.id} was answered as {said} and is in the lake as {row}")
        if said is None and row.id not in ambiguous:
            faults.append(f"{row.id} is in the lake and nobody asked for it")
    return faults


def of_one_version(
    replies: Iterable[Sequence[Row]], predict: Callable[[int, Sequence[str]], Sequence[float]]
) -> list[str]:
    """Every row of a reply is what the version that the reply names answers.

    `predict` recomputes rows, by their ids, with a version's own file.
    """
    faults = []
    for rows in replies:
        versions = {(row.version, row.epoch) for row in rows}
        if len(versions) != 1:
            faults.append(f"a reply names {sorted(versions)}")
            continue
        ((version, _),) = versions
        for row, right in zip(rows, predict(version, [row.id for row in rows]), strict=True):
            if not isclose(row.prediction, right, rel_tol=1e-5):
                faults.append(f"{row.id}: {row.prediction}, but version {version} says {right}")
    return faults


def told_once(paged: Sequence[Paged], keys: Sequence[str], left: Sequence[str]) -> list[str]:
    """What the ledger says was told stands in the channel, each key once; nothing is left untold.

    `keys` are those of the messages that stand there, `left` the notices that were not told.
    """
    times = Counter(keys)
    wanted = {_key(fact) for fact in paged}
    faults = [
        f"{key} is told in the ledger and stands there {times[key]} times"
        for key in sorted(wanted)
        if times[key] != 1
    ]
    faults += [
        f"{key} stands there {count} times and the ledger does not know"
        for key, count in sorted(times.items())
        if key not in wanted
    ]
    return faults + [f"never told: {each}" for each in left]


def not_begun(
    decided: Sequence[Decided], ordered: Sequence[Ordered], moved: Sequence[Moved]
) -> list[Decision]:
    """Return the decisions to renew a champion that nobody began, and that still make sense.

    One makes none any more once another version answers, or its incident is over.
    """
    begun = {fact.order.key for fact in ordered}
    incidents = {fact.model: fact.decision.incident for fact in decided}
    versions = {move.model: move.head.version for move in moved}
    return [
        each
        for each in (fact.decision for fact in decided)
        if each.retrain
        and each.key not in begun
        and versions.get(each.model) == each.version
        and incidents[each.model] == each.incident
    ]


def every_turn_told(
    decided: Sequence[Decided],
    ordered: Sequence[Ordered],
    moved: Sequence[Moved],
    paged: Sequence[Paged],
) -> list[str]:
    """Every incident's beginning and end was told, and how every order of one ended."""
    told = {(fact.notice.incident, fact.notice.stage) for fact in paged}
    faults = []
    for decision in (fact.decision for fact in decided):
        if decision.opens and (decision.incident, Stage.OPENED) not in told:
            faults.append(f"{decision.incident} was opened and nobody was told")
        if decision.resolves and (decision.resolves, Stage.RECOVERED) not in told:
            faults.append(f"{decision.resolves} was over and nobody was told")
    ends = Counter(
        fact.notice.key.split(f"/{fact.notice.stage}/", 1)[-1]
        for fact in paged
        if fact.notice.stage in ENDS
    )
    faults += [
        f"{each.key} was to be renewed and nobody began"
        for each in not_begun(decided, ordered, moved)
        if not ends[each.key]
    ]
    of_incidents = [fact.order for fact in ordered if fact.order.incident]
    return faults + [
        f"{order.key} was renewed and {ends[order.key]} ends were told"
        for order in of_incidents
        if ends[order.key] != 1
    ]


def _key(fact: Paged) -> str:
    """Return the key that a notice's message carries: an incident's first message names it."""
    notice = fact.notice
    return notice.incident if notice.stage is Stage.OPENED else notice.key


def moved_in_order(moved: Sequence[Moved]) -> list[str]:
    """Epochs have no gaps, each move leaves the head before it, and goes somewhere else."""
    faults = []
    heads: dict[ModelId, Head] = {}
    for move in moved:
        before = heads.get(move.model)
        epoch, version = (before.epoch, before.version) if before else (0, None)
        if move.head.epoch != epoch + 1:
            faults.append(f"{move.model}: epoch {move.head.epoch} follows {epoch}")
        if move.previous != version:
            faults.append(f"{move.model}: leaves version {move.previous}, which was {version}")
        if move.head.version == version:
            faults.append(f"{move.model}: moved from version {version} to itself")
        heads[move.model] = move.head
    return faults
