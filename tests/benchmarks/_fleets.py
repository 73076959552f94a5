"""The simulated fleets: each weather's false pages, then its delays, in a process of its own."""

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.benchmarks import _delays, _false_pages
from tests.benchmarks._fleet import Weather
from tests.benchmarks._raw import Figure, Line, Plan, Raw, cost

ALONE = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
"""Threads of several processes would only be in each other's way."""


def measure(raw: Raw, plan: Plan) -> None:
    """Write raw lines: those of `_false_pages` and `_delays`, and weather_cost, of each weather."""
    before = {name: os.environ.get(name) for name in ALONE}
    os.environ.update(ALONE)
    try:
        with (
            TemporaryDirectory() as folder,
            ProcessPoolExecutor(len(Weather) if plan.quick else 2, get_context("spawn")) as pool,
        ):
            files = [Path(folder) / f"{weather}.jsonl" for weather in Weather]
            for lines in pool.map(_weather, files, Weather, [plan] * len(files)):
                for line in lines:
                    raw.note(**line)
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def figures(lines: Sequence[Line]) -> dict[str, Figure]:
    """Return the figures of both."""
    return {**_false_pages.figures(lines), **_delays.figures(lines)}


def _weather(file: Path, weather: Weather, plan: Plan) -> list[Line]:
    raw = Raw(file)
    with cost() as spent:
        _false_pages.measure(raw, plan, weather)
        _delays.measure(raw, plan, weather)
    raw.note("weather_cost", weather=weather, wall_s=spent.wall_s, cpu_s=spent.cpu_s)
    return raw.lines()
