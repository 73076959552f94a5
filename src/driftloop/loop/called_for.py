"""What a decision has told, and to whom. Pure but for what the ledger knows to be told."""

from driftloop.judge import harmed
from driftloop.loop.notices import OF_DATA, Places, blocked, of_data, opened, recovered, worsened
from driftloop.ports import Ledger
from driftloop.records import (
    Cause,
    Decision,
    Kind,
    Level,
    Notice,
    Origin,
    Paged,
    State,
)
from driftloop.spec import Fleet, Owner


def notices_of(
    fleet: Fleet,
    ledger: Ledger,
    places: Places,
    decision: Decision,
    before: Decision | None,
    cause: Cause | None = None,
) -> tuple[Notice, ...]:
    """Return what is to be told of a decision that followed `before`.

    Data at fault are told who owns them. Where an incident is open already, in the thread of who
    owns the model, theirs is one beside it, which ends with it.
    """
    family, owner = fleet.family(decision.model), fleet.owner(decision.model)
    theirs = owner
    if decision.state is State.DATA_FAULT:
        theirs = fleet.data_owner(decision.model, at_fault(decision, cause))
    notices = []
    if decision.opens:
        notices.append(opened(decision, family, theirs, places, cause))
    if _turned_bad(decision, before):
        notices.append(blocked(decision, family, owner, places, cause))
        if theirs != owner:
            notices.append(of_data(decision, family, theirs, places, cause))
    if _turned_worse(decision, before):
        notices.append(worsened(decision, family, owner, places, cause))
    if decision.resolves is not None:
        reads = _told(ledger, f"{decision.resolves}/opened") or owner
        notices.append(recovered(decision, family, reads, places))
        if (beside := _told(ledger, f"{decision.resolves}{OF_DATA}/opened")) is not None:
            notices.append(recovered(decision, family, beside, places, of=OF_DATA))
    return tuple(notices)


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


def _turned_worse(decision: Decision, before: Decision | None) -> bool:
    """Say whether an incident that was about columns is now about harm, for certain."""
    return (
        decision.state is State.DECAYING
        and decision.incident is not None
        and not decision.opens
        and before is not None
        and before.state is State.DRIFTING
        and harmed(decision)
        and not harmed(before)
    )


def _told(ledger: Ledger, key: str) -> Owner | None:
    """Return who was told a notice, None if nobody was."""
    fact = ledger.fact(Paged, key=key)
    if fact is None:
        return None
    return Owner(channel=fact.notice.channel, mention=fact.notice.mention)


def _turned_bad(decision: Decision, before: Decision | None) -> bool:
    """Say whether an incident that was about the model is now about its data."""
    return (
        decision.state is State.DATA_FAULT
        and decision.incident is not None
        and not decision.opens
        and before is not None
        and before.state is not State.DATA_FAULT
    )
