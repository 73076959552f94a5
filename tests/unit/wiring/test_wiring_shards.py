"""A replay in several processes: the same to the byte, and trouble in one of them is told."""

import os
import signal
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from driftloop.errors import LedgerError
from driftloop.ledger import SqlLedger
from driftloop.loop.replay import Alone, Shard, replayed
from driftloop.records import Head, Kind, Measured, ModelId, Moved, Reading, State, Window
from driftloop.spec import Family, Fleet
from driftloop.wiring import shards
from driftloop.wiring.shards import shards_of

START = datetime(2026, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture
def many(fleet: Fleet, eta: Family) -> Fleet:
    """Forty models, which share one budget."""
    markets = tuple(f"m{number:02}" for number in range(40))
    return replace(fleet, families=(eta.model_copy(update={"markets": markets}),))


def lived(many: Fleet, url: str) -> None:
    """Ten days of which every fifth model is bad in the last four, and some not looked at."""
    ledger = SqlLedger(url)
    for number, model in enumerate(many.models):
        head = Head(model=model, epoch=1, version=1, digest="d", artifact="a")
        ledger.append(Moved(model=model, at=START, head=head, previous=None, reason="first"))
        for day in range(1, 11):
            if (number + day) % 7:
                error = 20.0 if number % 5 == 0 and day > 6 else 10.0
                ledger.append(measured(model, START + day * DAY, error))
    ledger.close()


def measured(model: ModelId, at: datetime, error: float) -> Measured:
    reading = Reading(
        kind=Kind.DECAY,
        metric="mae",
        column=None,
        value=error,
        n=5000,
        low=error - 0.2,
        high=error + 0.2,
        baseline=10.0,
    )
    window = Window(model=model, start=at - 14 * DAY, end=at, known_at=at)
    return Measured(model=model, at=at, window=window, rows=5000, labels=5000, readings=(reading,))


def test_shards_decide_what_one_process_decides(many: Fleet, tmp_path: Path) -> None:
    """Whose budget flows to whom depends on all models, wherever each of them is judged."""
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    lived(many, url)
    start, end = START, START + 11 * DAY
    ledger = SqlLedger(url)
    alone = replayed(Alone(Shard(many, many.models, ledger, start=start, end=end)))
    ledger.close()
    with shards_of(many, url, start=start, end=end) as several:
        assert not isinstance(several, Alone)
        assert replayed(several) == alone
    assert len(alone.pages) == 8
    assert {page.state for page in alone.pages} == {State.DECAYING}


def test_a_process_that_dies_ends_the_replay_with_a_word(many: Fleet, tmp_path: Path) -> None:
    """Not with a part of the fleet left out."""
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    lived(many, url)
    with shards_of(many, url, start=START, end=START + 11 * DAY) as several:
        several.at()
        for child in shards.multiprocessing.active_children():
            assert child.pid is not None
            os.kill(child.pid, signal.SIGKILL)
            child.join()
        with pytest.raises(LedgerError, match="is gone"):
            replayed(several)
