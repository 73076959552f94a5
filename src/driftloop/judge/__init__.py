"""Readings, history and policy into verdicts and one decision with its reason. Pure."""

from driftloop.judge.decision import decide, is_due, unlooked, window_at
from driftloop.judge.partitions import Standing, Suspect, standing, suspects
from driftloop.judge.verdicts import LOOKED, expected_gain, judged

__all__ = [
    "LOOKED",
    "Standing",
    "Suspect",
    "decide",
    "expected_gain",
    "is_due",
    "judged",
    "standing",
    "suspects",
    "unlooked",
    "window_at",
]
