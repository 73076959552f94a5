"""One renewal, its cost by part: in the caller, in the fit's process and in the local Slack."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from unittest.mock import patch

import psutil
import pyarrow as pa

from driftloop.records import Candidate, Head, Order
from driftloop.spec import Family
from driftloop.wiring import System
from driftloop.workshop import build_candidate
from tests.benchmarks._raw import Cost, Line, Parts, Timed, cost

PARTS = (
    *("start", "rows", "fit", "lower", "parity", "score", "save"),
    *("register", "gate", "move", "tell", "other"),
)


def renewal(system: System, order: Order, slack: psutil.Process) -> Line:
    """Return what each part of carrying `order` out cost, to a new head.

    Raises:
        RuntimeError: it came to no new head.
    """
    system.log.horizon()  # a worker has the log open
    parts = Parts()
    trainer = _Trainer(system, parts)
    before = sum(slack.cpu_times()[:2])
    with _timed_gate(parts), cost() as here:
        renewed = replace(
            system.renewer,
            trainer=trainer,
            registry=Timed(
                system.registry, parts, register="register", record_gate="gate", point="move"
            ),
            ledger=Timed(system.ledger, parts, move="move"),
            teller=Timed(system.teller, parts, tell="tell"),
            table=parts.timed("gate", system.renewer.table),
        ).renew(order)
    if renewed.outcome != "promoted" or renewed.candidate is None:
        raise RuntimeError(f"the renewal was to be promoted, but {renewed.reason}")
    in_slack = sum(slack.cpu_times()[:2]) - before
    total = Cost(here.wall_s, here.cpu_s + trainer.cpu_s + in_slack)
    spent = parts.spent | trainer.spent
    spent["tell"] = Cost(spent["tell"].wall_s, spent["tell"].cpu_s + in_slack)
    start = parts.spent["train"]
    spent["start"] = Cost(start.wall_s - trainer.wall_s, start.cpu_s + trainer.begun_cpu_s)
    del spent["train"]
    spent["other"] = Cost(
        total.wall_s - sum(each.wall_s for each in spent.values()),
        total.cpu_s - sum(each.cpu_s for each in spent.values()),
    )
    return {
        "rows": renewed.candidate.rows + renewed.candidate.holdout_rows,
        "wall_s": total.wall_s,
        "cpu_s": total.cpu_s,
        "parts": {
            name: {"wall_s": spent[name].wall_s, "cpu_s": spent[name].cpu_s} for name in PARTS
        },
    }


def timed_build(
    family: Family, order: Order, champion: Head | None, rows: pa.Table, artifacts: Path
) -> tuple[Candidate, float, float, float, dict[str, Cost]]:
    """Return a candidate, CPU before, wall and CPU of this process, and the parts' costs.

    Runs in the fit's own process, which ends with it: what is replaced here stays replaced.
    """
    begun = time.process_time()
    parts = Parts()
    with cost() as spent:
        _time_build(parts)
        candidate = build_candidate(family, order, champion, rows, artifacts)
    return candidate, begun, spent.wall_s, time.process_time(), parts.spent


@dataclass
class _Trainer:
    """Fits as the real trainer does, with a clock beside each step; `ports.Trainer`."""

    system: System
    parts: Parts
    patience = timedelta(0)

    def train(self, order: Order, champion: Head | None) -> Candidate:
        family = self.system.fleet.family(order.model)
        rows = self.parts.timed("rows", self.system.log.rows)(family, order.window)
        return self.parts.timed("train", self._train)(family, order, champion, rows)

    def _train(
        self, family: Family, order: Order, champion: Head | None, rows: pa.Table
    ) -> Candidate:
        from driftloop.retrain.isolate import run_isolated

        policy = family.retrain
        candidate, self.begun_cpu_s, self.wall_s, self.cpu_s, self.spent = run_isolated(
            timed_build,
            family,
            order,
            champion,
            rows,
            self.system.settings.artifacts,
            time_limit=policy.time_limit.total_seconds(),
            memory_gib=policy.memory_gib,
            name=f"fit {order.model}",
        )
        return candidate


def _time_build(parts: Parts) -> None:
    import pyarrow.parquet as pq

    from driftloop import optimize, retrain
    from driftloop.serve import model

    for owner, name, part in (
        (retrain, "fit", "fit"),
        (optimize, "lower", "lower"),
        (optimize, "parity", "parity"),
        (retrain, "predict", "score"),
        (retrain, "score", "score"),
        (model, "load_model", "score"),
        (model.OnnxModel, "predict", "score"),
        (retrain, "save", "save"),
        (pq, "write_table", "save"),
    ):
        setattr(owner, name, parts.timed(part, getattr(owner, name)))


@contextmanager
def _timed_gate(parts: Parts) -> Iterator[None]:
    from driftloop.loop import renew

    with patch.object(renew, "compare", parts.timed("gate", renew.compare)):
        yield
