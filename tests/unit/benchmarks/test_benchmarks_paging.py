"""The paging benchmark's figures see what went wrong: they are made of raw lines alone."""

from typing import Any

import pytest

from tests.benchmarks._paging_world import Month
from tests.benchmarks.paging import figures

FAULT = {
    "what": "fault",
    "fault": "01-decay",
    "kind": "decay",
    "owner": "logistics",
    "nexts": ["supply"],
    "quiet": False,
    "within": False,
}
DECIDED = {
    "what": "decided",
    "step": "01-decay/opens",
    "fault": "01-decay",
    "wall": 100.0,
    "alerts": ["eta/1"],
}
GROUPED = {"what": "grouped", "alert": "eta/1", "incident": "eta/1"}
LEFT = {"what": "left", "noted": 1, "untold": []}


def message(channel: str = "ml-logistics", ts: float = 101.5, **more: Any) -> dict[str, Any]:
    given = {"thread": False, "parent": None, "key": "eta/1", "blind": False, "text": ""}
    return {"what": "message", "channel": channel, "ts": ts, **given, **more}


def posted(channel: str, hour: int) -> dict[str, Any]:
    at = f"2026-03-02T{hour:02}:00:00+00:00"
    return {"what": "posted", "incident": "eta/1", "channel": channel, "at": at}


FIRST, NEXT = posted("#ml-logistics", 1), message("ml-supply")


@pytest.mark.parametrize(
    ("stands", "said"),
    [
        ([message(), FIRST], (1.0, 0, 0, 0, 0)),
        ([FIRST], (0.0, 0, 1, 0, 0)),
        ([message(), message(ts=103.0), FIRST], (2.0, 0, 0, 1, 0)),
        ([message(), message(ts=103.0, blind=True), FIRST], (1.0, 0, 0, 0, 1)),
        ([message(), message("ml-growth"), FIRST], (2.0, 1, 0, 0, 0)),
        # The next in the chain, in time and too early.
        ([message(), NEXT, FIRST, posted("#ml-supply", 5)], (1.0, 0, 0, 0, 0)),
        ([message(), NEXT, FIRST, posted("#ml-supply", 2)], (2.0, 1, 0, 0, 0)),
    ],
)
def test_figures_see_what_went_wrong(stands: list[dict[str, Any]], said: tuple[float, ...]) -> None:
    """A page too many, to somebody else, twice or never is in the figure that is named so."""
    found = figures([FAULT, DECIDED, GROUPED, LEFT, *stands])
    names = ("pages_per_incident", "wrong_owner", "lost", "repeated", "repeated_unread_history")
    assert tuple(found[name].value for name in names) == said


def test_an_entry_that_stands_twice_is_a_repeat() -> None:
    """In one thread, that is; the same in two channels' threads is not."""
    entry = message(thread=True, parent="101.5", key="eta/1/recovered")
    other = {**entry, "channel": "ml-supply"}
    lines = [FAULT, DECIDED, GROUPED, LEFT, FIRST, message(), entry]
    assert figures([*lines, other])["repeated"].value == 0
    assert figures([*lines, entry])["repeated"].value == 1


def test_the_same_seed_makes_the_same_month() -> None:
    """All processes make it for themselves; each fault has a column of its own, so a group."""
    month = Month(days=30, models=200, singles=30, seed=7)
    faults = month.faults()
    assert faults == Month(days=30, models=200, singles=30, seed=7).faults()
    assert sorted(len(each.models) for each in faults)[-2:] == [1, 200]
    assert len({each.column for each in faults}) == len(faults) == 31
    assert {each.kind for each in faults} >= {"decay", "drift", "held", "platform", "quarantine"}
