"""What the online service counts, in Prometheus' text format."""

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from driftloop.records import Head

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Upper bounds of the latency histogram's buckets."""


class Metrics:
    """Counters of one service, in a registry of their own.

    The label `model` is a declared model, or empty where a request named none: callers cannot
    make up series.
    """

    def __init__(self) -> None:
        # Finding a series by its labels costs as much as all else that is counted.
        self._found: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "driftloop_requests",
            "Requests answered",
            ("route", "model", "status"),
            registry=registry,
        )
        self._seconds = Histogram(
            "driftloop_request_seconds",
            "Seconds from a request's arrival to its answer",
            ("route",),
            buckets=SECONDS,
            registry=registry,
        )
        self._rows = Counter("driftloop_rows", "Rows predicted", ("model",), registry=registry)
        self._labels = Counter("driftloop_labels", "Labels accepted", ("model",), registry=registry)
        self._swaps = Counter(
            "driftloop_swaps", "Champions taken up", ("model",), registry=registry
        )
        self._refused = Counter(
            "driftloop_load_failures",
            "Champions that could not be loaded",
            ("model",),
            registry=registry,
        )
        self._polls = Counter(
            "driftloop_poll_failures", "Times the heads could not be read", registry=registry
        )
        self._epoch = Gauge(
            "driftloop_head_epoch", "Epoch that answers", ("model",), registry=registry
        )
        self._version = Gauge(
            "driftloop_head_version", "Version that answers", ("model",), registry=registry
        )

    def request(self, route: str, model: str, status: int, seconds: float) -> None:
        """Count one request."""
        key = (route, model, status)
        found = self._found.get(key)
        if found is None:
            counter = self._requests.labels(route, model, str(status))
            found = self._found[key] = (counter, self._seconds.labels(route))
        found[0].inc()
        found[1].observe(seconds)

    def rows(self, model: str, count: int) -> None:
        """Count rows that were predicted, logged and answered."""
        self._rows.labels(model).inc(count)

    def labels(self, model: str, count: int) -> None:
        """Count labels that were accepted."""
        self._labels.labels(model).inc(count)

    def refreshed(self, taken: Sequence[Head], refused: Sequence[Head]) -> None:
        """Count what one refresh took up and refused."""
        for head in taken:
            self._swaps.labels(head.model).inc()
            self._epoch.labels(head.model).set(head.epoch)
            self._version.labels(head.model).set(head.version)
        for head in refused:
            self._refused.labels(head.model).inc()

    def poll_failed(self) -> None:
        """Count a poll that could not read the heads."""
        self._polls.inc()

    def text(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self._registry)
