"""Who is told, one after the other, if nobody acknowledges."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from driftloop.records import Severity
from driftloop.route.calendar import mention, quiet_until
from driftloop.route.tree import Routed
from driftloop.spec import Owner


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """Whose turn it is: an owner by name, told `at`, and who is called to it then.

    `waits` says that it is told later for the owner's quiet hours.
    """

    owner: str
    at: datetime
    mention: str
    waits: bool = False


def turns(
    route: Routed, owners: Mapping[str, Owner], severity: Severity, at: datetime
) -> tuple[Turn, ...]:
    """Return who is told of what is found `at`, and who comes next while nobody acknowledges.

    What is only for the record goes to nobody else.
    """
    found = [_turn(route.owner, owners, severity, at + route.wait)]
    if route.ack_within is not None and severity is not Severity.INFO:
        for name in route.escalate:
            found.append(_turn(name, owners, severity, found[-1].at + route.ack_within))
    return tuple(found)


def _turn(name: str, owners: Mapping[str, Owner], severity: Severity, at: datetime) -> Turn:
    owner = owners[name]
    later = quiet_until(owner, severity, at)
    told = at if later is None else later
    return Turn(owner=name, at=told, mention=mention(owner, told), waits=later is not None)
