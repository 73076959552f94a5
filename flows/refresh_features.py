"""`refresh-features`: read tables anew that features are looked up in, each when it is due."""

from anyio import to_thread
from prefect import State, flow
from prefect.artifacts import acreate_markdown_artifact
from prefect.states import Completed, Failed

from driftloop.errors import DriftloopError
from flows.artifacts import table
from flows.system import the_system


@flow(name="refresh-features")
async def refresh_features() -> State:
    """Return what was read; a table that cannot be read does not stop the others, and stays old."""
    system = the_system()
    done: list[tuple[str, str]] = []
    failed = 0
    for name in await to_thread.run_sync(system.due_tables):
        try:
            keys = await to_thread.run_sync(system.refresh, name)
            done.append((name, f"{keys:,} keys"))
        except DriftloopError as error:
            failed += 1
            done.append((name, f"failed: {error}"))
    if not done:
        return Completed(message="nothing is due")
    said = f"{len(done) - failed} of {len(done)} tables read"
    await acreate_markdown_artifact(
        key="refresh-features", markdown=table(("table", "outcome"), done), description=said
    )
    return Failed(message=said) if failed else Completed(message=said)
