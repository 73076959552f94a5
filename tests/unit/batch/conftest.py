"""Batches of eta-de that write to a real spool."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fakes.batch import MODEL, multiplying

from driftloop.batch import Batches, Job, Progress, Scored
from driftloop.prediction_log import SegmentSpool, sealed
from driftloop.records import Head
from driftloop.serve.slot import Slots
from driftloop.spec import Family, Fleet


@dataclass
class Bench:
    """Where batches are scored, and what came of them."""

    folder: Path
    fleet: Fleet
    clock: Any
    champion: Head | None
    heard: list[Progress] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def out(self) -> Path:
        return self.folder / "out.parquet"

    @property
    def runs(self) -> Path:
        return self.folder / "home" / "batches"

    def source(self, table: pa.Table, name: str = "rows.parquet", **options: Any) -> str:
        file = self.folder / name
        file.parent.mkdir(exist_ok=True)
        pq.write_table(table, file, **options)
        return str(file)

    def score(self, source: str, spool: Any = None, **job: Any) -> Scored:
        with SegmentSpool(self.folder / "home" / "spool" / "batch") as own:
            batches = Batches(
                family=self.family,
                slots=Slots(self.fleet),
                champion=lambda _: self.champion,
                spool=spool(own) if spool else own,
                clock=self.clock,
                runs=self.runs,
                told=self.heard.append,
                **{"part_rows": 10, **self.options},
            )
            return batches.score(Job(model=MODEL, source=source, **{"out": self.out, **job}))

    @property
    def family(self) -> Family:
        return self.fleet.family(MODEL)

    def written(self) -> pa.Table:
        return pq.read_table(self.out)

    def segments(self) -> list[Path]:
        return sealed(self.folder / "home" / "spool", "predictions", "eta")

    def logged(self) -> pa.Table:
        """Return what the ingester would take, by distance."""
        return pa.concat_tables(pq.read_table(each) for each in self.segments()).sort_by("distance")


@pytest.fixture
def bench(tmp_path: Path, fleet: Fleet, clock: Any) -> Bench:
    """Version 2 is champion of eta-de."""
    return Bench(tmp_path, fleet, clock, multiplying(tmp_path, 2))


@pytest.fixture
def other(tmp_path: Path) -> Callable[[int], Head]:
    """Make another version, which answers so many times the distance."""
    return lambda version: multiplying(tmp_path, version)
