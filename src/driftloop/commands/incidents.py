"""`driftloop incidents`, `ack`, `silence`, `resolve`: what the buttons do, by hand."""

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated
from uuid import uuid4

import typer

from driftloop.errors import BadRequest
from driftloop.records import Act, Acted, Click, Incident, Stage

if TYPE_CHECKING:
    from driftloop.records import Fact
    from driftloop.wiring import System

WIDTH = 160
NAMED = 3
Which = Annotated[
    str,
    typer.Argument(
        metavar="ID|MODEL", help="An incident, one of its models, or how either begins."
    ),
]
Why = Annotated[str, typer.Option(help="In words; it is kept beside your name.")]


def add_incident_commands(app: typer.Typer, system: "Callable[[], System]") -> None:
    """Add the commands; `system` opens the installation once one is called."""

    @app.command()
    def incidents(
        which: Annotated[
            str | None,
            typer.Argument(metavar="ID|MODEL", help="One of them, with all that is known of it."),
        ] = None,
        every: Annotated[bool, typer.Option("--all", help="Those that are over, too.")] = False,
        denied: Annotated[
            bool, typer.Option("--denied", help="What people said is not a problem, and why.")
        ] = False,
        owner: Annotated[str | None, typer.Option(help="Only those of this owner.")] = None,
        as_json: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False,
    ) -> None:
        """Show the incidents that people are told of, or one of them from its first alert on."""
        opened = system()
        if owner is not None and owner not in opened.fleet.owners:
            known = ", ".join(sorted(opened.fleet.owners))
            raise BadRequest(
                "owners.toml declares no such owner", where=f"--owner {owner}", hint=known
            )
        if denied:
            _show_denied(opened, owner, as_json=as_json)
        elif which is not None:
            one = opened.incidents.find(which)
            if owner not in {None, one.owner}:
                raise BadRequest(f"is for {one.owner}", where=one.id, hint="leave --owner out")
            _show_one(opened, one, as_json=as_json)
        else:
            found = opened.incidents.all() if every else opened.incidents.live()
            _show_all([i for i in found if owner in {None, i.owner}], as_json=as_json)

    @app.command()
    def ack(which: Which, why: Why = "") -> None:
        """Say that you look into an incident: nobody else is called until that expires."""
        _do(system(), which, Act.ACK, why=why)

    @app.command()
    def silence(
        which: Which,
        length: Annotated[
            str,
            typer.Option("--for", help='"tomorrow", "next-version", or as in "90m", "4h", "2d".'),
        ] = "1h",
        why: Why = "",
    ) -> None:
        """Let an incident tell nothing for a while, unless it recovers."""
        _do(system(), which, Act.SILENCE, why=why, silence=length)

    @app.command()
    def resolve(
        which: Which,
        why: Why = "",
        no_problem: Annotated[
            bool,
            typer.Option(
                "--not-a-problem", help="It should not have been told: counts as a false page."
            ),
        ] = False,
    ) -> None:
        """Close an incident by hand; what the loop finds later is a new one."""
        if not why.strip():
            raise BadRequest("says not why", where="resolve", hint='give --why "what you know"')
        _do(system(), which, Act.NO_PROBLEM if no_problem else Act.RESOLVE, why=why)


def _do(system: "System", which: str, act: Act, *, why: str, silence: str = "") -> None:
    import getpass

    incident = system.incidents.find(which)
    click = Click(
        key=f"by-hand/{uuid4().hex}",
        act=act,
        incident=incident.id,
        who=getpass.getuser(),
        why=why,
        silence=silence,
    )
    answer = system.desk.take(click)
    if not answer.done:
        raise BadRequest(answer.said, where=incident.id)
    typer.echo(f"{incident.id}: {answer.said}")


def _show_all(found: Sequence[Incident], *, as_json: bool) -> None:
    from driftloop.incident.lines import when
    from driftloop.incident.words import headline

    if as_json:
        _print_json(found)
        return
    if not found:
        typer.echo("no incident is open")
        return
    rows = [
        (
            each.id,
            _status(each),
            each.owner,
            str(each.severity),
            when(each.since),
            _models(each),
            headline(each),
        )
        for each in found
    ]
    _print_table(("id", "status", "owner", "severity", "since", "models", "what"), rows)


def _show_one(system: "System", incident: Incident, *, as_json: bool) -> None:
    from driftloop.incident.lines import plain, worst
    from driftloop.incident.words import headline, needs, stands

    if as_json:
        _print_json(incident)
        return
    owner = system.fleet.owners.get(incident.owner)
    channel = f" ({owner.channel})" if owner is not None else ""
    typer.echo(f"{incident.id}: {headline(incident)}")
    larger = f" (`driftloop incidents {incident.explained_by}`)" if incident.explained_by else ""
    typer.echo(f"  {plain(stands(incident))}{larger}")
    typer.echo(f"  owner {incident.owner}{channel}, {incident.severity}, cause {incident.origin}")
    typer.echo(f"  needs: {needs(incident)}")
    for model, line in worst(incident):
        typer.echo(f"  {model}: {line}")
    for line in _history(system.ledger.incident(incident.id)):
        typer.echo(f"  {line}")


def _history(facts: "Sequence[Fact]") -> list[str]:
    """Return what happened, oldest first; of one channel's posts the first."""
    from driftloop.incident.lines import acted_on, when
    from driftloop.records import Grouped, Noted, Posted, Relayed, Unsent

    lines: list[tuple[str, str]] = []
    channels: set[str] = set()
    for fact in facts:
        match fact:
            case Grouped(alert=alert, model=model):
                what, shown = "joined", f"{model}: {alert}"
            case Noted(notice=notice) if notice.stage is not Stage.ACTED:  # its own fact says it
                what, shown = str(notice.stage), notice.headline
            case Posted(channel=channel, receipt=receipt) if channel not in channels:
                channels.add(channel)
                what, shown = "told", f"in {channel}, message {receipt.ts}"
            case Unsent(channel=channel, error=error):
                what, shown = "not told", f"in {channel}: {error}"
            case Relayed(way=way, to=to, why=why):
                what, shown = "told", f"by {way} to {to}: {why}"
            case Acted():
                what, shown = str(fact.act), acted_on(fact)
            case _:
                continue
        lines.append((when(fact.at), f"{what:<13} {' '.join(shown.split())}"))
    return [f"{at}  {shown}" for at, shown in lines]


def _show_denied(system: "System", owner: str | None, *, as_json: bool) -> None:
    from driftloop.incident.lines import when

    found: list[Acted] = []
    for act in system.incidents.denied():
        incident = system.incidents.of(act.incident)
        if owner is None or (incident is not None and incident.owner == owner):
            found.append(act)
    if as_json:
        _print_json(found)
    elif not found:
        typer.echo("people denied no page")
    else:
        rows = [(act.incident, when(act.at), act.who, act.why) for act in found]
        _print_table(("id", "when", "who", "why"), rows)


def _status(incident: Incident) -> str:
    from driftloop.incident.lines import when

    status = str(incident.status)
    if incident.who is not None:
        status += f" by {incident.who}"
    if incident.until_version:
        return f"{status} until the next version"
    return f"{status} until {when(incident.until)}" if incident.until is not None else status


def _models(incident: Incident) -> str:
    names = ", ".join(incident.models[:NAMED])
    more = len(incident.models) - NAMED
    return f"{names} and {more} more" if more > 0 else names


def _print_json(found: object) -> None:
    import msgspec

    typer.echo(msgspec.json.format(msgspec.json.encode(found)).decode())


def _print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, box=None, pad_edge=False)
    table.columns[0].no_wrap = True
    for row in rows:
        # As it is: names and reasons are no markup.
        table.add_row(*(Text(" ".join(cell.split())) for cell in row))
    Console(width=None if sys.stdout.isatty() else WIDTH).print(table)
