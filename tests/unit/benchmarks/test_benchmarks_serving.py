"""The figures of the serving benchmark, from raw lines alone."""

from typing import Any

from tests.benchmarks.serving import figures

CLIENT = {"wall_s": 2.0, "failed": 0, "p50_ms": 1.0, "p99.9_ms": 9.0, "client_cpu_s": 0.2}


def load(kind: str, requests: int, **noted: Any) -> dict[str, Any]:
    return {
        "what": "load",
        "load": kind,
        "warm": True,
        "service_cpu_s": 1.0,
        "mib": [100.0, 120.0],
        "resident": 20,
        "p99_ms": 4.0,
        "requests": requests,
        **CLIENT,
        **noted,
    }


def values(*lines: dict[str, Any]) -> dict[str, Any]:
    return {name: figure.value for name, figure in figures(lines).items()}


def test_the_maximum_is_the_middle_of_the_warm_rounds() -> None:
    """The round that warms everything up does not count."""
    found = values(
        load("full", 2, warm=False),
        load("full", 10_000),
        load("full", 20_000),
        load("full", 90_000, mib=[300.0]),
    )
    assert found["rps"] == 10_000.0
    assert found["service_cpu_us"] == 50.0
    assert found["client_cpu_us"] == 10.0
    assert found["worker_mib"] == 300.0


def test_swaps_are_beside_the_same_load_without() -> None:
    """What failed, what was mixed, and how many times as late it got."""
    swaps = load("", 5000, what="swaps", swaps=10, p99_ms=6.0, mixed=1, versions=30, models=20)
    found = values(load("paced", 5000), load("paced", 5000, p99_ms=3.0), swaps | {"failed": 2})
    assert found["p99_ms"] == 3.5
    assert found["swap_p99_ratio"] == 6.0 / 3.5
    assert (found["swap_failed"], found["swap_mixed"], found["swap_seen"]) == (2, 1, 10)


def test_what_fails_beside_the_dead_worker_is_told_apart() -> None:
    """Two were in its hands; the third, on another connection or refused, was not."""
    kill = load("", 5000, what="kill", workers=2, back_s=0.7)
    kill |= {"failed": 3, "dropped": [5001, 5002, 6001], "connections": [5001, 5002, 5003]}
    found = values(kill)
    assert (found["kill_failed"], found["kill_failed_elsewhere"]) == (3, 1)
    assert found["kill_back_s"] == 0.7


def test_peers_are_ratios_of_one_run() -> None:
    """Ours answers ten times as much, for a tenth of the CPU, and in half the time at its load."""

    def peer(by: str, kind: str, **noted: Any) -> dict[str, Any]:
        return load(kind, 10_000, what="peer", by=by) | noted

    found = values(
        peer("ours", "full"),
        peer("ours", "mlflow"),
        peer("mlflow", "full", requests=1000),
        peer("mlflow", "mlflow", p99_ms=8.0),
    )
    assert found["peer_ratios"] == {"mlflow_rps": 10.0, "mlflow_cpu": 10.0, "mlflow_p99": 2.0}


def test_a_peer_that_could_not_be_measured_says_why() -> None:
    """It is not left out without a word."""
    line = {"what": "peer_missing", "by": "mlserver", "why": "no such version"}
    shown = figures([line])["peer_ratios"]
    assert shown.value is None
    assert "mlserver: no such version" in shown.note


def test_what_was_not_measured_is_null() -> None:
    """Every figure that is promised is there, whatever a run leaves out."""
    found = values()
    for name in (
        *("rps", "p99_ms", "swap_failed", "swap_mixed", "swap_p99_ratio", "batch_ratio"),
        *("stream_events_per_s", "stream_age_p99_ms", "feature_mismatches", "peer_ratios"),
    ):
        assert found[name] is None
