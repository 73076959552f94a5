"""Numbers that an incident opens for, measured again by Evidently itself."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from driftloop import measure
from driftloop.measure import EvidentlyMeasure
from driftloop.records import Kind, Reading
from driftloop.spec import Family

Make = Callable[..., Any]


@pytest.fixture
def recheck(tmp_path: Path, measured: Make) -> Callable[..., tuple[str, ...]]:
    """Measures tables, lets `change` have the readings, and has them measured again."""

    def again(
        family: Family,
        current: pa.Table,
        reference: pa.Table,
        change: Callable[[Reading], Reading] = lambda reading: reading,
    ) -> tuple[str, ...]:
        file = tmp_path / "model" / "first" / "reference.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(reference, file)
        readings = [change(each) for each in measured(family, current, reference).readings]
        return EvidentlyMeasure().disputed(
            family=family, readings=readings, current=current, own=current, reference=file
        )

    return again


def test_evidently_agrees(
    eta: Family, churn: Family, regression: Make, binary: Make, put: Make, recheck: Make
) -> None:
    """Every distance and every metric of both tasks, with nulls and unlabelled rows."""
    current = regression(400, seed=1, shift=0.5)
    current = put(current, "distance", [None, float("nan"), *current["distance"].to_pylist()[2:]])
    current = put(current, "vehicle", [None, "ship", *current["vehicle"].to_pylist()[2:]])
    current = put(current, "label", [None] * 5 + current["label"].to_pylist()[5:])
    assert recheck(eta, current, regression(900, seed=2)) == ()
    assert recheck(churn, binary(400, seed=1, shift=1.0), binary(900, seed=2)) == ()


@pytest.mark.parametrize(
    ("metric", "column", "said"),
    [
        ("wasserstein", "distance", "wasserstein of distance is "),
        ("jensenshannon", "vehicle", "jensenshannon of vehicle is "),
        ("mae", None, "mae is "),
    ],
)
def test_a_wrong_number_is_disputed(
    eta: Family, regression: Make, recheck: Make, metric: str, column: str | None, said: str
) -> None:
    """A millionth too much is told, with both numbers; the others are not in doubt."""

    def spoil(reading: Reading) -> Reading:
        if (reading.metric, reading.column) != (metric, column) or reading.value is None:
            return reading
        return replace(reading, value=reading.value * (1.0 + 1e-6))

    tables = regression(300, seed=1, shift=0.5), regression(900, seed=2)
    (only,) = recheck(eta, *tables, spoil)
    assert only.startswith(said)
    assert "by us" in only
    assert "by Evidently" in only


def test_the_performance_of_very_many_rows_is_not_measured_again(
    eta: Family, regression: Make, recheck: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Evidently would need more memory than a pass may have; distances are measured again."""

    def spoil(reading: Reading) -> Reading:
        wrong = (reading.metric, reading.column) in {("mae", None), ("wasserstein", "distance")}
        return replace(reading, value=reading.value * 1.1) if wrong and reading.value else reading

    tables = regression(300, seed=1, shift=0.5), regression(900, seed=2)
    assert any(said.startswith("mae") for said in recheck(eta, *tables, spoil))
    monkeypatch.setattr(measure, "RECHECKED", 299)
    said = recheck(eta, *tables, spoil)
    assert said
    assert not any(each.startswith("mae") for each in said)


def test_what_evidently_cannot_digest_is_not_disputed(
    eta: Family, regression: Make, put: Make, recheck: Make
) -> None:
    """A single class, nothing at all, values below its floor: it raises, or cannot tell."""
    current, reference = regression(300, seed=1), regression(900, seed=2)
    tiny = [
        put(each, "distance", each["distance"].to_numpy() * 1e-9) for each in (current, reference)
    ]
    assert recheck(eta, *tiny) == ()
    assert recheck(eta, put(current, "label", [None] * 300), reference) == ()

    def unknown(reading: Reading) -> Reading:
        return (
            replace(reading, value=0.5, column="nothing") if reading.kind is Kind.DRIFT else reading
        )

    assert recheck(eta, current, reference, unknown) == ()
