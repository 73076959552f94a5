"""Parts of a benchmark in two processes, side by side; their lines stand in one order."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from multiprocessing import active_children, get_context
from pathlib import Path

from tests.benchmarks._raw import Plan, Raw, cost

PROCESSES = 2
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""Threads of several processes would only be in each other's way."""


@dataclass(frozen=True, slots=True)
class Part:
    """A module that measures; `share` is what it measures of it, where it does so one by one."""

    module: str
    share: str | None = None

    def beside(self, file: Path) -> Path:
        """Return the file that its lines stand in until they are all there."""
        name = self.module.rpartition(".")[2] + (f"-{self.share}" if self.share else "")
        return file.with_name(f"{file.stem}.{name}.part")


def side_by_side(raw: Raw, plan: Plan, parts: Sequence[Part], first: Sequence[str] = ()) -> None:
    """Write the lines of `parts` in their order, and after those of each a line part_cost.

    A run cut short leaves the lines of what was not done in files beside.

    Args:
        raw: takes the lines.
        plan: of each part.
        parts: in the order of their lines.
        first: modules that are begun first, in this order: those that take longest.
    """
    begun = sorted(parts, key=lambda part: _place(part.module, first))
    pool = ProcessPoolExecutor(PROCESSES, get_context("spawn"))
    try:
        with _one_thread():
            done = {
                part: pool.submit(_measure, part, plan, part.beside(raw.file)) for part in begun
            }
            for part in parts:
                done[part].result()
                with raw.file.open("a", encoding="utf-8") as out:
                    out.write(part.beside(raw.file).read_text(encoding="utf-8"))
                part.beside(raw.file).unlink()
    except BaseException:
        for child in active_children():
            child.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _measure(part: Part, plan: Plan, file: Path) -> None:
    raw = Raw(file)
    module = import_module(part.module)
    before = _children()
    with cost() as spent:
        if part.share is None:
            module.measure(raw, plan)
        else:
            module.measure(raw, plan, part.share)
    raw.note(
        "part_cost",
        part=part.module.rpartition(".")[2],
        share=part.share,
        wall_s=spent.wall_s,
        cpu_s=spent.cpu_s + _children() - before,
    )


def _children() -> float:
    """Return the CPU seconds of processes that this one has started and seen end."""
    times = os.times()
    return times.children_user + times.children_system


def _place(module: str, first: Sequence[str]) -> int:
    name = module.rpartition(".")[2]
    return first.index(name) if name in first else len(first)


@contextmanager
def _one_thread() -> Iterator[None]:
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(ONE_THREAD)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
