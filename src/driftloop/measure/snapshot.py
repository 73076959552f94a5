"""Evidently's snapshot of what was measured and judged elsewhere: each number a metric of it.

Imports Evidently (3 s, 290 MB), so it is itself imported only inside functions of this room,
after DO_NOT_TRACK is set.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, lru_cache
from uuid import uuid4

import pandas as pd
from evidently import DataDefinition, Dataset, Report
from evidently.core.metric_types import (
    MetricConfig,
    MetricTestResult,
    SingleValueCalculation,
    SingleValueMetric,
    metric_tests_widget,
)
from evidently.core.report import Context, Snapshot, metric_tests_stats
from evidently.legacy.tests.base_test import TestStatus

from driftloop.records import Kind, Level, Reading, Verdict

Key = tuple[str, str, str | None, str | None]
"""Kind, metric, column and segment of a reading."""


def snapshot(
    readings: Sequence[Reading], verdicts: Sequence[Verdict], *, family: str, at: datetime
) -> str:
    """Return the text that Evidently's `Snapshot.loads` reads: readings as metrics with tests.

    The verdict on a reading is its metric's one test. A reading without a value is no metric; its
    problem stands in the metadata. Fresh readings are left out: no window has them, and what they
    add up to stands in the decision.

    It is what `recorded(...).dumps()` returns, at a tenth of its time: Evidently writes each
    metric once, and what is filled in is the value and the verdict.
    """
    pushed, said = _told(readings, verdicts)
    filled, tests = [], []
    for key, value in pushed.items():
        verdict = said.get(key)
        filled.append(_written(key, judged=verdict is not None).filled(value, verdict))
        if verdict is not None:
            tests.append(_Shown.of(key, verdict))
    ids = [PushedReading.of(key).get_fingerprint() for key in pushed]
    about: dict[str, object] = {
        "report": {"items": []},
        "name": None,
        "timestamp": at.isoformat(),
        "metadata": _metadata(readings, family),
        "tags": [],
    }
    results = ", ".join(f'"{id_}": {text}' for id_, text in zip(ids, filled, strict=True))
    rest = {
        "top_level_metrics": ids,
        "widgets": [],
        "tests_widgets": _widgets(tests) if tests else [],
    }
    return f'{json.dumps(about)[:-1]}, "metric_results": {{{results}}}, {json.dumps(rest)[1:]}'


def recorded(
    readings: Sequence[Reading], verdicts: Sequence[Verdict], *, family: str, at: datetime
) -> Snapshot:
    """Return the same as Evidently itself runs it."""
    pushed, said = _told(readings, verdicts)
    return _report(tuple(pushed)).run(
        _Values(pushed, said), None, timestamp=at, metadata=_metadata(readings, family)
    )


def _told(
    readings: Sequence[Reading], verdicts: Sequence[Verdict]
) -> tuple[dict[Key, float], dict[Key, Verdict]]:
    pushed = {
        _key(reading): reading.value
        for reading in readings
        if reading.value is not None and reading.kind is not Kind.FRESH
    }
    return pushed, {_key(verdict.reading): verdict for verdict in verdicts}


def _metadata(readings: Sequence[Reading], family: str) -> dict[str, object]:
    problems = {
        " ".join(part for part in _key(reading) if part): reading.problem
        for reading in readings
        if reading.problem is not None
    }
    return {"family": family, "problems": problems}


# -- what is the same in every snapshot --------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Written:
    """A metric's result as Evidently wrote it, cut where a model's own numbers go."""

    parts: tuple[str, ...]

    def filled(self, value: float, verdict: Verdict | None) -> str:
        said = [repr(value)]
        if verdict is not None:
            limit, status = verdict.limit, _STATUS[verdict.level].value
            said = [json.dumps(verdict.reason), json.dumps(limit), f'"{status}"', *said]
        between = (text for pair in zip(self.parts, said, strict=False) for text in pair)
        return "".join((*between, self.parts[-1]))


@dataclass(frozen=True, slots=True)
class _Shown:
    """What Evidently's widgets show of a test."""

    name: str
    description: str
    status: TestStatus

    @staticmethod
    def of(key: Key, verdict: Verdict) -> "_Shown":
        return _Shown(_name(key), verdict.reason, _STATUS[verdict.level])


def _widgets(tests: Sequence[_Shown]) -> list[dict[str, object]]:
    """Return the two widgets that Evidently shows tests in; all but their contents is made once."""
    counters, listed = metric_tests_stats(tests).params, metric_tests_widget(tests).params
    return [
        {**empty, "id": str(uuid4()), "params": params}
        for empty, params in zip(_empty_widgets(), (counters, listed), strict=True)
    ]


@cache
def _empty_widgets() -> list[dict[str, object]]:
    return [widget.dict() for widget in (metric_tests_stats([]), metric_tests_widget([]))]


@cache
def _written(key: Key, *, judged: bool) -> _Written:
    """Return a metric as Evidently writes it; there are as many as a fleet's families have."""
    value, limit, reason = 0.5312907463519, 0.2718281828459, "\x00"
    kind, metric, column, segment = key
    reading = Reading(
        kind=Kind(kind), metric=metric, column=column, segment=segment, value=value, n=0
    )
    verdict = Verdict(reading=reading, level=Level.BLIND, limit=limit, reason=reason)
    at = datetime(1970, 1, 1, tzinfo=UTC)
    made = json.loads(recorded([reading], [verdict] if judged else [], family="", at=at).dumps())
    (result,) = made["metric_results"].values()
    text, parts = json.dumps(result), []
    marks = [json.dumps(reason), repr(limit), f'"{_STATUS[Level.BLIND].value}"'] if judged else []
    for mark in (*marks, repr(value)):
        part, text = text.split(mark)
        parts.append(part)
    return _Written((*parts, text))


# -- what Evidently needs to take a number that was computed elsewhere -------------------------


class PushedReading(SingleValueMetric):  # type: ignore[misc]  # Evidently has no types
    """One of our readings as a metric of Evidently's; its fields become the metric's labels."""

    kind: str
    metric: str
    column: str | None = None
    segment: str | None = None

    @staticmethod
    def of(key: Key) -> "PushedReading":
        """Return the metric that stands for a reading."""
        return _metric(key)

    def get_fingerprint(self) -> str:
        """Return what Evidently calls it: the same for the same fields, so computed once."""
        key = _fields(self)
        found = _fingerprints.get(key)
        if found is None:
            found = _fingerprints[key] = str(super().get_fingerprint())
        return found

    def get_bound_tests(self, context: Context) -> Sequence["_Judged"]:
        """Return the verdict on it as its one test; none for what no policy judges."""
        data: _Values = context._input_data[0]  # noqa: SLF001 - as its own calculations read it
        verdict = data.verdicts.get(_fields(self))
        return () if verdict is None else (_Judged(verdict),)


_fingerprints: dict[Key, str] = {}
_STATUS = {
    Level.OK: TestStatus.SUCCESS,
    Level.WARN: TestStatus.WARNING,
    Level.ALARM: TestStatus.FAIL,
    Level.BLIND: TestStatus.ERROR,
}


@dataclass(frozen=True, slots=True)
class _Judged:
    """A verdict of ours in the place of a test of Evidently's."""

    verdict: Verdict

    def run_test(
        self, _context: Context, calculation: "PushedReadingCalculation", _result: object
    ) -> MetricTestResult:
        verdict = self.verdict
        return MetricTestResult(
            id=f"driftloop_{verdict.reading.metric}",
            name=calculation.display_name(),
            description=verdict.reason,
            metric_config=calculation.to_metric_config(),
            test_config={"limit": verdict.limit},
            status=_STATUS[verdict.level],
        )


class PushedReadingCalculation(SingleValueCalculation[PushedReading]):  # type: ignore[misc]
    """Looks the value up; Evidently binds it to the metric by the generic argument."""

    metric: PushedReading

    def calculate(
        self, _context: object, current_data: "_Values", _reference_data: object
    ) -> object:
        """Return the value, with no widget: None would draw Evidently's default one."""
        result = self.result(current_data.pushed[_fields(self.metric)])
        result.widget = []
        return result

    def to_metric_config(self) -> MetricConfig:
        """Return what is recorded of the metric: as Evidently makes it, once."""
        found = _configs.get(self.id)
        if found is None:
            found = _configs[self.id] = super().to_metric_config()
        return found

    def display_name(self) -> str:
        """Return what the metric is called in Evidently's UI."""
        return _name(_fields(self.metric))


_configs: dict[str, MetricConfig] = {}


class _Values(Dataset):  # type: ignore[misc]
    """Values and verdicts by key in the shape of a dataset: no pandas, no column statistics."""

    def __init__(self, pushed: Mapping[Key, float], verdicts: Mapping[Key, Verdict]) -> None:
        self._data_definition = DataDefinition()
        self._metadata: dict[str, str] = {}
        self._tags: list[str] = []
        self.pushed = pushed
        self.verdicts = verdicts

    def as_dataframe(self) -> pd.DataFrame:
        return pd.DataFrame()

    def column(self, column_name: str) -> object:
        raise KeyError(column_name)

    def subdataset(self, column_name: str, label: object) -> Dataset:
        raise NotImplementedError

    def stats(self) -> None:
        return None


def _key(reading: Reading) -> Key:
    return str(reading.kind), reading.metric, reading.column, reading.segment


def _fields(metric: PushedReading) -> Key:
    return metric.kind, metric.metric, metric.column, metric.segment


def _name(key: Key) -> str:
    return f"{key[1]} of {key[2] or key[3] or 'the model'}"


@cache
def _metric(key: Key) -> PushedReading:
    kind, metric, column, segment = key
    return PushedReading(kind=kind, metric=metric, column=column, segment=segment)


@lru_cache(maxsize=256)
def _report(keys: tuple[Key, ...]) -> Report:
    # Built once for each set of metrics: fingerprinting them costs more than running them.
    return Report([PushedReading.of(key) for key in keys], include_tests=True)
