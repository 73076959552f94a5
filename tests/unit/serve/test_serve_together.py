"""Requests that arrive in one turn of the loop: one call of the model, one write, many replies."""

import asyncio
from collections.abc import Sequence
from typing import Any

import httpx
import pytest

from driftloop.records import Prediction
from driftloop.serve.online import online_app
from driftloop.serve.service import Service
from driftloop.serve.slot import Slots
from driftloop.spec import Fleet

ROW = {"asked_at": "2026-03-01T10:00:00Z", "distance": 12, "load": 0.5, "vehicle": "van"}


class Spool:
    """Keeps each write apart; refuses those with an id that it cannot bear."""

    def __init__(self) -> None:
        self.writes: list[list[str]] = []

    def predictions(self, family: str, rows: Sequence[Prediction]) -> None:
        if any(row.id == "unbearable" for row in rows):
            raise OSError("no space left on device")
        self.writes.append([row.id for row in rows])


@pytest.fixture
def spool() -> Spool:
    return Spool()


@pytest.fixture
def ask(fleet: Fleet, made: Any, clock: Any, spool: Spool) -> Any:
    """Post bodies to eta-de, all in the same turn, and return the replies in their order."""
    slots = Slots(fleet)
    slots.refresh([made["sloped"].head("eta-de", epoch=1)])
    service = Service(fleet=fleet, slots=slots, spool=spool, clock=clock)
    app = online_app(service, heads=lambda: (), poll_every=1)

    def run(*bodies: Any) -> list[httpx.Response]:
        async def all_of_them() -> list[httpx.Response]:
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://x") as http:
                path = "/v1/models/eta-de/predict"
                return await asyncio.gather(*(http.post(path, json=body) for body in bodies))

        return asyncio.run(all_of_them())

    run.slots = slots
    return run


def test_each_gets_its_own_answer_of_one_write(ask: Any, spool: Spool) -> None:
    """Eight requests of one to three rows are one write; each is told its own rows' answers."""
    bodies = [
        {"rows": [{**ROW, "id": f"{n}-{k}", "distance": 600 * n + k} for k in range(n % 3 + 1)]}
        for n in range(8)
    ]
    replies = ask(*bodies)
    assert [len(write) for write in spool.writes] == [sum(len(each["rows"]) for each in bodies)]
    model = ask.slots.slot("eta-de").hand().model
    for body, reply in zip(bodies, replies, strict=True):
        rows = body["rows"]
        alone = model.predict(
            {name: [row[name] for row in rows] for name in ("distance", "load", "vehicle")}
        )
        assert reply.status_code == 200
        assert [(p["id"], p["prediction"]) for p in reply.json()["predictions"]] == [
            (row["id"], value) for row, value in zip(rows, alone, strict=True)
        ]


def test_the_fault_of_one_is_none_of_the_others(ask: Any, spool: Spool) -> None:
    """A faulty request, and one that cannot be logged, fail alone; the others are logged once."""
    good = [{**ROW, "id": name} for name in ("a", "b", "c")]
    replies = ask(good[0], {**ROW, "distance": "x"}, good[1], {**ROW, "id": "unbearable"}, good[2])
    assert [reply.status_code for reply in replies] == [200, 422, 200, 503, 200]
    assert sorted(row for write in spool.writes for row in write) == ["a", "b", "c"]


def test_too_many_bytes_do_not_wait_for_one_another(ask: Any, spool: Spool) -> None:
    """What would keep the loop busy for long is answered in parts, and all of it."""
    bodies = [{"rows": [{**ROW, "id": f"{n}-{k}"} for k in range(40)]} for n in range(40)]
    assert {reply.status_code for reply in ask(*bodies)} == {200}
    assert sum(len(write) for write in spool.writes) == 1600
    assert max(len(write) for write in spool.writes) <= 450


@pytest.mark.parametrize("trained", [True, False])
def test_models_of_a_family_are_logged_in_one_write(
    fleet: Fleet, made: Any, clock: Any, spool: Spool, *, trained: bool
) -> None:
    """Each answers its own requests; one that has no champion is none of the other's fault."""
    heads = [made["sloped"].head("eta-de", epoch=1), made["ten"].head("eta-fr", epoch=1)]
    slots = Slots(fleet)
    slots.refresh(heads if trained else heads[:1])
    service = Service(fleet=fleet, slots=slots, spool=spool, clock=clock)
    app = online_app(service, heads=lambda: (), poll_every=1)

    async def both() -> list[httpx.Response]:
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://x"
        ) as http:
            asked = [("eta-de", "a"), ("eta-fr", "b"), ("eta-de", "c")]
            return await asyncio.gather(
                *(http.post(f"/v1/models/{m}/predict", json={**ROW, "id": i}) for m, i in asked)
            )

    replies = asyncio.run(both())
    assert [reply.status_code for reply in replies] == [200, 200 if trained else 503, 200]
    assert [reply.json().get("model") for reply in replies[::2]] == ["eta-de"] * 2
    assert [sorted(write) for write in spool.writes] == [["a", "b", "c"] if trained else ["a", "c"]]
    if trained:
        (answer,) = replies[1].json()["predictions"]
        assert (replies[1].json()["model"], answer) == ("eta-fr", {"id": "b", "prediction": 10.0})
