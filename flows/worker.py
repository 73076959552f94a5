"""The warm worker: runs flows inside its own process, which has imported everything already.

A process per run costs seconds of imports; here a run costs a third of one. What is heavy and
may die (fits) runs in child processes. The pool belongs to this one process, which `driftloop
up` keeps alive: whatever of the pool is under way and not in it is a dead worker's.
"""

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import Any
from uuid import UUID

import anyio
from anyio import to_thread
from anyio.abc import TaskStatus
from prefect import State
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterId,
    FlowRunFilterNextScheduledStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.responses import WorkerFlowRunResponse
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import Abort, ObjectNotFound, Pause
from prefect.flow_engine import run_flow
from prefect.logging import get_logger
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from prefect.states import Cancelled, Completed, Crashed
from prefect.workers.base import (
    BaseJobConfiguration,
    BaseVariables,
    BaseWorker,
    BaseWorkerResult,
)
from pydantic import TypeAdapter

from driftloop.errors import DriftloopError, ServiceError
from driftloop.heartbeat import beat
from driftloop.logs import configure
from driftloop.records import Order
from driftloop.settings import Settings, read_settings
from driftloop.wiring import System
from flows import deployments
from flows.patience import is_away, patiently
from flows.renew import renew
from flows.system import CANCELLED, skipped, the_system
from flows.watch import run_of

HEAVY = ("driftloop.measure.door", "mlflow")
"""What the flows import at first use, seconds each."""
API_PATIENCE = 120.0
SWEEP_EVERY = 30.0
STOP_WITHIN = 4.0
AGAIN = 5
"""How often a renewal is taken up again whose worker died; one that takes it down ends then."""
DIED = f"the worker died {AGAIN + 1} times while it was at it"
UNDER_WAY = (StateType.RUNNING, StateType.PENDING, StateType.CANCELLING)


class WarmWorker(BaseWorker[BaseJobConfiguration, BaseVariables, BaseWorkerResult]):
    """Runs each flow run in a task of its own in this process.

    A cancellation ends the training of a renewal under way; what is past that is finished.

    Args:
        name: the worker's name in the UI.
        cadences: of each scheduled deployment; of its late runs only the newest is run.
        alive: called whenever Prefect was asked what is due, also when it is away.
    """

    type = deployments.TYPE
    job_configuration = BaseJobConfiguration
    job_configuration_variables = BaseVariables
    _description = "Runs driftloop's flows inside its own warm process."

    def __init__(
        self,
        *,
        name: str,
        cadences: Mapping[UUID, timedelta],
        alive: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(work_pool_name=deployments.POOL, name=name, prefetch_seconds=1)
        self._cadences = cadences
        self._alive = alive
        self._at: set[UUID] = set()
        self._away = False
        self._skipped: dict[UUID, int] = {}
        self._to_skip: dict[UUID, str] = {}
        self._called_off: set[UUID] = set()
        self._next_sweep = time.monotonic() + SWEEP_EVERY
        self._ready = False
        self.draining = False

    @property
    def busy(self) -> bool:
        """Whether a run is under way."""
        return bool(self._at or self._submitting_flow_run_ids)

    async def run(
        self,
        flow_run: FlowRun,
        configuration: BaseJobConfiguration,  # noqa: ARG002 - there is no infrastructure to configure
        task_status: TaskStatus[Any] | None = None,
    ) -> BaseWorkerResult:
        """Run `flow_run` here; its own state tells how it ended, whatever happened."""
        self._at.add(flow_run.id)
        if task_status is not None:
            task_status.started(str(flow_run.id))
        skipped.set(self._skipped.pop(flow_run.id, 0))
        ended: State[Any] | None = None
        try:
            flow = deployments.FLOWS[(await self.client.read_flow(flow_run.flow_id)).name]
            running: Any = run_flow(flow, flow_run=flow_run, return_type="state")
            ended = await running
        except (Pause, Abort, SystemExit) as signalled:
            self._logger.info("run %s ended by %r", flow_run.id, signalled)
        except Exception:
            self._logger.exception("run %s could not be run to its end", flow_run.id)
        try:
            if ended is None or not ended.is_final():
                await self._settle(flow_run)
        except Exception:
            # The sweep has it next.
            self._logger.exception("the end of run %s could not be told", flow_run.id)
        finally:
            self._at.discard(flow_run.id)
            self._called_off.discard(flow_run.id)
        return BaseWorkerResult(identifier=str(flow_run.id), status_code=0)

    async def get_and_submit_flow_runs(self) -> list[FlowRun]:
        """Start what is due; now and then clear runs that somehow nobody is at.

        While Prefect is away nothing is due; what is under way goes on.
        """
        if self.draining:
            return []
        submitted = await self._submitted()
        self._alive()
        return submitted

    async def _submitted(self) -> list[FlowRun]:
        try:
            submitted = await super().get_and_submit_flow_runs()
            await self._call_off_cancelled()
            if time.monotonic() >= self._next_sweep:
                self._next_sweep = time.monotonic() + SWEEP_EVERY
                at_it = {*self._at, *self._submitting_flow_run_ids}
                await clear_abandoned(self.client, at_it=at_it, older_than=timedelta(seconds=30))
        except Exception as error:
            if not is_away(error):
                raise
            self._note_away(error)
            return []
        if self._away:
            self._away = False
            say("Prefect is back")
        if not self._ready:
            self._ready = True
            say("the worker is ready")
        return submitted

    async def sync_with_backend(self) -> None:
        """Report that this worker lives; not while Prefect is away, which ends nothing here."""
        try:
            await super().sync_with_backend()
        except Exception as error:
            if not is_away(error):
                raise
            self._note_away(error)

    def _note_away(self, error: Exception) -> None:
        if not self._away:
            self._away = True
            say(f"Prefect does not answer ({error or type(error).__name__}); waiting for it")

    async def _call_off_cancelled(self) -> None:
        """End the training of renewals that somebody cancelled while they were under way."""
        mine = [run for run in self._at if run not in self._called_off]
        if not mine:
            return
        cancelling = FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.CANCELLING]))
        runs = await self.client.read_flow_runs(
            flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=mine), state=cancelling)
        )
        for run in runs:
            self._called_off.add(run.id)
            order = await order_of(self.client, run)
            if order is not None:
                the_system().trainer.call_off(order, why=CANCELLED)
                self._logger.info("%s was cancelled", run.name)

    async def _settle(self, flow_run: FlowRun) -> None:
        """Bring a run to an end that ended here and, as Prefect sees it, did not.

        It was cancelled too late, or before it began, or Prefect was away when it began or ended.
        """
        run = await patiently(self.client.read_flow_run, flow_run.id)
        if run.state is None or run.state.type not in UNDER_WAY:
            return
        if not run.state.is_cancelling():
            await mark(self.client, run, "Prefect was away when it began or ended")
        elif run.start_time is None:
            await mark(self.client, run, CANCELLED)
        else:
            state: State[None] = Completed(
                name="Finished", message=f"the cancellation came too late: {run.name}"
            )
            await self.client.set_flow_run_state(run.id, state, force=True)

    async def _get_scheduled_flow_runs(self) -> list[WorkerFlowRunResponse]:
        due = await super()._get_scheduled_flow_runs()
        newest = [
            await self._newest(each) if self._is_late(each.flow_run) else each for each in due
        ]
        return [each for each in newest if each is not None]

    async def _submit_run(self, flow_run: FlowRun) -> None:
        try:
            await super()._submit_run(flow_run)
        except Exception:
            # One run that cannot be started must not take the worker down; the sweep clears it.
            self._logger.exception("run %s could not be started", flow_run.id)
            self._submitting_flow_run_ids.discard(flow_run.id)

    def _is_late(self, run: FlowRun) -> bool:
        cadence = self._cadences.get(run.deployment_id) if run.deployment_id else None
        due = run.next_scheduled_start_time
        return bool(run.auto_scheduled and cadence and due and datetime.now(UTC) - due > cadence)

    async def _newest(self, late: WorkerFlowRunResponse) -> WorkerFlowRunResponse | None:
        """Return the newest due run of the same schedule, the older ones to be marked as skipped.

        None while one that was found before is about to begin.
        """
        runs = await due_runs(self.client, late.flow_run.deployment_id)
        found = [run for run in runs if run.id not in self._to_skip]
        if not found or any(run.id in self._submitting_flow_run_ids for run in found):
            return None
        newest, *older = found
        self._skipped[newest.id] = len(older)
        self._logger.warning("%d late runs skipped for %s", len(older), newest.name)
        # A call each, and on a busy machine they may take a minute: renewals do not wait for it.
        idle = not self._to_skip
        self._to_skip |= {run.id: newest.name for run in older}
        if idle and older and self._runs_task_group is not None:
            self._runs_task_group.start_soon(self._skip)
        return late.model_copy(update={"flow_run": newest})

    async def _skip(self) -> None:
        """Mark what is to be skipped, one after the other; what could not be is found again."""
        while self._to_skip:
            run, newest = next(iter(self._to_skip.items()))
            try:
                await skip(self.client, run, newest)
            except Exception as error:  # noqa: BLE001 - whatever it is, it must not end the worker
                self._logger.info("run %s could not be marked as skipped: %s", run, error)
            finally:
                self._to_skip.pop(run, None)


async def due_runs(client: PrefectClient, deployment: UUID | None) -> list[FlowRun]:
    """Return the runs of a deployment's schedule that are due and not begun, the newest first."""
    runs = await client.read_flow_runs(
        flow_run_filter=FlowRunFilter(
            deployment_id=FlowRunFilterDeploymentId(any_=[deployment]),
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED])),
            next_scheduled_start_time=FlowRunFilterNextScheduledStartTime(
                before_=datetime.now(UTC)
            ),
        ),
        sort=FlowRunSort.EXPECTED_START_TIME_DESC,
    )
    return [run for run in runs if run.auto_scheduled]


async def skip(client: PrefectClient, run: UUID, newest: str) -> None:
    """Mark a late run as skipped in favour of the one that is called `newest`."""
    state: State[None] = Cancelled(name="Skipped", message=f"late; {newest} looks at newer data")
    await client.set_flow_run_state(run, state, force=True)


async def clear_abandoned(
    client: PrefectClient,
    *,
    at_it: Collection[UUID] = (),
    older_than: timedelta = timedelta(0),
    pool: str = deployments.POOL,
    queue: str | None = None,
) -> tuple[FlowRun, ...]:
    """Return the runs of a pool that were under way with nobody at them, now marked so.

    Their slots are free again, and a renewal among them is started once more, by itself: every
    step it had taken is safe to repeat.

    Args:
        client: of the API.
        at_it: runs that this process is at.
        older_than: leave alone those whose state is younger.
        pool: whose runs.
        queue: of these, those of one queue.
    """
    runs = await client.read_flow_runs(
        flow_run_filter=FlowRunFilter(
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(UNDER_WAY)))
        ),
        work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[pool])),
    )
    before = datetime.now(UTC) - older_than
    abandoned = tuple(
        run
        for run in runs
        if run.id not in at_it
        and run.state is not None
        and run.state.timestamp <= before
        and queue in (None, run.work_queue_name)
    )
    for run in abandoned:
        if run.start_time is not None and (order := await order_of(client, run)) is not None:
            await to_thread.run_sync(the_system().renewer.let_go, order)
        with suppress(ObjectNotFound):
            await mark(client, run, "the worker that ran it died")
    return abandoned


async def mark(client: PrefectClient, run: FlowRun, why: str) -> None:
    """Mark a run that nobody is at as crashed, or as cancelled if somebody wanted it to be.

    What is to become of a renewal is seen to first: whoever dies in between finds it again.
    """
    cancelling = run.state is not None and run.state.is_cancelling()
    order = await order_of(client, run)
    if order is not None and cancelling:
        await to_thread.run_sync(the_system().renewer.cancel, order, CANCELLED)
    elif order is not None:
        await start_again(order, run)
    state: State[None] = Cancelled(message=why) if cancelling else Crashed(message=why)
    await client.set_flow_run_state(run.id, state, force=True)


async def start_again(order: Order, run: FlowRun) -> None:
    """See to it that an order whose run crashed is carried out, or that its end is told."""
    if run.start_time is None:
        await run_of(order, key=f"{order.key}/after/{run.id}")
    else:
        await take_up(order, but=run.id)


async def take_up(order: Order, *, but: UUID | None = None) -> None:
    """See to it that an order that had begun is carried out, by a run other than `but`.

    After so many runs its end is told.
    """
    for number in range(1, AGAIN + 1):
        # A key that was used before gives the run that it started: this one, or one before it.
        again = await run_of(order, key=f"{order.key}/again/{number}", named="ordered again")
        if again.id != but and not (again.state is not None and again.state.is_final()):
            return
    await to_thread.run_sync(the_system().renewer.give_up, order, DIED)


async def order_of(client: PrefectClient, run: FlowRun) -> Order | None:
    """Return what a renewal is to carry out, None for a run of another flow."""
    if (await client.read_flow(run.flow_id)).name != renew.name:
        return None
    return TypeAdapter(Order).validate_python(run.parameters["order"])


async def work(settings: Settings, stop: threading.Event) -> None:
    """Warm up, apply the deployments, clear up after a predecessor, and work until `stop`.

    Raises:
        ServiceError: Prefect's API does not answer.
    """
    # Beyond that it is us who wait: a client that did would see late that Prefect is back.
    with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 2}):
        await _work(settings, stop)


async def _work(settings: Settings, stop: threading.Event) -> None:
    async with get_client() as client, anyio.create_task_group() as group:
        group.start_soon(to_thread.run_sync, _warm_up)
        await await_api(client, settings)
    async with get_client() as client:
        template = WarmWorker.get_default_base_job_template()
        cadences = await deployments.apply(
            client,
            settings,
            job_template=template,
            refresh_every=the_system().refresh_every,
        )
        for run in await clear_abandoned(client):
            say(f"{run.name} was left behind by a worker that died")
    worker = WarmWorker(name="warm", cadences=cadences, alive=lambda: beat(settings.home, "worker"))
    working = asyncio.create_task(worker.start(printer=say))
    while not (stop.is_set() or working.done()):  # noqa: ASYNC110 - it is set in another thread
        await asyncio.sleep(0.1)
    if working.done():
        working.result()
        raise ServiceError("the worker stopped by itself", hint="its log says why")
    await _wind_down(worker, working)


def main() -> None:
    """Run the worker until SIGTERM or SIGINT; `python -m flows`.

    Where the flows run in one of Prefect's own pools, run its keeper instead.

    The flows run in a thread, because Prefect takes the signals of a main thread that runs flows
    for itself: a SIGTERM would tear up whichever of them happens to be at work.
    """
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    settings = read_settings()
    run = work
    if settings.work_pool:
        from flows.keeper import keep as run
    configure("keeper" if settings.work_pool else "worker")
    working = threading.Thread(target=lambda: asyncio.run(run(settings, stop)), daemon=True)
    working.start()
    while working.is_alive() and not stop.is_set():
        working.join(0.2)
    # Whatever hangs, in a thread or at exit, this process is gone in time.
    working.join(STOP_WITHIN + 1.0)
    sys.stdout.flush()
    os._exit(0 if stop.is_set() else 1)


async def _wind_down(worker: WarmWorker, working: "asyncio.Task[None]") -> None:
    worker.draining = True
    until = time.monotonic() + STOP_WITHIN
    while worker.busy and time.monotonic() < until:  # noqa: ASYNC110 - Prefect sets no event
        await asyncio.sleep(0.05)
    if worker.busy:
        # Left as they are: the next start marks them as crashed and takes renewals up again.
        sys.stdout.flush()
        os._exit(0)
    working.cancel()
    await asyncio.wait((working,), timeout=1.0)


async def await_api(client: PrefectClient, settings: Settings) -> None:
    """Return once Prefect's API answers.

    Raises:
        ServiceError: it does not.
    """
    until = time.monotonic() + API_PATIENCE
    while (trouble := await client.api_healthcheck()) is not None:
        if time.monotonic() > until:
            raise ServiceError(
                f"Prefect's API does not answer: {trouble}",
                where=settings.prefect_api,
                hint="`driftloop up` starts it",
            )
        await asyncio.sleep(0.3)


def _warm_up() -> None:
    # These take seconds and nothing of the first runs: whoever needs one sooner waits for it.
    threading.Thread(target=_import_heavy, name="warm-up", daemon=True).start()
    system = the_system()
    if system.refresh_every is not None:
        threading.Thread(target=read_tables, args=[system], name="tables", daemon=True).start()
    for part in ("fleet", "ledger", "log", "measure", "registry", "pager"):
        getattr(system, part)
    system.trainer.warm_up()


def read_tables(system: System) -> None:
    """Read the tables that are due, as new ones are: requests wait for them, and Prefect starts.

    One that cannot be read is told here, and tried again by the flow.
    """
    try:
        for name in system.due_tables():
            try:
                say(f"{name}: {system.refresh(name):,} keys read")
            except DriftloopError as error:
                say(f"{name}: {error}")
    except DriftloopError as error:
        say(str(error))


def _import_heavy() -> None:
    for module in HEAVY:
        try:
            import_module(module)
        except ImportError:
            # Its own door says what is wrong, and where, when it is used.
            get_logger(__name__).exception("%s does not import", module)


def say(text: str) -> None:
    """Write a line to the service's log at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
