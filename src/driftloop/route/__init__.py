"""Who is told, and when: the tree of routes, shifts and quiet hours. Pure."""

from driftloop.route.calendar import is_quiet, mention, morning, on_call, quiet_until
from driftloop.route.groups import (
    at_fault,
    group,
    origin_of,
    quarantine_group,
    quarantined_feature,
)
from driftloop.route.severity import rank, severity_of, severity_of_stage
from driftloop.route.tree import Routed, platform_owner, routed
from driftloop.route.turns import Turn, turns

__all__ = [
    "Routed",
    "Turn",
    "at_fault",
    "group",
    "is_quiet",
    "mention",
    "morning",
    "on_call",
    "origin_of",
    "platform_owner",
    "quarantine_group",
    "quarantined_feature",
    "quiet_until",
    "rank",
    "routed",
    "severity_of",
    "severity_of_stage",
    "turns",
]
