"""Fits of a data set's rows by the family's own recipe; each is made once."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from driftloop.records import Memory, Order
from driftloop.retrain import fit, predict
from driftloop.workshop import split, weights
from tests.benchmarks._real_sets import Steps

Floats = NDArray[np.float64]


@dataclass(slots=True)
class Fits:
    """Answers of fitted models to every row of their data, by what they were fitted on."""

    made: dict[tuple[str, Memory, int, int], Floats] = field(default_factory=dict)

    def of(self, data: Steps, order: Order) -> tuple[Floats, int]:
        """Return what a candidate of `order` answers to every row, and its training rows.

        Raises:
            TrainingFailed: too few rows to train on, or to hold out.
        """
        a, b = data.since(order.window.start), data.since(order.holdout_from)
        split(data.family, order, data.rows.slice(a, data.since(order.window.end) - a))
        return self._between(data, a, b, order), b - a

    def between(self, data: Steps, a: int, b: int) -> Floats:
        """Return what a model of the rows from `a` to `b` answers to every row."""
        return self._between(data, a, b, None)

    def _between(self, data: Steps, a: int, b: int, order: Order | None) -> Floats:
        memory = Memory.DECAYED if order is not None and order.memory is Memory.DECAYED else None
        key = (data.name, memory or Memory.RECENT, a, b)
        if key not in self.made:
            rows = data.rows.slice(a, b - a)
            weighted = None if order is None else weights(data.family, order, rows)
            answers = np.full(data.rows.num_rows, np.nan)
            # On one thread, as the processes that fits have to themselves do.
            with threadpool_limits(1):
                fitted = fit(data.family, rows, seed=data.family.retrain.seed, weights=weighted)
                answers[a:] = predict(fitted, data.rows.slice(a))
            self.made[key] = answers
        return self.made[key]
