"""What several workers tell as one."""

from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from driftloop.records import Head, ModelId
from driftloop.serve.metrics import SECONDS, Counts, Metrics, exposition
from driftloop.serve.peers import Peers, RefusedHead, Shown, oldest_heads
from driftloop.serve.recent import Lately, Recent, recently


def head(model: str, epoch: int) -> Head:
    return Head(model=ModelId(model), epoch=epoch, version=epoch, digest="d", artifact="a")


def figures(counts: list[Counts], *heads: Head) -> dict[tuple[str, ...], float]:
    """Return what Prometheus' own parser reads, by name and labels in the order of theirs."""
    text = exposition(counts, heads).decode()
    return {
        (sample.name, *(sample.labels[key] for key in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_counters_are_added_up() -> None:
    """Requests, rows, labels and latencies of all workers are one sum."""
    one, two = Metrics(), Metrics()
    for metrics, times in ((one, 2), (two, 3)):
        for _ in range(times):
            metrics.request("predict", "eta-de", 200, 0.002)
            metrics.rows("eta-de", 10, refused=1)
            metrics.labels("eta-de", 4)
        metrics.poll_failed()
    two.request("labels", "", 404, 9.0)
    found = figures([one.counts(), two.counts()], head("eta-de", 7))
    assert found["driftloop_requests_total", "eta-de", "predict", "200"] == 5
    assert found["driftloop_requests_total", "", "labels", "404"] == 1
    assert found["driftloop_rows_total", "eta-de"] == 50
    assert found["driftloop_refused_rows_total", "eta-de"] == 5
    assert found["driftloop_labels_total", "eta-de"] == 20
    assert found["driftloop_poll_failures_total",] == 2
    assert found["driftloop_request_seconds_bucket", "0.001", "predict"] == 0
    assert found["driftloop_request_seconds_bucket", "0.0025", "predict"] == 5
    assert found["driftloop_request_seconds_count", "predict"] == 5
    assert found["driftloop_request_seconds_bucket", str(SECONDS[-1]), "labels"] == 0
    assert found["driftloop_request_seconds_bucket", "+Inf", "labels"] == 1
    assert found["driftloop_head_epoch", "eta-de"] == 7
    assert found["driftloop_online_workers",] == 2


def test_what_each_does_anew_is_counted_once() -> None:
    """A swap that two workers make is one swap; a load that one failed at is one failure."""
    one, two = Metrics(), Metrics()
    for metrics in (one, two):
        metrics.refreshed([head("eta-de", 1)], [])
    two.refreshed([head("eta-de", 2)], [head("eta-fr", 1)])
    found = figures([one.counts(), two.counts()])
    assert found["driftloop_swaps_total", "eta-de"] == 2
    assert found["driftloop_load_failures_total", "eta-fr"] == 1


def test_counters_do_not_go_back_when_a_worker_dies(tmp_path: Path) -> None:
    """The next in its place counts on from what it showed last."""
    metrics = Metrics()
    metrics.request("predict", "eta-de", 200, 0.002)
    metrics.rows("eta-de", 1)
    Peers(tmp_path, 0).show(Shown(counts=metrics.counts()))
    before = Peers(tmp_path, 0).before()
    assert before is not None
    following = Metrics(before.counts)
    following.request("predict", "eta-de", 200, 0.002)
    found = figures([following.counts()])
    assert found["driftloop_requests_total", "eta-de", "predict", "200"] == 2
    assert Peers(tmp_path, 1).before() is None


def test_the_last_minutes_are_those_of_all(tmp_path: Path) -> None:
    """Requests and errors add up, and a percentile is of all answers."""
    parts = []
    for seconds, times in ((0.001, 98), (1.0, 2)):
        recent = Recent()
        for _ in range(times):
            recent.answered("eta-de", seconds, failed=seconds == 1.0)
        recent.turned_away()
        Peers(tmp_path, len(parts)).show(Shown(lately=recent.lately()))
        parts.append(recent)
    shown = recently([each.lately for each in Peers(tmp_path, 9).others()])
    assert (shown["requests"], shown["errors"], shown["turned_away"]) == (100, 2, 2)
    assert shown["p50_ms"] < 2
    assert shown["p99_ms"] >= 1000
    assert shown["models"]["eta-de"]["requests"] == 100


def test_a_version_answers_once_none_answers_otherwise() -> None:
    """Of the workers' versions of one model the oldest is told."""
    shown = [
        Shown(heads=(head("eta-de", 2), head("eta-fr", 1))),
        Shown(heads=(head("eta-de", 1),)),
    ]
    assert oldest_heads(shown) == {"eta-de": head("eta-de", 1), "eta-fr": head("eta-fr", 1)}


def test_what_cannot_be_read_is_passed_over(tmp_path: Path, caplog: Any) -> None:
    """A damaged file of another worker costs its figures, not the answer; it is logged."""
    refused = RefusedHead("eta-de", 1, "d", "damaged")
    Peers(tmp_path, 1).show(Shown(refused=(refused,)))
    (tmp_path / "2.json").write_text("{")
    (tmp_path / "connections").write_bytes(b"\0")
    others = Peers(tmp_path, 0).others()
    assert [each.refused for each in others] == [(refused,)]
    assert "cannot be read" in caplog.text
    assert Peers(tmp_path / "nowhere", 0).others() == []
    Peers(tmp_path / "nowhere", 0).show(Shown())
    assert "not shown" in caplog.text
    assert (Peers().others(), Peers().before()) == ([], None)
    assert recently([Lately()])["error_rate"] is None
