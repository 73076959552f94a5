"""`renew`: train, gate and release one model."""

from uuid import UUID

import httpx
from anyio import CapacityLimiter, to_thread
from prefect import State, flow
from prefect.artifacts import acreate_markdown_artifact
from prefect.client.orchestration import get_client
from prefect.exceptions import PrefectException
from prefect.runtime import flow_run
from prefect.states import Cancelled, Completed, Failed

from driftloop.loop.renew import Renewed
from driftloop.records import Order
from flows.artifacts import number, table
from flows.patience import patiently
from flows.system import CANCELLED, the_system


@flow(name="renew", flow_run_name="{order.model}: under way")
async def renew(order: Order) -> State:
    """Return what came of `order`: Promoted, Refused, Elsewhere, Cancelled, or Failed.

    Safe to start twice, and to start again after a crash: the ledger knows who is at it.
    """
    system = the_system()
    try:
        # With threads of their own: as many as wait for a cluster must not keep a pass waiting.
        renewed = await to_thread.run_sync(system.renewer.renew, order, limiter=CapacityLimiter(1))
    except Exception:
        raise
    except BaseException:
        # A process of Prefect's own pools is signalled: to cancel, or because its machine stops.
        if _is_cancelled():
            system.trainer.call_off(order, why=CANCELLED)
        raise
    said = f"{renewed.outcome}: {renewed.reason}"
    # What came of it is in the ledger; that it is told here may wait until Prefect is back.
    await patiently(
        acreate_markdown_artifact,
        key=f"renew-{order.model}",
        markdown=_report(renewed),
        description=said,
    )
    await patiently(_rename, f"{order.model}: {_outcome(renewed)}")
    if renewed.outcome == "cancelled":
        return Cancelled(message=said)
    if renewed.outcome == "failed":
        return Failed(message=said)
    return Completed(name=renewed.outcome.capitalize(), message=said)


def _is_cancelled() -> bool:
    """Return whether somebody cancels this run; asked where the loop can no longer wait."""
    try:
        with get_client(sync_client=True) as client:
            state = client.read_flow_run(UUID(flow_run.id)).state
    except (PrefectException, httpx.HTTPError):
        return False
    return state is not None and (state.is_cancelling() or state.is_cancelled())


async def _rename(name: str) -> None:
    async with get_client() as client:
        await client.update_flow_run(flow_run.id, name=name)


def _outcome(renewed: Renewed) -> str:
    if renewed.outcome == "promoted" and renewed.head is not None:
        return f"promoted version {renewed.head.version}"
    return renewed.outcome


def _report(renewed: Renewed) -> str:
    order, candidate, result = renewed.order, renewed.candidate, renewed.result
    parts = [
        f"# {order.model}: {_outcome(renewed)}\n\n{renewed.reason}.",
        (
            f"Ordered because: {order.reason}. Rows from {order.window.start:%Y-%m-%d %H:%M} to "
            f"{order.window.end:%Y-%m-%d %H:%M} UTC, held out from "
            f"{order.holdout_from:%Y-%m-%d %H:%M}, seed {order.seed}, order `{order.key}`."
        ),
    ]
    if candidate is not None:
        facts = (
            ("rows trained on", str(candidate.rows)),
            ("rows held out", str(candidate.holdout_rows)),
            ("fit, seconds", number(candidate.fit_seconds)),
            ("lowering, seconds", number(candidate.lower_seconds)),
            ("largest difference of the lowered model", number(candidate.parity)),
            ("SHA-256", candidate.digest),
            *((f"held-out {metric.name}", number(metric.value)) for metric in candidate.metrics),
        )
        parts.append("## Candidate\n\n" + table(("what", "value"), facts))
    if result is not None:
        facts = (
            ("passed", "yes" if result.passed else "no"),
            ("rows compared", str(result.n)),
            (f"champion's {result.loss}", number(result.champion_loss)),
            (f"candidate's {result.loss}", number(result.candidate_loss)),
            ("relative gain", number(result.gain)),
            (
                f"its interval at {100 * result.confidence:.6g}%",
                f"{number(result.low)} to {number(result.high)}",
            ),
        )
        parts.append("## Gate\n\n" + table(("what", "value"), facts))
    return "\n\n".join(parts)
