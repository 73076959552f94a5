"""Watches the loop itself from outside Prefect, and pages the platform's owner when it fails.

It needs neither Prefect nor MLflow nor the lake: a look is a few files, the ledger's newest
heartbeat, and each service's health. When the ledger cannot be written it pages all the same.
"""

import hashlib
import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from driftloop.errors import DriftloopError, LedgerError, PagerError
from driftloop.heartbeat import beat
from driftloop.incident import alone
from driftloop.loop.addressed import addressed
from driftloop.loop.watch import NO_CHAMPION
from driftloop.records import (
    PLATFORM,
    Address,
    Compared,
    Disputed,
    Kind,
    Level,
    Link,
    Noted,
    Notice,
    Paged,
    Passed,
    Reading,
    Sensed,
    Severity,
    Stage,
    Verdict,
)
from driftloop.serve.tokens import own_token
from driftloop.settings import Settings
from driftloop.spec import load_fleet
from driftloop.up.status import ServiceStatus, status, up_since, vitals_file
from driftloop.vitals import Streak, follow, judged, name, resumed
from driftloop.wiring import System

NAME, WORKER = "watchdog", "worker"
SETTLING = 180.0
"""Wall seconds after `up` began within which a service that never was healthy is not missed."""
REMEMBERED = 24 * 3600.0
"""Wall seconds after which a disputed number is no news any more."""
SHORTEST = 30.0
"""Seconds that a cadence counts as at least."""
TIMEOUT = 2.0
NAMED = 5
"""Versions that are told with their reason; the others are counted."""
_log = logging.getLogger(__name__)


class Watchdog:
    """Takes the loop's readings, follows them, and tells what opened or ended.

    Args:
        system: the installation that is watched.
        wall: seconds since 1970.
    """

    def __init__(self, system: System, *, wall: Callable[[], float] = time.time) -> None:
        """Take up the incidents that an earlier watchdog left open."""
        self._system = system
        self._settings = system.settings
        self._wall = wall
        self._began = wall()
        self._healthy_at: dict[str, float] = {}
        self._worked_from = 0.0
        self._monitors = _digest(self._settings.monitors)
        self._levels: dict[str, Level] = {}
        self._told: set[str] = set()
        self._streaks: Mapping[str, Streak] = self._left_open()

    def run(self, stop: threading.Event, every: float) -> None:
        """Look `every` so many seconds until `stop` is set; an error is logged, never fatal."""
        while not stop.is_set():
            try:
                self.look()
            except Exception:  # noqa: BLE001 - the next look may see what must be told
                _log.exception("a look failed")
            beat(self._settings.home, NAME)
            stop.wait(every)

    def look(self) -> tuple[Verdict, ...]:
        """Return the verdicts of one look, once what follows from them is told."""
        fleet = self._system.fleet
        verdicts = judged(self.readings(), fleet.platform)
        now = datetime.fromtimestamp(self._wall(), UTC)
        followed = follow(
            self._streaks,
            verdicts,
            now=now,
            owner=fleet.owners[fleet.platform.owner],
            links=(
                Link(text="fleet", url=self._settings.pages_url),
                Link(text="flow runs", url=f"{self._system.places.prefect}/runs"),
            ),
        )
        self._streaks = followed.streaks
        _write(vitals_file(self._settings.home), now, verdicts, self._streaks)
        for notice in followed.notices:
            _log.warning("%s: %s", notice.stage, notice.headline, extra={"trace": notice.incident})
            opens = notice.stage is Stage.OPENED
            severity = Severity.CRITICAL if opens else Severity.INFO
            self._tell(addressed(fleet, notice, severity=severity))
        self._remember(verdicts, now)
        self._tell_left()
        return verdicts

    def readings(self) -> Iterator[Reading]:
        """Yield what is measured in one look; what cannot be is a reading that says why."""
        statuses = [each for each in status(self._settings.home) if each.name != NAME]
        unhealthy = [self._unhealthy(each) for each in statuses]
        yield self._passes_missed()
        yield self._unwatched()
        yield self._disputed()
        yield from _spooled(self._settings.spool, self._wall())
        yield from self._inconsistent()
        yield self._disk()
        yield from unhealthy
        if not statuses or any(each.name == "online" for each in statuses):
            yield from _served(self._settings)
        yield self._untold()
        yield self._changed_monitors()

    # -- readings ---------------------------------------------------------------------------

    def _passes_missed(self) -> Reading:
        try:
            written = self._system.ledger.written(Passed)
        except LedgerError as error:
            return _reading("passes_missed", None, problem=str(error))
        up = up_since(self._settings.home) or self._began
        since = max(written or 0.0, up, self._worked_from)
        cadence = max(self._settings.watch_every, SHORTEST)
        return _reading("passes_missed", max(0.0, self._wall() - since) / cadence)

    def _unwatched(self) -> Reading:
        """Return how many models had a problem in each of the last passes, and one of them."""
        enough = self._system.fleet.platform.missed_cadences
        try:
            passes = self._system.ledger.facts(Passed, last=enough)
        except LedgerError as error:
            return _reading("unwatched", None, problem=str(error))
        told = [
            {line.partition(": ")[0]: line for line in each.problems if NO_CHAMPION not in line}
            for each in passes
        ]
        always = set.intersection(*map(set, told)) if len(told) == enough else set()
        problem = told[-1][min(always)] if always else None
        return _reading("unwatched", float(len(always)), n=len(passes), problem=problem)

    def _disputed(self) -> Reading:
        """Return whether Evidently denied a number that an incident opened for, lately."""
        try:
            written = self._system.ledger.written(Disputed)
            last = self._system.ledger.facts(Disputed, last=1)
        except LedgerError as error:
            return _reading("disputed", None, problem=str(error))
        lately = written is not None and self._wall() - written < REMEMBERED
        problem = f"{last[-1].model}: {last[-1].said[0]}" if lately and last else None
        return _reading("disputed", float(lately), problem=problem)

    def _inconsistent(self) -> Iterator[Reading]:
        """Yield how far each family's features were from the log's, when last compared."""
        try:
            last = self._system.ledger.facts(Compared, last=1)
        except LedgerError as error:
            yield _reading("consistency", None, problem=str(error))
            return
        yield from last[-1].readings if last else ()

    def _disk(self) -> Reading:
        try:
            usage = shutil.disk_usage(self._settings.home)
        except OSError as error:
            return _reading("disk_free", None, problem=str(error))
        return _reading("disk_free", usage.free / usage.total)

    def _unhealthy(self, service: ServiceStatus) -> Reading:
        now = self._wall()
        settled = (up_since(self._settings.home) or self._began) + SETTLING
        if service.name == WORKER and now < settled and WORKER not in self._healthy_at:
            # One that has yet to start cannot have missed a pass.
            self._worked_from = now
        if service.state == "healthy":
            self._healthy_at[service.name] = now
        last = self._healthy_at.get(service.name, max(self._began, settled))
        said = None if service.state == "healthy" else service.state
        return _reading("unhealthy", max(0.0, now - last), column=service.name, problem=said)

    def _untold(self) -> Reading:
        try:
            waiting, late = self._system.teller.waiting(), self._system.relay.late()
        except LedgerError as error:
            return _reading("untold", None, problem=str(error))
        more = f" and {len(late) - 1} more" if late[1:] else ""
        problem = f"Slack does not take {late[0]}{more} for long" if late else None
        return _reading("untold", float(waiting), n=waiting, problem=problem)

    def _changed_monitors(self) -> Reading:
        if _digest(self._settings.monitors) == self._monitors:
            return _reading("monitors", 0.0)
        said = "restart `driftloop up` to use them"
        try:
            load_fleet(self._settings.monitors)
        except DriftloopError as error:
            said = f"they could not be used as they are: {str(error).splitlines()[0]}"
        return _reading("monitors", 1.0, problem=said)

    # -- telling ----------------------------------------------------------------------------

    def _left_open(self) -> dict[str, Streak]:
        ledger = self._system.ledger
        # What an older driftloop told it had not noted.
        told = [fact.notice for fact in ledger.facts(Paged, model=PLATFORM)]
        told += [fact.notice for fact in ledger.facts(Noted, model=PLATFORM)]
        over = {notice.incident for notice in told if notice.stage is Stage.RECOVERED}
        return resumed(
            (notice.incident, notice.since)
            for notice in told
            if notice.stage is Stage.OPENED and notice.incident not in over
        )

    def _tell(self, notice: Notice) -> None:
        try:
            told = self._system.teller.tell(notice)
        except LedgerError as error:
            self._tell_unrecorded(notice, error)
        else:
            if not told.told:
                _log.warning("%s was not told: %s", notice.key, told.why)

    def _tell_unrecorded(self, notice: Notice, error: LedgerError) -> None:
        """Page without the ledger: better told twice after a restart than not at all."""
        _log.error("the ledger is not there to remember %s: %s", notice.key, error)
        if notice.stage is not Stage.OPENED or notice.incident in self._told:
            return
        try:
            to = Address(channel=notice.channel, mention=notice.mention)
            self._system.pager.post(alone(notice), to, reconcile=True)
        except PagerError as refused:
            _log.error("%s was not told: %s", notice.key, refused)
        else:
            self._told.add(notice.incident)

    def _tell_left(self) -> None:
        """Tell what earlier looks could not: whoever else does may be what is down."""
        with suppress(LedgerError):
            self._system.teller.tell_unsent()

    def _remember(self, verdicts: tuple[Verdict, ...], now: datetime) -> None:
        """Keep the readings as a fact whenever a level changes, and not at every look."""
        levels = {name(verdict.reading): verdict.level for verdict in verdicts}
        changed, self._levels = levels != self._levels, levels
        if not changed:
            return
        with suppress(LedgerError):
            self._system.ledger.append(
                Sensed(at=now, readings=tuple(verdict.reading for verdict in verdicts))
            )


def _spooled(spool: Path, now: float) -> Iterator[Reading]:
    """Yield how long the oldest segment waits, how much does, and how much was set aside."""
    oldest, size, aside = now, 0, 0
    for folder, _, files in os.walk(spool):
        for file in files:
            with suppress(FileNotFoundError):
                found = (Path(folder) / file).stat()
                if Path(folder).name == "quarantine":
                    aside += file.endswith(".reason")
                elif file.endswith((".ndjson", ".parquet", ".open")):
                    size += found.st_size
                    oldest = min(oldest, found.st_mtime)
    yield _reading("ingest_lag", max(0.0, now - oldest))
    yield _reading("spool_mib", size / 2**20)
    yield _reading("quarantined", float(aside), n=aside)


def _served(settings: Settings) -> Iterator[Reading]:
    """Yield what the online service says of itself."""
    try:
        asks = {"Authorization": f"Bearer {own_token(settings.own_token)}"}
        with httpx.Client(
            base_url=settings.online_url, timeout=TIMEOUT, trust_env=False, headers=asks
        ) as client:
            ready: dict[str, Any] = client.get("/readyz").json()
            said: dict[str, Any] = client.get("/v1/service").json()
            refused = ready["refused"]
            figures = {
                key: float(said[key]) for key in ("error_rate", "p99_ms") if said[key] is not None
            }
            requests = int(said["requests"])
    except (httpx.HTTPError, OSError, ValueError, KeyError, TypeError) as error:
        problem = f"the online service does not tell: {type(error).__name__}"
        for metric in ("refused", "error_rate", "p99_ms"):
            yield _reading(metric, None, problem=problem)
        return
    told = "; ".join(
        f"{each['model']} version {each['version']}: {each['error']}"
        for each in sorted(refused, key=lambda each: str(each["model"]))[:NAMED]
    )
    told += f"; and {len(refused) - NAMED} more" if len(refused) > NAMED else ""
    yield _reading("refused", float(len(refused)), n=len(refused), problem=told or None)
    for metric in ("error_rate", "p99_ms"):
        yield _reading(
            metric,
            figures.get(metric),
            n=requests,
            problem=None if metric in figures else "no requests",
        )


def _reading(
    metric: str,
    value: float | None,
    *,
    column: str | None = None,
    n: int = 1,
    problem: str | None = None,
) -> Reading:
    return Reading(
        kind=Kind.SERVICE, metric=metric, column=column, value=value, n=n, problem=problem
    )


def _digest(folder: Path) -> str:
    found = hashlib.sha256()
    for file in sorted(folder.glob("*.toml")):
        with suppress(OSError):
            found.update(file.name.encode() + file.read_bytes())
    return found.hexdigest()


def _write(
    file: Path, now: datetime, verdicts: tuple[Verdict, ...], streaks: Mapping[str, Streak]
) -> None:
    """Write the newest look down for `driftloop status` and the pages, whole or not at all."""
    shown = [
        {
            "name": name(verdict.reading),
            "level": verdict.level.value,
            "reason": verdict.reason,
            "incident": streaks.get(name(verdict.reading), Streak()).incident,
        }
        for verdict in verdicts
    ]
    part = file.with_suffix(".part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps({"at": now.isoformat(), "vitals": shown}, indent=1))
        part.replace(file)
    except OSError as error:
        _log.error("the look could not be written down: %s", error)
