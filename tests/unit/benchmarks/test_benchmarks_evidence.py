"""What the bench of evidence makes of its lines, and whether its quick form tells anything."""

from pathlib import Path

from tests.benchmarks import _evidence
from tests.benchmarks._raw import Line, Plan, Raw


def rows(noise: str, rows: int, pages: int) -> Line:
    return {"what": "evidence_rows", "noise": noise, "rows": rows, "pages": pages, "budget": 4.0}


def test_what_is_spent_is_a_share_of_the_budget_and_the_worst_counts() -> None:
    """Of several numbers of rows the one with most pages; nothing where nothing was measured."""
    found = _evidence.figures([rows("uniform", 1, 1), rows("uniform", 10, 3)])
    assert found["evidence_spent_by_noise"].value == {"uniform": 0.75}
    assert found["evidence_spent"].value is None


def test_what_stays_silent_is_not_listed() -> None:
    """A median over misses has no value."""
    line = {"what": "evidence_looks", "metric": "shift", "change": 0.1, "floor": 0.1}
    some = [{**line, "delays": [1, 2, 9]}, {**line, "floor": 0.2, "delays": [1, None, None]}]
    assert _evidence.figures(some)["evidence_looks"].value == {"shift 0.1, floor 0.1": 2}


def test_the_quick_form_keeps_to_the_budget_and_finds_what_matters(tmp_path: Path) -> None:
    """Errors that are right, noise with a third moment; and half a deviation in one look."""
    raw = Raw(tmp_path / "raw.jsonl")
    _evidence.measure(raw, Plan(quick=True, seed=7, size=1.0))
    found = {name: figure.value for name, figure in _evidence.figures(raw.lines()).items()}
    spent, noise, row, looks = found.values()
    assert isinstance(row, dict)
    assert isinstance(spent, dict)
    assert isinstance(noise, dict)
    assert isinstance(looks, dict)
    assert spent["errors 0% too small"] <= spent["errors 10% too small"] < 1.0
    assert spent["errors 30% too small"] > spent["errors 10% too small"]
    assert max(each for name, each in noise.items() if name != "Student's t") < 1.0
    assert max(each for name, each in row.items() if name != "1 in 1000") <= 1.0
    assert looks["shift 0.5, floor 0.2"] == 1.0
    assert "shift 0.1, floor 0.2" not in looks
