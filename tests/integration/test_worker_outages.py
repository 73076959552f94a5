"""Fits that are cancelled, workers and servers that are killed: real processes, real rows."""

import signal
import time
from collections.abc import Iterator
from datetime import timedelta

import pytest
from integration.house import eventually
from integration.worker_house import DE, Home, alive, home

from driftloop.records import Failed, Trained

pytestmark = pytest.mark.long
LEASE = timedelta(seconds=5)
PATIENCE = 120.0
"""Seconds for what is no promise about time: other tests may run beside these."""


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """Fifty days of rows; Slack, Prefect and the worker run, with a watch every three seconds."""
    with home(tmp_path_factory.mktemp("outages"), watch_every=3.0) as made:
        made.history(range(50, 0, -1))
        made.start("slack", "prefect", "worker")
        yield made


def test_cancel_ends_a_fit_within_ten_seconds(here: Home) -> None:
    """The fit's process is gone, the run is cancelled, ledger and thread say so; nothing is left.

    The slot and the model are free: the next order is carried out. This one is not tried again.
    """
    here.open_incident("eta-de/hung")
    here.hang(on=True)
    made = here.made("eta-de/hung", incident="eta-de/hung")
    run = here.order(made)
    eventually(here.fits, "the fit", within=PATIENCE)
    (fit,) = here.fits()
    began = time.monotonic()
    here.cancel(run)
    eventually(lambda: not alive(fit), "the end of the fit", within=12)
    gone = time.monotonic() - began
    eventually(lambda: here.run(run)["state_type"] == "CANCELLED", "the run's end", within=12)
    marked = time.monotonic() - began
    assert gone <= marked < 10.0
    ledger = here.system.ledger
    (failed,) = ledger.facts(Failed, model=DE)
    assert failed.order_key == "eta-de/hung"
    assert "cancelled in Prefect" in failed.error
    assert "cancelled in Prefect" in here.messages()
    assert ledger.head(DE) is None
    assert ledger.facts(Trained, model=DE) == ()
    assert ledger.claim("renew/eta-de/hung", lease=LEASE).outcome == "cancelled"
    assert not list(here.settings.artifacts.rglob("*"))
    here.hang(on=False)
    later = here.order(here.made("eta-de/later"))
    eventually(lambda: here.run(later)["state_name"] == "Promoted", "the next", within=PATIENCE)
    assert len(here.fits()) == 2


def test_a_cancellation_that_comes_too_late_says_so(here: Home) -> None:
    """What was past its fit is finished, and the run says what came of it."""
    seen = here.said("worker").count("was cancelled")
    here.hang(on=True)
    run = here.order(here.made("eta-de/late"))
    eventually(lambda: len(here.fits()) == 3, "the fit", within=PATIENCE)
    with here.mlflow_locked():
        here.hang(on=False)
        eventually(lambda: not alive(here.fits()[-1]), "the end of the fit", within=PATIENCE)
        here.cancel(run)
        eventually(lambda: here.said("worker").count("was cancelled") > seen, "it to be seen")
    eventually(lambda: here.run(run)["state_type"] == "COMPLETED", "the run's end", within=PATIENCE)
    said = here.run(run)["state"]["message"]
    assert said.startswith("the cancellation came too late: eta-de: "), said
    assert here.system.ledger.claim("renew/eta-de/late", lease=LEASE).outcome in said


def test_cancelled_while_its_worker_was_dead(here: Home) -> None:
    """A kill -9 ends the fit too; what was cancelled meanwhile is marked so and not taken up."""
    here.hang(on=True)
    run = here.order(here.made("eta-de/orphan"))
    eventually(lambda: len(here.fits()) == 4, "the fit", within=PATIENCE)
    here.signal("worker", signal.SIGKILL)
    eventually(lambda: not alive(here.fits()[-1]), "the end of the fit", within=5)
    here.cancel(run)
    assert here.run(run)["state_type"] == "CANCELLING"
    here.start("worker")
    eventually(lambda: here.run(run)["state_type"] == "CANCELLED", "the mark", within=PATIENCE)
    eventually(
        lambda: here.system.ledger.facts(Failed, model=DE)[-1].order_key == "eta-de/orphan",
        "the ledger's word",
        within=PATIENCE,
    )
    here.hang(on=False)
    after = here.order(here.made("eta-de/after"))
    eventually(lambda: here.run(after)["state_type"] == "COMPLETED", "the next", within=PATIENCE)
    assert len(here.fits()) == 5
    assert not list(here.temporary.glob("driftloop-*"))
    assert "fitting" in (here.settings.logs / "fits" / "eta-de.log").read_text()


def test_a_renewal_ends_while_prefect_is_dead(here: Home) -> None:
    """Kill -9 of the server: the worker stays, the fit goes on, its end is told once it is back.

    Passes resume by themselves, what was missed is skipped and counted.
    """
    worker = here.pid("worker")
    here.hang(on=True)
    run = here.order(here.made("eta-de/alone"))
    eventually(lambda: len(here.fits()) == 6, "the fit", within=PATIENCE)
    trained = len(here.system.ledger.facts(Trained, model=DE))

    before = here.passes()
    here.signal("prefect", signal.SIGKILL)
    here.hang(on=False)
    eventually(
        lambda: here.system.ledger.claim("renew/eta-de/alone", lease=LEASE).outcome,
        "the renewal, without Prefect",
        within=PATIENCE,
    )
    assert len(here.system.ledger.facts(Trained, model=DE)) >= trained
    # Worker and server part for longer than a restart takes.
    time.sleep(20.0)
    assert alive(worker)
    here.start("prefect")
    eventually(lambda: here.run(run)["state_type"] == "COMPLETED", "the run's end", within=PATIENCE)
    assert here.run(run)["state_name"] in {"Promoted", "Refused"}
    eventually(
        lambda: "Prefect is back" in here.said("worker"), "the worker to resume", within=PATIENCE
    )
    later = eventually(
        lambda: found if len(found := here.passes() - before) > 3 else None,
        "passes",
        within=PATIENCE,
    )
    assert any("skipped for this one" in said for _, said in later), later
    assert alive(worker)
    assert here.pid("worker") == worker


def test_what_slack_did_not_take_is_told_once_when_it_is_back(here: Home) -> None:
    """A renewal begins and ends, and passes go on, without it; then its thread has each once."""
    incident = "eta-de/unheard"
    here.open_incident(incident)
    assert here.thread(incident) == [incident]
    here.signal("slack", signal.SIGKILL)
    run = here.order(here.made(incident, incident=incident))
    eventually(lambda: here.run(run)["state_type"] == "COMPLETED", "the run's end", within=PATIENCE)
    before = here.passes()
    eventually(lambda: len(here.passes() - before) > 3, "passes without Slack", within=PATIENCE)
    assert here.system.teller.waiting() == 2
    here.start("slack")
    eventually(lambda: not here.system.teller.waiting(), "all to be told", within=PATIENCE)
    told = here.passes()
    eventually(lambda: len(here.passes() - told) > 2, "passes after it", within=PATIENCE)
    thread = here.thread(incident)
    assert len(thread) == len(set(thread)) == 3


def test_a_registry_that_is_away_fails_a_renewal_and_nothing_else(here: Home) -> None:
    """The champion stays, the ledger says why, passes go on; the next order is carried out."""
    ledger = here.system.ledger
    head, before = ledger.head(DE), here.passes()
    with here.mlflow_locked():
        run = here.order(here.made("eta-de/unregistered"))
        eventually(lambda: here.run(run)["state_type"] == "FAILED", "the end", within=PATIENCE)
        eventually(lambda: len(here.passes() - before) > 3, "passes without it", within=PATIENCE)
    failed = ledger.facts(Failed, model=DE)[-1]
    assert failed.order_key == "eta-de/unregistered"
    assert "could not register" in failed.error
    assert ledger.head(DE) == head
    assert not list(here.temporary.glob("driftloop-*"))
    later = here.order(here.made("eta-de/registered"))
    eventually(lambda: here.run(later)["state_type"] == "COMPLETED", "the next", within=PATIENCE)
    assert here.run(later)["state_name"] in {"Promoted", "Refused"}
