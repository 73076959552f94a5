"""Bring a challenger to the front step by step, or back: look, judge, record, act, tell."""

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from driftloop import deploy
from driftloop.deploy import Next, Seen
from driftloop.errors import (
    ArtifactError,
    BadRequest,
    DriftloopError,
    LedgerError,
    ModelAway,
    RegistryError,
    StaleHead,
    named,
)
from driftloop.loop import notices
from driftloop.loop.addressed import addressed
from driftloop.loop.tell import Teller
from driftloop.ports import Clock, Ledger, Registry, Trial, Trials
from driftloop.records import (
    Advanced,
    Decided,
    Finding,
    Head,
    ModelId,
    Moved,
    Noted,
    Notice,
    Ordered,
    Paged,
    Phase,
    Rollout,
)
from driftloop.route import severity_of_stage
from driftloop.sequential import looked_at, losses, paired
from driftloop.spec import Family, Fleet, RolloutPolicy

_log = logging.getLogger(__name__)
BLOCKS = 10
"""Where the family's blocks of time are too long to be so many, quality counts tenths."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """An open rollout as it stands: what was seen, what it waits for, until when at the latest."""

    rollout: Rollout
    findings: tuple[Finding, ...]
    waits: str
    until: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """What a pass did to one rollout; `problem` says why it could not go on."""

    model: ModelId
    rollout: Rollout
    said: str
    moved: bool = False
    problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Releaser:
    """Everything a release needs of the world; `verify` raises when a head could not answer."""

    fleet: Fleet
    trials: Trials
    registry: Registry
    ledger: Ledger
    clock: Clock
    teller: Teller
    verify: Callable[[Head, Family], object]

    def release(self) -> tuple[Released, ...]:
        """Return what was done to each open rollout; one model's trouble stays its own.

        What is told is told once, also if an earlier pass died before it could.
        """
        done = tuple(self._one(rollout) for rollout in self.ledger.rollouts())
        self._tell()
        return done

    def look(self, model: ModelId) -> Looked:
        """Return the open rollout of `model` as it stands; nothing is changed.

        Raises:
            BadRequest: there is no such model, or it has no open rollout.
            LogError: the log cannot be read.
        """
        family, head, rollout = self._open(model)
        next_, findings = self._next(family, head, rollout)
        goes = next_.rollout is not rollout
        waits = f"{next_.rollout.named} at the next pass: {next_.reason}" if goes else next_.reason
        return Looked(rollout=rollout, findings=findings, waits=waits, until=next_.until)

    def hold(self, model: ModelId, *, who: str) -> Rollout:
        """Return the rollout of `model`, held where it is.

        Raises:
            BadRequest: no such model, no open rollout, or it is held already.
            StaleHead: somebody else was first; nothing was changed.
        """
        _, head, rollout = self._open(model)
        return self._step(deploy.held(rollout, who), head.epoch, who=who)

    def resume(self, model: ModelId, *, who: str) -> Rollout:
        """Return the rollout of `model`, no longer held or stuck; see `hold` for errors."""
        _, head, rollout = self._open(model)
        return self._step(deploy.resumed(rollout, who, self.clock.now()), head.epoch, who=who)

    def promote(self, model: ModelId, *, who: str) -> Rollout:
        """Return the rollout of `model`, whose challenger is champion now, or stuck.

        Raises:
            BadRequest: no such model, or no open rollout.
            StaleHead: somebody else was first; look again.
        """
        family, head, rollout = self._open(model)
        stepped = deploy.promoted_by(rollout, who, self.clock.now())
        stepped = self._step(stepped, head.epoch, who=who)
        return self._acted(family, stepped, (), who=who)

    def roll_back(self, model: ModelId, *, who: str) -> Rollout:
        """Return the rollout of `model`, at its end: the champion before it answers alone.

        Raises:
            BadRequest: no such model, or no open rollout.
            StaleHead: somebody else was first; look again.
            ArtifactError: the champion before it cannot answer any more; the next pass tries again.
        """
        family, head, rollout = self._open(model)
        stepped = deploy.rolled_back_by(rollout, who, self.clock.now())
        stepped = self._step(stepped, head.epoch, who=who)
        return self._acted(family, stepped, (), who=who)

    def has_open(self, model: ModelId) -> bool:
        """Return whether a rollout of `model` is open."""
        return any(rollout.model == model for rollout in self.ledger.rollouts())

    # -- one pass ----------------------------------------------------------------------------

    def _one(self, seen: Rollout) -> Released:
        """Return what was done to one rollout, whatever went wrong with it."""
        model = seen.model
        try:
            family, head, rollout = self._open(model)
            next_, findings = self._next(family, head, rollout)
            if next_.rollout is not rollout:
                rollout = self._step(next_.rollout, head.epoch, findings=findings)
            ended = self._acted(family, rollout, findings)
        except StaleHead as error:
            # Somebody was first: what they did is looked at by the next pass.
            return Released(model=model, rollout=seen, said=str(error))
        except DriftloopError as error:
            _log.error("%s: its rollout does not go on: %s", model, error)
            return Released(model=model, rollout=seen, said=str(error), problem=str(error))
        except Exception as error:  # noqa: BLE001 - a fault of ours: the others go on
            _log.exception("%s: its rollout broke", model)
            said = f"it broke on {named(error)}"
            return Released(model=model, rollout=seen, said=said, problem=said)
        moved = ended.epoch != seen.epoch
        said = ended.reason if moved else next_.reason
        return Released(model=model, rollout=ended, said=said, moved=moved)

    def _open(self, model: ModelId) -> tuple[Family, Head, Rollout]:
        family = self.fleet.family(model)
        # The head first: whatever steps in after it has taken the next epoch.
        head = self.ledger.head(model)
        rollout = next((each for each in self.ledger.rollouts() if each.model == model), None)
        if head is None or rollout is None:
            raise BadRequest(
                "has no rollout under way",
                where=model,
                hint="`driftloop rollout` lists those that are open",
            )
        return family, head, rollout

    def _step(
        self,
        rollout: Rollout,
        epoch: int,
        *,
        findings: tuple[Finding, ...] = (),
        who: str | None = None,
    ) -> Rollout:
        """Record where `rollout` goes, in the epoch after `epoch`, and return it."""
        stepped = replace(rollout, epoch=epoch + 1)
        self.ledger.advance(
            Advanced(
                model=rollout.model,
                at=self.clock.now(),
                rollout=stepped,
                findings=findings,
                who=who,
            )
        )
        _log.info(
            "%s: version %d: %s: %s",
            rollout.model,
            rollout.version,
            rollout.named,
            rollout.reason,
            extra={"trace": rollout.order},
        )
        return stepped

    def _acted(
        self,
        family: Family,
        rollout: Rollout,
        findings: tuple[Finding, ...],
        *,
        who: str | None = None,
    ) -> Rollout:
        """Do what the phase of `rollout` asks for, if it does, and return where it is then."""
        if rollout.held is not None or rollout.phase not in {Phase.PROMOTING, Phase.ROLLING_BACK}:
            return rollout
        _, head, newest = self._open(rollout.model)
        other = rollout.phase is Phase.PROMOTING and head.version not in {
            rollout.champion,
            rollout.version,
        }
        if newest.epoch != rollout.epoch or other:
            raise StaleHead("somebody else was first; look again", where=rollout.model)
        if rollout.phase is Phase.PROMOTING:
            ended = self._promoted(family, rollout, head)
        else:
            ended = self._gone_back(family, rollout, head)
        ended = self._step(ended, ended.epoch, findings=findings, who=who)
        with suppress(RegistryError):
            # The alias is a copy; `maintain` repairs it when the registry is back.
            now = self.ledger.head(rollout.model)
            self.registry.point(rollout.model, now.version if now is not None else ended.version)
        return ended

    def _promoted(self, family: Family, rollout: Rollout, head: Head) -> Rollout:
        """Return `rollout` after its challenger became champion, or could not."""
        epoch = head.epoch
        if head.version != rollout.version:
            moved = replace(rollout.head, epoch=epoch + 1)
            try:
                self.verify(moved, family)
                self.ledger.move(
                    moved, at=self.clock.now(), previous=head, reason=f"rollout: {rollout.reason}"
                )
            except (StaleHead, LedgerError):
                raise  # nothing of it is this version's fault: the next pass looks again
            except DriftloopError as error:
                stuck = deploy.failed(rollout, str(error), self.clock.now())
                return replace(stuck, epoch=epoch)
            epoch = moved.epoch
        taken = deploy.taken(rollout, _policy(family), self.clock.now())
        return replace(taken, epoch=epoch)

    def _gone_back(self, family: Family, rollout: Rollout, head: Head) -> Rollout:
        """Return `rollout` after the champion before it answers alone."""
        epoch = head.epoch
        if deploy.to_be_moved_back(rollout, head):
            moves = self.ledger.facts(Moved, model=rollout.model)
            back = deploy.rolled_back(rollout.model, moves, to=rollout.champion, epoch=epoch)
            self.verify(back, family)
            reason = f"rolled back: {rollout.reason}"
            self.ledger.move(back, at=self.clock.now(), previous=head, reason=reason)
            epoch = back.epoch
        return replace(deploy.gone_back(rollout, self.clock.now()), epoch=epoch)

    def _next(
        self, family: Family, head: Head, rollout: Rollout
    ) -> tuple[Next, tuple[Finding, ...]]:
        """Return where `rollout` goes now, and on what that rests."""
        now = self.clock.now()
        if family.rollout is None and rollout.phase is not Phase.ROLLING_BACK:
            gone = deploy.rolled_back_by(rollout, "the monitor file, which has no [rollout]", now)
            return Next(rollout=gone, reason=gone.reason), ()
        seen = self._seen(family, _policy(family), head, rollout)
        return deploy.advance(rollout, seen, _policy(family), now), seen.findings

    # -- what was seen -----------------------------------------------------------------------

    def _seen(self, family: Family, policy: RolloutPolicy, head: Head, rollout: Rollout) -> Seen:
        """Return what the log shows of `rollout`, compared."""
        if rollout.phase is Phase.ROLLING_BACK:
            return Seen(champion=head.version)
        trial = self.trials.trial(family, rollout)
        apart = trial.apart
        version = apart["version"].to_numpy()
        mine, theirs = version == rollout.version, version == rollout.champion
        label = _floats(apart["label"])
        if rollout.shadows:
            recent = pc.greater_equal(trial.both["predicted_at"], pa.scalar(rollout.since))
            rows = int(pc.sum(recent).as_py() or 0)
            known = trial.both.num_rows - trial.both["label"].null_count
        else:
            rows, known = int(mine.sum()), int((mine & ~np.isnan(label)).sum())
        found = _Compared(family, policy, rollout, trial)
        # Loading takes its time: not while the challenger is known to answer.
        doubt = not rows or trial.challenger.errors > 0
        return Seen(
            champion=head.version,
            rows=rows,
            labels=known,
            findings=(*found.service(), *found.scores(mine, theirs), *found.quality(mine, theirs)),
            refused=self._refused(family, rollout) if doubt else "",
        )

    def _refused(self, family: Family, rollout: Rollout) -> str:
        """Return why the challenger's file cannot answer; empty if it can, or is not needed yet."""
        if rollout.phase not in {Phase.SHADOW, Phase.CANARY, Phase.WATCHED}:
            return ""
        try:
            self.verify(rollout.head, family)
        except ModelAway as error:
            _log.warning("%s: version %d: %s", rollout.model, rollout.version, error)
        except ArtifactError as error:
            return error.what
        return ""

    # -- telling -----------------------------------------------------------------------------

    def _tell(self) -> None:
        for step in self.ledger.advances():
            if step.model in self.fleet.models:
                try:
                    self._told(step)
                except DriftloopError as error:
                    _log.error("%s: its rollout was not told: %s", step.model, error)

    def _told(self, step: Advanced) -> None:
        family = self.fleet.family(step.model)
        stage = notices.stage_of(step, _policy(family), self.clock.now())
        if stage is None:
            return
        order = self.ledger.fact(Ordered, key=step.rollout.order)
        incident = order.order.incident if order is not None else None
        owner = self.fleet.owner(step.model)
        own = notices.rollout(step, stage, owner)
        keys = {own.key}
        notice: Notice = own
        if incident is not None:
            theirs = notices.rollout(step, stage, owner, incident=incident)
            keys.add(theirs.key)
            notice = theirs if self._is_open(step.model, incident) else own
        if self.ledger.appended(Paged, keys) or self.ledger.appended(Noted, keys):
            return
        severity = severity_of_stage(stage, family)
        version = step.rollout.version
        self.teller.tell(addressed(self.fleet, notice, severity=severity, version=version))

    def _is_open(self, model: ModelId, incident: str) -> bool:
        last = self.ledger.facts(Decided, model=model, last=1)
        return bool(last) and last[0].decision.incident == incident


@dataclass(frozen=True, slots=True)
class _Compared:
    """One rollout's numbers, held to its policy."""

    family: Family
    policy: RolloutPolicy
    rollout: Rollout
    trial: Trial

    def service(self) -> tuple[Finding, ...]:
        """Return what requests say: failures, and how long answers took."""
        mine, theirs, policy = self.trial.challenger, self.trial.champion, self.policy
        sure = self._sure(mine.requests)
        # In shadow it waits for its turn behind what is answered: its slowest say nothing.
        tail = None if self.rollout.shadows else deploy.tail(sum(mine.seconds), confidence=sure)
        shares = (0.5,) if tail is None else (0.5, tail)
        return (
            deploy.errors(mine, theirs, limit=policy.errors, confidence=sure),
            *(
                deploy.latency(share, mine, theirs, limit=policy.latency, confidence=sure)
                for share in shares
            ),
        )

    def scores(self, mine: npt.NDArray[np.bool_], theirs: npt.NDArray[np.bool_]) -> tuple[Finding]:
        """Return how far apart the answers lie: of the same rows in shadow, else of each one's."""
        paired = self.rollout.shadows
        if paired:
            ours, other = self.trial.both["challenger"], self.trial.both["champion"]
            challenger, champion = _floats(ours), _floats(other)
        else:
            answers = _floats(self.trial.apart["prediction"])
            challenger, champion = answers[mine], answers[theirs]
        return (
            deploy.scores(
                challenger,
                champion,
                paired=paired,
                classes=len(self.family.classes),
                limit=self.policy.scores,
                confidence=self._sure(challenger.size),
            ),
        )

    def quality(
        self, mine: npt.NDArray[np.bool_], theirs: npt.NDArray[np.bool_]
    ) -> tuple[Finding, ...]:
        """Return what late labels say: of the shadow's rows, and of those that each answered."""
        policy, found = self.policy, []
        both = self.trial.both
        known = both.filter(pc.is_valid(both["label"]))
        if known.num_rows >= policy.min_labels:
            at = known["event_time"].cast(pa.timestamp("us", "UTC")).to_numpy().astype("int64")
            spread = (int(at.max()) - int(at.min())) // BLOCKS + 1
            length = min(int(self.family.window.block.total_seconds() * 1e6), spread)
            result = paired(
                label=_floats(known["label"]),
                champion=_floats(known["champion"]),
                candidate=_floats(known["challenger"]),
                block=at // length,
                task=self.family.task,
                confidence=self._sure(known.num_rows),
                unit="block",
            )
            found.append(deploy.quality(result, limit=policy.quality))
        label = _floats(self.trial.apart["label"])
        answers = _floats(self.trial.apart["prediction"])
        loss, lost = losses(label, answers, task=self.family.task)
        labelled = ~np.isnan(label)
        challenger, champion = lost[mine & labelled], lost[theirs & labelled]
        if min(challenger.size, champion.size) >= policy.min_labels:
            found.append(
                deploy.unpaired(
                    challenger,
                    champion,
                    loss=loss,
                    limit=policy.quality,
                    confidence=self._sure(challenger.size),
                )
            )
        return tuple(found)

    def _sure(self, n: int) -> float:
        return looked_at(self.policy.confidence, n, first=self.policy.min_rows)


def _policy(family: Family) -> RolloutPolicy:
    """Return a family's policy; where the file lost it meanwhile, the usual one, to end by."""
    return family.rollout or RolloutPolicy()


def _floats(column: pa.ChunkedArray) -> Floats:
    """Return a column of numbers, null as NaN."""
    found: Floats = column.cast(pa.float64()).to_numpy()
    return found
