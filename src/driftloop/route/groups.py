"""Which incidents of models have one cause, and are told as one."""

from collections.abc import Iterator

from driftloop.judge import upstream
from driftloop.judge.findings import DATA, DRIFT, group_of
from driftloop.judge.partitions import kinds
from driftloop.records import Cause, Decision, Kind, Level, Origin, Quarantined, State
from driftloop.spec import Family, Fleet

KINDS = 3
"""So many kinds of reasons are named in a group of quarantines."""
PREDICTION = "prediction"


def origin_of(decision: Decision, cause: Cause | None) -> Origin:
    """Return where what was found comes from: the data where they are at fault, else its cause."""
    if decision.state is State.DATA_FAULT:
        return Origin.DATA
    return Origin.UNKNOWN if cause is None else cause.origin


def at_fault(decision: Decision, cause: Cause | None) -> str | None:
    """Return the feature that is at fault, None where none is by itself."""
    if cause is not None and cause.origin is Origin.DATA and cause.carriers:
        return cause.carriers[0].name.split(".")[0]
    for verdict in decision.verdicts:
        reading = verdict.reading
        tells = reading.kind is Kind.QUALITY or reading.metric == "nulls"
        if tells and verdict.level is Level.ALARM and reading.column:
            return reading.column.split(".")[0]
    return None


def group(decision: Decision, cause: Cause | None, fleet: Fleet) -> str:
    """Return what incidents share that have one cause, "" for one that is told by itself.

    That is "data/x03" or "inputs/source-weather": the column, or the source that it is looked up
    in; "data/eta/freshness" where all rows of a family are at fault; and "relation/eta" where
    several of its models have the same change of the relation. Where no cause is known, it is
    the column that has moved most.
    """
    family = fleet.family(decision.model)
    if decision.state is State.DATA_FAULT:
        name = at_fault(decision, cause) or next(_found(decision, DATA), _of_all(decision))
        return _upstream("data", name, decision, fleet)
    if decision.state not in (State.DECAYING, State.DRIFTING):
        return ""
    if cause is None or cause.origin is Origin.UNKNOWN:
        return _upstream("inputs", _most_moved(decision), decision, fleet)
    if cause.origin is Origin.RELATION:
        return f"relation/{family.name}" if cause.shared else ""
    named = cause.carriers[0].name if cause.carriers else None
    return _upstream(str(cause.origin), named, decision, fleet)


def quarantine_group(fact: Quarantined, fleet: Fleet, *, again: int = 0) -> str:
    """Return what quarantines of one family, day and kind of reason share.

    That is as in "quarantine/eta/2026-03-01/nulls-of-load"; `again` counts how often the same rows
    were let go before. What somebody put there by hand is told by itself.
    """
    if fact.who is not None:
        return ""
    family = fleet.family(fact.model)
    said = sorted({_kind(kind, fact, fleet) for kind in kinds(fact.reasons)})
    more = f"+{len(said) - KINDS}" if len(said) > KINDS else ""
    day = f"{fact.start:%Y-%m-%d}"
    once_more = f"/again-{again}" if again else ""
    return f"quarantine/{family.name}/{day}/{'+'.join(said[:KINDS])}{more}{once_more}"


def quarantined_feature(fact: Quarantined, family: Family) -> str | None:
    """Return the first feature that is named by the reasons of a quarantine, None if none is."""
    names = (reason.partition(":")[0].rpartition(" of ")[2] for reason in fact.reasons)
    columns = (name.split(".")[0] for name in names)
    return next((name for name in columns if name in family.features), None)


def _kind(kind: str, fact: Quarantined, fleet: Fleet) -> str:
    what, _, column = kind.rpartition(" of ")
    said = f"{what} of {upstream(fleet, fact.model, column)}" if what else kind
    return said.replace(" ", "-")


def _upstream(origin: str, name: str | None, decision: Decision, fleet: Fleet) -> str:
    """Return the group of what comes from the same place as a column, or is of a whole family."""
    if name is None:
        return ""
    family = fleet.family(decision.model)
    column = name.split("=")[0].split(".")[0]
    if column not in family.features:
        return f"{origin}/{family.name}/{column}"
    return f"{origin}/{upstream(fleet, decision.model, column).replace(' ', '-')}"


def _of_all(decision: Decision) -> str | None:
    """Return what is measured of all rows, and alarms."""
    return next(
        (
            verdict.reading.metric
            for verdict in decision.verdicts
            if verdict.level is Level.ALARM
            and verdict.reading.kind is Kind.QUALITY
            and verdict.reading.column is None
        ),
        None,
    )


def _most_moved(decision: Decision) -> str | None:
    """Return the column that has moved most for certain; None where the answers alone have."""
    moved = [
        verdict.reading
        for verdict in decision.verdicts
        if verdict.reading.kind is Kind.DRIFT
        and verdict.level is Level.ALARM
        and verdict.reading.column not in (None, PREDICTION)
    ]
    if moved:
        return max(moved, key=lambda reading: reading.value or 0.0).column
    return next((each for each in _found(decision, DRIFT) if each != PREDICTION), None)


def _found(decision: Decision, kind: str) -> Iterator[str]:
    """Yield the columns of what fresh rows have added up to, of one kind of evidence."""
    for name in decision.found:
        column = name.partition(":")[2]
        if column and group_of(name) == kind:
            yield column
