"""The batches that monitors ask for: the newest turn of each, what it reads and writes."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from driftloop.batch.run import Job
from driftloop.records import ModelId
from driftloop.spec import Family

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """One turn of one model's batch; `key` names it for ever.

    For `lease` of wall time other machines leave it to the one that has begun it.
    """

    key: str
    job: Job
    lease: timedelta


def turns(families: Iterable[Family], *, now: datetime, folder: Path) -> tuple[Due, ...]:
    """Return the newest turn of every model's batch; earlier ones that were missed are not made up.

    Turns are counted from 1970 in UTC: with `every = "1d"` one begins at midnight.

    Args:
        families: whose batches.
        now: the loop's time.
        folder: what relative files are relative to.
    """
    return tuple(
        _turn(family, model, market, now, folder)
        for family in families
        if family.batch is not None
        for model, market in zip(family.models, family.markets, strict=True)
    )


def _turn(family: Family, model: ModelId, market: str, now: datetime, folder: Path) -> Due:
    policy = family.batch
    assert policy is not None  # noqa: S101 - asked above
    begins = _EPOCH + (now - _EPOCH) // policy.every * policy.every
    values = {
        "model": model,
        "market": market,
        "date": f"{begins:%Y-%m-%d}",
        "time": f"{begins:%Y%m%dT%H%M%S}",
    }
    key = f"batch/{model}/{values['time']}"
    return Due(
        key=key,
        lease=policy.every,
        job=Job(
            model=model,
            source=_filled(policy.source, values),
            out=folder / _filled(policy.out, values),
            folder=folder,
            turn=key,
            publish=policy.publish,
        ),
    )


def _filled(text: str, values: dict[str, str]) -> str:
    """Return `text` with what stands in braces, if it is known: SQL has braces of its own.

    >>> _filled("{model} {'a': 1}", {"model": "eta-de"})
    "eta-de {'a': 1}"
    """
    return re.sub(r"{(\w+)}", lambda found: values.get(found[1], found[0]), text)
