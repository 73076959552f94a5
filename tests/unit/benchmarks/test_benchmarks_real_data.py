"""What the benchmark of real data makes of its raw lines, and of a folder that is not there."""

from pathlib import Path

import pytest

from tests.benchmarks import _real_data
from tests.benchmarks._raw import Plan, Raw


def line(data: str, strategy: str, error: float, retrains: int = 0) -> dict[str, object]:
    return {
        "what": "real",
        "data": data,
        "strategy": strategy,
        "error": error,
        "retrains": retrains,
        "steps": 50,
    }


def test_figures_come_of_raw_lines_alone() -> None:
    """Ours won back 60 of the 80 that the sliding window gained, and lost 1 % on metro_traffic."""
    found = _real_data.figures(
        [
            line("bike", "static", 140.0),
            line("bike", "sliding", 60.0, 49),
            line("bike", "ours", 80.0, 18),
            line("metro_traffic", "static", 500.0),
            line("metro_traffic", "ours", 505.0, 9),
        ]
    )
    assert found["bike_gain_share"].value == pytest.approx(0.75)
    assert found["bike_retrains"].value == 18
    assert found["metro_loss_share"].value == pytest.approx(0.01)


def test_data_that_is_not_there_is_said_to_be_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is measured, nothing breaks, and the raw lines tell."""
    raw = Raw(tmp_path / "raw.jsonl")
    _real_data.measure(raw, Plan(quick=True, seed=1, size=1.0, data=str(tmp_path)))
    (told,) = raw.lines()
    assert told["said"] == f"bike not in {tmp_path} (--data): not measured"
    assert "bike not in" in capsys.readouterr().out
    assert _real_data.figures(raw.lines()) == {}
