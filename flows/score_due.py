"""`score_due`: score the batches that monitors ask for and whose turn has begun."""

from anyio import to_thread
from prefect import State, flow
from prefect.artifacts import acreate_markdown_artifact
from prefect.states import Completed, Failed

from driftloop.errors import DriftloopError
from flows.artifacts import table
from flows.system import the_system


@flow(name="score-due")
async def score_due() -> State:
    """Return what was scored; one batch that fails does not stop the others, and is tried again."""
    system = the_system()
    done: list[tuple[str, str]] = []
    failed = 0
    for due in await to_thread.run_sync(system.batches_due):
        try:
            scored = await to_thread.run_sync(system.score_due, due)
        except (DriftloopError, OSError) as error:
            failed += 1
            done.append((due.key, f"failed: {error}"))
            continue
        if scored is not None:
            said = f"{scored.rows} rows by version {scored.head.version} into {due.job.out}"
            done.append((due.key, said))
    said = f"{len(done) - failed} batches scored, {failed} failed"
    if done:
        await acreate_markdown_artifact(
            key="score-due", markdown=table(("batch", "outcome"), done), description=said
        )
    return Failed(message=said) if failed else Completed(message=said)
