"""Over HTTP: rows that lack what refuses rows without are at fault, and the others answered."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from conftest import StoppedClock
from fakes.streamed import FEATURES, NOON, streamed_fleet, written_model

from driftloop.serve.lookup import Lookups
from driftloop.serve.online import online_app
from driftloop.serve.service import Service
from driftloop.serve.slot import Slots
from driftloop.serve.store import StateStore, TableStore

PREDICT = "/v1/models/eta-de/predict"
ROW = {"asked_at": "2026-03-01T12:00:00Z", "distance": 100.0, "origin": "JFK"}
REFUSING = FEATURES.replace('fallback = "null"', 'fallback = "refuse"')


class Online:
    """The service, whose rows need the age of their plane; the table was not read yet."""

    def __init__(self, folder: Path) -> None:
        fleet, clock = streamed_fleet(folder / "monitors", features=REFUSING), StoppedClock(NOON)
        self.tables = TableStore(folder / "tables", most_bytes=2**24)
        self.states = StateStore(folder / "states", most_bytes=2**24)
        self.kept: list[Any] = []
        spool: Any = SimpleNamespace(predictions=lambda _, rows: self.kept.extend(rows))
        slots = Slots(fleet)
        slots.refresh([written_model(folder / "model.onnx")])
        complete = Lookups(fleet, tables=self.tables, states=self.states, clock=clock).complete
        service = Service(fleet=fleet, slots=slots, spool=spool, clock=clock, complete=complete)
        self.app = online_app(service, heads=lambda: (), poll_every=60)

    def load(self) -> None:
        self.tables.replace("planes", ["age"], [("N1", [3.0]), ("N2", [None])], loaded_at=NOON)

    def post(self, *bodies: Any, path: str = PREDICT) -> list[httpx.Response]:
        """Return the answers to requests that come at once."""

        async def all_of_them() -> list[httpx.Response]:
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://x") as http:
                return await asyncio.gather(*(http.post(path, json=body) for body in bodies))

        return asyncio.run(all_of_them())


@pytest.fixture
def online(tmp_path: Path) -> Iterator[Online]:
    made = Online(tmp_path)
    yield made
    made.tables.close()
    made.states.close()


def rows(*tailnums: str | None) -> dict[str, Any]:
    return {"rows": [{**ROW, "id": str(n), "tailnum": each} for n, each in enumerate(tailnums)]}


def test_rows_without_a_value_are_null_and_named_and_the_others_answered(
    online: Online,
) -> None:
    """Beside those that are at fault otherwise; only what was answered is logged."""
    online.load()
    asked = rows("N1", "N9", "N2", None, "N1")
    asked["rows"][4]["distance"] = "far"
    (told,) = online.post(asked)
    assert told.status_code == 200
    said = told.json()
    assert [each and each["id"] for each in said["predictions"]] == ["0", None, None, None, None]
    assert said["refused"] == 4
    assert [(each["row"], each["field"]) for each in said["faults"]] == [
        (4, "distance"),
        *((number, "plane_age") for number in (1, 2, 3)),
    ]
    assert "tailnum 'N9'" in said["faults"][1]["what"]
    assert "tailnum, which is null" in said["faults"][3]["what"]
    assert [each.id for each in online.kept] == ["0"]


def test_if_all_are_to_be_answered_one_without_a_value_refuses_them(
    online: Online,
) -> None:
    """422, with row and feature, and nothing logged; so is a request of none but such rows."""
    online.load()
    for path, asked in (
        (f"{PREDICT}?all=true", rows("N1", "N9")),
        (PREDICT, rows("N8", "N9")),
        (PREDICT, {**ROW, "tailnum": "N9"}),
    ):
        (told,) = online.post(asked, path=path)
        assert told.status_code == 422
        fault = told.json()["error"]["faults"][-1]
        assert (fault["row"], fault["field"]) == (len(asked.get("rows", [0])) - 1, "plane_age")
        assert "retry-after" not in told.headers
    assert not online.kept


def test_a_table_that_was_not_read_yet_is_no_fault_of_the_rows(online: Online) -> None:
    """503, to be sent again; and then it is answered."""
    (told,) = online.post(rows("N1"))
    assert (told.status_code, told.headers["retry-after"]) == (503, "1")
    online.load()
    (told,) = online.post(rows("N1"))
    assert told.status_code == 200


def test_requests_that_come_at_once_do_not_share_faults(online: Online) -> None:
    """One that is refused is so alone, though all are looked up together."""
    online.load()
    told = online.post(rows("N1"), rows("N9"), rows("N9", "N1"))
    assert [each.status_code for each in told] == [200, 422, 200]
    assert told[2].json()["predictions"][0] is None
