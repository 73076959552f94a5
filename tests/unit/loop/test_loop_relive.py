"""A log as it would be, had other champions answered."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from fakes.world import FakeLog, FakeTrainer

from driftloop.errors import BadRequest
from driftloop.ledger import SqlLedger
from driftloop.loop.relive import Numbered, RelivedLog, Stepped, seeded
from driftloop.ports import Look
from driftloop.records import Candidate, Head, ModelId, Order, Window
from driftloop.rows import chosen
from driftloop.spec import Family, Fleet

DE = ModelId("eta-de")
START = datetime(2026, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)
WINDOW = Window(model=DE, start=START - DAY, end=START + 9 * DAY, known_at=START + 9 * DAY)


@dataclass
class Kept(FakeLog):
    """Ten rows, one a day from the day before the start: history, then versions 1 and 2."""

    lazy: bool = False

    def rows(self, family: Family, window: Window) -> pa.Table:
        at = [START + (n - 1) * DAY for n in range(10)]
        return pa.table(
            {
                "id": [str(n) for n in range(10)],
                "version": pa.array([1, 0, *[1] * 4, *[2] * 4], pa.int32()),
                "event_time": pa.array(at, pa.timestamp("us", "UTC")),
                "arrived_at": pa.array(at, pa.timestamp("us", "UTC")),
                "prediction": pa.array([1.0, None, *[1.0] * 4, *[2.0] * 4], pa.float64()),
            }
        )

    def looks(self, family: Family, windows: Sequence[Window]) -> Iterator[tuple[ModelId, Look]]:
        for window in windows:
            rows = self.rows(family, window)
            seen = chosen(rows, pa.chunked_array([[True] * 9 + [False]])) if self.lazy else rows
            yield window.model, Look(rows=seen, summary=self.summary(family, window))


def head(version: int, *, epoch: int = 1, artifact: str = "model.onnx") -> Head:
    return Head(model=DE, epoch=epoch, version=version, digest="d", artifact=artifact)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[SqlLedger]:
    made = SqlLedger(f"sqlite:///{tmp_path / 'ledger.db'}")
    yield made
    made.close()


def relived(ledger: SqlLedger, log: FakeLog | None = None) -> RelivedLog:
    def answer(head: Head, _family: Family, rows: pa.Table) -> list[float]:
        return [100.0 * head.version] * rows.num_rows

    return RelivedLog(log or Kept(), ledger, Stepped(START + 5 * DAY), START, answer)


def test_rows_since_the_start_are_answered_by_who_is_champion_in_the_replay(
    ledger: SqlLedger, eta: Family
) -> None:
    """What version 2 answered is asked of 1, and from the day that 7 came on of that one."""
    ledger.move(head(1), at=START - 5 * DAY, previous=None, reason="first")
    ledger.move(head(7, epoch=2), at=START + 7 * DAY, previous=head(1), reason="better")
    rows = relived(ledger).rows(eta, WINDOW)
    assert rows["version"].to_pylist() == [1, 0, 1, 1, 1, 1, 1, 1, 7, 7]
    # Its own answers stand as they were given, and history has none.
    given = [1.0, None, 1.0, 1.0, 1.0, 1.0, 100.0, 100.0, 700.0, 700.0]
    assert rows["prediction"].to_pylist() == given
    ((_, look),) = relived(ledger).looks(eta, [WINDOW])
    assert look.rows.column("prediction").to_pylist() == given


def test_nothing_is_known_that_comes_later(ledger: SqlLedger, eta: Family) -> None:
    """The newest that has arrived is never after the time that the replay has come to."""

    class Newest(Kept):
        def horizon(self, family: Family) -> datetime | None:
            return START + 9 * DAY

    assert relived(ledger, Newest()).horizon(eta) == START + 5 * DAY


def test_what_cannot_be_answered_again_is_refused(ledger: SqlLedger, eta: Family) -> None:
    """A version that was found has no file; and rows that are not in memory are not replaced."""
    ledger.move(head(1, artifact="v1/reference.parquet"), at=START - DAY, previous=None, reason="-")
    with pytest.raises(BadRequest, match="there is no file of it"):
        relived(ledger).rows(eta, WINDOW)
    with pytest.raises(BadRequest, match="cannot be answered again"):
        list(relived(ledger, Kept(lazy=True)).looks(eta, [WINDOW]))


def test_a_replay_begins_with_what_was_known_then(
    ledger: SqlLedger, fleet: Fleet, tmp_path: Path
) -> None:
    """Moves before the start are copied, later ones are not."""
    ledger.move(head(1), at=START - DAY, previous=None, reason="first")
    ledger.move(head(2, epoch=2), at=START + DAY, previous=head(1), reason="better")
    own = SqlLedger(f"sqlite:///{tmp_path / 'own.db'}")
    assert seeded(fleet, ledger, own, start=START) == {}
    assert own.head(DE) == head(1)
    own.close()


def test_versions_go_on_where_the_past_ended() -> None:
    """And an order has one version however often it is registered."""
    numbered = Numbered({DE: 4})
    one, other = (candidate(key) for key in ("one", "other"))
    assert [numbered.register(each) for each in (one, other, one)] == [5, 6, 5]


def candidate(key: str) -> Candidate:
    order = Order(key=key, model=DE, at=START, reason="", window=WINDOW, holdout_from=START, seed=1)
    return FakeTrainer().train(order, None)
