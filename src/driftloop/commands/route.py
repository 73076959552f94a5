"""`driftloop route`: who would be told of a fault, when, and who comes next."""

from collections.abc import Callable
from datetime import timedelta
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated

import typer

from driftloop.errors import BadRequest
from driftloop.records import PLATFORM, ModelId, Origin, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from driftloop.route import Routed, Turn
    from driftloop.spec import Fleet, Owner
    from driftloop.wiring import System

UNITS = (("d", 86400.0), ("h", 3600.0), ("m", 60.0), ("s", 1.0))


def route_command(system: "Callable[[], System]") -> Callable[..., None]:
    """Return the command; `system` opens the installation once it is called."""

    def route(
        model: Annotated[
            str, typer.Argument(help='A model, or "driftloop" for the loop\'s own trouble.')
        ],
        cause: Annotated[Origin, typer.Option(help="Where it comes from.")] = Origin.UNKNOWN,
        severity: Annotated[
            Severity, typer.Option(help="How urgent it is; see the README on how that is judged.")
        ] = Severity.WARNING,
        feature: Annotated[
            str | None, typer.Option(help="The feature at fault, where the cause is data.")
        ] = None,
        at: Annotated[
            str | None, typer.Option(help="When, as in 2026-03-10T06:00, in UTC; now if left out.")
        ] = None,
    ) -> None:
        """Say who would be told of a fault, when, and who comes next; nobody is told."""
        from driftloop.route import routed, turns
        from driftloop.simulate import parse_time

        opened = system()
        fleet, name = opened.fleet, ModelId(model)
        _check(fleet, name, cause, feature)
        when = opened.clock.now() if at is None else parse_time(at, where="--at")
        found = routed(fleet, name, origin=cause, severity=severity, feature=feature)
        typer.echo(f"{name}: cause {cause}, {severity}, at {when:%Y-%m-%d %H:%M} UTC")
        chain = turns(found, fleet.owners, severity, when)
        for line in _said(found, chain, fleet, reminds=severity is not Severity.INFO):
            typer.echo(f"  {line}")

    return route


def people(fleet: "Fleet", at: "datetime") -> "Iterator[tuple[str, bool]]":
    """Yield a line for each owner and for the routes, and whether it is a warning."""
    from driftloop.route import on_call

    for name, owner in fleet.owners.items():
        who = on_call(owner, at)
        quiet = ", ".join((*owner.quiet, *owner.quiet_days))
        parts = (
            f"{name} ({owner.channel})",
            _members(len(owner.members)),
            f"on call <@{who}>" if who is not None else "",
            f"quiet {quiet} {owner.time_zone}" if quiet else "",
        )
        yield f"owner {', '.join(part for part in parts if part)}", False
        if not owner.members and owner.on_call is None:
            yield f"{name} lists no members: nobody may press its buttons", True
    if fleet.routes.routes:
        number = len(fleet.routes.routes)
        said = f"{number} route{'' if number == 1 else 's'} in routes.toml"
        yield f"{said}; `driftloop route MODEL` says where one leads", False


def _check(fleet: "Fleet", model: ModelId, cause: Origin, feature: str | None) -> None:
    """Raise BadRequest for a question that cannot be meant."""
    if model != PLATFORM:
        family = fleet.family(model)
    if feature is None:
        return
    if model == PLATFORM or cause is not Origin.DATA:
        raise BadRequest("is of data at fault alone", where="--feature", hint="add --cause data")
    if feature not in family.features:
        near = get_close_matches(feature, family.features, n=1)
        known = f"known: {', '.join(family.features)}"
        raise BadRequest(
            f"{family.name} has no feature {feature!r}",
            where="--feature",
            hint=f"did you mean {near[0]!r}?" if near else known,
        )


def _said(
    route: "Routed", chain: "tuple[Turn, ...]", fleet: "Fleet", *, reminds: bool
) -> "Iterator[str]":
    first, *others = chain
    owner = fleet.owners[first.owner]
    by = (
        "no route: its owner"
        if not route.path
        else f"routes.{'.routes.'.join(map(str, route.path))}"
    )
    yield f"owner     {first.owner} in {owner.channel} ({by})"
    yield f"told      {_turn(first, owner)}"
    for turn in others:
        yield f"then      {turn.owner} in {fleet.owners[turn.owner].channel}, unless acknowledged:"
        yield f"          {_turn(turn, fleet.owners[turn.owner])}"
    if reminds:
        yield f"reminded  every {_length(route.repeat)} while it is open"
    else:
        yield "reminded  never, and nobody else is told: it is for the record"
    yield f"an acknowledgement lasts {_length(route.ack_expires)}"
    if not owner.members and owner.on_call is None:
        yield f"{first.owner} lists no members: nobody may press its buttons"


def _turn(turn: "Turn", owner: "Owner") -> str:
    local = turn.at.astimezone(owner.zone)
    zone = "" if owner.time_zone == "UTC" else f" ({local:%H:%M} {owner.time_zone})"
    waits = ", after the quiet hours" if turn.waits else ""
    calls = f", calls {turn.mention}" if turn.mention else ", calls nobody by name"
    return f"{turn.at:%Y-%m-%d %H:%M:%S} UTC{zone}{waits}{calls}"


def _members(number: int) -> str:
    return f"{number} member{'s' if number > 1 else ''}" if number else ""


def _length(length: timedelta) -> str:
    """Return a duration as monitor files have it.

    >>> _length(timedelta(hours=36)), _length(timedelta(days=2)), _length(timedelta(0))
    ('36h', '2d', '0s')
    """
    seconds = length.total_seconds()
    unit, size = next((each for each in UNITS if seconds and seconds % each[1] == 0), UNITS[-1])
    return f"{seconds / size:g}{unit}"
