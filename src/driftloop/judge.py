"""Readings, history and policy into verdicts and one decision with its reason. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import inf

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
    metric_name,
)
from driftloop.spec import LOSSES, DecayPolicy, Family

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MOMENT = timedelta(minutes=1)
LOOKED = "looked"
"""The reading that stands for all others of a model that could not be looked at."""
WORST = 3
"""So many segments of a model that decays are told."""
ALARMED = (State.DATA_FAULT, State.DECAYING)
"""States that open an incident: harm, or data that cannot be trusted.

Of scores DRIFTING does too: no label would ever show the harm, and nothing else could page.
"""


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
    first = EPOCH - _nearly(cadence, family)
    return (now - first) // cadence > (history.decisions[-1].at - first) // cadence


def unlooked(decision: Decision) -> str | None:
    """Return why the model could not be looked at when `decision` was taken; None if it could."""
    for verdict in decision.verdicts:
        if verdict.reading.metric == LOOKED:
            return verdict.reading.problem
    return None


def judged(readings: Sequence[Reading], family: Family) -> tuple[Verdict, ...]:
    """Return a verdict for each reading that the policy has a limit for.

    A reading on too few rows or labels, or one that could not be measured, is BLIND. Drift
    alarms only where the shift is large enough and sure enough; decay only where even the
    better end of the interval is worse than the baseline. A segment is not judged: among many
    of them some are always worse by chance.
    """
    return tuple(
        verdict for reading in readings if (verdict := _verdict(reading, family)) is not None
    )


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
    wish = _wish(seen, alarms, history, family, now)
    blocked = _blocked(seen, history, family, now) if wish is not None else None
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


# -- verdicts -------------------------------------------------------------------------------


def expected_gain(decision: Decision) -> float:
    """Return by what share of its baseline the judged metric is worse: what a renewal may win back.

    0 where that is unknown, or it is no worse.
    """
    for verdict in decision.verdicts:
        reading = verdict.reading
        known = reading.value is not None and reading.baseline is not None
        if reading.kind is Kind.DECAY and verdict.limit is not None and known:
            return max(_worsening(reading, reading.value or 0.0, reading.baseline or 0.0)[0], 0.0)
    return 0.0


def _verdict(reading: Reading, family: Family) -> Verdict | None:
    if reading.metric == LOOKED:
        return _blind(reading, f"could not be looked at: {reading.problem}")
    if reading.segment is not None:
        return None
    if reading.kind is Kind.DRIFT:
        return _drift(reading, family)
    if reading.kind is Kind.DECAY:
        limits = family.decay
        judged = limits is not None and reading.metric == limits.metric
        return _decay(reading, family, limits) if limits is not None and judged else None
    return _quality(reading, family)


def _drift(reading: Reading, family: Family) -> Verdict:
    limits = family.drift
    least = family.window.min_rows
    if reading.value is None:
        return _blind(reading, reading.problem or "could not be measured")
    if reading.n < least:
        return _blind(reading, f"{reading.n} rows, at least {least} are needed")
    sure = reading.p_value is not None and reading.p_value < limits.p_value
    said = f"{metric_name(reading.metric)} {reading.value:.3g}, n={reading.n}"
    for level, limit in ((Level.ALARM, limits.alarm), (Level.WARN, limits.warn)):
        if sure and reading.value >= limit:
            return Verdict(
                reading=reading, level=level, limit=limit, reason=f"{said}, limit {limit:g}"
            )
    return Verdict(reading=reading, level=Level.OK, limit=limits.warn, reason=said)


def _decay(reading: Reading, family: Family, limits: DecayPolicy) -> Verdict:
    least = family.window.min_labels
    if reading.n < least:
        return _blind(reading, f"{reading.n} labels, at least {least} are needed")
    if reading.value is None:
        return _blind(reading, reading.problem or "could not be measured")
    if reading.baseline is None:
        return _blind(reading, "the champion has no baseline for it")
    worse, sure = _worsening(reading, reading.value, reading.baseline)
    said = (
        f"{metric_name(reading.metric)} {reading.value:.4g} is {abs(worse):.0%} "
        f"{'worse' if worse > 0 else 'better'} than its baseline {reading.baseline:.4g}, "
        f"n={reading.n}"
    )
    for level, limit in ((Level.ALARM, limits.alarm), (Level.WARN, limits.warn)):
        if worse >= limit and sure:
            return Verdict(
                reading=reading, level=level, limit=limit, reason=f"{said}, limit {limit:.0%}"
            )
    if worse >= limits.warn:
        # Neither an alarm nor a recovery: it may be worse.
        return Verdict(
            reading=reading, level=Level.WARN, limit=limits.warn, reason=f"{said}, within its noise"
        )
    return Verdict(reading=reading, level=Level.OK, limit=limits.warn, reason=said)


def _worsening(reading: Reading, value: float, baseline: float) -> tuple[float, bool]:
    scale = max(abs(baseline), 1e-12)
    if reading.metric in LOSSES:
        return (value - baseline) / scale, reading.low is None or reading.low > baseline
    return (baseline - value) / scale, reading.high is None or reading.high < baseline


def _quality(reading: Reading, family: Family) -> Verdict | None:
    policy = family.quality
    least = family.window.min_rows
    if reading.metric == "volume":
        few = reading.value is None or reading.value < least
        said = f"{reading.n} rows"
        if few:
            return _blind(reading, f"{said}, at least {least} are needed")
        return Verdict(reading=reading, level=Level.OK, limit=float(least), reason=said)
    limit = {
        "null_share": policy.nulls,
        "empty_share": policy.nulls,
        "out_of_range": policy.out_of_range,
        "unseen": policy.unseen,
        "duplicates": policy.duplicates,
        "freshness": policy.stale.total_seconds() / 3600,
    }.get(reading.metric)
    if limit is None:
        return None
    if reading.value is None:
        return _blind(reading, reading.problem or "could not be measured")
    if reading.metric != "freshness" and reading.n < least:
        return _blind(reading, f"{reading.n} rows, at least {least} are needed")
    usual = reading.baseline or 0.0
    over = reading.value - usual >= limit if limit > 0 else reading.value - usual > 0
    name = metric_name(reading.metric)
    shown = (
        f"{reading.value:.1f} hours old"
        if reading.metric == "freshness"
        else f"{name} {reading.value:.1%} (usually {usual:.1%}), n={reading.n}"
    )
    level = Level.ALARM if over else Level.OK
    return Verdict(reading=reading, level=level, limit=limit, reason=shown)


def _blind(reading: Reading, why: str) -> Verdict:
    return Verdict(reading=reading, level=Level.BLIND, limit=None, reason=why)


# -- the decision ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Seen:
    state: State
    why: str


def _look(verdicts: Sequence[Verdict], family: Family) -> _Seen:
    by_kind = {kind: [v for v in verdicts if v.reading.kind is kind] for kind in Kind}
    faults = [v for v in by_kind[Kind.QUALITY] if v.level is Level.ALARM]
    if faults:
        return _Seen(State.DATA_FAULT, _listed(faults))
    decayed = [v for v in by_kind[Kind.DECAY] if v.level is Level.ALARM]
    if decayed:
        return _Seen(State.DECAYING, _listed(decayed))
    drifted = _drifted(by_kind[Kind.DRIFT], family)
    if drifted:
        return _Seen(State.DRIFTING, _listed(drifted))
    decisive = _decisive(verdicts, family)
    whole = [v for v in by_kind[Kind.QUALITY] if v.reading.column is None]
    blind = [v for v in (*whole, *decisive) if v.level is Level.BLIND]
    if blind or not decisive:
        return _Seen(State.BLIND, _listed(blind) or "nothing was measured")
    return _Seen(State.FRESH, _listed(decisive))


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


def _wish(
    seen: _Seen, alarms: int, history: ModelHistory, family: Family, now: datetime
) -> str | None:
    triggers = family.retrain.triggers
    if "decay" in triggers and alarms >= family.hysteresis.open_after and seen.state in ALARMED:
        return "decay"
    if "drift" in triggers and seen.state is State.DRIFTING:
        return "drift"
    trained = history.champion.candidate.order.window.end if history.champion else None
    most = family.retrain.max_age - _nearly(family.retrain.max_age, family)
    if "age" in triggers and trained is not None and now - trained >= most:
        return f"its champion was trained {(now - trained).days} days ago"
    return None


def _blocked(seen: _Seen, history: ModelHistory, family: Family, now: datetime) -> str | None:
    if seen.state is State.DATA_FAULT:
        return "the data is at fault: retraining waits until it is right"
    # An order counts from its decision on: it may wait for its turn without being ordered again.
    champion = history.champion.candidate if history.champion is not None else None
    # To find what answers already took no training, nor did what failed before it was found.
    found_at = champion.order.at if champion is not None and champion.found else EPOCH
    ordered = [order.at for order in history.orders if order.at > found_at]
    ordered += [decision.at for decision in history.decisions if decision.retrain]
    last = max(ordered, default=None)
    cooldown = family.retrain.cooldown
    if last is not None and now - last < cooldown - _nearly(cooldown, family):
        until = last + cooldown
        return f"cooling down until {until:%Y-%m-%d %H:%M} UTC"
    return None


def _nearly(span: timedelta, family: Family) -> timedelta:
    """Return by how much a pass may come too early: no reason to wait for another one."""
    return min(span / 10, family.window.cadence / 10, MOMENT)


def _reason(seen: _Seen, wish: str | None, blocked: str | None) -> str:
    if wish is None:
        return f"{seen.state}: {seen.why}"
    if blocked is not None:
        return f"{seen.state}: {seen.why}; no retraining, {blocked}"
    return f"{seen.state}: {seen.why}; retraining because of {wish}"
