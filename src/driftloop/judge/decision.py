"""Readings, history and policy into verdicts and one decision with its reason. Pure."""

from collections.abc import Sequence
from datetime import datetime
from math import inf

from driftloop.judge.retraining import ALARMED, EPOCH, Seen, nearly
from driftloop.judge.retraining import blocked as blocked_by
from driftloop.judge.retraining import wish as wished
from driftloop.judge.verdicts import LOOKED, judged
from driftloop.records import (
    Decision,
    Kind,
    Level,
    ModelHistory,
    ModelId,
    Reading,
    State,
    Task,
    Verdict,
    Window,
)
from driftloop.spec import LOSSES, Family

WORST = 3
"""So many segments of a model that decays are told."""


def window_at(
    family: Family, model: ModelId, *, now: datetime, known_at: datetime | None = None
) -> Window:
    """Return the window to look at `now`: the family's span, as known by `known_at`.

    That may be after `now`, where the clock was set back: what arrived before is known.
    """
    return Window(
        model=model,
        start=now - family.window.span,
        end=now,
        known_at=known_at or now,
    )


def is_due(family: Family, history: ModelHistory, *, now: datetime) -> bool:
    """Return whether the model was not yet looked at in the present turn of its cadence.

    Turns are counted from 1970, as schedules are, and begin a moment sooner: a pass that comes
    a little before its time, or too soon after a late one, finds its model due.
    """
    if not history.decisions or unlooked(history.decisions[-1]) is not None:
        return True
    cadence = family.window.cadence
    first = EPOCH - nearly(cadence, family)
    return (now - first) // cadence > (history.decisions[-1].at - first) // cadence


def unlooked(decision: Decision) -> str | None:
    """Return why the model could not be looked at when `decision` was taken; None if it could."""
    for verdict in decision.verdicts:
        if verdict.reading.metric == LOOKED:
            return verdict.reading.problem
    return None


def decide(
    *,
    family: Family,
    window: Window,
    readings: Sequence[Reading],
    history: ModelHistory,
    now: datetime,
) -> Decision:
    """Return what is to be done about one model, and why.

    Hysteresis, cooldown and the open incident come from `history` alone, so that the same
    history and readings give the same decision anywhere and at any time.
    """
    verdicts = judged(readings, family)
    seen = _look(verdicts, family)
    before = history.decisions[-1] if history.decisions else None
    alarms, calm = _streaks(before, seen.state, verdicts, family)
    since = _since(before, alarms, now)
    incident = before.incident if before is not None else None
    opens = incident is None and alarms >= family.hysteresis.open_after
    resolves = (
        incident if incident is not None and calm >= family.hysteresis.resolve_after else None
    )
    if opens:
        incident = f"{window.model}/{now:%Y%m%dT%H%M%S}"
    elif resolves is not None:
        incident = None
    wish = wished(seen, alarms, readings, history, family, now)
    blocked = blocked_by(seen, history, family, now) if wish is not None else None
    retrain = wish is not None and blocked is None
    return Decision(
        key=f"{window.model}/{now:%Y%m%dT%H%M%S}",
        model=window.model,
        at=now,
        state=seen.state,
        reason=_reason(seen, wish, blocked),
        version=history.head.version if history.head is not None else 0,
        window=window,
        verdicts=verdicts,
        retrain=retrain,
        blocked=blocked,
        incident=incident,
        opens=opens,
        resolves=resolves,
        since=since,
        alarms=alarms,
        calm=calm,
        worst=_worst(readings) if seen.state is State.DECAYING else (),
    )


# -- the decision ---------------------------------------------------------------------------


def _look(verdicts: Sequence[Verdict], family: Family) -> Seen:
    by_kind = {kind: [v for v in verdicts if v.reading.kind is kind] for kind in Kind}
    faults = [v for v in by_kind[Kind.QUALITY] if v.level is Level.ALARM]
    if faults:
        return Seen(State.DATA_FAULT, _listed(faults))
    decayed = [v for v in by_kind[Kind.DECAY] if v.level is Level.ALARM]
    if decayed:
        return Seen(State.DECAYING, _listed(decayed))
    drifted = _drifted(by_kind[Kind.DRIFT], family)
    if drifted:
        return Seen(State.DRIFTING, _listed(drifted))
    decisive = _decisive(verdicts, family)
    whole = [v for v in by_kind[Kind.QUALITY] if v.reading.column is None]
    blind = [v for v in (*whole, *decisive) if v.level is Level.BLIND]
    if blind or not decisive:
        return Seen(State.BLIND, _listed(blind) or "nothing was measured")
    return Seen(State.FRESH, _listed(decisive))


def _decisive(verdicts: Sequence[Verdict], family: Family) -> list[Verdict]:
    """Return what a model must show to be FRESH: its performance, or how its scores lie."""
    if family.task is Task.SCORE:
        scores = (Kind.DRIFT, "prediction")
        return [v for v in verdicts if (v.reading.kind, v.reading.column) == scores]
    return [v for v in verdicts if v.reading.kind is Kind.DECAY]


def _drifted(drift: Sequence[Verdict], family: Family) -> list[Verdict]:
    alarmed = sorted(
        (v for v in drift if v.level is Level.ALARM), key=lambda v: -(v.reading.value or 0.0)
    )
    moved = any(v.reading.column == "prediction" for v in alarmed)
    # Several numbers are told of a text: it counts once.
    features = {(v.reading.column or "").split(".")[0] for v in alarmed} - {"prediction"}
    many = len(features) / max(len(family.measured), 1) >= family.drift.columns
    return alarmed if alarmed and (moved or many) else []


def _worst(readings: Sequence[Reading]) -> tuple[Reading, ...]:
    """Return the segments that do worse than the model as a whole, the worst first."""

    def badness(reading: Reading) -> float:
        return (reading.value or 0.0) * (1.0 if reading.metric in LOSSES else -1.0)

    told = [r for r in readings if r.segment is not None and r.value is not None]
    whole = {r.metric: badness(r) for r in readings if r.segment is None and r.kind is Kind.DECAY}
    told = [r for r in told if badness(r) > whole.get(r.metric, -inf)]
    return tuple(sorted(told, key=badness, reverse=True)[:WORST])


def _listed(verdicts: Sequence[Verdict], *, most: int = 3) -> str:
    said = [f"{v.reading.column}: {v.reason}" if v.reading.column else v.reason for v in verdicts]
    said = list(dict.fromkeys(said))  # what makes several blind is said once
    more = len(said) - most
    return "; ".join(said[:most]) + (f"; and {more} more" if more > 0 else "")


def _streaks(
    before: Decision | None, state: State, verdicts: Sequence[Verdict], family: Family
) -> tuple[int, int]:
    alarms, calm = (before.alarms, before.calm) if before is not None else (0, 0)
    if state is State.BLIND:
        return alarms, calm
    if state in ALARMED or (family.task is Task.SCORE and state is State.DRIFTING):
        return alarms + 1, 0
    # Recovered is what is clearly back: a warning ends a run of alarms and begins no calm.
    clear = all(v.level is Level.OK for v in _decisive(verdicts, family))
    return 0, calm + 1 if clear else 0


def _since(before: Decision | None, alarms: int, now: datetime) -> datetime | None:
    if before is not None and before.incident is not None:
        return before.since
    if not alarms:
        return None
    return before.since if before is not None and before.since is not None else now


def _reason(seen: Seen, wish: str | None, blocked: str | None) -> str:
    if wish is None:
        return f"{seen.state}: {seen.why}"
    if blocked is not None:
        return f"{seen.state}: {seen.why}; no retraining, {blocked}"
    return f"{seen.state}: {seen.why}; retraining because of {wish}"
