"""`consistency`: make features again that were served, and see whether they are the same."""

from anyio import to_thread
from prefect import State, flow
from prefect.artifacts import acreate_markdown_artifact
from prefect.states import Completed

from flows.artifacts import number, table
from flows.system import the_system


@flow(name="consistency")
async def consistency() -> State:
    """Return the worst difference; what is beyond its limit the watchdog tells."""
    readings = await to_thread.run_sync(the_system().compare_features)
    rows = [
        (str(each.column), number(each.value), str(each.n), each.problem or "") for each in readings
    ]
    known = [each.value for each in readings if each.value is not None]
    said = f"{sum(each.n for each in readings)} rows compared"
    said += f", worst difference {max(known):.3g}" if known else ""
    if rows:
        await acreate_markdown_artifact(
            key="consistency",
            markdown=table(("family", "worst difference", "rows", "where"), rows),
            description=said,
        )
    return Completed(message=said)
