"""Readings, history and policy into verdicts and one decision with its reason. Pure."""

from driftloop.judge.cost import Balance, balance
from driftloop.judge.decision import decide, is_due, unlooked, window_at
from driftloop.judge.memories import memories_to_try, standing
from driftloop.judge.verdicts import LOOKED, expected_gain, judged

__all__ = [
    "LOOKED",
    "Balance",
    "balance",
    "decide",
    "expected_gain",
    "is_due",
    "judged",
    "memories_to_try",
    "standing",
    "unlooked",
    "window_at",
]
