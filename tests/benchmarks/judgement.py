"""The scoreboard: who pages for nothing, who is late, who is right, on the same rows.

The figures of each part stand in a module of its own; a part that is not there is not measured.
"""

from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from tests.benchmarks import _scoreboard
from tests.benchmarks._beside import Part, side_by_side
from tests.benchmarks._raw import Figure, Line, Plan, Raw

PARTS = (
    "_fleets",
    "_evidence",
    "_river",
    "_whole",
    "_late_labels",
    "_causes",
    "_gates",
    "_real_data",
    "_replays",
)
WANTED = {
    "false_pages_per_week": "of 200 models with nothing wrong",
    "delay_cycles_median": "from injection to page",
    "delay_ratio_to_best_other": "each other tuned with hindsight",
    "coverage90": "of 90 % intervals of performance",
    "cause_top1": "single causes that are named first",
    "missed_share": "of injected faults above the floors",
    "unknown_share": "of estimates on clean data",
    "bike_gain_share": "of the sliding window's gain, on bike",
    "bike_retrains": "of possible 50",
    "metro_loss_share": "worse than no retraining, on metro_traffic",
}
"""Figures that are told, measured or not."""


LONGEST = ("_fleets", "_real_data", "_causes", "_late_labels", "_gates", "_river", "_whole")
"""Parts that are begun first, so that two processes end at about the same time."""
TIMED = "_replays"
"""What is timed by the clock on the wall: in the full form nothing runs beside it."""


def measure(raw: Raw, plan: Plan) -> None:
    """Write the raw lines of every part that is there, two parts at a time."""
    parts = [
        Part(module.__name__, share)
        for module in _parts()
        for share in getattr(module, "SHARES", (None,))
    ]
    alone = [each for each in parts if each.module.endswith(TIMED) and not plan.quick]
    side_by_side(raw, plan, [each for each in parts if each not in alone], (TIMED, *LONGEST))
    side_by_side(raw, plan, alone)


def figures(lines: Sequence[Line]) -> dict[str, Figure]:
    """Return every figure, those that are always told first; derived from raw lines alone."""
    found: dict[str, Figure] = {}
    for part in _parts():
        found |= part.figures(lines)
    unmeasured = {name: Figure(None, "", note) for name, note in WANTED.items()}
    return {**unmeasured, **found}


def page(lines: Sequence[Line], figures: Mapping[str, Figure], command: str) -> str:
    """Return the scoreboard in Markdown."""
    return _scoreboard.page(lines, figures, command)


def _parts() -> list[ModuleType]:
    names = [f"tests.benchmarks.{part}" for part in PARTS]
    return [import_module(name) for name in names if find_spec(name) is not None]
