"""What people want done with a rollout: held, resumed, promoted, rolled back; each once."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from driftloop.errors import BadRequest, DriftloopError, LedgerError, StaleHead
from driftloop.ports import Ledger
from driftloop.records import (
    Act,
    Advanced,
    Click,
    Head,
    Incident,
    ModelId,
    Moved,
    Phase,
    Rollout,
)

ENDS = {
    Act.PROMOTE: {Phase.PROMOTING, Phase.WATCHED, Phase.CHAMPION, Phase.STUCK},
    Act.ROLL_BACK: {Phase.ROLLING_BACK, Phase.ROLLED_BACK},
}
"""The phases that the acts lead to which change what answers."""
LOOKED_BACK = 10


class RolloutOver(DriftloopError):
    """What a button was about is over, or something else by now; nothing was done."""


class Steps(Protocol):
    """What takes rollouts on or back; see `loop.release.Releaser`."""

    def hold(self, model: ModelId, *, who: str) -> Rollout:
        """Hold it where it is."""
        ...

    def resume(self, model: ModelId, *, who: str) -> Rollout:
        """Let it go on."""
        ...

    def promote(self, model: ModelId, *, who: str) -> Rollout:
        """Make its challenger champion."""
        ...

    def roll_back(self, model: ModelId, *, who: str) -> Rollout:
        """Let the champion before it answer alone."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What an act is about: a model, and the version that answers, or wants to."""

    model: ModelId
    version: int
    open: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutActs:
    """Does to rollouts what people ask for.

    `steps` gives what takes them; `move_back` makes the champion before answer again where no
    rollout is open, and takes the model and who wants it.
    """

    ledger: Ledger
    steps: Callable[[], Steps]
    move_back: Callable[[ModelId, str], Head]

    def subject(self, click: Click, incident: Incident) -> Subject:
        """Return what `click` is about.

        Raises:
            RolloutOver: it is about no rollout, or about one that is over, or is not the one that
                the button was made for.
        """
        model = click.model or _sole(incident)
        rollout = next((each for each in self.ledger.rollouts() if each.model == model), None)
        if rollout is not None:
            if click.version not in {None, rollout.version}:
                raise RolloutOver(
                    f"The button is about version {click.version} of {model}; by now the rollout of"
                    f" version {rollout.version} is under way. Nothing was done."
                )
            if rollout.phase is Phase.WATCHED and click.act is Act.PROMOTE:
                # A second click must not end the watch that the first has begun.
                raise RolloutOver(
                    f"Version {rollout.version} of {model} answers already, and is watched:"
                    " nothing was done."
                )
            return Subject(model=model, version=rollout.version, open=True)
        head = self.ledger.head(model)
        if head is None or click.act is not Act.ROLL_BACK or click.version != head.version:
            answers = f": version {head.version} answers" if head is not None else ""
            raise RolloutOver(f"No rollout of {model} is under way any more{answers}.")
        return Subject(model=model, version=head.version, open=False)

    def do(self, click: Click, subject: Subject) -> str:
        """Do what `click` asks for; return what went wrong on the way, which the loop mends.

        Raises:
            BadRequest: it makes no sense as it stands, as with one that is held already.
            StaleHead: somebody else was first; nothing was changed.
        """
        try:
            if not subject.open:
                self.move_back(subject.model, click.who)
                return ""
            steps = self.steps()
            act = {
                Act.HOLD: steps.hold,
                Act.RESUME: steps.resume,
                Act.PROMOTE: steps.promote,
                Act.ROLL_BACK: steps.roll_back,
            }[click.act]
            rollout = act(subject.model, who=click.who)
        except (BadRequest, LedgerError, StaleHead):
            raise
        except DriftloopError as error:
            newest = self.ledger.facts(Advanced, model=subject.model, last=1)
            if not newest or newest[0].rollout.phase not in ENDS.get(click.act, set()):
                raise
            return f"it has begun, and goes on by itself: {error}"
        return rollout.reason if rollout.phase is Phase.STUCK else ""

    def did(self, click: Click, incident: Incident, since: datetime) -> Subject | None:
        """Return what `click` was about, if it was done since then by a process that died."""
        try:
            model = click.model or _sole(incident)
        except RolloutOver:
            return None
        for step in self.ledger.facts(Advanced, model=model, last=LOOKED_BACK):
            if step.at >= since and step.who == click.who and _is(click, step.rollout):
                return Subject(model=model, version=step.rollout.version, open=True)
        for move in self.ledger.facts(Moved, model=model, last=LOOKED_BACK):
            theirs = move.previous == click.version and move.reason.endswith(f" by {click.who}")
            if move.at >= since and theirs and click.act is Act.ROLL_BACK:
                return Subject(model=model, version=click.version or 0, open=False)
        return None


def _is(click: Click, rollout: Rollout) -> bool:
    """Say whether a rollout stands as the act leaves it."""
    if click.version not in {None, rollout.version}:
        return False
    if click.act in ENDS:
        return rollout.phase in ENDS[click.act]
    return (rollout.held is not None) == (click.act is Act.HOLD)


def _sole(incident: Incident) -> ModelId:
    """Return the one model of an incident that has a rollout.

    Raises:
        RolloutOver: there is none, or there are several.
    """
    found = {member.model for member in incident.members if member.version is not None}
    models = found or set(incident.models)
    if len(models) != 1:
        raise RolloutOver(f"It is about {len(models)} models: say which one.")
    return models.pop()
