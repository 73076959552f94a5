"""Run benchmarks; `python -m tests.benchmarks [NAME ...]` or `make bench`.

Each module here without a leading underscore is one: `measure` writes raw lines, `figures`
derives every figure from these lines alone. The last line of each is all its figures as JSON.
"""

import argparse
import json
import signal
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.benchmarks._raw import DATA, Figure, Line, Plan, Raw, machine


def main() -> None:
    asked = _asked()
    # So that services and homes are cleared away then, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    plan = Plan(quick=asked.quick, seed=asked.seed, size=asked.size, data=asked.data)
    # What is piped has no width of its own.
    console = Console(width=None if sys.stdout.isatty() else 120)
    stamp = f"{datetime.now(UTC):%Y%m%dT%H%M%S}"
    about = machine()
    _say(console, about)
    for name in asked.names or _benchmarks():
        began = time.perf_counter()
        module = import_module(f"tests.benchmarks.{name}")
        raw = Raw(asked.out / f"{name}-{stamp}.jsonl")
        raw.note("machine", **about, plan=asdict(plan))
        module.measure(raw, plan)
        figures: dict[str, Figure] = module.figures(raw.lines())
        console.print(_table(name, figures))
        summary = {key: asdict(figure) for key, figure in figures.items()}
        raw.file.with_suffix(".json").write_text(json.dumps(summary, indent=2) + "\n")
        console.print(f"raw measurements: {raw.file}", soft_wrap=True)
        if asked.page is not None:
            asked.page.write_text(module.page(raw.lines(), figures, _command()), encoding="utf-8")
        shown = {key: _rounded(figure.value) for key, figure in figures.items()}
        shown |= {**asdict(plan), "took_s": round(time.perf_counter() - began, 1)}
        sys.stdout.write(json.dumps(shown) + "\n")
        sys.stdout.flush()


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description="Measure; nothing is judged.")
    known = ", ".join(_benchmarks())
    parser.add_argument("names", nargs="*", help=f"of {known}; all if left out")
    parser.add_argument("--quick", action="store_true", help="smaller, within a minute")
    parser.add_argument("--seed", type=int, default=7, help="of all synthetic data")
    parser.add_argument("--size", type=float, default=1.0, help="times as many rows")
    parser.add_argument("--data", default=DATA, help="folder of real data")
    parser.add_argument("--out", type=Path, default=Path("bench-results"))
    parser.add_argument("--page", type=Path, help="write a benchmark's page, if it has one, here")
    asked = parser.parse_args()
    if asked.page is not None and asked.names != ["judgement"]:
        parser.error("judgement alone has a page")
    if unknown := set(asked.names) - set(_benchmarks()):
        parser.error(f"no benchmark is called {', '.join(sorted(unknown))}; known: {known}")
    return asked


def _command() -> str:
    return " ".join(["python -m tests.benchmarks", *sys.argv[1:]])


def _benchmarks() -> list[str]:
    here = Path(__file__).parent
    return sorted(file.stem for file in here.glob("[!_]*.py"))


def _say(console: Console, about: Line) -> None:
    libraries = ", ".join(f"{name} {version}" for name, version in about["libraries"].items())
    console.print(
        f"{about['system']}, {about['cores']} cores, load {about['load']}, "
        f"Python {about['python']}, {about['at']}\n{libraries}"
    )


def _table(name: str, figures: dict[str, Figure]) -> Table:
    table = Table(title=name, title_justify="left")
    for column in ("figure", "value", "unit", "what it is"):
        table.add_column(column, justify="right" if column == "value" else "left")
    for key, figure in figures.items():
        parts = figure.value if isinstance(figure.value, dict) else {}
        whole = "" if parts else _number(figure.value)
        table.add_row(key, whole, figure.unit, figure.note)
        for part, value in parts.items():
            table.add_row(f"  {part}", _number(value), figure.unit, "")
    return table


def _rounded(value: float | dict[str, float] | None) -> object:
    if isinstance(value, dict):
        return {part: _rounded(each) for part, each in value.items()}
    return None if value is None else float(f"{value:.5g}")


def _number(value: object) -> str:
    if not isinstance(value, int | float):
        return "not measured"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


if __name__ == "__main__":
    main()
