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
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from driftloop.errors import ArtifactError
from driftloop.measure.columns import (
    Codes,
    Floats,
    Unmeasurable,
    answered,
    measured_columns,
    nulls,
    numbers,
    texts,
)
from driftloop.spec import Family

OF = "the reference"
LAYOUT = 1
"""Version of the prepared files."""


@dataclass(frozen=True, slots=True)
class Numbers:
    """The finite values of a column, ascending, and their standard deviation (divided by n)."""

    ascending: Floats
    spread: float


@dataclass(frozen=True, slots=True)
class Levels:
    """The distinct texts of a column in order of appearance, and how often each stands there."""

    names: pa.Array
    counts: Codes


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

    def null_share(self, name: str) -> float | None:
        """Return the share of rows without a value; None for a column that is not there."""
        count = self.nulls.get(name)
        return None if count is None or not self.rows else count / self.rows


def prepared(family: Family, table: pa.Table) -> Reference:
    """Return `table`, a champion's training rows, as what a window is compared with."""
    columns = dict(_columns(family, table))
    return Reference(table.num_rows, columns, dict(_nulls(family, table)))


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
            reference = _kept(family, file)
        except (OSError, pa.ArrowException) as error:
            raise ArtifactError.unreadable(file, error) from error
        self._held[model] = (key, reference)
        return reference


def _columns(family: Family, table: pa.Table) -> Iterator[tuple[str, Numbers | Levels | str]]:
    numeric, categorical = measured_columns(family)
    for name in numeric:
        try:
            values = numbers(table, name, of=OF)
        except Unmeasurable as problem:
            yield name, str(problem)
        else:
            values = np.sort(values[np.isfinite(values)])
            with np.errstate(over="ignore", invalid="ignore"):
                yield name, Numbers(values, float(np.std(values)) if len(values) else 0.0)
    for name in categorical:
        try:
            given = table if name in family.features else answered(family, table, of=OF)
            codes, names = texts(given, name, of=OF)
        except Unmeasurable as problem:
            yield name, str(problem)
        else:
            yield name, Levels(names, np.bincount(codes[codes >= 0], minlength=len(names)))


def _nulls(family: Family, table: pa.Table) -> Iterator[tuple[str, int]]:
    for name in family.features:
        with suppress(Unmeasurable):
            yield name, nulls(table, name, of=OF)


def _kept(family: Family, file: Path) -> Reference:
    """Return what is prepared of `file`, from the file beside it or made now."""
    kept = file.with_name(f".{file.name}.{_shape(family)}")
    with suppress(OSError, pa.ArrowException, ValueError, KeyError):
        return _opened(kept)
    made = prepared(family, pq.read_table(file, use_threads=False))
    part = kept.with_name(f"{kept.name}.{os.getpid()}.part")
    try:
        _write(made, part)
        part.replace(kept)
        return _opened(kept)
    except OSError:
        # A folder that cannot be written, or a full disk: then it is kept in memory.
        with suppress(OSError):
            part.unlink()
        return made


def _shape(family: Family) -> str:
    """Return a name for the layout and the features that a reference is prepared for."""
    said = [LAYOUT, *((name, feature.kind) for name, feature in family.features.items())]
    said += [family.classes] if family.classes else []
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:12]


_VALUES = pa.schema({"values": pa.float64()})


def _write(reference: Reference, file: Path) -> None:
    told: list[dict[str, object]] = []
    for name, column in reference.columns.items():
        match column:
            case Numbers():
                told.append({"name": name, "spread": column.spread})
            case Levels():
                counts = column.counts.tolist()
                told.append({"name": name, "levels": column.names.to_pylist(), "counts": counts})
            case str():
                told.append({"name": name, "problem": column})
    about = {"rows": reference.rows, "nulls": dict(reference.nulls), "columns": told}
    schema = _VALUES.with_metadata({"reference": json.dumps(about)})
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for column in reference.columns.values():
            if isinstance(column, Numbers):
                writer.write_batch(pa.record_batch([pa.array(column.ascending)], schema=_VALUES))


def _opened(file: Path) -> Reference:
    with pa.memory_map(str(file)) as source:
        held = pa.ipc.open_file(source)
        about = json.loads(held.schema.metadata[b"reference"])
        columns: dict[str, Numbers | Levels | str] = {}
        batch = 0
        for told in about["columns"]:
            name = told["name"]
            if "spread" in told:
                values = held.get_batch(batch).column(0).to_numpy()
                columns[name], batch = Numbers(values, told["spread"]), batch + 1
            elif "levels" in told:
                counts = np.array(told["counts"], dtype=np.int64)
                columns[name] = Levels(pa.array(told["levels"], pa.string()), counts)
            else:
                columns[name] = told["problem"]
    return Reference(about["rows"], columns, about["nulls"])
