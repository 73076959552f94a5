"""What the loop makes of a fault: the notices that its own rooms word, address and group."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from driftloop.loop import notices
from driftloop.loop.addressed import addressed
from driftloop.loop.called_for import notices_of
from driftloop.records import (
    Advanced,
    Carrier,
    Cause,
    Chart,
    Decided,
    Decision,
    Kind,
    Level,
    ModelId,
    Notice,
    Origin,
    Phase,
    Quarantined,
    Reading,
    Rollout,
    Severity,
    Stage,
    State,
    Verdict,
    Window,
)
from driftloop.route import quarantine_group, quarantined_feature, severity_of_stage
from driftloop.vitals import CALM_AFTER, OPEN_AFTER, Streak, follow, judged
from driftloop.wiring import System
from tests.benchmarks._paging_world import Fault

_STATES = {
    "upstream": State.DATA_FAULT,
    "data": State.DATA_FAULT,
    "decay": State.DECAYING,
    "drift": State.DRIFTING,
}


def notices_at(system: System, fault: Fault, turn: str) -> tuple[Notice, ...]:
    """Return what is told of a fault that "opens" or "closes"; decisions are recorded, as always.

    The same at every call: whoever died while telling it comes with it again.
    """
    if fault.kind in _STATES:
        return tuple(
            notice
            for model in fault.models
            for notice in _of_decision(system, fault, ModelId(model), turn)
        )
    if fault.kind == "platform":
        return _of_platform(system, fault, turn)
    if fault.kind == "quarantine":
        return _of_quarantine(system, fault, turn)
    return _of_rollout(system, fault, turn)


def alert_of(fault: Fault, model: str) -> str:
    """Return the incident of one model that a decision about a fault opens."""
    return f"{model}/{fault.opens:%Y-%m-%dT%H:%M:%S}"


def _of_decision(system: System, fault: Fault, model: ModelId, turn: str) -> tuple[Notice, ...]:
    family, incident = system.fleet.family(model), alert_of(fault, model)
    opens = turn == "opens"
    before = _decision(fault, model, incident, opens=True)
    decision = before if opens else _decision(fault, model, incident, opens=False)
    made = notices_of(
        system.fleet,
        system.ledger,
        system.places,
        decision,
        None if opens else before,
        _cause(fault),
    )
    system.ledger.append(Decided(model=model, at=decision.at, decision=decision), key=decision.key)
    if not opens or family.name == "churn" or fault.kind == "upstream":
        return made
    return tuple(replace(each, chart=_chart(fault)) for each in made)


def _decision(fault: Fault, model: ModelId, incident: str, *, opens: bool) -> Decision:
    at = fault.opens if opens else fault.closes
    return Decision(
        key=f"{model}@{at:%Y%m%dT%H%M%S}",
        model=model,
        at=at,
        state=_STATES[fault.kind] if opens else State.FRESH,
        reason="it was injected" if opens else "it is well again",
        version=3,
        window=Window(model=model, start=at - timedelta(days=14), end=at, known_at=at),
        verdicts=(_verdict(fault, alarm=opens),),
        incident=incident if opens else None,
        opens=opens,
        resolves=None if opens else incident,
        since=fault.opens - timedelta(hours=1),
    )


def _verdict(fault: Fault, *, alarm: bool) -> Verdict:
    kind, metric, column, value, limit = {
        "decay": (Kind.DECAY, "mae", None, 18.4, 0.3),
        "drift": (Kind.DRIFT, "psi", fault.column, 0.61, 0.25),
    }.get(fault.kind, (Kind.QUALITY, "nulls", fault.column, 0.93, 0.3))
    reading = Reading(
        kind=kind,
        metric=metric,
        column=column,
        value=value if alarm else limit / 3,
        n=4_000,
        baseline=13.1 if kind is Kind.DECAY else None,
    )
    level = Level.ALARM if alarm else Level.OK
    return Verdict(reading=reading, level=level, limit=limit, reason="as injected")


def _cause(fault: Fault) -> Cause | None:
    if fault.kind == "decay":
        return Cause(origin=Origin.RELATION, said="labels relate otherwise to the same inputs")
    if fault.kind == "drift":
        carrier = Carrier(name=fault.column, share=0.8, said="it has moved")
        return Cause(origin=Origin.INPUTS, said="other inputs", carriers=(carrier,))
    return None


def _chart(fault: Fault) -> Chart:
    hours = range(-48, 1, 4)
    points = tuple((fault.opens + timedelta(hours=n), 13.0 + max(0, n + 12) / 2) for n in hours)
    return Chart(title=f"MAE of {fault.models[0]}", points=points, limit=17.0, baseline=13.1)


def _of_platform(system: System, fault: Fault, turn: str) -> tuple[Notice, ...]:
    fleet = system.fleet

    def seen(value: float) -> tuple[Verdict, ...]:
        reading = Reading(
            kind=Kind.SERVICE, metric="unhealthy", column=fault.column, value=value, n=1
        )
        return judged((reading,), fleet.platform)

    def looked(
        streaks: Mapping[str, Streak], value: float, at: datetime, times: int
    ) -> tuple[Mapping[str, Streak], tuple[Notice, ...]]:
        made: tuple[Notice, ...] = ()
        for _ in range(times):
            owner = fleet.owners[fleet.platform.owner]
            followed = follow(streaks, seen(value), now=at, owner=owner)
            streaks, made = followed.streaks, (*made, *followed.notices)
        return streaks, made

    streaks, made = looked({}, 300.0, fault.opens, OPEN_AFTER)
    if turn == "closes":
        _, made = looked(streaks, 0.0, fault.closes, CALM_AFTER)
    return tuple(
        addressed(
            fleet,
            each,
            severity=Severity.CRITICAL if each.stage is Stage.OPENED else Severity.INFO,
        )
        for each in made
    )


def _of_quarantine(system: System, fault: Fault, turn: str) -> tuple[Notice, ...]:
    fleet, model = system.fleet, ModelId(fault.models[0])
    family, owner = fleet.family(model), fleet.data_owner(model)
    fact = Quarantined(
        model=model,
        at=fault.opens,
        start=fault.opens - timedelta(hours=6),
        end=fault.opens,
        reasons=(f"nulls of {fault.column}: 93% of 4,000 rows",),
        until=fault.closes,
        rows=4_000,
    )
    key = f"quarantine/{model}/{fact.start:%Y%m%dT%H%M%S}"
    notice = notices.quarantined((fact,), owner, key=key)
    if turn == "closes":
        notice = notices.let_go((fact,), owner, key=key, at=fault.closes)
    return (
        addressed(
            fleet,
            notice,
            severity=severity_of_stage(notice.stage, family),
            origin=Origin.DATA,
            feature=quarantined_feature(fact, family),
            group=quarantine_group(fact, fleet),
        ),
    )


def _of_rollout(system: System, fault: Fault, turn: str) -> tuple[Notice, ...]:
    fleet, model = system.fleet, ModelId(fault.models[0])
    back = fault.kind == "rolled-back"
    if back and turn == "closes":
        return ()
    ends, number = turn == "closes", int(fault.name.partition("-")[0])
    phase = Phase.ROLLED_BACK if back else Phase.CHAMPION if ends else Phase.CANARY
    made = Rollout(
        model=model,
        order=f"order-{fault.name}",
        epoch=2 * number + ends,
        version=10 + number,
        digest="0" * 64,
        artifact="m.onnx",
        champion=3,
        phase=phase,
        reason="it predicts worse than the champion" if back else "its interval is too wide",
        begun=fault.opens - timedelta(hours=5),
        since=fault.opens,
        held=None if back or ends else "policy",
    )
    step = Advanced(model=model, at=fault.closes if ends else fault.opens, rollout=made)
    stage = Stage.ROLLED_BACK if back else Stage.PROMOTED if ends else Stage.HELD
    notice = notices.rollout(step, stage, fleet.owner(model))
    severity = severity_of_stage(stage, fleet.family(model))
    return (addressed(fleet, notice, severity=severity, version=made.version),)
