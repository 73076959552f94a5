"""Whom a notice is for: who owns it by the routes, how urgent it is, and what it is told with."""

from dataclasses import replace

from driftloop.records import Notice, Origin, Severity
from driftloop.route import routed
from driftloop.spec import Fleet


def addressed(
    fleet: Fleet,
    notice: Notice,
    *,
    severity: Severity,
    origin: Origin = Origin.UNKNOWN,
    feature: str | None = None,
    group: str = "",
    owner: str | None = None,
    version: int | None = None,
) -> Notice:
    """Return `notice` with its owner, channel and mention, and what it is told together with.

    The owner is who the routes name, unless `owner` is one of owners.toml; see `route.routed` for
    the others, and for errors.
    """
    if owner is None or owner not in fleet.owners:
        route = routed(fleet, notice.model, origin=origin, severity=severity, feature=feature)
        owner = route.owner
    theirs = fleet.owners[owner]
    return replace(
        notice,
        owner=owner,
        channel=theirs.channel,
        mention=theirs.mention,
        severity=severity,
        origin=origin,
        group=group,
        version=version,
    )
