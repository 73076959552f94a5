"""The demo from start to end, two models and a year in half a minute, as `make demo` runs it."""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from integration.house import free_ports, processes_of, yardstick

from driftloop.records import Compared, Gated, Measured, Moved
from driftloop.settings import Settings
from driftloop.vitals import CONSISTENT
from driftloop.wiring import System

MODELS = ("air-time-lga-dl", "late-arrival-jfk-dl")
pytestmark = pytest.mark.timeout(900)
CHECKOUT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Ran:
    """What the demo left behind."""

    code: int
    said: str
    settings: Settings

    @property
    def system(self) -> System:
        """The demo's own installation."""
        return System(self.settings)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """The demo, on ports and in a home of its own."""
    home = tmp_path_factory.mktemp("demo")
    names = ("online", "pages", "slack", "desk", "mlflow", "prefect")
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    given = {f"DRIFTLOOP_{name.upper()}_PORT": str(port) for name, port in ports.items()}
    # As long as it takes for a few passes to come about in it: 0.6 where nothing is slow or busy.
    minutes = min(3.0, max(0.6, 0.3 * yardstick()))
    words = ("--models", ",".join(MODELS), "--minutes", f"{minutes:.2f}", "--no-stay")
    done = subprocess.run(
        [sys.executable, "-m", "driftloop", "--home", str(home), "demo", *words],
        env={**os.environ, **given, "COLUMNS": "160"},
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    settings = Settings(home=home / "demo", monitors=CHECKOUT / "monitors", models=",".join(MODELS))
    return Ran(done.returncode, done.stdout + done.stderr, settings)


def test_it_ends_well_with_no_failed_request(ran: Ran) -> None:
    """Exit code 0, thousands of requests answered and not one failed."""
    assert ran.code == 0, ran.said
    counted = re.search(
        r"([\d,]+) requests, ([\d,]+) predictions, ([\d,]+) labels, (\d+) failed", ran.said
    )
    assert counted is not None, ran.said
    requests, rows, labels, failed = (int(one.replace(",", "")) for one in counted.groups())
    assert failed == 0
    assert requests > 100
    # Both markets have more than 20,000 departures from March on together; few are cancelled.
    assert rows > labels > 0.9 * rows > 10_000


def test_both_families_come_out_as_table_and_plots(ran: Ran) -> None:
    """Every model has its line, and every plot is there and not empty."""
    for model in MODELS:
        assert re.search(rf"{model} +[\d,]+ +[\d.]+ +[\d.]+", ran.said), ran.said
    for name in ("air-time.png", "air-time.html", "late-arrival.png", "late-arrival.html"):
        assert (ran.settings.home / "outcome" / name).stat().st_size > 20_000


def test_the_loop_ran_meanwhile(ran: Ran) -> None:
    """First versions passed their gate before the year began, and passes measured during it."""
    ledger = ran.system.ledger
    for model in MODELS:
        first = ledger.facts(Moved, model=model)[0]  # type: ignore[arg-type]
        assert (first.head.version, first.previous) == (1, None)
        assert ledger.facts(Gated, model=model)[0].result.passed  # type: ignore[arg-type]
        measured = ledger.facts(Measured, model=model)  # type: ignore[arg-type]
        assert measured, ran.said
        assert measured[-1].rows > 0


def test_features_of_events_are_what_the_log_says(ran: Ran) -> None:
    """Every departure was taken; what was served of them is what the log makes again."""
    said = re.search(r"late-arrival: ([\d,]+) events; features of ([\d,]+) served rows", ran.said)
    assert said is not None, ran.said
    events, rows = (int(one.replace(",", "")) for one in said.groups())
    # All that left New York from March on: 278,345.
    assert events > 270_000
    assert rows > 5_000
    (reading,) = ran.system.ledger.facts(Compared)[-1].readings
    assert reading.value is not None, ran.said
    assert reading.value <= CONSISTENT, ran.said


def test_nothing_keeps_running(ran: Ran) -> None:
    """With `--no-stay` every service is gone when the demo is."""
    assert processes_of(ran.settings) == []
