"""Hand-written stand-ins for what the loop's ports reach; asserted by state, not by calls."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa

from driftloop.errors import HandoverFailed, MeasureError, RegistryError, TrainingFailed
from driftloop.ports import Look
from driftloop.records import (
    Candidate,
    Cause,
    GateResult,
    Head,
    Kind,
    LogSummary,
    Metric,
    ModelId,
    Order,
    Origin,
    Partition,
    Reading,
    Verdict,
    Window,
)
from driftloop.spec import Family

UNKNOWN = Cause(origin=Origin.UNKNOWN, said="the cause is not known: nobody looked")


@dataclass
class FakeLog:
    """A log in which every window has the same rows."""

    rows_seen: int = 200
    duplicates: int = 0
    counted: list[Partition] = field(default_factory=list)

    def rows(self, family: Family, window: Window) -> pa.Table:
        return pa.table({"version": pa.array([1] * self.rows_seen, pa.int32())})

    def sample(self, family: Family, window: Window) -> tuple[pa.Table, int]:
        return self.rows(family, window), self.rows_seen

    def looks(self, family: Family, windows: Sequence[Window]) -> Iterator[tuple[ModelId, Look]]:
        for window in windows:
            rows, summary = self.rows(family, window), self.summary(family, window)
            yield window.model, Look(rows=rows, summary=summary)

    def partitions(
        self, family: Family, windows: Sequence[Window]
    ) -> dict[ModelId, list[Partition]]:
        return {window.model: self.counted for window in windows}

    def horizon(self, family: Family) -> datetime | None:
        return None

    def summary(self, family: Family, window: Window) -> LogSummary:
        return LogSummary(
            rows=self.rows_seen,
            duplicates=self.duplicates,
            labels=self.rows_seen,
            newest_event=window.end - timedelta(hours=1),
        )


@dataclass
class FakeMeasure:
    """Reads what a test says the decay metric is now, in every model; `breaks` in the first."""

    error: float = 10.0
    baseline: float = 10.0
    breaks: Exception | None = None
    denies: tuple[str, ...] = ()
    rechecked: list[Reading] = field(default_factory=list)
    kept: list[Path] = field(default_factory=list)
    full: bool = False
    segments: dict[str, float] = field(default_factory=dict)
    fresh: tuple[Reading, ...] = ()
    finds: Cause | Exception = UNKNOWN

    def measure(self, *, family: Family, summary: LogSummary, **_: object) -> "FakeMeasurement":
        if (breaks := self.breaks) is not None:
            self.breaks = None
            raise breaks
        return FakeMeasurement(self, self._readings(family, summary))

    def _readings(self, family: Family, summary: LogSummary) -> tuple[Reading, ...]:
        return (
            Reading(
                kind=Kind.QUALITY,
                metric="duplicates",
                column=None,
                value=summary.duplicates / summary.rows,
                n=summary.rows,
            ),
            Reading(
                kind=Kind.QUALITY,
                metric="volume",
                column=None,
                value=float(summary.rows),
                n=summary.rows,
            ),
            Reading(
                kind=Kind.DECAY,
                metric=family.decay.metric,
                column=None,
                value=self.error,
                n=summary.labels,
                baseline=self.baseline,
            ),
            *(
                Reading(
                    kind=Kind.DECAY,
                    metric=family.decay.metric,
                    column=None,
                    value=value,
                    n=summary.labels,
                    segment=segment,
                )
                for segment, value in self.segments.items()
            ),
            *self.fresh,
        )

    def disputed(self, *, readings: Sequence[Reading], **_: object) -> tuple[str, ...]:
        self.rechecked += readings
        return self.denies

    def cause(self, **_: object) -> Cause:
        if isinstance(self.finds, Exception):
            raise self.finds
        return self.finds

    def report(self, **_: object) -> None:
        raise AssertionError


@dataclass
class FakeMeasurement:
    """What `of` read; kept by name alone, or not at all where the disk is `full`."""

    of: FakeMeasure
    readings: tuple[Reading, ...]

    def keep(self, file: Path, verdicts: Sequence[Verdict]) -> None:
        assert {verdict.reading for verdict in verdicts} <= set(self.readings)
        if self.of.full:
            raise MeasureError("no space left", where=str(file))
        self.of.kept.append(file)


@dataclass
class FakeTrainer:
    """Makes candidates whose held-out error a test sets; the champion's is 10."""

    error: float = 5.0
    fails: str | Exception | None = None
    orders: list[Order] = field(default_factory=list)
    off: list[str] = field(default_factory=list)
    patience: timedelta = timedelta(0)

    def call_off(self, order: Order, *, why: str = "was called off") -> None:
        self.off.append(order.key)

    def warm_up(self) -> None:
        pass

    def train(self, order: Order, champion: Head | None) -> Candidate:
        return self._candidate(order, found=False)

    def find(self, order: Order) -> Candidate:
        return self._candidate(order, found=True)

    def _candidate(self, order: Order, *, found: bool) -> Candidate:
        self.orders.append(order)
        if isinstance(self.fails, Exception):
            raise self.fails
        if self.fails is not None:
            raise TrainingFailed(self.fails, where=order.model)
        return Candidate(
            found=found,
            order=order,
            digest=f"digest-of-{order.key}",
            folder=f"folder/{self.error}",
            rows=1000,
            holdout_rows=200,
            metrics=(Metric(name="mae", value=self.error),),
            parity=0.0,
            fit_seconds=0.1,
            lower_seconds=0.1,
        )


@dataclass
class FakeHandover:
    """Who serves models elsewhere: takes what it is handed, or says no."""

    says_no: str | None = None
    taken: list[tuple[ModelId, int, int | None, str]] = field(default_factory=list)
    meanwhile: Callable[[], object] = lambda: None

    def hand_over(self, family: Family, head: Head, *, previous: Head | None, key: str) -> None:
        if self.says_no is not None:
            raise HandoverFailed(self.says_no, where=family.name)
        before = previous.version if previous is not None else None
        self.taken.append((head.model, head.version, before, key))
        self.meanwhile()


def held_out(file: Path) -> pa.Table:
    """Held-out rows in which the candidate of `FakeTrainer` errs by what its folder says."""
    if file.name == "reference.parquet":
        return pa.table({})
    rows, error = 200, float(file.parent.name)
    noise = np.random.default_rng(1).normal(0, 0.1, rows)
    label = np.where(np.arange(rows) % 2, 100.0, 0.0)
    start = datetime(2026, 2, 1)  # noqa: DTZ001 - numpy's datetimes have no zone
    return pa.table(
        {
            "label": label,
            "champion": label + 10.0 + noise,
            "candidate": label + error + noise[::-1],
            "event_time": [start + timedelta(hours=n) for n in range(rows)],
        }
    )


@dataclass
class FakeRegistry:
    """Versions by order key, and where the alias points."""

    versions: dict[str, int] = field(default_factory=dict)
    aliases: dict[ModelId, int] = field(default_factory=dict)
    gates: dict[tuple[ModelId, int], GateResult] = field(default_factory=dict)
    down: bool = False

    def register(self, candidate: Candidate) -> int:
        return self.versions.setdefault(candidate.order.key, len(self.versions) + 1)

    def record_gate(self, model: ModelId, version: int, result: GateResult) -> None:
        self.gates[model, version] = result

    def point(self, model: ModelId, version: int) -> bool:
        if self.down:
            raise RegistryError("the registry is away")
        moved = self.aliases.get(model) != version
        self.aliases[model] = version
        return moved
