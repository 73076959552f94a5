"""Batch prediction: larger than memory, exactly once, and after a kill from where it stood."""

from driftloop.batch.journal import left_behind
from driftloop.batch.run import Batches, Fill, Hold, Job, Progress, Scored, is_begun
from driftloop.batch.turns import Due, turns

__all__ = [
    "Batches",
    "Due",
    "Fill",
    "Hold",
    "Job",
    "Progress",
    "Scored",
    "is_begun",
    "left_behind",
    "turns",
]
