"""Readings, history and policy into verdicts and one decision with its reason. Pure."""

from driftloop.judge.budget import can_page, rates, spending
from driftloop.judge.decision import decide, is_due, unlooked, window_at
from driftloop.judge.partitions import Standing, Suspect, standing, suspects
from driftloop.judge.verdicts import LOOKED, expected_gain, judged, worsening

__all__ = [
    "LOOKED",
    "Standing",
    "Suspect",
    "can_page",
    "decide",
    "expected_gain",
    "is_due",
    "judged",
    "rates",
    "spending",
    "standing",
    "suspects",
    "unlooked",
    "window_at",
    "worsening",
]
