"""Which stages begin something, end it, need somebody, or are about the telling itself."""

from datetime import datetime

from driftloop.records import Incident, Notice, Stage

OF_ROLLOUT = "rollout/"
"""How the incident of a rollout begins that is told in no other's thread."""
OF_QUARANTINE = "quarantine/"
"""Likewise of rows in quarantine."""
OF_TELLING = frozenset(
    {Stage.ACTED, Stage.REMINDED, Stage.ESCALATED, Stage.EXPIRED, Stage.RELAYED}
    | {Stage.EXPLAINS, Stage.AGAIN}
)
"""About an incident as people see it, and not about a model."""
BEGINS = frozenset(
    {Stage.OPENED, Stage.WORSENED, Stage.BLOCKED, Stage.HELD, Stage.STUCK, Stage.QUARANTINED}
)
"""After which a model's part is open, even if it was over or somebody had resolved it."""
ENDS = frozenset({Stage.RECOVERED, Stage.RELEASED})
ENDS_ROLLOUT = frozenset({Stage.PROMOTED, Stage.ROLLED_BACK})
"""After which a rollout that is told by itself is over."""
NEEDS_A_PERSON = BEGINS | {Stage.REFUSED, Stage.FAILED, Stage.ROLLED_BACK}
"""To which somebody is called by name."""


def opens(notice: Notice) -> bool:
    """Say whether a model's incident may begin with `notice`; others wait for one that does."""
    return notice.stage is Stage.OPENED or notice.incident.startswith((OF_ROLLOUT, OF_QUARANTINE))


def begins(notice: Notice) -> bool:
    """Say whether a model's part is open after `notice`."""
    return notice.stage in BEGINS


def ends(notice: Notice) -> bool:
    """Say whether a model's part is over after `notice`."""
    rollout = notice.incident.startswith(OF_ROLLOUT)
    return notice.stage in ENDS or (rollout and notice.stage in ENDS_ROLLOUT)


def is_of(incident: Incident, *prefixes: str) -> bool:
    """Say whether all of an incident began as what one of `prefixes` names, as a quarantine."""
    return all(member.alert.startswith(prefixes) for member in incident.members)


def turn(notice: Notice) -> tuple[datetime, int]:
    """Return what orders notices as they came about, however late they were noted."""
    return notice.at, list(Stage).index(notice.stage)
