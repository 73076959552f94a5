"""A champion's reference, prepared once: its numbers sorted, its categories counted.

What is prepared of a file is kept beside it in another, which is mapped into memory: a pass over
hundreds of models reads it without copying, and the operating system keeps what is in use.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from driftloop.errors import ArtifactError
from driftloop.measure.columns import (
    Codes,
    Floats,
    Unmeasurable,
    categories,
    counted,
    measured_columns,
    nulls,
    numbers,
)
from driftloop.measure.distances import up_to
from driftloop.spec import Family

OF = "the reference"
LAYOUT = 4
"""Version of the prepared files."""
FEW = 20
"""Up to so many distinct values Evidently compares numbers value by value, and not in bins."""
BINS = 10
"""In which as many of the reference's values lie each, if none stands too often."""
APART = 100
"""Levels of a category that a distance tells apart; of a column with more, the most frequent."""
KEPT = 10_000
"""Levels that are kept, to know an unseen one by; of a column with more, the most frequent."""


@dataclass(frozen=True, slots=True)
class Numbers:
    """The finite values of a column, ascending, and what is told of them again and again.

    `spread` is their standard deviation (divided by n). `cuts` are the upper bounds of bins that
    hold equal shares, the last one's left out, and `filled` how many values lie in each. `few`
    are the distinct values with how often each stands there, where these are no more than `FEW`.
    """

    ascending: Floats
    spread: float
    cuts: Floats
    filled: Codes
    few: tuple[Floats, Codes] | None


@dataclass(frozen=True, slots=True)
class Levels:
    """The distinct texts of a column, and how often each stands there.

    `names` are in order of appearance; where there are more than `APART`, the most frequent come
    first and `KEPT` at most. `rows` counts all values, `distinct` all levels, and `once` the
    levels that stand there a single time.
    """

    names: pa.Array
    counts: Codes
    rows: int
    distinct: int
    once: int

    @property
    def apart(self) -> pa.Array:
        """The names that a distance tells apart."""
        return self.names[:APART]

    @property
    def unseen_share(self) -> float | None:
        """Return the share of new values that no level here is expected to have: Good 1953.

        None where there are no values at all.
        """
        return self.once / self.rows if self.rows else None

    def beside(self, codes: Codes, names: pa.Array) -> tuple[Codes, Codes]:
        """Return the counts of the reference and of a window, category by category.

        First come the reference's levels, then those that only the window has. Where the
        reference has more than `APART` levels, all but its `APART` most frequent ones are one
        category, the last, with what it never had.

        Args:
            codes: as `texts` returns them, with `names`.
            names: likewise.
        """
        here = counted(codes, names, self.names)
        if self.distinct <= APART:
            none = np.zeros(len(here) - len(self.counts), dtype=np.int64)
            return np.concatenate([self.counts, none]), here
        of_all = self.rows, int(here.sum())
        sides = [
            np.append(side[:APART], of_all[at] - side[:APART].sum())
            for at, side in enumerate((self.counts, here))
        ]
        return sides[0], sides[1]


@dataclass(frozen=True, slots=True)
class Reference:
    """Columns by name, or in words why one cannot be had; and each feature's count of nulls."""

    rows: int
    columns: Mapping[str, Numbers | Levels | str]
    nulls: Mapping[str, int]

    def numbers(self, name: str) -> Numbers:
        """Return a numeric column.

        Raises:
            Unmeasurable: there is none.
        """
        found = self.columns.get(name, f"{name} is missing in {OF}")
        if isinstance(found, Numbers):
            return found
        raise Unmeasurable(found if isinstance(found, str) else f"{name} is text in {OF}")

    def levels(self, name: str) -> Levels:
        """Return a categorical column.

        Raises:
            Unmeasurable: there is none.
        """
        found = self.columns.get(name, f"{name} is missing in {OF}")
        if isinstance(found, Levels):
            return found
        raise Unmeasurable(found if isinstance(found, str) else f"{name} is a number in {OF}")

    def unseen_share(self, name: str) -> float | None:
        """Return `Levels.unseen_share` of a column; None for one that is no category."""
        found = self.columns.get(name)
        return found.unseen_share if isinstance(found, Levels) else None

    def empty_share(self, name: str) -> float | None:
        """Return the share of a column's texts that are empty; None where it has no texts."""
        found = self.columns.get(f"{name}.length")
        if not isinstance(found, Numbers) or not len(found.ascending):
            return None
        return float(np.searchsorted(found.ascending, 0.0, side="right")) / len(found.ascending)

    def null_share(self, name: str) -> float | None:
        """Return the share of rows without a value; None for a column that is not there."""
        count = self.nulls.get(name)
        return None if count is None or not self.rows else count / self.rows


def prepared(family: Family, table: pa.Table) -> Reference:
    """Return `table`, a champion's training rows, as what a window is compared with."""
    columns = dict(_columns(family, table))
    return Reference(table.num_rows, columns, dict(_nulls(family, table)))


def leveled(codes: Codes, names: pa.Array) -> Levels:
    """Return the levels of a column as `texts` returns it."""
    counts = np.bincount(codes[codes >= 0], minlength=len(names)).astype(np.int64)
    rows, distinct, once = int(counts.sum()), len(names), int(np.count_nonzero(counts == 1))
    if distinct > APART:
        largest = np.argsort(-counts, kind="stable")[:KEPT]
        names, counts = names.take(pa.array(largest)), counts[largest]
    return Levels(names, counts, rows, distinct, once)


class References:
    """Prepared references of files, kept for as long as their model has no newer one."""

    def __init__(self) -> None:
        """Open nothing yet."""
        self._held: dict[Path, tuple[tuple[object, ...], Reference]] = {}

    def of(self, family: Family, file: Path) -> Reference:
        """Return what is prepared of a Parquet file, which nobody changes once it is there.

        Raises:
            ArtifactError: it is not there, or is damaged.
        """
        try:
            found = file.stat()
            key = (file, found.st_mtime_ns, found.st_size, _shape(family))
            model = file.parent.parent
            if (held := self._held.get(model)) is not None and held[0] == key:
                return held[1]
            reference = _kept(family, file, [found.st_mtime_ns, found.st_size])
        except (OSError, pa.ArrowException) as error:
            raise ArtifactError.unreadable(file, error) from error
        self._held[model] = (key, reference)
        return reference


@lru_cache(maxsize=256)
def held_out(file: Path) -> pa.Table | None:
    """Return the rows that a champion was gated on; None where there are none that can be read.

    Nobody changes the file once it is there, and nothing is judged by it: its rows are the first
    to learn of, where labels are late.
    """
    try:
        return pq.read_table(file, columns=["event_time", "label", "candidate"], use_threads=False)
    except (OSError, pa.ArrowException):
        return None


def _columns(family: Family, table: pa.Table) -> Iterator[tuple[str, Numbers | Levels | str]]:
    numeric, categorical = measured_columns(family)
    for name in numeric:
        try:
            values = numbers(table, name, of=OF)
        except Unmeasurable as problem:
            yield name, str(problem)
        else:
            yield name, _numbers(np.sort(values[np.isfinite(values)]))
    for name in categorical:
        try:
            yield name, leveled(*categories(family, table, name, of=OF))
        except Unmeasurable as problem:
            yield name, str(problem)


def _numbers(ascending: Floats) -> Numbers:
    with np.errstate(over="ignore", invalid="ignore"):
        spread = float(np.std(ascending)) if len(ascending) else 0.0
    last = -(-len(ascending) * np.arange(1, BINS) // BINS) - 1
    cuts = np.unique(ascending[last]) if len(ascending) else ascending
    cuts = cuts[cuts < ascending[-1]] if len(ascending) else cuts  # above it lies nothing
    values, counts = np.unique(ascending, return_counts=True)
    few = (values, counts) if len(values) <= FEW else None
    return Numbers(ascending, spread, cuts, up_to(ascending, cuts), few)


def _nulls(family: Family, table: pa.Table) -> Iterator[tuple[str, int]]:
    for name in family.measured:
        with suppress(Unmeasurable):
            yield name, nulls(table, name, of=OF)


def _kept(family: Family, file: Path, of: list[int]) -> Reference:
    """Return what is prepared of `file`, from the file beside it or made now.

    `of` is when the file was changed, and its size: what was prepared of another is not used, so
    that damage to the file shows.
    """
    kept = file.with_name(f".{file.name}.{_shape(family)}")
    with suppress(OSError, pa.ArrowException, ValueError, KeyError):
        return _opened(kept, of)
    made = prepared(family, pq.read_table(file, use_threads=False))
    part = kept.with_name(f"{kept.name}.{os.getpid()}.part")
    try:
        _write(made, part, of)
        part.replace(kept)
        return _opened(kept, of)
    except OSError:
        # A folder that cannot be written, or a full disk: then it is kept in memory.
        with suppress(OSError):
            part.unlink()
        return made


def _shape(family: Family) -> str:
    """Return a name for the layout and the features that a reference is prepared for."""
    said = [LAYOUT, *((name, feature.kind) for name, feature in family.measured.items())]
    said += [family.classes] if family.classes else []
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:12]


_VALUES = pa.schema({"values": pa.float64()})


def _write(reference: Reference, file: Path, of: list[int]) -> None:
    told: list[dict[str, object]] = []
    for name, column in reference.columns.items():
        match column:
            case Numbers():
                told.append(
                    {
                        "name": name,
                        "spread": column.spread,
                        "cuts": column.cuts.tolist(),
                        "filled": column.filled.tolist(),
                        "few": column.few and [each.tolist() for each in column.few],
                    }
                )
            case Levels():
                told.append(
                    {
                        "name": name,
                        "levels": column.names.to_pylist(),
                        "counts": column.counts.tolist(),
                        "rows": column.rows,
                        "distinct": column.distinct,
                        "once": column.once,
                    }
                )
            case str():
                told.append({"name": name, "problem": column})
    nulls = dict(reference.nulls)
    about = {"of": of, "rows": reference.rows, "nulls": nulls, "columns": told}
    schema = _VALUES.with_metadata({"reference": json.dumps(about)})
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for column in reference.columns.values():
            if isinstance(column, Numbers):
                writer.write_batch(pa.record_batch([pa.array(column.ascending)], schema=_VALUES))


def _opened(file: Path, of: list[int]) -> Reference:
    with pa.memory_map(str(file)) as source:
        held = pa.ipc.open_file(source)
        about = json.loads(held.schema.metadata[b"reference"])
        if about["of"] != of:
            raise ValueError(file)
        columns: dict[str, Numbers | Levels | str] = {}
        batch = 0
        for told in about["columns"]:
            name = told["name"]
            if "spread" in told:
                values = held.get_batch(batch).column(0).to_numpy()
                columns[name], batch = _told(values, told), batch + 1
            elif "levels" in told:
                counts = np.array(told["counts"], dtype=np.int64)
                names = pa.array(told["levels"], pa.string())
                columns[name] = Levels(names, counts, told["rows"], told["distinct"], told["once"])
            else:
                columns[name] = told["problem"]
    return Reference(about["rows"], columns, about["nulls"])


def _told(ascending: Floats, told: Mapping[str, Any]) -> Numbers:
    cuts = np.array(told["cuts"], dtype=np.float64)
    few = None
    if told["few"] is not None:
        values, counts = told["few"]
        few = np.array(values, dtype=np.float64), np.array(counts, dtype=np.int64)
    return Numbers(ascending, told["spread"], cuts, np.array(told["filled"]), few)
