"""`score_batch`: score a source through the champion, as `driftloop predict-batch` does."""

from pathlib import Path

from anyio import to_thread
from prefect import State, flow
from prefect.artifacts import acreate_markdown_artifact
from prefect.states import Completed

from driftloop.batch import Job
from driftloop.records import ModelId
from flows.artifacts import table
from flows.system import the_system


@flow(name="score-batch", flow_run_name="{model}")
async def score_batch(model: str, source: str, out: Path, *, publish: bool = False) -> State:
    """Return how many rows of `source` were scored into `out` and logged.

    A run that died is gone on with by the next of the same model, source and out.
    """
    job = Job(model=ModelId(model), source=source, out=out, publish=publish)
    scored = await to_thread.run_sync(the_system().predict_batch, job)
    said = f"{scored.rows} rows scored by {model}"
    facts = (
        ("model", model),
        ("version", str(scored.head.version)),
        ("source", source),
        ("written to", str(out)),
        ("rows", str(scored.rows)),
        ("of them by an earlier run", str(scored.before)),
    )
    await acreate_markdown_artifact(
        key=f"score-batch-{model}", markdown=table(("what", "value"), facts), description=said
    )
    return Completed(message=said)
