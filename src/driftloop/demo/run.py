"""The demo from start to end: prepare, start everything, train, replay, show what came of it."""

import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pyarrow as pa
from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table

from driftloop.clock import Clock
from driftloop.demo.audit import Audit, audit
from driftloop.demo.display import Display
from driftloop.demo.flights import departures, flights
from driftloop.demo.outcome import FamilyOutcome, draw, outcome
from driftloop.demo.replay import (
    TARGETS,
    Happenings,
    Tally,
    Traffic,
    happenings,
    replay,
    traffic,
)
from driftloop.errors import BadRequest, ServiceError
from driftloop.features.operator import windowed
from driftloop.loop.watch import first_orders
from driftloop.records import ModelId, Reading, Window
from driftloop.settings import Settings
from driftloop.show import addresses
from driftloop.spec import Family, Source, load_fleet
from driftloop.up import Supervisor, services, status
from driftloop.vitals import CONSISTENT
from driftloop.wiring import System

if TYPE_CHECKING:
    import pandas as pd

HISTORY = datetime(2013, 1, 1, 5, tzinfo=UTC)
START = datetime(2013, 3, 1, 5, tzinfo=UTC)
END = datetime(2014, 1, 1, 5, tzinfo=UTC)
"""Midnights in New York: trained on January and February, replayed from March on."""
SOURCE = "departures"
"""The source of events that the flights are, where a family is made of it."""
STANDING = datetime(9999, 1, 1, tzinfo=UTC)
"""A clock that is yet to start shows its origin for as long."""
MARKETS = {
    "air-time": "lga-dl jfk-dl lga-aa lga-mq lga-ev lga-us ewr-b6 ewr-wn",
    "late-arrival": "lga-dl jfk-dl lga-mq jfk-aa lga-ev ewr-b6",
}
PACE = {
    "watch_every": 3.0,
    "maintain_every": 30.0,
    "ingest_every": 0.5,
    "seal_every": 0.25,
    "poll_every": 0.25,
}
"""Wall seconds; at the demo's speed a second is more than half a day."""
DRAINED_WITHIN = 30.0


def run_demo(settings: Settings, *, models: str, minutes: float, stay: bool, restart: bool) -> int:
    """Return the exit code after running the whole demo.

    Everything is kept under `settings.home / "demo"`, which each demo begins anew.

    Args:
        settings: ports and folders; the demo sets its own pace.
        models: "default", "all", or model names separated by commas.
        minutes: wall-clock minutes that the ten months take.
        stay: keep everything up afterwards, until Ctrl-C.
        restart: whether services that die are started again.

    Raises:
        BadRequest: an unknown model, or no time at all.
        ServiceError: a service did not start, or a demo runs already.
    """
    if minutes <= 0:
        raise BadRequest(f"--minutes must be above 0, got {minutes:g}")
    console = Console()
    system = _prepared(settings, models, restart=restart)
    display = Display(system, start=START, end=END)
    with ExitStack() as stack:
        try:
            stack.enter_context(_terminable())
            live = stack.enter_context(Live(display, console=console, refresh_per_second=2))
            display.say("reading a year of departures")
            frame = flights()
            display.say("starting the services")
            started = services(system.settings, system.fleet.sources)
            stack.enter_context(
                Supervisor(
                    system.settings,
                    started,
                    on_event=display.service,
                )
            )
            gone = departures(frame)
            streams = _first_versions(system, frame, gone, display)
            happening = [happenings(gone, each, start=START, end=END) for each in _sources(system)]
            speed = (END - START).total_seconds() / (minutes * 60)
            _year(system, streams, happening, display, speed)
            found = _outcomes(system, timedelta(seconds=speed * PACE["watch_every"]))
            read_again = audit(system, messages=_messages(system.settings))
            made_again = system.compare_features()
            display.refresh()
            live.stop()
            _show(console, system, found, display.tally)
            _show_audit(console, read_again)
            _show_features(console, made_again, display.tally)
            if stay:
                console.print(addresses(started))
                console.print("[bold]Everything stays up: look around. Ctrl-C stops it.[/bold]")
                while True:
                    time.sleep(3600)
        except KeyboardInterrupt:
            console.print("stopping")
            return 0 if display.over else 130
    inconsistent = any(each.value is None or each.value > CONSISTENT for each in made_again)
    untrue = read_again.untrue or read_again.repeated or inconsistent
    return 1 if display.tally.failures or untrue else 0


# -- before ---------------------------------------------------------------------------------


def _prepared(settings: Settings, models: str, *, restart: bool) -> System:
    fleet = load_fleet(settings.monitors)
    missing = TARGETS.keys() - {family.name for family in fleet.families}
    if missing:
        raise BadRequest(
            f"the demo needs the monitors of {', '.join(sorted(missing))}",
            where=str(settings.monitors),
            hint="run it from a checkout of driftloop",
        )
    if models == "default":
        chosen = tuple(f"{f}-{market}" for f, named in MARKETS.items() for market in named.split())
    elif models == "all":
        chosen = tuple(model for name in TARGETS for model in fleet.family_named(name).models)
    else:
        chosen = tuple(part.strip() for part in models.split(",") if part.strip())
    fleet.only(tuple(ModelId(name) for name in chosen))
    home = settings.home.absolute() / "demo"
    if any(one.pid is not None and one.state != "dead" for one in status(home)):
        raise ServiceError(
            "a demo is running here already", where=str(home), hint="stop it, or give --home"
        )
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    made = settings.model_copy(
        update={
            **PACE,
            "home": home,
            "monitors": settings.monitors.absolute(),
            "models": ",".join(chosen),
            "restart": restart,
            # The demo's pages are nobody's business: they stay on this machine.
            "slack_token": None,
            "slack_api": "",
            # Nor has any cluster its settings.
            "dask": "",
            "work_pool": "",
        }
    ).embedded()
    Clock(origin=START, started=STANDING, speed=1.0).write(made.clock)
    return System(made)


def _sources(system: System) -> list[Source]:
    """Return the source that the flights are, where one of the fleet's families is made of it."""
    used = {source for family in system.fleet.families for source, _ in windowed(family)}
    return [system.fleet.sources[SOURCE]] if SOURCE in used else []


def _first_versions(
    system: System, frame: "pd.DataFrame", gone: "pd.DataFrame", display: Display
) -> list[Traffic]:
    display.say("handing January and February to the log")
    _past(system, gone[gone["departed_at"] < START])
    known = frame[(frame["scheduled_departure"] >= HISTORY) & (frame["landed"] <= START)]
    expected = 0
    with system.spool("history") as spool:
        for family in system.fleet.families:
            predictions, labels = _history(system, known, family)
            expected += spool.checked_history(family, predictions, labels)[0]
    _wait(lambda: _logged(system) >= expected, "the history did not reach the lake")
    orders = first_orders(system.fleet, system.ledger.heads(), system.clock.now())
    display.say(f"training the first version of {len(orders)} models")
    with ThreadPoolExecutor(system.settings.renew_slots) as pool:
        for renewed in pool.map(system.renewer.renew, orders):
            display.say(f"{renewed.order.model}: {renewed.outcome}: {renewed.reason}")
    served = {head.model for head in system.ledger.heads()}
    if not served:
        raise ServiceError("no model has a first version", hint="see the log above")
    return [
        traffic(frame, family, model, start=START, end=END)
        for family in system.fleet.families
        for model in family.models
        if model in served
    ]


def _past(system: System, gone: "pd.DataFrame") -> None:
    """Hand the log what happened before the year, as `driftloop backfill-events` does."""
    from driftloop.prediction_log import past_events

    sources = _sources(system)
    with system.spool("past") as spool:
        for source in sources:
            table = pa.Table.from_pandas(gone, preserve_index=False)
            spool.events(source.name, past_events(source, table, now=START))
    if sources and not system.is_read(within=DRAINED_WITHIN):
        raise ServiceError(
            f"past events did not reach the lake within {DRAINED_WITHIN:g} s",
            hint="see the ingester's log",
        )


def _history(system: System, known: "pd.DataFrame", family: Family) -> tuple[pa.Table, pa.Table]:
    """Return predictions and labels, features of events made of the log's, as `backfill` does."""
    from driftloop.prediction_log import history_rows, without_made

    models = {market: f"{family.name}-{market}" for market in family.markets}
    mine = known[known["market"].isin(models.keys())]
    table = mine[["id", family.time, *family.requested]].assign(
        model=mine["market"].map(models),
        label=mine[TARGETS[family.name]],
        observed_at=mine["landed"],
    )
    whole, made = without_made(family, pa.Table.from_pandas(table, preserve_index=False))
    predictions, labels = history_rows(family, whole)
    return (system.with_features(family, predictions) if made else predictions), labels


def _logged(system: System) -> int:
    return sum(
        system.log.summary(
            family, Window(model=model, start=HISTORY, end=START, known_at=START)
        ).labels
        for family in system.fleet.families
        for model in family.models
    )


# -- the year -------------------------------------------------------------------------------


def _year(
    system: System,
    streams: Sequence[Traffic],
    happening: Sequence[Happenings],
    display: Display,
    speed: float,
) -> None:
    settings, stop = system.settings, threading.Event()
    started = datetime.now(UTC) + timedelta(seconds=1)
    Clock(origin=START, started=started, speed=speed).write(settings.clock)
    display.say(f"the year begins, {speed:,.0f} times as fast as it was")
    display.watching = True
    with ThreadPoolExecutor(2) as pool:
        senders = [
            pool.submit(
                replay,
                half,
                events,
                url=settings.online_url,
                clock=system.clock,
                end=END,
                tally=display.tally,
                stop=stop.is_set,
            )
            for half, events in _halves(system, streams, happening)
            if half
        ]
        try:
            while not all(sender.done() for sender in senders):
                display.refresh()
                time.sleep(0.5)
        finally:
            stop.set()
        for sender in senders:
            sender.result()
    # Time stands still from here on: nothing looks stale while people look around.
    Clock(origin=system.clock.now(), started=STANDING, speed=1.0).write(settings.clock)
    display.say("the year is over: waiting for the log, then drawing what came of it")
    _wait(lambda: not any(settings.spool.rglob("*.ndjson")), "the spool was not drained")
    display.over = True


def _halves(
    system: System, streams: Sequence[Traffic], happening: Sequence[Happenings]
) -> tuple[tuple[Sequence[Traffic], Sequence[Happenings]], ...]:
    """Return what each of two senders sends: whoever asks for what is made of events sends them."""
    if not happening:
        return (streams[::2], ()), (streams[1::2], ())
    made = {
        model for family in system.fleet.families if windowed(family) for model in family.models
    }
    return (
        ([each for each in streams if each.model in made], happening),
        ([each for each in streams if each.model not in made], ()),
    )


def _outcomes(system: System, cadence: timedelta) -> tuple[FamilyOutcome, ...]:
    return tuple(
        found
        for family in system.fleet.families
        if (found := outcome(system, family, start=START, end=END, cadence=cadence)) is not None
    )


# -- after ----------------------------------------------------------------------------------


def _show(console: Console, system: System, found: Sequence[FamilyOutcome], tally: Tally) -> None:
    for each in found:
        console.print(_table(each))
        for file in draw(each, system.settings.home / "outcome"):
            console.print(f"  {_short(file)}")
    console.print(
        f"{tally.requests:,} requests, {tally.rows:,} predictions, {tally.labels:,} labels, "
        f"{len(tally.failures)} failed"
    )
    for failure in tally.failures[:5]:
        console.print(f"  [red]{failure}[/red]")


def _show_audit(console: Console, found: Audit) -> None:
    console.print(
        f"{found.pages} pages; {found.recomputed} that say a model predicts worse were recomputed "
        f"from the log: {len(found.untrue)} untrue; {len(found.repeated)} messages repeated"
    )
    for line in (*found.untrue[:5], *found.repeated[:5]):
        console.print(f"  [red]{line}[/red]")


def _show_features(console: Console, found: Sequence[Reading], tally: Tally) -> None:
    for each in found:
        value = "not known" if each.value is None else f"{each.value:.3g}"
        right = each.value is not None and each.value <= CONSISTENT
        console.print(
            f"{each.column}: {tally.events:,} events; features of {each.n:,} served rows were made "
            f"again of the log: worst difference [{'green' if right else 'red'}]{value}[/]"
        )
        if each.problem and not right:
            console.print(f"  [red]{each.problem}[/red]")


def _messages(settings: Settings) -> str:
    return f"http://{settings.host}:{settings.slack_port}/messages.json"


def _table(found: FamilyOutcome) -> Table:
    unit = f" ({found.family.unit})" if found.family.unit else ""
    table = Table(
        title=f"{found.family.name}: {found.loss}{unit}, March to December", box=box.SIMPLE
    )
    table.add_column("model", overflow="fold")
    for name in ("rows", "never", "kept", "pages", "retrained", "refused", "swapped"):
        # Where the terminal is narrow the name is folded: a figure cut short is none.
        table.add_column(name, justify="right", no_wrap=True, min_width=max(6, len(name)))
    for model in found.models:
        table.add_row(
            model.model,
            f"{model.rows:,}",
            f"{model.never:.4g}",
            f"[{'green' if model.kept < model.never else 'red'}]{model.kept:.4g}[/]",
            *(str(n) for n in (model.pages, model.retrains, model.refused, model.swaps)),
        )
    table.add_section()
    table.add_row(
        "all rows",
        f"{sum(model.rows for model in found.models):,}",
        f"{found.overall_never:.4g}",
        f"[bold]{found.overall_kept:.4g}[/bold]",
        *(
            str(sum(getattr(model, name) for model in found.models))
            for name in ("pages", "retrains", "refused", "swaps")
        ),
    )
    return table


def _short(file: Path) -> str:
    here = Path.cwd()
    return str(file.relative_to(here) if file.is_relative_to(here) else file)


def _wait(done: Callable[[], bool], otherwise: str) -> None:
    until = time.monotonic() + DRAINED_WITHIN
    while not done():
        if time.monotonic() > until:
            raise ServiceError(
                f"{otherwise} within {DRAINED_WITHIN:g} s", hint="see the ingester's log"
            )
        time.sleep(0.2)


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM end the demo as Ctrl-C does: with everything stopped."""

    def interrupt(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
