"""The scoreboard as a page: everybody side by side, with what it was made by."""

import subprocess
from collections.abc import Mapping, Sequence
from math import inf, isfinite
from pathlib import Path
from statistics import median

from tests.benchmarks._delays import BARE, LARGE, LATE, OURS
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
MISSED = """
## Missed faults

The share of injected faults that is not paged in the time that is looked at, each in every model:
{faults}. Who watches performance alone is held to faults of it.

"""
REAL = """
## Retraining on real data

The error over all steps, and in brackets how often it was retrained; of {steps}.{light}

"""
STRATEGIES = {
    "static": "no retraining",
    "fixed": "fixed schedule, as often as ours",
    "sliding": "every cycle, a sliding window",
    "expanding": "every cycle, all rows so far",
    "evidently": "when Evidently's default limits say so",
    "ours": "ours",
}
LATE_LABELS = """
## Performance that is told before the labels are there

How often the 90 % interval holds what all labels say later, of what was told; how much is UNKNOWN;
and how wide the interval is beside that of labels once all are in. "Changed" is where what inputs
mean changed three days ago.

"""
AGES = {
    "fresh": "newest rows",
    "hours": "a day's rows",
    "days": "the whole window",
    "mature": "all labels in",
}
"""Of the rows that are told of."""
BESIDE = """
Beside NannyML (CBPE, DLE) on the same rows of the last day, where we told it:

"""
TOLD = {
    "coverage, clean": "coverage90_by_age",
    "UNKNOWN, clean": "unknown_share_by_age",
    "width to labels, clean": "width_to_labels_by_age",
    "coverage, changed": "concept_coverage90",
    "UNKNOWN, changed": "concept_unknown_share",
}
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
    told += _missed(lines) + _late_labels(figures) + _real(lines)
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


def _missed(lines: Sequence[Line]) -> str:
    """Return what share of the faults above the floors each watcher misses."""
    large = {fault.name for fault in LARGE}
    found: dict[str, dict[str, list[bool]]] = {}
    faults: dict[str, None] = {}
    for line in lines:
        if line["what"] != "delay" or line["fault"] not in large:
            continue
        faults[line["fault"]] = None
        who = line["who"] if line["tuned"] else f"{line['who']}, default"
        missed = found.setdefault(who, {}).setdefault(line["weather"], [])
        missed += [each is None for each in line["delays"]]
    if not found:
        return ""
    # Those of ours first; then each at its tuned limit and its default one.
    order = sorted(found, key=lambda who: (not who.startswith(OURS), who))
    shares = {
        who: {weather: sum(each) / len(each) for weather, each in missed.items()}
        for who, missed in found.items()
    }
    table = [[who, *(_number(shares[who].get(weather)) for weather in Weather)] for who in order]
    return MISSED.format(faults=", ".join(faults)) + _table(["who", *Weather], table)


def _late_labels(figures: Mapping[str, Figure]) -> str:
    table = [
        [name, *(_number(told.get(age)) for age in AGES)]
        for name, figure in TOLD.items()
        if (told := _parts(figures, figure))
    ]
    if not table:
        return ""
    said = LATE_LABELS + _table(["", *AGES.values()], table)
    off = _parts(figures, "error_beside_nannyml")
    if not off:
        return said
    held = _parts(figures, "coverage_beside_nannyml")
    rows = [[name, _number(each), _number(held.get(name))] for name, each in off.items()]
    return said + BESIDE + _table(["who, data", "off, as a share", "coverage"], rows)


def _parts(figures: Mapping[str, Figure], name: str) -> dict[str, float]:
    found = figures[name].value if name in figures else None
    return found if isinstance(found, dict) else {}


def _real(lines: Sequence[Line]) -> str:
    told = [line for line in lines if line["what"] == "real"]
    if not told:
        return ""
    data = dict.fromkeys(line["data"] for line in told)
    by = {(line["data"], line["strategy"]): line for line in told}
    ran = {line["strategy"]: None for line in told}
    names = [each for each in STRATEGIES if each in ran]
    names += [each for each in ran if each not in STRATEGIES]
    table = [
        [
            STRATEGIES.get(name, name),
            *(
                f"{_number(line['error'])} ({line['retrains']})"
                if (line := by.get((each, name))) is not None
                else "not measured"
                for each in data
            ),
        ]
        for name in names
    ]
    steps = {line["data"]: line["steps"] for line in told}
    trees = {line["trees"] for line in told} - {None}
    about = REAL.format(
        steps=", ".join(f"{count} steps of {name}" for name, count in steps.items()),
        light=f" Fits have {max(trees)} trees: fewer than the full form's." if trees else "",
    )
    return about + _table(["who", *data], table)


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
