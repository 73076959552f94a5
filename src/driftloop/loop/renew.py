"""Carry an order out: train, register, gate, move the head; or say why not."""

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from driftloop.deploy import begun as rollout_begun
from driftloop.deploy import promoted, rolled_back
from driftloop.errors import CalledOff, DriftloopError, RegistryError, StaleHead, named
from driftloop.gate import Beside, Span, as_found, compare, uses
from driftloop.judge import cooled, is_decisive, worsening
from driftloop.loop import notices
from driftloop.loop.addressed import addressed
from driftloop.loop.memories import Fits, longest_reach
from driftloop.loop.quarantine import Quarantine
from driftloop.loop.tell import Teller
from driftloop.ports import Clock, Handover, Ledger, PredictionLog, Registry, Trainer
from driftloop.records import (
    HOLDOUT_FILE,
    Advanced,
    Candidate,
    Decided,
    Failed,
    Gated,
    GateResult,
    Head,
    ModelId,
    Notice,
    Order,
    Ordered,
    Rollout,
    Task,
    Trained,
    Tried,
    version_key,
)
from driftloop.route import severity_of_stage
from driftloop.spec import Family, Fleet

_log = logging.getLogger(__name__)
MARGIN = timedelta(seconds=120)
"""Wall time beyond what a fit may take after which a renewal is taken for dead."""


@dataclass(frozen=True, slots=True)
class Renewed:
    """What came of an order."""

    order: Order
    outcome: str
    """`promoted`, `rollout` when it goes on in one, `refused`, `failed`, `cancelled` by somebody
    while it trained, `withdrawn` when its incident was over, or another version answered, before
    its turn came, or `elsewhere` when another run has it or had it."""
    reason: str
    candidate: Candidate | None = None
    result: GateResult | None = None
    head: Head | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewer:
    """Everything a renewal needs of the world; `table` reads a Parquet file."""

    fleet: Fleet
    log: PredictionLog
    trainer: Trainer
    registry: Registry
    handover: Handover
    ledger: Ledger
    clock: Clock
    teller: Teller
    table: Callable[[Path], pa.Table]
    quarantine: Quarantine | None = None

    @property
    def _fits(self) -> Fits:
        return Fits(log=self.log, trainer=self.trainer, ledger=self.ledger, table=self.table)

    def renew(self, order: Order) -> Renewed:
        """Return what came of `order`; one renewal of a model at a time, each order once.

        An order that had to wait for its turn looks at the newest rows when it comes. A run that
        died half way is taken up by the next call with the same order, on the rows that it had
        begun with: training is repeatable, registering the same order again gives the same
        version, and the head moves by compare-and-set.
        """
        family = self.fleet.family(order.model)
        fits = len(family.retrain.memory)
        lease = fits * (family.retrain.time_limit + self.trainer.patience) + MARGIN
        intent = self.ledger.claim(f"renew/{order.key}", lease=lease)
        if not intent.mine:
            return Renewed(order, "elsewhere", intent.outcome or "another run is at it")
        turn = self.ledger.claim(f"renewing/{order.model}", lease=lease)
        if not turn.mine:
            self.ledger.release(f"renew/{order.key}")
            return Renewed(order, "elsewhere", "another renewal of this model is under way")
        try:
            if (other := self._rollout_open(order)) is not None:
                said = f"the rollout of version {other.version} is open ({other.named})"
                return Renewed(order, "elsewhere", said)
            begun = self._begun(order, family)
            if begun is None:
                renewed = Renewed(
                    order, "withdrawn", "what it was to mend was over before its turn came"
                )
            else:
                renewed = self._released(begun) or self._carried_out(begun, family)
            self.ledger.finish(f"renew/{order.key}", renewed.outcome)
            _log.info(
                "%s: %s: %s",
                order.model,
                renewed.outcome,
                renewed.reason,
                extra={
                    "trace": order.key,
                    "version": renewed.head.version if renewed.head is not None else None,
                },
            )
            return renewed
        finally:
            self.ledger.release(f"renew/{order.key}")
            self.ledger.release(f"renewing/{order.model}")

    def let_go(self, order: Order) -> None:
        """Give back what a renewal held whose process is known to be dead.

        Without it the order, and its model, would wait until the leases run out.
        """
        self.ledger.release(f"renew/{order.key}")
        self.ledger.release(f"renewing/{order.model}")

    def cancel(self, order: Order, why: str) -> None:
        """Record that somebody cancelled `order` while nobody was at it: it is not tried again."""
        self._end(order, why, "cancelled")

    def give_up(self, order: Order, why: str) -> None:
        """Record that `order`, which nobody is at, failed: it is not tried again."""
        self._end(order, why, "failed")

    def _end(self, order: Order, why: str, outcome: str) -> None:
        if not self.ledger.claim(f"renew/{order.key}", lease=MARGIN).mine:
            return
        ended = self._released(order)
        if ended is None:
            owner, now = self.fleet.owner(order.model), self.clock.now()
            notice = notices.failed(order, owner, now, self._since(order), error=why)
            ended = replace(self._failed(order, why, notice), outcome=outcome)
        self.ledger.finish(f"renew/{order.key}", ended.outcome)

    def roll_back(
        self, model: ModelId, *, to: int | None, who: str, verify: Callable[[Head], object]
    ) -> Head:
        """Return the new head after making an earlier champion of `model` answer again.

        `verify` raises when the head's file could not answer.

        Raises:
            BadRequest: there is no such model or earlier champion.
            ArtifactError: its file is missing or damaged; nothing was changed.
            HandoverFailed: who serves it elsewhere did not take it; nothing was changed.
            StaleHead: the champion moved meanwhile; who serves it elsewhere was given that one.
        """
        family = self.fleet.family(model)
        history = self.ledger.history(model)
        now = history.head.epoch if history.head is not None else None
        head = rolled_back(model, history.moves, to=to, epoch=now)
        verify(head)
        self._release(
            head,
            family,
            previous=history.head,
            key=f"rollback/{model}#{head.epoch}",
            reason=f"rolled back by {who}",
        )
        self._point(head)
        return head

    def _carried_out(self, order: Order, family: Family) -> Renewed:
        champion = self.ledger.head(order.model)
        owner = self.fleet.owner(order.model)
        since = self._since(order)
        self._tell(order, notices.retraining(order, owner, self.clock.now(), since))
        try:
            if family.log is not None and (champion is None or family.task is Task.SCORE):
                candidate = self.trainer.find(order)
                tried: tuple[Tried, ...] = ()
            else:
                candidate, tried = self._fits.best(order, family, champion)
            version = self.registry.register(candidate)
            self.ledger.append(
                Trained(
                    model=order.model,
                    at=self.clock.now(),
                    version=version,
                    candidate=candidate,
                    tried=tried,
                ),
                key=version_key(order.model, version),
            )
            result = self._gated(candidate, version, family, champion, tried=max(len(tried), 1))
            if not result.passed:
                self._tell_refused(order, version, result)
                return Renewed(order, "refused", result.reason, candidate, result, champion)
            if family.rollout is not None and champion is not None:
                return self._rolled_out(candidate, version, family, champion, result)
            head = promoted(candidate, version, champion=champion)
            self._release(
                head,
                family,
                previous=champion,
                key=order.key,
                reason=f"{order.reason}; gate: {result.reason}",
            )
        except Exception as error:  # noqa: BLE001 - whatever it was, the owner is told of an end
            said = str(error)
            if not isinstance(error, DriftloopError):
                _log.exception("%s: its renewal broke", order.model, extra={"trace": order.key})
                said = f"it broke on {named(error)}"
            notice = notices.failed(order, owner, self.clock.now(), since, error=said)
            failed = self._failed(order, said, notice)
            return replace(failed, outcome="cancelled") if isinstance(error, CalledOff) else failed
        self._point(head)
        self._tell_promoted(order, version, result)
        return Renewed(order, "promoted", result.reason, candidate, result, head)

    def _rolled_out(
        self,
        candidate: Candidate,
        version: int,
        family: Family,
        champion: Head,
        result: GateResult,
    ) -> Renewed:
        """Let the candidate begin its rollout; `release` takes it from there."""
        if family.rollout is None:
            raise ValueError(family.name)
        now = self.clock.now()
        rollout = rollout_begun(
            candidate, version, champion=champion, policy=family.rollout, now=now
        )
        self.ledger.advance(Advanced(model=rollout.model, at=now, rollout=rollout))
        said = f"version {version} begins its rollout in {rollout.named}; gate: {result.reason}"
        return Renewed(candidate.order, "rollout", said, candidate, result, champion)

    def _rollout_open(self, order: Order) -> Rollout | None:
        """Return the open rollout of another order's candidate, if there is one."""
        found = [each for each in self.ledger.rollouts() if each.model == order.model]
        return next((each for each in found if each.order != order.key), None)

    def _release(
        self, head: Head, family: Family, *, previous: Head | None, key: str, reason: str
    ) -> None:
        """Make `head` the champion; who serves it elsewhere takes it before, or it does not."""
        # What was found answers already, and follows nobody; versions of scores are references.
        elsewhere = (
            family.log is not None and previous is not None and family.task is not Task.SCORE
        )
        if elsewhere:
            _log.info(
                "%s: version %d is being handed over",
                head.model,
                head.version,
                extra={"trace": key},
            )
            self.handover.hand_over(family, head, previous=previous, key=key)
        try:
            self.ledger.move(head, at=self.clock.now(), previous=previous, reason=reason)
        except StaleHead:
            now = self.ledger.head(head.model)
            if elsewhere and now is not None:
                self.handover.hand_over(family, now, previous=head, key=f"{key}/back")
            raise

    def _released(self, order: Order) -> Renewed | None:
        """Return what came of an order whose candidate answered already when its process died.

        Trained and gated again it would be measured against itself, and refused.
        """
        gated = self.ledger.fact(Gated, key=order.key)
        if gated is None:
            return None
        made = self.ledger.fact(Trained, key=version_key(order.model, gated.version))
        steps = self.ledger.facts(Advanced, model=order.model)
        if made is not None and any(step.rollout.order == order.key for step in steps):
            said = f"the rollout of version {gated.version} was begun"
            return Renewed(order, "rollout", said, made.candidate, gated.result)
        moves = self.ledger.history(order.model).moves
        head = next((m.head for m in moves if m.head.version == gated.version), None)
        if made is None or head is None:
            return None
        self._point(moves[-1].head)
        self._tell_promoted(order, gated.version, gated.result)
        return Renewed(order, "promoted", gated.result.reason, made.candidate, gated.result, head)

    def _begun(self, order: Order, family: Family) -> Order | None:
        before = self.ledger.fact(Ordered, key=order.key)
        if before is not None:
            return before.order
        if order.incident is not None and not self._is_open(order):
            return None
        decided, head = self.ledger.fact(Decided, key=order.key), self.ledger.head(order.model)
        if decided is not None and head is not None and decided.decision.version != head.version:
            return None
        now = self.clock.now()
        # Counted from what has wholly arrived: where the log lags, the newest rows are older.
        horizon = self.log.horizon(family) or now
        newest = min(now, horizon)
        window = replace(
            order.window, start=newest - family.retrain.span, end=newest, known_at=horizon
        )
        if self.quarantine is not None:
            # Of all that any memory reaches back to.
            whole = replace(window, start=newest - longest_reach(family))
            window = replace(window, left_out=self.quarantine.left_out(family, whole))
        begun = replace(order, window=window, holdout_from=newest - family.gate.holdout)
        self.ledger.append(Ordered(model=order.model, at=now, order=begun), key=order.key)
        return begun

    def _gated(
        self,
        candidate: Candidate,
        version: int,
        family: Family,
        champion: Head | None,
        *,
        tried: int,
    ) -> GateResult:
        order, span = candidate.order, None
        if candidate.found:
            result = as_found(candidate)
        else:
            held_out = self.table(Path(candidate.folder) / HOLDOUT_FILE)
            result, span = _compared(held_out, family, champion, self._used(order), tried=tried)
        self.registry.record_gate(order.model, version, result)
        self.ledger.append(
            Gated(
                model=order.model,
                at=self.clock.now(),
                order_key=order.key,
                version=version,
                result=result,
                start=span.start if span is not None else None,
                end=span.end if span is not None else None,
            ),
            key=order.key,
        )
        return result

    def _used(self, order: Order) -> tuple[Span, ...]:
        """Return what earlier attempts were compared on, where it reaches into this holdout."""
        earlier = self.ledger.facts(Gated, model=order.model, since=order.holdout_from)
        return tuple(
            Span(start=gated.start, end=gated.end)
            for gated in earlier
            # Of its own fact there is one if the process died after it: it is the same attempt.
            if gated.start is not None and gated.end is not None and gated.order_key != order.key
        )

    def _failed(self, order: Order, error: str, notice: Notice) -> Renewed:
        self.ledger.append(
            Failed(model=order.model, at=self.clock.now(), order_key=order.key, error=error),
            key=order.key,
        )
        self._tell(order, notice)
        return Renewed(order, "failed", error)

    def _tell_promoted(self, order: Order, version: int, result: GateResult) -> None:
        notice = notices.promoted(
            order,
            self.fleet.owner(order.model),
            self.clock.now(),
            self._since(order),
            version=version,
            result=result,
            elsewhere=self.fleet.family(order.model).log is not None,
            still=self._still(order, version),
        )
        self._tell(order, notice)

    def _tell_refused(self, order: Order, version: int, result: GateResult) -> None:
        family, history = self.fleet.family(order.model), self.ledger.history(order.model)
        notice = notices.refused(
            order,
            self.fleet.owner(order.model),
            self.clock.now(),
            self._since(order),
            version=version,
            result=result,
            again=cooled(history, family),
        )
        self._tell(order, notice)

    def _still(self, order: Order, version: int) -> str:
        """Say that a new version is far from what its predecessor was at its gate, if it is.

        Limits count from its own figures now: nobody would hear of it again.
        """
        family = self.fleet.family(order.model)
        limits = family.decay
        decided = self.ledger.fact(Decided, key=order.key)
        made = self.ledger.fact(Trained, key=version_key(order.model, version))
        if limits is None or decided is None or made is None:
            return ""
        own = {metric.name: metric.value for metric in made.candidate.metrics}.get(limits.metric)
        for verdict in decided.decision.verdicts:
            reading = verdict.reading
            if not is_decisive(reading, family) or reading.baseline is None or own is None:
                continue
            worse, _ = worsening(reading, own, reading.baseline)
            if worse >= limits.alarm:
                return (
                    f"But it is {worse:.0%} worse itself than its predecessor was at its gate"
                    f" ({own:.4g} against {reading.baseline:.4g}), and limits count from there now:"
                    " what has changed is not made up for."
                )
        return ""

    def _tell(self, order: Order, notice: Notice) -> None:
        # What follows an open incident is told in its thread; the rest shows on the pages.
        if order.incident is not None and self._is_open(order):
            severity = severity_of_stage(notice.stage, self.fleet.family(order.model))
            self.teller.tell(addressed(self.fleet, notice, severity=severity))

    def _is_open(self, order: Order) -> bool:
        last = self.ledger.facts(Decided, model=order.model, last=1)
        return bool(last) and last[0].decision.incident == order.incident

    def _since(self, order: Order) -> datetime:
        fact = self.ledger.fact(Decided, key=order.key)
        return order.at if fact is None else fact.decision.since or fact.decision.at

    def _point(self, head: Head) -> None:
        # The alias is a copy; `maintain` repairs it when the registry is back.
        with suppress(RegistryError):
            self.registry.point(head.model, head.version)


def repair_aliases(ledger: Ledger, registry: Registry) -> tuple[ModelId, ...]:
    """Return the models whose registry alias disagreed with the ledger's head and was mended."""
    return tuple(head.model for head in ledger.heads() if registry.point(head.model, head.version))


def _compared(
    held_out: pa.Table,
    family: Family,
    champion: Head | None,
    earlier: Sequence[Span],
    *,
    tried: int,
) -> tuple[GateResult, Span | None]:
    """Return the gate's word on the rows held out, and what of them it used up."""
    length = family.window.block
    at = held_out["event_time"].cast(pa.timestamp("us", "UTC")).to_numpy()
    label = held_out["label"].to_numpy()
    result = compare(
        label=label,
        champion=None if champion is None else held_out["champion"].to_numpy(),
        candidate=held_out["candidate"].to_numpy(),
        block=(at - np.datetime64(0, "us")) // np.timedelta64(length),
        task=family.task,
        policy=family.gate,
        unit=_block(length),
        beside=Beside(
            uses=uses(at, earlier, block=length),
            tried=tried,
            segments={column: _levels(held_out, column) for column in family.segments},
        ),
    )
    if result.low is None:
        return result, None
    first, last = (
        moment.item().replace(tzinfo=UTC) for moment in np.sort(at[~np.isnan(label)])[[0, -1]]
    )
    return result, Span(start=first, end=last)


def _levels(held_out: pa.Table, column: str) -> list[str | None]:
    levels: list[str | None] = pc.struct_field(held_out["features"], column).to_pylist()
    return levels


def _block(length: timedelta) -> str:
    seconds = length.total_seconds()
    if length == timedelta(days=1):
        return "day"
    return f"{seconds:g}-second block" if seconds < 60 else f"{seconds / 60:g}-minute block"  # noqa: PLR2004 - a minute
