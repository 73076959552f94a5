"""Rows to predictions: the one way that online and batch both take."""

from collections.abc import Sequence
from datetime import datetime

from driftloop.records import Prediction
from driftloop.serve.model import check_classes
from driftloop.serve.request import Row
from driftloop.serve.slot import Held
from driftloop.spec import Family


def answer(held: Held, family: Family, rows: Sequence[Row], *, now: datetime) -> list[Prediction]:
    """Return the predictions of `held` for `rows`, in their order.

    Raises:
        ArtifactError: the model failed, or answered no finite number, or a class that is none of
            the family's.
    """
    # The features of a row stand in the family's order.
    values = zip(*(row.features.values() for row in rows), strict=True)
    columns = {name: list(column) for name, column in zip(family.features, values, strict=True)}
    head = held.head
    answers = held.model.predict(columns)
    check_classes(answers, family, where=head.model)
    return [
        Prediction(
            id=row.id,
            model=head.model,
            version=head.version,
            epoch=head.epoch,
            event_time=row.event_time,
            predicted_at=now,
            prediction=value,
            features=row.features,
            fallbacks=row.fallbacks,
            position=row.position,
        )
        for row, value in zip(rows, answers, strict=True)
    ]
