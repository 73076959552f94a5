"""`driftloop replay`: what another policy would have done with the past."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from driftloop.errors import BadRequest

if TYPE_CHECKING:
    from driftloop.loop.replay import Outcome
    from driftloop.records import Decision, Order
    from driftloop.wiring import System

PRESENT = "as it is"
"""What the policy of the monitor files is called."""


def replay_command(system: "Callable[[], System]") -> Callable[..., None]:
    """Return the command; `system` opens the installation once it is called."""

    def replay(
        since: Annotated[
            str,
            typer.Option("--from", help="The first look: 2026-03-01, or with a time; UTC."),
        ],
        until: Annotated[str, typer.Option("--to", help="Before it the last look.")],
        policy: Annotated[
            list[Path] | None,
            typer.Option(
                help="A TOML file whose tables ([decay], [budget], ...; [families.NAME.decay] for"
                " one family) go over the monitor files'. Several are shown side by side."
            ),
        ] = None,
        rows: Annotated[
            bool,
            typer.Option(
                "--rows", help="Measure the log's rows anew, train and answer: slow, and whole."
            ),
        ] = False,
        out: Annotated[
            Path | None,
            typer.Option(help="With --rows: keep its ledger and its models in this folder."),
        ] = None,
        as_json: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False,
    ) -> None:
        """Go through the past again, and show what each policy would have paged and retrained.

        On the readings that are kept, unless --rows is given. The same past and policy give the
        same decisions to the byte: their SHA-256 is printed.
        """
        from driftloop.simulate import parse_time

        start, end = parse_time(since, where="--from"), parse_time(until, where="--to")
        if start >= end:
            raise BadRequest("is not before --to", where=f"--from {since}")
        if out is not None and not rows:
            raise BadRequest("is of use with --rows alone", where="--out")
        files = policy or []
        if twice := [str(file) for file, count in Counter(files).items() if count > 1]:
            raise BadRequest("is given twice", where=f"--policy {twice[0]}")
        opened = system()
        found = {}
        for file in (None, *files):
            name = PRESENT if file is None else str(file)
            if rows:
                kept = None if out is None else out / (file.stem if file else "as-it-is")
                say = partial(_trains, name)
                found[name] = opened.relive(file, start=start, end=end, out=kept, say=say)
            else:
                found[name] = opened.replay(file, start=start, end=end)
        if as_json:
            typer.echo(json.dumps({name: _plain(outcome) for name, outcome in found.items()}))
        else:
            _show(found)

    return replay


def _trains(name: str, at: datetime, order: "Order") -> None:
    typer.echo(f"{at:%Y-%m-%d %H:%M} {name}: {order.model} is trained: {order.reason}", err=True)


def _show(found: "dict[str, Outcome]") -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("", *found, box=None, pad_edge=False)
    outcomes = list(found.values())
    table.add_row("decisions", *(f"{each.decisions:,}" for each in outcomes))
    table.add_row("pages", *(str(len(each.pages)) for each in outcomes))
    for state in sorted({str(page.state) for each in outcomes for page in each.pages}):
        counts = (sum(page.state == state for page in each.pages) for each in outcomes)
        table.add_row(f"  {state}", *(str(count) for count in counts))
    table.add_row("retrainings", *(str(len(each.retrains)) for each in outcomes))
    table.add_row("first alarm to page, median", *(_long(each.delay) for each in outcomes))
    table.add_row("worse than at the gate, on average", *(_share(each.worse) for each in outcomes))
    table.add_row("SHA-256 of the decisions", *(each.digest[:16] for each in outcomes))
    Console().print(table)
    _differences(found)


def _differences(found: "dict[str, Outcome]") -> None:
    """Name what a policy pages that the present one does not, and the other way round."""
    first, *others = found.items()
    for name, outcome in others:
        for what, mine, theirs in (
            ("pages", first[1].pages, outcome.pages),
            ("retrains", first[1].retrains, outcome.retrains),
        ):
            here, there = _models(mine), _models(theirs)
            for model in sorted(here.keys() | there.keys()):
                if here[model] != there[model]:
                    typer.echo(f"{model}: {what} {here[model]} {first[0]}, {there[model]} {name}")


def _models(decisions: "Sequence[Decision]") -> Counter[str]:
    return Counter(decision.model for decision in decisions)


def _plain(outcome: "Outcome") -> dict[str, object]:
    return {
        "decisions": outcome.decisions,
        "pages": [_event(page) for page in outcome.pages],
        "retrains": [_event(each) for each in outcome.retrains],
        "delay_s": None if outcome.delay is None else outcome.delay.total_seconds(),
        "worse": outcome.worse,
        "sha256": outcome.digest,
    }


def _event(decision: "Decision") -> dict[str, str]:
    return {"model": decision.model, "at": decision.at.isoformat(), "reason": decision.reason}


def _long(delay: timedelta | None) -> str:
    return "-" if delay is None else str(delay)


def _share(worse: float | None) -> str:
    return "-" if worse is None else f"{worse:+.1%}"
