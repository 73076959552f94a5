"""What an owner is told at each stage of an incident, in words. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, time

from driftloop.records import (
    Advanced,
    Cause,
    Decision,
    Evidence,
    GateResult,
    Kind,
    Level,
    Link,
    ModelId,
    Notice,
    Order,
    Partition,
    Phase,
    Quarantined,
    Reading,
    Released,
    Stage,
    State,
    Task,
    Verdict,
    metric_name,
)
from driftloop.route import at_fault
from driftloop.spec import Family, Owner, RolloutPolicy
from driftloop.trace import in_words

SHOWN = 6
OF_DATA = "/data"
"""How the incident ends that tells who owns the data of one which began as the model's."""
OF_ROLLOUT = "rollout/"
"""How the incident of a rollout begins that is told in no other's thread."""
OF_QUARANTINE = "quarantine/"
"""Likewise of rows in quarantine."""


@dataclass(frozen=True, slots=True)
class Places:
    """Addresses that a notice links to, without a trailing slash."""

    pages: str
    prefect: str

    def model(self, model: ModelId) -> Link:
        """Return the link to the page of `model`."""
        return Link(text="model", url=f"{self.pages}/models/{model}")

    def report(self, decision: Decision) -> Link:
        """Return the link to Evidently's report on the very rows that were judged."""
        return Link(text="drift report", url=f"{self.pages}/reports/{decision.key}")

    def runs(self) -> Link:
        """Return the link to the flow runs."""
        return Link(text="flow runs", url=f"{self.prefect}/runs")


def opened(
    decision: Decision,
    family: Family,
    owner: Owner,
    places: Places,
    cause: Cause | None = None,
    *,
    of: str = "",
) -> Notice:
    """Return the page itself: what broke, by how much, since when, why, and what is being done.

    `of` is what its incident ends in, where it is told apart from the model's.
    """
    return _notice(
        decision,
        Stage.OPENED,
        owner,
        key=f"{decision.incident}{of}/opened",
        incident=f"{decision.incident or decision.key}{of}",
        headline=_headline(decision, family),
        about=_about(decision, cause),
        doing=_doing(decision),
        evidence=(
            *_cause(cause),
            *_evidence(decision.verdicts, family),
            *_worst(decision, family),
        ),
        links=(places.model(decision.model), places.report(decision), places.runs()),
    )


def worsened(
    decision: Decision, family: Family, owner: Owner, places: Places, cause: Cause | None = None
) -> Notice:
    """Return that an incident that was about columns is about harm now."""
    return _notice(
        decision,
        Stage.WORSENED,
        owner,
        key=f"{decision.incident}/worsened/{decision.key}",
        incident=decision.incident or decision.key,
        headline=_headline(decision, family),
        about=_about(decision, cause),
        doing=_doing(decision),
        evidence=(
            *_cause(cause),
            *_evidence(decision.verdicts, family),
            *_worst(decision, family),
        ),
        links=(places.model(decision.model), places.report(decision)),
    )


def of_data(
    decision: Decision, family: Family, owner: Owner, places: Places, cause: Cause | None = None
) -> Notice:
    """Return the page to who owns the data of an open incident that turned out to be theirs."""
    return opened(decision, family, owner, places, cause, of=OF_DATA)


def blocked(
    decision: Decision, family: Family, owner: Owner, places: Places, cause: Cause | None = None
) -> Notice:
    """Return that the data of an open incident is at fault, so that retraining waits."""
    return _notice(
        decision,
        Stage.BLOCKED,
        owner,
        key=f"{decision.incident}/blocked/{decision.key}",
        incident=decision.incident or decision.key,
        headline=_headline(decision, family),
        about=_about(decision, cause),
        doing=f"Not retraining: {decision.blocked or 'the data is at fault'}.",
        evidence=(*_cause(cause), *_evidence(decision.verdicts, family)),
        links=(places.model(decision.model), places.report(decision)),
    )


def recovered(
    decision: Decision, family: Family, owner: Owner, places: Places, *, of: str = ""
) -> Notice:
    """Return the end of an incident, or of what was told apart of it; see `opened`."""
    return _notice(
        decision,
        Stage.RECOVERED,
        owner,
        key=f"{decision.resolves}{of}/recovered",
        incident=f"{decision.resolves or decision.key}{of}",
        headline=f"{decision.model} has recovered",
        doing=f"Nothing more to do: {decision.reason}.",
        evidence=_evidence(decision.verdicts, family, levels=(Level.OK, Level.WARN)),
        links=(places.model(decision.model), places.report(decision)),
    )


def retraining(order: Order, owner: Owner, at: datetime, since: datetime) -> Notice:
    """Return that a candidate is being made."""
    return _renewal(
        order,
        Stage.RETRAINING,
        owner,
        at=at,
        since=since,
        headline=f"{order.model} is being retrained",
        doing=(
            f"Training on rows from {order.window.start:%Y-%m-%d} to {order.holdout_from:%Y-%m-%d};"
            " what is newer is held out for the gate." + _left_out(order)
        ),
    )


def promoted(
    order: Order,
    owner: Owner,
    at: datetime,
    since: datetime,
    *,
    version: int,
    result: GateResult,
    elsewhere: bool = False,
    still: str = "",
) -> Notice:
    """Return that a new version answers, or was handed to who serves it, and why.

    `still` says by how much it is worse itself than its predecessor was when it was new.
    """
    if elsewhere:
        headline = f"{order.model}: version {version} was handed over"
        doing = f"Who serves it took version {version}: {result.reason}."
    else:
        headline = f"{order.model} is answered by version {version}"
        doing = f"Version {version} answers now: {result.reason}."
    return _renewal(
        order,
        Stage.PROMOTED,
        owner,
        at=at,
        since=since,
        headline=headline,
        doing=f"{doing} {still}".rstrip(),
        evidence=_gate_evidence(result),
    )


def refused(
    order: Order, owner: Owner, at: datetime, since: datetime, *, version: int, result: GateResult
) -> Notice:
    """Return that a candidate was refused; the champion keeps answering."""
    return _renewal(
        order,
        Stage.REFUSED,
        owner,
        at=at,
        since=since,
        headline=f"{order.model}: version {version} was refused",
        doing=(
            f"The gate refused version {version}: {result.reason}. The champion keeps answering;"
            " the next attempt follows after the cooldown if it is still needed."
        ),
        evidence=_gate_evidence(result),
    )


def failed(order: Order, owner: Owner, at: datetime, since: datetime, *, error: str) -> Notice:
    """Return that nothing came of an order; the champion keeps answering."""
    return _renewal(
        order,
        Stage.FAILED,
        owner,
        at=at,
        since=since,
        headline=f"{order.model} was not renewed",
        doing=f"Its renewal came to nothing: {error}. The champion keeps answering.",
    )


def stage_of(step: Advanced, policy: RolloutPolicy, now: datetime) -> Stage | None:
    """Return what the newest step of a rollout calls for being told now, if it does."""
    rollout = step.rollout
    if rollout.held is not None:
        # A hold is a step of its own: the fact's time is when it began.
        return Stage.HELD if now - step.at >= policy.held else None
    return {
        Phase.WATCHED: Stage.PROMOTED,
        Phase.CHAMPION: Stage.PROMOTED,
        Phase.ROLLED_BACK: Stage.ROLLED_BACK,
        Phase.STUCK: Stage.STUCK,
        # A pass carries it to its end, or could not.
        Phase.ROLLING_BACK: Stage.STUCK,
    }.get(rollout.phase)


def rollout(step: Advanced, stage: Stage, owner: Owner, *, incident: str | None = None) -> Notice:
    """Return how a rollout stands, for the thread of `incident`, or as a message of its own."""
    made = step.rollout
    named, why = f"version {made.version}", made.reason
    back = made.phase is Phase.ROLLING_BACK
    headline, doing = {
        Stage.PROMOTED: (
            f"{step.model} is answered by {named}",
            f"Its rollout has come to the front: {why}.",
        ),
        Stage.ROLLED_BACK: (
            f"{step.model}: {named} was rolled back",
            f"Version {made.champion} answers alone: {why}.",
        ),
        Stage.STUCK: (
            f"{step.model}: {named} could not be {'rolled back' if back else 'made champion'}",
            f"It is to be rolled back, and each pass tries again: {why}."
            if back
            else f"Version {made.champion} keeps answering: {why}. Once it is mended:"
            f" `driftloop rollout resume {step.model}`, or `rollback`.",
        ),
        Stage.HELD: (
            f"{step.model}: the rollout of {named} is held",
            (
                f"Held in {made.named} by {made.held} since {step.at:%Y-%m-%d %H:%M} UTC:"
                f" `driftloop rollout resume {step.model}`, `promote` or `rollback`."
            ),
        ),
    }[stage]
    grouped = incident or f"{OF_ROLLOUT}{step.model}#{made.version}"
    return Notice(
        key=f"{grouped}/{stage}/{made.order}",
        incident=grouped,
        model=step.model,
        stage=stage,
        at=step.at,
        since=made.begun,
        channel=owner.channel,
        mention=owner.mention,
        headline=headline,
        doing=doing,
        evidence=tuple(
            # The words say the limit.
            Evidence(what=each.what, value=each.said, limit="", n=each.n)
            for each in step.findings
        ),
    )


def quarantined(facts: Sequence[Quarantined], owner: Owner, *, key: str) -> Notice:
    """Return that partitions in a row, of which `facts` tell, train nothing, and until when."""
    first, last = facts[0], facts[-1]
    rows = sum(fact.rows for fact in facts)
    span = f"{first.start:%Y-%m-%d %H:%M} to {last.end:%Y-%m-%d %H:%M} UTC"
    day = f"{first.start:%Y-%m-%d}{'' if first.start.time() == time() else f' {first.start:%H:%M}'}"
    until = f" --until {last.start:%Y-%m-%d}" if last.start.date() != first.start.date() else ""
    by = f" by {first.who}" if first.who is not None else ""
    return Notice(
        key=f"{key}/{Stage.QUARANTINED}",
        incident=key,
        model=first.model,
        stage=Stage.QUARANTINED,
        at=first.at,
        since=first.start,
        until=max(fact.until for fact in facts),
        channel=owner.channel,
        mention=owner.mention,
        headline=f"{first.model}: rows of {day} are in quarantine{by}",
        doing=(
            f"{rows:,} rows, {span}, train nothing until {first.until:%Y-%m-%d %H:%M} UTC, when"
            " they are checked again. If they are right:"
            f" `driftloop quarantine release {first.model} {first.start:%Y-%m-%d}{until}"
            ' --why "..."`.'
        ),
        evidence=tuple(
            Evidence(what=what, value=said or "", limit="", n=first.rows)
            for what, _, said in (reason.partition(": ") for reason in first.reasons[:SHOWN])
        ),
    )


def released(fact: Released, of: Quarantined, owner: Owner, *, key: str) -> Notice:
    """Return that rows which were in quarantine train again, in the thread that told of it."""
    return Notice(
        key=f"{key}/{Stage.RELEASED}/{fact.at:%Y%m%dT%H%M%S}",
        incident=key,
        model=fact.model,
        stage=Stage.RELEASED,
        at=fact.at,
        since=of.start,
        channel=owner.channel,
        mention=owner.mention,
        headline=f"{fact.model}: rows were released by {fact.who}",
        doing=(
            f"Rows of {fact.start:%Y-%m-%d %H:%M} to {fact.end:%Y-%m-%d %H:%M} UTC train again:"
            f" {fact.why}."
        ),
    )


def let_go(facts: Sequence[Quarantined], owner: Owner, *, key: str, at: datetime) -> Notice:
    """Return that a quarantine is over by itself, in the thread that told of it."""
    first, last = facts[0], facts[-1]
    return Notice(
        key=f"{key}/{Stage.RELEASED}/over",
        incident=key,
        model=first.model,
        stage=Stage.RELEASED,
        at=at,
        since=first.start,
        channel=owner.channel,
        mention=owner.mention,
        headline=f"{first.model}: rows of {first.start:%Y-%m-%d %H:%M} are out of quarantine",
        doing=(
            f"It ended on {last.until:%Y-%m-%d %H:%M} UTC: they are checked again before they"
            " train, and are in quarantine anew if they are as bad."
        ),
    )


def doubted(
    partition: Partition, why: Sequence[str], decision: Decision, owner: Owner, at: datetime
) -> Notice:
    """Return that labels may be wrong, which nobody can tell from a change of the world yet."""
    day = f"{partition.start:%Y-%m-%d}"
    return Notice(
        key=f"{decision.incident}/{Stage.DOUBTED}/{partition.start:%Y%m%dT%H%M%S}",
        incident=decision.incident or decision.key,
        model=partition.model,
        stage=Stage.DOUBTED,
        at=at,
        since=decision.since or decision.at,
        channel=owner.channel,
        mention=owner.mention,
        headline=f"{partition.model}: the labels of {day} may be wrong",
        doing=(
            f"{'; '.join(why)}. They train all the same. If they are wrong:"
            f" `driftloop quarantine add {partition.model} {day}`."
        ),
    )


def _notice(  # noqa: PLR0913 - the parts of a notice
    decision: Decision,
    stage: Stage,
    owner: Owner,
    *,
    key: str,
    incident: str,
    headline: str,
    doing: str,
    evidence: tuple[Evidence, ...],
    links: tuple[Link, ...],
    about: str = "",
) -> Notice:
    return Notice(
        key=key,
        incident=incident,
        model=decision.model,
        stage=stage,
        at=decision.at,
        since=decision.since or decision.at,
        channel=owner.channel,
        mention=owner.mention,
        headline=headline,
        doing=doing,
        evidence=evidence,
        links=links,
        about=about,
        retrains=decision.retrain,
    )


def _left_out(order: Order) -> str:
    """Return how many rows of an order's window are in quarantine, to follow a sentence."""
    rows = sum(span.rows for span in order.window.left_out)
    return f" {rows:,} rows in quarantine are left out." if rows else ""


def _renewal(
    order: Order,
    stage: Stage,
    owner: Owner,
    *,
    at: datetime,
    since: datetime,
    headline: str,
    doing: str,
    evidence: tuple[Evidence, ...] = (),
) -> Notice:
    incident = order.incident or order.key
    return Notice(
        key=f"{incident}/{stage}/{order.key}",
        incident=incident,
        model=order.model,
        stage=stage,
        at=at,
        since=since,
        channel=owner.channel,
        mention=owner.mention,
        headline=headline,
        doing=doing,
        evidence=evidence,
    )


def _about(decision: Decision, cause: Cause | None) -> str:
    """Return the column that the cause lies in, or that is at fault; "" where none is."""
    if cause is not None and cause.carriers:
        return cause.carriers[0].name.split(".")[0].split("=")[0]
    return at_fault(decision, cause) or ""


def _doing(decision: Decision) -> str:
    if decision.retrain:
        return "Retraining on the most recent labelled rows; the gate decides if it may answer."
    if decision.blocked is not None:
        return f"Not retraining: {decision.blocked}."
    return "Watching; the policy does not retrain for this."


def _headline(decision: Decision, family: Family) -> str:
    if decision.state is State.DATA_FAULT:
        return f"{decision.model}: its data looks wrong"
    for verdict in decision.verdicts:
        reading = verdict.reading
        if verdict.level is Level.ALARM and reading.kind in (Kind.DECAY, Kind.ESTIMATE):
            value, usual = reading.value or 0.0, reading.baseline or 0.0
            worse = abs(value - usual) / max(abs(usual), 1e-12)
            unit = _unit(reading, family)
            return (
                f"{decision.model} predicts worse: {metric_name(reading.metric)} {value:.3g}{unit},"
                f" {worse:.0%} worse than the {usual:.3g}{unit} it was released with"
            )
    fresh = _fresh_headline(decision)
    if fresh is not None:
        return fresh
    drifted = [v for v in decision.verdicts if _is_drift_alarm(v)]
    if decision.state is State.DRIFTING and drifted:
        # The prediction itself if it moved, or whatever moved most.
        most = max(drifted, key=lambda v: (v.reading.column == "prediction", v.reading.value or 0))
        moved = most.reading
        what = "its scores have" if moved.column == "prediction" else f"{moved.column} has"
        more = f", and {len(drifted) - 1} columns more" if len(drifted) > 1 else ""
        return (
            f"{decision.model}: {what} drifted: {metric_name(moved.metric)} {moved.value:.3g},"
            f" limit {most.limit:g}{more}"
        )
    return f"{decision.model} is {decision.state}"


def _fresh_headline(decision: Decision) -> str | None:
    """Return what was found on fresh rows, sooner than the window shows it."""
    found = [v for v in decision.verdicts if v.reading.kind is Kind.FRESH]
    if not found or decision.state not in (State.DECAYING, State.DRIFTING):
        return None
    if decision.state is State.DECAYING:
        harm = [v for v in found if v.reading.column is None]
        return f"{decision.model} predicts worse: {harm[0].reason}" if harm else None
    # The prediction itself if it moved, or whatever moved most.
    most = max(found, key=lambda v: (v.reading.column == "prediction", abs(v.reading.value or 0.0)))
    moved = most.reading
    what = "its predictions have" if moved.column == "prediction" else f"{moved.column} has"
    more = f", and {len(found) - 1} more" if len(found) > 1 else ""
    return f"{decision.model}: {what} drifted: {most.reason}{more}"


def _is_drift_alarm(verdict: Verdict) -> bool:
    return verdict.level is Level.ALARM and verdict.reading.kind is Kind.DRIFT


def _evidence(
    verdicts: tuple[Verdict, ...], family: Family, *, levels: tuple[Level, ...] = (Level.ALARM,)
) -> tuple[Evidence, ...]:
    kinds = (Kind.QUALITY, Kind.DECAY, Kind.ESTIMATE, Kind.FRESH, Kind.DRIFT)
    order = {kind: at for at, kind in enumerate(kinds)}
    if Level.OK in levels:  # what has recovered, and not all that was well before
        score = family.task is Task.SCORE
        decisive = (Kind.DRIFT, "prediction") if score else (Kind.DECAY, None)
        verdicts = tuple(v for v in verdicts if (v.reading.kind, v.reading.column) == decisive)
    picked = sorted(
        (v for v in verdicts if v.level in levels),
        key=lambda v: (order[v.reading.kind], -(v.reading.value or 0.0)),
    )
    return tuple(_line(verdict, family) for verdict in picked[:SHOWN])


def _cause(cause: Cause | None) -> tuple[Evidence, ...]:
    return (
        () if cause is None else (Evidence(what="Cause", value=in_words(cause), limit="", n=None),)
    )


def _worst(decision: Decision, family: Family) -> Iterator[Evidence]:
    for reading in decision.worst[:1]:
        yield Evidence(
            what=f"worst in {reading.segment}: {metric_name(reading.metric)}",
            value=_value(reading, family),
            limit="",
            n=reading.n,
        )


def _line(verdict: Verdict, family: Family) -> Evidence:
    reading = verdict.reading
    name = metric_name(reading.metric)
    if reading.kind is Kind.FRESH:
        name = f"{name} of the newest rows" if reading.column is None else f"newest {name}"
    if reading.kind is Kind.ESTIMATE:
        name = f"{name}, estimated before all labels are there"
    return Evidence(
        what=f"{name} of {reading.column}" if reading.column else name,
        value=_value(reading, family),
        limit=_limit(verdict, _unit(reading, family)),
        n=reading.n,
    )


def _value(reading: Reading, family: Family) -> str:
    if reading.value is None:
        return "unknown"
    interval = (
        f" ({reading.low:.3g} to {reading.high:.3g})"
        if reading.low is not None and reading.high is not None
        else ""
    )
    return f"{reading.value:.3g}{_unit(reading, family)}{interval}"


def _unit(reading: Reading, family: Family) -> str:
    unit = family.unit_of(reading.metric)
    return f" {unit}" if unit else ""


def _limit(verdict: Verdict, unit: str) -> str:
    reading, limit = verdict.reading, verdict.limit
    if limit is None:
        return "none"
    if reading.kind in (Kind.DECAY, Kind.ESTIMATE) and reading.baseline is not None:
        return f"{limit:.0%} worse than {reading.baseline:.3g}{unit}"
    return f"{limit:.3g}"


def _gate_evidence(result: GateResult) -> tuple[Evidence, ...]:
    if result.champion_loss is None or result.gain is None:
        return ()
    interval = (
        f" ({result.low:+.1%} to {result.high:+.1%})"
        if result.low is not None and result.high is not None
        else ""
    )
    return (
        Evidence(
            what=f"{metric_name(result.loss)} of the candidate on held-out rows",
            value=f"{result.candidate_loss:.4g}, gain {result.gain:+.1%}{interval}",
            limit=f"the champion's {result.champion_loss:.4g}",
            n=result.n,
        ),
    )
