"""The loop's own readings judged, and its incidents followed. Pure.

Like a model's, an incident opens after some looks in a row that alarm and is over after some
that do not; like a model's, it is told once.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from driftloop.records import (
    PLATFORM,
    Evidence,
    Level,
    Link,
    Notice,
    Reading,
    Stage,
    Verdict,
    metric_name,
)
from driftloop.spec import Owner, Platform

OPEN_AFTER = 2
"""Looks in a row that must alarm."""
CALM_AFTER = 3
"""Looks in a row that must not, for an incident to be over."""
LOWER_IS_WORSE = frozenset({"disk_free"})
OF_REQUESTS = frozenset({"error_rate", "p99_ms"})
"""Measured on requests, of which there must be some."""
CONSISTENT = 1e-6
"""Limit on the relative difference of a feature as it was served from the same made again."""
NEVER_PAGES = frozenset({"untold", "monitors"})
"""Shown, but nobody is woken for them."""

_REMEDIES: Mapping[str, str] = {
    "passes_missed": "Nothing is measured meanwhile. Look at `driftloop status`, logs/worker.log "
    "and logs/prefect.log.",
    "unwatched": "They are neither measured nor renewed meanwhile. `driftloop check` reads logs "
    "that are not ours; the newest `watch` run in Prefect has every problem.",
    "disputed": "A decision rests on a number that may be wrong: keep the rows, and tell the "
    "makers of driftloop. logs/worker.log has both numbers.",
    "consistency": "A feature was not served as the log makes it: models are given other numbers "
    "than they will be trained on. `driftloop consistency` names the worst row.",
    "ingest_lag": "What is answered is kept in the spool and nothing is lost; decisions see old "
    "rows. Look at logs/ingester.log.",
    "spool_mib": "Rows come faster than they go into the log, or the ingester stands. "
    "Look at logs/ingester.log.",
    "disk_free": "Once it is full no prediction is answered, because none can be logged. "
    "Make room: `driftloop prune` says what may go.",
    "unhealthy": "`driftloop up` restarts what dies. Look at its log.",
    "quarantined": "Rows that could not be read are kept in spool/quarantine, each beside its "
    "reason. Mend and hand them in again, or remove them.",
    "refused": "The model file is damaged or missing; an earlier version answers if one is in "
    "hand. `driftloop rollback MODEL`, or restore the file.",
    "error_rate": "Look at logs/online.log.",
    "p99_ms": "Look at what else the machine does, and at logs/online.log.",
}


@dataclass(frozen=True, slots=True)
class Streak:
    """How one reading stood in the last looks; `incident` is open while it is not None."""

    bad: int = 0
    calm: int = 0
    since: datetime | None = None
    incident: str | None = None


@dataclass(frozen=True, slots=True)
class Followed:
    """Every streak after a look, and what is to be told because of it."""

    streaks: Mapping[str, Streak] = field(default_factory=dict)
    notices: tuple[Notice, ...] = ()


def judged(readings: Iterable[Reading], platform: Platform) -> tuple[Verdict, ...]:
    """Return a verdict for each reading: ALARM at its limit or beyond, BLIND without a value.

    What is only shown (`NEVER_PAGES`) is a WARN where it is more than nothing.
    """
    return tuple(_verdict(reading, platform) for reading in readings)


def follow(
    before: Mapping[str, Streak],
    verdicts: Iterable[Verdict],
    *,
    now: datetime,
    owner: Owner,
    links: tuple[Link, ...] = (),
) -> Followed:
    """Return the streaks after this look, and the notices of what opened or ended with it.

    A BLIND verdict changes nothing. A reading that is no longer taken keeps its streak.
    """
    streaks, notices = dict(before), []
    for verdict in verdicts:
        key = name(verdict.reading)
        streak = _after(before.get(key, Streak()), verdict, now)
        if streak.incident is None and streak.bad >= OPEN_AFTER:
            streak = replace(streak, incident=f"{PLATFORM}/{key}/{now:%Y%m%dT%H%M%S}")
            notices.append(_notice(Stage.OPENED, verdict, streak, now, owner, links))
        elif streak.incident is not None and streak.calm >= CALM_AFTER:
            notices.append(_notice(Stage.RECOVERED, verdict, streak, now, owner, links))
            streak = Streak()
        streaks[key] = streak
    return Followed(streaks, tuple(notices))


def resumed(open_incidents: Iterable[tuple[str, datetime]]) -> dict[str, Streak]:
    """Return the streaks of incidents, each with its start, that an earlier watchdog opened."""
    return {
        incident.split("/", 1)[1].rpartition("/")[0]: Streak(
            bad=OPEN_AFTER, since=since, incident=incident
        )
        for incident, since in open_incidents
    }


def name(reading: Reading) -> str:
    """Return what tells a reading from the others: its metric, and its service where it has one.

    >>> from driftloop.records import Kind
    >>> name(Reading(kind=Kind.SERVICE, metric="unhealthy", column="mlflow", value=0.0, n=1))
    'unhealthy/mlflow'
    """
    return f"{reading.metric}/{reading.column}" if reading.column else reading.metric


def _verdict(reading: Reading, platform: Platform) -> Verdict:
    limit = _limit(reading.metric, platform)
    if reading.value is None:
        why = reading.problem or "could not be taken"
        return Verdict(reading=reading, level=Level.BLIND, limit=limit, reason=why)
    said = _shown(reading.metric, reading.value)
    if reading.metric not in NEVER_PAGES:
        said = f"{said}, limit {_shown(reading.metric, limit)}"
    if reading.metric in OF_REQUESTS and reading.n < platform.min_requests:
        why = f"{reading.n} requests, at least {platform.min_requests} are needed"
        return Verdict(reading=reading, level=Level.BLIND, limit=limit, reason=why)
    lower = reading.metric in LOWER_IS_WORSE
    over = reading.value <= limit if lower else reading.value >= limit
    level = Level.WARN if reading.metric in NEVER_PAGES else Level.ALARM
    if reading.problem:
        said = f"{said}: {reading.problem}"
    return Verdict(reading=reading, level=level if over else Level.OK, limit=limit, reason=said)


def _limit(metric: str, platform: Platform) -> float:
    return {
        "passes_missed": float(platform.missed_cadences),
        "ingest_lag": platform.ingest_lag.total_seconds(),
        "spool_mib": platform.spool_mib,
        "disk_free": platform.disk_free,
        "unhealthy": platform.unhealthy.total_seconds(),
        "error_rate": platform.error_rate,
        "p99_ms": platform.p99_ms,
        "consistency": CONSISTENT,
    }.get(metric, 1.0)


def _after(before: Streak, verdict: Verdict, now: datetime) -> Streak:
    if verdict.level is Level.BLIND:
        return before
    if verdict.level is Level.ALARM:
        return replace(before, bad=before.bad + 1, calm=0, since=before.since or now)
    if before.incident is None:
        return Streak()
    return replace(before, bad=0, calm=before.calm + 1)


def _notice(
    stage: Stage,
    verdict: Verdict,
    streak: Streak,
    now: datetime,
    owner: Owner,
    links: tuple[Link, ...],
) -> Notice:
    reading = verdict.reading
    opened = stage is Stage.OPENED
    return Notice(
        key=f"{streak.incident}/{stage.value}",
        incident=streak.incident or "",
        model=PLATFORM,
        stage=stage,
        at=now,
        since=streak.since or now,
        channel=owner.channel,
        mention=owner.mention,
        headline=_headline(reading) if opened else f"{PLATFORM}: {_subject(reading)} is well again",
        doing=_REMEDIES.get(reading.metric, "") if opened else "Nothing more to do.",
        evidence=(
            Evidence(
                what=metric_name(reading.metric)
                + (f" ({reading.column})" if reading.column else ""),
                value=_shown(reading.metric, reading.value)
                + (f" ({reading.n:,} requests)" if reading.metric in OF_REQUESTS else ""),
                limit=_shown(reading.metric, verdict.limit),
                n=None,
            ),
        ),
        links=links,
    )


def _headline(reading: Reading) -> str:
    said = {
        "passes_missed": "the fleet is not being watched",
        "unwatched": "some models cannot be looked at",
        "disputed": "Evidently disagrees with a number that an incident was opened for",
        "consistency": "features are served otherwise than the log makes them",
        "ingest_lag": "the ingester lags behind",
        "spool_mib": "the spool grows",
        "disk_free": "the disk fills",
        "unhealthy": f"{reading.column} is down or does not answer",
        "quarantined": "rows were set aside because they cannot be read",
        "refused": "a champion cannot be loaded",
        "error_rate": "the online service fails requests",
        "p99_ms": "the online service is slow",
    }.get(reading.metric, f"{metric_name(reading.metric)} is over its limit")
    more = f" ({reading.problem})" if reading.problem else ""
    return f"{PLATFORM}: {said}{more}"


def _subject(reading: Reading) -> str:
    return reading.column or metric_name(reading.metric)


def _shown(metric: str, value: float | None) -> str:
    if value is None:
        return "-"
    if metric in ("error_rate", "disk_free"):
        return f"{value:.1%}"
    return f"{value:.3g}"
