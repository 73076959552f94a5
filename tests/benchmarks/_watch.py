"""A quiet `watch` as people run it: in Prefect, by the worker of `driftloop up`."""

import socket
import time
from collections.abc import Sequence
from datetime import timedelta
from statistics import median

import httpx
import psutil

from driftloop.up import Supervisor, services, status
from tests.benchmarks._raw import Figure, Line, Raw
from tests.benchmarks._world import NOW, World

DAY = 24 * 3600.0
"""Seconds: a cadence at which nothing is due by itself."""
RUN_BY = ("ingester", "slack", "prefect", "worker")
ENDS = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


def watch_runs(raw: Raw, made: World, *, models: int) -> None:
    """Run `watch` over the same models as people do: in Prefect, by the worker of `driftloop up`.

    What the two processes spend meanwhile on anything else, a second after the end included,
    counts too.
    """
    needed = tuple(each for each in services(made.settings) if each.name in RUN_BY)
    with Supervisor(made.settings, needed):
        pids = {each.name: each.pid for each in status(made.settings.home)}
        trees = {name: psutil.Process(pids[name]) for name in ("worker", "prefect")}
        url = f"{made.settings.prefect_api}/"
        with httpx.Client(base_url=url, timeout=30.0, trust_env=False) as prefect:
            watch = prefect.get("deployments/name/watch/driftloop").raise_for_status().json()["id"]
            for number in range(6):
                made.set_clock(NOW + (number + 10) * timedelta(hours=1, seconds=1))
                before = {name: _spent(tree) for name, tree in trees.items()}
                began = time.monotonic()
                said = _run_to_end(prefect, watch)
                wall = time.monotonic() - began
                time.sleep(1.0)
                if said != f"{models + 1} models looked at, 0 to renew, 1 problems":
                    raise RuntimeError(f"a quiet pass says {said}")
                raw.note(
                    "run",
                    # The worker imports as it goes, the first time.
                    warm=number > 0,
                    models=models,
                    wall_s=wall,
                    **{
                        f"{name}_cpu_s": _spent(tree) - before[name] for name, tree in trees.items()
                    },
                )


def watch_figure(lines: Sequence[Line]) -> Figure:
    """Return the CPU of a run of `watch`, its worker's and Prefect's; None where none was noted."""
    runs = [line for line in lines if line["what"] == "run" and line["warm"]]
    spent = [line["worker_cpu_s"] + line["prefect_cpu_s"] for line in runs]
    over = f" over {runs[0]['models']} quiet models" if runs else ""
    return Figure(
        median(spent) if spent else None, "s", f"CPU of `watch`{over}: worker and Prefect"
    )


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as door:
        return int(door.getsockname()[1])


def _run_to_end(prefect: httpx.Client, deployment: str) -> str:
    """Return what a run of `deployment`, ordered now, says at its end."""
    path = f"deployments/{deployment}/create_flow_run"
    run = prefect.post(path, json={"state": {"type": "SCHEDULED"}}).raise_for_status().json()["id"]
    until = time.monotonic() + 120.0
    while time.monotonic() < until:
        state = prefect.get(f"flow_runs/{run}").raise_for_status().json()["state"]
        if state["type"] in ENDS:
            return str(state["message"])
        time.sleep(0.25)
    raise RuntimeError("watch did not end")


def _spent(process: psutil.Process) -> float:
    """Return the CPU seconds of a process and of all that it started, ended ones included."""
    return sum(sum(each.cpu_times()[:4]) for each in (process, *process.children(recursive=True)))
