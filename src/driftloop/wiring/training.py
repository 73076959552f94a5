"""Fits in processes of their own, and the tables that they leave behind."""

import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from driftloop.errors import ArtifactError, CalledOff
from driftloop.ports import PredictionLog
from driftloop.records import (
    Candidate,
    Head,
    ModelId,
    Order,
)
from driftloop.spec import Fleet
from driftloop.workshop import PRELOADED, build_candidate, found_candidate


def read_table(file: Path) -> pa.Table:
    """Return the rows of a Parquet file that a fit left behind.

    Raises:
        ArtifactError: it is not there, or is damaged.
    """
    try:
        return pq.read_table(file)
    except (OSError, pa.ArrowException) as error:
        raise ArtifactError.unreadable(file, error) from error


class IsolatedTrainer:
    """Trains in a child process with limits on time and memory; implements `ports.Trainer`."""

    patience = timedelta(0)

    def __init__(
        self, fleet: Fleet, log: PredictionLog, artifacts: Path, outputs: Path | None = None
    ) -> None:
        """Start nothing yet; the first fit starts the server that fits are forked from.

        What a model's last fit printed is kept in a file of `outputs`, or nowhere.
        """
        self._fleet = fleet
        self._log = log
        self._artifacts = artifacts.absolute()
        self._outputs = outputs
        self._off: dict[str, threading.Event] = {}
        self._why: dict[str, str] = {}

    def call_off(self, order: Order, *, why: str = "was called off") -> None:
        """End the training of `order` wherever it stands; one yet to begin does not begin."""
        self._why[order.key] = why
        self._off.setdefault(order.key, threading.Event()).set()

    def warm_up(self) -> None:
        """Start the server that fits are forked from, so that the first fit does not wait."""
        from driftloop.retrain.isolate import warm_up

        warm_up(PRELOADED)

    def train(self, order: Order, champion: Head | None) -> Candidate:
        """Return a candidate made in a child process; see `ports.Trainer`."""
        return self._made(order, build_candidate, champion)

    def find(self, order: Order) -> Candidate:
        """Return what answers already, elsewhere; see `ports.Trainer`."""
        return self._made(order, found_candidate)

    def _made(self, order: Order, make: Callable[..., Candidate], *more: object) -> Candidate:
        from driftloop.retrain.isolate import run_isolated

        self.warm_up()
        family = self._fleet.family(order.model)
        # Read here, where the lake is open: opening it costs more than a small fit.
        rows = self._log.rows(family, order.window)
        try:
            return run_isolated(
                make,
                family,
                order,
                *more,
                rows,
                self._artifacts,
                time_limit=family.retrain.time_limit.total_seconds(),
                memory_gib=family.retrain.memory_gib,
                name=f"fit {order.model}",
                log=self._output(order.model),
                called_off=self._off.setdefault(order.key, threading.Event()),
            )
        except CalledOff as error:
            why = self._why.get(order.key, error.what)
            raise CalledOff(why, where=f"fit {order.model}") from error
        finally:
            self._off.pop(order.key, None)
            self._why.pop(order.key, None)

    def _output(self, model: ModelId) -> Path | None:
        if self._outputs is None:
            return None
        self._outputs.mkdir(parents=True, exist_ok=True)
        file = self._outputs / f"{model}.log"
        # A model has one renewal at a time.
        file.unlink(missing_ok=True)
        return file
