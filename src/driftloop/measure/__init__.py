"""A window against its reference, in numbers: drift, decay and quality of data.

The door to Evidently and SciPy. Neither is imported before the first measurement.
"""

import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from math import isclose
from pathlib import Path
from types import ModuleType

import pyarrow as pa
import pyarrow.parquet as pq

from driftloop.errors import ArtifactError, MeasureError
from driftloop.measure.causes import cause_of
from driftloop.measure.decay import decay_readings
from driftloop.measure.drift import drift_readings, judged
from driftloop.measure.estimate import estimate_readings
from driftloop.measure.fresh import Usual, fresh_readings
from driftloop.measure.learn import learnt, profile_beside
from driftloop.measure.profile import Profile
from driftloop.measure.profile_file import write_profile
from driftloop.measure.quality import quality_readings
from driftloop.measure.reference import Reference, References, held_out, prepared
from driftloop.records import (
    HOLDOUT_FILE,
    PROFILE_FILE,
    Cause,
    Kind,
    LogSummary,
    Reading,
    Verdict,
    Window,
)
from driftloop.rows import Rows
from driftloop.spec import Family

AGREES = 1e-9
RECHECKED = 2_000_000
"""Evidently takes 300 MB for each million rows whose performance it measures: of more it is not
asked."""
_log = logging.getLogger(__name__)

__all__ = ["EvidentlyMeasure", "Measurement", "keep_profile", "measured", "prepared"]


@dataclass(frozen=True, slots=True)
class Measurement:
    """All that was measured of one model at one time; implements `ports.Measurement`."""

    family: Family
    at: datetime
    measured: tuple[Reading, ...]
    """Every reading, also those that stand beside the ones that are judged."""

    @property
    def readings(self) -> tuple[Reading, ...]:
        """What a decision may rest on."""
        return judged(self.family, self.measured)

    def snapshot(self, verdicts: Sequence[Verdict] = ()) -> str:
        """Return Evidently's snapshot as JSON; `evidently.core.report.Snapshot.loads` reads it.

        Every reading with a value is a metric of it, and the verdict on it that metric's test.

        Raises:
            MeasureError: Evidently itself does not work.
        """
        _door()
        from driftloop.measure import snapshot

        try:
            return snapshot.snapshot(self.measured, verdicts, family=self.family.name, at=self.at)
        except Exception as error:
            raise _broken("Evidently could not record the readings", error) from error

    def keep(self, file: Path, verdicts: Sequence[Verdict]) -> None:
        """Write `snapshot` as a file, whole or not at all.

        Raises:
            MeasureError: Evidently itself does not work, or the file cannot be written.
        """
        _written(file, self.snapshot(verdicts))


class EvidentlyMeasure:
    """Measures, and records through Evidently; the port `Measure`."""

    def __init__(self) -> None:
        """Prepare nothing yet."""
        self._references = References()
        self._profiles: dict[Path, tuple[tuple[object, ...], Profile]] = {}

    def measure(
        self,
        *,
        family: Family,
        current: Rows,
        own: Rows,
        reference: Path,
        summary: LogSummary,
        baselines: dict[str, float],
        now: datetime,
        window: Window | None = None,
    ) -> Measurement:
        """Return what is measured of one model; see `measured`.

        `reference` is the Parquet file of the champion's training rows; its profile is beside it.

        Raises:
            ArtifactError: it is not there, or is damaged.
        """
        known = self._references.of(family, reference)
        usual = None
        if window is not None and window.since is not None:
            usual = Usual(self._profile(family, known, reference), window)
        return measured(
            family=family,
            current=current,
            own=own,
            reference=known,
            summary=summary,
            baselines=baselines,
            now=now,
            holdout=held_out(reference.with_name(HOLDOUT_FILE)),
            usual=usual,
        )

    def _profile(self, family: Family, reference: Reference, file: Path) -> Profile:
        try:
            found = file.stat()
            key = (file, found.st_mtime_ns, found.st_size)
            model = file.parent.parent
            if (held := self._profiles.get(model)) is not None and held[0] == key:
                return held[1]
            profile = profile_beside(family, reference, file)
        except (OSError, pa.ArrowException) as error:
            raise ArtifactError.unreadable(file, error) from error
        self._profiles[model] = (key, profile)
        return profile

    def disputed(
        self,
        *,
        family: Family,
        readings: Sequence[Reading],
        current: Rows,
        own: Rows,
        reference: Path,
    ) -> tuple[str, ...]:
        """Return in words which of `readings` Evidently itself gives another number for.

        Distances and performance are compared, to a billionth. What Evidently cannot digest, and
        what it cannot tell from nothing (see `distances.wasserstein`), is not disputed.

        Raises:
            ArtifactError: the reference is not there, or is damaged.
            MeasureError: Evidently does not work at all.
        """
        recheck = _door().recheck
        rows = {Kind.DRIFT: current, Kind.DECAY: own}
        found = []
        for reading in readings:
            if reading.value is None or reading.kind not in rows:
                continue
            if reading.kind is Kind.DECAY and own.num_rows > RECHECKED:
                _log.warning("%s of %s rows is not measured again", reading.metric, own.num_rows)
                continue
            try:
                theirs = recheck(
                    family, reading, rows[reading.kind], self._references.of(family, reference)
                )
            except ArtifactError:
                raise
            except Exception as error:  # noqa: BLE001 - a fault of the data, on which it raises
                _log.warning("Evidently could not recompute %s: %r", reading.metric, error)
                continue
            if theirs is None or isclose(reading.value, theirs, rel_tol=AGREES, abs_tol=AGREES):
                continue
            of = f" of {reading.column}" if reading.column else ""
            found.append(
                f"{reading.metric}{of} is {reading.value!r} by us and {theirs!r} by Evidently"
            )
        return tuple(found)

    def cause(
        self, *, family: Family, own: Rows, reference: Path, verdicts: Sequence[Verdict]
    ) -> Cause:
        """Return why the rows `own` are worse than the champion was made for; see `cause_of`.

        Raises:
            ArtifactError: the reference is not there, or is damaged.
        """
        held_out = reference.with_name(HOLDOUT_FILE)
        return cause_of(
            family=family,
            now=own,
            before=_before(_table(held_out)) if held_out.exists() else None,
            reference=_table(reference),
            verdicts=verdicts,
        )

    def report(
        self,
        *,
        family: Family,
        title: str,
        current: pa.Table,
        reference: pa.Table,
        file: Path,
        of: int | None = None,
    ) -> None:
        """Write Evidently's full report as one HTML file, whole or not at all.

        It holds drift of every column, and performance where both sides have labels. Columns
        that Evidently would break on are left out and named in its first lines; these also say so
        where `current` is a sample of `of` rows.

        Raises:
            MeasureError: the window or the reference is empty, or no column can be compared, or
                Evidently breaks, or the file cannot be written.
        """
        _door()
        from driftloop.measure.report import page

        try:
            html = page(family=family, title=title, current=current, reference=reference, of=of)
        except MeasureError:
            raise
        except Exception as error:
            raise _broken(f"Evidently could not draw the report {title!r}", error) from error
        _written(file, html)


def measured(  # noqa: PLR0913 - each is of its own kind, and named
    *,
    family: Family,
    current: Rows,
    own: Rows,
    reference: Reference,
    summary: LogSummary,
    baselines: dict[str, float],
    now: datetime,
    holdout: Rows | None = None,
    usual: Usual | None = None,
) -> Measurement:
    """Return drift, decay and quality of one model, and what is fresh of it.

    Faults of the data never raise. Readings that cannot be had have no value and a problem in
    words.

    Args:
        family: gives the task, the features with their kinds and ranges.
        current: the window's rows, for drift and quality.
        own: the rows that the champion itself predicted, for decay.
        reference: the champion's training rows, `prepared`.
        summary: counts of the window, for duplicates, volume and freshness.
        baselines: the champion's metrics at its gate, by name.
        now: when freshness is judged, and the snapshot's time.
        holdout: the rows that the champion was gated on, for what is expected of late labels.
        usual: what fresh rows are compared with, and since when they are; without it nothing is.
    """
    readings = (
        *drift_readings(family, current, reference),
        *decay_readings(family, own, baselines),
        *estimate_readings(family, own, reference, baselines, now, holdout),
        *quality_readings(family, current, reference, summary, now),
        *(fresh_readings(family, current, own, reference, usual) if usual is not None else ()),
    )
    return Measurement(family, now, readings)


def keep_profile(family: Family, rows: pa.Table, held_out: pa.Table, reference: Path) -> None:
    """Write the profile of a champion beside its `reference`, which is there already.

    Args:
        family: of the champion.
        rows: all its training rows, with its predictions; see `learn.learnt`.
        held_out: event_time, label and candidate.
        reference: the file.

    Raises:
        OSError, pa.ArrowException: the reference cannot be read, or the profile not be written.
    """
    table = pq.read_table(reference, use_threads=False)
    made = learnt(family, prepared(family, table), rows, held_out)
    write_profile(made, reference.with_name(PROFILE_FILE))


def _table(file: Path) -> pa.Table:
    try:
        return pq.read_table(file)
    except (OSError, pa.ArrowException) as error:
        raise ArtifactError.unreadable(file, error) from error


def _before(held_out: pa.Table) -> pa.Table | None:
    """Return held-out rows as those of a window are; None where they have no features yet."""
    if "features" not in held_out.column_names:
        return None
    features = held_out["features"].combine_chunks()
    columns = {name: held_out[name] for name in ("event_time", "label")}
    columns["prediction"] = held_out["candidate"]
    names = [features.type.field(place).name for place in range(features.type.num_fields)]
    return pa.table({**columns, **{name: features.field(name) for name in names}})


def _written(file: Path, text: str) -> None:
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(text, encoding="utf-8")
        part.replace(file)
    except OSError as error:
        with suppress(OSError):
            part.unlink()
        raise MeasureError(f"it cannot be written: {error}", where=str(file)) from error


@cache
def _door() -> ModuleType:
    # Evidently phones home, over plain http, unless told otherwise before its import.
    os.environ["DO_NOT_TRACK"] = "1"
    try:
        from driftloop.measure import door
    except ImportError as error:
        raise _broken("Evidently does not import", error) from error
    return door


def _broken(what: str, error: Exception) -> MeasureError:
    return MeasureError(
        f"{what}: {type(error).__name__}: {error}",
        hint="evidently 0.7.23 needs pandas below 3.1; `make lock` has the versions that work",
    )
