"""What `driftloop up` runs where the flows run in one of Prefect's own work pools.

It sees to the deployments, and to what our own worker does beside running: a backlog is dropped to
its newest run, what machines left behind that died is marked, and renewals among it are taken up
again. Prefect by itself keeps such runs as under way for ever, and their slots with them.
"""

import asyncio
import threading
import time
from collections.abc import Mapping
from datetime import timedelta
from uuid import UUID

from anyio import to_thread
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import StateType
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from prefect.workers.process import ProcessWorker

from driftloop.heartbeat import beat
from driftloop.loop.renew import MARGIN
from driftloop.records import Order, Ordered
from driftloop.settings import Settings
from flows import deployments
from flows.patience import is_away
from flows.renew import renew
from flows.system import the_system
from flows.worker import UNDER_WAY, await_api, clear_abandoned, due_runs, say, skip, take_up

NAME = "keeper"
ROUND_EVERY = 5.0
DEAD_AFTER = timedelta(minutes=15)
"""How long a run may be under way, or about to be, at least before it is taken for dead."""
LONGEST_BATCH = timedelta(days=1)
LONGEST_REFRESH = timedelta(hours=1)
TAKEN_UP = timedelta(days=1)
"""Orders that are older, in the clock's time, are left as they are."""


async def keep(settings: Settings, stop: threading.Event) -> None:
    """Apply the deployments, then look after their pool until `stop`.

    Raises:
        ServiceError: Prefect's API does not answer.
        BadRequest: the pool is not one of Prefect's own.
    """
    with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 2}):
        async with get_client() as client:
            await await_api(client, settings)
            template = ProcessWorker.get_default_base_job_template()
            cadences = await deployments.apply(
                client,
                settings,
                job_template=template,
                refresh_every=the_system().refresh_every,
            )
            limits = await to_thread.run_sync(dead_after, settings)
            say(f"the flows are deployed to the work pool {settings.work_pool}: ready")
            due, away = time.monotonic(), False
            while not stop.is_set():
                await asyncio.sleep(0.1)
                if time.monotonic() < due:
                    continue
                due = time.monotonic() + ROUND_EVERY
                try:
                    await look_after(client, settings.work_pool, cadences, limits)
                except Exception as error:
                    if not is_away(error):
                        raise
                    if not away:
                        say(f"Prefect does not answer ({error or type(error).__name__})")
                    away = True
                else:
                    away = False
                beat(settings.home, NAME)


async def look_after(
    client: PrefectClient,
    pool: str,
    cadences: Mapping[UUID, timedelta],
    limits: Mapping[str, timedelta],
) -> None:
    """Drop the backlog, clear what is dead, and take up what was left unfinished, once."""
    for deployment in cadences:
        await drop_backlog(client, deployment)
    for flow, limit in limits.items():
        for run in await clear_abandoned(client, older_than=limit, pool=pool, queue=flow):
            say(f"{run.name} was left behind by a machine that died")
    for order in await to_thread.run_sync(left_unfinished):
        if not await _is_under_way(client, order):
            await take_up(order)


async def drop_backlog(client: PrefectClient, deployment: UUID) -> int:
    """Return how many due runs of a schedule were marked as skipped: all but the newest."""
    late = await due_runs(client, deployment)
    for run in late[1:]:
        await skip(client, run.id, late[0].name)
    return len(late[1:])


def dead_after(settings: Settings) -> Mapping[str, timedelta]:
    """Return by flow how long a run of it may be under way before it is taken for dead."""
    system = the_system()
    policies = [family.retrain for family in system.fleet.families]
    patience = system.trainer.patience
    longest = max(len(each.memory) * (each.time_limit + patience) for each in policies)
    missed = {
        "watch": timedelta(seconds=3 * settings.watch_every),
        "maintain": timedelta(seconds=3 * settings.maintain_every),
        "consistency": timedelta(seconds=3 * settings.consistency_every),
        "renew": longest + MARGIN,
        "release": timedelta(seconds=3 * settings.release_every),
        "refresh-features": LONGEST_REFRESH,
        "score-batch": LONGEST_BATCH,
        "score-due": LONGEST_BATCH,
    }
    return {flow: max(after, DEAD_AFTER) for flow, after in missed.items()}


def left_unfinished() -> tuple[Order, ...]:
    """Return the orders that had begun, and that nobody holds or finished."""
    system = the_system()
    since = system.clock.now() - TAKEN_UP
    found = []
    for key, _ in system.ledger.unfinished("renew/"):
        begun = system.ledger.fact(Ordered, key=key.removeprefix("renew/"))
        if begun is not None and begun.at > since:
            found.append(begun.order)
    return tuple(found)


async def _is_under_way(client: PrefectClient, order: Order) -> bool:
    states = FlowRunFilterStateType(any_=[*UNDER_WAY, StateType.SCHEDULED])
    runs = await client.read_flow_runs(
        flow_filter=FlowFilter(name=FlowFilterName(any_=[renew.name])),
        flow_run_filter=FlowRunFilter(
            tags=FlowRunFilterTags(all_=[order.model]), state=FlowRunFilterState(type=states)
        ),
        limit=1,
    )
    return bool(runs)
