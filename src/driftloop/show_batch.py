"""How a batch is shown while it runs: a bar on a terminal, a line now and then elsewhere."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer

from driftloop.batch import Job, Progress, Scored
from driftloop.wiring import System

LINE_EVERY = 10.0
"""Seconds between two lines."""


def run_batch(system: System, job: Job, *, as_json: bool) -> None:
    """Score `job`, show how far it is on stderr, and print what came of it."""
    shown = _bar if sys.stderr.isatty() else _lines
    with shown() as told:
        scored = system.predict_batch(job, told=told)
    if as_json:
        import msgspec

        head = scored.head
        said = {
            "rows": scored.rows,
            "before": scored.before,
            "version": head.version,
            "epoch": head.epoch,
            "seconds": round(scored.seconds, 3),
            "out": str(job.out),
        }
        typer.echo(msgspec.json.encode(said).decode())
        return
    for line in told_of(job, scored):
        typer.echo(line)


def told_of(job: Job, scored: Scored) -> Iterator[str]:
    """Yield in words what came of a batch."""
    yield (
        f"{scored.rows} rows scored into {job.out} by version {scored.head.version} in"
        f" {scored.seconds:.1f} s ({_rate(scored.rows - scored.before, scored.seconds)})"
    )
    if scored.before:
        yield f"{scored.before} of them were scored before, by a run that was stopped"
    if scored.champion is not None:
        yield (
            f"it was begun with version {scored.head.version} and done with it: by now version"
            f" {scored.champion.version} answers"
        )


@contextmanager
def _bar() -> Iterator[Callable[[Progress], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description:>7}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        bar = bars.add_task("read", total=None)

        def told(progress: Progress) -> None:
            bars.update(
                bar,
                description=progress.what,
                completed=progress.done,
                total=progress.rows or None,
            )

        yield told


@contextmanager
def _lines() -> Iterator[Callable[[Progress], None]]:
    began = last = time.monotonic()
    turn = threading.Lock()

    def told(progress: Progress) -> None:
        nonlocal last
        with turn:
            now = time.monotonic()
            if now - last < LINE_EVERY or not progress.rows:
                return
            last = now
        typer.echo(
            f"{progress.what} {progress.done} of {progress.rows} rows after {now - began:.0f} s",
            err=True,
        )

    yield told


def _rate(rows: int, seconds: float) -> str:
    return f"{rows / max(seconds, 1e-3):,.0f} rows/s"
