"""Which larger incident a smaller one is part of."""

from collections.abc import Iterable, Mapping

from driftloop.incident.stages import OF_QUARANTINE, OF_ROLLOUT, is_of
from driftloop.records import PLATFORM, Incident, ModelId, Origin, Status
from driftloop.route import rank

MAKES: Mapping[str, tuple[str, ...]] = {
    "unhealthy/worker": ("driftloop/passes_missed/",),
    "unhealthy/keeper": ("driftloop/passes_missed/",),
    "unhealthy/prefect": ("driftloop/passes_missed/", "driftloop/unhealthy/worker/"),
    "unhealthy/ingester": ("driftloop/ingest_lag/", "driftloop/spool_mib/"),
    "unhealthy/online": ("driftloop/error_rate/", "driftloop/p99_ms/"),
    "disk_free": ("driftloop/unhealthy/", "driftloop/ingest_lag/", "driftloop/error_rate/"),
}
"""What else is wrong of the platform where this is: each with how incidents of it begin."""
STARVES = ("ingest_lag", "unhealthy/ingester", "passes_missed")
"""Of the platform: what lets the rows of models look missing, or old."""
STARVED = ("/freshness", "/volume")
"""How the groups end of models whose rows look so."""


def explainer(incident: Incident, others: Iterable[Incident]) -> str | None:
    """Return the id of which of `others` explains `incident`, the largest; None where none does.

    One that is open explains another if all its models are among its own, and it has more of
    them, or says that data are at fault where the other does not; a quarantine is explained by any
    that says so of most of its models; the platform's explains what it is known to make. What waits
    for its quiet hours to end explains nothing more urgent.
    """
    if incident.status is Status.RESOLVED:
        return None
    larger = [other for other in others if _explains(other, incident)]
    return max(larger, key=lambda other: (*_size(other), other.id)).id if larger else None


def _explains(larger: Incident, smaller: Incident) -> bool:
    waits = larger.told is None and rank(larger.severity) < rank(smaller.severity)
    if larger.id == smaller.id or larger.status is Status.RESOLVED or waits:
        return False
    if larger.models == (PLATFORM,):
        return _makes(larger, smaller)
    if smaller.models == (PLATFORM,) or is_of(larger, OF_ROLLOUT, OF_QUARANTINE):
        return False
    if is_of(smaller, OF_ROLLOUT) or larger.origin is not smaller.origin is Origin.DATA:
        return False
    left, theirs = _open_models(smaller), _open_models(larger)
    if is_of(smaller, OF_QUARANTINE):
        # Of data at fault it is what was done about them; a few models may not page for them.
        return 2 * len(left & theirs) > len(left)
    return left <= theirs and _size(larger) > _size(smaller)


def _makes(platform: Incident, other: Incident) -> bool:
    kind = platform.id.removeprefix(f"{PLATFORM}/").rpartition("/")[0]
    if other.models == (PLATFORM,):
        return other.id.startswith(MAKES.get(kind, ("\n",)))
    return kind in STARVES and other.group.endswith(STARVED)


def _size(incident: Incident) -> tuple[int, int]:
    return len(_open_models(incident)), int(incident.origin is Origin.DATA)


def _open_models(incident: Incident) -> frozenset[ModelId]:
    return frozenset(member.model for member in incident.members if member.over is None)
