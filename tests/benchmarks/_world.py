"""A synthetic fleet in a home of its own, written through the real spool and ingester."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from driftloop.clock import Clock
from driftloop.prediction_log import Lake
from driftloop.records import (
    Candidate,
    Head,
    Label,
    Metric,
    ModelId,
    Order,
    Prediction,
    Trained,
    Window,
    version_key,
)
from driftloop.settings import Settings
from driftloop.simulate import Plan, Shape, batches
from driftloop.simulate import rows as simulated
from driftloop.spec import Family
from driftloop.wiring import System

NOW = datetime(2026, 3, 1, tzinfo=UTC)
RENEWED = ModelId("renewed-one")
NOISE = 1.0
AT_ONCE = 1_000_000
"""Rows that are made up at once, of a window that is too large to hold."""
NUMBERS = tuple(f"x{n:02}" for n in range(20))
WORDS = tuple(f"c{n:02}" for n in range(5))
LOOKED_UP = {
    "x16": 'from = "visits", key = "place", aggregate = "count", window = "30m"',
    "x17": 'from = "visits", key = "place", aggregate = "mean", of = "amount", window = "30m"',
    "x18": 'from = "places", key = "place", of = "size"',
    "x19": 'expression = "x17 / max(x16, 1)"',
}
"""What callers do not send where features are looked up: of a stream, of a table, computed."""
SOURCES = """
[visits]
kind = "events"
time = "at"
fields = {{ place = "categorical", amount = "numeric" }}
lateness = "15m"
[places]
kind = "table"
source = "{places}"
key = "place"
refresh = "1d"
"""
KINDS = np.array([f"kind-{n}" for n in range(8)], dtype=object)
PLACES = "places.parquet"
MONITORS = {
    "owners": '[bench]\nchannel = "#ml-bench"\n',
    "platform": 'owner = "bench"\n',
    "defaults": """
[window]
span = "14d"
cadence = "1h"
min_rows = 100
min_labels = 100
label_expiry = "3d"
[drift]
warn = 0.2
alarm = 0.5
p_value = 1e-5
columns = 0.5
[quality]
nulls = 0.3
out_of_range = 0.02
unseen = 0.1
duplicates = 0.05
stale = "3d"
[hysteresis]
open_after = 1
resolve_after = 1
[retrain]
triggers = ["decay"]
cooldown = "7d"
span = "56d"
max_age = "90d"
recipe = "driftloop.retrain.recipes:gradient_boosting"
seed = 7
min_rows = 100
time_limit = "300s"
memory_gib = 6.0
parity = 1e-4
[gate]
holdout = "7d"
min_rows = 100
margin = -1.0 # always let through: what a renewal costs is measured to its end
confidence = 0.9
""",
}
FAMILY = """
task = "regression"
target = "minutes"
unit = "min"
time = "asked_at"
owner = "bench"
markets = [{markets}]
[features]
{features}
[decay]
metric = "mae"
warn = 0.3
alarm = 0.6
[retrain.parameters]
max_iter = {trees}
early_stopping = false
"""


@dataclass(frozen=True, slots=True)
class World:
    """A running installation's files, without its services."""

    system: System
    rng: np.random.Generator
    seed: int

    @property
    def settings(self) -> Settings:
        return self.system.settings

    def set_clock(self, now: datetime) -> None:
        Clock(origin=now, started=datetime.now(UTC), speed=1.0).write(self.settings.clock)

    def ingest(self) -> None:
        with self.system.ingester() as ingester:
            ingester.ingest()


@contextmanager
def world(
    *,
    seed: int,
    trees: int = 20,
    watched: int = 1,
    words: str = "categorical",
    looked_up: bool = False,
    **given: object,
) -> Iterator[World]:
    """Yield the families `renewed` (one model) and `quiet` (`watched` models), without rows.

    `words` is the kind of the features WORDS. With `looked_up` callers send `place` instead of
    the features LOOKED_UP, and a file of places is to be written into the home.
    """
    with TemporaryDirectory(prefix="driftloop-bench-") as folder:
        home, monitors = Path(folder) / "home", Path(folder) / "monitors"
        monitors.mkdir()
        home.mkdir()
        own = LOOKED_UP if looked_up else {}
        features = [
            f'{name} = {{ kind = "numeric"{f", {own[name]}" if name in own else ""} }}'
            for name in NUMBERS
        ]
        features += [f'{name} = {{ kind = "{words}" }}' for name in WORDS]
        if looked_up:
            features.append('place = { kind = "key", required = true }')
            sources = SOURCES.format(places=home / PLACES)
            (monitors / "sources.toml").write_text(sources)
        files = MONITORS | {
            name: FAMILY.format(
                markets=", ".join(f'"{market}"' for market in markets),
                features="\n".join(features),
                trees=trees,
            )
            for name, markets in (
                ("renewed", ["one"]),
                ("quiet", [f"m{number:03}" for number in range(watched)]),
            )
        }
        for name, text in files.items():
            (monitors / f"{name}.toml").write_text(text)
        settings = Settings(home=home, monitors=monitors, **given)
        made = World(System(settings), np.random.default_rng(seed), seed)
        made.set_clock(NOW)
        try:
            yield made
        finally:
            if (settings.home / "lake").exists():
                made.system.log.close()
            made.system.ledger.close()


def columns(rng: np.random.Generator, count: int) -> dict[str, np.ndarray]:
    """Return 25 features and the outcome `label`, its noise of standard deviation 1."""
    found: dict[str, np.ndarray] = {
        name: rng.standard_normal(count).astype(np.float32).astype(np.float64) for name in NUMBERS
    }
    codes = {name: rng.integers(0, len(KINDS), count) for name in WORDS}
    signal = 8.0 * found["x00"] + 4.0 * found["x01"] * found["x02"] + 3.0 * np.sin(found["x03"])
    signal += 1.5 * codes["c00"] + 0.5 * codes["c01"]
    found |= {name: KINDS[each] for name, each in codes.items()}
    return found | {"label": signal + rng.normal(0.0, NOISE, count)}


def times(count: int, *, days: float) -> list[datetime]:
    """Return event times that end an hour before NOW, oldest first."""
    step = timedelta(days=days) / count
    return [NOW - timedelta(hours=1) - step * (count - 1 - n) for n in range(count)]


def backfill(made: World, count: int) -> None:
    """Write labelled history of the model RENEWED, over 56 days, and ingest it."""
    at = times(count, days=55.5)
    told = columns(made.rng, count)
    table = pa.table(
        {
            "id": [f"h{n}" for n in range(count)],
            "model": [str(RENEWED)] * count,
            "asked_at": pa.array(at, pa.timestamp("us", "UTC")),
            **{name: pa.array(values) for name, values in told.items()},
            "observed_at": pa.array(at, pa.timestamp("us", "UTC")),
        }
    )
    with made.system.spool("backfill") as spool:
        spool.history(made.system.fleet.family_named("renewed"), table)
    made.ingest()


def predictions(
    made: World, model: ModelId, count: int, *, days: float
) -> tuple[list[Prediction], list[Label]]:
    """Return answered rows of version 1, and their outcomes, which the answers miss by noise."""
    told = columns(made.rng, count)
    answers = told["label"] + made.rng.normal(0.0, NOISE, count)
    lists = {name: values.tolist() for name, values in told.items() if name != "label"}
    rows = [
        Prediction(
            id=f"{model}-{n}",
            model=model,
            version=1,
            epoch=1,
            event_time=at,
            predicted_at=at,
            prediction=float(answers[n]),
            features={name: values[n] for name, values in lists.items()},
        )
        for n, at in enumerate(times(count, days=days))
    ]
    labels = [
        Label(id=row.id, model=model, value=float(told["label"][n]), observed_at=row.event_time)
        for n, row in enumerate(rows)
    ]
    return rows, labels


def settle_quiet(made: World, count: int) -> Family:
    """Give each quiet model a champion, its reference and `count` rows that have not drifted."""
    family = made.system.fleet.family_named("quiet")
    with made.system.spool("online") as spool:
        for model in family.models:
            champion(made, model)
            rows, labels = predictions(made, model, count, days=12.0)
            spool.predictions(family.name, rows)
            spool.labels(family.name, labels)
    made.ingest()
    return family


def settle_many(made: World, count: int, *, reference: int) -> Family:
    """Do as `settle_quiet`, for many models at once, as `driftloop simulate` makes them up.

    Each has `count` rows, and `reference` rows to compare with from the time before.
    """
    family = made.system.fleet.family_named("quiet")
    plan = _plan(family, made.seed, rows=count, end=NOW)
    with made.system.spool("online") as spool:
        for rows, labels in batches(plan, plan.start, plan.end, {}):
            spool.checked_history(family, rows, labels)
    before = _plan(family, made.seed, rows=reference, end=plan.start)
    for model in family.models:
        rows, labels = simulated(before, model, before.start, before.end)
        values = rows["features"].combine_chunks().flatten()
        found = {
            name: each.to_numpy(zero_copy_only=False)
            for name, each in zip(before.shape.columns, values, strict=True)
        }
        found["label"] = labels["value"].to_numpy()
        _keep_champion(made, model, rows, found)
    made.ingest()
    return family


def arrive(made: World, family: Family, count: int, *, hour: datetime) -> None:
    """Add the rows of one hour to what `settle_many` wrote, at its pace of `count` in ten days."""
    plan = _plan(family, made.seed, rows=count, end=hour)
    with made.system.spool("online") as spool:
        for rows, labels in batches(plan, hour - timedelta(hours=1), hour, {}):
            spool.checked_history(family, rows, labels)
    made.ingest()


def _plan(family: Family, seed: int, *, rows: int, end: datetime) -> Plan:
    """Return a plan that has `rows` rows of each model in the ten days up to `end`."""
    return Plan(
        start=end - timedelta(days=10),
        end=end,
        models=len(family.models),
        shape=Shape(numeric=len(NUMBERS), categorical=len(WORDS)),
        rows=rows // 10,
        seed=seed,
        family=family.name,
    )


def settle_large(made: World, count: int, *, reference: int) -> Family:
    """Do as `settle_many`, for one model with more rows than can be held, straight into the lake.

    Through the spool, as JSON, it would take ten times as long.
    """
    family = made.system.fleet.family_named("quiet")
    model = family.models[0]
    names = ", ".join((*NUMBERS, *WORDS))
    known = NOW - timedelta(hours=1)
    step = 12 * 24 * 3600 * 10**6 // count
    last = int(known.timestamp() * 10**6)
    with Lake(made.settings.lake, made.system.fleet.served, read_only=False) as lake:
        lake.migrate()
        for first in range(0, count, AT_ONCE):
            here = np.arange(first, min(first + AT_ONCE, count))
            told = columns(made.rng, here.size)
            batch = {
                "id": pa.array([f"r{n}" for n in made.rng.permutation(here)]),
                "asked": pa.array(last - (count - 1 - here) * step).cast(pa.timestamp("us", "UTC")),
                "answer": told["label"] + made.rng.normal(0.0, NOISE, here.size),
                **{name: pa.array(values) for name, values in told.items()},
            }
            with lake._store.transaction() as con:
                con.register("batch", pa.table(batch))
                con.execute(
                    f"INSERT INTO lake.{family.table}_predictions (id, model, version, epoch,"
                    f" event_time, predicted_at, prediction, arrived_at, {names})"
                    f" SELECT id, $model, 1, 1, asked, asked, answer, $known, {names} FROM batch",
                    {"model": model, "known": known},
                )
                con.execute(
                    f"INSERT INTO lake.{family.table}_labels"
                    " (id, model, value, observed_at, arrived_at)"
                    " SELECT id, $model, label, asked, $known FROM batch",
                    {"model": model, "known": known},
                )
                con.execute(
                    "INSERT INTO lake.segments VALUES ($name, $rows, $known)",
                    {"name": f"batch-{first}", "rows": here.size, "known": known},
                )
    champion(made, model, rows=reference)
    return family


def environment(settings: Settings) -> dict[str, str]:
    """Return what a process of ours that serves this home is started with."""
    return {**os.environ, **settings.environment(), "DO_NOT_TRACK": "1"}


def champion(made: World, model: ModelId, *, rows: int = 5000) -> None:
    """Write a reference and the facts that watching needs; nothing answers by it."""
    told = columns(made.rng, rows)
    answers = told["label"] + made.rng.normal(0.0, NOISE, rows)
    at = pa.array(times(rows, days=55.5), pa.timestamp("us", "UTC"))
    ids = [f"r{n}" for n in range(rows)]
    answered = pa.table({"id": ids, "event_time": at, "prediction": answers})
    _keep_champion(made, model, answered, told)


def _keep_champion(
    made: World, model: ModelId, answered: pa.Table, told: dict[str, np.ndarray]
) -> None:
    """Write a reference of what was `answered` (id, event_time, prediction) and what was `told`."""
    folder = made.settings.artifacts / model / "first"
    folder.mkdir(parents=True)
    reference: dict[str, Any] = {
        "id": answered["id"],
        "version": pa.repeat(pa.scalar(0, pa.int32()), answered.num_rows),
        "event_time": answered["event_time"],
        "prediction": answered["prediction"],
    }
    pq.write_table(pa.table(reference | told), folder / "reference.parquet")
    candidate = _candidate(model, folder, told, answered["prediction"].to_numpy())
    made.system.ledger.append(
        Trained(model=model, at=NOW, version=1, candidate=candidate), key=version_key(model, 1)
    )
    head = Head(model=model, epoch=1, version=1, digest="0" * 64, artifact=f"{folder}/model.onnx")
    made.system.ledger.move(head, at=NOW, previous=None, reason="synthetic")


def _candidate(
    model: ModelId, folder: Path, told: dict[str, np.ndarray], answers: Sequence[float]
) -> Candidate:
    errors = np.asarray(answers) - told["label"]
    order = Order(
        key=f"first/{model}",
        model=model,
        at=NOW,
        reason="synthetic",
        window=Window(model=model, start=NOW - timedelta(days=56), end=NOW, known_at=NOW),
        holdout_from=NOW - timedelta(days=7),
        seed=0,
    )
    return Candidate(
        order=order,
        digest="0" * 64,
        folder=str(folder),
        rows=errors.size,
        holdout_rows=errors.size,
        metrics=(
            Metric(name="mae", value=float(np.abs(errors).mean())),
            Metric(name="rmse", value=float(np.sqrt((errors**2).mean()))),
            Metric(name="r2", value=float(1.0 - (errors**2).mean() / told["label"].var())),
        ),
        parity=0.0,
        fit_seconds=0.0,
        lower_seconds=0.0,
    )
