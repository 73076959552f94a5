"""`watch`: measure and judge the whole fleet, page owners, start what renews a model."""

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

import msgspec
from anyio import to_thread
from prefect import State, flow
from prefect.artifacts import acreate_markdown_artifact
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import arun_deployment
from prefect.states import Completed

from driftloop.loop.watch import Watched
from driftloop.records import Kind, ModelId, Notice, Order, Verdict
from flows.artifacts import number, table
from flows.patience import patiently
from flows.system import CANCELLED, skipped, the_system

if TYPE_CHECKING:
    from driftloop.wiring import System

RENEW = "renew/driftloop"
TRIES = 10
"""How many runs an order may have that end without it having begun."""
COLUMNS = ("model", "state", "measured", "baseline", "limit", "rows", "labels", "why", "follows")


@flow(name="watch")
async def watch() -> State:
    """Return what one pass over the fleet came to; one model's trouble stays its own.

    One run for all models, with no task per model: its cost does not grow with their number.
    """
    system = the_system()
    seen = await to_thread.run_sync(system.watcher.watch)
    problems = [f"{each.model}: {each.problem}" for each in seen if each.problem]
    problems += await _told(system, [notice for each in seen for notice in each.notices])
    problems += await _tried("earlier notices", system.teller.tell_unsent)
    # Owners are told first: what follows waits for Prefect, should it be down.
    for each in seen:
        if each.order is not None:
            problems += await started(each.order)
    problems += await start_wanted(but={each.model for each in seen if each.order is not None})
    said = _summary(seen, problems, skipped.get())
    await patiently(
        acreate_markdown_artifact,
        key="watch",
        markdown=_report(seen, problems, said),
        description=said,
    )
    return Completed(message=said)


async def run_of(order: Order, *, key: str, named: str = "ordered") -> FlowRun:
    """Return the run that was started under `key` to carry `order` out, now or before."""
    return await patiently(
        arun_deployment,
        RENEW,
        parameters={"order": msgspec.to_builtins(order)},
        flow_run_name=f"{order.model}: {named}",
        idempotency_key=key,
        tags=[order.model],
        timeout=0,
        as_subflow=False,
    )


async def start_wanted(*, but: Collection[ModelId] = ()) -> list[str]:
    """Return the problems, if there are any, of starting what people want retrained.

    Models in `but` have just been seen to.
    """
    try:
        orders = await to_thread.run_sync(the_system().wanted)
    except Exception as error:  # noqa: BLE001 - what the pass itself has come to counts all the same
        return [f"what people want retrained could not be read: {error}"]
    asked = [order for order in orders if order.model not in but]
    return [problem for order in asked for problem in await started(order)]


async def started(order: Order) -> list[str]:
    """Return the problem, if there is one, after seeing to it that `order` is carried out, once.

    Prefect gives the old run back for a key that it has seen. If that one ended and the order
    still comes, it never began: another renewal of the model was under way, or the worker died.
    Then a new run follows the old one. If somebody cancelled it while it waited, none does.
    """
    try:
        run = await run_of(order, key=order.key)
        for _ in range(TRIES):
            if run.state is None or not run.state.is_final():
                return []
            if run.state.is_cancelled():
                await to_thread.run_sync(the_system().renewer.cancel, order, CANCELLED)
                return []
            run = await run_of(order, key=f"{order.key}/after/{run.id}")
    except Exception as error:  # noqa: BLE001 - the other models' orders go on
        return [f"{order.model}: its renewal was not started: {error}"]
    return [f"{order.model}: its renewal was started {TRIES} times and never began"]


async def _told(system: "System", notices: Sequence[Notice]) -> list[str]:
    """Return the problems of telling: all at once, as what has one cause is one message."""
    if not await _tried("all", system.teller.tell_all, notices):
        return []
    # One by one, so that one model's trouble stays its own; what is told already stays so.
    return [
        problem
        for notice in notices
        for problem in await _tried(notice.model, system.teller.tell, notice)
    ]


async def _tried(whose: ModelId | str, act: Callable[..., object], *arguments: object) -> list[str]:
    try:
        await to_thread.run_sync(act, *arguments)
    except Exception as error:  # noqa: BLE001 - the other models' owners are told all the same
        return [f"{whose}: not told: {error}"]
    return []


def _summary(seen: Sequence[Watched], problems: Sequence[str], late: int) -> str:
    looked = [each for each in seen if each.decision is not None or each.problem is not None]
    parts = [
        f"{len(looked)} models looked at",
        f"{sum(each.order is not None for each in seen)} to renew",
        f"{len(problems)} problems",
    ]
    if waiting := sum(each.waits is not None for each in seen):
        parts.append(f"{waiting} renewals wait")
    if late:
        parts.append(f"{late} late runs skipped for this one")
    return ", ".join(parts)


def _report(seen: Sequence[Watched], problems: Sequence[str], said: str) -> str:
    parts = [f"# Watch\n\n{said}."]
    rows = [_row(each) for each in seen if each.decision is not None]
    if rows:
        parts.append(table(COLUMNS, rows))
    if waits := [f"- {each.model}: {each.waits}" for each in seen if each.waits]:
        parts.append("## Renewals that wait\n\n" + "\n".join(waits))
    if problems:
        parts.append("## Problems\n\n" + "\n".join(f"- {line}" for line in problems))
    return "\n\n".join(parts)


def _row(seen: Watched) -> tuple[str, ...]:
    decision = seen.decision
    if decision is None:
        raise ValueError(seen.model)
    decay = _decay(decision.verdicts)
    reading = decay.reading if decay is not None else None
    return (
        seen.model,
        decision.state.value,
        f"{reading.metric} {number(reading.value)}" if reading is not None else "-",
        number(reading.baseline if reading is not None else None),
        number(decay.limit if decay is not None else None),
        str(seen.rows),
        str(seen.labels),
        decision.reason,
        _follows(seen),
    )


def _decay(verdicts: Sequence[Verdict]) -> Verdict | None:
    found = [verdict for verdict in verdicts if verdict.reading.kind is Kind.DECAY]
    # Scores have no decay: what is judged of them is how they lie.
    found = found or [v for v in verdicts if v.reading.column == "prediction"]
    # The judged metric is the one with a limit; the others are there to be read.
    limited = [verdict for verdict in found if verdict.limit is not None]
    return next(iter([*limited, *found]), None)


def _follows(seen: Watched) -> str:
    told = [notice.stage.value for notice in seen.notices]
    renewal = ["renewal"] if seen.order is not None else []
    renewal += ["renewal waits"] if seen.waits else []
    blocked = seen.decision.blocked if seen.decision is not None else None
    return ", ".join([*told, *renewal, *([f"not renewed: {blocked}"] if blocked else [])])
