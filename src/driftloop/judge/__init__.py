"""Readings, history and policy into verdicts and one decision with its reason. Pure."""

from driftloop.judge.decision import decide, is_due, unlooked, window_at
from driftloop.judge.verdicts import LOOKED, expected_gain, judged, worsening

__all__ = [
    "LOOKED",
    "decide",
    "expected_gain",
    "is_due",
    "judged",
    "unlooked",
    "window_at",
    "worsening",
]
