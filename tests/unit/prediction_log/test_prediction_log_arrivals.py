"""When rows and labels came, as each row tells it."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from driftloop.prediction_log import Ingester, Lake, SegmentSpool
from driftloop.prediction_log import windows as windows_of
from driftloop.spec import Family

Make = Callable[..., Any]
Send = Callable[[str, str], None]


@pytest.fixture
def send(
    ingester: Ingester, spool: SegmentSpool, prediction: Make, label: Make, clock: Any
) -> Send:
    """Let predictions and labels of the ids given come a day after those before."""

    def sent(predictions: str, labels: str) -> None:
        spool.predictions("eta", [prediction(each) for each in predictions])
        spool.labels("eta", [label(each, 10.0) for each in labels])
        spool.seal()
        ingester.ingest()
        clock.shown += timedelta(days=1)

    return sent


@pytest.mark.parametrize("again", ["", "a"])
@pytest.mark.parametrize("large", [10**6, 1])
def test_rows_tell_when_they_and_their_labels_came(
    lake: Lake,
    send: Send,
    window: Make,
    eta: Family,
    clock: Any,
    monkeypatch: pytest.MonkeyPatch,
    large: int,
    again: str,
) -> None:
    """However they are read: of a row the first arrival, of a label the newest that is known."""
    monkeypatch.setattr(windows_of, "LARGE", large)
    monkeypatch.setattr(windows_of, "TOGETHER", large)
    began = clock.shown
    send("ab", "")
    send("c" + again, "a")
    send("", "ab")

    def seen(days: int) -> list[list[int | None]]:
        asked = window(known_at=began + timedelta(days=days))
        ((_, look),) = lake.looks(eta, [asked])
        alone = lake.rows(eta, asked)
        found = [look.rows.column(name).to_pylist() for name in ("arrived_at", "labelled_at")]
        assert found == [alone[name].to_pylist() for name in ("arrived_at", "labelled_at")]
        return [[None if at is None else (at - began).days for at in each] for each in found]

    assert seen(1) == [[0, 0, 1], [1, None, None]]
    assert seen(2) == [[0, 0, 1], [2, 2, None]]
