"""What the log would show of a rollout, as a test says the challenger does."""

from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import pyarrow as pa

from driftloop.errors import LogError
from driftloop.latencies import BINS, bin_of
from driftloop.ports import Trial
from driftloop.records import Counts, Phase, Rollout
from driftloop.spec import Family


@dataclass
class FakeTrials:
    """A champion that errs by 10 and answers in 10 ms, and a challenger as a test sets it.

    `fails` is the share of its requests that fail, `slower` its times, `shift` what it answers
    more, `worse` its error as a multiple of the champion's; `labels` is the share of rows that
    are labelled.
    """

    rows: int = 2000
    fails: float = 0.0
    slower: float = 1.0
    shift: float = 0.0
    worse: float = 0.9
    labels: float = 1.0
    down: bool = False
    asked: int = 0

    def trial(self, family: Family, rollout: Rollout) -> Trial:
        self.asked += 1
        if self.down:
            raise LogError("the lake is away")
        rng = np.random.default_rng(1)
        label = rng.normal(1000.0, 100.0, self.rows)
        sign = rng.choice([-1.0, 1.0], self.rows)
        champion = label + sign * rng.exponential(10.0, self.rows)
        challenger = label + self.worse * (champion - label) + self.shift
        known = [
            float(value) if number < self.labels * self.rows else None
            for number, value in enumerate(label)
        ]
        at = [rollout.since + timedelta(seconds=number) for number in range(self.rows)]
        times = pa.array(at, pa.timestamp("us", "UTC"))
        both = {
            "event_time": times,
            "predicted_at": times,
            "challenger": challenger,
            "champion": champion,
            "label": pa.array(known, pa.float64()),
        }
        apart = {
            "version": pa.array(
                [rollout.version] * self.rows + [rollout.champion] * self.rows, pa.int32()
            ),
            "prediction": np.concatenate([challenger, champion]),
            "label": pa.array(known * 2, pa.float64()),
        }
        if rollout.phase is Phase.SHADOW:
            apart = {name: column[:0] for name, column in apart.items()}
        return Trial(
            challenger=self._counts(self.fails, self.slower),
            champion=self._counts(0.0, 1.0),
            both=pa.table(both),
            apart=pa.table(apart),
        )

    def _counts(self, fails: float, slower: float) -> Counts:
        seconds = [0] * BINS
        seconds[bin_of(0.01 * slower)] = self.rows
        return Counts(requests=self.rows, errors=round(fails * self.rows), seconds=tuple(seconds))
