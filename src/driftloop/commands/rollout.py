"""`driftloop rollout`: how far challengers have come, and a person's word on it."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from driftloop.errors import BadRequest
from driftloop.records import Advanced, ModelId, Rollout

if TYPE_CHECKING:
    from driftloop.loop.release import Looked
    from driftloop.wiring import System

ACTS = ("hold", "resume", "promote", "rollback")


def rollout_command(system: "Callable[[], System]") -> Callable[..., None]:
    """Return the command; `system` opens the installation once it is called."""

    def rollout(
        words: Annotated[
            list[str] | None,
            typer.Argument(
                metavar=f"[{'|'.join(ACTS)}] [MODEL]",
                help="A model, for what was seen of its challenger; before it what is to be done.",
            ),
        ] = None,
    ) -> None:
        """Show the rollouts under way, or one of them with its evidence; or act on it.

        hold: it goes no further (certain harm still rolls it back). resume: it goes on, one that
        is stuck is promoted again. promote: at once, whatever was seen. rollback: the champion
        before it answers alone.
        """
        act, *rest = words if words and words[0] in ACTS else ["", *(words or [])]
        if len(rest) > 1 or (act and not rest):
            raise BadRequest(
                "names no model" if not rest else f"takes one model, not {', '.join(rest)}",
                where=f"rollout {act}".strip(),
                hint=f"driftloop rollout [{'|'.join(ACTS)}] MODEL",
            )
        if act:
            typer.echo(_said(_acted(system(), act, ModelId(rest[0]))))
        elif rest:
            _show_one(system(), ModelId(rest[0]))
        else:
            _show_all(system())

    return rollout


def _acted(system: "System", act: str, model: ModelId) -> Rollout:
    import getpass

    releaser, who = system.releaser, getpass.getuser()
    acts = {
        "hold": releaser.hold,
        "resume": releaser.resume,
        "promote": releaser.promote,
        "rollback": releaser.roll_back,
    }
    return acts[act](model, who=who)


def _show_all(system: "System") -> None:
    found = system.ledger.rollouts()
    for rollout in found:
        typer.echo(_said(rollout))
    if not found:
        typer.echo("no rollout is under way")


def _show_one(system: "System", model: ModelId) -> None:
    system.fleet.family(model)
    if system.releaser.has_open(model):
        for line in _looked(system.releaser.look(model)):
            typer.echo(line)
        return
    last = system.ledger.facts(Advanced, model=model, last=1)
    typer.echo(f"{_said(last[0].rollout)}: over" if last else f"{model} never had a rollout")


def _looked(looked: "Looked") -> list[str]:
    """Return all that is known of an open rollout, line by line."""
    until = f", until {looked.until:%Y-%m-%d %H:%M} UTC" if looked.until is not None else ""
    return [
        _said(looked.rollout),
        *(f"  {each.what:<8} harm {each.harm}: {each.said}" for each in looked.findings),
        f"  next     {looked.waits}{until}",
    ]


def _said(rollout: Rollout) -> str:
    held = f", held by {rollout.held}" if rollout.held is not None else ""
    return (
        f"{rollout.model}: version {rollout.version} after version {rollout.champion}:"
        f" {rollout.named} since {rollout.since:%Y-%m-%d %H:%M} UTC{held}, epoch {rollout.epoch}:"
        f" {rollout.reason}"
    )
