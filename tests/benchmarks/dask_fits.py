"""Fits on a Dask cluster beside fits in child processes here: what the way there costs.

The same fits of the same rows, two at a time: here, and on two Dask workers of one thread each on
this machine, ordered from a Prefect flow as a renewal does. CPU is that of all processes that have
a part in it: this one, the fits, Prefect's server, Dask's scheduler and workers.
"""

import asyncio
import logging
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from statistics import median

import anyio
import numpy as np
import psutil
import pyarrow as pa
from anyio import CapacityLimiter, to_thread
from prefect import flow, task
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.task_runners import ThreadPoolTaskRunner
from prefect_dask.task_runners import DaskTaskRunner

from driftloop.loop.watch import order
from driftloop.ports import Trainer
from driftloop.records import Order, Ordered
from driftloop.up import Supervisor, services, status
from tests.benchmarks._raw import Figure, Line, Plan, Raw
from tests.benchmarks._watch import DAY, free_port
from tests.benchmarks._world import NOW, World, columns, environment, times, world

WORKERS = 2
TASKS = 100
"""What the cost of tasks that do nothing is told of; a quick run measures fewer."""
SHARE = 0.1
"""Of a fit's CPU: what the way to Dask may add before it counts as dear."""
IDLE_S = 2.0


def measure(raw: Raw, plan: Plan) -> None:
    logging.getLogger("prefect").setLevel(logging.WARNING)
    fits = 6 if plan.quick else 16
    given = {
        "dask": f"tcp://127.0.0.1:{free_port()}",
        "prefect_port": free_port(),
        "watch_every": DAY,
        "maintain_every": DAY,
    }
    trees = 50 if plan.quick else 200
    with world(seed=plan.seed, trees=trees, watched=fits, **given) as made, ExitStack() as stack:
        cluster = stack.enter_context(_cluster(made))
        (needed,) = (each for each in services(made.settings) if each.name == "prefect")
        stack.enter_context(Supervisor(made.settings, (needed,)))
        (server,) = (each.pid for each in status(made.settings.home))
        rows = plan.rows(quick=2000, full=20_000)
        _history(made, rows)
        processes = [psutil.Process(), psutil.Process(server), *cluster]
        _compared(raw, plan, made, processes, rows=rows)


def figures(lines: Sequence[Line]) -> dict[str, Figure]:
    here, there = (_per_fit(lines, where) for where in ("here", "dask"))
    cpu = _less(there, here, "cpu_s")
    waits = _less(there, here, "wall_s")
    idle = next((line for line in lines if line["what"] == "idle"), None)
    return {
        "fit_here_cpu_s": Figure(here and here["cpu_s"], "s", "CPU a fit in a child process here"),
        "fit_dask_cpu_s": Figure(there and there["cpu_s"], "s", "CPU a fit on a Dask worker"),
        "dask_cpu_ratio": Figure(
            there["cpu_s"] / here["cpu_s"] if here and there else None, "x", "that beside this"
        ),
        "fit_here_wall_s": Figure(here and here["wall_s"], "s", "wall time a fit, two at a time"),
        "fit_dask_wall_s": Figure(there and there["wall_s"], "s", "the same on two Dask workers"),
        "dask_overhead_cpu_s": Figure(cpu, "s", "CPU that Dask and Prefect add to a fit"),
        "dask_overhead_wall_s": Figure(waits, "s", "wall time that they add, two at a time"),
        "dask_pays_from_cpu_s": Figure(
            None if cpu is None else max(cpu, 0.0) / SHARE,
            "s",
            f"CPU of a fit from which that is below {SHARE:.0%}: shorter ones cost less here",
        ),
        "trivial_tasks_dask_cpu_s": Figure(
            _tasks(lines, "dask"), "s", f"CPU of {TASKS} tasks that do nothing, through Dask"
        ),
        "trivial_tasks_threads_cpu_s": Figure(
            _tasks(lines, "threads"), "s", "the same in Prefect's threads"
        ),
        "cluster_idle_cpu": Figure(
            idle and idle["cpu_s"] / idle["wall_s"], "cores", "scheduler and two workers, idle"
        ),
        "cluster_idle_mib": Figure(
            idle and idle["mib"], "MiB", "their memory, fork servers included"
        ),
    }


# -- what is measured -----------------------------------------------------------------------


@flow(name="fits")
async def fits() -> None:
    # A flow travels to Dask with what it names: functions by their names, all else whole.
    await _all_asked()


async def _all_asked() -> None:
    """Fit what `ASKED` holds, as many at a time as there are Dask workers."""
    at_once = CapacityLimiter(WORKERS)
    async with anyio.create_task_group() as group:
        for each in ASKED.orders:
            fit = partial(to_thread.run_sync, ASKED.trainer.train, each, None, limiter=at_once)
            group.start_soon(fit)


@task
def nothing() -> None: ...


@flow(name="nothing-often")
def nothing_often(count: int) -> None:
    for each in [nothing.submit() for _ in range(count)]:
        each.result()


class Asked:
    """What the next run of `fits` is to do."""

    trainer: Trainer
    orders: Sequence[Order] = ()


ASKED = Asked()


def _compared(
    raw: Raw, plan: Plan, made: World, processes: list[psutil.Process], *, rows: int
) -> None:
    from flows.fit import DaskTrainer

    system = made.system
    trainers: dict[str, Trainer] = {"here": system.isolated, "dask": DaskTrainer(system)}
    models = system.fleet.family_named("quiet").models
    with temporary_settings({PREFECT_API_URL: made.settings.prefect_api}):
        for number, warm in enumerate((False, True)):
            for where, trainer in trainers.items():
                # Whoever is first imports, and forks its server.
                count = len(models) if warm else WORKERS
                ASKED.trainer, ASKED.orders = trainer, _orders(made, where, number, count)
                with _spent(processes) as spent:
                    asyncio.run(fits())
                raw.note("fits", where=where, warm=warm, fits=count, rows=rows, **spent)
        with _spent(processes[2:], settle=0.0) as spent:
            time.sleep(IDLE_S)
        raw.note("idle", mib=_memory(processes[2:]) / 2**20, **spent)
        for where, runner in (
            ("threads", ThreadPoolTaskRunner(max_workers=WORKERS)),
            ("dask", DaskTaskRunner(address=made.settings.dask)),
        ):
            count = 30 if plan.quick else TASKS
            with _spent(processes) as spent:
                nothing_often.with_options(task_runner=runner)(count)
            raw.note("tasks", where=where, tasks=count, **spent)


def _orders(made: World, where: str, number: int, count: int) -> list[Order]:
    family = made.system.fleet.family_named("quiet")
    orders = []
    for model in family.models[:count]:
        key = f"{model}/{where}/{number}"
        each = order(family, model, key=key, reason="measured", now=made.system.clock.now())
        made.system.ledger.append(Ordered(model=model, at=NOW, order=each), key=key)
        orders.append(each)
    return orders


# -- cost -----------------------------------------------------------------------------------


@contextmanager
def _spent(processes: Sequence[psutil.Process], *, settle: float = 0.5) -> Iterator[Line]:
    """Yield a line that has wall time and the processes' CPU, when the block ends."""
    line: Line = {}
    wall, cpu = time.perf_counter(), _cpu(processes)
    yield line
    took = time.perf_counter() - wall
    # Prefect's server takes up in batches what it was told.
    time.sleep(settle)
    line |= {"wall_s": took, "cpu_s": _cpu(processes) - cpu}


def _cpu(processes: Sequence[psutil.Process]) -> float:
    """Return the CPU seconds of these and of what they started, ended ones included."""
    trees = {each.pid: each for top in processes for each in (top, *top.children(recursive=True))}
    return sum(sum(each.cpu_times()[:4]) for each in trees.values())


def _memory(processes: Sequence[psutil.Process]) -> float:
    trees = {each.pid: each for top in processes for each in (top, *top.children(recursive=True))}
    return float(sum(each.memory_full_info().uss for each in trees.values()))


# -- what it is measured on -----------------------------------------------------------------


@contextmanager
def _cluster(made: World) -> Iterator[list[psutil.Process]]:
    """Yield a scheduler and its workers, started as the README says."""
    address = made.settings.dask
    host, _, port = address.removeprefix("tcp://").partition(":")
    folder = str(made.settings.home)
    commands = [["scheduler", "--host", host, "--port", port, "--no-dashboard"]]
    worker = ["worker", address, "--nthreads", "1", "--preload", "flows.fit", "--no-dashboard"]
    commands += [[*worker, "--local-directory", folder]] * WORKERS
    env = environment(made.settings) | {
        "DASK_DISTRIBUTED__WORKER__DAEMON": "False",
        "PREFECT_HOME": str(Path(folder) / "prefect"),
    }
    with ExitStack() as stack, (Path(folder) / "dask.log").open("ab") as log:
        found = []
        for each in commands:
            argv = [sys.executable, "-m", "dask", *each]
            process = subprocess.Popen(argv, env=env, stdout=log, stderr=subprocess.STDOUT)
            stack.callback(process.wait)
            stack.callback(process.terminate)
            found.append(psutil.Process(process.pid))
        yield found


def _history(made: World, rows: int) -> None:
    """Write labelled history of every model of `quiet`, `rows` each, and ingest it."""
    family = made.system.fleet.family_named("quiet")
    total = rows * len(family.models)
    told = columns(made.rng, total)
    at = pa.array(times(rows, days=55.5) * len(family.models), pa.timestamp("us", "UTC"))
    table = pa.table(
        {
            "id": [f"h{n}" for n in range(total)],
            "model": np.repeat(np.array(family.models, dtype=object), rows),
            "asked_at": at,
            **{name: pa.array(values) for name, values in told.items()},
            "observed_at": at,
        }
    )
    with made.system.spool("backfill") as spool:
        spool.history(family, table)
    made.ingest()


# -- figures --------------------------------------------------------------------------------


def _per_fit(lines: Sequence[Line], where: str) -> dict[str, float] | None:
    found = [line for line in lines if line["what"] == "fits" and line["where"] == where]
    warm = [line for line in found if line["warm"]]
    if not warm:
        return None
    return {
        kind: median(line[kind] / line["fits"] for line in warm) for kind in ("cpu_s", "wall_s")
    }


def _less(there: dict[str, float] | None, here: dict[str, float] | None, kind: str) -> float | None:
    return there[kind] - here[kind] if there and here else None


def _tasks(lines: Sequence[Line], where: str) -> float | None:
    found = [line for line in lines if line["what"] == "tasks" and line["where"] == where]
    return TASKS * median(line["cpu_s"] / line["tasks"] for line in found) if found else None
