"""The scoreboard as a page: everybody side by side, with what it was made by."""

import subprocess
from collections.abc import Mapping, Sequence
from math import inf, isfinite
from pathlib import Path
from statistics import median

from tests.benchmarks._delays import BARE, LATE, OURS
from tests.benchmarks._fleet import DROPS, OTHERS, SHIFTS, Weather
from tests.benchmarks._raw import Figure, Line

HEAD = """# Scoreboard

Made on {date} of commit {commit}, on {system} with {cores} cores and Python {python}, by

    {command}

which writes this page: change nothing by hand.
"""
CLEAN = """
## False pages a week, of 200 models with nothing wrong

A look every ten minutes at {rows} rows of {models} models. The others page at their default limits.
What is "classic" watches our own readings, which no product does, at its textbook limit.

"""
DELAYS = """
## Looks from a fault to its page: {weather} slices

Medians over the models; "never" where more than half of them are missed. {limits}

"""
TUNED = "Each other's limit is the lowest at which it makes no more false pages than ours."
DEFAULT = "At their default limits, where nearly all of them also page when nothing is wrong."
FIGURES = """
## All figures

| figure | value | unit | what it is |
|---|---:|---|---|
"""


def page(lines: Sequence[Line], figures: Mapping[str, Figure], command: str) -> str:
    """Return the scoreboard in Markdown; `command` is what made the lines."""
    machine = next(line for line in lines if line["what"] == "machine")
    told = HEAD.format(
        command=command,
        date=machine["at"][:10],
        commit=_commit(),
        system=machine["system"],
        cores=machine["cores"],
        python=machine["python"],
    )
    told += _clean(lines)
    for tuned in (True, False):
        for weather in Weather:
            told += _delays(lines, weather, tuned=tuned)
    return told + FIGURES + "".join(_row(name, figure) for name, figure in figures.items())


def _clean(lines: Sequence[Line]) -> str:
    found: dict[str, dict[str, float]] = {}
    clean = [line for line in lines if line["what"].startswith("clean") and "pages" in line]
    for line in clean:
        who = {"clean": OURS, "clean_bare": BARE, "clean_late": LATE}.get(line["what"])
        who = who or f"{line['name']}, {line['group']}"
        rate = line["pages"] / line["weeks"] * 200 / line["models"]
        found.setdefault(who, {})[line["weather"]] = rate
    if not found:
        return ""
    table = [
        [who, *(_number(rates.get(weather)) for weather in Weather)] for who, rates in found.items()
    ]
    about = CLEAN.format(rows=f"{clean[0]['rows']:,}", models=clean[0]["models"])
    return about + _table(["who", *Weather], table)


def _delays(lines: Sequence[Line], weather: str, *, tuned: bool) -> str:
    faults = [fault.name for fault in (*SHIFTS, *DROPS, *OTHERS)]
    found: dict[str, dict[str, float]] = {}
    for line in lines:
        if line["what"] != "delay" or line["weather"] != weather:
            continue
        if line["tuned"] is tuned or line["who"] == OURS:
            delays = [inf if each is None else each for each in line["delays"]]
            found.setdefault(line["who"], {})[line["fault"]] = median(delays)
    if not found:
        return ""
    first = [who for who in (OURS, BARE, LATE) if who in found]
    order = [*first, *(who for who in found if who not in first)]
    table = [[who, *(_looks(found[who].get(fault)) for fault in faults)] for who in order]
    about = DELAYS.format(weather=weather, limits=TUNED if tuned else DEFAULT)
    return about + _table(["who", *faults], table)


def _row(name: str, figure: Figure) -> str:
    if not isinstance(figure.value, dict):
        return f"| {name} | {_number(figure.value)} | {figure.unit} | {figure.note} |\n"
    rows = [f"| {name} | | {figure.unit} | {figure.note} |\n"]
    rows += [f"| - {part} | {_number(value)} | | |\n" for part, value in figure.value.items()]
    return "".join(rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    ruler = ["---", *["---:"] * (len(head) - 1)]
    return "".join(f"| {' | '.join(row)} |\n" for row in (head, ruler, *rows))


def _looks(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:g}" if isfinite(value) else "never"


def _number(value: float | None) -> str:
    if value is None:
        return "not measured"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _commit() -> str:
    """Return the commit that the code stands at, and whether it was changed since."""
    said = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return said.stdout.strip() or "unknown"
