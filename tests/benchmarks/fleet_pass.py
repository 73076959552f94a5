"""One pass over a whole fleet: what it costs, beside Evidently, a bare scan, and as fleets grow."""

import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from math import log
from pathlib import Path
from statistics import median
from typing import Any

from driftloop.loop.watch import measurement_of
from driftloop.records import Decision, ModelId, State, Window
from driftloop.spec import Family
from tests.benchmarks._evidently import presets
from tests.benchmarks._large import large_figures, large_pass
from tests.benchmarks._nannyml import nannyml_costs
from tests.benchmarks._raw import Figure, Line, Plan, Raw, cost, peak_bytes
from tests.benchmarks._watch import DAY, free_port, watch_figure, watch_runs
from tests.benchmarks._world import (
    NOW,
    NUMBERS,
    WORDS,
    World,
    arrive,
    settle_many,
    world,
)

FLEET, ROWS, REFERENCE = 200, 5000, 10_000
MANY_ROWS, MANY_REFERENCE = 500, 1000
"""Rows of each model where the number of models grows."""
FEW = 4
"""Models where the number of rows grows."""
PASSES, QUICK_PASSES = 3, 2


def measure(raw: Raw, plan: Plan) -> None:
    """Write raw lines: pass, bare, scan, evidently, statistics, nannyml, run, peak, large."""
    os.environ.update(DO_NOT_TRACK="1", MLFLOW_DISABLE_TELEMETRY="true")
    fleet = 20 if plan.quick else FLEET
    ports = {f"{name}_port": free_port() for name in ("prefect", "slack")}
    with world(seed=plan.seed, watched=fleet, watch_every=DAY, **ports) as made:
        rows = max(200, round(ROWS * plan.size))
        family = settle_many(made, rows, reference=REFERENCE)
        _passes(raw, plan, made, family, "fleet", snapshots=True, hourly=rows)
        _without_snapshots(raw, made, family)
        _scans(raw, made, family)
        _evidently(raw, made, family, models=1 if plan.quick else 4)
        if not plan.quick:
            _nannyml(raw, made, family, models=4)
            watch_runs(raw, made, models=fleet)
    for models in (20, 400) if plan.quick else (20, 100, 500, 2000):
        _grown(raw, plan, models=models, rows=MANY_ROWS, reference=MANY_REFERENCE, grows="models")
    for rows in (10_000, 200_000) if plan.quick else (10_000, 100_000, 1_000_000):
        share = max(200, round(rows * plan.size) // FEW)
        _grown(raw, plan, models=FEW, rows=share, reference=REFERENCE, grows="rows")
    raw.note("peak", bytes=peak_bytes())
    if not plan.quick:
        large_pass(raw, plan)


def figures(lines: Sequence[Line]) -> dict[str, Figure]:
    """Return every figure, in the order they are shown; derived from raw lines alone."""
    ours = _middle(lines, "pass", "cpu_s", of="fleet")
    bare = _middle(lines, "bare", "cpu_s")
    scan = _middle(lines, "scan", "cpu_s")
    models = next(line["models"] for line in lines if line["what"] == "pass")
    shape = f"{models} models, {len(NUMBERS) + len(WORDS)} features"

    def theirs(what: str) -> float | None:
        spent = [line["cpu_s"] for line in lines if line["what"] == what]
        return sum(spent) / len(spent) * models if spent else None

    peak = next((line["bytes"] for line in lines if line["what"] == "peak"), None)
    return {
        "fleet_pass_cpu_s": Figure(
            ours, "s", f"CPU of a pass: {shape}, an hour's fresh rows, snapshots, ledger"
        ),
        "evidently_ratio": Figure(
            _ratio(theirs("evidently"), ours), "x", "Evidently's presets on the same rows, CPU"
        ),
        "statistics_ratio": Figure(
            _ratio(theirs("statistics"), ours), "x", "its drift statistics alone, without reports"
        ),
        "nannyml_ratio": Figure(
            _ratio(theirs("nannyml"), ours), "x", "NannyML's fitted calculators, drift alone"
        ),
        "scan_ratio": Figure(
            _ratio(bare, scan),
            "x",
            "the pass without snapshots beside DuckDB's scan of its columns",
        ),
        "exponent_models": _exponent(lines, "models"),
        "exponent_rows": _exponent(lines, "rows"),
        "peak_gib": Figure(None if peak is None else peak / 2**30, "GiB", "of all this, at most"),
        "watch_quiet_cpu_s": watch_figure(lines),
        **large_figures(lines),
    }


def _passes(
    raw: Raw,
    plan: Plan,
    made: World,
    family: Family,
    of: str,
    *,
    snapshots: bool = False,
    hourly: int | None = None,
    **noted: Any,
) -> None:
    """Run quiet passes; with `snapshots` Evidently's, with tests, is written of each model.

    With `hourly`, which is the rows of ten days, each pass finds an hour's fresh rows.
    """
    fleet = made.system.fleet.only(family.models)
    watcher = replace(made.system.watcher, fleet=fleet, every=snapshots)
    # The first pass prepares the references, and imports; the first fresh rows profiles.
    cold = 1 if hourly is None else 2
    for number in range(cold - 1 + (QUICK_PASSES if plan.quick else PASSES)):
        hour = NOW + (number + 1) * timedelta(hours=1)
        if hourly is not None and number:
            made.set_clock(hour)
            arrive(made, family, hourly, hour=hour)
        made.set_clock(hour + timedelta(seconds=number + 1))
        with cost() as spent:
            seen = watcher.watch()
        said = {each.problem if each.decision is None else each.decision.state for each in seen}
        if said != {State.FRESH} or len(seen) != len(family.models):
            raise RuntimeError(f"{len(seen)} quiet models are {said}")
        if snapshots and sum(_is_kept(made, each.decision) for each in seen) != len(seen):
            raise RuntimeError("a snapshot was not written")
        raw.note(
            "pass",
            of=of,
            warm=number >= cold,
            models=len(seen),
            rows=sum(each.rows for each in seen),
            wall_s=spent.wall_s,
            cpu_s=spent.cpu_s,
            **noted,
        )


def _grown(raw: Raw, plan: Plan, *, models: int, rows: int, reference: int, grows: str) -> None:
    with world(seed=plan.seed, watched=models) as made:
        family = settle_many(made, rows, reference=reference)
        _passes(raw, plan, made, family, grows, size=models if grows == "models" else models * rows)


def _without_snapshots(raw: Raw, made: World, family: Family) -> None:
    """Read and measure as a pass does, and neither record nor decide."""
    system = made.system
    heads = {head.model: head for head in system.ledger.heads()}
    for number in range(PASSES):
        with cost() as spent:
            now = system.clock.now()
            windows = {model: _window(family, model, now) for model in family.models}
            for model, look in system.log.looks(family, tuple(windows.values())):
                measurement_of(system.measure, family, heads[model], None, windows[model], look)
        raw.note("bare", warm=number > 0, cpu_s=spent.cpu_s, wall_s=spent.wall_s)


def _is_kept(made: World, decision: Decision | None) -> bool:
    return decision is not None and (made.settings.reports / f"{decision.key}.json").is_file()


def _scans(raw: Raw, made: World, family: Family) -> None:
    sums = ", ".join(
        [*(f"sum({name})" for name in (*NUMBERS, "prediction")), *(f"count({w})" for w in WORDS)]
    )
    sql = f"SELECT {sums} FROM lake.{family.table}_predictions"
    for number in range(PASSES + 2):
        with cost() as spent:
            made.system.log.query(sql)
        raw.note("scan", warm=number > 0, cpu_s=spent.cpu_s, wall_s=spent.wall_s)


def _evidently(raw: Raw, made: World, family: Family, *, models: int) -> None:
    """Put the rows of some models through Evidently as it comes, and through its statistics."""
    import pandas as pd
    import pyarrow.parquet as pq
    from evidently.legacy.calculations.stattests import (
        jensenshannon_stat_test,
        wasserstein_stat_test,
    )
    from evidently.legacy.core import ColumnType

    def statistics(current: pd.DataFrame, reference: pd.DataFrame) -> None:
        for names, test, kind in (
            ((*NUMBERS, "prediction"), wasserstein_stat_test, ColumnType.Numerical),
            (WORDS, jensenshannon_stat_test, ColumnType.Categorical),
        ):
            for name in names:
                test(reference[name], current[name], kind, None)

    heads = {head.model: head for head in made.system.ledger.heads()}
    wanted = ["label", "prediction", *NUMBERS, *WORDS]
    for number, model in enumerate((family.models[0], *family.models[:models])):
        window = _window(family, model, made.system.clock.now())
        current = made.system.log.rows(family, window).select(wanted).to_pandas()
        file = Path(heads[model].artifact).with_name("reference.parquet")
        reference = pq.read_table(file).select(wanted).to_pandas()
        if not number:
            presets(current.head(100), reference.head(100))  # imports what it imports late
            continue
        for what, run in (("evidently", presets), ("statistics", statistics)):
            with cost() as spent:
                run(current, reference)
            raw.note(what, model=model, cpu_s=spent.cpu_s, wall_s=spent.wall_s)


def _nannyml(raw: Raw, made: World, family: Family, *, models: int) -> None:
    """Note what NannyML spends on the same rows, in an environment of its own."""
    heads = {head.model: head for head in made.system.ledger.heads()}
    rows = {
        model: made.system.log.rows(family, _window(family, model, made.system.clock.now()))
        for model in family.models[:models]
    }
    references = {
        model: Path(heads[model].artifact).with_name("reference.parquet") for model in rows
    }
    for model, spent in nannyml_costs(rows, references).items():
        raw.note("nannyml", model=model, cpu_s=spent)


def _window(family: Family, model: ModelId, now: datetime) -> Window:
    return Window(model=model, start=now - family.window.span, end=now, known_at=now)


def _exponent(lines: Sequence[Line], grows: str) -> Figure:
    """Return the slope of log CPU over log size, by least squares."""
    sizes = sorted({line["size"] for line in lines if line.get("of") == grows})
    points = [
        (log(size), log(spent))
        for size in sizes
        if (spent := _middle(lines, "pass", "cpu_s", of=grows, size=size)) is not None
    ]
    if len(points) < 2:
        return Figure(None, "", f"of CPU over {grows}")
    mean_x, mean_y = (sum(each) / len(points) for each in zip(*points, strict=True))
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / sum(
        (x - mean_x) ** 2 for x, _ in points
    )
    return Figure(slope, "", f"of CPU over {grows}, {sizes[0]:,} to {sizes[-1]:,}")


def _middle(lines: Sequence[Line], what: str, key: str, **where: object) -> float | None:
    found = [
        line[key]
        for line in lines
        if line["what"] == what
        and line["warm"]
        and all(line[name] == value for name, value in where.items())
    ]
    return median(found) if found else None


def _ratio(one: float | None, other: float | None) -> float | None:
    return one / other if one is not None and other else None
