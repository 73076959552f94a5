"""What the demo says a year came to, checked by hand on a small real lake and ledger."""

import hashlib
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from driftloop.clock import Clock
from driftloop.demo.outcome import FamilyOutcome, draw, outcome
from driftloop.optimize import lower
from driftloop.prediction_log import Ingester, Lake
from driftloop.records import (
    Gated,
    GateResult,
    Head,
    Label,
    Measured,
    ModelId,
    Notice,
    Order,
    Ordered,
    Paged,
    Prediction,
    Receipt,
    Stage,
    Window,
)
from driftloop.retrain import fit
from driftloop.settings import Settings
from driftloop.wiring import System

MONITORS = Path(__file__).parents[2] / "monitors"
DE = ModelId("eta-de")
START = datetime(2026, 3, 2, tzinfo=UTC)
END = START + timedelta(days=28)
DAY = timedelta(days=1)
SWAP = START + 14 * DAY
GATED = GateResult(
    passed=True,
    reason="better",
    loss="mae",
    n=100,
    champion_loss=10.0,
    candidate_loss=1.0,
    gain=0.9,
    low=0.8,
    high=0.95,
    confidence=0.9,
)


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> tuple[Head, Head]:
    """A first version that always answers 10, and a second that always answers 20."""
    eta = System(Settings(monitors=MONITORS)).fleet.family_named("eta")
    made = []
    for version, answer in enumerate((10.0, 20.0), start=1):
        graph = lower(fit(eta, constant(answer), seed=1).pipeline, eta)
        file = tmp_path_factory.mktemp(f"v{version}") / "model.onnx"
        file.write_bytes(graph)
        made.append(
            Head(
                model=DE,
                epoch=version,
                version=version,
                digest=hashlib.sha256(graph).hexdigest(),
                artifact=str(file),
            )
        )
    return made[0], made[1]


@pytest.fixture
def system(tmp_path: Path, heads: tuple[Head, Head]) -> Iterator[System]:
    """Four weeks of eta-de: outcomes of 12, then of 20; version 2 from the third week on."""
    made = System(Settings(home=tmp_path, monitors=MONITORS))
    Clock(origin=END, started=datetime(9999, 1, 1, tzinfo=UTC), speed=1.0).write(
        made.settings.clock
    )
    times = [START + timedelta(hours=12 * n) for n in range(56)]
    spool = made.spool("test")
    spool.predictions("eta", [answered(n, at) for n, at in enumerate(times)])
    spool.labels("eta", [labelled(n, at) for n, at in enumerate(times) if n % 10])
    spool.close()
    ingest(made)
    ledger = made.ledger
    first, second = heads
    ledger.move(first, at=START - DAY, previous=None, reason="first")
    ledger.append(gated(passed=False, version=3), key="refused")
    ledger.append(ordered("first/eta-de", START - DAY), key="first/eta-de")
    ledger.append(ordered("eta-de/1", SWAP), key="eta-de/1")
    ledger.append(paged(Stage.OPENED, SWAP), key="opened")
    ledger.append(paged(Stage.RECOVERED, SWAP + DAY), key="recovered")
    ledger.move(second, at=SWAP, previous=first, reason="better")
    for n in range(29):
        # Nobody looked from the 5th to the 15th day; a pause of three days is no such thing.
        if not 5 < n < 15 and n not in {20, 21}:
            ledger.append(measured(START + n * DAY), key=f"measured/{n}")
    yield made
    made.log.close()


@pytest.fixture
def found(system: System) -> FamilyOutcome:
    """The outcome of those weeks."""
    eta = system.fleet.family_named("eta")
    came_to = outcome(system, eta, start=START, end=END, cadence=DAY)
    assert came_to is not None
    return came_to


def test_kept_and_never_are_the_error_of_the_same_rows(found: FamilyOutcome) -> None:
    """By the week: 2, 2, 0, 0 as it was answered; 2, 2, 10, 10 had version 1 answered all."""
    assert found.loss == "mean absolute error"
    assert found.weeks == tuple(START + timedelta(days=7 * n) for n in range(4))
    assert found.kept == pytest.approx([2, 2, 0, 0], abs=1e-4)
    assert found.never == pytest.approx([2, 2, 10, 10], abs=1e-4)


def test_rows_without_label_or_answer_do_not_count(found: FamilyOutcome) -> None:
    """Of 56 rows 6 never got a label: 25 with an error of 2, 25 of 0 (or 10)."""
    (model,) = found.models
    assert (model.model, model.rows) == (DE, 50)
    assert (model.kept, model.never) == pytest.approx((1.0, 6.0), abs=1e-4)
    assert (found.overall_kept, found.overall_never) == (model.kept, model.never)


def test_what_was_done_is_counted_once(found: FamilyOutcome) -> None:
    """One page, one retraining, one swap, one refusal: first versions are none of these."""
    (model,) = found.models
    counted = (model.pages, model.retrains, model.swaps, model.refused)
    assert counted == (1, 1, 1, 1)
    assert dict(found.marks) == {"pages": (SWAP,), "retrains": (SWAP,), "swaps": (SWAP,)}
    assert found.retrains_a_model == 1.0


def test_long_pauses_are_told_as_unwatched(found: FamilyOutcome) -> None:
    """The ten days without a pass, and nothing else."""
    assert found.unwatched == ((START + 5 * DAY, START + 15 * DAY),)


def test_a_family_that_answered_nothing_has_no_outcome(system: System) -> None:
    """None, rather than a figure of no rows."""
    churn = system.fleet.family_named("churn")
    assert outcome(system, churn, start=START, end=END, cadence=DAY) is None


def test_a_binary_family_is_scored_by_log_loss(system: System, tmp_path: Path) -> None:
    """An answer of 0.8 to a 1 costs -ln 0.8, to a 0 -ln 0.2; never answered means 0.5."""
    churn = system.fleet.family_named("churn")
    at = [START + timedelta(hours=n) for n in range(10)]
    spool = system.spool("churn")
    uk = ModelId("churn-uk")
    spool.predictions(
        "churn",
        [
            replace(
                answered(n, when),
                model=uk,
                prediction=0.8,
                features={"tenure": 1.0, "spend": 1.0, "plan": "a"},
            )
            for n, when in enumerate(at)
        ],
    )
    spool.labels(
        "churn",
        [replace(labelled(n, when), model=uk, value=float(n < 5)) for n, when in enumerate(at)],
    )
    spool.close()
    ingest(system)
    graph = lower(fit(churn, coin(), seed=1).pipeline, churn)
    (tmp_path / "model.onnx").write_bytes(graph)
    head = Head(
        model=uk,
        epoch=1,
        version=1,
        digest=hashlib.sha256(graph).hexdigest(),
        artifact=str(tmp_path / "model.onnx"),
    )
    system.ledger.move(head, at=START, previous=None, reason="first")
    found = outcome(system, churn, start=START, end=END, cadence=DAY)
    assert found is not None
    assert found.loss == "log loss"
    assert found.overall_kept == pytest.approx(-(math.log(0.8) + math.log(0.2)) / 2)
    assert found.overall_never == pytest.approx(math.log(2), abs=0.02)


def test_plots_are_whole_files_that_need_no_network(found: FamilyOutcome, tmp_path: Path) -> None:
    """A PNG of some size, and an HTML that fetches nothing and has both lines and all marks."""
    png, html = draw(found, tmp_path / "outcome")
    assert (png.name, html.name) == ("eta.png", "eta.html")
    assert png.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert png.stat().st_size > 20_000
    text = html.read_text()
    assert not re.findall(r"<(?:script|link|img|iframe)\b[^>]*(?:src|href)\s*=", text)
    for name in ("never retrained", "kept by driftloop", "1 pages", "1 retrains", "1 swaps"):
        assert name in text
    assert "1 min kept by driftloop, 6 min never retrained" in text


def test_plots_bear_a_single_week_without_any_mark(found: FamilyOutcome, tmp_path: Path) -> None:
    """Little to show is shown all the same."""
    little = replace(
        found,
        weeks=found.weeks[:1],
        kept=(2.0,),
        never=(2.0,),
        marks=dict.fromkeys(found.marks, ()),
        unwatched=(),
    )
    png, html = draw(little, tmp_path)
    assert png.stat().st_size > 10_000
    assert "0 swaps" in html.read_text()


# -- what the lake and the ledger hold --------------------------------------------------------


def answered(number: int, at: datetime) -> Prediction:
    """Return the answer that the champion of the time gave."""
    second = at >= SWAP
    return Prediction(
        id=f"r{number}",
        model=DE,
        version=2 if second else 1,
        epoch=2 if second else 1,
        event_time=at,
        predicted_at=at,
        prediction=20.0 if second else 10.0,
        features={"distance": 3.0, "load": 0.5, "vehicle": "van"},
    )


def labelled(number: int, at: datetime) -> Label:
    """Return what it took in truth."""
    value = 20.0 if at >= SWAP else 12.0
    return Label(id=f"r{number}", model=DE, value=value, observed_at=at)


def constant(answer: float) -> pa.Table:
    """Return training rows of eta whose label is always `answer`."""
    rng = np.random.default_rng(1)
    return pa.table(
        {
            "distance": rng.uniform(0, 1000, 200),
            "load": rng.uniform(0, 1, 200),
            "vehicle": rng.choice(["van", "bike"], 200),
            "label": np.full(200, answer),
        }
    )


def coin() -> pa.Table:
    """Return training rows of churn whose label is as often 0 as 1, whatever the features."""
    return pa.table(
        {
            "tenure": np.ones(200),
            "spend": np.ones(200),
            "plan": ["a"] * 200,
            "label": np.arange(200) % 2.0,
        }
    )


def ingest(system: System) -> None:
    """Take up what was spooled, in this process."""
    with (
        Lake(system.settings.lake, system.fleet, read_only=False) as lake,
        Ingester(system.settings.spool, lake, system.clock) as ingester,
    ):
        assert ingester.ingest().bad == 0


def ordered(key: str, at: datetime) -> Ordered:
    """Return an order."""
    window = Window(model=DE, start=at - 9 * DAY, end=at, known_at=at)
    order = Order(
        key=key, model=DE, at=at, reason="decay", window=window, holdout_from=at - DAY, seed=1
    )
    return Ordered(model=DE, at=at, order=order)


def paged(stage: Stage, at: datetime) -> Paged:
    """Return a notice that was told."""
    notice = Notice(
        key=f"eta-de/1/{stage}",
        incident="eta-de/1",
        model=DE,
        stage=stage,
        at=at,
        since=at,
        channel="#ml-logistics",
        mention="",
        headline="worse",
        doing="retraining",
    )
    return Paged(model=DE, at=at, notice=notice, receipt=Receipt(channel="C1", ts="1.1"))


def gated(*, passed: bool, version: int) -> Gated:
    """Return what the gate said."""
    result = replace(GATED, passed=passed)
    return Gated(model=DE, at=SWAP, order_key=f"eta-de/{version}", version=version, result=result)


def measured(at: datetime) -> Measured:
    """Return that a pass looked."""
    window = Window(model=DE, start=at - 9 * DAY, end=at, known_at=at)
    return Measured(model=DE, at=at, window=window, rows=100, labels=100, readings=())
