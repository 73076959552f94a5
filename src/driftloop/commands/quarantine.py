"""`driftloop quarantine`: which rows train nothing and why, and a person's word on it."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from driftloop.errors import BadRequest
from driftloop.records import ModelId, Notice

if TYPE_CHECKING:
    from driftloop.judge.partitions import Standing
    from driftloop.wiring import System

ACTS = ("release", "add")
DATE = len("2026-03-10")


def quarantine_command(system: "Callable[[], System]") -> Callable[..., None]:
    """Return the command; `system` opens the installation once it is called."""

    def quarantine(
        words: Annotated[
            list[str] | None,
            typer.Argument(
                metavar=f"[{'|'.join(ACTS)} MODEL DAY]",
                help="What is to be done with which day of which model, as in 2026-03-10, or with"
                " which block, as in 2026-03-10T06:00. Without it: all that is in quarantine.",
            ),
        ] = None,
        until: Annotated[
            str | None, typer.Option(help="The last day, it too; the one day if left out.")
        ] = None,
        why: Annotated[str, typer.Option(help="In words; it is kept beside your name.")] = "",
        as_json: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False,
    ) -> None:
        """Show the rows that train nothing, with why and until when; or release or add some.

        release: they are right, and train again; the checks leave them alone from then on.
        add: they train nothing, whatever the checks say, until `quarantine.keep` is over.
        """
        act, *rest = words or [""]
        if not act:
            _show(system(), as_json=as_json)
            return
        if act not in ACTS or len(rest) != 2:  # noqa: PLR2004 - model and day
            raise BadRequest(
                f"{' '.join(words or [])!r} is not how it is asked",
                where="quarantine",
                hint=f"driftloop quarantine [{'|'.join(ACTS)} MODEL DAY --why WHY]",
            )
        if not why.strip():
            raise BadRequest(
                "says not why", where=f"quarantine {act}", hint='give --why "what you know"'
            )
        opened, model = system(), ModelId(rest[0])
        start, end = _span(opened, model, rest[1], until)
        if act == "release":
            _release(opened, model, start, end, why=why)
        else:
            _add(opened, model, start, end, why=why)

    return quarantine


def _show(system: "System", *, as_json: bool) -> None:
    found = system.quarantine.listed()
    if as_json:
        import msgspec

        typer.echo(msgspec.json.format(msgspec.json.encode(found)).decode())
        return
    for each in found:
        typer.echo(_said(each))
        for reason in each.fact.reasons:
            typer.echo(f"  {reason}")
    if not found:
        typer.echo("nothing is in quarantine")


def _release(system: "System", model: ModelId, start: datetime, end: datetime, *, why: str) -> None:
    import getpass

    found, said = system.quarantine.release(model, start, end, who=getpass.getuser(), why=why)
    for each in found:
        first, last = max(each.start, start), min(each.end, end)
        typer.echo(f"{model}: {_shown(first, last)} trains again")
    _tell(system, said)


def _add(system: "System", model: ModelId, start: datetime, end: datetime, *, why: str) -> None:
    import getpass

    fact, said = system.quarantine.add(model, start, end, who=getpass.getuser(), why=why)
    typer.echo(
        f"{model}: {_shown(fact.start, fact.end)}: {fact.rows} rows train nothing until"
        f" {fact.until:%Y-%m-%d %H:%M} UTC"
    )
    _tell(system, said)


def _tell(system: "System", notices: Sequence[Notice]) -> None:
    """Tell the owner; what cannot be told now the next pass tells."""
    for notice in notices:
        told = system.teller.tell(notice)
        if not told.told:
            typer.echo(f"{notice.channel} is not told yet: {told.why}", err=True)


def _span(
    system: "System", model: ModelId, first: str, until: str | None
) -> tuple[datetime, datetime]:
    """Return the span from the day or block that `first` names to that of `until`, it too."""
    from driftloop.judge.partitions import floor
    from driftloop.simulate import parse_time

    block = system.fleet.family(model).window.block
    start = parse_time(first, where="DAY")
    last = start if until is None else parse_time(until, where="--until")
    if last < start:
        raise BadRequest("is before the first day", where=f"--until {until}")
    whole = len(first if until is None else until) == DATE
    return start, last + timedelta(days=1) if whole else floor(last, block) + block


def _said(each: "Standing") -> str:
    fact = each.fact
    by = f", by {fact.who}" if fact.who is not None else ""
    cut = "" if (each.start, each.end) == (fact.start, fact.end) else "some of "
    return (
        f"{fact.model}: {_shown(each.start, each.end)}, {cut}{fact.rows} rows,"
        f" until {fact.until:%Y-%m-%d %H:%M} UTC{by}"
    )


def _shown(start: datetime, end: datetime) -> str:
    return f"{start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC"
