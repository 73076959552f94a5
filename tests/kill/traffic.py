"""Whoever asks the online service: every answer is kept, and every request without one."""

import random
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import count
from typing import Any

import httpx
from kill.invariants import Row

from driftloop.records import ModelId

PAUSE = 0.1


@dataclass
class Traffic:
    """What was asked of the service at `url`, and what came of it.

    `ambiguous` rows were sent and not answered: nobody knows whether they were logged. `refused`
    ones were not taken, or never sent: they must not be.
    """

    url: str
    answered: dict[str, Row] = field(default_factory=dict)
    ambiguous: set[str] = field(default_factory=set)
    replies: dict[ModelId, list[tuple[Row, ...]]] = field(default_factory=lambda: defaultdict(list))
    features: dict[str, dict[str, Any]] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)

    def client(self) -> httpx.Client:
        """Return somebody who asks: one request at a time."""
        return httpx.Client(base_url=self.url, timeout=20.0)

    def ask(self, http: httpx.Client, model: ModelId, rows: Sequence[dict[str, Any]]) -> bool:
        """Return whether `rows` were answered; an id may be asked once only."""
        ids = {row["id"] for row in rows}
        self.features |= {row["id"]: row for row in rows}
        try:
            answer = http.post(f"/v1/models/{model}/predict", json={"rows": rows})
        except httpx.ConnectError:
            self.refused |= ids
            return False
        except httpx.TransportError:
            self.ambiguous |= ids
            return False
        if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE:
            self.refused |= ids
            return False
        said = answer.raise_for_status().json()
        reply = tuple(
            Row(each["id"], said["version"], said["epoch"], each["prediction"])
            for each in said["predictions"]
        )
        assert [row.id for row in reply] == [row["id"] for row in rows]
        self.answered |= {row.id: row for row in reply}
        self.replies[model].append(reply)
        return True

    def label(self, http: httpx.Client, model: ModelId, values: dict[str, float]) -> None:
        """Hand in labels until they are taken: the newest for an id counts, so twice is once."""
        labels = [{"id": id_, "value": value} for id_, value in values.items()]
        while True:
            try:
                http.post(f"/v1/models/{model}/labels", json={"labels": labels}).raise_for_status()
            except httpx.HTTPError:
                threading.Event().wait(PAUSE)
            else:
                return

    @contextmanager
    def flowing(self, models: Sequence[ModelId], now: "Now") -> Iterator[None]:
        """Ask for one to five rows of each model, over and over, until the block ends."""
        over = threading.Event()
        troubles: list[BaseException] = []

        def ask(model: ModelId) -> None:
            chance = random.Random(model)
            with self.client() as http:
                for request in count():
                    if over.wait(PAUSE):
                        return
                    size = 1 + request % 5
                    rows = [
                        drawn(chance, id_=f"{model}-asked-{request}-{n}", at=now.shown)[0]
                        for n in range(size)
                    ]
                    try:
                        self.ask(http, model, rows)
                    except BaseException as error:  # noqa: BLE001 - raised where the block ends
                        troubles.append(error)
                        return

        asking = [threading.Thread(target=ask, args=(model,)) for model in models]
        for thread in asking:
            thread.start()
        try:
            yield
        finally:
            over.set()
            for thread in asking:
                thread.join()
        assert not troubles, troubles


@dataclass
class Now:
    """The time that the installation's clock shows."""

    shown: datetime


def drawn(
    chance: random.Random, *, id_: str, at: datetime, factor: float = 1.0
) -> tuple[dict[str, Any], float]:
    """Return a row as it is sent, and its outcome in a world where all takes `factor` as long."""
    distance, load = chance.uniform(0, 1000), chance.uniform(0, 1)
    vehicle = chance.choice(["van", "truck", "bike"])
    minutes = 10 + distance / 20 + 20 * load + 8 * (vehicle == "bike") + chance.gauss(0, 2)
    row = {
        "id": id_,
        "asked_at": at.isoformat(),
        "distance": distance,
        "load": load,
        "vehicle": vehicle,
    }
    return row, minutes * factor


def spread(start: datetime, end: datetime, number: int) -> list[datetime]:
    """Return `number` times, evenly from `start` to just before `end`."""
    step: timedelta = (end - start) / number
    return [start + n * step for n in range(number)]
