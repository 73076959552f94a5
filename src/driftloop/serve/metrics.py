"""What one process of the online service counts, and many of them together, for Prometheus."""

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from driftloop.records import Head

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Upper bounds of the latency histogram's buckets; what took longer is in one more."""


class Counts(msgspec.Struct, kw_only=True):
    """What was counted; plain enough to be written down and added up.

    The model is a declared one, or empty where a request named none: callers cannot make up
    series. `seconds` are, for each route, the requests in each bucket and their sum of seconds.
    """

    requests: dict[str, dict[str, dict[int, int]]] = {}
    seconds: dict[str, tuple[list[int], float]] = {}
    rows: dict[str, int] = {}
    refused_rows: dict[str, int] = {}
    labels: dict[str, int] = {}
    swaps: dict[str, int] = {}
    load_failures: dict[str, int] = {}
    poll_failures: int = 0


class Metrics:
    """Counts what one process does; requests from one thread, the rest from any.

    Args:
        before: what a process counted whose place this one takes: counters never go back.
    """

    def __init__(self, before: Counts | None = None) -> None:
        before = before or Counts()
        self._changing = threading.Lock()
        self._requests = Counter(
            {
                (route, model, status): count
                for route, models in before.requests.items()
                for model, statuses in models.items()
                for status, count in statuses.items()
            }
        )
        self._buckets = {route: [*counts] for route, (counts, _) in before.seconds.items()}
        self._seconds = {route: spent for route, (_, spent) in before.seconds.items()}
        self._rows = Counter(before.rows)
        self._refused_rows = Counter(before.refused_rows)
        self._labels = Counter(before.labels)
        self._swaps = Counter(before.swaps)
        self._load_failures = Counter(before.load_failures)
        self._poll_failures = before.poll_failures

    def request(self, route: str, model: str, status: int, seconds: float) -> None:
        """Count one request."""
        self._requests[route, model, status] += 1
        buckets = self._buckets.get(route)
        if buckets is None:
            buckets = self._buckets[route] = [0] * (len(SECONDS) + 1)
            self._seconds[route] = 0.0
        buckets[bisect_left(SECONDS, seconds)] += 1
        self._seconds[route] += seconds

    def rows(self, model: str, count: int, *, refused: int = 0) -> None:
        """Count rows that were predicted, logged and answered, and those beside them that were not.

        Those of a request that was refused as a whole are not counted.
        """
        with self._changing:
            self._rows[model] += count
            if refused:
                self._refused_rows[model] += refused

    def labels(self, model: str, count: int) -> None:
        """Count labels that were accepted."""
        with self._changing:
            self._labels[model] += count

    def refreshed(self, taken: Sequence[Head], refused: Sequence[Head]) -> None:
        """Count what one refresh took up and refused."""
        with self._changing:
            self._swaps.update(head.model for head in taken)
            self._load_failures.update(head.model for head in refused)

    def poll_failed(self) -> None:
        """Count a poll that could not read the heads."""
        self._poll_failures += 1

    def counts(self) -> Counts:
        """Return what was counted so far."""
        requests: dict[str, dict[str, dict[int, int]]] = {}
        for (route, model, status), count in self._requests.items():
            requests.setdefault(route, {}).setdefault(model, {})[status] = count
        return Counts(
            requests=requests,
            seconds={
                route: ([*counts], self._seconds[route]) for route, counts in self._buckets.items()
            },
            rows=self._rows.copy(),
            refused_rows=self._refused_rows.copy(),
            labels=self._labels.copy(),
            swaps=self._swaps.copy(),
            load_failures=self._load_failures.copy(),
            poll_failures=self._poll_failures,
        )


def exposition(counts: Sequence[Counts], heads: Iterable[Head]) -> bytes:
    """Return the counts of every process, and who answers, in Prometheus' text format.

    What every process does anew, such as taking a champion up, is counted once: as often as the
    one that did it most.
    """
    return generate_latest(_Collected((*_counters(counts), *_gauges(heads, len(counts)))))


class _Collected(CollectorRegistry):
    def __init__(self, found: Iterable[Metric]) -> None:
        super().__init__()
        self._found = tuple(found)

    def collect(self) -> Iterator[Metric]:
        yield from self._found


def _counters(counts: Sequence[Counts]) -> Iterator[Metric]:
    requests = CounterMetricFamily(
        "driftloop_requests", "Requests answered", labels=("route", "model", "status")
    )
    every: Counter[tuple[str, str, int]] = Counter()
    for each in counts:
        for route, models in each.requests.items():
            for model, statuses in models.items():
                every.update({(route, model, status): n for status, n in statuses.items()})
    for (route, model, status), count in sorted(every.items()):
        requests.add_metric((route, model, str(status)), count)
    yield requests
    yield _histogram(counts)
    for name, what, key in (
        ("rows", "Rows predicted", "rows"),
        ("refused_rows", "Rows refused in requests whose other rows were answered", "refused_rows"),
        ("labels", "Labels accepted", "labels"),
    ):
        summed: Counter[str] = Counter()
        for each in counts:
            summed.update(getattr(each, key))
        yield _by_model(name, what, summed)
    for name, what, key in (
        ("swaps", "Champions taken up", "swaps"),
        ("load_failures", "Champions that could not be loaded", "load_failures"),
    ):
        largest: Counter[str] = Counter()
        for each in counts:
            largest |= Counter(getattr(each, key))
        yield _by_model(name, what, largest)
    failed = sum(each.poll_failures for each in counts)
    yield CounterMetricFamily(
        "driftloop_poll_failures", "Times the heads could not be read", value=failed
    )


def _histogram(counts: Sequence[Counts]) -> Metric:
    found = HistogramMetricFamily(
        "driftloop_request_seconds",
        "Seconds from a request's arrival to its answer",
        labels=("route",),
    )
    for route in sorted({route for each in counts for route in each.seconds}):
        parts = [each.seconds[route] for each in counts if route in each.seconds]
        total, buckets = 0, []
        for bound, *found_in in zip((*SECONDS, "+Inf"), *(part[0] for part in parts), strict=True):
            total += sum(found_in)
            buckets.append((str(bound), total))
        found.add_metric((route,), buckets, sum(part[1] for part in parts))
    return found


def _by_model(name: str, what: str, counted: Counter[str]) -> Metric:
    family = CounterMetricFamily(f"driftloop_{name}", what, labels=("model",))
    for model, count in sorted(counted.items()):
        family.add_metric((model,), count)
    return family


def _gauges(heads: Iterable[Head], processes: int) -> Iterator[Metric]:
    epoch = GaugeMetricFamily("driftloop_head_epoch", "Epoch that answers", labels=("model",))
    version = GaugeMetricFamily("driftloop_head_version", "Version that answers", labels=("model",))
    for head in heads:
        epoch.add_metric((head.model,), head.epoch)
        version.add_metric((head.model,), head.version)
    yield epoch
    yield version
    yield GaugeMetricFamily(
        "driftloop_online_workers", "Processes that are counted here", value=processes
    )
