"""Real flights asked as if they departed now, labels half a minute later, harm where it is due."""

import asyncio
import json
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import httpx

from driftloop.demo.replay import TARGETS
from driftloop.records import ModelId
from driftloop.spec import Family

if TYPE_CHECKING:
    import pandas as pd

TICK = 0.25
"""Seconds between two rows of one model."""
WORSE = 1.25
"""What every air time of a model is multiplied with once harm has come to it, again each time."""


@dataclass
class Model:
    """One model's flights, in a circle, and how much longer they take by now."""

    id: ModelId
    family: Family
    rows: Sequence[dict[str, Any]]
    outcomes: Sequence[float]
    lands_after: float
    """Seconds until a row's label is known."""
    factor: float = 1.0
    sent: int = 0

    def next(self, at: datetime) -> tuple[dict[str, Any], float]:
        """Return the next row, as of `at`, and its outcome."""
        place = self.sent % len(self.rows)
        self.sent += 1
        row = {"id": f"{self.id}-{self.sent}", self.family.time: at.isoformat(), **self.rows[place]}
        return row, self.outcomes[place] * self.factor


@dataclass
class Seen:
    """What was answered and what was not, as it is written down."""

    answered: dict[str, tuple[int, int, float]] = field(default_factory=dict)
    """(version, epoch, prediction) by id."""
    took: deque[tuple[float, float]] = field(default_factory=deque)
    """(wall time, seconds) of each request."""
    failures: list[tuple[float, str]] = field(default_factory=list)
    answers_since: dict[tuple[str, int], float] = field(default_factory=dict)
    """Wall time at which each (model, epoch) was first seen to answer."""
    mixed: list[str] = field(default_factory=list)
    """Answers in which an older epoch came after a newer one."""
    newest: dict[str, int] = field(default_factory=dict)


def busiest(frame: "pd.DataFrame", count: int) -> list[str]:
    """Return the markets with the most flights that have an outcome."""
    return list(frame[frame["landed"].notna()]["market"].value_counts().index[:count])


def models(frame: "pd.DataFrame", family: Family, *, lands_after: float) -> list[Model]:
    """Return the models of `family`, each with flights of its market that have an outcome.

    `lands_after` is in seconds.
    """
    found = []
    known = frame[frame["landed"].notna()]
    for market, model in zip(family.markets, family.models, strict=True):
        mine = known[known["market"] == market].sample(n=5000, random_state=7)
        features = mine[list(family.features)].astype(object)
        features = features.where(features.notna(), None)
        found.append(
            Model(
                id=model,
                family=family,
                rows=features.to_dict("records"),
                outcomes=[float(value) for value in mine[TARGETS[family.name]]],
                lands_after=lands_after,
            )
        )
    return found


def history(model: Model, *, until: datetime, span: timedelta, rows: int) -> list[dict[str, Any]]:
    """Return `rows` labelled rows over `span` before `until`, as `backfill` takes them."""
    made = []
    for number in range(rows):
        at = until - span + span * number / rows
        row, outcome = model.next(at)
        made.append(
            {**row, model.family.time: at, "id": f"history-{row['id']}", "model": model.id}
            | {"label": outcome, "observed_at": at + timedelta(seconds=model.lands_after)}
        )
    return made


async def drive(
    fleet: Sequence[Model], *, url: str, seen: Seen, stop: asyncio.Event, harm: "Harm"
) -> None:
    """Ask each model for one row every tick, and tell labels once they are due, until `stop`.

    Failures are kept and never repeated. Labels outstanding at the end are told at once.
    """
    limits = httpx.Limits(max_connections=len(fleet))
    async with httpx.AsyncClient(
        base_url=url, timeout=10.0, trust_env=False, limits=limits
    ) as client:
        await asyncio.gather(
            *(
                _drive(client, model, number / len(fleet), seen, stop, harm)
                for number, model in enumerate(fleet)
            )
        )


@dataclass
class Harm:
    """Which models have turned, and when: every turn of the watch another few of them."""

    every: float
    anchor: float
    turned: list[tuple[float, str]] = field(default_factory=list)
    _done: dict[str, int] = field(default_factory=dict)

    def look(self, model: Model, number: int, of: int) -> None:
        """Make `model` worse when it is its turn: a quarter of them in each."""
        turn = int((time.time() - self.anchor) // self.every)
        if turn < 0 or model.family.name != "air-time" or number % 4 != turn % 4:
            return
        if self._done.get(model.id) != turn:
            self._done[model.id] = turn
            model.factor *= WORSE if model.factor < 2.0 else 1.0 / model.factor
            self.turned.append((time.time(), model.id))


async def _drive(
    client: httpx.AsyncClient,
    model: Model,
    offset: float,
    seen: Seen,
    stop: asyncio.Event,
    harm: Harm,
) -> None:
    number = int(offset * 12)
    await asyncio.sleep(offset * TICK)
    due: deque[tuple[float, str, float]] = deque()
    told = time.monotonic()
    following = time.monotonic()
    while not stop.is_set():
        harm.look(model, number, 12)
        row, outcome = model.next(datetime.now(UTC))
        if await _ask(client, model, row, seen):
            due.append((time.monotonic() + model.lands_after, row["id"], outcome))
        if time.monotonic() - told >= 1.0:
            told = time.monotonic()
            await _tell(client, model, _landed(due, told), seen)
        following += TICK
        await asyncio.sleep(max(0.0, following - time.monotonic()))


async def _ask(client: httpx.AsyncClient, model: Model, row: dict[str, Any], seen: Seen) -> bool:
    answer = await _post(client, f"/v1/models/{model.id}/predict", row, seen)
    if answer is None:
        return False
    version, epoch = answer["version"], answer["epoch"]
    seen.answered[row["id"]] = (version, epoch, answer["predictions"][0]["prediction"])
    seen.answers_since.setdefault((model.id, epoch), time.time())
    if epoch < seen.newest.get(model.id, 0):
        seen.mixed.append(f"{row['id']}: epoch {epoch} after {seen.newest[model.id]}")
    seen.newest[model.id] = max(epoch, seen.newest.get(model.id, 0))
    return True


async def _tell(
    client: httpx.AsyncClient, model: Model, labels: list[dict[str, Any]], seen: Seen
) -> None:
    if labels:
        await _post(client, f"/v1/models/{model.id}/labels", {"labels": labels}, seen)


def _landed(due: deque[tuple[float, str, float]], now: float) -> list[dict[str, Any]]:
    landed = []
    while due and due[0][0] <= now:
        _, row_id, outcome = due.popleft()
        landed.append({"id": row_id, "value": outcome})
    return landed


async def _post(
    client: httpx.AsyncClient, path: str, body: dict[str, Any], seen: Seen
) -> dict[str, Any] | None:
    began = time.perf_counter()
    try:
        answer = await client.post(path, content=json.dumps(body).encode())
    except httpx.HTTPError as error:
        seen.failures.append((time.time(), f"{path}: {type(error).__name__}: {error}"))
        return None
    seen.took.append((time.time(), time.perf_counter() - began))
    if not answer.is_success:
        seen.failures.append((time.time(), f"{path}: {answer.status_code} {answer.text[:200]}"))
        return None
    return dict(answer.json())
