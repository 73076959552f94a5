"""Features of events: what they cost, whether operator and SQL agree, and what they are worth."""

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from driftloop.demo.flights import departures, flights
from driftloop.features.bulk import bulk_sql
from driftloop.features.operator import State, layouts, windowed
from driftloop.features.replay import replayed
from driftloop.retrain.fit import fit, predict
from driftloop.retrain.score import score
from driftloop.spec import Family, Fleet, load_fleet
from tests.benchmarks._raw import Figure, Line, Plan, Raw

MONITORS = Path(__file__).parents[2] / "monitors"
FAMILY = "late-arrival"
MONTHS = (*range(5, 13),)
LARGEST = 4
"""So many models, those with most flights, are fitted in the quick form, for two months."""
FEWEST = 500
"""Rows a model needs before a month to be fitted for it."""
PERMITTED = 1e-9


def measure(raw: Raw, plan: Plan) -> None:
    """Write raw lines: operator, agreement, lift."""
    fleet = load_fleet(MONITORS)
    family = fleet.family_named(FAMILY)
    frame = flights()
    events = _events(frame)
    rows = _rows(frame, family)
    _operator(raw, fleet, family, events)
    found = _agreement(raw, fleet, family, rows, events, part=0.1 if plan.quick else 1.0)
    _lift(raw, plan, family, frame, found)


def figures(lines: Sequence[Line]) -> dict[str, Figure]:
    """Return every figure, derived from raw lines alone."""
    of = {line["what"]: line for line in lines}
    operator, agreement = of["operator"], of["agreement"]
    lifts = [line for line in lines if line["what"] == "lift"]
    weights = np.array([line["rows"] for line in lifts], dtype=float)

    def mean(name: str) -> float:
        return float(np.average([line[name] for line in lifts], weights=weights))

    months = sorted({line["month"] for line in lifts})
    without, with_ = mean("log_loss_without"), mean("log_loss_with")
    note = f"{len(lifts)} fits of each, months {months[0]} to {months[-1]} held out, by rows"
    better = np.mean([line["log_loss_with"] < line["log_loss_without"] for line in lifts])
    return {
        "event_us": Figure(operator["event_us"], "us", "the operator, an event"),
        "row_us": Figure(operator["row_us"], "us", "six features of a row, state in hand"),
        "stored_row_us": Figure(operator["stored_row_us"], "us", "the same, state as bytes"),
        "replay_s": Figure(agreement["replay_s"], "s", f"{agreement['rows']} rows by replay"),
        "sql_s": Figure(agreement["sql_s"], "s", "the same rows by DuckDB"),
        "feature_mismatches": Figure(
            agreement["mismatches"], "", f"values apart by more than {PERMITTED:g}, or null in one"
        ),
        "log_loss_without": Figure(without, "", note),
        "log_loss_with": Figure(with_, "", "with six features of the departures at the origin"),
        "log_loss_gain": Figure(1 - with_ / without, "", "share of the log loss that they save"),
        "roc_auc_without": Figure(mean("roc_auc_without"), "", note),
        "roc_auc_with": Figure(mean("roc_auc_with"), "", "with them"),
        "better_share": Figure(float(better), "", "share of model-months with a lower log loss"),
    }


def _events(frame: pd.DataFrame) -> pa.Table:
    gone = departures(frame)
    return pa.table(
        {
            "position": np.arange(1, len(gone) + 1),
            "at": _microseconds(gone["departed_at"]),
            "origin": gone["origin"].astype(object),
            "delay": gone["delay"],
        }
    )


def _rows(frame: pd.DataFrame, family: Family) -> pa.Table:
    sent = {
        name: pa.array(
            frame[name], pa.float64() if f.kind == "numeric" else pa.string(), from_pandas=True
        )
        for name, f in family.requested.items()
    }
    count = len(frame)
    return pa.table(
        {
            "row": np.arange(count),
            "at": _microseconds(frame["scheduled_departure"]),
            "position": pa.nulls(count, pa.int64()),
            **sent,
        }
    )


def _microseconds(times: "pd.Series[pd.Timestamp]") -> np.ndarray:
    return (
        times.dt.tz_convert("UTC")
        .dt.tz_localize(None)
        .astype("datetime64[us]")
        .astype("int64")
        .to_numpy()
    )


def _operator(raw: Raw, fleet: Fleet, family: Family, events: pa.Table) -> None:
    ((place, layout),) = layouts(fleet).items()
    asked = windowed(family)[place]
    jfk = events.filter(pc.equal(events["origin"], "JFK")).to_pylist()
    state = State(layout)
    began = time.perf_counter()
    for event in jfk:
        state.add(event["at"], event["position"], event)
    event_us = (time.perf_counter() - began) / len(jfk) * 1e6
    at, packed, times = state.newest, state.pack(), 5_000
    began = time.perf_counter()
    for _ in range(times):
        state.values(at, asked)
    row_us = (time.perf_counter() - began) / times * 1e6
    began = time.perf_counter()
    for _ in range(times):
        State.unpack(layout, packed).values(at, asked)
    stored_us = (time.perf_counter() - began) / times * 1e6
    raw.note("operator", event_us=event_us, row_us=row_us, stored_row_us=stored_us)


def _agreement(
    raw: Raw, fleet: Fleet, family: Family, rows: pa.Table, events: pa.Table, *, part: float
) -> pa.Table:
    """Return the features of all rows by SQL, once a part of them is compared with the replay."""
    query = bulk_sql(family, fleet)
    with duckdb.connect() as con:
        con.register("rows", rows)
        con.register("departures_events", events)
        began = time.perf_counter()
        by_sql = con.execute(query).to_arrow_table()
        sql_s = time.perf_counter() - began
    some = rows.slice(0, round(rows.num_rows * part))
    began = time.perf_counter()
    by_replay = replayed(family, fleet, some, {"departures": events})
    replay_s = time.perf_counter() - began
    mismatches = sum(
        _apart(by_sql[name].slice(0, len(some)), by_replay[name]) for name in family.looked_up
    )
    raw.note(
        "agreement",
        rows=len(some),
        sql_s=sql_s * part,
        replay_s=replay_s,
        mismatches=mismatches,
    )
    return by_sql


def _apart(one: pa.ChunkedArray, other: pa.ChunkedArray) -> int:
    a, b = one.to_numpy(), other.to_numpy()
    size = np.maximum(np.abs(a), np.abs(b))
    near = (a == b) | (np.isnan(a) & np.isnan(b)) | (np.abs(a - b) <= PERMITTED * size)
    return int(np.count_nonzero(~near))


def _lift(raw: Raw, plan: Plan, family: Family, frame: pd.DataFrame, found: pa.Table) -> None:
    """Fit each model twice before each month, and score it on the month's flights."""
    bare = family.model_copy(update={"features": dict(family.requested)})
    table = frame.assign(**{n: found[n].to_numpy() for n in family.looked_up})
    sizes = frame["market"].value_counts()
    markets = [each for each in sizes.index if each in family.markets]
    months = MONTHS[::4] if plan.quick else MONTHS
    for month in months:
        start = pd.Timestamp(datetime(2013, month, 1, tzinfo=UTC))
        end = start + pd.offsets.MonthBegin(1)
        for market in markets[: LARGEST if plan.quick else None]:
            mine = table[(table["market"] == market) & table["late"].notna()]
            before = mine[mine["landed"] < start]
            after = mine[mine["scheduled_departure"].between(start, end, inclusive="left")]
            if len(before) < FEWEST or after["late"].nunique() < 2:
                continue
            scored = {
                how: _scored(each, before, after, seed=plan.seed)
                for how, each in (("without", bare), ("with", family))
            }
            raw.note(
                "lift",
                month=month,
                market=market,
                rows=len(after),
                **{f"{n}_{how}": v for how, figures in scored.items() for n, v in figures.items()},
            )


def _scored(
    family: Family, before: pd.DataFrame, after: pd.DataFrame, *, seed: int
) -> Mapping[str, float]:
    columns = [*family.inputs]
    train = pa.Table.from_pandas(before[columns].assign(label=before["late"]), preserve_index=False)
    test = pa.Table.from_pandas(after[columns], preserve_index=False)
    predicted = predict(fit(family, train, seed=seed), test)
    found = score(family.task, after["late"].to_numpy(), predicted)
    return {each.name: each.value for each in found if each.name in ("log_loss", "roc_auc")}
