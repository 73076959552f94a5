from datetime import UTC, datetime, timedelta

import pytest

from driftloop.loop.budget import Ask, afforded
from driftloop.records import ModelId, Order, Window

AT = datetime(2026, 3, 1, tzinfo=UTC)


def ask(name: str, gain: float, seconds: float, *, late: int = 0) -> Ask:
    model = ModelId(name)
    order = Order(
        key=name,
        model=model,
        at=AT + timedelta(minutes=late),
        reason="worse",
        window=Window(model=model, start=AT, end=AT, known_at=AT),
        holdout_from=AT,
        seed=0,
    )
    return Ask(order=order, gain=gain, seconds=seconds)


@pytest.mark.parametrize(
    ("budget", "started", "waiting"),
    [
        pytest.param(None, "abcd", "", id="no-limit"),
        pytest.param(100.0, "abcd", "", id="enough"),
        pytest.param(25.0, "ab", "cd", id="a-smaller-one-is-not-let-past"),
        pytest.param(5.0, "a", "bcd", id="the-first-always"),
    ],
)
def test_most_gain_first_within_the_budget(
    budget: float | None, started: str, waiting: str
) -> None:
    """In order of what they gain, then of who has waited longest."""
    asks = [
        ask("d", 0.1, 1.0),
        ask("c", 0.2, 10.0, late=1),
        ask("b", 0.2, 10.0),
        ask("a", 0.9, 10.0, late=2),
    ]
    now, waits = afforded(asks, budget)
    assert "".join(each.order.key for each in now) == started
    assert "".join(waits) == waiting
    assert all(f"{len(started)} that gain more take" in why for why in waits.values())


def test_nothing_asked_is_nothing_started() -> None:
    """An ordinary pass."""
    assert afforded([], 10.0) == ((), {})
