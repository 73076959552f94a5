"""Which decision, or which order given by hand, a fact belongs to."""

from driftloop.incident import OF_TELLING
from driftloop.records import (
    Acted,
    Advanced,
    Decided,
    Decision,
    Explained,
    Fact,
    Failed,
    Gated,
    Grouped,
    Measured,
    Moved,
    Noted,
    Order,
    Ordered,
    Paged,
    Posted,
    Quarantined,
    Relayed,
    Trained,
    Unsent,
)

INCIDENT = "incident/"
"""How the trace of what belongs to an incident's message begins."""


def trace_of(fact: Fact, *, key: str | None) -> str | None:  # noqa: PLR0911 - one for each kind
    """Return the key of the decision or order that led to `fact`; None when its body tells none.

    Args:
        fact: any fact; a `Moved` does not say which order it carried out: its version does.
        key: what the fact is kept under: a `Measured` has its decision's, a `Quarantined` its
            own.
    """
    match fact:
        case Measured() | Quarantined():
            return key
        case Decided(decision=Decision(key=own)) | Ordered(order=Order(key=own)):
            return own
        case Explained(decision=own):
            return own
        case Trained():
            return fact.candidate.order.key
        case Gated() | Failed():
            return fact.order_key
        case Advanced(rollout=rollout):
            return rollout.order
        case Paged(notice=notice) if notice.stage in OF_TELLING:
            return f"{INCIDENT}{notice.incident}"
        case Paged(notice=notice):
            # What is told about an order, or about one later decision, has its key at the end.
            rest = notice.key.removeprefix(f"{notice.incident}/{notice.stage}").lstrip("/")
            return rest or notice.incident
        case (
            Noted(incident=own)
            | Grouped(incident=own)
            | Posted(incident=own)
            | Acted(incident=own)
            | Unsent(incident=own)
            | Relayed(incident=own)
        ):
            return f"{INCIDENT}{own}"
    return None


def is_release(moved: Moved, before: tuple[Moved, ...]) -> bool:
    """Return whether `moved` is the first to make its version champion: a rollback is not."""
    return all(earlier.head.version != moved.head.version for earlier in before)
