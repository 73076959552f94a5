"""A candidate with each memory that is worth a fit, and the best of them on the same rows."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa

from driftloop.errors import CalledOff, DriftloopError
from driftloop.judge import expected_gain, memories_to_try
from driftloop.ports import Ledger, PredictionLog, Trainer
from driftloop.records import (
    HOLDOUT_FILE,
    Candidate,
    Decided,
    Gated,
    Head,
    Memory,
    Order,
    Trained,
    Tried,
)
from driftloop.sequential import losses
from driftloop.spec import Family

_log = logging.getLogger(__name__)
RECALLED = 20
"""So many trainings of a model are looked back at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fits:
    """What fits need of the world; `table` reads a Parquet file."""

    log: PredictionLog
    trainer: Trainer
    ledger: Ledger
    table: Callable[[Path], pa.Table]

    def best(
        self, order: Order, family: Family, champion: Head | None
    ) -> tuple[Candidate, tuple[Tried, ...]]:
        """Return the candidate with the least loss on the held-out rows, and what was tried.

        Nothing was where there is one memory alone to try: it was not compared.
        Each memory is a fit of its own, with the limits of one. A fit that failed is told of, and
        the others go on.

        Raises:
            TrainingFailed: no fit came to anything; see `ports.Trainer`.
            CalledOff: somebody ended it.
        """
        memories = self._worth_trying(order, family)
        if len(memories) == 1:
            return self.trainer.train(remembering(order, memories[0], family), champion), ()
        made: list[tuple[float, Candidate]] = []
        tried: list[Tried] = []
        failed: DriftloopError | None = None
        for memory in memories:
            try:
                candidate = self.trainer.train(remembering(order, memory, family), champion)
            except CalledOff:
                raise
            except DriftloopError as error:
                _log.warning(
                    "%s: the fit of %s failed: %s",
                    order.model,
                    memory,
                    error,
                    extra={"trace": order.key},
                )
                failed = failed or error
                tried.append(Tried(memory=memory, loss=None, problem=str(error)))
                continue
            loss = self._loss(candidate, family)
            made.append((np.inf if loss is None else loss, candidate))
            tried.append(
                Tried(
                    memory=memory,
                    loss=loss,
                    rows=candidate.rows,
                    fit_seconds=candidate.fit_seconds,
                    problem="" if loss is not None else "its answers cannot be scored",
                )
            )
        if failed is not None and not made:
            raise failed
        # Of equals the one that stands first in the policy.
        return min(made, key=lambda each: each[0])[1], tuple(tried)

    def _worth_trying(self, order: Order, family: Family) -> tuple[Memory, ...]:
        listed = family.retrain.memory
        if len(listed) == 1:
            return listed
        # What this very order made in a run that died is not yet history.
        past = tuple(
            each
            for each in self.ledger.facts(Trained, model=order.model, last=RECALLED)
            if each.candidate.order.key != order.key and not each.candidate.found
        )
        memories = memories_to_try(listed, past, lost=self._lost(order, past, family))
        both = {Memory.RECENT, Memory.ALL} <= set(memories)
        if both and not self._has_older(order, family):
            # All there is are the recent rows.
            return tuple(memory for memory in memories if memory is not Memory.ALL)
        return memories

    def _lost(self, order: Order, past: tuple[Trained, ...], family: Family) -> bool:
        """Return whether what was made last was refused, or is champion and decays."""
        decided = self.ledger.fact(Decided, key=order.key)
        worse = 0.0 if decided is None else expected_gain(decided.decision)
        limit = family.decay.warn if family.decay is not None else np.inf
        if order.incident is not None or worse >= limit:
            return True
        gated = self.ledger.fact(Gated, key=past[-1].candidate.order.key) if past else None
        return gated is not None and not gated.result.passed

    def _has_older(self, order: Order, family: Family) -> bool:
        wide = remembering(order, Memory.ALL, family).window
        older = replace(wide, end=remembering(order, Memory.RECENT, family).window.start)
        return self.log.summary(family, older).rows > 0

    def _loss(self, candidate: Candidate, family: Family) -> float | None:
        held_out = self.table(Path(candidate.folder) / HOLDOUT_FILE)
        _, lost = losses(
            held_out["label"].to_numpy(), held_out["candidate"].to_numpy(), task=family.task
        )
        known = lost[~np.isnan(held_out["label"].to_numpy().astype(np.float64))]
        mean = float(known.mean()) if known.size else np.nan
        return mean if np.isfinite(mean) else None


def remembering(order: Order, memory: Memory, family: Family) -> Order:
    """Return `order` for a fit with `memory`: its window reaches back as far as that does.

    All history is what `retention.log` keeps.
    """
    window = order.window
    start = window.end - _reach(memory, family)
    left_out = tuple(span for span in window.left_out if span.end > start)
    return replace(order, memory=memory, window=replace(window, start=start, left_out=left_out))


def longest_reach(family: Family) -> timedelta:
    """Return how far back rows are read, at most, whatever memory a candidate comes to have."""
    return max(_reach(memory, family) for memory in family.retrain.memory)


def _reach(memory: Memory, family: Family) -> timedelta:
    span = family.retrain.span
    return span if memory is Memory.RECENT else max(span, family.retention.log)
