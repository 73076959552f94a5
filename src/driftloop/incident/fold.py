"""An incident as it stands, made of its facts."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime

from driftloop.incident.stages import (
    ENDS,
    OF_QUARANTINE,
    OF_ROLLOUT,
    OF_TELLING,
    begins,
    ends,
    turn,
)
from driftloop.records import (
    PLATFORM,
    Act,
    Acted,
    Fact,
    Grouped,
    Incident,
    Member,
    ModelId,
    Noted,
    Notice,
    Origin,
    Phase,
    Posted,
    Rollout,
    Severity,
    Stage,
    Status,
)
from driftloop.route import rank

GONE = "gone"
"""What a message shows that somebody deleted."""
REFUSED = "refused"
"""What stands in a channel that refuses for good."""


def fold(
    facts: Sequence[Fact],
    *,
    now: datetime,
    explained_by: str | None = None,
    versions: Mapping[ModelId, int] | None = None,
    rollouts: Mapping[ModelId, Rollout] | None = None,
    clickable: bool = True,
) -> Incident:
    """Return the incident that `facts` are of, as it stands `now`.

    It is never WAITING: whether it is to be told yet the policy knows, not the facts.

    Args:
        facts: all of the incident, in the order in which they were written.
        now: the loop's time.
        explained_by: a larger incident that it is part of now; see `explainer`.
        versions: which version answers for each model: a silence may end with it.
        rollouts: those that are open, for what may be done about them.
        clickable: whether anybody may press a button.

    Raises:
        ValueError: nothing was noted.
    """
    noted = [fact for fact in facts if isinstance(fact, Noted)]
    if not noted:
        msg = "an incident of which nothing was noted"
        raise ValueError(msg)
    notices = tuple(fact.notice for fact in noted)
    grouped = [fact for fact in facts if isinstance(fact, Grouped)]
    posted = [fact for fact in facts if isinstance(fact, Posted) and fact.shown != REFUSED]
    acts = tuple(fact for fact in facts if isinstance(fact, Acted))
    about = [notice for notice in notices if notice.stage not in OF_TELLING] or list(notices)
    members = _members(about, now, rollouts or {})
    resolved, by_hand = _resolved(members, facts)
    ack, silence = _ack(acts, now), _silence(acts, now, versions or {})
    stands = silence if silence is not None else ack
    status = Status.OPEN
    if resolved is not None:
        status, stands = Status.RESOLVED, by_hand
    elif silence is not None:
        status = Status.SILENCED
    elif ack is not None:
        status = Status.ACKED
    elif explained_by is not None:
        status = Status.EXPLAINED
    return Incident(
        id=noted[0].incident,
        group=grouped[0].group if grouped else "",
        owner=grouped[0].owner if grouped else about[0].owner,
        severity=_severity(about),
        origin=_origin(about),
        status=status,
        opened=min(fact.at for fact in noted),
        since=min(member.since for member in members),
        members=members,
        notices=notices,
        acts=acts,
        who=stands.who if stands is not None else None,
        until=stands.until if stands is not None and resolved is None else None,
        until_version=stands.until_version if stands is not None and resolved is None else False,
        level=sum(notice.stage is Stage.ESCALATED for notice in notices),
        explained_by=explained_by if resolved is None else None,
        told=posted[0].at if posted else None,
        resolved=resolved,
        asks=_asks(status, members, notices, rollouts or {}) if clickable else (),
    )


def alone(notice: Notice, *, now: datetime | None = None) -> Incident:
    """Return the incident of one notice, of which no ledger knows."""
    at = now or notice.at
    fact = Noted(model=notice.model, at=at, notice=notice, incident=notice.incident)
    return fold((fact,), now=at, clickable=False)


def _members(
    notices: Sequence[Notice], now: datetime, rollouts: Mapping[ModelId, Rollout]
) -> tuple[Member, ...]:
    parts: dict[str, list[Notice]] = defaultdict(list)
    for notice in notices:
        parts[notice.incident].append(notice)
    return tuple(_member(alert, part, now, rollouts) for alert, part in parts.items())


def _member(
    alert: str, notices: Sequence[Notice], now: datetime, rollouts: Mapping[ModelId, Rollout]
) -> Member:
    newest = max(notices, key=turn)
    over = None
    for notice in sorted(notices, key=turn):
        if ends(notice):
            over = notice.at
        elif begins(notice):
            over = notice.until if notice.until is not None and notice.until <= now else None
    rollout = rollouts.get(newest.model)
    under_way = rollout.version if rollout is not None and rollout.is_open else None
    return Member(
        alert=alert,
        model=newest.model,
        stage=newest.stage,
        since=min(notice.since for notice in notices),
        at=newest.at,
        # What has recovered is still called by what was wrong.
        headline=next(
            (n.headline for n in sorted(notices, key=turn, reverse=True) if n.stage not in ENDS),
            newest.headline,
        ),
        version=under_way if over is None else None,
        over=over,
    )


def _resolved(
    members: Sequence[Member], facts: Sequence[Fact]
) -> tuple[datetime | None, Acted | None]:
    """Return when it was over, and by whose act.

    All of it is, or somebody said so and nothing began after that.
    """
    by_hand = None
    for fact in facts:
        if isinstance(fact, Acted) and fact.act in (Act.RESOLVE, Act.NO_PROBLEM):
            by_hand = by_hand or fact
        elif isinstance(fact, Noted) and begins(fact.notice):
            by_hand = None
    if by_hand is not None:
        return by_hand.at, by_hand
    over = [member.over for member in members if member.over is not None]
    return (max(over) if len(over) == len(members) else None), None


def _ack(acts: Sequence[Acted], now: datetime) -> Acted | None:
    newest = _last(acts, Act.ACK)
    return newest if newest is not None and (newest.until is None or newest.until > now) else None


def _silence(acts: Sequence[Acted], now: datetime, versions: Mapping[ModelId, int]) -> Acted | None:
    newest = _last(acts, Act.SILENCE)
    if newest is None:
        return None
    if newest.until_version:
        return newest if versions.get(newest.model, newest.version) == newest.version else None
    return newest if newest.until is None or newest.until > now else None


def _last(acts: Sequence[Acted], *kinds: Act) -> Acted | None:
    return next((act for act in reversed(acts) if act.act in kinds), None)


def _severity(notices: Sequence[Notice]) -> Severity:
    return max((notice.severity for notice in notices), key=rank)


def _origin(notices: Sequence[Notice]) -> Origin:
    """Return the newest cause that is known."""
    known = [notice.origin for notice in notices if notice.origin is not Origin.UNKNOWN]
    return known[-1] if known else Origin.UNKNOWN


def _asks(
    status: Status,
    members: Sequence[Member],
    notices: Sequence[Notice],
    rollouts: Mapping[ModelId, Rollout],
) -> tuple[Act, ...]:
    """Return what makes sense now: nothing of what is over, and of a model only what it has."""
    if status is Status.RESOLVED:
        return ()
    asks = [Act.ACK] if status is not Status.ACKED else []
    asks.append(Act.SILENCE)
    left = [member for member in members if member.over is None]
    own = [m for m in left if not m.alert.startswith((OF_ROLLOUT, OF_QUARANTINE))]
    own = [member for member in own if member.model != PLATFORM]
    faulty = {notice.incident for notice in notices if notice.origin is Origin.DATA}
    busy = {Stage.RETRAINING, Stage.PROMOTED, Stage.BLOCKED}
    if any(m.stage not in busy and m.version is None and m.alert not in faulty for m in own):
        asks.append(Act.RETRAIN)
    theirs = {act for m in left if m.version for act in _of_rollout(rollouts[m.model])}
    asks += [act for act in Act if act in theirs]
    if own:
        asks.append(Act.NO_PROBLEM)
    return tuple(asks)


def _of_rollout(rollout: Rollout) -> tuple[Act, ...]:
    """Return what a person may do about a rollout as it stands."""
    if rollout.phase is Phase.STUCK:
        return (Act.RESUME, Act.ROLL_BACK)
    if rollout.phase in (Phase.SHADOW, Phase.CANARY):
        stands = Act.HOLD if rollout.held is None else Act.RESUME
        return (stands, Act.PROMOTE, Act.ROLL_BACK)
    return (Act.ROLL_BACK,) if rollout.phase is Phase.WATCHED else ()
