"""Real drifting data: never retrained, always, on a schedule, when others' tests say so, and ours.

Ours is one setting for all: the monitor files that `driftloop init` writes, at the data's own
times, looking at the end of each step. All others are fitted on rows up to the step's begin, and
ours but for those it holds out for its gate. Durations in these files, and when which memory is
tried, were settled with an eye on bike, bank and metro_traffic; nothing was by nycflights.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from time import perf_counter

import numpy as np

from driftloop.measure.drift import drift_readings
from driftloop.measure.reference import prepared
from driftloop.records import Task
from tests.benchmarks._raw import Figure, Line, Plan, Raw
from tests.benchmarks._real_fits import Fits, Floats
from tests.benchmarks._real_loop import Ours
from tests.benchmarks._real_sets import FILES, Steps, from_files, from_flights

TENTHS = 10
LIGHT = 30
"""Trees of a fit in the quick form, where scikit-learn's default is 100."""
EVIDENTLY = 0.1
"""Evidently's default limit of both distances, and half of the columns that of a data set."""
HALF = 0.5
Due = Callable[[int, int, Floats], bool]


def measure(raw: Raw, plan: Plan) -> None:
    """Write a line for each strategy on each data set."""
    for data in _sets(raw, plan):
        fits = Fits()
        began = perf_counter()
        ours = Ours(data, fits)
        answered = {"ours": ours.run()}
        orders = len(ours.renewals) - 1
        retrains = {"ours": orders}
        for renewal in ours.renewals:
            raw.note(
                "real renewal",
                data=data.name,
                step=renewal.step,
                why=renewal.why,
                memory=renewal.memory,
                tried=renewal.tried,
                passed=renewal.result.passed,
                gain=renewal.result.gain,
                low=renewal.result.low,
            )
        for name, due, whole in _others(data, orders, quick=plan.quick):
            answered[name], retrains[name] = _followed(data, fits, due, whole=whole)
        for name, answers in answered.items():
            raw.note(
                "real",
                data=data.name,
                strategy=name,
                retrains=retrains[name],
                **({"fits": ours.fitted, "changes": ours.changes} if name == "ours" else {}),
                **_errors(data, answers),
                steps=data.steps,
                trees=LIGHT if plan.quick else None,
                seconds=perf_counter() - began,
            )


def figures(lines: Sequence[Line]) -> dict[str, Figure]:
    """Return what retraining gained and cost, from raw lines alone."""
    told = [line for line in lines if line["what"] == "real"]
    by = {(line["data"], line["strategy"]): line for line in told}
    errors: dict[str, dict[str, float]] = {}
    retrains: dict[str, dict[str, float]] = {}
    for line in told:
        errors.setdefault(line["data"], {})[line["strategy"]] = line["error"]
        retrains.setdefault(line["data"], {})[line["strategy"]] = line["retrains"]
    found = {
        f"real_{name.replace(' ', '_').replace('-', '_')}": Figure(
            each, _unit(name), "error of each strategy, over all steps"
        )
        for name, each in errors.items()
    }
    found |= (
        {
            "real_retrains": Figure(
                {
                    f"{name}, {who}": count
                    for name, each in retrains.items()
                    for who, count in each.items()
                },
                "",
                "of a possible one a step",
            )
        }
        if retrains
        else {}
    )
    if ("bike", "sliding") in by:
        static, sliding, ours = (by["bike", s] for s in ("static", "sliding", "ours"))
        share = (static["error"] - ours["error"]) / (static["error"] - sliding["error"])
        light = f"; {ours['trees']} trees a fit" if ours.get("trees") else ""
        found["bike_gain_share"] = Figure(
            share, "", f"of the sliding window's gain, on bike{light}"
        )
        found["bike_retrains"] = Figure(ours["retrains"], "", f"of possible {ours['steps']}{light}")
    if ("metro_traffic", "static") in by:
        share = by["metro_traffic", "ours"]["error"] / by["metro_traffic", "static"]["error"] - 1.0
        found["metro_loss_share"] = Figure(share, "", "worse than no retraining, on metro_traffic")
    return found


# -- strategies -----------------------------------------------------------------------------


def _others(data: Steps, orders: int, *, quick: bool) -> Iterator[tuple[str, Due, bool]]:
    """Yield each strategy's name, when it retrains, and whether on all rows so far."""
    fixed = {round((i + 1) * data.steps / (orders + 1)) for i in range(orders)}
    yield "static", lambda *_: False, False
    yield "sliding", lambda *_: True, False
    yield "fixed", lambda step, *_: step in fixed, False
    if not quick:
        yield "expanding", lambda *_: True, True
        yield "evidently", _evidently(data), False


def _followed(data: Steps, fits: Fits, due: Due, *, whole: bool) -> tuple[Floats, int]:
    """Return what was answered to each row, and how often it was retrained."""
    answered = np.full(data.rows.num_rows, np.nan)
    first = data.edges[0]
    begin = 0
    answers, retrains = fits.between(data, 0, first), 0
    for step in range(data.steps):
        a, b = data.edges[step], data.edges[step + 1]
        if step and due(step, begin, answers):
            begin = 0 if whole else a - first
            answers, retrains = fits.between(data, begin, a), retrains + 1
        answered[a:b] = answers[a:b]
    return answered, retrains


def _evidently(data: Steps) -> Due:
    """Return when Evidently's default test of a data set calls for a retraining: half of columns.

    The last step's rows against those that the model was trained on.
    """

    def due(step: int, begin: int, answers: Floats) -> bool:
        a, b = data.edges[step - 1], data.edges[step]
        reference = data.rows.slice(begin, data.edges[0])
        current = data.rows.slice(a, b - a)
        said = drift_readings(data.family, current, prepared(data.family, reference))
        by = {r.column: r for r in said if r.metric == _default(data, r.column)}
        over = [r.value is not None and r.value >= EVIDENTLY for r in by.values()]
        return bool(over) and float(np.mean(over)) >= HALF

    return due


def _default(data: Steps, column: str | None) -> str:
    return "wasserstein" if column in data.family.numeric else "jensenshannon"


# -- errors ---------------------------------------------------------------------------------


def _errors(data: Steps, answers: Floats) -> Line:
    # A week that is not whole is no step, and nobody answers it.
    first, last = data.edges[0], data.edges[-1]
    parts = np.array_split(np.arange(first, last), TENTHS)
    if data.family.task is Task.BINARY:
        by_tenth = [1.0 - _area(data.label[part], answers[part]) for part in parts]
        # The whole flatters: the base rate moves with time.
        return {"error": float(np.mean(by_tenth)), "tenths": by_tenth}
    loss = np.abs if data.name.startswith("nycflights") else np.square
    lost = loss(data.label[first:last] - answers[first:last])
    root = (lambda value: value) if data.name.startswith("nycflights") else np.sqrt
    by_tenth = [float(root(lost[part - first].mean())) for part in parts]
    return {"error": float(root(lost.mean())), "tenths": by_tenth}


def _area(label: Floats, answers: Floats) -> float:
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(label, answers))


def _unit(name: str) -> str:
    if name == "bank":
        return "1 - AUC"
    return "min" if name.startswith("nycflights") else "RMSE"


# -- data -----------------------------------------------------------------------------------


def _sets(raw: Raw, plan: Plan) -> Iterator[Steps]:
    most = LIGHT if plan.quick else None
    names = ("bike",) if plan.quick else tuple(FILES)
    folder = Path(plan.data)
    missing = [name for name in names if not (folder / f"{name}.parquet").is_file()]
    if missing:
        said = f"{', '.join(missing)} not in {folder} (--data): not measured"
        raw.note("real missing", said=said)
        print(said)  # noqa: T201 - whoever runs it is to know
    yield from from_files(folder, tuple(n for n in names if n not in missing), most=most)
    if not plan.quick:
        yield from from_flights(most=most)
