"""What a decision has told, and to whom. Pure but for what the ledger knows to be told."""

from driftloop.judge import harmed
from driftloop.loop.addressed import addressed
from driftloop.loop.notices import OF_DATA, Places, blocked, of_data, opened, recovered, worsened
from driftloop.ports import Ledger
from driftloop.records import Cause, Decision, Grouped, Noted, Notice, Paged, State
from driftloop.route import at_fault, group, origin_of, routed, severity_of
from driftloop.spec import Fleet


def notices_of(
    fleet: Fleet,
    ledger: Ledger,
    places: Places,
    decision: Decision,
    before: Decision | None,
    cause: Cause | None = None,
) -> tuple[Notice, ...]:
    """Return what is to be told of a decision that followed `before`.

    The routes say whom. Data at fault are told who owns them: where an incident is open already,
    in the thread of who was told of the model, theirs is one beside it, which ends with it.
    """
    bad, worse = _turned_bad(decision, before), _turned_worse(decision, before)
    if not (decision.opens or bad or worse or decision.resolves is not None):
        return ()
    family = fleet.family(decision.model)
    severity = severity_of(decision, family)
    origin, feature = origin_of(decision, cause), at_fault(decision, cause)
    route = routed(fleet, decision.model, origin=origin, severity=severity, feature=feature)

    def to(notice: Notice, owner: str, *, together: str = "") -> Notice:
        return addressed(
            fleet, notice, severity=severity, origin=origin, group=together, owner=owner
        )

    theirs, together = route.owner, group(decision, cause, fleet)
    owner, notices = fleet.owners[theirs], []
    if decision.opens:
        page = opened(decision, family, owner, places, cause)
        notices.append(to(page, theirs, together=together))
    # What follows stays with who was told of what it follows.
    reader = _reader(fleet, ledger, decision.incident) or theirs if bad or worse else theirs
    if bad:
        notices.append(to(blocked(decision, family, owner, places, cause), reader))
        if theirs != reader:
            page = of_data(decision, family, owner, places, cause)
            notices.append(to(page, theirs, together=together))
    if worse:
        notices.append(to(worsened(decision, family, owner, places, cause), reader))
    if decision.resolves is not None:
        reader = _reader(fleet, ledger, decision.resolves) or theirs
        notices.append(to(recovered(decision, family, owner, places), reader))
        beside = _reader(fleet, ledger, f"{decision.resolves}{OF_DATA}")
        if beside is not None:
            said = recovered(decision, family, owner, places, of=OF_DATA)
            notices.append(to(said, beside))
    return tuple(notices)


def _reader(fleet: Fleet, ledger: Ledger, incident: str | None) -> str | None:
    """Return who was told that an incident opened, or is to be; None if nobody is."""
    if incident is None:
        return None
    grouped = ledger.fact(Grouped, key=incident)
    if grouped is not None and grouped.owner in fleet.owners:
        return grouped.owner
    key = f"{incident}/opened"
    said = ledger.fact(Noted, key=key) or ledger.fact(Paged, key=key)
    if said is None:
        return None
    if said.notice.owner in fleet.owners:
        return said.notice.owner
    # It was told before notices named their owner, or before the owner was called otherwise.
    at = (name for name, each in fleet.owners.items() if each.channel == said.notice.channel)
    return next(at, None)


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


def _turned_bad(decision: Decision, before: Decision | None) -> bool:
    """Say whether an incident that was about the model is now about its data."""
    return (
        decision.state is State.DATA_FAULT
        and decision.incident is not None
        and not decision.opens
        and before is not None
        and before.state is not State.DATA_FAULT
    )
