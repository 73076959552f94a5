"""How a version comes to answer, and goes again: pure, numbers and policy in, the next step out."""

from driftloop.deploy.compare import errors, latency, quality, scores, tail, unpaired
from driftloop.deploy.heads import promoted, rolled_back
from driftloop.deploy.phases import (
    Next,
    Seen,
    advance,
    begun,
    failed,
    gone_back,
    held,
    promoted_by,
    resumed,
    rolled_back_by,
    taken,
    to_be_moved_back,
)

__all__ = [
    "Next",
    "Seen",
    "advance",
    "begun",
    "errors",
    "failed",
    "gone_back",
    "held",
    "latency",
    "promoted",
    "promoted_by",
    "quality",
    "resumed",
    "rolled_back",
    "rolled_back_by",
    "scores",
    "tail",
    "taken",
    "to_be_moved_back",
    "unpaired",
]
