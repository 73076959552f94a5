"""Which owner an incident goes to, and how insistently."""

from dataclasses import dataclass
from datetime import timedelta

from driftloop.records import PLATFORM, ModelId, Origin, Severity
from driftloop.spec import DEFAULTS, Fleet, Route, inherited


@dataclass(frozen=True, slots=True, kw_only=True)
class Routed:
    """An owner, by name, and how insistent paging is; see `spec.Paging` for the fields.

    `escalate` has neither the owner nor anybody twice. `path` are the routes that were taken, by
    their places: (1, 0) is the first of those in the second.
    """

    owner: str
    wait: timedelta
    repeat: timedelta
    ack_within: timedelta | None
    ack_expires: timedelta
    escalate: tuple[str, ...]
    path: tuple[int, ...] = ()


def routed(
    fleet: Fleet, model: ModelId, *, origin: Origin, severity: Severity, feature: str | None = None
) -> Routed:
    """Return who owns an incident of `model`, by the tree of routes.

    Of the routes in a table the first is taken whose conditions all hold, and then likewise of
    those in it; what the last one taken does not say it has from those around it, and at last from
    the defaults.

    Args:
        fleet: has the routes and the owners.
        model: one of the fleet, or PLATFORM.
        origin: the cause; DATA for data at fault.
        severity: how bad it is.
        feature: what is at fault, where data are.

    Raises:
        UnknownModel: no monitor declares it.
    """
    taken: list[Route] = [fleet.routes]
    paging = inherited(DEFAULTS, fleet.routes)
    path: list[int] = []
    market = "" if model == PLATFORM else fleet.market(model)
    family = str(PLATFORM) if model == PLATFORM else fleet.family(model).name
    while (found := taken[-1].first(family, market, origin, severity)) is not None:
        path.append(found)
        taken.append(taken[-1].routes[found])
        paging = inherited(paging, taken[-1])
    owner = next((each.owner for each in reversed(taken) if each.owner is not None), None)
    owner = owner if owner is not None else _owner(fleet, model, origin, feature)
    return Routed(
        owner=owner,
        wait=paging.wait or timedelta(),
        repeat=paging.repeat or timedelta(),
        ack_within=paging.ack_within,
        ack_expires=paging.ack_expires or timedelta(),
        escalate=tuple(dict.fromkeys(each for each in paging.escalate or () if each != owner)),
        path=tuple(path),
    )


def platform_owner(fleet: Fleet) -> str:
    """Return who is told when driftloop itself is in trouble: by the routes, else platform.toml."""
    return routed(fleet, PLATFORM, origin=Origin.UNKNOWN, severity=Severity.CRITICAL).owner


def _owner(fleet: Fleet, model: ModelId, origin: Origin, feature: str | None) -> str:
    """Return who owns what no route names an owner for."""
    if model == PLATFORM:
        return fleet.platform.owner
    if origin is Origin.DATA:
        return fleet.data_owner_name(model, feature)
    return fleet.family(model).owner
