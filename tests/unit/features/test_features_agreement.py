"""The operator and the SQL of one declaration give the same values, whatever comes."""

from collections.abc import Sequence

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftloop.features.bulk import bulk_sql
from driftloop.features.replay import replayed
from driftloop.spec import Family, Fleet

MINUTE = 60_000_000
START = 1_767_225_600_000_000
EXACT = ("count", "min", "max", "last", "distinct")
ROUNDING = 1e-9


@pytest.fixture(scope="module")
def query(eta: Family, looking: Fleet) -> str:
    """The family's SQL, made once."""
    return bulk_sql(eta, looking)


def asked(query: str, rows: pa.Table, events: pa.Table) -> pa.Table:
    """Let DuckDB answer the query; of two planes one becomes older at START."""
    planes = pa.table(
        {
            "tailnum": ["n1", "n1", "n2"],
            "at": [START - 10 * MINUTE, START, START - 5 * MINUTE],
            "age": [3.0, 4.0, 7.0],
        }
    )
    with duckdb.connect() as con:
        con.execute("SET threads = 1")
        con.register("rows", rows)
        con.register("departures_events", events)
        con.register("planes", planes)
        return con.execute(query).to_arrow_table()


def events_of(seed: int, count: int, disorder: int) -> pa.Table:
    """Return events whose times go forth and back by up to `disorder` minutes, with ties."""
    rng = np.random.default_rng(seed)
    minutes = np.arange(count) // 3 - rng.integers(0, disorder + 1, count)
    origins = rng.choice(["a", "b", ""], count, p=[0.7, 0.2, 0.1])
    return pa.table(
        {
            "position": pa.array(np.cumsum(rng.integers(1, 4, count)), pa.int64()),
            "at": pa.array(START + minutes * MINUTE, pa.int64()),
            "origin": pa.array(origins, mask=some(rng, count)),
            "delay": pa.array(rng.integers(-40, 400, count) / 8, mask=some(rng, count)),
            "carrier": pa.array(rng.choice(["x", "y", "zwölf"], count), mask=some(rng, count)),
        }
    )


def rows_of(seed: int, count: int, events: pa.Table) -> pa.Table:
    """Return rows at positions and times around the events, a third of them without position."""
    rng = np.random.default_rng([seed, 1])
    last = max(events["position"].to_pylist(), default=0)
    minutes = rng.integers(-5, events.num_rows // 3 + 80, count)
    positions = rng.integers(0, last + 2, count)
    return pa.table(
        {
            "row": np.arange(count),
            "at": pa.array(START + minutes * MINUTE, pa.int64()),
            "position": pa.array(positions, mask=rng.random(count) < 1 / 3),
            "origin": pa.array(rng.choice(["a", "b", "never"], count), mask=some(rng, count)),
            "tailnum": pa.array(rng.choice(["n1", "n2", "n3"], count), mask=some(rng, count)),
            "distance": pa.nulls(count, pa.float64()),
            "load": pa.nulls(count, pa.float64()),
            "vehicle": pa.nulls(count, pa.string()),
        }
    )


def some(rng: np.random.Generator, count: int) -> np.ndarray:
    """Return a mask of the values that are null."""
    return rng.random(count) < 0.1


def differences(one: pa.Table, other: pa.Table, names: Sequence[str]) -> dict[str, float]:
    """Return each column's worst relative difference; infinity where one alone is null."""
    found = {}
    for name in names:
        worst = 0.0
        for a, b in zip(one[name].to_pylist(), other[name].to_pylist(), strict=True):
            if a == b:
                continue
            if a is None or b is None or isinstance(a, str):
                worst = float("inf")
            else:
                worst = max(worst, abs(a - b) / max(abs(a), abs(b)))
        found[name] = worst
    return found


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(0, 400),
    disorder=st.sampled_from([0, 3, 12, 90]),
)
def test_operator_and_sql_agree(
    query: str, eta: Family, looking: Fleet, seed: int, count: int, disorder: int
) -> None:
    """Late events, ties, nulls, keys that never occur, expiry: counts and picks are equal exactly.

    Sums, means and deviations are equal to 1e-9 of their size.
    """
    events = events_of(seed, count, disorder)
    rows = rows_of(seed, 60, events)
    by_sql = asked(query, rows, events)
    by_replay = replayed(
        eta, looking, rows.append_column("age", by_sql["age"]), {"departures": events}
    )
    streamed = [name for name in by_sql.column_names if name != "age"]
    for name, worst in differences(by_sql, by_replay, streamed).items():
        exact = any(f"_{aggregate}" in name for aggregate in EXACT)
        assert worst <= (0.0 if exact else ROUNDING), name


def test_a_table_is_joined_as_of_the_row(query: str) -> None:
    """The newest row of the key up to the row's time counts; without any, the fallback."""
    rows = rows_of(0, 4, events_of(0, 0, 0))
    rows = rows.set_column(1, "at", pa.array([START - MINUTE, START, START, START]))
    rows = rows.set_column(4, "tailnum", pa.array(["n1", "n1", "n3", None]))
    found = asked(query, rows, events_of(0, 0, 0))
    assert found["age"].to_pylist() == [3.0, 4.0, 1.5, 1.5]


def test_what_was_looked_up_may_be_given(eta: Family, looking: Fleet) -> None:
    """As in a log: then only what is asked for is looked up again, and computed of it."""
    query = bulk_sql(eta, looking, looked_up=["delay_sum_30m"])
    events = events_of(3, 90, 3)
    rows = rows_of(3, 20, events)
    for name in eta.looked_up:
        kind = pa.float64() if eta.features[name].kind == "numeric" else pa.string()
        value = 4.0 if name == "delay_count_60m" else None
        if name != "delay_sum_30m":
            rows = rows.append_column(name, pa.array([value] * 20, kind))
    found = asked(query, rows, events).to_pydict()
    again = replayed(eta, looking, rows, {"departures": events}, looked_up=["delay_sum_30m"])
    assert again.to_pydict() == found
    assert list(found) == ["row", "share", "delay_sum_30m"]
    sums = [each for each in zip(found["share"], found["delay_sum_30m"], strict=True) if each[1]]
    assert sums
    assert all(share == total / 4 for share, total in sums)
