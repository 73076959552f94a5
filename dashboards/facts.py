"""What the pages ask of the ledger: a bounded number of facts for each model."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from threading import Lock

from driftloop.ledger import SqlLedger
from driftloop.ports import Ledger
from driftloop.records import (
    Advanced,
    Decided,
    Explained,
    Failed,
    Gated,
    Kind,
    Measured,
    ModelId,
    Moved,
    Ordered,
    Paged,
    Quarantined,
    Released,
    Trained,
)

FLEET_MEASURED = 30
"""Windows of one model that its sparkline shows."""
PAGE_MEASURED = 400
"""Windows and decisions that a model's own page looks back on."""
PAGE_EVENTS = 100
"""Facts of each other kind that a model's own page looks back on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What the ledger holds on one model, newest last; cut to what a page shows."""

    measured: tuple[Measured, ...] = ()
    decided: tuple[Decided, ...] = ()
    paged: tuple[Paged, ...] = ()
    ordered: tuple[Ordered, ...] = ()
    trained: tuple[Trained, ...] = ()
    gated: tuple[Gated, ...] = ()
    failed: tuple[Failed, ...] = ()
    moved: tuple[Moved, ...] = ()
    advanced: tuple[Advanced, ...] = ()
    explained: tuple[Explained, ...] = ()
    quarantined: tuple[Quarantined, ...] = ()
    released: tuple[Released, ...] = ()


def page_facts(ledger: Ledger, model: ModelId) -> ModelFacts:
    """Return what the page of `model` needs.

    Raises:
        LedgerError: the ledger cannot be read.
    """
    return ModelFacts(
        measured=ledger.facts(Measured, model=model, last=PAGE_MEASURED),
        decided=ledger.facts(Decided, model=model, last=PAGE_MEASURED),
        paged=ledger.facts(Paged, model=model, last=PAGE_EVENTS),
        ordered=ledger.facts(Ordered, model=model, last=PAGE_EVENTS),
        trained=ledger.facts(Trained, model=model, last=PAGE_EVENTS),
        gated=ledger.facts(Gated, model=model, last=PAGE_EVENTS),
        failed=ledger.facts(Failed, model=model, last=PAGE_EVENTS),
        moved=ledger.facts(Moved, model=model, last=PAGE_EVENTS),
        advanced=ledger.facts(Advanced, model=model, last=PAGE_EVENTS),
        explained=ledger.facts(Explained, model=model, last=PAGE_EVENTS),
        quarantined=ledger.facts(Quarantined, model=model, last=PAGE_EVENTS),
        released=ledger.facts(Released, model=model, last=PAGE_EVENTS),
    )


def last_pass(ledger: SqlLedger) -> tuple[datetime | None, datetime | None]:
    """Return the end of the newest window measured, and the wall-clock time it was written at."""
    newest, written = ledger.facts(Measured, last=1), ledger.written(Measured)
    return (
        newest[0].at if newest else None,
        None if written is None else datetime.fromtimestamp(written, UTC),
    )


class RowFacts:
    """Reads what the lines of the fleet page need, and keeps the windows it has read before.

    A `Measured` fact is large (every column's readings) and never changes: of each model only
    those that came since the last look are read and decoded, and only what a line shows is kept.
    """

    def __init__(self, ledger: Ledger) -> None:
        """Read nothing yet."""
        self._ledger = ledger
        self._measured: dict[ModelId, tuple[Measured, ...]] = {}
        self._lock = Lock()

    def of(self, model: ModelId) -> ModelFacts:
        """Return the facts for the line of `model`; `measured` holds the readings that it shows.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        ledger = self._ledger
        return ModelFacts(
            measured=self._recent(model),
            decided=ledger.facts(Decided, model=model, last=1),
            ordered=ledger.facts(Ordered, model=model, last=1),
            gated=ledger.facts(Gated, model=model, last=1),
            failed=ledger.facts(Failed, model=model, last=1),
            moved=ledger.facts(Moved, model=model, last=1),
            advanced=ledger.facts(Advanced, model=model, last=1),
        )

    def _recent(self, model: ModelId) -> tuple[Measured, ...]:
        with self._lock:
            kept = self._measured.get(model, ())
            for last in (1, 6, FLEET_MEASURED) if kept else (FLEET_MEASURED,):
                read = self._ledger.facts(Measured, model=model, last=last)
                seen = [i for i, fact in enumerate(read) if kept and fact.at == kept[-1].at]
                if seen:
                    read = read[seen[-1] + 1 :]
                    break
            else:
                kept = ()
            self._measured[model] = (*kept, *(_shown_alone(f) for f in read))[-FLEET_MEASURED:]
            return self._measured[model]


def _shown_alone(fact: Measured) -> Measured:
    # What is of the prediction is what scores are judged by.
    kept = (
        reading
        for reading in fact.readings
        if reading.segment is None
        and (reading.kind in (Kind.DECAY, Kind.ESTIMATE) or reading.column == "prediction")
    )
    return replace(fact, readings=tuple(kept))
