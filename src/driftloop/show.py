"""What a person sees of `driftloop up` and `driftloop status` in a terminal."""

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from driftloop.errors import PagerError
from driftloop.logs import configure
from driftloop.settings import Settings
from driftloop.up import Service, Supervisor, chosen, services, status, vitals

if TYPE_CHECKING:
    from driftloop.wiring import System

WHAT: Mapping[str, str] = {
    "online": "predictions and labels over HTTP; /docs describes it",
    "pages": "the fleet: every model, its state and why",
    "slack": "a local stand-in for Slack: the channels and what was paged",
    "desk": "tells what is to be told, and takes the clicks on it",
    "prefect": "flow runs, schedules and artifacts",
    "mlflow": "versions, metrics and lineage",
    "stream": "takes events, and keeps what features are made of",
    "nats": "JetStream, which events can be read from",
    "worker": "runs the flows",
    "sidecar": "answers for models that could not be lowered",
    "keeper": "looks after the work pool that Prefect's workers run the flows of",
    "ingester": "moves sealed segments into the lake",
    "watchdog": "pages the platform's owner when the loop itself fails",
}
NO_CLICKS = (
    "buttons in Slack do nothing: neither slack_signing_secret nor slack_app_token is set;"
    " `driftloop ack` and the like do the same"
)
_log = logging.getLogger(__name__)
COLOURS = {"healthy": "green", "starting": "yellow", "waiting": "yellow", "stopped": "yellow"}


def run_up(settings: Settings, *, only: str | None = None) -> None:
    """Start every service, print where each is, and stop all on Ctrl-C or SIGTERM.

    `only` names those to start, separated by commas; all that are to run here if it is None.

    Raises:
        BadRequest: `only` names a service that there is not, or that runs elsewhere.
        ServiceError: one did not start; nothing is left running.
        SpecError: a monitor file is wrong; nothing was started.
        TooNew: the ledger or the lake is of a newer driftloop; nothing was started.
    """
    from driftloop.wiring import System

    console = Console()
    system = System(settings)
    found = services(settings, system.fleet.sources, sidecar=True)
    wanted = found if only is None else chosen(found, only)
    console.print(f"{len(system.fleet.models)} models; everything is kept in {settings.home}")
    system.check_versions()
    if only is None and not system.needs_sidecar:
        wanted = services(settings, system.fleet.sources)
    for old in system.settle():
        console.print(f"this home was {old}; what it names lies here now")
    if settings.slack_token is not None:
        _greet_slack(console, system)
    warn_of_clicks(settings)

    configure("up", out=settings.logs / "up.log")

    def tell(service: str, event: str, detail: str) -> None:
        shown = f"  {service:<9} {event}" + (f"  [dim]{detail}[/dim]" if detail else "")
        console.print(shown, soft_wrap=True)
        level = logging.WARNING if event == "died" else logging.INFO
        about = {"of": service, "event": event, "detail": detail}
        _log.log(level, "%s %s", service, event, extra=about)

    def say_up() -> None:
        console.print("[bold]up[/bold]; Ctrl-C stops everything")
        console.print(addresses(wanted))

    Supervisor(settings, wanted, on_event=tell).run(when_up=say_up)
    console.print("everything is stopped")


def _greet_slack(console: Console, system: "System") -> None:
    try:
        bot = system.pager.check()
    except PagerError as error:
        # The loop starts all the same: what cannot be told yet waits in the ledger.
        console.print(f"[yellow]Slack does not answer as it should: {error}[/yellow]")
    else:
        console.print(f"pages go to Slack as {bot.name} of {bot.team}")


def show_status(settings: Settings) -> bool:
    """Print how each service is; return whether all are healthy."""
    found = status(settings.home)
    console = Console()
    if not found:
        console.print(f"nothing has been started in {settings.home}: `driftloop up` starts it")
        return False
    table = Table("service", "state", "pid", "restarts", "address", box=None, pad_edge=False)
    for one in found:
        colour = COLOURS.get(one.state, "red")
        table.add_row(
            one.name,
            f"[{colour}]{one.state}[/{colour}]",
            str(one.pid or ""),
            str(one.restarts),
            one.url,
        )
    console.print(table)
    warn_of_clicks(settings)
    for vital in vitals(settings.home):
        if vital["level"] in ("alarm", "warn"):
            colour = "red" if vital["level"] == "alarm" else "yellow"
            console.print(f"[{colour}]{vital['name']}: {vital['reason']}[/{colour}]")
    return all(one.state == "healthy" for one in found)


def warn_of_clicks(settings: Settings) -> int:
    """Return how many warnings it printed: one where buttons in Slack would do nothing."""
    if settings.clicks_come:
        return 0
    Console().print(f"[yellow]warning: {NO_CLICKS}[/yellow]", soft_wrap=True)
    return 1


def addresses(running: Sequence[Service]) -> Table:
    """Return a table of what to open in a browser."""
    table = Table(box=None, pad_edge=False, show_header=False)
    for service in running:
        if service.url:
            table.add_row(
                service.name, f"[link={service.url}]{service.url}[/link]", WHAT[service.name]
            )
    return table
