"""The year as the online service would have met it: events, requests and labels, by the clock."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import httpx

from driftloop.ports import Clock
from driftloop.records import ModelId
from driftloop.spec import Family, Source

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
    events: int = 0
    failures: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(
        self, *, rows: int = 0, labels: int = 0, events: int = 0, failure: str | None = None
    ) -> None:
        """Count one request."""
        with self._lock:
            self.requests += 1
            self.rows += rows
            self.labels += labels
            self.events += events
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


@dataclass(frozen=True, slots=True)
class Happenings:
    """The events of one source, in order of time."""

    source: Source
    happened_at: Sequence[datetime]
    events: Sequence[dict[str, Any]]


def happenings(
    events: "pd.DataFrame", source: Source, *, start: datetime, end: datetime
) -> Happenings:
    """Return those of `events` (id, time and fields of `source`, by time) in [start, end)."""
    time_ = str(source.time)
    mine = events[(events[time_] >= start) & (events[time_] < end)]
    sent = mine[["id", time_, *source.fields]].astype(object)
    sent = sent.where(sent.notna(), None)
    sent[time_] = [at.isoformat() for at in mine[time_]]
    return Happenings(
        source=source,
        happened_at=[at.to_pydatetime() for at in mine[time_]],
        events=[dict(zip(sent.columns, row, strict=True)) for row in sent.itertuples(index=False)],
    )


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
    happening: Sequence[Happenings] = (),
    *,
    url: str,
    clock: Clock,
    end: datetime,
    tally: Tally,
    stop: Callable[[], bool],
) -> None:
    """Send each event and request at its time, each label when it is known; to `end` or `stop`.

    What fell due since the last look goes out as one request of many rows. Where there are events
    rows go out in steps no longer than their lateness, events first: a row finds all that had
    happened by its time, and a state that reaches back to it. A request that fails is counted and
    told, never hidden; it is not repeated.
    """
    happened = {each.source.name: 0 for each in happening}
    step = min((each.source.late_after for each in happening), default=None)
    firsts = [each.happened_at for each in happening] + [each.asked_at for each in streams]
    reached = min((times[0] for times in firsts if times), default=end)
    asked = dict.fromkeys((stream.model for stream in streams), 0)
    known = dict.fromkeys((stream.model for stream in streams), 0)
    with httpx.Client(base_url=url, timeout=30.0, trust_env=False) as client:
        while True:
            began = time.monotonic()
            now = min(clock.now(), end)
            for upto in _steps(reached, now, step):
                if stop():
                    return
                for each in happening:
                    name = each.source.name
                    happened[name] = _happen(client, each, happened[name], upto, tally)
                for stream in streams:
                    asked[stream.model] = _ask(client, stream, asked[stream.model], upto, tally)
            for stream in streams:
                known[stream.model] = _tell(client, stream, known[stream.model], now, tally)
            if now >= end:
                return
            reached = max(reached, now)
            time.sleep(max(0.0, TICK - (time.monotonic() - began)))


def _steps(since: datetime, until: datetime, step: timedelta | None) -> Iterator[datetime]:
    while step is not None and since + step < until:
        since += step
        yield since
    yield until


def _happen(client: httpx.Client, each: Happenings, sent: int, now: datetime, tally: Tally) -> int:
    upto = _due(each.happened_at, sent, now)
    if upto > sent:
        events = list(each.events[sent:upto])
        failure = _post(client, f"/v1/events/{each.source.name}", {"events": events})
        tally.add(events=len(events) if failure is None else 0, failure=failure)
    return upto


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
