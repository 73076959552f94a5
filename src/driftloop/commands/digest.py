"""`driftloop digest`: what an owner is told of the day."""

from collections.abc import Callable, Iterator
from datetime import date
from typing import TYPE_CHECKING, Annotated

import typer

from driftloop.errors import BadRequest
from driftloop.records import Digest

if TYPE_CHECKING:
    from driftloop.wiring import System


def digest_command(system: "Callable[[], System]") -> Callable[..., None]:
    """Return the command; `system` opens the installation once it is called."""

    def digest(
        owner: Annotated[
            str | None, typer.Argument(help="A name in owners.toml; all of them if left out.")
        ] = None,
        day: Annotated[
            str | None,
            typer.Option(
                "--date",
                help="Whose digest, as in 2026-03-10; the last 24 hours if left out.",
            ),
        ] = None,
        *,
        send: Annotated[
            bool, typer.Option("--send", help="Post it in the owner's channel too.")
        ] = False,
    ) -> None:
        """Print an owner's day: health, incidents, new versions, what the loop could not do."""
        of_day = _day(day)
        digests = system().digests
        for name in [owner] if owner is not None else sorted(digests.fleet.owners):
            found = (digests.send if send else digests.of)(name, day=of_day)
            for line in _said(name, found):
                typer.echo(line)

    return digest


def _day(said: str | None) -> date | None:
    if said is None:
        return None
    try:
        return date.fromisoformat(said)
    except ValueError as error:
        raise BadRequest(
            f"{said!r} is not a day", where="--date", hint="as in 2026-03-10"
        ) from error


def _said(owner: str, digest: Digest | None) -> Iterator[str]:
    if digest is None:
        yield f"{owner}: no models, and nothing to tell"
        return
    yield f"{owner}: {digest.headline}"
    for title, lines in digest.sections:
        yield f"  {title}"
        yield from (f"    {line}" for line in lines)
