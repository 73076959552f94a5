"""The past gone through again from a real log: measured, trained and answered anew."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes.pager import FakePager
from fakes.world import FakeRegistry
from typer.testing import CliRunner

from driftloop.cli import app
from driftloop.errors import BadRequest
from driftloop.loop.tell import Teller
from driftloop.records import Decided, Label, ModelId, Moved, Prediction
from driftloop.serve.model import load_model
from driftloop.wiring import System

DE = ModelId("eta-de")
DAYS = 8


def answered(here: Any, day: int, *, slope: float) -> None:
    """Log a day's 60 rows, answered by who is champion in the ledger, and their labels."""
    system: System = here.system
    head = system.ledger.head(DE)
    assert head is not None
    start = system.clock.now() - timedelta(days=1)
    rng = np.random.default_rng(1000 + day)
    count = 60
    columns: dict[str, Sequence[Any]] = {
        "distance": rng.uniform(0, 1000, count).tolist(),
        "load": rng.uniform(0, 1, count).tolist(),
        "vehicle": rng.choice(["van", "truck", "bike"], count).tolist(),
    }
    usual = (
        10
        + np.array(columns["distance"]) / 20
        + 20 * np.array(columns["load"])
        + 8 * (np.array(columns["vehicle"]) == "bike")
    )
    label = usual * slope + rng.normal(0, 2, count)
    given = load_model(Path(head.artifact), head.digest).predict(columns)  # type: ignore[arg-type]
    at = [start + timedelta(minutes=20 * n) for n in range(count)]
    spool = system.spool("online")
    spool.predictions(
        "eta",
        [
            Prediction(
                id=f"{day}-{n}",
                model=DE,
                version=head.version,
                epoch=head.epoch,
                event_time=at[n],
                predicted_at=at[n],
                prediction=given[n],
                features={name: column[n] for name, column in columns.items()},
            )
            for n in range(count)
        ],
    )
    labels = [
        Label(id=f"{day}-{n}", model=DE, value=float(label[n]), observed_at=at[n])
        for n in range(count)
    ]
    spool.labels("eta", labels)
    spool.close()
    here.ingest()


@pytest.fixture
def lived(place: Callable[..., Any]) -> Any:
    """Twelve days of eta-de, looked at and renewed once a day; from the third on trips differ."""
    here = place()
    here.ingest()
    here.history(range(56, 0, -1))
    system = here.system
    teller = Teller(fleet=system.fleet, ledger=system.ledger, pager=FakePager(), clock=system.clock)
    renewer = replace(system.renewer, registry=FakeRegistry(), teller=teller)
    assert renewer.renew(here.order("first")).outcome == "promoted"
    start = system.clock.now()
    for day in range(1, DAYS + 1):
        here.stand_at(start + timedelta(days=day))
        answered(here, day, slope=1.0 if day < 3 else 1.5)
        system.log.close()
        del system.log, system.logs
        watcher = replace(system.watcher, fleet=system.fleet.only((DE,)), reports=None)
        for seen in watcher.watch():
            if seen.order is not None:
                replace(renewer, log=system.logs).renew(seen.order)
    return here


def test_the_same_policy_lives_the_same_days_again(lived: Any, tmp_path: Path) -> None:
    """Decisions, pages and retrainings are what they were, and the same to the byte once more.

    The installation's own ledger is left as it is; a folder that holds a replay is not mixed with
    another; and a time without a champion is no table of zeros.
    """
    system: System = lived.system
    facts = system.ledger.facts(Decided, model=DE)
    start, end = facts[0].at, facts[-1].at + timedelta(hours=1)
    before = system.ledger.count()
    ran = CliRunner().invoke(
        app,
        [
            *("--home", str(system.settings.home), "--monitors", str(system.settings.monitors)),
            *("--models", DE, "replay", "--rows", "--json", "--out", str(tmp_path / "out")),
            *("--from", start.isoformat(), "--to", end.isoformat()),
        ],
    )
    assert ran.exit_code == 0, ran.output
    found = json.loads(ran.stdout.splitlines()[-1])["as it is"]
    asked = [fact.decision for fact in facts if fact.decision.retrain]
    assert found["decisions"] == len(facts)
    assert [each["at"] for each in found["retrains"]] == [each.at.isoformat() for each in asked]
    assert asked
    pages = [fact.at.isoformat() for fact in facts if fact.decision.opens]
    assert [each["at"] for each in found["pages"]] == pages
    assert system.ledger.count() == before

    again = lived_again(system, start=start, end=end)
    assert again.digest == found["sha256"]
    with pytest.raises(BadRequest, match="holds a replay already"):
        lived_again(system, start=start, end=end, out=tmp_path / "out" / "as-it-is")
    first = system.ledger.facts(Moved, model=DE)[0].at
    with pytest.raises(BadRequest, match="no model had a champion"):
        lived_again(system, start=first - timedelta(days=3), end=first - timedelta(days=1))


def lived_again(system: System, *, start: Any, end: Any, out: Path | None = None) -> Any:
    settings = system.settings.model_copy(update={"models": DE})
    return System(settings).relive(None, start=start, end=end, out=out)
