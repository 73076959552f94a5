"""`driftloop consistency` and `driftloop backfill-events`: features and what they are made of."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from driftloop.errors import BadRequest

if TYPE_CHECKING:
    from driftloop.spec import Fleet, Source
    from driftloop.wiring import System


def add_feature_commands(
    app: typer.Typer, system: "Callable[[], System]", installed: "Callable[[], System]"
) -> None:
    """Add the commands to `app`; `system` builds the installation once one is called.

    `installed` does so too, where it is there already.
    """

    @app.command()
    def consistency() -> None:
        """Make features again that were served, and say how far they are from what was served.

        Looks at rows since the last time, and again the hour after. Exit code 1 beyond the limit.
        """
        from driftloop.vitals import CONSISTENT

        found = installed().compare_features()
        if not found:
            typer.echo("no family has features that are made of events")
        for each in found:
            shown = "not known" if each.value is None else f"{each.value:.3g}"
            more = f" ({each.problem})" if each.problem else ""
            typer.echo(f"{each.column}: worst difference {shown} in {each.n:,} rows{more}")
        if any(each.value is not None and each.value > CONSISTENT for each in found):
            raise typer.Exit(1)

    @app.command("backfill-events")
    def backfill_events(
        source: Annotated[str, typer.Argument(help="The source, as sources.toml calls it.")],
        file: Annotated[str, typer.Argument(help="A Parquet or CSV file, or an SQL query.")],
    ) -> None:
        """Give the log events from before driftloop: then `backfill` makes features of them.

        Columns: the source's time column, and its fields. The same events again change nothing.
        """
        from driftloop.prediction_log import read_source

        installation = system()
        declared = _events_of(installation.fleet, source)
        table = read_source(file)
        new = installation.take_past(declared, table)
        known = table.num_rows - new
        read = installation.is_read(within=10.0)
        typer.echo(
            f"{new} events{f', {known} were known' if known else ''}"
            f"{'' if read else ', which wait for the ingester'}"
        )


def _events_of(fleet: "Fleet", name: str) -> "Source":
    streams = {key: source for key, source in fleet.sources.items() if source.kind == "events"}
    if name not in streams:
        raise BadRequest(
            f"there is no source of events {name!r}",
            where="sources.toml",
            hint=f"known: {', '.join(streams) or 'none'}",
        )
    return streams[name]
