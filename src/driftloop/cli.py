"""`driftloop ...`: parse, hand over, print; what is heavy is imported by what needs it."""

import logging
import sys
from collections.abc import Sequence
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from driftloop import __version__
from driftloop.commands.digest import digest_command
from driftloop.commands.features import add_feature_commands
from driftloop.commands.incidents import add_incident_commands
from driftloop.commands.quarantine import quarantine_command
from driftloop.commands.replay import replay_command
from driftloop.commands.rollout import rollout_command
from driftloop.commands.route import people, route_command
from driftloop.commands.slack_sandbox import slack_sandbox
from driftloop.commands.token import token_commands
from driftloop.errors import (
    BadRequest,
    DriftloopError,
    LedgerError,
    LogError,
    SpecError,
    TrainingFailed,
)
from driftloop.records import ModelId, Task

if TYPE_CHECKING:
    import socket

    from driftloop.settings import Settings
    from driftloop.wiring import System


class InOurWords(TyperGroup):
    """Commands whose faulty arguments are told without the words of what checks them."""

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401 - as it is declared there
        """Invoke the command that was asked for."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            error.message = error.message.removeprefix("Value error, ")
            raise


app = typer.Typer(
    name="driftloop",
    cls=InOurWords,
    help="Keep a fleet of deployed models fresh: watch, page, retrain, gate, redeploy.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    # Plain help: what draws it in boxes costs more to import than all of ours.
    rich_markup_mode=None,
)
_given: dict[str, object] = {}
STOPPED = 130
"""The exit code after Ctrl-C, as shells have it."""
READ_WITHIN = 30.0
"""Wall seconds that a command waits for the ingester to read what it handed over."""


class Act(StrEnum):
    """What `driftloop simulate` makes, each act what those before it do too."""

    MONITORS = "monitors"
    HISTORY = "history"
    ROWS = "rows"


Model = Annotated[str, typer.Argument(help="A model, as in `air-time-ewr-ua`.")]


def main() -> None:
    """Run the command line; errors of ours are a line on stderr, exit code 2 for bad input."""
    try:
        app()
    except (BadRequest, SpecError) as error:
        _complain(error)
        sys.exit(2)
    except DriftloopError as error:
        _complain(error)
        sys.exit(1)
    except OSError as error:
        where = str(error.filename or "")
        _complain(DriftloopError(error.strerror or str(error), where=where, hint="see --home"))
        sys.exit(2)
    except (KeyboardInterrupt, SystemExit) as ended:
        # Typer makes of Ctrl-C an exit without a word.
        if isinstance(ended, SystemExit) and ended.code != STOPPED:
            raise
        typer.echo("stopped", err=True)
        sys.exit(STOPPED)


@app.callback()
def options(
    home: Annotated[
        Path | None, typer.Option(help="Where this installation keeps everything it writes.")
    ] = None,
    monitors: Annotated[Path | None, typer.Option(help="The folder of monitor files.")] = None,
    models: Annotated[
        str | None, typer.Option(help="Only these models, separated by commas.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="A file of settings, instead of driftloop.toml.")
    ] = None,
) -> None:
    """Take the options that every command shares; each is also an environment variable."""
    _given.update(
        home=home.absolute() if home else None,
        monitors=monitors.absolute() if monitors else None,
        models=models,
        config=config,
    )


@app.command()
def version() -> None:
    """Print driftloop's version."""
    typer.echo(__version__)


@app.command()
def settings(
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False,
) -> None:
    """Show every setting, where it comes from, and what it is for."""
    from driftloop.settings import explained

    found = explained(**_given)
    if as_json:
        import msgspec

        typer.echo(msgspec.json.format(msgspec.json.encode(found)).decode())
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("setting", "value", "from", "what", box=None, pad_edge=False)
    for each in found:
        table.add_row(each.name, each.value, each.origin, each.what)
    Console(width=None if sys.stdout.isatty() else 160).print(table)


@app.command()
def init(
    folder: Annotated[
        Path, typer.Argument(help="Where to; the working folder if left out.")
    ] = Path(),
) -> None:
    """Write settings and monitor files to begin with, commented; nothing is overwritten."""
    from driftloop.starter import write_starter

    for file in write_starter(folder):
        typer.echo(str(file))
    typer.echo(
        "next: edit them; `driftloop check`; `driftloop up`, and beside it `backfill`, `train`"
    )


@app.command()
def check() -> None:
    """Check the monitor files and say what they declare; every fault at once, exit code 2.

    Exit code 1 when they are sound, but a log of others, or the ledger, cannot be read. Run it
    where the loop runs: it reads these and the tables of sources.toml, and looks for handover
    commands.
    """
    from driftloop.judge import spending
    from driftloop.show import warn_of_clicks

    system = _system()
    fleet = system.fleet
    faults: list[DriftloopError] = []
    unread: list[DriftloopError] = []
    warned = warn_of_clicks(system.settings)
    denied = _denied(system, unread)
    for family in fleet.families:
        task = f"{family.task}{f' of {len(family.classes)} classes' if family.classes else ''}"
        typer.echo(
            f"{family.name}: {len(family.models)} models, {len(family.features)} features, "
            f"{task}, owner {family.owner} ({fleet.owners[family.owner].channel})"
        )
        typer.echo(f"  {spending(fleet, family, denied)}")
        try:
            for line in system.contents(family) or _wrapped(family.models):
                typer.echo(f"  {line}")
            for warning in system.warnings(family):
                typer.echo(f"  warning: {warning}")
                warned += 1
        except SpecError as error:
            faults += error.faults
        except LogError as error:
            unread.append(error)
        try:
            system.handover.check(family)
        except BadRequest as error:
            faults.append(error)
        try:
            system.check_recipe(family)
        except TrainingFailed as error:
            faults.append(error)
    warned += _say_people(system)
    faults += system.unfit_tables()
    if faults:
        raise SpecError((*faults, *unread))
    if unread:
        raise LogError("\n".join(str(error) for error in unread))
    well = _many(warned, "warning", "warnings") if warned else "all well"
    models = _many(len(fleet.models), "model", "models")
    families = _many(len(fleet.families), "family", "families")
    typer.echo(f"{models} in {families}: {well}")


@app.command()
def up(
    only: Annotated[
        str | None,
        typer.Option(help="Only these services, separated by commas, as in online,ingester."),
    ] = None,
) -> None:
    """Start every service, wait until each is healthy, and keep them up until Ctrl-C.

    What settings name by address, and so runs elsewhere, is not started.
    """
    from driftloop.show import run_up

    run_up(_settings(), only=only)


@app.command()
def status() -> None:
    """Say which services run; exit code 1 when one does not."""
    from driftloop.show import show_status

    sys.exit(0 if show_status(_settings()) else 1)


@app.command()
def backfill(
    family: Annotated[str, typer.Argument(help="The family the rows belong to.")],
    source: Annotated[str, typer.Argument(help="A Parquet or CSV file, or an SQL query.")],
) -> None:
    """Give the log what was known before driftloop: features and labels, without predictions.

    Columns: id, model, the family's time column, its features, label, observed_at. Features that
    are made of events or computed may be left out, all of them: they are made of the log's events
    (see backfill-events). Nothing is handed over when one id is in the log already, or waits for
    the ingester.
    """
    from driftloop.prediction_log import history_columns, history_rows, read_source, without_made

    system = _system()
    declared = system.fleet.family_named(family)
    declared.need_own_log()
    table = read_source(source)
    table, made = without_made(declared, table)
    predictions, outcomes = history_rows(declared, table, now=system.clock.now())
    if made:
        predictions = system.with_features(declared, predictions)
        typer.echo(f"made of the log's events: {', '.join(made)}", err=True)
    columns = history_columns(declared)
    if ignored := [name for name in table.column_names if name not in columns]:
        typer.echo(f"ignored: {', '.join(ignored)} (known: {', '.join(columns)})", err=True)
    features = predictions["features"].combine_chunks()
    if empty := [n for n in declared.features if features.field(n).null_count == len(features)]:
        typer.echo(f"null in every row: {', '.join(empty)}", err=True)
    system.refuse_logged(declared, predictions)
    with system.spool("backfill") as spool:
        rows, known = spool.checked_history(declared, predictions, outcomes)
    _say_read(system, f"{rows} rows, {known} of them labelled")


@app.command()
def labels(
    source: Annotated[str, typer.Argument(help="A Parquet or CSV file, or an SQL query.")],
) -> None:
    """Hand in labels: columns id, model, value and, if known, observed_at."""
    from driftloop.prediction_log import read_labels

    system = _system()
    found = read_labels(source, system.fleet, now=system.clock.now())
    for model in {label.model for label in found}:
        system.fleet.family(model).need_own_log()
    spool, handed = system.spool("labels"), []
    try:
        for family in system.fleet.families:
            rows = [label for label in found if label.model in family.models]
            if rows:
                spool.labels(family.name, rows)
                handed.append((family, rows))
    finally:
        spool.close()
    if _say_read(system, f"{len(found)} labels"):
        early = sum(system.log.unmatched(family, rows) for family, rows in handed)
        if early:
            typer.echo(
                f"{early} of them are for predictions that are not in the log: they count once"
                " these come",
                err=True,
            )


@app.command()
def train(
    models: Annotated[
        list[str] | None, typer.Argument(help="Models; those without a champion if none is named.")
    ] = None,
) -> None:
    """Train, gate and release: the first version of models without one, or a new one by hand."""
    from driftloop.loop.watch import first_orders, order

    system = _system()
    now = system.clock.now()
    heads = system.ledger.heads()
    if models:
        for head in heads:
            if head.model in models:
                system.fleet.family(head.model).need_handover()
        orders = tuple(
            order(
                system.fleet.family(name),
                ModelId(name),
                key=f"by-hand/{name}/{now:%Y%m%dT%H%M%S}",
                reason="asked for by hand",
                now=now,
            )
            for name in models
        )
    else:
        orders = first_orders(system.fleet, heads, now)
    failed = 0
    for made in orders:
        renewed = system.renewer.renew(made)
        failed += renewed.outcome not in {"promoted", "rollout"}
        typer.echo(f"{made.model}: {renewed.outcome}: {renewed.reason}")
    if not orders:
        typer.echo("every model has a champion; name one to train it anew")
    if failed:
        sys.exit(1)


@app.command("predict-batch")
def predict_batch(
    model: Model,
    source: Annotated[
        str, typer.Argument(help="Parquet or CSV, a file or 'a/*.parquet'; or an SQL query.")
    ],
    out: Annotated[Path, typer.Option(help="Where to write: .parquet or .csv.")],
    publish: Annotated[
        bool, typer.Option("--publish", help="Let the online service give the answers by id, too.")
    ] = False,
    anew: Annotated[
        bool, typer.Option("--anew", help="Forget what an earlier run of it left undone.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False,
) -> None:
    """Score rows through the model that answers now, write the answers and log them.

    The source may be larger than memory. What was stopped goes on where it stood when the same is
    asked for again, with the version it began with; each row is logged once.
    """
    from driftloop.batch import Job
    from driftloop.records import ModelId
    from driftloop.show_batch import run_batch

    job = Job(model=ModelId(model), source=source, out=out, anew=anew, publish=publish)
    run_batch(_system(), job, as_json=as_json)


@app.command()
def refresh(
    sources: Annotated[
        list[str] | None, typer.Argument(help="Which tables; all if left out.")
    ] = None,
) -> None:
    """Read tables that features are looked up in into the online store, now."""
    system = _system()
    tables = [each.name for each in system.fleet.sources.values() if each.kind == "table"]
    for name in sources or tables:
        typer.echo(f"{name}: {system.refresh(name):,} keys in the online store")
    if not sources and not tables:
        typer.echo("sources.toml declares no table")


@app.command()
def report(
    model: Model,
    decision: Annotated[
        str | None, typer.Option(help="Of which decision, as in 20130603T120000; now if left out.")
    ] = None,
    snapshot: Annotated[
        bool, typer.Option(help="Evidently's snapshot instead: every number and verdict, as JSON.")
    ] = False,
) -> None:
    """Write Evidently's full report on a model as HTML and print where it is."""
    key = f"{model}/{decision}" if decision else None
    system = _installed()
    made = system.snapshot if snapshot else system.report
    typer.echo(str(made(ModelId(model), key=key)))


@app.command()
def trace(
    id_: Annotated[
        str,
        typer.Argument(
            metavar="ID", help="A prediction's id, the key of a decision, or model#version."
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False,
) -> None:
    """Follow one id from the prediction to the decision, the page and the version."""
    found = _installed().trace(id_)
    if as_json:
        import msgspec

        typer.echo(msgspec.json.format(msgspec.json.encode(found)).decode())
        return
    for step in found:
        typer.echo(f"{step.at:%Y-%m-%d %H:%M:%S}  {step.what:<16} {step.said}")
        if step.trace is not None:
            typer.echo(f"{'':21}{'':<16} trace {step.trace}")


@app.command()
def rollback(
    model: Model,
    to: Annotated[
        int | None, typer.Option(help="The version wanted; the one before if left out.")
    ] = None,
) -> None:
    """Make an earlier champion answer again; a rollout under way is ended by it."""
    import getpass

    head = _system().roll_back(ModelId(model), to=to, who=getpass.getuser())
    typer.echo(f"{model}: version {head.version} answers from epoch {head.epoch} on")


@app.command()
def backup(
    file: Annotated[Path, typer.Argument(help="Where to write: a new file, a tar archive.")],
) -> None:
    """Copy log, ledger and models into one file, consistent while `driftloop up` goes on."""
    from driftloop.keep import backup

    made = backup(_settings(), file)
    typer.echo(
        f"{file}: champions {made.champions}, facts {made.facts}, files {len(made.files)},"
        f" {made.bytes / 1e6:.1f} MB"
    )
    _tell_damaged(made.damaged)


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(help="What `driftloop backup` wrote.")],
) -> None:
    """Make the home (--home), which must not be there yet, of a backup, checked file by file."""
    from datetime import UTC, datetime

    from driftloop.keep import refuse_elsewhere, restore

    settings = _settings()
    refuse_elsewhere(settings)
    found = restore(file, settings.home)
    made = found.backup
    typer.echo(
        f"{settings.home}: as it was at {datetime.fromtimestamp(made.made_at, UTC):%Y-%m-%d %H:%M}"
        f" UTC with driftloop {made.driftloop}: champions {len(found.champions)},"
        f" facts {found.facts}, predictions and labels in the log {found.rows},"
        f" segments to be read {found.waiting}"
    )
    _tell_damaged(made.damaged)


@app.command()
def prune(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would go, and what is pinned and why.")
    ] = False,
) -> None:
    """Remove what is older than the monitors' retention says; the ingester does so with the log."""
    system = _installed()
    if dry_run:
        for pin in system.pins():
            window = pin.window
            typer.echo(
                f"pinned: rows of {window.model} from {window.start:%Y-%m-%d %H:%M} to"
                f" {window.end:%Y-%m-%d %H:%M}: {pin.why}"
            )
        if system.log.is_made():
            rows = system.expiring()
            typer.echo(
                f"the ingester would let go: {rows.rows} predictions and {rows.labels} labels;"
                f" {rows.pinned} old predictions are pinned"
            )
    for gone in system.prune(dry_run=dry_run):
        typer.echo(f"{'would go' if dry_run else 'removed'}: {gone}")


@app.command()
def simulate(  # noqa: PLR0913, PLR0917 - what a fleet may be, an option each
    what: Annotated[
        Act,
        typer.Argument(
            help="monitors: only the monitor files. history: and known outcomes, to train on."
            " rows: then what happens in the time simulated, faults and all."
        ),
    ],
    models: Annotated[int, typer.Option(help="How many; m000, m001...")] = 3,
    task: Annotated[Task, typer.Option(help="What they predict.")] = Task.REGRESSION,
    numeric: Annotated[int, typer.Option(help="Numeric features of each; x00, x01...")] = 5,
    categorical: Annotated[int, typer.Option(help="Categorical ones; c00, c01...")] = 1,
    levels: Annotated[int, typer.Option(help="Levels of each category.")] = 8,
    nulls: Annotated[float, typer.Option(help="Share of nulls in each feature.")] = 0.0,
    classes: Annotated[int, typer.Option(help="What a multiclass model predicts one of.")] = 3,
    rows_per_day: Annotated[int, typer.Option(help="Of each model.")] = 400,
    start: Annotated[str, typer.Option(help="When the time simulated begins, in UTC.")] = (
        "2026-03-01"
    ),
    days: Annotated[float, typer.Option(help="How long it is.")] = 14.0,
    history_days: Annotated[float, typer.Option(help="How long outcomes were known before.")] = 28,
    label_delay: Annotated[
        str, typer.Option(help='How much later a label comes, as in "90s", "10m", "2h" or "1d".')
    ] = "0s",
    unlabelled: Annotated[float, typer.Option(help="Share of rows whose label never comes.")] = 0.0,
    fault: Annotated[
        list[str] | None,
        typer.Option(
            help="What goes wrong, as KIND[:COLUMN]:SIZE@FROM[..UNTIL][/MARKET,...];"
            " give it several times for several faults."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Another seed, another world.")] = 1,
    family: Annotated[str, typer.Option(help="What the family is called.")] = "simulated",
) -> None:
    """Make up a fleet: models, rows, late labels, and faults at known times.

    A fault is mean-shift, scale, category-mix, concept-flip, null-burst, broken-feature or
    volume-drop, as in mean-shift:x03:2.0@2026-03-10/m003,m004. The installation has to
    be one of its own: its clock is set to the start by `history`, and to the end by `rows`.
    """
    from driftloop import stage
    from driftloop.simulate import Plan, Shape, parse_fault, parse_time, write_monitors

    begins = parse_time(start, where="--start")
    plan = Plan(
        start=begins,
        end=begins + _length(f"{days}d", "--days"),
        models=models,
        shape=Shape(
            task=task,
            numeric=numeric,
            categorical=categorical,
            levels=levels,
            nulls=nulls,
            classes=classes,
        ),
        rows=rows_per_day,
        history=_length(f"{history_days}d", "--history-days"),
        label_delay=_length(label_delay, "--label-delay"),
        unlabelled=unlabelled,
        seed=seed,
        family=family,
        faults=tuple(map(parse_fault, fault or ())),
    )
    settings = _settings()
    if what is Act.HISTORY:
        stage.set_out(settings, plan)
    elif what is Act.ROWS:
        stage.need_history(settings, plan)
    for file in write_monitors(plan, settings.monitors):
        typer.echo(str(file))
    if what is Act.MONITORS:
        typer.echo("next: `driftloop check`; `driftloop simulate history` with the same options")
        return
    system = _system()
    write = stage.write_history if what is Act.HISTORY else stage.write_span
    rows, known = write(system, plan)
    _say_read(system, f"{rows} rows of {models} models, {known} labels")
    if what is Act.HISTORY:
        typer.echo(
            f"the clock of {settings.home} shows {plan.start:%Y-%m-%d %H:%M} UTC\n"
            "next: `driftloop up`; beside it `train`, then `simulate rows` with the same options"
        )
        return
    for each in plan.faults:
        typer.echo(f"injected: {each}")
    typer.echo(
        f"the clock of {settings.home} shows {plan.end:%Y-%m-%d %H:%M} UTC\n"
        "next: the next pass of `driftloop up` sees it; `driftloop report MODEL`"
    )


@app.command()
def demo(
    models: Annotated[
        str, typer.Option(help='"default", "all", or models separated by commas.')
    ] = "default",
    minutes: Annotated[float, typer.Option(help="How long the replay of the year takes.")] = 8.5,
    stay: Annotated[bool, typer.Option(help="Keep everything up afterwards, until Ctrl-C.")] = True,
    restart: Annotated[
        bool, typer.Option(help="Restart services that die; see what a dead worker costs without.")
    ] = True,
) -> None:
    """Replay 2013's departures from New York through the whole loop, live."""
    from driftloop.demo import run_demo

    sys.exit(run_demo(_settings(), models=models, minutes=minutes, stay=stay, restart=restart))


# -- what `driftloop up` starts -------------------------------------------------------------


@app.command("_ingest", hidden=True)
def ingest() -> None:
    """Run the ingester until told to stop."""
    import signal
    import threading

    from driftloop.heartbeat import beat

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    system = _system("ingester")
    ingester = system.ingester()
    typer.echo("the ingester is ready")
    sys.stdout.flush()
    home = system.settings.home
    ingester.run(stop, system.settings.ingest_every, alive=lambda: beat(home, "ingester"))


@app.command("_stream", hidden=True)
def stream() -> None:
    """Take events until told to stop."""
    from driftloop.heartbeat import beat

    system = _system("stream")

    def say_ready() -> None:
        typer.echo("the stream process is ready")
        sys.stdout.flush()

    system.run_stream(ready=say_ready, alive=lambda: beat(system.settings.home, "stream"))


@app.command("_watchdog", hidden=True)
def watchdog() -> None:
    """Run the watchdog until told to stop."""
    import signal
    import threading

    from driftloop.up.watchdog import Watchdog

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    system = _system("watchdog")
    dog = Watchdog(system)
    typer.echo("the watchdog is ready")
    sys.stdout.flush()
    dog.run(stop, system.settings.watchdog_every)


add_feature_commands(app, lambda: _system(), lambda: _installed())  # noqa: PLW0108 - they are defined below
add_incident_commands(app, lambda: _installed())  # noqa: PLW0108 - it is defined below
app.command("replay")(replay_command(lambda: _installed()))  # noqa: PLW0108 - it is defined below
app.command("quarantine")(quarantine_command(lambda: _installed()))  # noqa: PLW0108 - it is defined below
app.command("digest")(digest_command(lambda: _installed()))  # noqa: PLW0108 - it is defined below
app.command("rollout")(rollout_command(lambda: _installed()))  # noqa: PLW0108 - it is defined below
app.command("route")(route_command(lambda: _system()))  # noqa: PLW0108 - it is defined below
app.command("slack-sandbox")(slack_sandbox)
app.add_typer(token_commands(lambda: _settings()), name="token")  # noqa: PLW0108 - it is defined below


@app.command("_online", hidden=True)
def online() -> None:
    """Run the online service: this process alone, or workers that it keeps running."""
    from driftloop.settings import need_tokens
    from driftloop.up.workers import bound

    system = _system("online")
    settings = system.settings
    need_tokens(settings)
    door = bound(settings.host, settings.online_port)
    if settings.workers == 1:
        system.online_worker(door).answer()
    else:
        raise typer.Exit(_keep_workers(system, door))


@app.command("_online_worker", hidden=True)
def online_worker(place: int, door: int, alive: int) -> None:
    """Run one of several workers of the online service, on a socket it was given."""
    import socket

    system = _system("online")
    system.online_worker(socket.socket(fileno=door), place=place, alive=alive).answer()


@app.command("_sidecar", hidden=True)
def sidecar(
    connected: Annotated[
        int | None, typer.Option(help="A socket that is open already; without it, the home's.")
    ] = None,
) -> None:
    """Run the process that answers for models which could not be lowered."""
    import os
    import socket

    # Read when NumPy is first imported: its threads would fight with those that answer.
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "LOKY_MAX_CPU_COUNT"):
        os.environ[variable] = "1"
    from driftloop.heartbeat import beat
    from driftloop.sidecar import attend, serve

    if connected is not None:
        attend(socket.socket(fileno=connected))
        return
    settings = _settings()
    _configure_logs("sidecar")

    def ready() -> None:
        typer.echo("the sidecar is ready")
        sys.stdout.flush()

    serve(settings.home / "run", ready=ready, alive=lambda: beat(settings.home, "sidecar"))


@app.command("_slack", hidden=True)
def slack() -> None:
    """Run the local stand-in for Slack."""
    from driftloop.page.sandbox import sandbox_app
    from driftloop.page.signing import local_secret
    from driftloop.up.workers import bound

    settings = _settings()
    _configure_logs("slack")
    asgi = sandbox_app(
        settings.home / "slack.db",
        actions_url=settings.actions_url,
        signing_secret=local_secret(settings.home),
    )
    _serve(asgi, bound(settings.host, settings.slack_port, setting="slack_port"))


@app.command("_desk", hidden=True)
def desk() -> None:
    """Run what tells what is to be told, and takes the clicks on it."""
    from driftloop.up.desk import working
    from driftloop.up.workers import bound

    system = _system("desk")
    settings = system.settings
    # Before anything is begun: of two desks on one port one does nothing.
    door = bound(settings.host, settings.desk_port, setting="desk_port")
    with working(system) as app:
        _serve(app, door)


@app.command("_mlflow", hidden=True)
def mlflow(arguments: list[str]) -> None:
    """Become MLflow's server, once its database is made."""
    import os

    _system().registry.prepare()
    os.execv(sys.executable, [sys.executable, "-m", "mlflow", "server", *arguments])  # noqa: S606 - no shell is wanted


def _keep_workers(system: "System", door: "socket.socket") -> int:
    import signal
    import threading

    from driftloop.up.workers import Workers

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    settings = system.settings
    workers = Workers(
        lambda place, alive: (
            *(sys.executable, "-m", "driftloop", "_online_worker"),
            *(str(place), str(door.fileno()), str(alive)),
        ),
        settings.environment(),
        number=settings.workers,
        door=door,
        shown=settings.workers_shown,
        drain=settings.drain_within,
    )
    return workers.run(stop)


def _serve(asgi: object, door: "socket.socket") -> None:
    import uvicorn

    config = uvicorn.Config(
        asgi,  # type: ignore[arg-type]
        log_config=None,  # ours is set
        access_log=False,
        # Longer than clients keep what is idle: closed by us, it may be just as they ask again.
        timeout_keep_alive=75,
    )
    uvicorn.Server(config).run(sockets=[door])


def _configure_logs(service: str) -> None:
    from driftloop.logs import configure

    configure(service)


def _settings() -> "Settings":
    from driftloop.settings import read_settings

    return read_settings(**_given)


def _system(service: str = "") -> "System":
    """Return the installation; a `service` of it logs for programs, a command for people."""
    from driftloop.wiring import System

    if service:
        _configure_logs(service)
    return System(_settings())


def _installed() -> "System":
    """Return an installation that is there: a command that only reads makes none."""
    from driftloop.wiring import System

    system = System(_settings())
    # Elsewhere a database may hold the ledger, and this machine nothing yet.
    if not system.is_installed:
        raise BadRequest(
            "nothing is installed there",
            where=str(system.settings.home),
            hint="see --home; `driftloop up` makes one",
        )
    return system


def _denied(system: "System", unread: list[DriftloopError]) -> tuple[tuple[ModelId, ...], ...]:
    """Return the models of each page that people denied; what cannot be read goes to `unread`."""
    try:
        return system.denied()
    except LedgerError as error:
        unread.append(error)
        return ()


def _length(text: str, option: str) -> timedelta:
    from driftloop.spec import duration

    try:
        length = duration(text)
    except ValueError as error:
        raise BadRequest(f"{text!r} {error}", where=option) from error
    assert isinstance(length, timedelta)  # noqa: S101 - it gives nothing else for a text
    return length


def _say_people(system: "System") -> int:
    """Say who is told, and return how many warnings that came to."""
    said = tuple(people(system.fleet, system.clock.now()))
    for line, is_warning in said:
        typer.echo(f"warning: {line}" if is_warning else line)
    return sum(is_warning for _, is_warning in said)


def _wrapped(names: Sequence[str]) -> list[str]:
    """Return names in lines as wide as a terminal; none is broken."""
    import textwrap

    return textwrap.wrap(", ".join(names), 96, break_on_hyphens=False, break_long_words=False)


def _many(number: int, one: str, more: str) -> str:
    return f"{number} {one if number == 1 else more}"


def _tell_damaged(champions: Sequence[str]) -> None:
    """End with an error where champions were copied whose files were damaged before."""
    for each in champions:
        typer.echo(f"{each}: its file was damaged before it was copied; an older backup?", err=True)
    if champions:
        raise typer.Exit(1)


def _say_read(system: "System", what: str) -> bool:
    """Say whether what was handed over is in the log by now, and return it."""
    read = system.is_read(within=READ_WITHIN)
    if read:
        typer.echo(f"{what}: in the log")
    else:
        typer.echo(f"{what}: handed over, but not read yet; `driftloop up` runs the ingester")
    return read


def _complain(error: DriftloopError) -> None:
    if logging.root.handlers:  # a service: its log is JSON lines
        logging.getLogger(__name__).critical("%s", error)
    for line in str(error).splitlines():
        typer.secho(line, fg="red", err=True)
