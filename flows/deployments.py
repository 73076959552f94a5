"""Which flows run when, and how many at once: applied by what `driftloop up` runs them with."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from prefect import Flow
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate, WorkPoolCreate
from prefect.client.schemas.schedules import IntervalSchedule
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.utilities.callables import parameter_schema

from driftloop.errors import BadRequest
from driftloop.settings import Settings
from flows.consistency import consistency
from flows.maintain import maintain
from flows.refresh_features import refresh_features
from flows.release import release
from flows.renew import renew
from flows.score_batch import score_batch
from flows.score_due import score_due
from flows.watch import watch

POOL = "driftloop"
TYPE = "driftloop"
"""Of the pool of our own worker."""
PROCESS = "process"
"""Of a pool of Prefect's own that is not there yet."""
NAME = "driftloop"
ANCHOR = datetime(2020, 1, 1, tzinfo=UTC)
"""What intervals are counted from: the same at every start, so that a restart shifts nothing."""
FLOWS: Mapping[str, Flow[..., Any]] = {
    each.name: each
    for each in (
        *(watch, renew, release, score_batch, score_due, maintain, consistency),
        refresh_features,
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployed:
    """A flow with its queue's limit and, where it has one, its cadence in wall time."""

    flow: Flow[..., Any]
    at_once: int
    every: timedelta | None = None

    @property
    def queue(self) -> str:
        """The queue of its own that carries its limit."""
        return self.flow.name


def deployed(settings: Settings, *, refresh_every: timedelta | None = None) -> tuple[Deployed, ...]:
    """Return what runs: each flow once, never a deployment per model or per table.

    Where no table is to be read anew, `refresh_every` is None and nothing reads any.
    """
    refresh = (Deployed(flow=refresh_features, at_once=1, every=refresh_every),)
    return (
        Deployed(flow=watch, at_once=1, every=timedelta(seconds=settings.watch_every)),
        Deployed(flow=maintain, at_once=1, every=timedelta(seconds=settings.maintain_every)),
        Deployed(flow=consistency, at_once=1, every=timedelta(seconds=settings.consistency_every)),
        Deployed(flow=renew, at_once=settings.renew_slots),
        Deployed(flow=release, at_once=1, every=timedelta(seconds=settings.release_every)),
        Deployed(flow=score_batch, at_once=1),
        Deployed(flow=score_due, at_once=1, every=timedelta(seconds=settings.batch_every)),
        *(refresh if refresh_every is not None else ()),
    )


def pool_of(settings: Settings) -> str:
    """Return the work pool that the flows run in."""
    return settings.work_pool or POOL


async def apply(
    client: PrefectClient,
    settings: Settings,
    *,
    job_template: dict[str, Any],
    refresh_every: timedelta | None = None,
) -> dict[UUID, timedelta]:
    """Return the cadence of each scheduled deployment, by id, once all are as declared.

    A deployment that already is as declared is not touched: what waits in its queue stays, and
    so does a pause that somebody ordered in the UI.

    The limits sit on the queues, not on the deployments: a queue counts the runs that are under
    way, so a crash leaks no slot, and what waits starts as soon as a slot is free.

    Raises:
        BadRequest: the setting `work_pool` names a pool that is not one of Prefect's own.
    """
    pool = pool_of(settings)
    type_ = PROCESS if settings.work_pool else TYPE
    try:
        await client.create_work_pool(
            WorkPoolCreate(name=pool, type=type_, base_job_template=job_template)
        )
    except ObjectAlreadyExists:
        found = (await client.read_work_pool(pool)).type
        if settings.work_pool and found == TYPE:
            raise BadRequest(
                f"is a work pool of type {found}, which no worker of Prefect's serves",
                where=f"work_pool = {pool}",
                hint="name another; one that is not there yet is made, of type process",
            ) from None
    cadences = {}
    for each in deployed(settings, refresh_every=refresh_every):
        await _limit(client, each, pool)
        id_ = await _deploy(client, each, pool)
        if each.every is not None:
            cadences[id_] = each.every
    return cadences


async def _limit(client: PrefectClient, deployed: Deployed, pool: str) -> None:
    try:
        queue = await client.read_work_queue_by_name(deployed.queue, work_pool_name=pool)
    except ObjectNotFound:
        await client.create_work_queue(
            deployed.queue, concurrency_limit=deployed.at_once, work_pool_name=pool
        )
        return
    if queue.concurrency_limit != deployed.at_once:
        await client.update_work_queue(queue.id, concurrency_limit=deployed.at_once)


async def _deploy(client: PrefectClient, deployed: Deployed, pool: str) -> UUID:
    schema = parameter_schema(deployed.flow.fn).model_dump_for_openapi()
    version = _version(deployed, schema, pool)
    try:
        found = await client.read_deployment_by_name(f"{deployed.flow.name}/{NAME}")
    except ObjectNotFound:
        pass
    else:
        if found.version == version:
            return found.id
    return await client.create_deployment(
        flow_id=await client.create_flow(deployed.flow),
        name=NAME,
        version=version,
        description=deployed.flow.description,
        entrypoint=_entrypoint(deployed),
        parameter_openapi_schema=schema,
        enforce_parameter_schema=True,
        work_pool_name=pool,
        work_queue_name=deployed.queue,
        schedules=[
            DeploymentScheduleCreate(
                schedule=IntervalSchedule(interval=deployed.every, anchor_date=ANCHOR)
            )
        ]
        if deployed.every is not None
        else [],
    )


def _version(deployed: Deployed, schema: dict[str, Any], pool: str) -> str:
    every = deployed.every.total_seconds() if deployed.every is not None else None
    said = [_entrypoint(deployed), pool, deployed.queue, deployed.flow.description, every, schema]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:12]


def _entrypoint(deployed: Deployed) -> str:
    return f"{deployed.flow.fn.__module__}.{deployed.flow.fn.__name__}"
