"""What the soak says held must be able to break: each promise, from lines written by hand."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.soak._table import COLUMNS, cycles, promises

Lines = list[dict[str, Any]]
END = {
    "answered": 4,
    "in_log": 4,
    "twice": 0,
    "different": 0,
    "mixed": 0,
    "restarts": 0,
    "pages": 1,
    "distinct_pages": 1,
}


def run(due: float, **more: Any) -> dict[str, Any]:
    told = {"late_s": 0.4, "took_s": 1.0, "state": "COMPLETED", "due_text": f"{due:g}"}
    return {"what": "watch", "at": due, "due": due, **told, **more}


def lines() -> Lines:
    """Return two cycles of ten seconds in which all went well."""
    made: Lines = [{"what": "plan", "cycles": 2, "every": 10.0, "first": 100.0}]
    for due in (100.0, 110.0):
        made.append(run(due))
        made.append({"what": "passed", "at": due + 1, "looked": 12, "seconds": 1.0})
        made.append({"what": "renewal", "at": due + 1, "outcome": "promoted", "answers_s": 2.5})
        made += [{"what": "request", "at": due + step, "s": 0.002} for step in (1.0, 2.0)]
        made += [
            {
                "what": "sample",
                "at": due + step,
                "mib": 900.0,
                "cpu_s": due + step,
                "by_service": {"worker": 600.0, "ingester": 300.0},
            }
            for step in (0.0, 8.0)
        ]
    return [*made, {"what": "end", "at": 130.0, **END}]


def broken(made: Lines) -> list[str]:
    return [each.promise for each in promises(made) if not each.held]


def without(what: str) -> Callable[[Lines], Lines]:
    def cut(made: Lines) -> Lines:
        last = max(i for i, line in enumerate(made) if line["what"] == what)
        return made[:last] + made[last + 1 :]

    return cut


def with_end(**told: int) -> Callable[[Lines], Lines]:
    return lambda made: [*made[:-1], {**made[-1], **told}]


def test_a_row_for_each_cycle() -> None:
    """Each cycle counts what happened between its scheduled time and the next one's."""
    rows = cycles(lines())
    assert [len(row) for row in rows] == [len(COLUMNS)] * 2
    shown = dict(zip(COLUMNS, rows[1], strict=True))
    assert (shown["orders"], shown["promoted"], shown["requests"]) == ("1", "1", "2")
    assert (shown["to answer s"], shown["p99 ms"], shown["CPU s"]) == ("2.5", "2.0", "8")


def test_nothing_is_broken_where_all_went_well() -> None:
    """Every promise holds of two good cycles."""
    assert broken(lines()) == []


@pytest.mark.parametrize(
    ("spoil", "promise"),
    [
        pytest.param(without("watch"), "every run that was due", id="missed-run"),
        pytest.param(
            lambda made: [{**x, "late_s": 31.0} if x["what"] == "watch" else x for x in made],
            "every run that was due",
            id="late-run",
        ),
        pytest.param(
            lambda made: [*made, {"what": "failure", "at": 101.0, "said": "500"}],
            "no request failed",
            id="failed-request",
        ),
        pytest.param(
            lambda made: [
                {**x, "mib": 2000.0} if x["what"] == "sample" and x["at"] < 110 else x for x in made
            ],
            None,
            id="memory-that-shrinks-is-fine",
        ),
        pytest.param(with_end(in_log=3), "every answer is in the log", id="lost-row"),
        pytest.param(with_end(twice=1), "every answer is in the log", id="doubled-row"),
        pytest.param(with_end(different=1), "every answer is in the log", id="changed-row"),
        pytest.param(with_end(mixed=1), "no answer of an older version", id="older-version"),
        pytest.param(without("renewal"), None, id="fewer-orders-are-fine"),
        pytest.param(
            lambda made: [
                {**x, "outcome": "failed"} if x["what"] == "renewal" else x for x in made
            ],
            "every order came to its end",
            id="failed-order",
        ),
        pytest.param(with_end(restarts=1), "no service died", id="restart"),
        pytest.param(with_end(pages=2), "no page was repeated", id="repeated-page"),
    ],
)
def test_a_promise_breaks(spoil: Callable[[Lines], Lines], promise: str | None) -> None:
    """What went wrong breaks its own promise and no other."""
    found = broken(spoil(lines()))
    if promise is None:
        assert found == []
    else:
        assert [each.startswith(promise) for each in found] == [True]


@pytest.mark.parametrize(
    ("worker", "ingester", "flat"),
    [
        pytest.param(600.0, 300.0, True, id="as-it-was"),
        pytest.param(800.0, 400.0, False, id="all-by-a-third"),
        pytest.param(500.0, 500.0, False, id="one-while-another-shrinks"),
    ],
)
def test_growing_memory_breaks(worker: float, ingester: float, *, flat: bool) -> None:
    """Neither the whole nor one service may grow from the second cycle to the last."""
    made = lines()
    made[0]["cycles"] = 3
    made.insert(1, run(120.0))
    by_service = {"worker": worker, "ingester": ingester}
    mib = worker + ingester
    made.append(
        {"what": "sample", "at": 121.0, "mib": mib, "cpu_s": 121.0, "by_service": by_service}
    )
    assert broken(made) == ([] if flat else ["memory is flat"])
