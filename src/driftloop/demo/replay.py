"""The year as the online service would have met it: requests and labels, by the clock."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

import httpx

from driftloop.ports import Clock
from driftloop.records import ModelId
from driftloop.spec import Family

if TYPE_CHECKING:
    import pandas as pd

TICK = 0.25
"""Wall seconds between two looks at the clock."""
TARGETS: Mapping[str, str] = {"air-time": "air_time", "late-arrival": "late"}
"""The column of the flights that is each family's label."""


@dataclass
class Tally:
    """What was sent and how it went; shared with the display."""

    requests: int = 0
    rows: int = 0
    labels: int = 0
    failures: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, *, rows: int = 0, labels: int = 0, failure: str | None = None) -> None:
        """Count one request."""
        with self._lock:
            self.requests += 1
            self.rows += rows
            self.labels += labels
            if failure is not None:
                self.failures.append(failure)


@dataclass(frozen=True, slots=True)
class Traffic:
    """What one model will be asked, and what will turn out, each in order of time."""

    model: ModelId
    asked_at: Sequence[datetime]
    rows: Sequence[dict[str, Any]]
    known_at: Sequence[datetime]
    labels: Sequence[dict[str, Any]]


def traffic(
    frame: "pd.DataFrame", family: Family, model: ModelId, *, start: datetime, end: datetime
) -> Traffic:
    """Return the requests and labels of `model` for departures in [start, end)."""
    market = model.removeprefix(f"{family.name}-")
    mine = frame[
        (frame["market"] == market) & (frame[family.time] >= start) & (frame[family.time] < end)
    ]
    target = TARGETS[family.name]
    asked = mine[["id", family.time, *family.requested]].astype(object)
    asked = asked.where(asked.notna(), None)
    asked[family.time] = [at.isoformat() for at in mine[family.time]]
    known = mine[mine["landed"].notna()].sort_values("landed")
    return Traffic(
        model=model,
        asked_at=[at.to_pydatetime() for at in mine[family.time]],
        rows=[dict(zip(asked.columns, row, strict=True)) for row in asked.itertuples(index=False)],
        known_at=[at.to_pydatetime() for at in known["landed"]],
        labels=[
            {"id": row_id, "value": float(value), "observed_at": at.isoformat()}
            for row_id, value, at in zip(known["id"], known[target], known["landed"], strict=True)
        ],
    )


def replay(
    streams: Sequence[Traffic],
    *,
    url: str,
    clock: Clock,
    end: datetime,
    tally: Tally,
    stop: Callable[[], bool],
) -> None:
    """Send each request at its time and each label when it is known, until `end` or `stop`.

    What fell due since the last look goes out as one request of many rows. A request that fails
    is counted and told, never hidden; it is not repeated.
    """
    asked = dict.fromkeys((stream.model for stream in streams), 0)
    known = dict.fromkeys((stream.model for stream in streams), 0)
    with httpx.Client(base_url=url, timeout=30.0, trust_env=False) as client:
        while not stop():
            began = time.monotonic()
            now = min(clock.now(), end)
            for stream in streams:
                asked[stream.model] = _ask(client, stream, asked[stream.model], now, tally)
                known[stream.model] = _tell(client, stream, known[stream.model], now, tally)
            if now >= end:
                return
            time.sleep(max(0.0, TICK - (time.monotonic() - began)))


def _ask(client: httpx.Client, stream: Traffic, sent: int, now: datetime, tally: Tally) -> int:
    upto = _due(stream.asked_at, sent, now)
    if upto > sent:
        rows = list(stream.rows[sent:upto])
        failure = _post(client, f"/v1/models/{stream.model}/predict", {"rows": rows})
        tally.add(rows=len(rows) if failure is None else 0, failure=failure)
    return upto


def _tell(client: httpx.Client, stream: Traffic, sent: int, now: datetime, tally: Tally) -> int:
    upto = _due(stream.known_at, sent, now)
    if upto > sent:
        labels = list(stream.labels[sent:upto])
        failure = _post(client, f"/v1/models/{stream.model}/labels", {"labels": labels})
        tally.add(labels=len(labels) if failure is None else 0, failure=failure)
    return upto


def _due(times: Sequence[datetime], sent: int, now: datetime) -> int:
    while sent < len(times) and times[sent] <= now:
        sent += 1
    return sent


def _post(client: httpx.Client, path: str, body: dict[str, Any]) -> str | None:
    try:
        answer = client.post(path, json=body)
    except httpx.HTTPError as error:
        return f"{path}: {type(error).__name__}: {error}"
    return None if answer.is_success else f"{path}: {answer.status_code} {answer.text[:200]}"
