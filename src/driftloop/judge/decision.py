"""Readings, history and policy into verdicts and one decision with its reason. Pure."""

from collections.abc import Sequence
from datetime import datetime
from math import inf

from driftloop.judge.budget import weight_of
from driftloop.judge.findings import (
    DATA,
    DRIFT,
    GROUPS,
    HARM,
    Found,
    begun_anew,
    found,
    group_of,
    harmed,
    is_fresh,
    share_of,
)
from driftloop.judge.retraining import ALARMED, EPOCH, Seen, nearly
from driftloop.judge.retraining import blocked as blocked_by
from driftloop.judge.retraining import wish as wished
from driftloop.judge.verdicts import LOOKED, certain, judged
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

JUDGED = (Kind.QUALITY, Kind.DECAY, Kind.ESTIMATE, Kind.DRIFT)
"""What windows are judged by."""
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
    rate: float | None = None,
) -> Decision:
    """Return what is to be done about one model, and why.

    Hysteresis, cooldown, the open incident and the evidence so far come from `history` alone, so
    that the same history, readings and rate give the same decision anywhere and at any time.

    Windows make the state in words, and so does what fresh readings have been found to show; an
    incident opens only for what the budget bears (see `evidence`), or for data at fault.

    Args:
        family: the policy.
        window: what was looked at.
        readings: what was read of it.
        history: of the model.
        now: when.
        rate: false pages a week that the model may make now (see `budget.rates`); None for what it
            had if its family were all there is.
    """
    before = history.decisions[-1] if history.decisions else None
    version = history.head.version if history.head is not None else 0
    last = before.at if before is not None else None
    weight = weight_of(family, window.model, rate=rate, last=last, now=now)
    changed = found(family=family, readings=readings, before=before, version=version, weight=weight)
    verdicts = (*judged(readings, family), *changed.verdicts)
    seen = _look(verdicts, changed, family)
    is_certain = _certain(seen, verdicts, changed, readings, family, weight)
    alarms, calm = _streaks(history, seen, verdicts, changed, family, certain=is_certain)
    since = _since(before, alarms, now)
    incident = before.incident if before is not None else None
    opens = incident is None and is_certain and alarms >= family.hysteresis.open_after
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
        version=version,
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
        # A page spends what led to it; so does the end of an incident, in which nothing pages.
        evidence=begun_anew(changed) if opens or resolves is not None else changed.evidence,
        found=changed.names,
    )


# -- the decision ---------------------------------------------------------------------------


def _look(verdicts: Sequence[Verdict], changed: Found, family: Family) -> Seen:
    alarmed = [v for v in verdicts if v.level is Level.ALARM]
    by_kind = {kind: [v for v in alarmed if v.reading.kind is kind] for kind in JUDGED}
    faults = by_kind[Kind.QUALITY]
    if faults or changed.of(DATA):
        return Seen(State.DATA_FAULT, _listed(faults, changed, DATA))
    decayed = [*by_kind[Kind.DECAY], *by_kind[Kind.ESTIMATE]]
    if decayed or changed.of(HARM):
        return Seen(State.DECAYING, _listed(decayed, changed, HARM))
    drifted = _drifted(by_kind[Kind.DRIFT], family)
    if drifted or changed.of(DRIFT):
        return Seen(State.DRIFTING, _listed(drifted, changed, DRIFT))
    decisive = _decisive(verdicts, family)
    unseen = [v for v in verdicts if v.level is Level.BLIND]
    whole = (v for v in unseen if v.reading.kind is Kind.QUALITY and v.reading.column is None)
    # Labels that were good say nothing of those to come, once newer ones deny what was expected.
    doubted = (v for v in unseen if v.reading.kind is Kind.ESTIMATE)
    blind = [*whole, *(v for v in decisive if v.level is Level.BLIND), *doubted]
    if blind or not decisive:
        return Seen(State.BLIND, _listed(blind) or "nothing was measured")
    return Seen(State.FRESH, _listed(decisive))


def _certain(
    seen: Seen,
    verdicts: Sequence[Verdict],
    changed: Found,
    readings: Sequence[Reading],
    family: Family,
    weight: float,
) -> bool:
    """Say whether what is wrong may page: data at fault, or what is sure within the budget."""
    page_on = family.budget.page_on
    if seen.state is State.DATA_FAULT and DATA in page_on:
        return True
    if any(group_of(name) in page_on for name in changed.names):
        return True
    scores = family.task is Task.SCORE and seen.state is State.DRIFTING
    group, kinds = (DRIFT, (Kind.DRIFT,)) if scores else (HARM, (Kind.DECAY, Kind.ESTIMATE))
    if group not in page_on or not (scores or seen.state is State.DECAYING):
        return False
    # Where nothing fresh is read of it the window itself has to be sure enough. What is expected
    # without labels cannot stand for them.
    read = (each for each in readings if is_fresh(each) and each.value is not None)
    if any(r.metric == "loss" if group == HARM else GROUPS[r.metric] == group for r in read):
        return False
    spent = weight * share_of(group, page_on)
    alarmed = (v for v in verdicts if v.level is Level.ALARM and v.reading.kind in kinds)
    return any(certain(verdict, family, spent) for verdict in alarmed)


def _decisive(verdicts: Sequence[Verdict], family: Family) -> list[Verdict]:
    """Return what a model must show to be FRESH: its performance, or how its scores lie."""
    if family.task is Task.SCORE:
        scores = (Kind.DRIFT, "prediction")
        return [v for v in verdicts if (v.reading.kind, v.reading.column) == scores]
    return [v for v in verdicts if v.reading.kind is Kind.DECAY]


def _drifted(drift: Sequence[Verdict], family: Family) -> list[Verdict]:
    if not drift:
        return []
    alarmed = sorted(drift, key=lambda v: -(v.reading.value or 0.0))
    moved = any(v.reading.column == "prediction" for v in alarmed)
    # Several numbers are told of a text: it counts once.
    features = {(v.reading.column or "").split(".")[0] for v in alarmed} - {"prediction"}
    many = len(features) / max(len(family.measured), 1) >= family.drift.columns
    return alarmed if moved or many else []


def _worst(readings: Sequence[Reading]) -> tuple[Reading, ...]:
    """Return the segments that do worse than the model as a whole, the worst first."""

    def badness(reading: Reading) -> float:
        return (reading.value or 0.0) * (1.0 if reading.metric in LOSSES else -1.0)

    decay = [r for r in readings if r.kind is Kind.DECAY and r.value is not None]
    told = [r for r in decay if r.segment is not None]
    whole = {r.metric: badness(r) for r in decay if r.segment is None}
    told = [r for r in told if badness(r) > whole.get(r.metric, -inf)]
    return tuple(sorted(told, key=badness, reverse=True)[:WORST])


def _listed(
    verdicts: Sequence[Verdict], changed: Found | None = None, group: str = "", *, most: int = 3
) -> str:
    said = [f"{v.reading.column}: {v.reason}" if v.reading.column else v.reason for v in verdicts]
    said += changed.why(group) if changed is not None else []
    said = list(dict.fromkeys(said))  # what makes several blind is said once
    more = len(said) - most
    return "; ".join(said[:most]) + (f"; and {more} more" if more > 0 else "")


def _streaks(
    history: ModelHistory,
    seen: Seen,
    verdicts: Sequence[Verdict],
    changed: Found,
    family: Family,
    *,
    certain: bool,
) -> tuple[int, int]:
    """Return how many decisions in a row saw an alarm, and how many that all is well again."""
    before = history.decisions[-1] if history.decisions else None
    alarms, calm = (before.alarms, before.calm) if before is not None else (0, 0)
    scores = family.task is Task.SCORE and seen.state is State.DRIFTING
    if seen.state in ALARMED or scores or certain:
        return alarms + 1, 0
    levels = {v.level for v in _decisive(verdicts, family)}
    if changed.over and not _harmed(history) and not levels & {Level.WARN, Level.ALARM}:
        # Columns alone had changed, and are back for certain: no labels are needed to tell.
        return 0, max(calm + 1, family.hysteresis.resolve_after)
    if seen.state is State.BLIND:
        return alarms, calm
    # Recovered is what is clearly back: a warning ends a run of alarms and begins no calm.
    return 0, calm + 1 if levels <= {Level.OK} else 0


def _harmed(history: ModelHistory) -> bool:
    """Say whether a decision since the incident opened was about more than drift."""
    incident = history.decisions[-1].incident
    mine = [each for each in history.decisions if each.incident == incident]
    return incident is None or any(each.state is State.DECAYING or harmed(each) for each in mine)


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
