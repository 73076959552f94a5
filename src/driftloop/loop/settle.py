"""Slack is brought to what an incident's facts say: an intent, the act, then its record."""

import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from driftloop.errors import PagerError
from driftloop.incident import (
    GONE,
    REFUSED,
    shown,
)
from driftloop.incident.words import headline
from driftloop.loop.calling import to_line, to_message
from driftloop.loop.pauses import LONGEST, Pauses
from driftloop.loop.seeing import Looker, Seen, line_key
from driftloop.loop.standing import INCIDENT, Standing
from driftloop.ports import Clock, Ledger, Pager
from driftloop.records import (
    Acted,
    Address,
    Entry,
    Fact,
    Incident,
    Noted,
    Notice,
    Paged,
    Posted,
    Receipt,
    Stage,
    Status,
    Unsent,
)

_log = logging.getLogger(__name__)
LEASE = timedelta(seconds=60)
"""Of an incident, in wall time. After a third of it no further step is begun: the longest that
one takes, with all the waits of a pager, is well within the rest."""
POST, BATCH = "post/", "batch/"
ROUNDS = 500
"""More steps than bringing one incident up to date ever takes."""
BUSY = 0.5
"""Wall seconds until it is looked whether another process is done."""


@dataclass(frozen=True, slots=True)
class Told:
    """What came of a notice: told now, told before, or not yet and why."""

    notice: Notice
    told: bool
    why: str


@dataclass(frozen=True, slots=True)
class Settled:
    """What came of settling an incident.

    `due` is when to look at it again in the loop's time, `again` in wall seconds since 1970; both
    None where only something new will change it. `incident` is how it stands; `is_over` says that
    all of it is told.
    """

    incident: Incident | None = None
    told: tuple[Told, ...] = ()
    due: datetime | None = None
    again: float | None = None
    why: str = "told"
    is_over: bool = False


class _Refused(Exception):
    """A pager's refusal, and of which channel; of none where another process is at it."""

    def __init__(self, channel: str | None, error: PagerError) -> None:
        super().__init__(str(error))
        self.channel, self.error = channel, error


@dataclass(frozen=True, slots=True, kw_only=True)
class Settler:
    """Brings the messages of incidents up to date, one process an incident at a time."""

    standing: Standing
    ledger: Ledger
    pager: Pager
    clock: Clock
    wall: Callable[[], float]
    pauses: Pauses = field(default_factory=Pauses)

    @property
    def _looker(self) -> Looker:
        return Looker(
            standing=self.standing,
            ledger=self.ledger,
            clock=self.clock,
            wall=self.wall,
            pauses=self.pauses,
        )

    def settle(self, incident: str) -> Settled:
        """Return what came of telling all that is due of an incident; see `Settled`.

        Never raises for the pager's trouble: what could not be told is told another time.
        """
        seen = self._looker.look(incident)
        if seen is None:
            return Settled(why="nothing was noted")
        if seen.is_idle:
            return self._later(seen)
        key = INCIDENT + incident
        claimed = self.ledger.claim(key, lease=LEASE)
        if claimed.outcome is not None:
            self.ledger.reopen(key)
            claimed = self.ledger.claim(key, lease=LEASE)
        if not claimed.mine:
            return replace(
                self._later(seen), again=self.wall() + BUSY, why="another process is telling it"
            )
        told: list[Told] = []
        try:
            return self._settled(incident, told)
        except _Refused as refused:
            return self._refused(incident, refused, told)
        finally:
            self.ledger.release(key)

    def _settled(self, incident: str, told: list[Told]) -> Settled:
        until = time.monotonic() + (LEASE / 3).total_seconds()
        for _ in range(ROUNDS):
            seen = self._looker.look(incident)
            if seen is None or seen.is_idle:
                break
            if seen.is_over:
                return self._end(seen, told)
            self._step(seen, told)
            if time.monotonic() > until:
                more = replace(self._later(seen), told=tuple(told), again=self.wall())
                return replace(more, why="it takes long, and goes on in another turn")
        else:
            _log.error("%s does not come to rest", incident, extra={"trace": incident})
            return Settled(told=tuple(told), again=self.wall() + LONGEST, why="it does not settle")
        return Settled() if seen is None else replace(self._later(seen), told=tuple(told))

    def _later(self, seen: Seen) -> Settled:
        return Settled(
            incident=seen.incident,
            due=seen.due,
            again=seen.again,
            why=_waits(seen.incident),
            is_over=seen.is_over,
        )

    # -- acting -------------------------------------------------------------------------------

    def _step(self, seen: Seen, told: list[Told]) -> None:
        """Take one step; the next is decided anew, of the facts that there are then."""
        what, prefix = seen.plan, f"{BATCH}{seen.incident.id}//"
        if seen.timed:
            self.note(seen.incident, *seen.timed)
        elif what.post:
            self._post(seen, what.post[0])
        elif what.update:
            self._update(seen.incident, what.update[0])
        elif seen.explains:
            self._explain(seen, told)
        elif half := self.ledger.live(prefix):
            # What another process may have told half is told first, word for word.
            key, body = half[0]
            notices = {notice.key: notice for notice in seen.incident.notices}
            batch = [notices[each] for each in json.loads(body)]
            self._reply(seen, key.removeprefix(prefix), batch, told, body=body)
        elif what.covered:
            self._record(what.covered, self._receipt(seen), told)
        elif what.batches:
            batch = list(what.batches[0])
            name = batch[0].key if len(batch) == 1 else f"{batch[0].key}+{len(batch) - 1}"
            body = json.dumps([notice.key for notice in batch])
            self._reply(seen, name, batch, told, body=body)

    def note(self, incident: Incident, *notices: Notice) -> None:
        """Note what is about the telling of an incident."""
        now = self.clock.now()
        self.ledger.append_all(
            [
                (Noted(model=each.model, at=now, notice=each, incident=incident.id), each.key)
                for each in notices
            ]
        )

    def _post(self, seen: Seen, channel: str) -> None:
        incident, facts = seen.incident, seen.facts
        again = sum(
            isinstance(fact, Posted) and fact.channel == channel and fact.shown == GONE
            for fact in facts
        )
        key = f"{POST}{incident.id}/{channel}" + (f"/{again}" if again else "")
        claimed = self.ledger.claim(key, lease=LEASE)
        if not claimed.mine:
            raise _Refused(None, _busy(channel))
        to = Address(
            channel=channel, mention=to_message(self.standing, incident, channel, self.clock.now())
        )
        try:
            self.pauses.check(channel, self.wall())
            receipt = self.pager.post(incident, to, reconcile=claimed.retaken)
        except PagerError as error:
            self._unsent(incident, channel, error)
            if self._gives_up(seen, channel, error):
                self.ledger.finish(key, f"gave up: {error}")
                return
            self.ledger.release(key)
            raise _Refused(channel, error) from error
        self.pauses.worked(channel)
        # Of what stood there already nobody knows how old it is: it is brought up to date.
        shows = "" if claimed.retaken else shown(incident)
        self._stands(incident, channel, receipt, shows, key=f"{key}/{receipt.ts}")
        self.ledger.finish(key, "posted")
        _log.info(
            "told in %s: %s",
            channel,
            incident.notices[0].headline,
            extra={"trace": incident.id, "ts": receipt.ts},
        )
        if again:
            said = "its message was deleted; this is it again"
            self.note(incident, _again(incident, channel, said, str(again), self.clock.now()))

    def _update(self, incident: Incident, stands: Posted) -> None:
        channel = stands.channel
        try:
            self.pauses.check(channel, self.wall())
            receipt = self.pager.update(incident, stands.receipt)
        except PagerError as error:
            if error.gone:
                _log.warning("somebody deleted the message of %s in %s", incident.id, channel)
                self._stands(incident, channel, stands.receipt, GONE)
                return
            if not error.retry and not error.away:
                # The thread may take what the message does not; it says the same.
                _log.error("the message of %s stays as it is: %s", incident.id, error)
                self._stands(incident, channel, stands.receipt, shown(incident))
                return
            raise _Refused(channel, error) from error
        self.pauses.worked(channel)
        self.pauses.edited(incident.id, self.wall())
        self._stands(incident, channel, receipt, shown(incident))

    def _reply(
        self, seen: Seen, name: str, batch: Sequence[Notice], told: list[Told], *, body: str
    ) -> None:
        incident = seen.incident
        key = f"{BATCH}{incident.id}//{name}"
        claimed = self.ledger.claim(key, lease=LEASE, body=body)
        if not claimed.mine:
            raise _Refused(None, _busy(name))
        for stands in self._told_in(seen, batch):
            call = to_line(
                self.standing,
                incident,
                batch,
                stands.channel,
                self.clock.now(),
                told=seen.told,
            )
            loud = batch[0].stage in (Stage.REMINDED, Stage.EXPIRED) and "/ack/" not in name
            entry = Entry(
                key=name,
                incident=incident.id,
                notices=tuple(batch),
                mention=call,
                broadcast=loud and bool(call),
            )
            try:
                self.pauses.check(stands.channel, self.wall())
                self.pager.reply(entry, stands.receipt, reconcile=claimed.retaken)
            except PagerError as error:
                self.ledger.release(key)
                if error.gone:
                    self._stands(incident, stands.channel, stands.receipt, GONE)
                elif not self._gives_up(seen, stands.channel, error):
                    raise _Refused(stands.channel, error) from error
                return
            self.pauses.worked(stands.channel)
        self._record(batch, self._receipt(seen), told)
        self.ledger.finish(key, "told")
        _log.info("told: %s", batch[0].headline, extra={"trace": incident.id})

    def _told_in(self, seen: Seen, batch: Sequence[Notice]) -> Sequence[Posted]:
        """Return the threads that are told: not the one that began with what is told."""
        first, *others = seen.plan.stands
        if batch[0].stage is not Stage.ESCALATED:
            return seen.plan.stands
        theirs = self.standing.owner(batch[0].owner, batch[0]).channel
        return [first, *(one for one in others if one.channel != theirs)]

    def _explain(self, seen: Seen, told: list[Told]) -> None:
        """Leave a line where the larger incident is told, and count as told what is told there."""
        incident, now = seen.incident, self.clock.now()
        larger = self.standing.one(incident.explained_by or "", now)
        if larger is None:
            return
        line = replace(
            incident.notices[0],
            key=line_key(incident),
            incident=larger.id,
            stage=Stage.EXPLAINS,
            at=now,
            headline=headline(incident),
            doing="It is told as part of this one, and by itself should it outlast it.",
            evidence=(),
            chart=None,
        )
        self.note(larger, line)
        stands = self._looker.larger_stands(incident)
        if stands is not None and not seen.plan.stands:
            left = [each for each in incident.notices if each.key not in seen.told]
            self._record(left, stands.receipt, told)

    def _end(self, seen: Seen, told: list[Told]) -> Settled:
        key, mine = INCIDENT + seen.incident.id, _heard(seen.facts)
        self.ledger.finish(key, "told")
        if _heard(self.ledger.incident(seen.incident.id)) != mine:
            # Somebody noted more while this was brought to its end.
            self.ledger.reopen(key)
            return Settled(incident=seen.incident, told=tuple(told), again=self.wall())
        return Settled(incident=seen.incident, told=tuple(told), is_over=True)

    # -- records ------------------------------------------------------------------------------

    def _stands(
        self, incident: Incident, channel: str, receipt: Receipt, shows: str, *, key: str = ""
    ) -> None:
        fact = Posted(
            model=incident.models[0],
            at=self.clock.now(),
            incident=incident.id,
            channel=channel,
            receipt=receipt,
            shown=shows,
        )
        self.ledger.append(fact, key=key or None)

    def _record(self, notices: Sequence[Notice], receipt: Receipt, told: list[Told]) -> None:
        now = self.clock.now()
        self.ledger.append_all(
            [
                (Paged(model=each.model, at=now, notice=each, receipt=receipt), each.key)
                for each in notices
            ]
        )
        told += [Told(each, told=True, why="told") for each in notices]

    def _receipt(self, seen: Seen) -> Receipt:
        posted = [fact for fact in seen.facts if isinstance(fact, Posted)]
        if stands := seen.plan.stands or posted:
            return stands[0].receipt
        # It is told in a larger one's thread.
        return next(
            fact.receipt
            for notice in seen.incident.notices
            if (fact := self.ledger.fact(Paged, key=notice.key)) is not None
        )

    def _unsent(self, incident: Incident, channel: str, error: PagerError) -> None:
        fact = Unsent(
            model=incident.models[0],
            at=self.clock.now(),
            incident=incident.id,
            channel=channel,
            error=str(error),
            away=error.away,
            wall=self.wall(),
        )
        self.ledger.append(fact, key=f"{incident.id}/{channel}")

    # -- refusals -----------------------------------------------------------------------------

    def _gives_up(self, seen: Seen, channel: str, error: PagerError) -> bool:
        """Return whether it is told elsewhere from now on, as this channel refuses for good."""
        elsewhere = self._looker.platform_channel()
        if error.retry or error.away or elsewhere is None or elsewhere == channel:
            return False
        incident = seen.incident
        _log.error("%s is told in %s instead: %s", incident.id, elsewhere, error)
        self._stands(incident, channel, Receipt(channel=channel, ts=""), REFUSED)
        said = f"{channel} does not take it ({error.what}): it is told here instead"
        self.note(incident, _again(incident, channel, said, "refused", self.clock.now()))
        return True

    def _refused(self, incident: str, refused: _Refused, told: list[Told]) -> Settled:
        error, wall = refused.error, self.wall()
        why = str(error)
        if refused.channel is not None and error.where != refused.channel:
            # As people call it, and not by its id.
            why = f"{refused.channel}: {error.what}"
        if refused.channel is None:
            again = wall + BUSY
        else:
            if not self.pauses.is_pausing(refused.channel, wall):
                _log.warning("not told yet: %s", why, extra={"trace": incident})
            again = self.pauses.after(refused.channel, error, wall)
        seen = self._looker.look(incident)
        if seen is None:
            return Settled(told=tuple(told), again=again, why=why)
        left = [each for each in seen.incident.notices if each.key not in seen.told]
        told += [Told(each, told=False, why=why) for each in left]
        return replace(self._later(seen), told=tuple(told), again=again, why=why)


def _heard(facts: Sequence[Fact]) -> int:
    return sum(isinstance(fact, Noted | Acted) for fact in facts)


def _busy(where: str) -> PagerError:
    return PagerError("another process is telling it", where=where, retry=True)


def _again(incident: Incident, channel: str, said: str, number: str, now: datetime) -> Notice:
    return replace(
        incident.notices[0],
        key=f"{incident.id}/{Stage.AGAIN}/{channel}/{number}",
        incident=incident.id,
        stage=Stage.AGAIN,
        at=now,
        headline=f"{incident.models[0]}: {said}",
        evidence=(),
        chart=None,
    )


def _waits(incident: Incident) -> str:
    return {
        Status.WAITING: "it waits for others like it, or for quiet hours to end",
        Status.SILENCED: "it is silenced",
        Status.EXPLAINED: f"it is part of {incident.explained_by}",
    }.get(incident.status, "it is told with others like it, or was before")
