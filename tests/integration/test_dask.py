"""Fits on a real Dask cluster of two worker processes, ordered through the real flows."""

import os
import signal
from collections.abc import Iterator

import psutil
import pytest
from integration.house import eventually, free_ports
from integration.worker_house import DE, Home, alive, home

from driftloop.records import Failed, ModelId, Trained

MODELS = (DE, ModelId("eta-fr"))
WORKERS = ("dask-1", "dask-2")


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """Fifty days of rows of two models; a Dask scheduler with two workers, of one thread each."""
    (port,) = free_ports(1)
    address = f"tcp://127.0.0.1:{port}"
    with home(tmp_path_factory.mktemp("dask"), watch_every=3600.0, dask=address) as made:
        for model in MODELS:
            made.history(range(50, 0, -1), model=model)
        start_scheduler(made)
        for name in WORKERS:
            start_worker(made, name)
        made.start("slack", "prefect", "worker")
        yield made


def test_renewals_side_by_side_are_fitted_on_the_cluster(here: Home) -> None:
    """One on each Dask worker, in a process of its own there; promoted as they would be here."""
    here.hang(on=True)
    runs = [here.order(here.made(f"{model}/first", model=model)) for model in MODELS]
    fits = eventually(lambda: len(here.fits()) == 2 and here.fits(), "both fits")
    at_it = [dask_worker_of(here, fit) for fit in fits]
    assert {name for name, _ in at_it} == set(WORKERS)
    here.hang(on=False)
    for run in runs:
        eventually(lambda id_=run: here.run(id_)["state_name"] == "Promoted", "the run's end")  # type: ignore[misc]
    for model in MODELS:
        head = here.system.ledger.head(model)
        assert head is not None
        assert (head.version, head.epoch) == (1, 1)
        assert "fitting" in (here.settings.logs / "fits" / f"{model}.log").read_text()
    tasks = here.call("task_runs/filter", flow_runs={"id": {"any_": runs}})
    assert sorted(each["name"] for each in tasks) == ["fit eta-de", "fit eta-fr"]


def test_a_fit_whose_dask_worker_is_killed_is_begun_anew_on_another(here: Home) -> None:
    """SIGKILL of a Dask worker ends its fit with it; Dask repeats it; the gate judges as usual."""
    seen = len(here.fits())
    here.hang(on=True)
    run = here.order(here.made("eta-de/killed"))
    (fit,) = eventually(lambda: here.fits()[seen:], "the fit")
    _, worker = dask_worker_of(here, fit)
    os.kill(worker, signal.SIGKILL)
    eventually(lambda: not alive(fit), "the end of the fit", within=20)
    again = eventually(lambda: here.fits()[seen + 1 :], "the second fit")
    assert dask_worker_of(here, again[0])[1] != worker
    here.hang(on=False)
    eventually(lambda: here.run(run)["state_type"] == "COMPLETED", "the run's end")
    assert here.system.ledger.facts(Trained, model=DE)[-1].candidate.order.key == "eta-de/killed"
    assert len(here.fits()) == seen + 2


def test_cancel_ends_a_fit_on_the_cluster(here: Home) -> None:
    """Cancelled as in the UI: its process is gone within ten seconds, the champion stays."""
    seen, champion = len(here.fits()), here.system.ledger.head(DE)
    here.hang(on=True)
    run = here.order(here.made("eta-de/cancelled"))
    (fit,) = eventually(lambda: here.fits()[seen:], "the fit")
    here.cancel(run)
    eventually(lambda: not alive(fit), "the end of the fit", within=10)
    eventually(lambda: here.run(run)["state_type"] == "CANCELLED", "the run's end", within=10)
    failed = here.system.ledger.facts(Failed, model=DE)[-1]
    assert failed.order_key == "eta-de/cancelled"
    assert "cancelled in Prefect" in failed.error
    assert here.system.ledger.head(DE) == champion
    here.hang(on=False)
    later = here.order(here.made("eta-de/after"))
    eventually(lambda: here.run(later)["state_type"] == "COMPLETED", "the next")


@pytest.mark.long
def test_a_worker_that_is_killed_takes_its_fit_on_the_cluster_with_it(here: Home) -> None:
    """Nobody waits for it any more, so it ends; the renewal is taken up again, and fits anew."""
    seen = len(here.fits())
    here.hang(on=True)
    here.order(here.made("eta-de/orphan"))
    (fit,) = eventually(lambda: here.fits()[seen:], "the fit")
    here.signal("worker", signal.SIGKILL)
    eventually(lambda: not alive(fit), "the end of the fit", within=20)
    here.hang(on=False)
    here.start("worker")
    eventually(
        lambda: (
            here.system.ledger.facts(Trained, model=DE)[-1].candidate.order.key == "eta-de/orphan"
        ),
        "the renewal",
    )
    assert len(here.fits()) == seen + 2


@pytest.mark.long
def test_a_scheduler_that_dies_is_waited_for(here: Home) -> None:
    """Passes go on without it; what was under way is fitted once it is back."""
    seen = len(here.fits())
    here.hang(on=True)
    run = here.order(here.made("eta-de/outage"))
    (fit,) = eventually(lambda: here.fits()[seen:], "the fit")
    for name in ("scheduler", *WORKERS):
        here.signal(name, signal.SIGKILL)
    eventually(lambda: not alive(fit), "the end of the fit", within=20)
    url = f"{here.settings.prefect_api}/deployments"
    watch = here.call(f"{url.rpartition('/')[2]}/filter", flows={"name": {"any_": ["watch"]}})
    here.call(f"deployments/{watch[0]['id']}/create_flow_run")
    eventually(here.passes, "a pass")
    assert here.run(run)["state_type"] == "RUNNING"
    here.hang(on=False)
    start_scheduler(here)
    start_worker(here, WORKERS[0])
    eventually(lambda: here.run(run)["state_type"] == "COMPLETED", "the run's end")


def start_scheduler(here: Home) -> None:
    """Start it where the settings say that it is."""
    host, _, port = here.settings.dask.removeprefix("tcp://").partition(":")
    here.start_beside(
        "scheduler", "-m", "dask", "scheduler", "--host", host, "--port", port, "--no-dashboard"
    )


def start_worker(here: Home, name: str) -> None:
    """Start a Dask worker of one thread, as the README says."""
    here.start_beside(
        name,
        *("-m", "dask", "worker", here.settings.dask, "--nthreads", "1", "--preload", "flows.fit"),
        *("--name", name, "--no-dashboard", "--local-directory", str(here.temporary)),
        DASK_DISTRIBUTED__WORKER__DAEMON="False",
    )


def dask_worker_of(here: Home, fit: int) -> tuple[str, int]:
    """Return the Dask worker that a fit runs on, by name, and the pid of its working process."""
    parents = [each.pid for each in psutil.Process(fit).parents()]
    for name in WORKERS:
        nanny = here.pid(name)
        if nanny in parents:
            return name, parents[parents.index(nanny) - 1]
    raise AssertionError(parents)
