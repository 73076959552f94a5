"""The state machine of a rollout: where it is, what was seen, the policy and now; then what next.

    Shadow -> Canary (share by share) -> Promoting -> Watched -> Champion
       any of these: certain harm, or a limit -> RollingBack -> RolledBack
       Promoting: it failed -> Stuck, from which a person, or a limit, leads out

A person may hold, promote or roll back in every phase. A hold stops what goes forward; harm that
is certain ends it. What acts on the world (the head, the registry) is the caller's: it does what
PROMOTING and ROLLING_BACK say, and reports `taken`, `failed` or `gone_back`.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from driftloop.errors import BadRequest
from driftloop.records import Candidate, Finding, Harm, Head, Phase, Rollout
from driftloop.spec import RolloutPolicy

QUALITIES = ("quality", "quality of own rows")
"""What findings are called that wait for labels."""
_FORWARD = (Phase.SHADOW, Phase.CANARY, Phase.WATCHED)
"""Phases that end by themselves, once they lasted and showed no harm."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a phase has shown so far.

    `rows` and `labels` are the challenger's in this phase, labelled ones among them; `champion`
    is the version that answers now. `refused` is why the challenger's file cannot answer at all.
    """

    champion: int
    rows: int = 0
    labels: int = 0
    findings: tuple[Finding, ...] = ()
    refused: str = ""

    @property
    def harm(self) -> Finding | None:
        """The first finding that shows harm for certain."""
        return next((each for each in self.findings if each.harm is Harm.CERTAIN), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Next:
    """Where a rollout goes, or why it stays, and until when at the latest."""

    rollout: Rollout
    reason: str
    until: datetime | None = None


def begun(
    candidate: Candidate, version: int, *, champion: Head, policy: RolloutPolicy, now: datetime
) -> Rollout:
    """Return the rollout of `candidate`, registered as `version`, in its first phase."""
    made = Rollout(
        model=candidate.order.model,
        order=candidate.order.key,
        epoch=champion.epoch + 1,
        version=version,
        digest=candidate.digest,
        artifact=candidate.artifact,
        champion=champion.version,
        phase=Phase.SHADOW,
        reason="it passed its gate",
        begun=now,
        since=now,
    )
    if policy.shadow:
        return made
    return replace(made, phase=Phase.CANARY, share=policy.shares[0])


def advance(rollout: Rollout, seen: Seen, policy: RolloutPolicy, now: datetime) -> Next:
    """Return where `rollout` goes now, with the reason; the same rollout where it stays.

    The epoch is the caller's to set.
    """
    if not rollout.is_open:
        return _stays(rollout, "it has come to its end")
    if rollout.phase is Phase.ROLLING_BACK:
        return _stays(rollout, _held(rollout) or "the champion before it is made to answer alone")
    if why := _against(rollout, seen):
        return _goes(rollout, Phase.ROLLING_BACK, why, now)
    if rollout.held is not None:
        return _stays(rollout, _held(rollout))
    if rollout.phase in _FORWARD:
        return _forward(rollout, seen, policy, now)
    return _halfway(rollout, policy, now)


# -- what came of acting ----------------------------------------------------------------------


def taken(rollout: Rollout, policy: RolloutPolicy, now: datetime) -> Rollout:
    """Return the rollout of a challenger that has become champion."""
    if policy.watch:
        said = f"it answers; compared with version {rollout.champion} for {_long(policy.watch)}"
        return _goes(rollout, Phase.WATCHED, said, now).rollout
    return _goes(rollout, Phase.CHAMPION, "it answers", now).rollout


def failed(rollout: Rollout, why: str, now: datetime) -> Rollout:
    """Return the rollout of a challenger that could not be made champion, or not be undone."""
    return _goes(rollout, Phase.STUCK, why, now).rollout


def gone_back(rollout: Rollout, now: datetime) -> Rollout:
    """Return the rollout of a challenger that answers nothing any more; its reason stays."""
    return _goes(rollout, Phase.ROLLED_BACK, rollout.reason, now).rollout


def to_be_moved_back(rollout: Rollout, champion: Head) -> bool:
    """Return whether a rollout that goes back has made its challenger champion already."""
    return rollout.phase is Phase.ROLLING_BACK and champion.version == rollout.version


# -- a person's word --------------------------------------------------------------------------


def held(rollout: Rollout, who: str) -> Rollout:
    """Return the rollout, held where it is.

    Raises:
        BadRequest: it is held already.
    """
    if rollout.held is not None:
        raise BadRequest(f"is held already, by {rollout.held}", where=rollout.model)
    return replace(rollout, held=who)


def resumed(rollout: Rollout, who: str, now: datetime) -> Rollout:
    """Return the rollout, no longer held; one that is stuck is promoted again.

    Raises:
        BadRequest: it is neither held nor stuck.
    """
    if rollout.phase is Phase.STUCK:
        return _goes(rollout, Phase.PROMOTING, f"resumed by {who}", now).rollout
    if rollout.held is None:
        raise BadRequest("is not held", where=rollout.model)
    return replace(rollout, held=None)


def promoted_by(rollout: Rollout, who: str, now: datetime) -> Rollout:
    """Return the rollout whose challenger is to be champion now, whatever was seen of it."""
    said = f"promoted by {who}"
    if rollout.phase is Phase.WATCHED:
        return _goes(rollout, Phase.CHAMPION, said, now).rollout
    return _goes(rollout, Phase.PROMOTING, said, now).rollout


def rolled_back_by(rollout: Rollout, who: str, now: datetime) -> Rollout:
    """Return the rollout whose challenger is to answer nothing any more."""
    return _goes(rollout, Phase.ROLLING_BACK, f"rolled back by {who}", now).rollout


# -- inside -----------------------------------------------------------------------------------


def _against(rollout: Rollout, seen: Seen) -> str:
    """Return why a rollout must not go on, whoever holds it; empty when nothing is known."""
    if seen.refused:
        return f"version {rollout.version} is refused: {seen.refused}"
    if seen.harm is not None:
        return seen.harm.said
    if seen.champion not in _expected(rollout):
        return f"version {seen.champion} was made champion meanwhile"
    return ""


def _halfway(rollout: Rollout, policy: RolloutPolicy, now: datetime) -> Next:
    """Return what follows on a promotion that has begun, or is stuck."""
    until, length = rollout.since + policy.patience, _long(policy.patience)
    if rollout.phase is Phase.PROMOTING:
        if now >= until:
            return _goes(rollout, Phase.STUCK, f"not promoted within {length}", now)
        return _stays(rollout, "it is made champion", until)
    if now >= until:
        said = f"stuck for {length}, and nobody helped: {rollout.reason}"
        return _goes(rollout, Phase.ROLLING_BACK, said, now)
    return _stays(rollout, f"stuck, a person has to look: {rollout.reason}", until)


def _forward(rollout: Rollout, seen: Seen, policy: RolloutPolicy, now: datetime) -> Next:
    """Return what follows on a phase that nobody holds and that shows no certain harm."""
    ready = rollout.since + _least(rollout.phase, policy)
    if now < ready:
        length = _long(ready - rollout.since)
        return _stays(rollout, f"{rollout.named} lasts {length} at least", ready)
    if rollout.phase is Phase.WATCHED:
        return _goes(rollout, Phase.CHAMPION, "no harm was seen since it answers", now)
    until = max(rollout.since + policy.patience, ready + policy.labels)
    if lacking := _lacking(rollout, seen, policy):
        if now >= until:
            said = f"not shown to do no harm within {_long(until - rollout.since)}: {lacking}"
            return _goes(rollout, Phase.ROLLING_BACK, said, now)
        return _stays(rollout, lacking, until)
    unlabelled, late = _unlabelled(seen, policy), ready + policy.labels
    if unlabelled and now < late:
        return _stays(rollout, f"late labels are awaited: {unlabelled}", late)
    return _onward(rollout, seen, policy, now, unlabelled=unlabelled)


def _onward(
    rollout: Rollout, seen: Seen, policy: RolloutPolicy, now: datetime, *, unlabelled: str
) -> Next:
    """Return the next share, or the promotion."""
    shown = f"no harm on {seen.rows} rows"
    said = f"{shown}; {unlabelled}, so the gate's word stands" if unlabelled else shown
    larger = [share for share in policy.shares if share > rollout.share]
    if larger:
        return _goes(rollout, Phase.CANARY, said, now, share=larger[0])
    return _goes(rollout, Phase.PROMOTING, said, now)


def _lacking(rollout: Rollout, seen: Seen, policy: RolloutPolicy) -> str:
    """Return what the phase has yet to show, labels aside; empty when nothing."""
    if seen.rows < policy.min_rows:
        return f"{seen.rows} of {policy.min_rows} rows answered in {rollout.named}"
    unsure = [f for f in seen.findings if f.harm is Harm.UNSURE and f.what not in QUALITIES]
    return "; ".join(finding.said for finding in unsure)


def _unlabelled(seen: Seen, policy: RolloutPolicy) -> str:
    """Return why quality cannot be told yet; empty when it was compared and does no harm."""
    found = [each for each in seen.findings if each.what in QUALITIES]
    if any(each.harm is Harm.NONE for each in found):
        return ""
    if found and seen.labels >= policy.min_labels:
        return found[0].said
    return f"{seen.labels} of {policy.min_labels} rows labelled"


def _expected(rollout: Rollout) -> tuple[int, ...]:
    """Return the versions that may be champion in this phase."""
    match rollout.phase:
        case Phase.PROMOTING | Phase.STUCK:
            # It may have moved just before its process died.
            return rollout.champion, rollout.version
        case Phase.WATCHED:
            return (rollout.version,)
    return (rollout.champion,)


def _least(phase: Phase, policy: RolloutPolicy) -> timedelta:
    match phase:
        case Phase.SHADOW:
            return policy.shadow
        case Phase.WATCHED:
            return policy.watch
    return policy.step


def _goes(
    rollout: Rollout, phase: Phase, reason: str, now: datetime, *, share: float | None = None
) -> Next:
    if share is None:
        share = rollout.share
        if phase in {Phase.WATCHED, Phase.CHAMPION}:
            share = 1.0
        elif phase in {Phase.ROLLING_BACK, Phase.ROLLED_BACK}:
            share = 0.0
    moved = replace(rollout, phase=phase, share=share, reason=reason, since=now, held=None)
    return Next(rollout=moved, reason=reason)


def _stays(rollout: Rollout, reason: str, until: datetime | None = None) -> Next:
    return Next(rollout=rollout, reason=reason, until=until)


def _held(rollout: Rollout) -> str:
    return f"held by {rollout.held}" if rollout.held is not None else ""


def _long(length: timedelta) -> str:
    """Return a length of time in words.

    >>> _long(timedelta(minutes=90)), _long(timedelta(days=2))
    ('1.5 h', '2 d')
    """
    seconds = length.total_seconds()
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"
