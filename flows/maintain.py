"""`maintain`: tell what is unsent, mend copies, throw away what is old."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

from anyio import to_thread
from prefect import State, flow
from prefect.artifacts import acreate_markdown_artifact
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterEndTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound
from prefect.states import Completed

from driftloop.loop.renew import repair_aliases
from flows.artifacts import table
from flows.system import the_system

KEEP_FOR = timedelta(days=7)
KEEP_RUNS = 1000
PAGE = 200
AT_MOST = 1000
"""How many runs a pass deletes; the next goes on."""
ENDED = FlowRunFilterState(
    type=FlowRunFilterStateType(
        any_=[StateType.COMPLETED, StateType.FAILED, StateType.CRASHED, StateType.CANCELLED]
    )
)


@flow(name="maintain")
async def maintain() -> State:
    """Return what was mended and removed; a part that fails does not stop the others."""
    system = the_system()

    async def unsent() -> str:
        told = await to_thread.run_sync(system.teller.tell_unsent)
        return f"{sum(each.told for each in told)} told, {sum(not each.told for each in told)} not"

    async def aliases() -> str:
        mended = await to_thread.run_sync(repair_aliases, system.ledger, system.registry)
        return ", ".join(mended) or "all right"

    async def old() -> str:
        gone = await to_thread.run_sync(system.prune)
        return f"{', '.join(map(str, gone))} removed"

    async def runs() -> str:
        async with get_client() as client:
            return f"{await delete_old_runs(client)} removed"

    parts: dict[str, Callable[[], Awaitable[str]]] = {
        "unsent notices": unsent,
        "registry aliases": aliases,
        "what is old": old,
        "old flow runs": runs,
    }
    done: list[tuple[str, str]] = []
    problems = 0
    for name, part in parts.items():
        try:
            done.append((name, await part()))
        except Exception as error:  # noqa: BLE001 - the other parts go on
            problems += 1
            done.append((name, f"failed: {error}"))
    said = f"{len(parts) - problems} of {len(parts)} parts done"
    await acreate_markdown_artifact(
        key="maintain", markdown=table(("part", "outcome"), done), description=said
    )
    return Completed(message=said)


async def delete_old_runs(
    client: PrefectClient, *, keep_for: timedelta = KEEP_FOR, keep_runs: int = KEEP_RUNS
) -> int:
    """Return how many ended runs were deleted: the oldest, and all but the newest `keep_runs`."""
    oldest = FlowRunFilterEndTime(before_=datetime.now(UTC) - keep_for)
    aged = FlowRunFilter(state=ENDED, end_time=oldest)
    deleted = 0
    for filtered, offset in ((aged, 0), (FlowRunFilter(state=ENDED), keep_runs)):
        while deleted < AT_MOST and (page := await _page(client, filtered, offset)):
            for run in page:
                deleted += await _delete(client, run)
    return deleted


async def _page(client: PrefectClient, filtered: FlowRunFilter, offset: int) -> list[FlowRun]:
    return await client.read_flow_runs(
        flow_run_filter=filtered, sort=FlowRunSort.END_TIME_DESC, limit=PAGE, offset=offset
    )


async def _delete(client: PrefectClient, run: FlowRun) -> int:
    try:
        await client.delete_flow_run(run.id)
    except ObjectNotFound:
        # Prefect's own vacuum was there first.
        return 0
    return 1
