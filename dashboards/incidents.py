"""What people were told of, line by line, as the command line shows it. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from driftloop.incident.lines import plain
from driftloop.incident.words import headline, needs, stands
from driftloop.records import Incident, ModelId

NAMED = 3
"""So many models of an incident are named in its line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """An incident in a line: how it stands, whose it is, and what it needs of them."""

    id: str
    status: str
    severity: str
    stands: str
    owner: str
    since: datetime
    headline: str
    needs: str
    models: tuple[ModelId, ...]
    more: int


def told(incidents: Iterable[Incident]) -> tuple[Told, ...]:
    """Return the incidents in lines, the newest first."""
    return tuple(
        Told(
            id=each.id,
            status=str(each.status),
            severity=str(each.severity),
            stands=plain(stands(each)),
            owner=each.owner,
            since=each.since,
            headline=headline(each),
            needs=needs(each),
            models=each.models[:NAMED],
            more=max(len(each.models) - NAMED, 0),
        )
        for each in sorted(incidents, key=lambda one: (one.since, one.id), reverse=True)
    )
