"""The last minutes of a service as numbers: requests, errors, latency; memory stays constant."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Any

import msgspec

from driftloop.latencies import bin_of, upper_end

BUCKET = 10.0
"""Seconds of wall time that are counted, and forgotten, together."""
BUCKETS = 30


class Tally(msgspec.Struct):
    """Answers, those the service is to blame for, and how many took how long, by bin."""

    requests: int = 0
    errors: int = 0
    seconds: dict[int, int] = msgspec.field(default_factory=dict)

    def add(self, other: "Tally", times: int = 1) -> None:
        """Count what `other` did as well; with `times` of -1, no more."""
        self.requests += times * other.requests
        self.errors += times * other.errors
        mine = self.seconds
        for number, count in other.seconds.items():
            left = mine.get(number, 0) + times * count
            if left:
                mine[number] = left
            else:
                mine.pop(number, None)


class Lately(msgspec.Struct):
    """What one process did in the last minutes, of which `seconds` are counted."""

    seconds: float = 0.0
    models: dict[str, Tally] = msgspec.field(default_factory=dict)
    turned_away: int = 0
    poll_failures: int = 0


class Recent:
    """Counts of the last five minutes, kept in buckets of ten seconds; use it from one thread.

    Args:
        tick: the monotonic clock, in seconds.
    """

    def __init__(self, *, tick: Callable[[], float] = time.monotonic) -> None:
        self._tick = tick
        self._since = tick()
        self._buckets: deque[_Bucket] = deque()
        # The sum of all buckets: so many are dear to add up at every look.
        self._sums: dict[str, Tally] = {}

    def answered(self, model: str, seconds: float, *, failed: bool) -> None:
        """Count one answer, and whether the service was to blame for its being none."""
        number = bin_of(seconds)
        for models in (self._bucket().models, self._sums):
            tally = models.get(model)
            if tally is None:
                tally = models[model] = Tally()
            tally.requests += 1
            tally.errors += failed
            tally.seconds[number] = tally.seconds.get(number, 0) + 1

    def turned_away(self) -> None:
        """Count a request that was not taken on, for too many were under way."""
        self._bucket().turned_away += 1

    def poll_failed(self) -> None:
        """Count a poll that could not read the heads."""
        self._bucket().poll_failures += 1

    def lately(self) -> Lately:
        """Return what is counted now; it is not to be changed, and changes at the next count."""
        self._forget()
        # What is older than the oldest bucket that could still be kept has been forgotten.
        oldest = (self._number() - BUCKETS + 1) * BUCKET
        return Lately(
            seconds=round(self._tick() - max(oldest, self._since), 3),
            models=self._sums,
            turned_away=sum(bucket.turned_away for bucket in self._buckets),
            poll_failures=sum(bucket.poll_failures for bucket in self._buckets),
        )

    def _number(self) -> int:
        return int(self._tick() // BUCKET)

    def _bucket(self) -> "_Bucket":
        number = self._number()
        if not self._buckets or self._buckets[-1].number != number:
            self._forget()
            self._buckets.append(_Bucket(number))
        return self._buckets[-1]

    def _forget(self) -> None:
        """Drop the buckets that are too old; a quiet time leaves none of its own."""
        oldest = self._number() - BUCKETS + 1
        while self._buckets and self._buckets[0].number < oldest:
            for model, tally in self._buckets.popleft().models.items():
                self._sums[model].add(tally, -1)
                if not self._sums[model].requests:
                    del self._sums[model]


def recently(parts: Sequence[Lately]) -> dict[str, Any]:
    """Return what all processes did: seconds covered, requests, errors, error_rate, p50_ms, ...

    A percentile is the upper end of the tenth that it lies in: at most 10 % too high, never too
    low. It, and the error rate, is None where nothing was answered.
    """
    models: dict[str, Tally] = {}
    every = Tally()
    for part in parts:
        for model, tally in part.models.items():
            models.setdefault(model, Tally()).add(tally)
            every.add(tally)
    return {
        "seconds": max((part.seconds for part in parts), default=0.0),
        "requests": every.requests,
        "errors": every.errors,
        "error_rate": every.errors / every.requests if every.requests else None,
        "p50_ms": _percentile_ms(every, 0.5),
        "p99_ms": _percentile_ms(every, 0.99),
        "models": {
            model: {
                "requests": tally.requests,
                "errors": tally.errors,
                "p99_ms": _percentile_ms(tally, 0.99),
            }
            for model, tally in sorted(models.items())
            if model
        },
        "turned_away": sum(part.turned_away for part in parts),
        "poll_failures": sum(part.poll_failures for part in parts),
    }


def _percentile_ms(tally: Tally, share: float) -> float | None:
    rank = ceil(tally.requests * share)
    seen = 0
    for number, count in sorted(tally.seconds.items()):
        seen += count
        if seen >= rank:
            return round(upper_end(number) * 1e3, 3)
    return None


@dataclass(slots=True)
class _Bucket:
    number: int
    models: dict[str, Tally] = field(default_factory=dict)
    turned_away: int = 0
    poll_failures: int = 0
