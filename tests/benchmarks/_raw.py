"""Raw measurements: one JSON line each, which every figure is derived from."""

import json
import os
import platform
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
Line = dict[str, Any]
LIBRARIES = (
    "distributed",
    "duckdb",
    "evidently",
    "fastapi",
    "mlflow",
    "numpy",
    "onnxruntime",
    "prefect",
    "pyarrow",
    "scikit-learn",
    "skl2onnx",
    "slack-sdk",
    "uvicorn",
)


DATA = "../shared/data"
"""Where real data are looked for, if nothing else is said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run was asked for; `size` multiplies every number of rows.

    `data` is the folder of real data.
    """

    quick: bool
    seed: int
    size: float
    data: str = DATA

    def rows(self, *, quick: int, full: int) -> int:
        return max(1000, round((quick if self.quick else full) * self.size))


@dataclass(frozen=True, slots=True)
class Figure:
    """One number (or one for each part, or None: not measured) and what it says."""

    value: float | dict[str, float] | None
    unit: str
    note: str


class Raw:
    """A file of measurements that grows line by line, so that a run cut short keeps its own."""

    def __init__(self, file: Path) -> None:
        self.file = file
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("")

    def note(self, what: str, **measured: object) -> None:
        line = json.dumps({"what": what, **measured})
        with self.file.open("a", encoding="utf-8") as out:
            out.write(f"{line}\n")

    def lines(self) -> list[Line]:
        return [json.loads(line) for line in self.file.read_text(encoding="utf-8").splitlines()]


def machine() -> Line:
    """Return what the figures depend on beside the code."""
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in LIBRARIES},
    }


def peak_bytes() -> int:
    """Return the most memory that this process has had at once.

    On Linux a child's `ru_maxrss` begins at what its parent had when it started it.
    """
    if sys.platform == "linux":
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        told = dict(line.split(":", 1) for line in status.splitlines())
        return int(told["VmHWM"].split()[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


# -- cost -----------------------------------------------------------------------------------


@dataclass(slots=True)
class Cost:
    """Seconds of wall time, and of CPU of this process with all its threads."""

    wall_s: float = 0.0
    cpu_s: float = 0.0


@contextmanager
def cost() -> Iterator[Cost]:
    """Yield a cost that is filled in when the block ends."""
    spent = Cost()
    wall, cpu = time.perf_counter(), time.process_time()
    try:
        yield spent
    finally:
        spent.wall_s, spent.cpu_s = time.perf_counter() - wall, time.process_time() - cpu


@dataclass(slots=True)
class Parts:
    """What each part cost; a part inside another one counts as the outer."""

    spent: dict[str, Cost] = field(default_factory=dict)
    _inside: bool = False

    def timed(self, part: str, function: Callable[..., T]) -> Callable[..., T]:
        def run(*args: Any, **options: Any) -> T:
            if self._inside:
                return function(*args, **options)
            self._inside = True
            before = self.spent.setdefault(part, Cost())
            try:
                with cost() as spent:
                    return function(*args, **options)
            finally:
                self._inside = False
                before.wall_s += spent.wall_s
                before.cpu_s += spent.cpu_s

        return run


class Timed:
    """Stands for `real`; the calls of its methods count as the parts they are named to be."""

    def __init__(self, real: object, parts: Parts, **methods: str) -> None:
        self._real = real
        self._timed = {
            name: parts.timed(part, getattr(real, name)) for name, part in methods.items()
        }

    def __getattr__(self, name: str) -> Any:
        return self._timed[name] if name in self._timed else getattr(self._real, name)
