"""A pass over one window that is too large to hold, in a process of its own."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from driftloop.prediction_log.windows import LARGE
from driftloop.records import State
from driftloop.settings import Settings
from driftloop.wiring import System
from tests.benchmarks._raw import Figure, Line, Plan, Raw, cost, peak_bytes
from tests.benchmarks._world import NOW, environment, settle_large, world

ROWS, REFERENCE = 10_000_000, 10_000


def large_pass(raw: Raw, plan: Plan) -> None:
    """Note what a pass over one model of ROWS rows took: its memory is that of its process."""
    rows = max(LARGE + 1, round(ROWS * plan.size))
    with world(seed=plan.seed) as made:
        settle_large(made, rows, reference=REFERENCE)
        made.set_clock(NOW + timedelta(hours=1))
        made.system.log.close()
        said = subprocess.run(
            [sys.executable, "-m", "tests.benchmarks._large"],
            env=environment(made.settings),
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout
        raw.note("large", **json.loads(said.splitlines()[-1]))


def large_figures(lines: Sequence[Line]) -> dict[str, Figure]:
    """Return the peak and the CPU of that pass; None where there was none."""
    line = next((line for line in lines if line["what"] == "large"), None)
    over = (
        f"a pass over one model of {line['rows']:,} rows"
        if line
        else "not measured in the quick form"
    )
    peak, spent = (line["bytes"] / 2**30, line["cpu_s"]) if line else (None, None)
    return {
        "window_10m_peak_gib": Figure(peak, "GiB", f"peak memory: {over}"),
        "window_10m_cpu_s": Figure(spent, "s", f"CPU, imports included: {over}"),
    }


def main() -> None:
    """Run the pass here, and print what it took."""
    system = System(Settings())
    watcher = system.watcher
    quiet = system.fleet.family_named("quiet")
    with cost() as spent:
        (seen,) = replace(watcher, fleet=system.fleet.only(quiet.models)).watch()
    if seen.decision is None or seen.decision.state is not State.FRESH:
        raise RuntimeError(f"a quiet model is {seen.problem or seen.decision}")
    told = {"rows": seen.rows, "cpu_s": spent.cpu_s, "wall_s": spent.wall_s, "bytes": peak_bytes()}
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main()
