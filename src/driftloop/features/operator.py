"""The events of one key, and what features are made of them: served live, replayed for training.

What is kept of a key is its events in the order of their times, no more of them than any window
can still reach. Aggregates are made of these when they are asked for: nothing is carried along
that rounding or a late event could spoil.
"""

import struct
import zlib
from array import array
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from math import sqrt
from typing import Any, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from driftloop.errors import LogError
from driftloop.records import FeatureValue
from driftloop.spec import Family, Fleet

Floats = NDArray[np.float64]

MICROSECOND = timedelta(microseconds=1)
MANY = 48
"""From so many values on NumPy is quicker than Python's own functions."""
EXPIRED = 64
"""So many forgotten events are cut off at a time."""

_HEAD = struct.Struct("<IqqqI")
"""Digest of the layout, newest event time, newest position, events, bytes of the texts."""
_NEVER = -(2**63)
_NULL = 0
"""The code of a text that is null."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What is kept of the events of one source by one key, for all families that use it."""

    source: str
    key: str
    numeric: tuple[str, ...]
    categorical: tuple[str, ...]
    span: int
    """Microseconds: how far behind the newest event an event can still count."""
    lateness: int
    """Microseconds."""

    digest: int = field(init=False, repr=False)
    """Stands in packed states: one of another layout is not read."""

    def __post_init__(self) -> None:
        """Make the digest once: it is asked for at every look-up."""
        object.__setattr__(self, "digest", zlib.crc32(repr(self).encode()))


@dataclass(frozen=True, slots=True)
class Windowed:
    """One feature that is made of events; `window` in microseconds."""

    name: str
    aggregate: str
    of: str | None
    window: int


def layouts(fleet: Fleet) -> dict[tuple[str, str], Layout]:
    """Return what has to be kept of events, by source and key."""
    wanted: dict[tuple[str, str], list[Windowed]] = {}
    for family in fleet.families:
        for place, mine in windowed(family).items():
            wanted.setdefault(place, []).extend(mine)
    found = {}
    for (source, key), features in wanted.items():
        declared = fleet.sources[source]
        used = {feature.of for feature in features}
        kinds = {name: kind for name, kind in declared.fields.items() if name in used}
        lateness = declared.late_after // MICROSECOND
        found[source, key] = Layout(
            source=source,
            key=key,
            numeric=tuple(sorted(name for name, kind in kinds.items() if kind == "numeric")),
            categorical=tuple(sorted(n for n, kind in kinds.items() if kind == "categorical")),
            span=max(feature.window for feature in features) + lateness,
            lateness=lateness,
        )
    return found


def windowed(family: Family) -> dict[tuple[str, str], tuple[Windowed, ...]]:
    """Return the family's features that are made of events, by source and key."""
    found: dict[tuple[str, str], list[Windowed]] = {}
    for name, feature in family.looked_up.items():
        if feature.aggregate is None or feature.window is None:
            continue
        place = (str(feature.source), str(feature.key))
        window = feature.window // MICROSECOND
        found.setdefault(place, []).append(Windowed(name, feature.aggregate, feature.of, window))
    return {place: tuple(features) for place, features in found.items()}


class State:
    """What is kept of one key.

    >>> layout = Layout("departures", "origin", ("delay",), (), span=60_000_000, lateness=0)
    >>> state = State(layout)
    >>> state.add(1_000_000, 1, {"delay": 5.0}), state.add(500_000, 2, {"delay": 9.0})
    (True, False)
    >>> state.values(2_000_000, [Windowed("mean_delay", "mean", "delay", 60_000_000)])
    {'mean_delay': 5.0}
    """

    __slots__ = (
        *("layout", "newest", "position"),
        *("_codes", "_columns", "_frozen", "_texts", "_times"),
    )

    def __init__(self, layout: Layout) -> None:
        """Keep nothing yet."""
        self.layout = layout
        self.newest = _NEVER
        """Event time of the newest event, in microseconds since 1970."""
        self.position = _NEVER
        """Position of the last event that was added, late or not."""
        self._times: Any = array("q")
        self._columns: dict[str, Any] = {name: array("d") for name in layout.numeric}
        self._columns |= {name: array("I") for name in layout.categorical}
        self._texts: list[str] = []
        """The text of code n stands at n - 1."""
        self._codes: dict[str, int] | None = {}
        """Made when first needed."""
        self._frozen = False

    def add(self, event_time: int, position: int, fields: Mapping[str, FeatureValue]) -> bool:
        """Add an event, and return False if it is late: then it changes nothing.

        Events come in the order of their positions; one that was added before changes nothing.

        Args:
            event_time: microseconds since 1970.
            position: the event's place in the stream.
            fields: those of the layout; what is not there is null.
        """
        if position <= self.position:
            return True
        self.position = position
        newest, layout = self.newest, self.layout
        if event_time < newest - layout.lateness:
            return False
        if self._frozen:
            self._thaw()
        times = self._times
        if event_time >= newest:
            self.newest = event_time
            times.append(event_time)
            for name in layout.numeric:
                value = fields.get(name)
                self._columns[name].append(_NAN if value is None else value)
            for name in layout.categorical:
                self._columns[name].append(self._code(fields.get(name)))
            # Times rise: most calls look at one event, and cut nothing off.
            if len(times) > EXPIRED and times[EXPIRED] <= event_time - layout.span:
                self._forget()
        else:
            # Events of one time stand in the order of their positions.
            place = bisect_right(times, event_time)
            times.insert(place, event_time)
            for name in layout.numeric:
                value = fields.get(name)
                self._columns[name].insert(place, _NAN if value is None else value)
            for name in layout.categorical:
                self._columns[name].insert(place, self._code(fields.get(name)))
        return True

    def values(self, event_time: int, features: Sequence[Windowed]) -> dict[str, FeatureValue]:
        """Return the value of each feature for a row at `event_time`; None where it has none.

        Args:
            event_time: microseconds since 1970.
            features: of the layout's source and key.
        """
        if event_time < self.newest - self.layout.lateness:
            return {feature.name: None for feature in features}
        times = self._times
        # Nearly always nothing is newer than the row.
        end = len(times) if event_time >= self.newest else bisect_right(times, event_time)
        starts: dict[int, int] = {}
        parts: dict[tuple[str, int], tuple[Any, Mapping[str, Callable[[Any], FeatureValue]]]] = {}
        found: dict[str, FeatureValue] = {}
        for feature in features:
            window, of, aggregate = feature.window, feature.of, feature.aggregate
            start = starts.get(window)
            if start is None:
                start = starts[window] = bisect_right(times, event_time - window, 0, end)
            if of is None:
                count = float(end - start)
                found[feature.name] = count if aggregate == "count" else count / (window / 1e6)
                continue
            part = parts.get((of, start))
            if part is None:
                part = parts[of, start] = self._part(of, start, end)
            values, made = part
            enough = len(values) >= FEWEST.get(aggregate, 0)
            found[feature.name] = made[aggregate](values) if enough else None
        return found

    def pack(self) -> bytes:
        """Return the state as bytes, for `unpack`."""
        self._forget()
        self._tidy()
        texts = msgspec.json.encode(self._texts)
        digest, count = self.layout.digest, len(self._times)
        head = _HEAD.pack(digest, self.newest, self.position, count, len(texts))
        return b"".join((head, texts, self._times, *self._columns.values()))

    @classmethod
    def unpack(cls, layout: Layout, packed: bytes | memoryview) -> Self:
        """Return the state that `packed` holds; it is read where it lies until one is added.

        Raises:
            LogError: it was packed for another layout, or is damaged.
        """
        view = memoryview(packed)
        newest, position, count, texts = _opened(layout, view)
        state = cls(layout)
        state.newest, state.position, state._texts = newest, position, texts
        state._codes = None
        state._frozen = True
        place = len(view) - count * _width(layout)
        state._times = view[place : (place := place + 8 * count)].cast("q")
        for name in layout.numeric:
            state._columns[name] = view[place : (place := place + 8 * count)].cast("d")
        for name in layout.categorical:
            state._columns[name] = view[place : (place := place + 4 * count)].cast("I")
        return state

    def __len__(self) -> int:
        """Return how many events are kept."""
        return len(self._times)

    def _part(
        self, of: str, start: int, end: int
    ) -> tuple[Any, Mapping[str, Callable[[Any], FeatureValue]]]:
        """Return the values of a field that are not null, and the functions that take them."""
        column = self._columns[of][start:end]
        if of in self.layout.categorical:
            texts = self._texts
            return [texts[code - 1] for code in column if code != _NULL], _OF_TEXTS
        if end - start < MANY:
            return [value for value in column if value == value], _OF_FEW  # noqa: PLR0124 - NaN is null
        values = np.frombuffer(column)
        return values[~np.isnan(values)], _OF_MANY

    def _code(self, value: FeatureValue) -> int:
        if value is None:
            return _NULL
        if self._codes is None:
            self._codes = {text: code for code, text in enumerate(self._texts, 1)}
        code = self._codes.get(str(value))
        if code is None:
            self._texts.append(str(value))
            code = self._codes[str(value)] = len(self._texts)
        return code

    def _thaw(self) -> None:
        """Copy what was unpacked, so that it can be added to."""
        self._times = array("q", self._times.tobytes())
        for name in self.layout.numeric:
            self._columns[name] = array("d", self._columns[name].tobytes())
        for name in self.layout.categorical:
            self._columns[name] = array("I", self._columns[name].tobytes())
        self._frozen = False

    def _forget(self) -> None:
        """Cut off the events that no row can reach any more."""
        if gone := bisect_right(self._times, self.newest - self.layout.span):
            if self._frozen:
                self._thaw()
            for column in (self._times, *self._columns.values()):
                del column[:gone]

    def _tidy(self) -> None:
        """Drop texts that no event has, once they are more than the events."""
        if len(self._texts) <= len(self._times) + EXPIRED:
            return
        if self._frozen:
            self._thaw()
        names = self.layout.categorical
        used = sorted({code for name in names for code in self._columns[name]} - {_NULL})
        renamed = {_NULL: _NULL} | {old: new for new, old in enumerate(used, 1)}
        for name in names:
            self._columns[name] = array("I", map(renamed.__getitem__, self._columns[name]))
        self._texts = [self._texts[code - 1] for code in used]
        self._codes = None


def _opened(layout: Layout, packed: memoryview) -> tuple[int, int, int, list[str]]:
    """Return newest, position, number of events and the texts of a packed state."""
    with suppress(struct.error, ValueError):  # msgspec's errors are ValueErrors
        digest, newest, position, count, length = _HEAD.unpack_from(packed)
        place = _HEAD.size + length
        if digest == layout.digest and len(packed) == place + count * _width(layout):
            texts = msgspec.json.decode(packed[_HEAD.size : place], type=list[str])
            return newest, position, count, texts
    raise LogError(
        "the state was packed for another layout, or is damaged",
        where=f"{layout.source} by {layout.key}",
        hint="it is made again by replaying the log",
    )


def _width(layout: Layout) -> int:
    """Return the bytes of one event."""
    return 8 + 8 * len(layout.numeric) + 4 * len(layout.categorical)


def _std_of_few(values: list[float]) -> float:
    # From the first value on: of equal values it is exactly 0.
    apart = [value - values[0] for value in values]
    mean = sum(apart) / len(apart)
    return sqrt(sum((each - mean) ** 2 for each in apart) / (len(apart) - 1))


def _std_of_many(values: Floats) -> float:
    apart = values - values[0]
    apart -= np.add.reduce(apart) / len(apart)
    return sqrt(float(apart @ apart) / (len(apart) - 1))


def _distinct_of_many(values: Floats) -> float:
    ordered = np.sort(values)
    return float(np.count_nonzero(ordered[1:] != ordered[:-1]) + (len(values) > 0))


_NAN = float("nan")
FEWEST = {"mean": 1, "min": 1, "max": 1, "last": 1, "std": 2}
"""So many values an aggregate needs; the others are 0 without any."""
_OF_TEXTS: Mapping[str, Callable[[Any], FeatureValue]] = {
    "last": lambda values: values[-1],
    "distinct": lambda values: float(len(set(values))),
}
_OF_FEW: Mapping[str, Callable[[Any], FeatureValue]] = {
    "sum": lambda values: sum(values, 0.0),
    "mean": lambda values: sum(values) / len(values),
    "min": min,
    "max": max,
    "last": lambda values: values[-1],
    "distinct": lambda values: float(len(set(values))),
    "std": _std_of_few,
}
_OF_MANY: Mapping[str, Callable[[Any], FeatureValue]] = {
    "sum": lambda values: float(np.add.reduce(values)),
    "mean": lambda values: float(np.add.reduce(values)) / len(values),
    "min": lambda values: float(np.minimum.reduce(values)),
    "max": lambda values: float(np.maximum.reduce(values)),
    "last": lambda values: float(values[-1]),
    "distinct": _distinct_of_many,
    "std": _std_of_many,
}
