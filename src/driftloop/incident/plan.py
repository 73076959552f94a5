"""What is still to be done so that people see an incident as it stands."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from driftloop.incident.fold import GONE, REFUSED
from driftloop.incident.stages import (
    BEGINS,
    NEEDS_A_PERSON,
    OF_QUARANTINE,
    OF_TELLING,
    is_of,
    turn,
)
from driftloop.records import Fact, Incident, Noted, Notice, Posted, Stage, Status

GATHER = timedelta(minutes=10)
"""So long what needs nobody is gathered for one line in the thread of many models."""
SOON = timedelta(minutes=1)
"""Likewise what calls somebody, and need not at once: one call for all that ends alike."""
AGAIN = 2
"""How often a message is posted that somebody deletes."""
_AT_ONCE = (BEGINS - {Stage.OPENED, Stage.QUARANTINED}) | OF_TELLING
_CALLS = NEEDS_A_PERSON - {Stage.OPENED}
_UNSEEN = frozenset({Status.WAITING, Status.SILENCED, Status.EXPLAINED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be done, in this order.

    `post` are channels in which it is to stand; `update` the messages that show something older;
    `stands` all of them; `covered` notices that the message itself has told; `batches` those for
    the thread, as they are told together. `over` says that nothing will follow, and `due` when it
    is to be looked at again.
    """

    post: tuple[str, ...] = ()
    update: tuple[Posted, ...] = ()
    stands: tuple[Posted, ...] = ()
    covered: tuple[Notice, ...] = ()
    batches: tuple[tuple[Notice, ...], ...] = ()
    over: bool = False
    due: datetime | None = None

    @property
    def is_done(self) -> bool:
        """Say whether there is nothing to do now."""
        return not (self.post or self.update or self.covered or self.batches)


def plan(
    incident: Incident,
    facts: Sequence[Fact],
    *,
    told: frozenset[str],
    channels: Sequence[str],
    shows: str,
    now: datetime,
    fallback: str | None = None,
    may_open: bool = True,
) -> Plan:
    """Return what is to be done about `incident`.

    Args:
        incident: as it stands.
        facts: what it is made of.
        told: the keys of its notices that were told.
        channels: the owner's, then those of who was told because nobody acknowledged.
        shows: the digest of what its message should show.
        now: the loop's time.
        fallback: the channel that is told what another refuses for good.
        may_open: whether it may be told for the first time now.
    """
    posted = [fact for fact in facts if isinstance(fact, Posted)]
    newest = {fact.channel: fact for fact in posted}
    wanted = _wanted(channels, newest, fallback)
    stands = tuple(
        newest[channel]
        for channel in wanted
        if channel in newest and newest[channel].shown not in (GONE, REFUSED)
    )
    left = [notice for notice in incident.notices if notice.key not in told]
    as_part = _ended_as_part(incident, left, told)
    to_tell = bool(left) and not as_part
    post = _to_post(incident, wanted, posted, stands, may_open=may_open, left=to_tell)
    if not stands:
        # What people deleted again and again they want no more of.
        unwanted = (incident.told is not None or as_part) and not post
        over = not post and incident.status is Status.RESOLVED and not left
        return Plan(post=post, covered=tuple(left) if unwanted else (), over=over)
    covered = _covered(facts, left)
    rest = sorted((n for n in left if n not in covered), key=turn)
    due = _gathers_until(incident, rest, now)
    batches = _batches(rest) if due is None else ()
    update = tuple(fact for fact in stands if fact.shown != shows)
    done = not (post or update or covered or rest)
    return Plan(
        post=post,
        update=update,
        stands=stands,
        covered=covered,
        batches=batches,
        over=done and incident.status is Status.RESOLVED,
        due=due,
    )


def _wanted(
    channels: Sequence[str], newest: dict[str, Posted], fallback: str | None
) -> tuple[str, ...]:
    """Return where it is to stand; where it stands already it stays, should an owner move."""
    kept = [channel for channel, fact in newest.items() if fact.shown != REFUSED]
    wanted = []
    for number, each in enumerate(channels):
        channel = each
        if channel not in newest and number < len(kept) and kept[number] not in channels:
            channel = kept[number]
        if channel in newest and newest[channel].shown == REFUSED and fallback is not None:
            channel = fallback
        wanted.append(channel)
    return tuple(dict.fromkeys(wanted))


def _to_post(
    incident: Incident,
    wanted: Sequence[str],
    posted: Sequence[Posted],
    stands: Sequence[Posted],
    *,
    may_open: bool,
    left: bool,
) -> tuple[str, ...]:
    known = {fact.channel for fact in posted}
    gone = [fact.channel for fact in posted if fact.shown == GONE]
    standing = {fact.channel for fact in stands}
    again = tuple(
        channel
        for channel in wanted
        if channel in gone and channel not in standing and gone.count(channel) < AGAIN
    )
    new = tuple(channel for channel in wanted if channel not in known)
    if incident.status is Status.RESOLVED:
        # One that was over before anybody heard of it is told all the same, unless as another's.
        return new[:1] if incident.told is None and left and may_open else ()
    if incident.status in _UNSEEN:
        return again if known else ()
    if not left and incident.told is None and is_of(incident, OF_QUARANTINE):
        # It was told as part of data at fault, and asks for nothing once they are right.
        return ()
    if not stands and not again:
        return new[:1] if may_open or known else ()
    return (*again, *(new if incident.status is Status.OPEN else ()))


def _ended_as_part(incident: Incident, left: Sequence[Notice], told: frozenset[str]) -> bool:
    """Say whether it is over and was told as part of a larger one alone: so is its end."""
    if incident.status is not Status.RESOLVED or incident.told is not None:
        return False
    known = {notice.incident for notice in incident.notices if notice.key in told}
    return bool(left) and known >= {notice.incident for notice in left}


def _covered(facts: Sequence[Fact], left: Sequence[Notice]) -> tuple[Notice, ...]:
    """Return what began before the message was posted: the message tells it.

    So does it of a silence that ended before, whose end it waited for.
    """
    begun: dict[str, Notice] = {}
    ended: list[Notice] = []
    for fact in facts:
        if isinstance(fact, Posted) and fact.shown not in (GONE, REFUSED):
            break
        if isinstance(fact, Noted) and fact.notice.stage not in OF_TELLING:
            begun.setdefault(fact.notice.incident, fact.notice)
        elif isinstance(fact, Noted) and fact.notice.stage is Stage.EXPIRED:
            ended.append(fact.notice)
    return tuple(n for n in left if begun.get(n.incident) == n or n in ended)


def _gathers_until(incident: Incident, notices: Sequence[Notice], now: datetime) -> datetime | None:
    """Return until when notices wait for others like them, None when they are told now."""
    if len(incident.members) == 1 or not notices or incident.status is Status.RESOLVED:
        return None
    if any(notice.stage in _AT_ONCE for notice in notices):
        return None
    until = min(n.at + (SOON if n.stage in _CALLS else GATHER) for n in notices)
    return until if until > now else None


def _batches(notices: Sequence[Notice]) -> tuple[tuple[Notice, ...], ...]:
    """Return notices that are told together: of one stage, and no model's story out of order."""
    batches: list[list[Notice]] = []
    for notice in notices:
        for batch in reversed(batches):
            if batch[0].stage is notice.stage and notice.stage not in OF_TELLING:
                batch.append(notice)
                break
            if any(each.incident == notice.incident for each in batch):
                batches.append([notice])
                break
        else:
            batches.append([notice])
    return tuple(tuple(batch) for batch in batches)
