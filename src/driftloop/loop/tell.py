"""Tell a notice once: an intent, then the act, then its record."""

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec

from driftloop.errors import PagerError
from driftloop.loop.notices import OF_QUARANTINE, OF_ROLLOUT
from driftloop.ports import Clock, Ledger, Pager
from driftloop.records import ModelId, Notice, Paged, Receipt, Stage

_log = logging.getLogger(__name__)
LEASE = timedelta(seconds=60)
PREFIX = "notice/"


@dataclass(frozen=True, slots=True)
class Told:
    """What came of a notice: told now, told before, or not yet and why."""

    notice: Notice
    told: bool
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Teller:
    """Tells notices through a pager, remembered in the ledger."""

    ledger: Ledger
    pager: Pager
    clock: Clock

    def tell(self, notice: Notice) -> Told:
        """Return what came of telling `notice`; never raises for the pager's trouble.

        What could not be told stays in the ledger as an unfinished intent with the notice in
        it: `tell_unsent` goes on from there, in this process or in another.
        """
        key = PREFIX + notice.key
        body = msgspec.json.encode(notice).decode()
        intent = self.ledger.claim(key, lease=LEASE, body=body)
        if not intent.mine:
            return Told(notice, told=False, why="told before, or being told by another process")
        receipt = self._receipt(notice.incident, notice.model)
        opens = notice.stage is Stage.OPENED or (
            # Of what is in no incident's thread, whatever is told first opens one.
            receipt is None and notice.incident.startswith((OF_ROLLOUT, OF_QUARANTINE))
        )
        if not opens and (receipt is None or self._behind(notice)):
            self.ledger.release(key)
            return Told(notice, told=False, why="what came before it is not told yet")
        try:
            if opens:
                receipt = receipt or self.pager.open(notice, reconcile=intent.retaken)
            elif receipt is not None:
                self.pager.follow(notice, receipt, reconcile=intent.retaken)
        except PagerError as error:
            _log.warning("not told: %s", error, extra={"trace": notice.incident})
            if error.retry:
                self.ledger.release(key)
            else:
                self.ledger.finish(key, f"gave up: {error}")
            return Told(notice, told=False, why=str(error))
        if receipt is not None:
            paged = Paged(model=notice.model, at=self.clock.now(), notice=notice, receipt=receipt)
            self.ledger.append(paged, key=notice.key)
        self.ledger.finish(key, "told")
        _log.info(
            "told in %s: %s",
            notice.channel,
            notice.headline,
            extra={"trace": notice.incident, "ts": receipt.ts if receipt is not None else None},
        )
        return Told(notice, told=True, why="told")

    def tell_unsent(self) -> tuple[Told, ...]:
        """Return what came of telling, oldest first, what earlier attempts could not."""
        return tuple(self.tell(notice) for notice in self._waiting(PREFIX))

    def _behind(self, notice: Notice) -> bool:
        # An older stage told after a newer one would turn the message back.
        return any(
            _turn(earlier) < _turn(notice)
            for earlier in self._waiting(f"{PREFIX}{notice.incident}/")
        )

    def _waiting(self, prefix: str) -> list[Notice]:
        bodies = [body for _, body in self.ledger.unfinished(prefix)]
        return sorted((msgspec.json.decode(body, type=Notice) for body in bodies), key=_turn)

    def _receipt(self, incident: str, model: ModelId) -> Receipt | None:
        for fact in self.ledger.facts(Paged, model=model):
            # The first that was told is what opened it.
            if fact.notice.incident == incident:
                return fact.receipt
        return None


def _turn(notice: Notice) -> tuple[datetime, int]:
    return notice.at, list(Stage).index(notice.stage)
