"""Who answers next: pure moves of the head of a model."""

from collections.abc import Sequence

from driftloop.errors import BadRequest
from driftloop.records import Candidate, Head, ModelId, Moved


def promoted(candidate: Candidate, version: int, *, champion: Head | None) -> Head:
    """Return the head that makes `candidate`, registered as `version`, champion."""
    return Head(
        model=candidate.order.model,
        epoch=1 if champion is None else champion.epoch + 1,
        version=version,
        digest=candidate.digest,
        artifact=candidate.artifact,
    )


def rolled_back(
    model: ModelId, moves: Sequence[Moved], *, to: int | None = None, epoch: int | None = None
) -> Head:
    """Return the head that makes an earlier champion answer again.

    Args:
        model: whose champion.
        moves: its history, oldest first.
        to: the version wanted; None for the newest of those older than the present one.
        epoch: the one now; None for that of the last move.

    Raises:
        BadRequest: there is no such earlier champion.
    """
    if not moves:
        raise BadRequest("has never had a champion", where=model)
    now = moves[-1].head
    served = [move.head for move in moves if move.head.version != now.version]
    older = [head for head in served if head.version < now.version]
    wanted = older if to is None else [head for head in served if head.version == to]
    if not wanted:
        known = ", ".join(str(v) for v in sorted({head.version for head in served})) or "none"
        asked = "an older champion" if to is None else f"a version {to} among earlier champions"
        raise BadRequest(
            f"there was never {asked} to roll back to; version {now.version} answers",
            where=model,
            hint=f"versions that answered before: {known}",
        )
    before = max(wanted, key=lambda head: head.version)
    return Head(
        model=model,
        epoch=(now.epoch if epoch is None else epoch) + 1,
        version=before.version,
        digest=before.digest,
        artifact=before.artifact,
    )
