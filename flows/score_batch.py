"""`score_batch`: score a table through the champion, as `driftloop predict-batch` does."""

from pathlib import Path

from anyio import to_thread
from prefect import State, flow
from prefect.artifacts import acreate_markdown_artifact
from prefect.states import Completed

from driftloop.records import ModelId
from flows.artifacts import table
from flows.system import the_system


@flow(name="score-batch", flow_run_name="{model}")
async def score_batch(model: str, source: str, out: Path) -> State:
    """Return how many rows of `source` were scored into `out` and logged."""
    rows = await to_thread.run_sync(the_system().predict_batch, ModelId(model), source, out)
    said = f"{rows} rows scored by {model}"
    facts = (("model", model), ("source", source), ("written to", str(out)), ("rows", str(rows)))
    await acreate_markdown_artifact(
        key=f"score-batch-{model}", markdown=table(("what", "value"), facts), description=said
    )
    return Completed(message=said)
