from typing import Any

import pytest

from driftloop.serve.recent import BUCKET, BUCKETS, Recent, recently


@pytest.fixture
def now() -> list[float]:
    """A monotonic clock that a test sets; machines do not start at 0."""
    return [1234.5]


@pytest.fixture
def recent(now: list[float]) -> Recent:
    return Recent(tick=lambda: now[0])


def test_nothing_asked_is_no_figure(recent: Recent) -> None:
    """Without requests there is neither a rate nor a latency, rather than a good one."""
    assert recently([recent.lately()]) == {
        "seconds": 0.0,
        "requests": 0,
        "errors": 0,
        "error_rate": None,
        "p50_ms": None,
        "p99_ms": None,
        "models": {},
        "turned_away": 0,
        "poll_failures": 0,
    }


def test_counts_are_by_model_and_in_all(recent: Recent) -> None:
    """Each model has its own counts; requests for none that is declared count in the whole."""
    for _ in range(3):
        recent.answered("eta-de", 0.001, failed=False)
    recent.answered("eta-fr", 0.1, failed=True)
    recent.answered("", 0.001, failed=False)
    recent.poll_failed()
    shown = recently([recent.lately()])
    assert (shown["requests"], shown["errors"], shown["error_rate"]) == (5, 1, 0.2)
    assert shown["poll_failures"] == 1
    counts = {model: (each["requests"], each["errors"]) for model, each in shown["models"].items()}
    assert counts == {"eta-de": (3, 0), "eta-fr": (1, 1)}
    assert shown["models"]["eta-fr"]["p99_ms"] == pytest.approx(110, abs=11)


@pytest.mark.parametrize("seconds", [3e-6, 4.2e-5, 0.0033, 0.25, 7.0])
def test_a_percentile_is_at_most_a_tenth_too_high(recent: Recent, seconds: float) -> None:
    """99 of 100 answers within a time: p99 says so, never less and at most a tenth more."""
    for _ in range(990):
        recent.answered("m", seconds, failed=False)
    for _ in range(10):
        recent.answered("m", 30.0, failed=False)
    shown = recently([recent.lately()])
    true = max(seconds, 1e-5) * 1e3
    assert true <= shown["p99_ms"] <= true * 1.1 + 0.001
    assert shown["p50_ms"] == shown["p99_ms"]
    recent.answered("m", 30.0, failed=False)
    assert recently([recent.lately()])["p99_ms"] >= 30e3


def test_what_is_older_than_five_minutes_is_forgotten(recent: Recent, now: list[float]) -> None:
    """Each answer counts for 290 to 300 seconds, in a busy time and in a quiet one."""
    started = now[0]
    recent.answered("m", 0.001, failed=True)
    now[0] = started + 289
    recent.answered("m", 0.001, failed=False)
    assert recently([recent.lately()])["requests"] == 2
    assert recently([recent.lately()])["seconds"] == 289
    now[0] = started + 300
    shown = recently([recent.lately()])
    assert (shown["requests"], shown["errors"]) == (1, 0)
    assert 290 <= shown["seconds"] <= 300
    now[0] = started + 10_000
    assert recently([recent.lately()])["requests"] == 0
    assert 290 <= recently([recent.lately()])["seconds"] <= 300


def test_memory_does_not_grow(recent: Recent, now: list[float]) -> None:
    """A day of answers is kept in as many buckets as five minutes are."""
    for second in range(0, 86_400, 5):
        now[0] = 1234.5 + second
        recent.answered("m", 0.001 * second, failed=False)
    kept: Any = recent._buckets
    assert len(kept) == BUCKETS
    assert recently([recent.lately()])["requests"] == pytest.approx(BUCKETS * BUCKET / 5, abs=2)
