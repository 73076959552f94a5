"""Fits on a Dask cluster: each a task of Prefect's, in a process of its own on a Dask worker.

Only the order travels. The worker reads rows and writes the candidate by its own settings, which
must be those of the same installation. Imported where the setting `dask` is given; the door to
Dask.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from multiprocessing import current_process
from typing import Any

from distributed import CancelledError, get_worker
from distributed.scheduler import KilledWorker
from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect_dask.task_runners import DaskTaskRunner

from driftloop.errors import CalledOff, DriftloopError, TrainingFailed, named
from driftloop.records import Candidate, Head, Order, Ordered
from driftloop.spec import Family
from driftloop.wiring import System
from flows.patience import is_away
from flows.system import the_system

PATIENCE = timedelta(minutes=10)
"""How long a fit waits for a scheduler that is away, or a worker that is free."""
CONNECT = 10.0
PAUSE = 1.0
LOOK_EVERY = 0.25
"""Seconds between two looks at whether anybody still waits for a fit."""
START = (
    "DASK_DISTRIBUTED__WORKER__DAEMON=False dask worker ADDRESS --nthreads 1 --preload flows.fit"
)


class DaskTrainer:
    """Trains on the cluster of the setting `dask`, in runs of a flow; implements `ports.Trainer`.

    A fit whose Dask worker died is begun anew on another by Dask, three times at most. Whatever
    ends the wait for a fit (a cancellation, the death of who waits) ends the fit within a second.
    """

    patience = PATIENCE

    def __init__(self, system: System) -> None:
        """Connect to nothing yet: each fit has a connection of its own."""
        self._system = system
        self._address = system.settings.dask
        self._fits: dict[str, _Fit] = {}

    def call_off(self, order: Order, *, why: str = "was called off") -> None:
        """End the training of `order` wherever it stands; see `ports.Trainer`."""
        fit = self._fits.setdefault(order.key, _Fit())
        fit.off = why
        fit.news.set()
        self._system.isolated.call_off(order, why=why)

    def warm_up(self) -> None:
        """Do nothing: fits are made elsewhere."""

    def find(self, order: Order) -> Candidate:
        """Return what answers already, elsewhere; nothing is fitted, so it is made here."""
        return self._system.isolated.find(order)

    def train(self, order: Order, champion: Head | None) -> Candidate:
        """Return a candidate made on a Dask worker; see `ports.Trainer`.

        Raises:
            CalledOff: it was.
            TrainingFailed: also when no scheduler or worker was there in time, or the workers
                that were at it died.
        """
        family = self._system.fleet.family(order.model)
        waiting = self._fits.setdefault(order.key, _Fit())
        begun = time.monotonic()
        until = begun + (PATIENCE + family.retrain.time_limit).total_seconds()
        try:
            while True:
                waiting.check(order)
                try:
                    return self._made(family, order, champion, waiting, until=until)
                except Exception as error:
                    if not _is_away(error):
                        raise _worded(error, order) from error
                    if time.monotonic() > begun + PATIENCE.total_seconds():
                        raise TrainingFailed(
                            f"was not carried out within {PATIENCE}: {error}",
                            where=f"dask = {self._address}",
                            hint="start `dask scheduler` there, or leave the setting `dask` empty",
                        ) from error
                waiting.news.wait(PAUSE)
        finally:
            self._fits.pop(order.key, None)

    def _made(
        self,
        family: Family,
        order: Order,
        champion: Head | None,
        waiting: "_Fit",
        *,
        until: float,
    ) -> Candidate:
        waiting.news.clear()
        waiting.check(order)
        given = {"family": family, "order": order, "champion": champion}
        runner = DaskTaskRunner(address=self._address, client_kwargs={"timeout": CONNECT})
        with runner:
            try:
                _ = runner.client
            except OSError as error:
                raise _NoScheduler(named(error)) from error
            made = runner.submit(fit, given)
            future: Any = made.wrapped_future
            future.add_done_callback(lambda _: waiting.news.set())
            in_time = waiting.news.wait(until - time.monotonic())
            try:
                waiting.check(order)
                if in_time:
                    candidate: Candidate = made.result()
                    return candidate
                workers = len(runner.client.scheduler_info()["workers"])
            except CalledOff:
                future.cancel(force=True)
                raise
            future.cancel(force=True)
        raise TrainingFailed(
            f"none of the {workers} Dask workers came to its end with it in time",
            where=f"dask = {self._address}",
            hint=f"start more (`{START}`), or ask for fewer fits at once (renew_slots)",
        )


@task(name="fit", task_run_name="fit {order.model}", cache_policy=NO_CACHE, persist_result=False)
def fit(family: Family, order: Order, champion: Head | None) -> Candidate:
    """Return the candidate of `order`, made in a child process of this Dask worker.

    Raises:
        CalledOff: nobody waits for it any more.
        TrainingFailed: as `ports.Trainer`, or this worker cannot work for that installation.
    """
    trainer = _installation(family, order).isolated
    with _unless_unwanted(lambda: trainer.call_off(order, why="nobody waits for it any more")):
        return trainer.train(order, champion)


def dask_setup(worker: object) -> None:
    """Get a Dask worker ready, so that its first fit does not wait; for `--preload flows.fit`.

    Raises:
        DriftloopError: it may not start processes, or its settings describe no installation.
    """
    _check_may_start(f"Dask worker {worker}")
    the_system().isolated.warm_up()


# -- where it is waited for -----------------------------------------------------------------


class _Fit:
    """What is waited for: the end of a fit, or that somebody calls it off."""

    def __init__(self) -> None:
        self.news = threading.Event()
        self.off: str | None = None

    def check(self, order: Order) -> None:
        if self.off is not None:
            raise CalledOff(self.off, where=f"fit {order.model}")


class _NoScheduler(Exception):
    """There was no scheduler to talk to."""


def _is_away(error: Exception) -> bool:
    """Return whether there was no scheduler to talk to, or it went, or Prefect did."""
    if isinstance(error, DriftloopError):
        return False
    return isinstance(error, _NoScheduler | CancelledError) or is_away(error)


def _worded(error: Exception, order: Order) -> DriftloopError:
    if isinstance(error, DriftloopError):
        return error
    where = f"fit {order.model}"
    if isinstance(error, KilledWorker):
        return TrainingFailed(
            f"{error.allowed_failures + 1} Dask workers died one after the other while they were"
            f" at it, {error.last_worker.address} the last",
            where=where,
            hint="their logs, or their machines', say why",
        )
    return TrainingFailed(f"broke on its Dask worker: {named(error)}", where=where)


# -- on the Dask worker ---------------------------------------------------------------------


def _installation(family: Family, order: Order) -> System:
    """Return the installation that this worker's settings describe, if it is the order's.

    Raises:
        TrainingFailed: it is another, or this worker may not start processes.
    """
    where = f"Dask worker {get_worker().address}"
    _check_may_start(where)
    system = the_system()
    if system.ledger.fact(Ordered, key=order.key) is None:
        raise TrainingFailed(
            f"its ledger knows nothing of the order {order.key}: it is another installation's",
            where=f"{where}, home {system.settings.home.absolute()}",
            hint="start it with the settings (DRIFTLOOP_CONFIG) of the loop that it works for",
        )
    if system.fleet.family(order.model) != family:
        # They may have changed since this worker began.
        the_system.cache_clear()
        system = the_system()
    if system.fleet.family(order.model) != family:
        raise TrainingFailed(
            f"reads other monitor files of {family.name} than the loop does",
            where=f"{where}, {system.fleet.folder}",
            hint="give both the same, and restart the one that has older ones in hand",
        )
    return system


def _check_may_start(where: str) -> None:
    if current_process().daemon:
        raise TrainingFailed(
            "may not start the processes that fits run in",
            where=where,
            hint=f"start it with `{START}`",
        )


@contextmanager
def _unless_unwanted(end: Callable[[], None]) -> Iterator[None]:
    """Call `end` once the scheduler has let go of the task that this thread is at.

    It does when the client that waits cancels it, or is gone: Dask by itself ends no task that
    has begun.
    """
    worker = get_worker()
    key = worker.get_current_task()
    over = threading.Event()

    def look() -> None:
        while not over.wait(LOOK_EVERY):
            found: Any = worker.state.tasks.get(key)
            if found is None or found.state == "cancelled":
                end()
                return

    threading.Thread(target=look, name="unless-unwanted", daemon=True).start()
    try:
        yield
    finally:
        over.set()
