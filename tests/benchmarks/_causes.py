"""Whether the true cause is named first, of faults injected one at a time.

The rows are simulated and answered by models that were really fitted on such rows: boosted trees
of a regression and of a classification. A window begins well; from some time on one thing is
wrong with it. What the cause should be is known: its origin, and the column that carries it.
"""

import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from driftloop.judge import sharing
from driftloop.measure.causes import cause_of
from driftloop.records import Cause, Explained, Origin, Task
from driftloop.spec import Family, Fleet
from tests.benchmarks._raw import Figure, Line, Plan, Raw, cost

Floats = NDArray[np.float64]
Draw = np.random.Generator

NUMBERS = ("distance", "weight", "temperature", "pressure", "speed", "delay", "hour", "stops")
TEXTS = ("carrier", "place", "kind")
IMPORTANT = ("distance", "weight", "temperature", "speed", "delay")
LEVELS = {
    "carrier": (("aa", "bb", "cc", "dd", "ee"), (0.35, 0.25, 0.2, 0.12, 0.08)),
    "place": (tuple(f"p{number}" for number in range(12)), (0.2,) * 2 + (0.06,) * 10),
    "kind": (("small", "large"), (0.6, 0.4)),
}
EFFECT = {
    "carrier": (0.0, 0.8, -0.6, 1.2, -1.0),
    "place": tuple(0.15 * (number % 5 - 2) for number in range(12)),
    "kind": (-0.4, 0.6),
}
CELSIUS = 1.8, 32.0
UNITS: dict[str, tuple[tuple[float, float], ...]] = {
    "distance": ((1000.0, 0.0), (1.609344, 0.0), (0.001, 0.0)),
    "weight": ((0.45359237, 0.0), (1000.0, 0.0)),
    "temperature": (CELSIUS, (1.0, 273.15), (-1.0, 0.0)),
    "speed": ((1.852, 0.0), (0.1, 0.0)),
    "delay": ((60.0, 0.0), (-1.0, 0.0)),
}
START = datetime(2026, 1, 5, tzinfo=UTC)
UPSTREAM = "upstream"
MODELS = 3
"""So many models share what fails upstream."""


@dataclass(frozen=True, slots=True)
class World:
    """A family, and one model of it fitted for real."""

    family: Family
    answer: Callable[[dict[str, Any]], Floats]
    reference: pa.Table
    before: pa.Table


@dataclass(frozen=True, slots=True)
class Injected:
    """What was done to a window: the origin and the columns of which one must be named first."""

    kind: str
    origin: Origin
    carrier: str | None
    detail: str


def measure(raw: Raw, plan: Plan) -> None:
    """Write a line for each injection: what was done, and what was named."""
    # Before threads are limited: what is loaded later would not be.
    import sklearn.ensemble  # noqa: F401
    from threadpoolctl import threadpool_limits

    repeats = 2 if plan.quick else max(2, round(40 * plan.size))
    # Small matrices on many threads wait for each other.
    with threadpool_limits(1):
        with cost() as spent:
            worlds = [
                fitted(task, plan.seed + place, rows=3000 if plan.quick else 6000)
                for place, task in enumerate((Task.REGRESSION, Task.BINARY))
            ]
        raw.note("causes fitted", wall_s=spent.wall_s, cpu_s=spent.cpu_s)
        with cost() as spent:
            for line in trials(worlds, seed=plan.seed, repeats=repeats):
                raw.note("cause", **line)
        raw.note("causes found", wall_s=spent.wall_s, cpu_s=spent.cpu_s)


def figures(lines: list[Line]) -> dict[str, Figure]:
    """Return the share of injections whose cause is named first, in all and by kind."""
    found = [line for line in lines if line["what"] == "cause"]
    faulty = [line for line in found if line["kind"] != "clean"]
    clean = [line for line in found if line["kind"] == "clean"]
    by_kind = {
        kind: _share(line["right"] for line in faulty if line["kind"] == kind)
        for kind in dict.fromkeys(line["kind"] for line in faulty)
    }
    confused = Counter(
        f"{line['kind']} -> {line['origin']}"
        + ("" if line["origin"] != line["true_origin"] else " of another column")
        for line in faulty
        if not line["right"]
    )
    return {
        "cause_top1": Figure(
            _share(line["right"] for line in faulty) if faulty else None,
            "share",
            f"{len(faulty)} single faults whose origin and column are named first",
        ),
        "cause_top1_by_kind": Figure(by_kind, "share", "the same, by kind of fault"),
        "cause_none_on_clean": Figure(
            _share(line["origin"] == Origin.UNKNOWN for line in clean) if clean else None,
            "share",
            f"{len(clean)} windows without a change for which no cause is named",
        ),
        "cause_confusion": Figure(dict(confused), "injections", "what was named instead"),
    }


def _share(right: Iterator[bool]) -> float:
    told = list(right)
    return sum(told) / len(told) if told else 0.0


# -- worlds --------------------------------------------------------------------------------


def fitted(task: Task, seed: int, *, rows: int) -> World:
    """Return a family of `task` with a model fitted on `rows` rows, and scored on newer ones."""
    from sklearn.compose import make_column_transformer
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OrdinalEncoder

    rng = np.random.default_rng([seed, 1])
    booster = (
        HistGradientBoostingRegressor if task is Task.REGRESSION else HistGradientBoostingClassifier
    )
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    pipeline = make_pipeline(
        make_column_transformer(
            (encoder, list(range(len(NUMBERS), len(NUMBERS) + len(TEXTS)))), remainder="passthrough"
        ),
        booster(max_iter=60, max_leaf_nodes=15, random_state=0),
    )

    def matrix(features: dict[str, Any]) -> NDArray[np.object_]:
        return np.array([features[name] for name in (*NUMBERS, *TEXTS)], dtype=object).T

    past, newer = drawn(rng, rows), drawn(rng, rows)
    labels, known = outcome(rng, task, past), outcome(rng, task, newer)
    pipeline.fit(matrix(past), labels)

    def answer(features: dict[str, Any]) -> Floats:
        given = matrix(features)
        return (
            pipeline.predict(given)
            if task is Task.REGRESSION
            else pipeline.predict_proba(given)[:, 1]
        )

    family = _family(task)
    return World(
        family,
        answer,
        _table(
            past, labels, answer(past), START - timedelta(days=35), timedelta(days=28), "prediction"
        ),
        _table(
            newer, known, answer(newer), START - timedelta(days=7), timedelta(days=7), "prediction"
        ),
    )


def drawn(rng: Draw, n: int, shift: dict[str, float] | None = None) -> dict[str, Any]:
    """Return n rows of inputs; `shift` moves some, in standard deviations."""
    shift = shift or {}
    normal = {name: rng.standard_normal(n) + shift.get(name, 0.0) for name in NUMBERS}
    # Speed goes with distance, pressure with temperature.
    if "speed" not in shift:
        normal["speed"] = (
            0.5 * (normal["distance"] - shift.get("distance", 0.0)) + 0.87 * normal["speed"]
        )
    features: dict[str, Any] = {
        "distance": np.exp(6.0 + 0.5 * normal["distance"]),
        "weight": 70.0 + 12.0 * normal["weight"],
        "temperature": 12.0 + 8.0 * normal["temperature"],
        "pressure": 1013.0 + 6.0 * normal["pressure"] - 2.0 * normal["temperature"],
        "speed": 90.0 + 15.0 * normal["speed"],
        "delay": 10.0 + 8.0 * np.log1p(np.exp(normal["delay"])),
        "hour": np.floor(24.0 * rng.random(n)),
        "stops": rng.poisson(2.0, n).astype(float),
    }
    for name, (levels, shares) in LEVELS.items():
        features[name] = rng.choice(
            np.array(levels, dtype=object), n, p=np.array(shares) / sum(shares)
        )
    return features


def signal(features: dict[str, Any], turned: dict[str, float] | None = None) -> Floats:
    """Return what decides the outcome; `turned` multiplies the effects of some columns."""
    turned = turned or {}
    effects = {
        "distance": 1.2 * (np.log(features["distance"]) - 6.0) / 0.5,
        "weight": 0.9 * (features["weight"] - 70.0) / 12.0,
        "temperature": 0.8 * np.sin((features["temperature"] - 12.0) / 8.0),
        "speed": -0.8 * (features["speed"] - 90.0) / 15.0,
        "delay": 0.9 * (features["delay"] - 17.0) / 5.0,
        "hour": 0.4 * np.cos(features["hour"] * np.pi / 12.0),
        "stops": 0.1 * features["stops"],
        "pressure": 0.1 * (features["pressure"] - 1013.0) / 6.0,
    }
    for name, (levels, _) in LEVELS.items():
        place = dict(zip(levels, EFFECT[name], strict=True))
        effects[name] = np.array([place[each] for each in features[name]])
    return sum(turned.get(name, 1.0) * effect for name, effect in effects.items())


def outcome(rng: Draw, task: Task, features: dict[str, Any], value: Floats | None = None) -> Floats:
    """Return labels of rows, by what their true inputs decide."""
    value = signal(features) if value is None else value
    if task is Task.REGRESSION:
        return 60.0 + 10.0 * value + 5.0 * rng.standard_normal(len(value))
    return (rng.random(len(value)) < 1.0 / (1.0 + np.exp(-1.5 * value))).astype(float)


# -- injections ----------------------------------------------------------------------------

KINDS = ("nulls", "unit", "stuck", "collapse", "shift", "relation", "segment", "flips", UPSTREAM)


def trials(worlds: list[World], *, seed: int, repeats: int) -> Iterator[dict[str, Any]]:
    """Yield what was done and what was named, `repeats` times for each kind, and clean ones."""
    for number in range(repeats):
        for place, kind in enumerate(("clean", *KINDS)):
            rng = np.random.default_rng([seed, 2, number, place])
            world = worlds[1 if kind == "flips" else number % len(worlds)]
            if kind == UPSTREAM:
                yield _upstream(rng, world)
                continue
            injected, now = window(rng, world, kind)
            cause = _cause(world, now)
            yield _line(world, injected, cause, right=named_first(injected, cause))


@dataclass(slots=True)
class Rows:
    """Rows that go wrong where `struck`: the inputs as they are, and as they are `given`."""

    true: dict[str, Any]
    given: dict[str, Any]
    struck: NDArray[np.bool_]
    value: Floats | None = None
    flips: NDArray[np.bool_] | None = None


def window(
    rng: Draw, world: World, kind: str, *, column: str | None = None
) -> tuple[Injected, pa.Table]:
    """Return a window that goes wrong at some time, and how."""
    n = int(rng.integers(8000, 16000))
    start = int(n * (1.0 - rng.uniform(0.2, 1.0)))
    true = drawn(rng, n)
    rows = Rows(true, {name: each.copy() for name, each in true.items()}, np.arange(n) >= start)
    injected = _INJECTORS[kind](rng, rows, column)
    labels = outcome(rng, world.family.task, rows.true, rows.value)
    if rows.flips is not None:
        labels[rows.flips] = 1.0 - labels[rows.flips]
    answers = world.answer(rows.given)
    # Labels are late: of some rows there are none yet.
    labels[rng.random(n) > rng.uniform(0.5, 1.0)] = np.nan
    return injected, _table(rows.given, labels, answers, START, timedelta(days=2), "prediction")


def _clean(_rng: Draw, _rows: Rows, _column: str | None) -> Injected:
    return Injected("clean", Origin.UNKNOWN, None, "")


def _nulls(rng: Draw, rows: Rows, column: str | None) -> Injected:
    carrier = column or str(rng.choice([*NUMBERS, *TEXTS]))
    share = rng.uniform(0.1, 0.6)
    lost = rows.struck & (rng.random(len(rows.struck)) < share)
    rows.given[carrier][lost] = None if carrier in TEXTS else np.nan
    return Injected("nulls", Origin.DATA, carrier, f"{share:.2f}")


def _unit(rng: Draw, rows: Rows, column: str | None) -> Injected:
    carrier = column or str(rng.choice(list(UNITS)))
    factor, added = UNITS[carrier][rng.integers(len(UNITS[carrier]))]
    given = rows.given[carrier]
    given[rows.struck] = factor * given[rows.struck] + added
    return Injected("unit", Origin.DATA, carrier, f"{factor:g} {added:+g}")


def _stuck(rng: Draw, rows: Rows, column: str | None) -> Injected:
    carrier = column or str(rng.choice([*NUMBERS[:6], "carrier", "place"]))
    share = rng.uniform(0.5, 1.0) if carrier in NUMBERS else 1.0
    value = rows.true[carrier][int(np.argmax(rows.struck))]
    rows.given[carrier][rows.struck & (rng.random(len(rows.struck)) < share)] = value
    return Injected("stuck", Origin.DATA, carrier, f"{value} {share:.2f}")


def _collapse(rng: Draw, rows: Rows, _column: str | None) -> Injected:
    carrier = str(rng.choice(["carrier", "kind"]))
    levels = LEVELS[carrier][0]
    count = 1 if carrier == "kind" else int(rng.integers(1, 3))
    *gone, into = rng.choice(len(levels), count + 1, replace=False)
    for each in gone:
        rows.given[carrier][rows.struck & (rows.true[carrier] == levels[each])] = levels[into]
    named = ", ".join(levels[each] for each in gone)
    return Injected("collapse", Origin.DATA, carrier, f"{named} into {levels[into]}")


def _shift(rng: Draw, rows: Rows, column: str | None) -> Injected:
    carrier = column or str(rng.choice(IMPORTANT))
    by = float(rng.uniform(0.5, 2.0) * rng.choice([-1.0, 1.0]))
    moved = drawn(rng, len(rows.struck), {carrier: by})
    for name, values in rows.true.items():
        values[rows.struck] = moved[name][rows.struck]
        rows.given[name][rows.struck] = moved[name][rows.struck]
    return Injected("shift", Origin.INPUTS, carrier, f"{by:+.2f}")


def _relation(rng: Draw, rows: Rows, _column: str | None) -> Injected:
    carrier = str(rng.choice([*IMPORTANT, "carrier"]))
    by = float(rng.uniform(-1.0, 0.2))
    rows.value = np.where(rows.struck, signal(rows.true, {carrier: by}), signal(rows.true))
    return Injected("relation", Origin.RELATION, carrier, f"times {by:.2f}")


def _segment(rng: Draw, rows: Rows, _column: str | None) -> Injected:
    carrier = str(rng.choice(list(LEVELS)))
    levels, shares = LEVELS[carrier]
    large = [level for level, share in zip(levels, shares, strict=True) if share >= 0.1]
    level = str(rng.choice(large))
    value = signal(rows.true)
    turned = rng.choice([-1.5, 1.5]) + rng.choice([-1.0, 0.0, 1.0]) * value
    rows.value = np.where(rows.struck & (rows.true[carrier] == level), turned, value)
    return Injected("segment", Origin.RELATION, carrier, level)


def _flips(rng: Draw, rows: Rows, _column: str | None) -> Injected:
    share = rng.uniform(0.08, 0.4)
    rows.flips = rows.struck & (rng.random(len(rows.struck)) < share)
    return Injected("flips", Origin.DATA, "label", f"{share:.2f}")


_INJECTORS: dict[str, Callable[[Draw, Rows, str | None], Injected]] = {
    "clean": _clean,
    "nulls": _nulls,
    "unit": _unit,
    "stuck": _stuck,
    "collapse": _collapse,
    "shift": _shift,
    "relation": _relation,
    "segment": _segment,
    "flips": _flips,
}


def named_first(injected: Injected, cause: Cause) -> bool:
    """Say whether origin and column are those that were injected."""
    first = cause.carriers[0].name if cause.carriers else None
    return cause.origin == injected.origin and first == injected.carrier


def _cause(world: World, now: pa.Table) -> Cause:
    return cause_of(family=world.family, now=now, before=world.before, reference=world.reference)


def _upstream(rng: Draw, world: World) -> dict[str, Any]:
    """One column fails in some models of the fleet: one cause that lists them all, and no other."""
    kind, column = str(rng.choice(["nulls", "unit", "stuck"])), str(rng.choice(list(UNITS)))
    fleet = Fleet(families=(world.family,), owners={})
    facts = []
    for number, model in enumerate(world.family.models):
        _, now = window(
            rng,
            world,
            kind if number < MODELS else "clean",
            column=column if number < MODELS else None,
        )
        cause = _cause(world, now)
        facts.append(Explained(model=model, at=START, decision=f"{model}/1", cause=cause))
    told = sharing(facts, fleet)
    struck = set(world.family.models[:MODELS])
    right = all(
        named_first(Injected(kind, Origin.DATA, column, ""), fact.cause)
        and set(fact.cause.shared) == struck - {fact.model}
        for fact in told
        if fact.model in struck
    ) and all(not fact.cause.shared for fact in told if fact.model not in struck)
    first = Injected(UPSTREAM, Origin.DATA, column, f"{kind} in {MODELS} models")
    return _line(world, first, told[0].cause, right=right)


def _line(world: World, injected: Injected, cause: Cause, *, right: bool) -> dict[str, Any]:
    return {
        "kind": injected.kind,
        "task": str(world.family.task),
        "true_origin": str(injected.origin),
        "true_carrier": injected.carrier,
        "detail": injected.detail,
        "origin": str(cause.origin),
        "carriers": [each.name for each in cause.carriers[:3]],
        "inputs": cause.inputs,
        "relation": cause.relation,
        "shared": len(cause.shared),
        "right": right,
        "said": cause.said,
    }


# -- rows ----------------------------------------------------------------------------------


def _table(
    features: dict[str, Any],
    labels: Floats,
    answers: Floats,
    start: datetime,
    span: timedelta,
    name: str,
) -> pa.Table:
    n = len(labels)
    micros = int(start.timestamp() * 1e6) + np.arange(n) * int(span.total_seconds() * 1e6) // n
    columns = {
        "event_time": pa.array(micros, pa.timestamp("us", tz="UTC")),
        "label": pa.array(labels, pa.float64(), from_pandas=True),
        name: pa.array(answers, pa.float64()),
    }
    for each in NUMBERS:
        columns[each] = pa.array(features[each].astype(float), pa.float64(), from_pandas=True)
    for each in TEXTS:
        columns[each] = pa.array(list(features[each]), pa.string())
    return pa.table(columns)


def _family(task: Task) -> Family:
    defaults = files("driftloop.starter").joinpath("monitors", "defaults.toml").read_text("utf-8")
    features: dict[str, Any] = {name: {"kind": "numeric"} for name in NUMBERS}
    features |= {name: {"kind": "categorical"} for name in TEXTS}
    metric = "mae" if task is Task.REGRESSION else "log_loss"
    return Family.model_validate(
        {
            **tomllib.loads(defaults),
            "name": f"causes-{task}",
            "task": str(task),
            "target": "minutes",
            "time": "at",
            "owner": "nobody",
            "markets": [f"m{number}" for number in range(MODELS + 2)],
            "features": features,
            "decay": {"metric": metric, "warn": 0.05, "alarm": 0.1},
        }
    )
