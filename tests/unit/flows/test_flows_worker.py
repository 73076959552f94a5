"""What the warm worker starts when much is late, without a Prefect server."""

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import anyio
import pytest
from prefect import State
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import WorkerFlowRunResponse
from prefect.states import Scheduled

from driftloop.errors import BadRequest
from flows.worker import WarmWorker, read_tables

EVERY = timedelta(seconds=1)
WATCH, RENEW = uuid4(), uuid4()
NOBODY = uuid4()


def due(deployment: UUID, ago: float, name: str) -> FlowRun:
    """Return a run of a deployment that should have begun so many seconds ago."""
    at = datetime.now(UTC) - timedelta(seconds=ago)
    return FlowRun(
        id=uuid4(),
        name=name,
        flow_id=NOBODY,
        deployment_id=deployment,
        auto_scheduled=deployment == WATCH,
        next_scheduled_start_time=at,
        state=Scheduled(scheduled_time=at),
    )


@dataclass
class Server:
    """Prefect's API with a queue for each deployment; marking a run waits until it may go on."""

    runs: list[FlowRun]
    goes_on: asyncio.Event = field(default_factory=asyncio.Event)
    refuses: str = ""
    marked: dict[str, str] = field(default_factory=dict)

    def left(self, deployment: UUID) -> list[FlowRun]:
        mine = [run for run in self.runs if run.deployment_id == deployment]
        return [run for run in mine if run.name not in self.marked]

    async def get_scheduled_flow_runs_for_work_pool(self, **_: Any) -> list[WorkerFlowRunResponse]:
        firsts = [self.left(deployment)[:1] for deployment in (WATCH, RENEW)]
        return [
            WorkerFlowRunResponse(work_pool_id=NOBODY, work_queue_id=NOBODY, flow_run=run)
            for first in firsts
            for run in first
        ]

    async def read_flow_runs(self, **_: Any) -> list[FlowRun]:
        return self.left(WATCH)[::-1]

    async def set_flow_run_state(self, id_: UUID, state: State[Any], *, force: bool) -> None:
        await self.goes_on.wait()
        (run,) = [run for run in self.runs if run.id == id_]
        if run.name == self.refuses:
            self.refuses = ""
            raise RuntimeError("not now")
        self.marked[run.name] = str(state.name)


def late_by(count: int) -> Server:
    """Return a server with as many late passes, and a renewal that is due."""
    late = [due(WATCH, 10.0 * (count - n), f"watch-{n}") for n in range(count)]
    return Server([*late, due(RENEW, 0.0, "renew")])


def worker_of(server: Server) -> WarmWorker:
    """Return a worker that asks `server`."""
    worker = WarmWorker(name="warm", cadences={WATCH: EVERY})
    worker._client = server  # type: ignore[assignment]
    return worker


async def polled(worker: WarmWorker) -> list[str]:
    """Return the names of what the worker would start now."""
    async with asyncio.timeout(10):
        found = await worker._get_scheduled_flow_runs()
    return [each.flow_run.name for each in found]


def test_a_renewal_does_not_wait_until_late_passes_are_marked() -> None:
    """The newest pass and the renewal are started at once, however long the marking takes."""

    async def told() -> Server:
        server = late_by(80)
        worker = worker_of(server)
        async with anyio.create_task_group() as group:
            worker._runs_task_group = group
            assert await polled(worker) == ["watch-79", "renew"]
            assert worker._skipped == {server.runs[79].id: 79}
            # It begins; the server now gives an older one, which is being marked.
            server.marked["watch-79"] = "Running"
            assert await polled(worker) == ["renew"]
            assert len(server.marked) == 1
            server.goes_on.set()
        return server

    server = asyncio.run(told())
    assert [server.marked.get(f"watch-{n}") for n in range(79)] == ["Skipped"] * 79
    assert "renew" not in server.marked


def test_no_second_pass_while_the_first_is_about_to_begin() -> None:
    """Until the server knows that it begins, it is neither started again nor marked."""

    async def told() -> Server:
        server = late_by(3)
        server.goes_on.set()
        worker = worker_of(server)
        async with anyio.create_task_group() as group:
            worker._runs_task_group = group
            worker._submitting_flow_run_ids.add(server.runs[1].id)
            assert await polled(worker) == ["renew"]
        return server

    assert asyncio.run(told()).marked == {}


def test_a_run_that_cannot_be_marked_costs_no_other() -> None:
    """The worker lives on, the others are marked, and a later look finds that one again."""

    async def told() -> Server:
        server = late_by(4)
        server.goes_on.set()
        server.refuses = "watch-1"
        worker = worker_of(server)
        async with anyio.create_task_group() as group:
            worker._runs_task_group = group
            assert await polled(worker) == ["watch-3", "renew"]
        assert set(server.marked) == {"watch-0", "watch-2"}
        server.marked["watch-3"] = "Running"
        assert await polled(worker) == ["watch-1", "renew"]
        return server

    asyncio.run(told())


@pytest.mark.parametrize("ago", [0.0, 0.5])
def test_a_pass_in_time_is_started_as_it_comes(ago: float) -> None:
    """Nothing is looked up and nothing marked for a run that is not late."""

    async def told() -> None:
        server = Server([due(WATCH, ago, "watch-0")])
        worker = worker_of(server)
        assert await polled(worker) == ["watch-0"]
        assert worker._skipped == {}

    asyncio.run(told())


def test_tables_are_read_when_the_worker_starts(capsys: pytest.CaptureFixture[str]) -> None:
    """Those that are due; one that cannot be read is told, and stops no other."""

    class Here:
        def __init__(self) -> None:
            self.read: list[str] = []

        def due_tables(self) -> tuple[str, ...]:
            return ("planes", "airports")

        def refresh(self, name: str) -> int:
            self.read.append(name)
            if name == "planes":
                raise BadRequest("no such file", where="planes.csv")
            return 3

    here: Any = Here()
    read_tables(here)
    assert here.read == ["planes", "airports"]
    planes, airports = capsys.readouterr().out.splitlines()
    assert "no such file" in planes
    assert airports == "airports: 3 keys read"
