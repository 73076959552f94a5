"""Whether the simulated slices are what rows would show: the same world through the whole loop.

Rows of a few models go through spool and ingester into the lake, and a pass every ten minutes
measures and judges them; the same levels go through the simulation of slices. Readings of both are
compared, and pages, without a fault and with one.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from driftloop.clock import Clock
from driftloop.measure.learn import learnt
from driftloop.measure.profile_file import write_profile
from driftloop.measure.reference import prepared
from driftloop.records import (
    PROFILE_FILE,
    REFERENCE_FILE,
    Candidate,
    Head,
    Kind,
    Label,
    Measured,
    Metric,
    ModelId,
    Order,
    Prediction,
    Trained,
    Window,
    version_key,
)
from driftloop.settings import Settings
from driftloop.spec import Family
from driftloop.wiring import System
from tests.benchmarks._fleet import CADENCE, ERROR, MONDAY, Fault, Fleet, Floats, Slices, Weather
from tests.benchmarks._ours import Evidence, Readings, streams
from tests.benchmarks._raw import Figure, Line, Plan, Raw, cost
from tests.benchmarks._world import MONITORS

FEATURES = 5
TRAINED = 14 * 144
"""Slices; the last half is held out."""
LEARNT_ROWS, REFERENCE_ROWS = 100, 10_000
"""Rows of each slice of the training time, and of all of it in the reference."""
FAULT = Fault(name="shift 0.5, accuracy -10", shift=0.5, errors=0.1)
FAMILY = """
task = "binary"
target = "wanted"
time = "asked_at"
owner = "bench"
markets = [{markets}]
[features]
{features}
[decay]
metric = "accuracy"
warn = 0.011
alarm = 0.05
"""


@dataclass(frozen=True, slots=True)
class Size:
    """Models, rows of a look, looks, and how many of them, the last, see a fault."""

    models: int = 4
    rows: int = 500
    cycles: int = 150
    after: int = 6


def measure(raw: Raw, plan: Plan) -> None:
    """Write raw lines: whole, with the readings of both, for each look; whole_pages; whole_cost.

    That is a day and an hour, and in the full form alone.
    """
    if plan.quick:
        return
    with cost() as spent:
        run(raw, Size(rows=max(200, round(500 * plan.size))), seed=plan.seed)
    raw.note("whole_cost", wall_s=spent.wall_s, cpu_s=spent.cpu_s)


def figures(lines: Sequence[Line]) -> dict[str, Figure]:
    """Return how far readings of rows are from those of slices, in standard errors, and pages."""
    calm = [line for line in lines if line["what"] == "whole" and not line["fault"]]
    apart = [
        (row["value"] - slices["value"]) / (row["error"] ** 2 + slices["error"] ** 2) ** 0.5
        for line in calm
        for name, row in line["rows"].items()
        if (slices := line["slices"].get(name)) is not None
    ]
    errors = [
        row["error"] / slices["error"]
        for line in calm
        for name, row in line["rows"].items()
        if (slices := line["slices"].get(name)) is not None
    ]
    pages = [line for line in lines if line["what"] == "whole_pages"]
    same = [line["rows"] == line["slices"] for line in pages]
    return {
        "whole_apart": Figure(
            float(np.sqrt(np.mean(np.square(apart)))) if apart else None,
            "errors",
            "root mean square of readings of rows less those of slices; 1 if they had no more in"
            " common than what they are of",
        ),
        "whole_error_ratio": Figure(
            float(np.median(errors)) if errors else None,
            "x",
            "standard errors of rows over those of slices, median",
        ),
        "whole_same_pages": Figure(
            sum(same) / len(same) if same else None, "", "of models, without and with a fault"
        ),
    }


# -- both sides -----------------------------------------------------------------------------


def run(raw: Raw, size: Size, *, seed: int) -> None:
    """Write the raw lines of `measure` but its cost."""
    fleet = Fleet(
        Weather.SEASONAL,
        models=size.models,
        features=FEATURES,
        rows=LEARNT_ROWS,
        seed=seed + 3,
    )
    random = np.random.default_rng(seed + 4)
    with _installation(size) as system:
        family = system.fleet.family_named("whole")
        steps = [fleet.step() for _ in range(TRAINED)]
        levels, wrong = (np.stack(each) for each in zip(*steps, strict=True))
        history = fleet.seen(levels, wrong)
        for place, model in enumerate(family.models):
            _champion(system, family, model, _rows(fleet, levels, wrong, place, random))
        fleet.rows = size.rows
        live = [fleet.step() for _ in range(size.cycles)]
        told = _through_the_loop(system, family, fleet, live, size, random)
    readings = Readings.of(history)
    looks = [
        fleet.seen(*each, FAULT if number >= size.cycles - size.after else None)
        for number, each in enumerate(live)
    ]
    _compare(raw, size, told, readings, looks)


def _compare(
    raw: Raw,
    size: Size,
    told: Sequence[Sequence[tuple[dict[str, Line], bool]]],
    readings: Readings,
    looks: Sequence[Slices],
) -> None:
    """Note what the loop `told`, look by look and model by model, and what slices tell."""
    names = streams(FEATURES)[0]
    evidence = Evidence(size.models, features=FEATURES, rows=size.rows, per_week=1.0)
    begin = size.cycles - size.after
    paged = np.zeros((2, 2, size.models), dtype=bool)
    for number, (_, fresh) in enumerate(readings.looks(looks, TRAINED)):
        faulty = int(number >= begin)
        pages = evidence.look(fresh)
        paged[0, faulty] |= pages
        for model, (rows, opened) in enumerate(told[number]):
            paged[1, faulty, model] |= opened
            slices = {
                name: {"value": float(value), "error": float(error)}
                for name, value, error in zip(
                    names, fresh.value[model], fresh.error[model], strict=True
                )
            }
            # Of a family judged by accuracy a share of the errors is a ninth as much of that.
            for side in ("value", "error"):
                slices["loss"][side] *= ERROR / (1.0 - ERROR)
            raw.note(
                "whole", look=number, model=model, fault=bool(faulty), rows=rows, slices=slices
            )
    for faulty in (False, True):
        for model in range(size.models):
            slices, rows = (bool(paged[side, int(faulty), model]) for side in (0, 1))
            raw.note("whole_pages", model=model, fault=faulty, rows=rows, slices=slices)


def _through_the_loop(
    system: System,
    family: Family,
    fleet: Fleet,
    live: Sequence[tuple[Floats, Floats]],
    size: Size,
    random: np.random.Generator,
) -> list[list[tuple[dict[str, Line], bool]]]:
    """Return the fresh readings of each look and model, and whether it opened an incident."""
    told = []
    for number, (levels, wrong) in enumerate(live):
        begin = MONDAY + (TRAINED + number) * CADENCE
        fault = FAULT if number >= size.cycles - size.after else None
        with system.spool("online") as spool:
            for place, model in enumerate(family.models):
                rows = _rows(fleet, levels[None], wrong[None], place, random, begin, fault)
                spool.predictions(family.name, list(_predictions(model, rows)))
                spool.labels(family.name, list(_labels(model, rows)))
        _set_clock(system, begin + CADENCE)
        with system.ingester() as ingester:
            ingester.ingest()
        seen = {each.model: each for each in system.watcher.watch()}
        told.append([_told(system, seen, model) for model in family.models])
    return told


def _told(system: System, seen: dict, model: ModelId) -> tuple[dict[str, Line], bool]:
    decision = seen[model].decision
    if decision is None:
        raise RuntimeError(f"{model} was not looked at: {seen[model].problem}")
    measured = system.ledger.fact(Measured, key=decision.key)
    if measured is None:
        raise RuntimeError(f"nothing was measured of {model}")
    half = 1.6448536269514722
    readings = {
        f"{each.metric}:{each.column}" if each.column else each.metric: {
            "value": each.value,
            "error": (each.high - each.low) / (2.0 * half),
        }
        for each in measured.readings
        if each.kind is Kind.FRESH
        and each.value is not None
        and each.low is not None
        and each.high is not None
    }
    return readings, decision.opens


# -- an installation ------------------------------------------------------------------------


@contextmanager
def _installation(size: Size) -> Iterator[System]:
    with TemporaryDirectory(prefix="driftloop-bench-") as folder:
        home, monitors = Path(folder) / "home", Path(folder) / "monitors"
        home.mkdir()
        monitors.mkdir()
        family = FAMILY.format(
            markets=", ".join(f'"m{number}"' for number in range(size.models)),
            features="\n".join(f'x{n:02} = {{ kind = "numeric" }}' for n in range(FEATURES)),
        )
        files = MONITORS | {"whole": family}
        files["defaults"] = files["defaults"].replace('cadence = "1h"', 'cadence = "10m"')
        for name, text in files.items():
            (monitors / f"{name}.toml").write_text(text)
        system = System(Settings(home=home, monitors=monitors))
        _set_clock(system, MONDAY + TRAINED * CADENCE)
        try:
            yield system
        finally:
            if (home / "lake").exists():
                system.log.close()
            system.ledger.close()


def _set_clock(system: System, now: datetime) -> None:
    clock = Clock(origin=now, started=datetime.now(UTC), speed=1.0)
    clock.write(system.settings.clock)


def _champion(system: System, family: Family, model: ModelId, rows: pa.Table) -> None:
    """Keep a champion's reference, profile and held-out rows, as training would."""
    folder = system.settings.artifacts / model / "first"
    folder.mkdir(parents=True)
    newest = pa.compute.greater_equal(
        rows["event_time"], pa.scalar(MONDAY + TRAINED // 2 * CADENCE, pa.timestamp("us", "UTC"))
    )
    held_out = rows.filter(newest).select(["id", "event_time", "label", "prediction"])
    held_out = held_out.rename_columns(["id", "event_time", "label", "candidate"])
    pq.write_table(held_out, folder / "holdout.parquet")
    step = max(rows.num_rows // REFERENCE_ROWS, 1)
    sample = rows.take(pa.array(np.arange(0, rows.num_rows, step)))
    pq.write_table(sample, folder / REFERENCE_FILE)
    profile = learnt(family, prepared(family, sample), rows, held_out)
    write_profile(profile, folder / PROFILE_FILE)
    right = (rows["prediction"].to_numpy() >= 0.5) == (rows["label"].to_numpy() == 1.0)
    began, at = MONDAY, MONDAY + TRAINED * CADENCE
    order = Order(
        key=f"first/{model}",
        model=model,
        at=at,
        reason="synthetic",
        window=Window(model=model, start=began, end=at, known_at=at),
        holdout_from=began + timedelta(days=7),
        seed=0,
    )
    candidate = Candidate(
        order=order,
        digest="0" * 64,
        folder=str(folder),
        rows=rows.num_rows,
        holdout_rows=held_out.num_rows,
        metrics=(Metric(name="accuracy", value=float(right.mean())),),
        parity=0.0,
        fit_seconds=0.0,
        lower_seconds=0.0,
    )
    system.ledger.append(
        Trained(model=model, at=at, version=1, candidate=candidate), key=version_key(model, 1)
    )
    head = Head(model=model, epoch=1, version=1, digest="0" * 64, artifact=f"{folder}/model.onnx")
    system.ledger.move(head, at=at, previous=None, reason="synthetic")


# -- rows -----------------------------------------------------------------------------------


def _rows(
    fleet: Fleet,
    levels: Floats,
    wrong: Floats,
    place: int,
    random: np.random.Generator,
    begin: datetime = MONDAY,
    fault: Fault | None = None,
) -> pa.Table:
    """Return rows of one model in slices from `begin` on, with what it said and what was true."""
    from scipy.special import ndtr

    count, rows = len(levels), fleet.rows
    mean = levels[:, place].copy()
    errors = np.clip(ERROR * np.maximum(wrong[:, place], 0.1), 0.0, 1.0)
    if fault is not None:
        mean[:, 0] += fault.shift
        mean[:, -1] += 0.4 * fault.shift
        errors = errors + fault.errors
    noise = random.standard_normal((count, rows, FEATURES + 1))
    values = (mean[:, None] + fleet.within[place] * noise).reshape(count * rows, -1)
    said = ndtr(values[:, -1])
    missed = random.random(count * rows) < np.repeat(errors, rows)
    nulls = random.random((count * rows, FEATURES)) < 0.01
    into = np.sort(random.random((count, rows)), axis=1) + np.arange(count)[:, None]
    micros = int(begin.timestamp() * 1e6) + (into.ravel() * CADENCE.total_seconds() * 1e6).astype(
        np.int64
    )
    features = {
        f"x{number:02}": pa.array(values[:, number], mask=nulls[:, number])
        for number in range(FEATURES)
    }
    return pa.table(
        {
            "id": [f"{place}-{each}" for each in micros],
            "version": pa.repeat(pa.scalar(0, pa.int32()), count * rows),
            "event_time": pa.array(micros).cast(pa.timestamp("us", "UTC")),
            "prediction": said,
            "label": ((said >= 0.5) ^ missed).astype(np.float64),
            **features,
        }
    )


def _predictions(model: ModelId, rows: pa.Table) -> Iterator[Prediction]:
    names = [f"x{number:02}" for number in range(FEATURES)]
    for row in rows.to_pylist():
        yield Prediction(
            id=row["id"],
            model=model,
            version=1,
            epoch=1,
            event_time=row["event_time"],
            predicted_at=row["event_time"],
            prediction=row["prediction"],
            features={name: row[name] for name in names},
        )


def _labels(model: ModelId, rows: pa.Table) -> Iterator[Label]:
    for row in rows.to_pylist():
        yield Label(id=row["id"], model=model, value=row["label"], observed_at=row["event_time"])
