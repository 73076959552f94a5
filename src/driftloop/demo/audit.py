"""Was every page true, and was any sent twice? Asked of the log and of the channels themselves."""

from collections import Counter
from dataclasses import dataclass

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from driftloop.demo.outcome import loss
from driftloop.records import PLATFORM, Decided, Decision, Kind, Paged, Reading, Stage
from driftloop.wiring import System

METRICS = ("mae", "log_loss")
"""Decay metrics that are a mean over rows, and so can be recomputed here in a line."""
TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True)
class Audit:
    """How many incidents were paged, which pages were untrue, and which messages came twice."""

    pages: int
    recomputed: int
    untrue: tuple[str, ...]
    repeated: tuple[str, ...]


def audit(system: System, *, messages: str) -> Audit:
    """Return what reading every page again came to.

    A page that says a model predicts worse is recomputed from the log: the rows that the decision
    saw, those of them that the champion of that moment had answered, and their labels as known
    then. `messages` is the address that lists everything posted to the local Slack.
    """
    paged = [fact for fact in system.ledger.facts(Paged) if fact.model != PLATFORM]
    opened = [fact for fact in paged if fact.notice.stage is Stage.OPENED]
    decisions = {
        fact.decision.incident: fact.decision
        for fact in system.ledger.facts(Decided)
        if fact.decision.opens
    }
    untrue: list[str] = []
    recomputed = 0
    for page in opened:
        decision = decisions[page.notice.incident]
        reading = _alarmed(decision)
        if reading is None:
            continue
        recomputed += 1
        value, rows = _again(system, decision)
        if rows != reading.n or abs(value - (reading.value or 0.0)) > TOLERANCE:
            untrue.append(f"{page.notice.incident}: said {reading.value}, found {value}")
    posted = httpx.get(messages, timeout=30.0, trust_env=False).raise_for_status().json()
    keys = Counter(
        message["metadata"]["event_payload"]["key"] for message in posted if message.get("metadata")
    )
    return Audit(
        pages=len(opened),
        recomputed=recomputed,
        untrue=tuple(untrue),
        repeated=tuple(key for key, count in keys.items() if count > 1),
    )


def _alarmed(decision: Decision) -> Reading | None:
    for verdict in decision.verdicts:
        reading = verdict.reading
        if reading.kind is Kind.DECAY and reading.metric in METRICS and reading.value is not None:
            return reading
    return None


def _again(system: System, decision: Decision) -> tuple[float, int]:
    family = system.fleet.family(decision.model)
    rows = system.log.rows(family, decision.window)
    mine = pc.equal(rows["version"], decision.version)
    own = rows.filter(pc.and_(mine, pc.is_valid(rows["label"])))
    return float(np.mean(loss(family.task, _column(own, "label"), _column(own, "prediction")))), (
        own.num_rows
    )


def _column(rows: pa.Table, name: str) -> np.ndarray:
    return np.asarray(rows[name].to_numpy(), dtype=np.float64)
