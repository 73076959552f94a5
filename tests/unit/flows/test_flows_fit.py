"""The way of a fit to a Dask cluster, and what ends it, without a cluster."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from distributed.scheduler import KilledWorker

import flows.fit
from driftloop.errors import BadRequest, CalledOff, TrainingFailed
from driftloop.loop.watch import order
from driftloop.records import ModelId, Order, Ordered
from driftloop.settings import Settings
from driftloop.wiring import System
from flows.fit import DaskTrainer
from flows.system import the_system

MONITORS = Path(__file__).parents[2] / "monitors"
NOW = datetime(2026, 3, 1, tzinfo=UTC)
DE = ModelId("eta-de")
NOWHERE = "tcp://127.0.0.1:1"


@dataclass
class Worker:
    """A Dask worker that is at one task."""

    address: str = "tcp://10.0.0.7:4000"
    state: Any = field(default_factory=lambda: SimpleNamespace(tasks={}))

    def get_current_task(self) -> str:
        return "fit-1"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[System]:
    """An installation that a Dask worker's environment names as well."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("DRIFTLOOP_HOME", str(home))
    monkeypatch.setenv("DRIFTLOOP_MONITORS", str(MONITORS))
    the_system.cache_clear()
    yield System(Settings(home=home, monitors=MONITORS, dask=NOWHERE))
    the_system.cache_clear()


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Worker:
    """The Dask worker that this thread works for."""
    made = Worker()
    monkeypatch.setattr(flows.fit, "get_worker", lambda: made)
    return made


def ordered(system: System) -> Order:
    """Return an order for eta-de that the ledger knows to have begun."""
    made = order(system.fleet.family(DE), DE, key="eta-de/1", reason="by hand", now=NOW)
    system.ledger.append(Ordered(model=DE, at=NOW, order=made), key=made.key)
    return made


def test_a_scheduler_that_stays_away_fails_the_order_and_names_the_setting(
    here: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is waited for, and then the error says where it was looked for and what to do."""
    monkeypatch.setattr(flows.fit, "CONNECT", 0.2)
    monkeypatch.setattr(flows.fit, "PATIENCE", timedelta(seconds=0.1))
    with pytest.raises(TrainingFailed) as raised:
        DaskTrainer(here).train(ordered(here), None)
    assert f"dask = {NOWHERE}: " in str(raised.value)
    assert "dask scheduler" in raised.value.hint


def test_a_fit_called_off_while_it_waits_for_a_scheduler_ends(
    here: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its renewal is told who called it off; nothing is left that would end the next."""
    monkeypatch.setattr(flows.fit, "CONNECT", 0.2)
    trainer, made = DaskTrainer(here), ordered(here)
    threading.Timer(0.5, trainer.call_off, (made,), {"why": "cancelled in Prefect"}).start()
    with pytest.raises(CalledOff, match="cancelled in Prefect"):
        trainer.train(made, None)
    assert trainer._fits == {}


def test_one_called_off_before_it_begins_does_not_begin(here: System) -> None:
    """It is over before anything is connected to."""
    trainer, made = DaskTrainer(here), ordered(here)
    trainer.call_off(made, why="cancelled in Prefect")
    with pytest.raises(CalledOff):
        trainer.train(made, None)


def test_dead_dask_workers_are_told_in_words(here: System) -> None:
    """The owner reads how many died, and where the last one was."""
    error = KilledWorker("fit-1", Worker(), 3)  # type: ignore[arg-type]
    said = str(flows.fit._worded(error, ordered(here)))
    assert "fit eta-de: 4 Dask workers died one after the other" in said
    assert "tcp://10.0.0.7:4000" in said


def test_a_worker_that_may_start_no_process_says_how_to_start_it(
    here: System, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dask's own default forbids it; the error has the command that does not."""
    monkeypatch.setattr(flows.fit, "current_process", lambda: SimpleNamespace(daemon=True))
    with pytest.raises(TrainingFailed, match="DASK_DISTRIBUTED__WORKER__DAEMON=False dask worker"):
        flows.fit.fit.fn(here.fleet.family(DE), ordered(here), None)


def test_a_worker_of_another_installation_refuses(here: System, worker: Worker) -> None:
    """An order that its ledger does not know would be fitted on somebody else's rows."""
    made = replace(ordered(here), key="eta-de/unknown")
    with pytest.raises(TrainingFailed, match="another installation's") as raised:
        flows.fit.fit.fn(here.fleet.family(DE), made, None)
    assert worker.address in str(raised.value)


def test_a_worker_reads_monitor_files_again_that_changed(
    here: System, worker: Worker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What it had in hand is older than the loop's; where they still differ it refuses."""
    made = ordered(here)
    old = the_system()
    family = here.fleet.family(DE)
    assert flows.fit._installation(family, made) is old
    slower = family.model_copy(update={"time": "later"})
    with pytest.raises(TrainingFailed, match="other monitor files of eta"):
        flows.fit._installation(slower, made)
    copies = tmp_path / "monitors"
    copies.mkdir()
    for file in MONITORS.iterdir():
        text = file.read_text().replace('"asked_at"', '"later"')
        (copies / file.name).write_text(text)
    monkeypatch.setenv("DRIFTLOOP_MONITORS", str(copies))
    assert flows.fit._installation(slower, made).fleet.family(DE) == slower


@pytest.mark.parametrize(
    "tasks", [{}, {"fit-1": SimpleNamespace(state="cancelled")}], ids=["gone", "cancelled"]
)
def test_a_fit_that_the_scheduler_let_go_of_is_ended(tasks: dict[str, Any], worker: Worker) -> None:
    """Whoever waited for it cancelled it, or died."""
    worker.state.tasks = tasks
    ended = threading.Event()
    with flows.fit._unless_unwanted(ended.set):
        assert ended.wait(10)


def test_a_fit_that_is_waited_for_goes_on(worker: Worker) -> None:
    """It is looked after for as long as it lasts, and no longer."""
    looks = threading.Semaphore(0)

    class Tasks:
        def get(self, key: str) -> object:
            assert key == "fit-1"
            looks.release()
            return SimpleNamespace(state="executing")

    worker.state.tasks = Tasks()
    ended = threading.Event()
    with flows.fit._unless_unwanted(ended.set):
        for _ in range(3):
            assert looks.acquire(timeout=10)
    assert not ended.is_set()


def test_a_process_without_an_installation_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker of Prefect's or Dask's that was started without our settings makes up none."""
    monkeypatch.setenv("DRIFTLOOP_HOME", str(tmp_path / "nowhere"))
    the_system.cache_clear()
    with pytest.raises(BadRequest, match="DRIFTLOOP_CONFIG"):
        the_system()
    assert not (tmp_path / "nowhere").exists()


@pytest.fixture
def without_dask(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment without the extra."""
    monkeypatch.setattr("driftloop.settings.find_spec", lambda _: None)


@pytest.mark.usefixtures("without_dask")
def test_dask_without_its_extra_says_what_to_install(
    here: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In `driftloop up`, before anything starts, and wherever flows run."""
    from driftloop.up import services

    monkeypatch.setenv("DRIFTLOOP_DASK", NOWHERE)
    for ask in (the_system, lambda: services(here.settings)):
        with pytest.raises(BadRequest, match=r"driftloop\[dask\]"):
            ask()
