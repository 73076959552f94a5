"""`release`: take every open rollout a step on, or back, where what was seen of it says so.

And start what people want retrained: it comes round more often than `watch`.
"""

from collections.abc import Sequence

from anyio import to_thread
from prefect import State, flow
from prefect.artifacts import acreate_markdown_artifact
from prefect.states import Completed

from driftloop.loop.release import Released
from flows.artifacts import table
from flows.patience import patiently
from flows.system import the_system
from flows.watch import start_wanted

COLUMNS = ("model", "version", "phase", "held by", "why")


@flow(name="release")
async def release() -> State:
    """Return how many rollouts are open and how many moved; one model's trouble stays its own."""
    done = await to_thread.run_sync(the_system().releaser.release)
    moved = sum(each.moved for each in done)
    not_started = await start_wanted()
    problems = sum(each.problem is not None for each in done) + len(not_started)
    said = f"{len(done)} rollouts, {moved} moved, {problems} problems"
    said += "".join(f"; {problem}" for problem in not_started)
    if done:
        await patiently(
            acreate_markdown_artifact, key="release", markdown=_report(done), description=said
        )
    return Completed(message=said)


def _report(done: Sequence[Released]) -> str:
    rows = [
        (
            each.model,
            str(each.rollout.version),
            each.rollout.named,
            each.rollout.held or "-",
            f"could not go on: {each.problem}" if each.problem else each.said,
        )
        for each in done
    ]
    return "# Release\n\n" + table(COLUMNS, rows)
