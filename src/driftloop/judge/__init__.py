"""Readings, history and policy into verdicts and one decision with its reason. Pure."""

from driftloop.judge.causes import explains, heeded, sharing, upstream
from driftloop.judge.decision import decide, is_due, unlooked, window_at
from driftloop.judge.verdicts import LOOKED, expected_gain, judged

__all__ = [
    "LOOKED",
    "decide",
    "expected_gain",
    "explains",
    "heeded",
    "is_due",
    "judged",
    "sharing",
    "unlooked",
    "upstream",
    "window_at",
]
