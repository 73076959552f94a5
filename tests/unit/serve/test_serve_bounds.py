"""How much one process takes on: what is beyond it is told at once, and nothing is half done."""

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from driftloop.records import FeatureValue, Head, Label, ModelId, Prediction
from driftloop.serve import schema
from driftloop.serve.exchange import BODIES, Bounds
from driftloop.serve.online import online_app
from driftloop.serve.service import Service
from driftloop.serve.slot import Slots
from driftloop.spec import Fleet

ROW = {"asked_at": "2026-03-01T10:00:00Z", "distance": 12, "load": 0.5, "vehicle": "van"}
DE, FR = "/v1/models/eta-de/predict", "/v1/models/eta-fr/predict"
LARGE = {"rows": [{**ROW, "id": str(n)} for n in range(800)]}


@dataclass
class Slow:
    """A model that is asked in a thread; it answers once it may, and notes how many rows."""

    digest: str
    may: threading.Event = field(default_factory=threading.Event)
    asked: list[int] = field(default_factory=list)
    where: str = "memory"
    size: int = 10
    inline: bool = False
    classes: tuple[str, ...] = ()
    samples: None = None

    def predict(self, columns: dict[str, list[FeatureValue]]) -> list[float]:
        rows = len(columns["distance"])
        self.asked.append(rows)
        assert self.may.wait(20)
        return [float(rows)] * rows


@dataclass
class Spool:
    kept: list[Prediction] = field(default_factory=list)

    def predictions(self, family: str, rows: Sequence[Prediction]) -> None:
        self.kept.extend(rows)

    def labels(self, family: str, rows: Sequence[Label]) -> None: ...


@dataclass
class House:
    """The service, its one slow model (eta-de) and its quick one (eta-fr)."""

    service: Service
    slow: Slow
    spool: Spool
    http: httpx.AsyncClient

    async def asked(self, times: int = 1) -> None:
        """Return once the slow model was asked so often."""
        while len(self.slow.asked) < times:  # noqa: ASYNC110 - it is asked in a thread
            await asyncio.sleep(0.001)


@pytest.fixture
def run(fleet: Fleet, clock: Any) -> Callable[..., Any]:
    """Run a story in a service of given bounds."""

    def story(tell: Callable[[House], Awaitable[None]], **bounds: Any) -> None:
        slow, spool = Slow("a"), Spool()
        quick = Slow("b", may=threading.Event(), inline=True)
        quick.may.set()
        slow.may.set()
        slots = Slots(fleet, load=lambda head: slow if head.model == "eta-de" else quick)
        slots.refresh(
            [
                Head(model=ModelId(m), epoch=1, version=1, digest=d, artifact="x")
                for m, d in (("eta-de", "a"), ("eta-fr", "b"))
            ]
        )
        slow.may.clear()
        slow.asked.clear()
        service = Service(
            fleet=fleet, slots=slots, spool=spool, clock=clock, bounds=Bounds(**bounds)
        )
        app = online_app(service, heads=lambda: (), poll_every=60)

        async def whole() -> None:
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://x") as http:
                try:
                    await tell(House(service, slow, spool, http))
                finally:
                    slow.may.set()
                    service.close()

        asyncio.run(whole())

    return story


def test_what_is_too_much_is_told_at_once(run: Any) -> None:
    """Beyond the bound a request is 429 with Retry-After, unread, and counted by itself."""

    async def tell(house: House) -> None:
        first = asyncio.create_task(house.http.post(DE, json=ROW))
        await house.asked()

        async def unread() -> Any:
            raise AssertionError("the body of a request that is turned away is not read")
            yield b""

        reply = await house.http.post(FR, content=unread())
        assert (reply.status_code, reply.headers["Retry-After"]) == (429, "1")
        said = schema.Refusal.model_validate(reply.json()).error
        assert said.what == "1 requests are under way, and no more are taken on at once"
        house.slow.may.set()
        assert (await first).status_code == 200
        assert (await house.http.post(FR, json=ROW)).status_code == 200
        shown = schema.Recently.model_validate((await house.http.get("/v1/service")).json())
        assert (shown.requests, shown.errors, shown.turned_away) == (2, 0, 1)
        assert (await house.http.get("/healthz")).status_code == 200

    run(tell, requests=1)


def test_an_answer_that_takes_too_long_is_given_up(run: Any) -> None:
    """After the limit the caller is told 504; what still waits is neither asked nor logged."""

    async def tell(house: House) -> None:
        first = asyncio.create_task(house.http.post(DE, json={**ROW, "id": "first"}))
        await house.asked()
        second = asyncio.create_task(house.http.post(DE, json={**ROW, "id": "second"}))
        for reply in (await first, await second):
            assert reply.status_code == 504
            said = schema.Refusal.model_validate(reply.json()).error.what
            assert said == "the answer was not there within 0.05 s"
        assert house.spool.kept == []
        house.slow.may.set()
        while (await house.http.post(DE, json={**ROW, "id": "third"})).status_code != 200:
            pass
        assert "second" not in {row.id for row in house.spool.kept}
        assert 2 not in house.slow.asked

    run(tell, seconds=0.05)


def test_a_large_request_that_is_given_up_still_counts(run: Any) -> None:
    """Its thread cannot be ended: until it ends by itself it is one of those under way."""

    async def tell(house: House) -> None:
        assert (await house.http.post(DE, json=LARGE)).status_code == 504
        assert (await house.http.post(FR, json=ROW)).status_code == 429
        house.slow.may.set()
        while (await house.http.post(FR, json=ROW)).status_code == 429:  # noqa: ASYNC110 - it ends in a thread
            await asyncio.sleep(0.001)
        assert len([row for row in house.spool.kept if row.model == "eta-de"]) == 800

    run(tell, requests=1, seconds=0.05)


def test_what_comes_meanwhile_gathers(run: Any) -> None:
    """While a slow model answers, requests for it gather, and are answered by one call."""

    async def tell(house: House) -> None:
        first = asyncio.create_task(house.http.post(DE, json=ROW))
        await house.asked()
        others = [asyncio.create_task(house.http.post(DE, json=ROW)) for _ in range(7)]
        # One after the other is answered by a quick model: the loop is free, the gathered wait.
        for _ in range(3):
            assert (await house.http.post(FR, json=ROW)).status_code == 200
        assert house.slow.asked == [1]
        house.slow.may.set()
        assert (await first).status_code == 200
        answers = [
            reply.json()["predictions"][0]["prediction"] for reply in await asyncio.gather(*others)
        ]
        assert house.slow.asked == [1, 7]
        assert answers == [7.0] * 7

    run(tell)


def test_a_fault_among_the_gathered_is_its_own(run: Any) -> None:
    """Of requests that are answered together the faulty one is told, and the others answered."""

    async def tell(house: House) -> None:
        first = asyncio.create_task(house.http.post(DE, json=ROW))
        await house.asked()
        bodies = [ROW, {**ROW, "distance": "x"}, ROW]
        others = [asyncio.create_task(house.http.post(DE, json=body)) for body in bodies]
        house.slow.may.set()
        assert (await first).status_code == 200
        assert [each.status_code for each in await asyncio.gather(*others)] == [200, 422, 200]

    run(tell)


def test_the_largest_body_is_a_bound_of_ours(run: Any) -> None:
    """A body beyond it is 413 and says how large one may be; one within it is answered."""

    async def tell(house: House) -> None:
        reply = await house.http.post(FR, content=b" " * (2**20 + 1))
        assert reply.status_code == 413
        assert reply.json()["error"]["what"] == "the body is larger than 1 MiB"
        assert (await house.http.post(FR, json=LARGE)).status_code == 200

    run(tell, body=2**20)


def test_large_bodies_have_so_much_room(run: Any) -> None:
    """As many of the largest as have room are held at once; it is given back with the answer."""
    body = b" " * (100_000 - 2) + b"{}"
    usable = json.dumps(LARGE).encode().ljust(100_000)

    async def tell(house: House) -> None:
        held = [asyncio.create_task(house.http.post(DE, content=usable)) for _ in range(BODIES)]
        await house.asked(BODIES)
        reply = await house.http.post(FR, content=body)
        assert (reply.status_code, reply.headers["Retry-After"]) == (429, "1")
        assert reply.json()["error"]["what"] == "too many large bodies are under way"
        assert (await house.http.post(FR, json=ROW)).status_code == 200
        house.slow.may.set()
        assert {each.status_code for each in await asyncio.gather(*held)} == {200}
        for _ in range(2 * BODIES):
            assert (await house.http.post(FR, content=body)).status_code == 422

    run(tell, body=100_000)


def test_rows_at_fault_are_null_and_named_beside_the_others(run: Any) -> None:
    """The others are answered, in their places, and logged; `all=true` refuses them all."""
    rows = [{**ROW, "id": "a"}, {**ROW, "load": "much"}, {**ROW, "id": "c"}]

    async def tell(house: House) -> None:
        reply = await house.http.post(FR, json={"rows": rows})
        assert reply.status_code == 200
        told = schema.Answer.model_validate(reply.json())
        assert [each and each.id for each in told.predictions] == ["a", None, "c"]
        assert told.refused == 1
        assert [(each.row, each.field) for each in told.faults] == [(1, "load")]
        assert [row.id for row in house.spool.kept] == ["a", "c"]
        whole = await house.http.post(f"{FR}?all=true", json={"rows": rows})
        assert whole.status_code == 422
        assert [(each["row"], each["field"]) for each in whole.json()["error"]["faults"]] == [
            (1, "load")
        ]
        assert len(house.spool.kept) == 2
        counted = (await house.http.get("/metrics")).text
        assert 'driftloop_refused_rows_total{model="eta-fr"} 1.0' in counted
        assert 'driftloop_rows_total{model="eta-fr"} 2.0' in counted

    run(tell)


@pytest.mark.parametrize("query", ["all=yes", "all=", "all=True"])
def test_a_mistake_in_the_query_is_told(run: Any, query: str) -> None:
    """`all` is true or false: a mistyped one does not answer what should have been refused."""

    async def tell(house: House) -> None:
        reply = await house.http.post(f"{FR}?{query}", json=ROW)
        assert reply.status_code == 422
        assert schema.Refusal.model_validate(reply.json()).error.where == "all"

    run(tell)
