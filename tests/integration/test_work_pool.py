"""The flows in a work pool of Prefect's own: real server, real process worker of Prefect's."""

from collections.abc import Iterator
from contextlib import suppress

import psutil
import pytest
from integration.house import eventually
from integration.worker_house import DE, Home, alive, home

from driftloop.records import Failed, ModelId

POOL = "anywhere"
MODELS = (DE, ModelId("eta-fr"))


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """Fifty days of rows; the keeper runs, and a worker of Prefect's that serves the pool."""
    with home(
        tmp_path_factory.mktemp("pool"), watch_every=15.0, work_pool=POOL, renew_slots=1
    ) as made:
        for model in MODELS:
            made.history(range(50, 0, -1), model=model)
        made.start("slack", "prefect", "keeper")
        file = made.code / "driftloop.toml"
        said = {
            name.removeprefix("DRIFTLOOP_").lower(): value
            for name, value in made.settings.environment().items()
        }
        file.write_text(
            f'home = "{said["home"]}"\nmonitors = "{said["monitors"]}"\nwork_pool = "{POOL}"\n'
            f"prefect_port = {said['prefect_port']}\nslack_port = {said['slack_port']}\n"
        )
        made.start_apart(
            "pool-worker",
            *("-m", "prefect", "worker", "start", "--pool", POOL, "--name", "one"),
            DRIFTLOOP_CONFIG=str(file),
            PREFECT_API_URL=made.settings.prefect_api,
            PREFECT_HOME=str(made.temporary / "prefect"),
            PREFECT_WORKER_QUERY_SECONDS="1",
        )
        yield made
        made.stop()
        # A run of Prefect's worker is a session of its own, and outlives it.
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get("DRIFTLOOP_CONFIG") == str(file):
                    process.kill()


@pytest.mark.long
def test_a_pass_runs_in_a_process_of_prefects_worker(here: Home) -> None:
    """The worker finds the installation by the file that its environment names, and looks at it."""
    (watch,) = here.call("deployments/filter", flows={"name": {"any_": ["watch"]}})
    assert watch["work_pool_name"] == POOL
    ((_, said), *_) = eventually(here.passes, "a pass")
    assert said.startswith("3 models looked at")


@pytest.mark.long
def test_renewals_keep_to_their_slots_in_the_pool(here: Home) -> None:
    """One slot: the second waits until the first is promoted, as with our own worker."""
    here.hang(on=True)
    first, second = (here.order(here.made(f"{m}/first", model=m)) for m in MODELS)
    eventually(here.fits, "the fit")
    waits = eventually(
        lambda: [run for run in (first, second) if here.run(run)["state_name"] == "Late"],
        "the other to be late",
    )
    assert len(waits) == 1
    assert len(here.fits()) == 1
    here.hang(on=False)
    for run in (first, second):
        eventually(lambda id_=run: here.run(id_)["state_name"] == "Promoted", "the run's end")  # type: ignore[misc]
    assert {head.model for head in here.system.ledger.heads()} == set(MODELS)


@pytest.mark.long
def test_cancel_ends_a_fit_in_the_pool(here: Home) -> None:
    """The fit is gone, and the ledger says that it was cancelled: it is not tried again."""
    seen = len(here.fits())
    here.hang(on=True)
    run = here.order(here.made("eta-de/cancelled"))
    (fit,) = eventually(lambda: here.fits()[seen:], "the fit")
    here.cancel(run)
    eventually(lambda: not alive(fit), "the end of the fit")
    eventually(lambda: here.run(run)["state_type"] == "CANCELLED", "the run's end")
    eventually(
        lambda: (
            here.system.ledger.facts(Failed)[-1:]
            and here.system.ledger.facts(Failed)[-1].order_key == "eta-de/cancelled"
        ),
        "the ledger's word",
    )
    here.hang(on=False)
