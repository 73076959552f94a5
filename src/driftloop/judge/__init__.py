"""Readings, history and policy into verdicts and one decision with its reason. Pure."""

from driftloop.judge.budget import can_page, rates
from driftloop.judge.decision import decide, is_due, unlooked, window_at
from driftloop.judge.verdicts import LOOKED, expected_gain, judged

__all__ = [
    "LOOKED",
    "can_page",
    "decide",
    "expected_gain",
    "is_due",
    "judged",
    "rates",
    "unlooked",
    "window_at",
]
