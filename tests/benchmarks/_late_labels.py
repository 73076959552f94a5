"""Performance told before the labels are there, against what the labels said later.

Simulated models of three tasks, each at one moment: a window of 14 days, labels that arrive late,
days that differ from each other, a gate's holdout. What is estimated then, of the newest rows, of
the last day and of the whole window, is held to the same metric of the same rows once all labels
are there; and of a window whose labels are all in, to the metric of very many rows like these.

`clean`: nothing changed, or inputs moved and what they mean did not. `concept`: what inputs mean
changed three days ago, and most labels since have yet to come: told apart, and averaged into
nothing.
"""

import json
import subprocess
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from driftloop.measure import prepared
from driftloop.measure.columns import blocks
from driftloop.measure.decay import estimates, interval
from driftloop.measure.estimate import estimate_readings
from driftloop.records import Task
from driftloop.spec import DecayPolicy, Family, load_fleet
from tests.benchmarks._nannyml import PLACE
from tests.benchmarks._raw import Figure, Line, Plan, Raw

Floats = NDArray[np.float64]
START = datetime(2026, 3, 1, tzinfo=UTC)
DAYS, HELD = 14, 7
LATER = timedelta(days=21)
NUMBERS = ("x0", "x1", "x2", "x3", "x4", "x5")
CLASSES = ("a", "b", "c", "d")
METRICS = {
    Task.BINARY: ("accuracy", "roc_auc", "log_loss"),
    Task.MULTICLASS: ("accuracy", "f1"),
    Task.REGRESSION: ("mae", "rmse"),
}
DELAYS = ("exponential", "outcome")
CLEAN = ("still", "inputs")
SCENARIOS = (*CLEAN, "concept")
COVERED = 0.9
AGES = {"age=newest": "fresh", "age=day": "hours", None: "days"}
THEIRS_OF = 3
"""So many models of each case NannyML is asked about: it takes seconds for each."""
TRUTHS, TRUTH_ROWS = 4, 50_000
ENOUGH = 200
"""Of fewer estimates of an age its coverage is noise: then that of all ages is told."""
THEIRS = """
import json, sys, warnings
warnings.simplefilter("ignore")
import nannyml, pandas
said = {}
for key, task, metric, reference, current in json.load(sys.stdin):
    reference, current = pandas.read_parquet(reference), pandas.read_parquet(current)
    answer = "said" if task == "binary" else "prediction"
    given = dict(y_true="label", y_pred=answer, chunk_number=1)
    if task == "binary":
        made = nannyml.CBPE(y_pred_proba="prediction", problem_type="classification_binary",
            metrics=[metric], **given)
    else:
        made = nannyml.DLE(feature_column_names=[c for c in reference if c[0] == "x"],
            metrics=[metric], **given)
    found = made.fit(reference).estimate(current).to_df()[metric].iloc[-1]
    said[key] = [float(found["value"]), float(found.get("sampling_error", 0.0))]
print(json.dumps(said))
"""
"""Its names of metrics are ours."""


def measure(raw: Raw, plan: Plan) -> None:
    models = max(1, round((4 if plan.quick else 40) * plan.size))
    n = plan.rows(quick=2500, full=8000)
    asked = []
    with TemporaryDirectory() as folder:
        for place, case in enumerate(_cases()):
            for at in range(models):
                rng = np.random.default_rng([plan.seed, place, at])
                made = _made(case, rng, n)
                for line in _looked(case, made, quick=plan.quick):
                    raw.note("estimated", model=at, **line)
                if not plan.quick and at < THEIRS_OF and case.task is not Task.MULTICLASS:
                    asked += _asked(case, made, at, Path(folder))
        for line in _theirs(asked):
            raw.note("nannyml", **line)


def figures(lines: list[Line]) -> dict[str, Figure]:
    told = [line for line in lines if line["what"] == "estimated"]
    clean = [line for line in told if line["scenario"] in CLEAN]
    concept = [line for line in told if line["scenario"] == "concept"]
    ages = ("fresh", "hours", "days", "mature")
    covered = {age: _covered(_of(clean, age)) for age in ages}
    return {
        "coverage90": Figure(
            _least(clean, covered),
            "",
            "of 90 % intervals on clean data, at the age where it is least (quick: of all ages)",
        ),
        "coverage90_by_age": Figure(_only(covered), "", "clean data"),
        "coverage90_by_case": Figure(_by_case(clean, _covered), "", "clean data, all ages"),
        "unknown_share": Figure(_unknown(clean), "", "of estimates on clean data"),
        "unknown_share_by_age": Figure(
            _only({age: _unknown(_of(clean, age)) for age in ages}), "", "clean data"
        ),
        "width_to_labels": Figure(
            _wide(_of(clean, "days")), "x", "median; the whole window, of labels once all are in"
        ),
        "width_to_labels_by_age": Figure(
            _only({age: _wide(_of(clean, age)) for age in ages}), "x", "median; clean data"
        ),
        "concept_coverage90": Figure(
            _only({age: _covered(_of(concept, age)) for age in ages}),
            "",
            "what inputs mean changed three days ago; of what was told",
        ),
        "concept_unknown_share": Figure(
            _only({age: _unknown(_of(concept, age)) for age in ages}), "", "likewise"
        ),
        "estimate_ms": Figure(_median([line["ms"] for line in told]), "ms", "all of one model"),
        **_beside(lines),
    }


# -- worlds ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Case:
    task: Task
    delay: str
    scenario: str
    metric: str = ""

    @property
    def name(self) -> str:
        return f"{self.task}, {self.delay} delay, {self.scenario}"


@dataclass(frozen=True, slots=True)
class Made:
    """A model at one moment: its rows, with all labels, and when each of them arrives."""

    now: datetime
    rows: pa.Table
    arrives: Floats
    reference: pa.Table
    holdout: pa.Table


def _cases() -> Iterator[Case]:
    for task in METRICS:
        for delay in DELAYS:
            for scenario in SCENARIOS:
                yield Case(task, delay, scenario)


def _made(case: Case, rng: np.random.Generator, n: int) -> Made:
    reference = _rows(case, rng, np.sort(rng.uniform(-30.0, -HELD, 5000)), still=True)
    holdout = _rows(case, rng, np.sort(rng.uniform(-HELD, 0.0, max(1000, n // 2))), still=True)
    rows = _rows(case, rng, np.sort(rng.uniform(0.0, DAYS, n)))
    held = pa.table(
        {
            "event_time": holdout["event_time"],
            "label": holdout["label"],
            "candidate": holdout["prediction"],
        }
    )
    return Made(
        now=START + timedelta(days=DAYS),
        rows=rows,
        arrives=_delays(case, rng, rows["label"].to_numpy()),
        reference=reference,
        holdout=held,
    )


def _rows(
    case: Case, rng: np.random.Generator, day: Floats, *, still: bool = False, typical: bool = False
) -> pa.Table:
    """Return rows of events at `day`, counted from the window's start; `typical` days are alike."""
    n = len(day)
    x = rng.normal(size=(n, len(NUMBERS)))
    if case.scenario == "inputs" and not still:
        x[:, :2] += 0.5 * np.clip((day - DAYS + 4.0) / 2.0, 0.0, 1.0)[:, None]
    of_day = np.floor(day).astype(int) + 40
    moved = np.zeros(100) if typical else rng.normal(0.0, 1.0, 100)
    changed = (day >= DAYS - 3.0) & (case.scenario == "concept") & (not still)
    return pa.table(
        {
            "event_time": _times(day),
            **{name: x[:, at] for at, name in enumerate(NUMBERS)},
            **_outcomes(case.task, rng, x, moved[of_day], changed),
        }
    )


def _outcomes(
    task: Task, rng: np.random.Generator, x: Floats, moved: Floats, changed: NDArray[np.bool_]
) -> dict[str, Floats]:
    n = len(x)
    turn = np.where(changed, -0.3, 1.0)
    if task is Task.BINARY:
        odds = 1.2 * turn * x[:, 0] + 0.8 * x[:, 1] + 0.4 * x[:, 0] * x[:, 2] - 0.5 + 0.15 * moved
        score = 1.0 / (1.0 + np.exp(-(1.3 * x[:, 0] + 0.9 * x[:, 1] - 0.3)))
        true = rng.random(n) < 1.0 / (1.0 + np.exp(-odds))
        return {"prediction": score, "label": true.astype(np.float64)}
    if task is Task.MULTICLASS:
        pull = np.stack([turn * x[:, 0], x[:, 1], x[:, 2], np.zeros(n)], axis=1) * 1.5
        pull[:, 0] += 0.15 * moved
        said = (
            pull * [1.1, 0.9, 1.0, 1.0] * np.where(changed, -1 / 0.3, 1.0)[:, None] ** [1, 0, 0, 0]
        )
        true = np.argmax(pull + rng.gumbel(size=pull.shape), axis=1)
        return {"prediction": said.argmax(axis=1).astype(float), "label": true.astype(float)}
    middle = 20.0 + 3.0 * turn * x[:, 0] + x[:, 1] ** 2 + 0.3 * moved
    spread = 1.5 * np.exp(0.3 * x[:, 0])
    label = middle + spread * rng.standard_t(6, n)
    return {"prediction": 20.2 + 2.9 * x[:, 0] + 0.9 * x[:, 1] ** 2, "label": label}


def _delays(case: Case, rng: np.random.Generator, label: Floats) -> Floats:
    """Return days until each label arrives; infinite for a tenth of them."""
    n = len(label)
    if case.delay == "exponential":
        mean = np.ones(n)
    elif case.task is Task.REGRESSION:
        # What takes longer is known later.
        mean = 2.0 * np.argsort(np.argsort(label)) / n + 0.1
    else:
        mean = np.where(label == 1.0, 0.3, 2.0)
    return np.where(rng.random(n) < 0.1, np.inf, rng.exponential(mean))


def _times(day: Floats) -> pa.Array:
    begun = int(START.timestamp() * 1e6)
    return pa.array(begun + np.round(day * 86400e6).astype(np.int64), pa.timestamp("us", tz="UTC"))


@cache
def _family(task: Task, metric: str) -> Family:
    eta = load_fleet(Path(__file__).parents[1] / "monitors").family_named("eta")
    feature = eta.features["distance"].model_copy(update={"range": None, "required": False})
    return eta.model_copy(
        update={
            "task": task,
            "classes": CLASSES if task is Task.MULTICLASS else (),
            "features": dict.fromkeys(NUMBERS, feature),
            "decay": DecayPolicy(metric=metric, warn=0.1, alarm=0.2),
        }
    )


# -- looks ----------------------------------------------------------------------------------


def _looked(case: Case, made: Made, *, quick: bool) -> Iterator[Line]:
    """Yield each estimate with what came out later; `quick` is of each task's first metric."""
    import time

    for metric in METRICS[case.task][: 1 if quick else None]:
        family = _family(case.task, metric)
        reference = prepared(family, made.reference)
        for later in (timedelta(0), LATER):
            now = made.now + later
            own = _known_at(made, now)
            began = time.process_time()
            found = list(estimate_readings(family, own, reference, {}, now, made.holdout))
            spent = 1000.0 * (time.process_time() - began)
            for reading in found:
                age = "mature" if later else AGES[reading.segment]
                if reading.metric != metric or (later and reading.segment is not None):
                    continue
                part = _part(made, own, age, now)
                later_said, width = _labels_alone(family, metric, part)
                true = (
                    _truth(replace(case, metric=metric, delay=""))
                    if age == "mature"
                    else later_said
                )
                yield {
                    "case": case.name,
                    "scenario": case.scenario,
                    "metric": metric,
                    "age": age,
                    "value": reading.value,
                    "low": reading.low,
                    "high": reading.high,
                    "labels": reading.n,
                    "rows": part.num_rows,
                    "truth": true,
                    "width_of_labels": width,
                    "problem": reading.problem,
                    "ms": spent,
                }


def _known_at(made: Made, now: datetime) -> pa.Table:
    happened = made.rows["event_time"].cast(pa.int64()).to_numpy() / 1e6
    arrived = happened + made.arrives * 86400.0
    here = arrived <= now.timestamp()
    when = np.where(here, arrived, 0.0) * 1e6
    labels = made.rows["label"].to_numpy()
    rows = made.rows.drop_columns("label")
    return rows.append_column("label", pa.array(labels, mask=~here)).append_column(
        "labelled_at", pa.array(when.astype(np.int64), pa.timestamp("us", tz="UTC"), mask=~here)
    )


def _part(made: Made, own: pa.Table, age: str, now: datetime) -> pa.Table:
    happened = made.rows["event_time"].cast(pa.int64()).to_numpy() / 1e6
    old = now.timestamp() - happened
    if age == "hours":
        return made.rows.filter(pa.array(old <= 86400.0))
    if age == "fresh":
        delay = own["labelled_at"].cast(pa.int64()).to_numpy(zero_copy_only=False) / 1e6 - happened
        from driftloop.measure.delays import learnt

        half = learnt(delay, old, np.zeros(len(old), np.int64), 7 * 86400.0).median
        return made.rows.filter(pa.array(old <= half))
    return made.rows


def _labels_alone(family: Family, metric: str, rows: pa.Table) -> tuple[float, float | None]:
    """Return the metric of rows with all their labels, and how wide its interval is."""
    label, prediction = rows["label"].to_numpy(), rows["prediction"].to_numpy()
    value, influence = estimates(family.task, label, prediction)[metric]()
    block = blocks(rows, timedelta(days=1))
    block = np.unique(block, return_inverse=True)[1]
    if block.max() < 2:
        block = np.arange(len(label))
    low, high = interval(value, influence, block)
    return value, None if low is None or high is None else high - low


@cache
def _truth(case: Case) -> float:
    """Return the metric of very many rows like those of the window, of days that are alike."""
    found = []
    for seed in range(TRUTHS):
        rng = np.random.default_rng([seed, 99])
        rows = _rows(case, rng, np.sort(rng.uniform(0.0, DAYS, TRUTH_ROWS)))
        label, prediction = rows["label"].to_numpy(), rows["prediction"].to_numpy()
        found.append(estimates(case.task, label, prediction)[case.metric]()[0])
    return float(np.mean(found))


# -- beside NannyML -------------------------------------------------------------------------


def _asked(case: Case, made: Made, at: int, folder: Path) -> Iterator[tuple[Line, str, str]]:
    """Yield what NannyML is asked: the last day, by what rows with labels tell it."""
    own = _known_at(made, made.now)
    known = own.filter(own["label"].is_valid())
    newest = _part(made, own, "hours", made.now)
    for metric in METRICS[case.task]:
        key = f"{case.name}, {metric}, {at}".replace(" ", "-").replace(",", "")
        files = [folder / f"{key}-{side}.parquet" for side in ("known", "newest")]
        for file, rows in zip(files, (known, newest), strict=True):
            told = rows.select([*NUMBERS, "prediction", "label"])
            said = (told["prediction"].to_numpy() >= 0.5).astype(float)
            pq.write_table(told.append_column("said", pa.array(said)), file)
        truth, _ = _labels_alone(_family(case.task, metric), metric, newest)
        about = {
            "key": key,
            "case": case.name,
            "scenario": case.scenario,
            "metric": metric,
            "model": at,
            "task": str(case.task),
            "truth": truth,
        }
        yield about, *map(str, files)


def _theirs(asked: list[tuple[Line, str, str]]) -> Iterator[Line]:
    """Yield what NannyML said; nothing where it is not installed."""
    python = PLACE / "bin" / "python"
    named = [line for line in asked if line[0]["metric"] != "log_loss"]  # it has none
    if not named or not python.exists():
        return
    given = [(a["key"], a["task"], a["metric"], known, newest) for a, known, newest in named]
    ran = subprocess.run(
        [python, "-c", THEIRS], input=json.dumps(given), capture_output=True, text=True, check=True
    )
    said = json.loads(ran.stdout.splitlines()[-1])
    for about, _, _ in named:
        value, error = said[about["key"]]
        yield {**about, "value": value, "low": value - 1.645 * error, "high": value + 1.645 * error}


# -- figures --------------------------------------------------------------------------------


def _of(lines: list[Line], age: str) -> list[Line]:
    return [line for line in lines if line["age"] == age]


def _covered(lines: list[Line]) -> float | None:
    told = [line for line in lines if line["low"] is not None]
    if not told:
        return None
    return float(np.mean([line["low"] <= line["truth"] <= line["high"] for line in told]))


def _least(lines: list[Line], covered: dict[str, float | None]) -> float | None:
    if any(len(_of(lines, age)) < ENOUGH for age in covered):
        return _covered(lines)
    return min((each for each in covered.values() if each is not None), default=None)


def _unknown(lines: list[Line]) -> float | None:
    return float(np.mean([line["low"] is None for line in lines])) if lines else None


def _wide(lines: list[Line]) -> float | None:
    return _median(
        [
            (line["high"] - line["low"]) / line["width_of_labels"]
            for line in lines
            if line["low"] is not None and line["width_of_labels"]
        ]
    )


def _median(values: list[float]) -> float | None:
    return float(np.median(values)) if values else None


def _only(found: dict[str, float | None]) -> dict[str, float]:
    return {name: value for name, value in found.items() if value is not None}


def _by_case(lines: list[Line], told: Callable[[list[Line]], float | None]) -> dict[str, float]:
    cases: dict[str, list[Line]] = defaultdict(list)
    for line in lines:
        cases[f"{line['case']}, {line['metric']}"].append(line)
    return _only({name: told(each) for name, each in cases.items()})


def _beside(lines: list[Line]) -> dict[str, Figure]:
    """Return how far off we and NannyML were on the same rows, where it was asked."""
    theirs = [line for line in lines if line["what"] == "nannyml"]
    if not theirs:
        return {}
    ours = {
        (line["case"], line["metric"], line["model"]): line
        for line in lines
        if line["what"] == "estimated" and line["age"] == "hours"
    }
    off: dict[str, list[float]] = defaultdict(list)
    hit: dict[str, list[float]] = defaultdict(list)
    for line in theirs:
        mine = ours[line["case"], line["metric"], line["model"]]
        if mine["low"] is None:  # told without an interval, it counts as unknown
            continue
        for who, each in (("ours", mine), ("NannyML", line)):
            name = f"{who}, {line['scenario']}"
            off[name].append(abs(each["value"] / each["truth"] - 1.0))
            hit[name].append(each["low"] <= each["truth"] <= each["high"])
    return {
        "error_beside_nannyml": Figure(
            {name: float(np.mean(each)) for name, each in sorted(off.items())},
            "",
            "mean, as a share of the metric; the last day, where we told it",
        ),
        "coverage_beside_nannyml": Figure(
            {name: float(np.mean(each)) for name, each in sorted(hit.items())},
            "",
            "of its sampling error taken as normal, and of our interval",
        ),
    }
