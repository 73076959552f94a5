"""What a batch answered, given by id: the newest published answer, or why there is none."""

from collections.abc import Callable

from driftloop.errors import UnknownModel
from driftloop.records import ModelId
from driftloop.serve.answers import Answer
from driftloop.serve.exchange import Reply, told
from driftloop.serve.slot import Slot

Published = Callable[[ModelId, str], Answer | None]
"""Returns the newest published answer of a model to an id, if there is one."""


class NoAnswer(UnknownModel):
    """No batch has published an answer to the id, or it has expired."""


def nothing_published(_model: ModelId, _id: str) -> None:
    """Return None, as where no batch publishes."""


def retrieve(slot: Slot, published: Published, id_: str) -> Reply:
    """Return the newest published answer of the slot's model to `id_`, as a reply.

    Raises:
        NoAnswer: there is none.
        LogError: the answers cannot be read.
    """
    found = published(slot.model, id_)
    if found is None:
        raise NoAnswer(
            f"no batch has published an answer to {id_[:100]!r}, or it has expired",
            where=slot.model,
            hint="`driftloop predict-batch --publish` and [batch] publish = true do;"
            " what is answered over HTTP is in its own reply",
        )
    return told(
        200,
        {
            "model": slot.model,
            "id": id_,
            "prediction": slot.family.shown(found.prediction),
            "version": found.version,
            "epoch": found.epoch,
            "event_time": found.event_time,
            "predicted_at": found.predicted_at,
        },
    )
