"""Brings a simulated fleet into an installation of its own, in two acts, before and in its time.

The installation's clock stands at the plan's start before the first and at its end after the
second, so that what is watched and trained in between is what it would have been.
"""

from datetime import UTC, datetime, timedelta

import pyarrow as pa

from driftloop.clock import Clock, read_clock
from driftloop.errors import BadRequest
from driftloop.settings import Settings
from driftloop.simulate import Plan, batches
from driftloop.simulate.plan import DAY
from driftloop.spec import Family
from driftloop.wiring import System

LAST = timedelta(hours=1)
"""Of the plan's time is written when the clock shows its end."""
STEPS = 30
"""So many times at most the clock is set on the way."""
PATIENCE = 60.0
"""Seconds that an ingester which runs may take to read the rows."""
SLACK = timedelta(days=1)
"""So long after the plan's start people may take for the first act."""
_ANOTHER = "name a folder that is not there yet: driftloop --home FOLDER simulate history"


def set_out(settings: Settings, plan: Plan) -> None:
    """Make the clock show the plan's start, in an installation that nobody uses yet.

    In one that is simulated already it has to show that day.

    Raises:
        BadRequest: the installation is in use, or its clock shows another time.
    """
    home, file = settings.home, settings.clock
    if home.exists() and any(each != file for each in home.iterdir()):
        if not file.exists():
            raise BadRequest(
                "is in use, and what is simulated would set its clock",
                where=str(home),
                hint=_ANOTHER,
            )
        now = read_clock(file).now()
        if not plan.start <= now < plan.start + SLACK:
            raise BadRequest(
                f"its clock shows {now:%Y-%m-%d %H:%M} UTC, and not the start of what is simulated",
                where=str(home),
                hint=_ANOTHER,
            )
        return
    home.mkdir(parents=True, exist_ok=True)
    Clock(origin=plan.start, started=datetime.now(UTC), speed=1.0).write(file)


def need_history(settings: Settings, plan: Plan) -> None:
    """Refuse to go on where nobody has set out.

    Raises:
        BadRequest: the installation's clock was never set, or is not at the plan's start yet.
    """
    if not settings.clock.exists() or read_clock(settings.clock).now() < plan.start:
        raise BadRequest(
            f"its clock was not set to {plan.start:%Y-%m-%d %H:%M} UTC",
            where=str(settings.home),
            hint="first `driftloop simulate history` with the same options, then `driftloop train`",
        )


def write_history(system: System, plan: Plan) -> tuple[int, int]:
    """Write what was known before the plan's start; return the numbers of rows and labels.

    Raises:
        BadRequest: the rows are there already.
        LogError: the spool could not be written.
    """
    return _write(system, plan, plan.began, plan.start)


def write_span(system: System, plan: Plan) -> tuple[int, int]:
    """Write what happens in the plan's time, answered by the champions; else as `write_history`.

    Day by day (or in fewer steps, of long times) rows are written, read if an ingester runs, and
    the clock is set to the step's end, unless it shows a later time: so nothing arrives before it
    happened. Before the last of it the clock is set to the plan's end: so something arrives then,
    and what is trained and gated reaches up to there.
    """
    last = plan.end - min(LAST, (plan.end - plan.start) / 2)
    step = max(DAY, (plan.end - plan.start) / STEPS)
    rows, labels, at = 0, 0, plan.start
    while at < plan.end:
        until = min(at + step, last) if at < last else plan.end
        more, known = _write(system, plan, at, until)
        rows, labels, at = rows + more, labels + known, until
        # A pass that sees the new time must not find a log without rows.
        system.is_read(within=PATIENCE)
        _show(system, plan.end if at >= last else at)
    return rows, labels


def _show(system: System, now: datetime) -> None:
    """Set the installation's clock, unless it shows a later time."""
    if read_clock(system.settings.clock).now() < now:
        Clock(origin=now, started=datetime.now(UTC), speed=1.0).write(system.settings.clock)


def _write(system: System, plan: Plan, start: datetime, end: datetime) -> tuple[int, int]:
    family = system.fleet.family_named(plan.family)
    heads = {head.model: head for head in system.ledger.heads()}
    rows = labels = 0
    with system.spool("simulate") as spool:
        for predictions, known in batches(plan, start, end, heads):
            if not rows and predictions.num_rows:
                _refuse_logged(system, family, predictions)
            spool.checked_history(family, predictions, known)
            rows += predictions.num_rows
            labels += known.num_rows
    return rows, labels


def _refuse_logged(system: System, family: Family, rows: pa.Table) -> None:
    try:
        system.refuse_logged(family, rows)
    except BadRequest as error:
        raise BadRequest(
            "these rows are in the log already, or wait for the ingester; nothing was written",
            where=family.name,
            hint="simulate another --family, or in another installation: driftloop --home FOLDER",
        ) from error
