"""`driftloop token`: who may ask the online service for what."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from driftloop.errors import BadRequest

if TYPE_CHECKING:
    from pathlib import Path

    from driftloop.settings import Settings


def token_commands(settings: "Callable[[], Settings]") -> typer.Typer:
    """Return the commands; `settings` reads the settings once one is called."""
    commands = typer.Typer(
        help="Tokens by which callers may ask the online service.", no_args_is_help=True
    )

    @commands.command()
    def create(
        name: Annotated[str, typer.Argument(help="What the token is called.")],
        scope: Annotated[
            str,
            typer.Option(
                help="What it is good for: predict (and labels, events), read, admin (all)."
                " Several with commas."
            ),
        ] = "predict",
    ) -> None:
        """Make a token and print it, once: only its digest is kept."""
        from datetime import UTC, datetime

        from driftloop.serve.tokens import Scope, create_token

        wanted = [part.strip() for part in scope.split(",") if part.strip()]
        known = [each.value for each in Scope]
        if wrong := [each for each in wanted if each not in known]:
            raise BadRequest(
                f"there is no scope {wrong[0]!r}",
                where="--scope",
                hint=f"known: {', '.join(known)}",
            )
        now = datetime.now(UTC).replace(microsecond=0)
        scopes = [Scope(each) for each in dict.fromkeys(wanted)]
        typer.echo(create_token(_file(settings()), name, scopes, now=now))

    @commands.command("list")
    def list_() -> None:
        """List the tokens by name, what each is good for, and when it was made."""
        from driftloop.serve.tokens import read_tokens

        for each in read_tokens(_file(settings())):
            made = f"{each.created:%Y-%m-%d %H:%M}" if each.created else "unknown when"
            typer.echo(f"{each.name}\t{','.join(each.scopes)}\t{made}")

    @commands.command()
    def revoke(name: Annotated[str, typer.Argument(help="What the token is called.")]) -> None:
        """Take a token away; the service knows within seconds."""
        from driftloop.serve.tokens import revoke_token

        revoke_token(_file(settings()), name)
        typer.echo(f"{name} is revoked")

    return commands


def _file(settings: "Settings") -> "Path":
    if settings.tokens is None:
        raise BadRequest(
            "no file of tokens is named, so whoever reaches the service may ask",
            where="tokens",
            hint="set tokens, as in DRIFTLOOP_TOKENS=tokens.toml, for all commands and `up`",
        )
    return settings.tokens
