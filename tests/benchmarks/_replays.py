"""How long a replay takes: a fleet at a ten-minute cadence, on kept readings and on rows.

The readings are made up: as many and as large as a pass over models of 25 features keeps, in a
ledger of real rows. The rows are 5,000 a model, in a real lake, measured and judged anew at each
look; nothing is retrained there. What is timed is the command's own work.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from driftloop.ledger import SqlLedger
from driftloop.ledger.sql import _encoded
from driftloop.loop.replay import replayed
from driftloop.records import Head, Kind, Measured, Moved, Reading, Window
from driftloop.simulate import Plan as Made
from driftloop.simulate import Shape, write_monitors
from driftloop.spec import Fleet, load_fleet
from driftloop.wiring import System
from driftloop.wiring.shards import shards_of
from tests.benchmarks._raw import Figure, Line, Plan, Raw, cost
from tests.benchmarks._world import NOW, settle_quiet, world

CADENCE = timedelta(minutes=10)
START = datetime(2026, 3, 1, tzinfo=UTC)
MONTH = timedelta(days=30) // CADENCE
DAY = timedelta(days=1) // CADENCE
MODELS = 200
FEW = 20_000
VARIETY = 64
"""So many different sets of readings are made, and used in turn."""


def measure(raw: Raw, plan: Plan) -> None:
    """Time a replay of 200 models over two hours, or two days in the full form."""
    passes = 12 if plan.quick else 2 * (timedelta(days=1) // CADENCE)
    with TemporaryDirectory(prefix="driftloop-bench-") as folder:
        fleet = _fleet(Path(folder))
        file = Path(folder) / "ledger.db"
        url = f"sqlite:///{file}"
        ledger = SqlLedger(url)
        rng = np.random.default_rng(plan.seed)
        for model in fleet.models:
            head = Head(model=model, epoch=1, version=1, digest="d", artifact="a")
            moved = Moved(model=model, at=START, head=head, previous=None, reason="first")
            ledger.append(moved, key=f"{model}#1")
        _fill(file, fleet, passes, rng)
        end = START + (passes + 1) * CADENCE
        digests = []
        for _ in range(2):
            with cost() as spent, shards_of(fleet, url, start=START, end=end) as shards:
                outcome = replayed(shards)
            digests.append(outcome.digest)
            raw.note(
                "replay",
                decisions=outcome.decisions,
                pages=len(outcome.pages),
                wall_s=spent.wall_s,
                cpu_s=spent.cpu_s,
                digest=outcome.digest,
                bytes=file.stat().st_size,
            )
        ledger.close()
    _relive(raw, plan)


def _relive(raw: Raw, plan: Plan) -> None:
    """Time looks from rows: several, less the first two, which open, import and learn profiles."""
    models, looks = (4, 5) if plan.quick else (50, 8)
    with world(seed=plan.seed, watched=models) as made:
        settle_quiet(made, plan.rows(quick=5000, full=5000))
        named = ",".join(made.system.fleet.family_named("quiet").models)
        system = System(made.settings.model_copy(update={"models": named}))
        for count in (2, 2, looks):  # the first learns, for good, what is usual of each model
            hour = timedelta(hours=1)
            start, end = NOW + hour, NOW + hour + count * hour
            with cost() as spent:
                outcome = system.relive(None, start=start, end=end)
            raw.note(
                "relive", models=models, looks=count, wall_s=spent.wall_s, cpu_s=spent.cpu_s,
                decisions=outcome.decisions,
            )  # fmt: skip


def figures(lines: Sequence[Line]) -> dict[str, Figure]:
    """Return what a month would take, reckoned from what was timed."""
    runs = [line for line in lines if line["what"] == "replay"]
    if not runs:
        return {}
    each = min(run["wall_s"] / run["decisions"] for run in runs)
    _, first, more = (line for line in lines if line["what"] == "relive")
    one = (more["cpu_s"] - first["cpu_s"]) / (more["decisions"] - first["decisions"])
    same = len({run["digest"] for run in runs}) == 1
    timed = runs[0]["decisions"]
    return {
        "replay_month_s": Figure(
            # Of few decisions nearly all is the start of two processes.
            each * MODELS * MONTH if timed >= FEW else None,
            "s",
            f"for 200 models x 30 days, reckoned from {timed:,} decisions",
        ),
        "relive_day_s": Figure(
            one * MODELS * DAY,
            "s",
            f"CPU for 200 models x 1 day from rows, reckoned from {more['decisions']} looks",
        ),
        "replay_same": Figure(float(same), "", "1: two replays give the same bytes"),
    }


def _fleet(folder: Path) -> Fleet:
    shape = Shape(numeric=20, categorical=5)
    plan = Made(shape=shape, models=MODELS, start=START, end=START + timedelta(days=30))
    write_monitors(plan, folder)
    fleet = load_fleet(folder)
    (family,) = fleet.families
    window = family.window.model_copy(update={"cadence": CADENCE})
    return Fleet(
        families=(family.model_copy(update={"window": window}),),
        owners=fleet.owners,
        platform=fleet.platform,
    )


def _fill(file: Path, fleet: Fleet, passes: int, rng: np.random.Generator) -> None:
    """Write measurements as the ledger does, many at once."""
    (family,) = fleet.families
    sets = [_readings(family.numeric, family.categorical, rng) for _ in range(VARIETY)]
    insert = "INSERT INTO facts (kind, model, at, written, key, body) VALUES (?, ?, ?, 0, ?, ?)"
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.executemany(insert, _rows(fleet, sets, passes, rng))


def _rows(
    fleet: Fleet, sets: Sequence[tuple[Reading, ...]], passes: int, rng: np.random.Generator
) -> Iterator[tuple[str, ...]]:
    span = fleet.families[0].window.span
    for turn in range(1, passes + 1):
        at = START + turn * CADENCE
        for model in fleet.models:
            window = Window(model=model, start=at - span, end=at, known_at=at)
            readings = sets[rng.integers(VARIETY)]
            fact = Measured(
                model=model, at=at, window=window, rows=5000, labels=4000, readings=readings
            )
            stamp = at.isoformat(timespec="microseconds")
            yield "Measured", model, stamp, f"{model}/{at:%Y%m%dT%H%M%S}", _encoded(fact)


def _readings(
    numeric: Sequence[str], categorical: Sequence[str], rng: np.random.Generator
) -> tuple[Reading, ...]:
    """Return what a pass keeps of a model with which nothing is wrong."""

    def fresh(metric: str, column: str | None, error: float) -> Reading:
        value = float(rng.normal(0.0, error))
        reach = 1.6448536 * error
        return Reading(
            kind=Kind.FRESH,
            metric=metric,
            column=column,
            value=value,
            n=100,
            low=value - reach,
            high=value + reach,
        )

    columns = (*numeric, "prediction")
    found = [
        Reading(
            kind=Kind.DRIFT,
            metric="wasserstein",
            column=column,
            n=5000,
            value=float(rng.uniform(0.01, 0.05)),
            p_value=float(rng.uniform()),
        )
        for column in columns
    ]
    found += [
        Reading(
            kind=Kind.DRIFT,
            metric="jensenshannon",
            column=column,
            n=5000,
            value=float(rng.uniform(0.01, 0.05)),
            p_value=float(rng.uniform()),
        )
        for column in categorical
    ]
    found += [
        Reading(
            kind=Kind.QUALITY, metric="null_share", column=column, value=0.0, n=5000, baseline=0.0
        )
        for column in (*numeric, *categorical)
    ]
    found.append(Reading(kind=Kind.QUALITY, metric="volume", column=None, value=5000.0, n=5000))
    found.append(
        Reading(
            kind=Kind.DECAY,
            metric="mae",
            column=None,
            value=float(rng.normal(1.0, 0.01)),
            n=4000,
            low=0.97,
            high=1.03,
            baseline=1.0,
        )
    )
    found += [fresh(metric, column, 0.1) for column in columns for metric in ("shift", "spread")]
    found += [fresh("share", column, 0.1) for column in categorical]
    found += [fresh("nulls", column, 0.002) for column in (*numeric, *categorical)]
    found += [fresh("loss", None, 0.1), fresh("expected", None, 0.05)]
    return tuple(found)
