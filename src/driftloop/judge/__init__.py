"""Readings, history and policy into verdicts and one decision with its reason. Pure."""

from driftloop.judge.budget import COUNTED, can_page, denied_pages, rates, spending
from driftloop.judge.causes import explains, heeded, sharing, upstream
from driftloop.judge.cost import Balance, balance
from driftloop.judge.decision import decide, is_due, unlooked, window_at
from driftloop.judge.findings import harmed
from driftloop.judge.memories import memories_to_try
from driftloop.judge.retraining import cooled
from driftloop.judge.verdicts import LOOKED, expected_gain, is_decisive, judged, worsening

__all__ = [
    "COUNTED",
    "LOOKED",
    "Balance",
    "balance",
    "can_page",
    "cooled",
    "decide",
    "denied_pages",
    "expected_gain",
    "explains",
    "harmed",
    "heeded",
    "is_decisive",
    "is_due",
    "judged",
    "memories_to_try",
    "rates",
    "sharing",
    "spending",
    "unlooked",
    "upstream",
    "window_at",
    "worsening",
]
