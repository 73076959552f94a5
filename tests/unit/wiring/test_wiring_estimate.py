"""An estimate as a pass takes it: of labels that come a day late, through spool and lake."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from driftloop.records import (
    Head,
    Kind,
    Label,
    Measured,
    ModelId,
    Prediction,
    Trained,
    version_key,
)
from driftloop.serve.model import load_model

NOW = datetime(2026, 3, 1, tzinfo=UTC)
DE = ModelId("eta-de")
DAY = timedelta(days=1)
COUNT = 140


def served(here: Any, head: Head, day: datetime) -> list[Label]:
    """Log the champion's answers over the day up to `day`, and return their labels."""
    rng = np.random.default_rng(int(day.timestamp()))
    columns: dict[str, list[Any]] = {
        "distance": rng.uniform(0, 1000, COUNT).tolist(),
        "load": rng.uniform(0, 1, COUNT).tolist(),
        "vehicle": rng.choice(["van", "truck", "bike"], COUNT).tolist(),
    }
    answers = load_model(Path(head.artifact), head.digest).predict(columns)
    at = [day - timedelta(minutes=10 * n + 1) for n in range(COUNT)]
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
        for n in range(COUNT)
    ]
    with here.system.spool("online") as spool:
        spool.predictions("eta", rows)
    return [
        Label(id=row.id, model=DE, value=row.prediction + rng.normal(0, 2), observed_at=day)
        for row in rows
    ]


def test_a_pass_tells_of_rows_whose_labels_come_tomorrow(place: Callable[..., Any]) -> None:
    """The last day has no label at all; what is told of it holds once they have come."""
    here = place()
    here.stand_at(NOW)
    here.history(range(50, 0, -1))
    candidate = here.candidate(here.order("first"))
    artifact = f"{candidate.folder}/model.onnx"
    head = Head(model=DE, epoch=1, version=1, digest=candidate.digest, artifact=artifact)
    trained = Trained(model=DE, at=NOW, version=1, candidate=candidate)
    here.system.ledger.append(trained, key=version_key(DE, 1))
    here.system.ledger.move(head, at=NOW, previous=None, reason="first")
    late: list[Label] = []
    for days in range(1, 9):
        here.stand_at(NOW + days * DAY)
        with here.system.spool("online") as spool:
            spool.labels("eta", late)
        late = served(here, head, NOW + days * DAY)
        here.ingest()
    here.system.watcher.watch()
    (fact,) = here.system.ledger.facts(Measured, model=DE, last=1)
    told = {r.segment: r for r in fact.readings if r.kind is Kind.ESTIMATE}
    assert told[None].n == 7 * COUNT
    assert told["age=day"].n == 0
    true = 2 * np.sqrt(2 / np.pi)
    for reading in told.values():
        assert reading.value is not None, reading.problem
        assert reading.low < true < reading.high
