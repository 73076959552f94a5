"""Which owner an incident goes to, and how insistently."""

from dataclasses import dataclass
from datetime import timedelta

from driftloop.records import ModelId, Origin, Severity
from driftloop.spec import Fleet


@dataclass(frozen=True, slots=True, kw_only=True)
class Routed:
    """An owner, by name, and how insistent paging is; see `spec.Paging` for the fields."""

    owner: str
    wait: timedelta
    repeat: timedelta
    ack_within: timedelta | None
    ack_expires: timedelta
    escalate: tuple[str, ...]


def routed(
    fleet: Fleet, model: ModelId, *, origin: Origin, severity: Severity, feature: str | None = None
) -> Routed:
    """Return who owns an incident of `model`, by the tree of routes.

    Args:
        fleet: has the routes and the owners.
        model: one of the fleet, or PLATFORM.
        origin: the cause; DATA for data at fault.
        severity: how bad it is.
        feature: what is at fault, where data are.

    Raises:
        UnknownModel: no monitor declares it.
    """
    raise NotImplementedError
