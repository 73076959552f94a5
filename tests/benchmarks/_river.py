"""River itself, row by row, beside the same detectors as `_detectors.py` has them batch by batch.

It is measured in the full form alone, and where river is installed.
"""

from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.benchmarks._detectors import Adwin, Detector, Hddm, PageHinkley
from tests.benchmarks._false_pages import FEATURES
from tests.benchmarks._fleet import DAY, Fault, Fleet, Slices, Weather
from tests.benchmarks._raw import Figure, Line, Plan, Raw

Floats = NDArray[np.float64]
MODELS, LEAD, AFTER = 4, DAY, DAY // 2
FAULT = Fault(name="shift 0.5, accuracy -3", shift=0.5, errors=0.03)
NEAR = 1
"""Looks that two first pages may be apart, and count as the same."""


def measure(raw: Raw, plan: Plan) -> None:
    """Write raw lines: river, with the looks at which either paged, for each model and stream."""
    if plan.quick:
        return
    if find_spec("river") is None:
        raw.note("river_missing", said="river is not installed")
        return
    rows = max(200, round(1000 * plan.size))
    for weather in Weather:
        fleet = Fleet(weather, models=MODELS, features=FEATURES, rows=rows, seed=plan.seed + 2)
        pairs = [_pairs() for _ in range(MODELS)]
        for number, seen in enumerate(fleet.looks(LEAD + AFTER, FAULT, LEAD)):
            _look(fleet, seen, pairs, number)
        for model, streams in enumerate(pairs):
            _note(raw, streams, weather=weather, model=model, since=LEAD, rows=rows)


def figures(lines: Sequence[Line]) -> dict[str, Figure]:
    """Return how often the two first paged at the same look after the fault, at their defaults."""
    same = [
        abs(_first(line["river"], line["since"]) - _first(line["ours"], line["since"])) <= NEAR
        for line in lines
        if line["what"] == "river"
    ]
    share = sum(same) / len(same) if same else None
    note = "of streams where river, row by row, pages within a look of its form by batches"
    return {"river_agreement": Figure(share, "", note)}


def _first(paged: Sequence[int], since: int) -> int:
    """Return the first look of a page from `since` on, or one after all looks."""
    return next((each for each in paged if each >= since), since + AFTER)


class _Pair:
    """A detector of river's, and ours that stands for it."""

    def __init__(self, river: Any, ours: Detector) -> None:
        self.river, self.ours = river, ours
        self.river_paged: list[int] = []
        self.paged: list[int] = []

    def look(self, values: Floats, number: int) -> None:
        paged = False
        for value in values.tolist():
            self.river.update(value)
            paged |= self.river.drift_detected
        if paged:
            self.river_paged.append(number)
        held = self.ours.update(values.mean(keepdims=True), values.var(keepdims=True), len(values))
        if held[0] > self.ours.limit:
            self.paged.append(number)
            self.ours.restart(np.array([True]))


def _look(fleet: Fleet, seen: Slices, pairs: Sequence[dict[str, list[_Pair]]], number: int) -> None:
    for model, streams in enumerate(pairs):
        for stream, values in _rows(fleet, seen, model):
            for pair in streams[stream]:
                pair.look(values, number)


def _note(raw: Raw, streams: dict[str, list[_Pair]], **about: object) -> None:
    for stream, some in streams.items():
        for pair in some:
            paged = {"river": pair.river_paged, "ours": pair.paged}
            raw.note("river", **about, stream=stream, name=pair.ours.name, **paged)


def _pairs() -> dict[str, list[_Pair]]:
    from river import drift

    made: list[tuple[str, Callable[[], _Pair]]] = [
        ("score", lambda: _Pair(drift.ADWIN(), Adwin((1,), LEAD + AFTER))),
        ("score", lambda: _Pair(drift.PageHinkley(), PageHinkley((1,)))),
        ("wrong", lambda: _Pair(drift.ADWIN(), Adwin((1,), LEAD + AFTER))),
        ("wrong", lambda: _Pair(drift.PageHinkley(), PageHinkley((1,)))),
        ("wrong", lambda: _Pair(drift.binary.HDDMA(), Hddm((1,)))),
    ]
    return {
        name: [make() for stream, make in made if stream == name] for name in ("score", "wrong")
    }


def _rows(fleet: Fleet, seen: Slices, model: int) -> Iterator[tuple[str, Floats]]:
    """Yield rows whose mean and deviation are what the slice says."""
    noise = fleet.random.standard_normal(seen.rows)
    noise = (noise - noise.mean()) / noise.std()
    yield "score", seen.means[model, 0] + seen.spreads[model, 0] * noise
    wrong = np.arange(seen.rows) < round(seen.errors[model] * seen.rows)
    yield "wrong", fleet.random.permutation(wrong).astype(np.float64)
