"""Why models do worse, kept as facts with the models that share a cause."""

import logging
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from driftloop.errors import DriftloopError, named
from driftloop.judge import sharing
from driftloop.ports import Ledger, Measure
from driftloop.records import (
    REFERENCE_FILE,
    Cause,
    Decision,
    Explained,
    Head,
    ModelId,
    Origin,
)
from driftloop.rows import Rows
from driftloop.spec import Family, Fleet

_log = logging.getLogger(__name__)
PASSES = 3
"""Causes that were found so many cadences ago are of the same time."""


def found_cause(
    measure: Measure, family: Family, head: Head, decision: Decision, own: Rows
) -> Cause:
    """Return why the rows `own` are worse; what prevents that is UNKNOWN, and why.

    A page must not wait for its cause.
    """
    try:
        return measure.cause(
            family=family,
            own=own,
            reference=Path(head.artifact).with_name(REFERENCE_FILE),
            verdicts=decision.verdicts,
        )
    except DriftloopError as error:
        _log.error("the cause for %s could not be looked for: %s", decision.model, error)
        why = str(error)
    except Exception as error:  # noqa: BLE001 - a fault of ours: it is told all the same
        _log.exception("%s: looking for its cause broke", decision.model)
        why = f"it broke on {named(error)}"
    return Cause(origin=Origin.UNKNOWN, said=f"the cause is not known: {why}")


def kept(
    fleet: Fleet,
    ledger: Ledger,
    found: Mapping[ModelId, tuple[Decision, Cause]],
    now: datetime,
) -> Mapping[ModelId, Cause]:
    """Return causes with the models that share each, and keep as facts what is new of them.

    Args:
        fleet: tells what columns come from.
        ledger: has what was found in the last passes, which counts as well.
        found: what one pass found, with the decision that called for it.
        now: the time of the pass.
    """
    if not found:
        return {}
    span = PASSES * max(family.window.cadence for family in fleet.families)
    recent = ledger.facts(Explained, since=now - span)
    facts = [
        Explained(model=model, at=decision.at, decision=decision.key, cause=cause)
        for model, (decision, cause) in found.items()
    ]
    told = sharing((*recent, *facts), fleet)[len(recent) :]
    for fact in told:
        decision, _ = found[fact.model]
        last = ledger.facts(Explained, model=fact.model, last=1)
        if decision.opens or not last or _kind(last[0].cause) != _kind(fact.cause):
            ledger.append(fact, key=fact.decision)
    return {fact.model: fact.cause for fact in told}


def _kind(cause: Cause) -> tuple[Origin, str | None, frozenset[ModelId]]:
    first = cause.carriers[0].name if cause.carriers else None
    return cause.origin, first, frozenset(cause.shared)
