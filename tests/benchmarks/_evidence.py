"""Evidence on its own: what it spends where nothing matters, and how soon it is enough.

Readings are drawn, not made of rows. Changes stand at the very half of their floors, the largest
that the budget is meant for, and a reading is taken to show its floor always: no page is spared.
"""

from collections.abc import Callable, Sequence
from math import isfinite
from statistics import NormalDist, median

import numpy as np
from numpy.typing import NDArray

from driftloop.judge.evidence import BETS, CERTAIN, INFLATION, SKEW, TAME, grown, kept
from driftloop.judge.findings import DATA, DRIFT, HARM, layout_of
from tests.benchmarks._fleet import DAY, WEEK
from tests.benchmarks._ours import streams
from tests.benchmarks._raw import Figure, Line, Plan, Raw

Floats = NDArray[np.float64]
Draw = Callable[[np.random.Generator, tuple[int, ...]], Floats]

MODELS, FEATURES, ROWS = 200, 25, 5000
PER_WEEK = 1.0
TOO_SMALL = (0.0, 0.1, 0.2, 0.3)
"""By how much larger the true errors are than readings say, as a share."""
SHIFTS, SHIFT_FLOORS = (0.05, 0.1, 0.2, 0.5), (0.02, 0.05, 0.1, 0.2)
ACCURACY = 0.9
POINTS, WARNS = (0.01, 0.03, 0.1), (0.005, 0.01, 0.02, 0.03, 0.1)
LONGEST = 100
GRID = 20_000
CUT = 0.995
"""The quantile at which losses are cut where they are read."""
NOISE: dict[str, tuple[Draw, float, float]] = {
    "uniform": (lambda rng, shape: rng.random(shape), 0.5, np.sqrt(1.0 / 12.0)),
    "exponential": (lambda rng, shape: rng.exponential(size=shape), 1.0, 1.0),
    "lognormal": (
        lambda rng, shape: rng.lognormal(0.0, 1.0, shape),
        np.exp(0.5),
        np.sqrt(np.exp(1.0) * np.expm1(1.0)),
    ),
    # Has no third moment, which is more than is assumed; that shows at smaller budgets.
    "Student's t": (
        lambda rng, shape: np.abs(rng.standard_t(3.0, shape)),
        2.0 * np.sqrt(3.0) / np.pi,
        np.sqrt(3.0 - 12.0 / np.pi**2),
    ),
    "1 in 100": (lambda rng, shape: (rng.random(shape) < 0.01).astype(float), 0.01, 0.0994987),
}
"""How rows scatter: draws, their mean and standard deviation, which readings know."""


def measure(raw: Raw, plan: Plan) -> None:
    """Write raw lines: evidence_floor, evidence_rows, evidence_row and evidence_looks."""
    _at_the_floor(raw, plan)
    _of_few_rows(raw, plan)
    _of_one_row(raw)
    _looks(raw, plan)


def figures(lines: Sequence[Line]) -> dict[str, Figure]:
    """Return the part of the budget that is spent, and looks until what matters pages."""
    spent = {
        f"errors {line['too_small']:.0%} too small": line["pages"] / line["budget"]
        for line in lines
        if line["what"] == "evidence_floor"
    }
    few: dict[str, float] = {}
    for line in lines:
        if line["what"] == "evidence_rows":
            share = line["pages"] / line["budget"]
            few[line["noise"]] = max(few.get(line["noise"], 0.0), share)
    looks = {
        f"{line['metric']} {line['change']:g}, floor {line['floor']:g}": _middle(line["delays"])
        for line in lines
        if line["what"] == "evidence_looks"
    }
    return {
        "evidence_spent": Figure(
            spent or None,
            "of budget",
            "pages where every column of every model is at half its floor; 1 is what is allowed",
        ),
        "evidence_spent_by_noise": Figure(
            few or None,
            "of budget",
            "likewise, at the number of rows at which it is most; t has 3 degrees of freedom",
        ),
        "evidence_row_mean": Figure(
            {line["noise"]: line["mean"] for line in lines if line["what"] == "evidence_row"}
            or None,
            "x",
            "mean of what a row multiplies by, at the bet where it is most; 1 or less keeps to "
            "any budget at any number of rows",
        ),
        "evidence_looks": Figure(
            {key: value for key, value in looks.items() if isfinite(value)} or None,
            "looks",
            f"median until the page, one of {FEATURES} columns (shift) or accuracy of 90 %",
        ),
    }


def _at_the_floor(raw: Raw, plan: Plan) -> None:
    """Note pages of a fleet; the quick form allows more, so that there are some to count."""
    models, looks, a_week = (40, DAY, MODELS) if plan.quick else (MODELS, 4 * WEEK, PER_WEEK)
    weights = _weights(a_week / MODELS)
    for too_small in TOO_SMALL:
        rng = np.random.default_rng((plan.seed, int(too_small * 100)))
        # A column that is at half its floor on one side is far from it on the other.
        mass = np.zeros((models, len(weights), 1, len(BETS)))
        pages, n = 0, np.full((1, 1), float(ROWS))
        scale = (1.0 + too_small) / INFLATION
        for _ in range(looks):
            z = rng.standard_normal((models, len(weights), 1)) * scale
            mass, paged = _look(mass, z, weights, n)
            pages += paged
        raw.note(
            "evidence_floor",
            too_small=too_small,
            models=models,
            looks=looks,
            pages=pages,
            budget=a_week * models / MODELS * looks / WEEK,
        )


def _of_few_rows(raw: Raw, plan: Plan) -> None:
    """Note pages where a look has few rows, whose noise is far from Gaussian."""
    models, looks = (100, 100) if plan.quick else (400, 1000)
    weights = np.full((2, 1), 0.005)
    for noise, (draw, mean, deviation) in NOISE.items():
        for rows in (1, 10) if plan.quick else (1, 3, 10, 100):
            rng = np.random.default_rng((plan.seed, rows))
            mass, pages = np.zeros((models, 2, 1, len(BETS))), 0
            n = np.full((1, 1), float(rows))
            for _ in range(looks):
                value = draw(rng, (models, 2, 1, rows)).mean(axis=-1)
                z = (value - mean) / (INFLATION * deviation / np.sqrt(rows))
                mass, paged = _look(mass, z, weights, n)
                pages += paged
            raw.note(
                "evidence_rows",
                noise=noise,
                rows=rows,
                pages=pages,
                budget=float(models * looks * weights.sum()),
            )


def _of_one_row(raw: Raw) -> None:
    """Note the mean of what a row multiplies by: of rows alike a look's is a power of it.

    A small budget is spent by tails that no simulation reaches: this is reckoned of quantiles.
    """
    chances = (np.arange(GRID) + 0.5) / GRID
    normal = NormalDist()
    losses = np.exp([normal.inv_cdf(chance) for chance in chances.tolist()])
    noises = {
        "uniform": chances,
        "exponential": -np.log1p(-chances),
        "lognormal, cut as losses are": np.minimum(losses, np.quantile(losses, CUT)),
        "1 in 100": (chances < 0.01).astype(float),
        "1 in 1000": (chances < 0.001).astype(float),
    }
    tilts = np.linspace(0.0, 1.0 / TAME, 51)[1:, None]
    spent = np.exp(-(tilts[:, 0] ** 2) / (2.0 * (1.0 - SKEW * tilts[:, 0])))
    for noise, values in noises.items():
        row = (values - values.mean()) / (values.std() * INFLATION)
        mean = np.exp(tilts * row).mean(axis=1) * spent
        raw.note("evidence_row", noise=noise, mean=float(mean.max()))


def _looks(raw: Raw, plan: Plan) -> None:
    """Note how many looks each change takes, where one stream of a model shows it."""
    weights = _weights(PER_WEEK / MODELS)[:, 0]
    names, _ = streams(FEATURES)
    deviation = np.sqrt(ACCURACY * (1.0 - ACCURACY)) / ACCURACY
    cases = [
        ("shift", shift, shift, floor, 1.0, weights[names.index("shift:x00")])
        for floor in SHIFT_FLOORS
        for shift in SHIFTS
    ]
    cases += [
        ("accuracy", -points, points / ACCURACY, floor, deviation, weights[names.index("loss")])
        for floor in WARNS
        for points in POINTS
    ]
    repeats = 100 if plan.quick else 2000
    for metric, told, change, floor, scatter, weight in cases:
        rng = np.random.default_rng((plan.seed, int(floor * 1000)))
        found = _delays(rng, change, floor, scatter / np.sqrt(ROWS), float(weight), repeats)
        delays = [None if np.isnan(each) else int(each) for each in found]
        raw.note("evidence_looks", metric=metric, change=told, floor=floor, delays=delays)


def _delays(
    rng: np.random.Generator,
    change: float,
    floor: float,
    error: float,
    weight: float,
    repeats: int,
) -> Floats:
    found = np.full(repeats, np.nan)
    if change < floor:
        return found
    mass, n = np.zeros((repeats, len(BETS))), np.full(1, float(ROWS))
    for look in range(1, LONGEST + 1):
        value = change + error * rng.standard_normal(repeats)
        z = (value - CERTAIN * floor) / (error * INFLATION)
        mass = kept(grown(mass, z, weight, n), weight)
        found[(mass.sum(axis=1) >= 1.0) & (value >= floor) & np.isnan(found)] = look
        if not np.isnan(found).any():
            break
    return found


def _look(mass: Floats, z: Floats, weights: Floats, n: Floats) -> tuple[Floats, int]:
    """Return the masses after a look at models, and how many paged; these begin anew."""
    mass = grown(mass, z, weights, n)
    page = mass.sum(axis=(1, 2, 3)) >= 1.0
    mass[page] = 0.0
    return kept(mass, weights), int(page.sum())


def _weights(a_week: float) -> Floats:
    """Return the false pages a look of each stream and direction of a model, shape (streams, 1)."""
    layout = layout_of(streams(FEATURES)[0], frozenset((HARM, DATA, DRIFT)))
    return a_week / WEEK * layout.shares


def _middle(delays: Sequence[int | None]) -> float:
    return median(np.inf if each is None else each for each in delays)
