"""The last minutes of a service as numbers: requests, errors, latency; memory stays constant."""

import time
from array import array
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from math import ceil, log
from typing import Any

BUCKET = 10.0
"""Seconds of wall time that are counted, and forgotten, together."""
BUCKETS = 30

_FINEST = 1e-5
_GROWTH = 1.1
_BINS = 160
"""Latencies from 10 us to 42 s, each bin a tenth wider than the one before it."""
_PER_BIN = 1.0 / log(_GROWTH)


class Recent:
    """Counts of the last five minutes, kept in buckets of ten seconds; use it from one thread.

    Args:
        tick: the monotonic clock, in seconds.
    """

    def __init__(self, *, tick: Callable[[], float] = time.monotonic) -> None:
        self._tick = tick
        self._since = tick()
        self._buckets: deque[_Bucket] = deque(maxlen=BUCKETS)

    def answered(self, model: str, seconds: float, *, failed: bool) -> None:
        """Count one answer, and whether the service was to blame for its being none."""
        models = self._bucket().models
        tally = models.get(model)
        if tally is None:
            tally = models[model] = _Tally()
        tally.requests += 1
        tally.errors += failed
        tally.seconds[_bin(seconds)] += 1

    def poll_failed(self) -> None:
        """Count a poll that could not read the heads."""
        self._bucket().poll_failures += 1

    def shown(self) -> dict[str, Any]:
        """Return seconds covered, requests, errors, error_rate, p50_ms, p99_ms, models, polls.

        A percentile is the upper end of the tenth that it lies in: at most 10 % too high, never
        too low. It, and the error rate, is None where nothing was answered.
        """
        buckets = self._kept()
        models: dict[str, _Tally] = {}
        for bucket in buckets:
            for model, tally in bucket.models.items():
                models.setdefault(model, _Tally()).add(tally)
        every = _Tally()
        for tally in models.values():
            every.add(tally)
        # What is older than the oldest bucket that could still be kept has been forgotten.
        oldest = (self._number() - BUCKETS + 1) * BUCKET
        return {
            "seconds": round(self._tick() - max(oldest, self._since), 3),
            "requests": every.requests,
            "errors": every.errors,
            "error_rate": every.errors / every.requests if every.requests else None,
            "p50_ms": every.percentile_ms(0.5),
            "p99_ms": every.percentile_ms(0.99),
            "models": {
                model: {
                    "requests": tally.requests,
                    "errors": tally.errors,
                    "p99_ms": tally.percentile_ms(0.99),
                }
                for model, tally in sorted(models.items())
                if model
            },
            "poll_failures": sum(bucket.poll_failures for bucket in buckets),
        }

    def _number(self) -> int:
        return int(self._tick() // BUCKET)

    def _bucket(self) -> "_Bucket":
        number = self._number()
        if not self._buckets or self._buckets[-1].number != number:
            self._buckets.append(_Bucket(number))
        return self._buckets[-1]

    def _kept(self) -> "list[_Bucket]":
        """Return the buckets that are not too old; a quiet time leaves none of its own."""
        oldest = self._number() - BUCKETS + 1
        return [bucket for bucket in self._buckets if bucket.number >= oldest]


@dataclass(slots=True)
class _Tally:
    requests: int = 0
    errors: int = 0
    seconds: "array[int]" = field(default_factory=lambda: array("Q", bytes(_BINS * 8)))

    def add(self, other: "_Tally") -> None:
        self.requests += other.requests
        self.errors += other.errors
        for number, count in enumerate(other.seconds):
            self.seconds[number] += count

    def percentile_ms(self, share: float) -> float | None:
        rank = ceil(self.requests * share)
        seen = 0
        for number, count in enumerate(self.seconds):
            seen += count
            if count and seen >= rank:
                return round(_FINEST * _GROWTH ** (number + 1) * 1e3, 3)
        return None


@dataclass(slots=True)
class _Bucket:
    number: int
    models: dict[str, _Tally] = field(default_factory=dict)
    poll_failures: int = 0


def _bin(seconds: float) -> int:
    if seconds <= _FINEST:
        return 0
    return min(int(log(seconds / _FINEST) * _PER_BIN), _BINS - 1)
