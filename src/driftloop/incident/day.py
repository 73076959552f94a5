"""A day of an owner's models in lines, and when it is told. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta

from driftloop.incident.lines import counted, one_line, plain
from driftloop.incident.words import headline, stands
from driftloop.records import (
    Advanced,
    Decision,
    Digest,
    Failed,
    Gated,
    Incident,
    Link,
    ModelId,
    Moved,
    Phase,
    Quarantined,
    Relayed,
    Rollout,
    State,
    Status,
    Trained,
)
from driftloop.spec import Owner

DAY = timedelta(days=1)
NAMED = 8
"""Models, incidents and reasons that are named in one place; the others are counted."""
SAID = 200
"""Characters that are repeated of a reason."""

_BAD = (State.DECAYING, State.DATA_FAULT, State.DRIFTING, State.BLIND)
_CALLED: Mapping[State, str] = {
    State.FRESH: "fresh",
    State.DRIFTING: "drifting",
    State.DECAYING: "decaying",
    State.DATA_FAULT: "with bad data",
    State.BLIND: "blind",
}
_STANDING = (Status.OPEN, Status.ACKED, Status.SILENCED, Status.EXPLAINED, Status.WAITING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """What the ledger has of an owner's models from `since` up to `until`.

    `decisions` are the newest of each model that was ever looked at, and `unserved` the models
    that never had a champion. `retraining` are under way, `waiting` are retrainings that were
    called for and have not begun. `incidents` are those that are open, and those that ended
    within it. `denied` pages are those that people said were none in the last four weeks;
    `allowed` so many may be false in four weeks. `problems` kept the loop from looking.
    """

    owner: str
    since: datetime
    until: datetime
    models: tuple[ModelId, ...]
    decisions: Mapping[ModelId, Decision] = field(default_factory=dict)
    unserved: tuple[ModelId, ...] = ()
    retraining: tuple[ModelId, ...] = ()
    waiting: tuple[ModelId, ...] = ()
    rollouts: tuple[Rollout, ...] = ()
    trained: tuple[Trained, ...] = ()
    gated: tuple[Gated, ...] = ()
    failed: tuple[Failed, ...] = ()
    moved: tuple[Moved, ...] = ()
    advanced: tuple[Advanced, ...] = ()
    quarantined: tuple[Quarantined, ...] = ()
    incidents: tuple[Incident, ...] = ()
    denied: int = 0
    allowed: float = 0.0
    problems: tuple[str, ...] = ()
    relayed: tuple[Relayed, ...] = ()


def due(owner: Owner, now: datetime) -> tuple[date, datetime] | None:
    """Return the local date whose digest is due at `now`, and from when on; None if none is.

    A day that passed without one is not made up for.

    >>> berlin = Owner(channel="#eta", time_zone="Europe/Berlin", digest="08:00")
    >>> due(berlin, datetime(2026, 3, 1, 6, 59, tzinfo=UTC))
    >>> due(berlin, datetime(2026, 3, 1, 7, 0, tzinfo=UTC))
    (datetime.date(2026, 3, 1), datetime.datetime(2026, 3, 1, 7, 0, tzinfo=datetime.timezone.utc))
    """
    if owner.digest is None:
        return None
    today = now.astimezone(owner.zone).date()
    at = due_at(owner, today)
    return (today, at) if at <= now else None


def due_at(owner: Owner, day: date) -> datetime:
    """Return when the digest of a local day is told, in UTC; at the end of it where none is."""
    said = time.fromisoformat(owner.digest) if owner.digest is not None else time.max
    return datetime.combine(day, said, tzinfo=owner.zone).astimezone(UTC)


def digest_of(day: Day, *, key: str, links: tuple[Link, ...] = ()) -> Digest | None:
    """Return the digest of a day; None where there is nothing that it could be about.

    A day on which nothing happened and nothing is wrong is a headline alone.
    """
    sections = (
        ("Health", tuple(_health(day))),
        ("Incidents", tuple(_incidents(day))),
        ("New versions", tuple(_versions(day))),
        ("What the loop could not do", tuple(_failures(day))),
        ("Left out", tuple(_left_out(day))),
        ("Pages that were none", tuple(_denied(day))),
        ("Told another way", tuple(_relayed(day))),
    )
    told = tuple((title, lines) for title, lines in sections if lines)
    if not day.models and not told:
        return None
    return Digest(
        key=key,
        owner=day.owner,
        at=day.until,
        headline=_headline(day, quiet=not told and len(day.decisions) == len(day.models)),
        sections=told,
        links=links,
    )


def _headline(day: Day, *, quiet: bool) -> str:
    if not day.models:
        return _standing(day) or "no incident is open"
    if quiet:
        return f"{counted(len(day.models))}, all fresh; a quiet day"
    open_ones = _standing(day)
    return f"{counted(len(day.models))}: {_counts(day)}{f'; {open_ones}' if open_ones else ''}"


def _counts(day: Day) -> str:
    states = Counter(each.state for each in day.decisions.values())
    said = [f"{states[state]} {_CALLED[state]}" for state in (State.FRESH, *_BAD) if states[state]]
    unseen = len(day.models) - len(day.decisions)
    said += [f"{unseen} not looked at yet"] if unseen else []
    return ", ".join(said)


def _standing(day: Day) -> str:
    live = [each for each in day.incidents if each.status is not Status.RESOLVED]
    if not live:
        return ""
    counts = Counter(each.status for each in live)
    said = ", ".join(f"{counts[status]} {status}" for status in _STANDING if counts[status])
    return f"{_many(len(live), 'incident')} ({said})"


def _health(day: Day) -> Iterable[str]:
    for state in _BAD:
        found = [model for model, each in day.decisions.items() if each.state is state]
        if found:
            yield f"{_CALLED[state]}: {_names(found)}"
    if day.unserved:
        yield f"without a champion yet: {_names(day.unserved)}"
    if day.retraining:
        yield f"being retrained: {_names(day.retraining)}"
    if day.rollouts:
        yield f"in a rollout: {_listed(f'{each.model} ({each.named})' for each in day.rollouts)}"


def _incidents(day: Day) -> Iterable[str]:
    live = [each for each in day.incidents if each.status is not Status.RESOLVED]
    live.sort(key=lambda each: (_STANDING.index(each.status), each.since, each.id))
    for each in live[:NAMED]:
        yield f"{_short(headline(each))}. {plain(stands(each))}."
    if len(live) > NAMED:
        yield f"and {len(live) - NAMED} more; `driftloop incidents` lists them"
    over = [each for each in day.incidents if each.status is Status.RESOLVED]
    if over:
        yield f"over: {_listed(_short(headline(each)) for each in over)}"


def _versions(day: Day) -> Iterable[str]:
    if day.trained:
        yield f"retrained: {_names(each.model for each in day.trained)}"
    forth = [
        each for each in day.moved if each.previous is None or each.head.version > each.previous
    ]
    if forth:
        said = (f"{each.model} (version {each.head.version})" for each in forth)
        yield f"promoted: {_listed(said)}"
    refused = [each for each in day.gated if not each.result.passed]
    if refused:
        said = (f"{each.model} ({_short(each.result.reason)})" for each in refused)
        yield f"refused: {_listed(said)}"
    back = {each.model: each.reason for each in day.moved if each not in forth}
    for each in day.advanced:
        if each.rollout.phase is Phase.ROLLED_BACK:
            back.setdefault(each.model, each.rollout.reason)
    if back:
        said = (f"{model} ({_short(reason)})" for model, reason in back.items())
        yield f"rolled back: {_listed(said)}"


def _failures(day: Day) -> Iterable[str]:
    for each in day.failed[:NAMED]:
        yield f"{each.model} could not be retrained: {_short(each.error)}"
    if len(day.failed) > NAMED:
        yield f"and {len(day.failed) - NAMED} more could not be retrained"
    held = {m: d.blocked or "" for m, d in day.decisions.items() if d.blocked}
    for reason, _ in Counter(held.values()).most_common(NAMED):
        which = _names(model for model, why in held.items() if why == reason)
        yield f"not retrained ({_short(reason)}): {which}"
    if day.waiting:
        yield f"retrainings that wait for their turn: {_names(day.waiting)}"
    problems = Counter(day.problems)
    for problem, times in problems.most_common(NAMED):
        yield f"{_short(problem)}{f' ({times} times)' if times > 1 else ''}"
    if len(problems) > NAMED:
        yield f"and {len(problems) - NAMED} more problems; logs/worker.log has them"


def _left_out(day: Day) -> Iterable[str]:
    rows: Counter[ModelId] = Counter()
    until: dict[ModelId, datetime] = {}
    for each in day.quarantined:
        rows[each.model] += each.rows
        until[each.model] = max(each.until, until.get(each.model, each.until))
    if rows:
        said = (f"{m} ({n:,} rows, until {until[m]:%Y-%m-%d})" for m, n in rows.most_common())
        yield f"rows in quarantine, which train nothing: {_listed(said)}"


def _denied(day: Day) -> Iterable[str]:
    if day.denied:
        yield (
            f"{day.denied} in the last four weeks, by what people said; {day.allowed:.3g} may be"
        )


def _relayed(day: Day) -> Iterable[str]:
    for way, times in Counter(each.way for each in day.relayed).items():
        yield f"{_many(times, 'incident')} by {way}, as Slack was out of reach"


def _names(models: Iterable[ModelId]) -> str:
    return _listed(dict.fromkeys(models))


def _listed(said: Iterable[str]) -> str:
    every = list(said)
    more = len(every) - NAMED
    shown = ", ".join(every[:NAMED])
    return f"{len(every)}: {shown} and {more} more" if more > 0 else shown


def _many(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def _short(said: str) -> str:
    line = one_line(said)
    return line if len(line) <= SAID else f"{line[:SAID]}..."
