"""Operator and SQL on real departures: every flight of 2013, as they could have been served."""

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from driftloop.demo.flights import _installed
from driftloop.features.bulk import bulk_sql
from driftloop.features.replay import replayed
from driftloop.spec import Family, Fleet

MINUTE = 60_000_000
SENT = ("tailnum", "distance", "load", "vehicle")


@pytest.mark.parametrize(
    "count", [12_000, pytest.param(336_776, marks=[pytest.mark.long, pytest.mark.timeout(600)])]
)
def test_operator_and_sql_agree_on_every_flight(eta: Family, looking: Fleet, count: int) -> None:
    """Departures come minutes late and out of order; half of the rows know their position.

    Counts, extremes and picks are equal exactly, the others to 1e-9 of their size.
    """
    rows, events = _world(count)
    with duckdb.connect() as con:
        con.register("rows", rows)
        con.register("departures_events", events)
        con.register("planes", pa.table({"tailnum": ["x"], "at": [0], "age": [1.0]}))
        by_sql = con.execute(bulk_sql(eta, looking)).to_arrow_table()
    rows = rows.append_column("age", by_sql["age"])
    by_replay = replayed(eta, looking, rows, {"departures": events})
    assert by_sql.num_rows == by_replay.num_rows == count
    for name in by_replay.column_names:
        one, other = by_sql[name].to_numpy(), by_replay[name].to_numpy()
        if one.dtype == object:
            assert (one == other).all(), name
            continue
        exact = not any(each in name for each in ("sum", "mean", "std", "rate", "share"))
        np.testing.assert_allclose(one, other, rtol=0 if exact else 1e-9, atol=0, err_msg=name)
    assert np.nanmean(by_sql["delay_count_60m"].to_numpy()) > 5
    assert by_sql["delay_mean_30m"].null_count > 0


def _world(count: int) -> tuple[pa.Table, pa.Table]:
    """Return the first flights as rows at their scheduled time, and as events of departing."""
    frame = pd.read_csv(
        _installed() / "flights.csv.zip",
        usecols=["time_hour", "minute", "origin", "carrier", "dep_delay"],
        nrows=count,
    )
    hours = pd.to_datetime(frame["time_hour"], utc=True).dt.tz_localize(None)
    at = hours.astype("datetime64[us]").astype("int64").to_numpy()
    at = at + frame["minute"].to_numpy() * MINUTE
    rng = np.random.default_rng(0)
    gone = frame[frame["dep_delay"].notna()]
    left = at[gone.index] + gone["dep_delay"].to_numpy().astype("int64") * MINUTE
    order = np.argsort(left + rng.exponential(4 * MINUTE, len(left)), kind="stable")
    events = pa.table(
        {
            "position": np.arange(1, len(gone) + 1),
            "at": left[order],
            **{
                name: pa.array(gone[column].to_numpy()[order])
                for name, column in (
                    ("origin", "origin"),
                    ("delay", "dep_delay"),
                    ("carrier", "carrier"),
                )
            },
        }
    )
    position = np.searchsorted(np.maximum.accumulate(left[order]), at, side="right")
    rows = pa.table(
        {
            "row": np.arange(count),
            "at": at,
            "position": pa.array(position, pa.int64(), mask=rng.random(count) < 0.5),
            "origin": pa.array(frame["origin"]),
            **{name: pa.nulls(count, _kind(name)) for name in SENT},
        }
    )
    return rows, events


def _kind(name: str) -> pa.DataType:
    return pa.float64() if name in ("distance", "load") else pa.string()
