"""A batch table made ready for the online store."""

from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest

from driftloop.errors import BadRequest
from driftloop.serve.refresh import current_rows
from driftloop.spec import Source

NOW = datetime(2026, 3, 1, tzinfo=UTC)
GIVEN: dict[str, Any] = {
    "name": "planes",
    "kind": "table",
    "source": "planes.csv",
    "key": "tailnum",
    "refresh": "1h",
}


def rows(table: dict[str, Any], wanted: dict[str, str], **given: Any) -> list[Any]:
    source = Source.model_validate({**GIVEN, **given})
    return list(current_rows(source, wanted, pa.table(table), now=NOW))


def test_values_are_what_features_are() -> None:
    """Numbers as float64, NaN and infinity as null, empty words as null, whole keys as text."""
    table = {
        "tailnum": [1, 2, None, 4],
        "age": [3.5, float("nan"), 1.0, float("inf")],
        "maker": ["Airbus", "", "x", None],
        "seats": [10, None, 1, 2],
        "not_wanted": [object.__name__] * 4,
    }
    wanted = {"age": "numeric", "maker": "categorical", "seats": "numeric"}
    assert rows(table, wanted) == [
        ("1", (3.5, "Airbus", 10.0)),
        ("2", (None, None, None)),
        ("4", (None, None, 2.0)),
    ]


def test_of_several_rows_of_a_key_the_newest_that_is_true_by_now_counts() -> None:
    """Of equal times the last; one that is only true later does not count yet."""
    day = [datetime(2026, 2, day, tzinfo=UTC) for day in (1, 2, 3)]
    table = {
        "tailnum": ["N1", "N2", "N1", "N1", "N2", "N3"],
        "since": [day[1], day[2], day[0], datetime(2026, 4, 1, tzinfo=UTC), day[2], None],
        "age": [1, 2, 3, 4, 5, 6],
    }
    found = rows(table, {"age": "numeric"}, time="since")
    assert found == [("N1", (1.0,)), ("N2", (5.0,))]


def test_a_key_that_stands_twice_without_a_time_is_refused() -> None:
    """It is not for us to say which row is meant."""
    with pytest.raises(BadRequest, match="'N1' stands twice"):
        rows({"tailnum": ["N2", "N1", "N1"], "age": [1, 2, 3]}, {"age": "numeric"})


@pytest.mark.parametrize(
    ("table", "what"),
    [
        ({"tail": ["N1"], "age": [1]}, "no column tailnum"),
        ({"tailnum": ["N1"]}, "no column age"),
        ({"tailnum": ["N1"], "age": ["old"]}, "column age is string"),
        ({"tailnum": ["N1", "N2"], "age": [1, -1e300]}, "column age, row 2: is too large"),
        ({"tailnum": [1.5], "age": [1]}, "key tailnum is double"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(table: dict[str, Any], what: str) -> None:
    """With the column and what it is."""
    with pytest.raises(BadRequest, match=what):
        rows(table, {"age": "numeric"})


def test_empty_tables_and_columns_of_nulls_are_tables() -> None:
    """Nothing is looked up in them."""
    nothing = {"tailnum": pa.array([], pa.string()), "age": pa.array([], pa.int64())}
    assert rows(nothing, {"age": "numeric"}) == []
    assert rows({"tailnum": ["N1"], "age": pa.nulls(1)}, {"age": "numeric"}) == [("N1", (None,))]
