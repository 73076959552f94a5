"""Fresh readings as a pass takes them: through spool, lake, looks and measure."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from driftloop.records import (
    PROFILE_FILE,
    Head,
    Kind,
    Label,
    Measured,
    ModelId,
    Prediction,
    Reading,
    Trained,
    version_key,
)
from driftloop.serve.model import load_model

NOW = datetime(2026, 3, 1, tzinfo=UTC)
DE = ModelId("eta-de")
DAY = timedelta(days=1)


def served(here: Any, head: Head, day: datetime, *, farther: float = 0.0) -> None:
    """Log a hundred answers of the champion over the day up to `day`, labelled at once."""
    rng = np.random.default_rng(int(day.timestamp()))
    count = 100
    at = [day - timedelta(minutes=14 * n + 1) for n in range(count)]
    columns: dict[str, list[Any]] = {
        "distance": (rng.uniform(0, 1000, count) + farther).tolist(),
        "load": rng.uniform(0, 1, count).tolist(),
        "vehicle": rng.choice(["van", "truck", "bike"], count).tolist(),
    }
    answers = load_model(Path(head.artifact), head.digest).predict(columns)
    rows = [
        Prediction(
            id=f"{day:%m%d}-{n}",
            model=DE,
            version=1,
            epoch=1,
            event_time=at[n],
            predicted_at=at[n],
            prediction=float(answers[n]),
            features={name: values[n] for name, values in columns.items()},
        )
        for n in range(count)
    ]
    labels = [
        Label(id=row.id, model=DE, value=row.prediction + rng.normal(0, 2), observed_at=day)
        for row in rows
    ]
    with here.system.spool("online") as spool:
        spool.predictions("eta", rows)
        spool.labels("eta", labels)
    here.ingest()


def fresh(here: Any) -> dict[tuple[str, str | None], Reading]:
    """Take a pass, and return what it kept as fresh of eta-de."""
    here.system.watcher.watch()
    (fact,) = here.system.ledger.facts(Measured, model=DE, last=1)
    assert fact.at == here.system.clock.now()
    return {(r.metric, r.column): r for r in fact.readings if r.kind is Kind.FRESH}


def test_a_pass_reads_what_came_since_the_one_before(place: Callable[..., Any]) -> None:
    """The first has nothing to go on; then each row counts once, and a shift shows at once."""
    here = place()
    here.stand_at(NOW)
    here.history(range(50, 0, -1))
    candidate = here.candidate(here.order("first"))
    folder = Path(candidate.folder)
    assert (folder / PROFILE_FILE).is_file()
    head = Head(
        model=DE, epoch=1, version=1, digest=candidate.digest, artifact=f"{folder}/model.onnx"
    )
    ledger = here.system.ledger
    ledger.append(Trained(model=DE, at=NOW, version=1, candidate=candidate), key=version_key(DE, 1))
    ledger.move(head, at=NOW, previous=None, reason="first")

    here.stand_at(NOW + DAY)
    served(here, head, NOW + DAY)
    assert fresh(here) == {}
    here.stand_at(NOW + 2 * DAY)
    served(here, head, NOW + 2 * DAY)
    quiet = fresh(here)
    assert {reading.n for reading in quiet.values()} == {100}
    assert ("loss", None) in quiet
    here.stand_at(NOW + 3 * DAY)
    served(here, head, NOW + 3 * DAY, farther=400.0)
    moved = fresh(here)
    assert {reading.n for reading in moved.values()} == {100}
    assert (quiet["shift", "distance"].low or 0.0) < 0.3 < (moved["shift", "distance"].low or 0.0)
    assert (moved["shift", "load"].low or 0.0) < 0.3
    here.stand_at(NOW + 4 * DAY)
    assert fresh(here) == {}


def test_a_champion_from_before_profiles_gets_one(place: Callable[..., Any]) -> None:
    """It is learnt of the reference's rows, and kept beside it."""
    here = place()
    here.stand_at(NOW)
    here.history(range(50, 0, -1))
    candidate = here.candidate(here.order("first"))
    folder = Path(candidate.folder)
    (folder / PROFILE_FILE).unlink()
    head = Head(
        model=DE, epoch=1, version=1, digest=candidate.digest, artifact=f"{folder}/model.onnx"
    )
    trained = Trained(model=DE, at=NOW, version=1, candidate=candidate)
    here.system.ledger.append(trained, key=version_key(DE, 1))
    here.system.ledger.move(head, at=NOW, previous=None, reason="first")
    for days in (1, 2):
        here.stand_at(NOW + days * DAY)
        served(here, head, NOW + days * DAY)
        found = fresh(here)
    assert found["loss", None].value is not None
    assert (folder / PROFILE_FILE).is_file()
