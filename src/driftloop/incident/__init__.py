"""Incidents as people see them, made of facts: one cause, one message. Pure."""

from driftloop.incident.explain import explainer
from driftloop.incident.fold import GONE, REFUSED, alone, fold
from driftloop.incident.shown import shown
from driftloop.incident.stages import (
    NEEDS_A_PERSON,
    OF_QUARANTINE,
    OF_ROLLOUT,
    OF_TELLING,
    opens,
    turn,
)
from driftloop.incident.timed import next_due, timed

__all__ = [
    "GONE",
    "NEEDS_A_PERSON",
    "OF_QUARANTINE",
    "OF_ROLLOUT",
    "OF_TELLING",
    "REFUSED",
    "alone",
    "explainer",
    "fold",
    "next_due",
    "opens",
    "shown",
    "timed",
    "turn",
]
