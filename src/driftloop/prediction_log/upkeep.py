"""The lake kept small: old rows leave it, small files become large ones, replaced ones go."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Self

from driftloop.prediction_log.tables import Table
from driftloop.records import ModelId, Window
from driftloop.spec import Family

if TYPE_CHECKING:
    import duckdb

REPLACED = timedelta(days=1)
"""How long a file that was replaced stays: readers, and backups, may be at it."""
FORGOTTEN = timedelta(days=90)
"""How long a machine may be away and still know that what it left sealed came in already."""
SILENCE = timedelta(days=31)
"""Longer than that without any arrival and the log was not at work, or the clock was set: rows
do not age by it."""
_WASTE = 0.5
"""A file is written anew without its deleted rows once they are more than this share of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expiry:
    """What is old in one family's log: all that happened and arrived before `before`.

    Rows in the span of a pin stay, whenever they arrived, and so do the labels of all that stays.
    A silence of the whole log after `before` (see `SILENCE`) makes it as much earlier.
    """

    family: Family
    before: datetime
    pins: tuple[Window, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Expired:
    """Rows and labels that went, or would go, and old rows that pins hold."""

    rows: int
    labels: int
    pinned: int

    def __add__(self, other: Self) -> "Expired":
        """Return both together."""
        return Expired(
            rows=self.rows + other.rows,
            labels=self.labels + other.labels,
            pinned=self.pinned + other.pinned,
        )


def spans(pins: Iterable[Window]) -> tuple[tuple[ModelId, datetime, datetime], ...]:
    """Return (model, start, end) that together cover `pins`; those of one model do not touch."""
    joined: list[tuple[ModelId, datetime, datetime]] = []
    for pin in sorted(pins, key=lambda pin: (pin.model, pin.start)):
        if joined and joined[-1][0] == pin.model and pin.start <= joined[-1][2]:
            model, start, end = joined.pop()
            joined.append((model, start, max(end, pin.end)))
        else:
            joined.append((pin.model, pin.start, pin.end))
    return tuple(joined)


def expire(con: "duckdb.DuckDBPyConnection", expiry: Expiry) -> Expired:
    """Delete what `expiry` says is old, labels too; return how much. Call it in a transaction."""
    expiry = _awake(con, expiry)
    found = _expiring(con, expiry)
    bound = {"before": expiry.before}
    if found.rows:
        gone = f"DELETE FROM {_predictions(expiry)} AS p WHERE {_OLD} AND NOT {_PINNED}"  # noqa: S608 - from the checked spec
        con.execute(gone, bound)
    if found.labels:
        gone = f"DELETE FROM {_labels(expiry)} AS l WHERE {_orphaned(expiry)}"  # noqa: S608 - as above
        con.execute(gone, bound)
    return found


def expire_beside(
    con: "duckdb.DuckDBPyConnection", expiries: Sequence[Expiry], sources: Sequence[Table]
) -> None:
    """Delete what is as old of what stands beside predictions; nothing pins it.

    That is what challengers would have answered, how versions did, and events: these are
    everybody's, and stay as long as the predictions of any family do.
    """
    awake = [_awake(con, expiry) for expiry in expiries]
    for expiry in awake:
        for kind, time in (("shadows", "predicted_at"), ("served", "end")):
            con.execute(
                f"DELETE FROM lake.{expiry.family.table}_{kind}"  # noqa: S608 - from the checked spec
                f' WHERE "{time}" < $before AND arrived_at < $before',
                {"before": expiry.before},
            )
    if awake:
        for table in sources:
            con.execute(
                f"DELETE FROM lake.{table.name}"  # noqa: S608 - as above
                " WHERE event_time < $before AND arrived_at < $before",
                {"before": min(expiry.before for expiry in awake)},
            )


def expiring(con: "duckdb.DuckDBPyConnection", expiry: Expiry) -> Expired:
    """Return what `expire` would delete now."""
    return _expiring(con, _awake(con, expiry))


def forget(con: "duckdb.DuckDBPyConnection", pending: frozenset[str], *, spool: str = "") -> None:
    """Forget the names of segments that came in more than a week ago and are not `pending`.

    One of each day stays: they tell when the log was at work. With `spool` only those that were
    written in the spool of that identity go: what is pending elsewhere is known there. After
    `FORGOTTEN` all go: most spools of long ago are no more.
    """
    con.execute(
        """
        DELETE FROM lake.segments WHERE name NOT IN (SELECT unnest($pending::VARCHAR[]))
        AND (
            contains(name, $spool)
            OR ingested_at < (SELECT max(ingested_at) FROM lake.segments) - $forgotten
        )
        AND ingested_at < (SELECT max(ingested_at) FROM lake.segments) - INTERVAL 7 DAY
        AND name NOT IN (
            SELECT arg_max(name, ingested_at) FROM lake.segments GROUP BY ingested_at::DATE
        )
        """,
        {"pending": list(pending), "spool": spool, "forgotten": FORGOTTEN},
    )


def tidy(con: "duckdb.DuckDBPyConnection", replaced: timedelta) -> None:
    """Write small commits out, merge small files, and delete what was `replaced` so long ago."""
    old = f"older_than => now() - INTERVAL {replaced.total_seconds():.0f} SECOND"
    for step in (
        "CALL ducklake_flush_inlined_data('lake')",
        f"CALL ducklake_rewrite_data_files('lake', delete_threshold => {_WASTE})",
        "CALL ducklake_merge_adjacent_files('lake')",
        f"CALL ducklake_expire_snapshots('lake', {old})",
        f"CALL ducklake_cleanup_old_files('lake', {old})",
    ):
        con.execute(step)


def _awake(con: "duckdb.DuckDBPyConnection", expiry: Expiry) -> Expiry:
    """Return `expiry` as it is without the silences after it, in which nothing aged."""
    silent = con.execute(
        """
        SELECT coalesce(sum(epoch_us(ingested_at) - epoch_us(previous)), 0) FROM (
            SELECT ingested_at, lag(ingested_at) OVER (ORDER BY ingested_at) AS previous
            FROM lake.segments
        ) WHERE ingested_at > $before AND ingested_at - previous > $silence
        """,
        {"before": expiry.before, "silence": SILENCE},
    ).fetchall()[0][0]
    return replace(expiry, before=expiry.before - timedelta(microseconds=int(silent)))


def _expiring(con: "duckdb.DuckDBPyConnection", expiry: Expiry) -> Expired:
    _load(con, spans(expiry.pins))
    rows = f"""
        SELECT count(*) FILTER (NOT {_PINNED}), count(*) FILTER ({_PINNED})
        FROM {_predictions(expiry)} AS p WHERE {_OLD}
    """  # noqa: S608 - identifiers come from the checked spec
    labels = f"SELECT count(*) FROM {_labels(expiry)} AS l WHERE {_orphaned(expiry)}"  # noqa: S608 - as above
    bound = {"before": expiry.before}
    gone, pinned = con.execute(rows, bound).fetchall()[0]
    return Expired(rows=gone, labels=con.execute(labels, bound).fetchall()[0][0], pinned=pinned)


_OLD = "p.event_time < $before AND p.arrived_at < $before"
_PINNED = """EXISTS (
    SELECT 1 FROM pins WHERE pins.model = p.model
    AND p.event_time >= pins.since AND p.event_time < pins.until
)"""


def _orphaned(expiry: Expiry) -> str:
    # A prediction that goes now has no say any more.
    return f"""l.arrived_at < $before AND NOT EXISTS (
        SELECT 1 FROM {_predictions(expiry)} AS p WHERE p.model = l.model AND p.id = l.id
        AND (p.event_time >= $before OR p.arrived_at >= $before OR {_PINNED})
    )"""  # noqa: S608 - identifiers come from the checked spec


def _load(
    con: "duckdb.DuckDBPyConnection", held: Sequence[tuple[ModelId, datetime, datetime]]
) -> None:
    con.execute(
        "CREATE OR REPLACE TEMP TABLE pins (model VARCHAR, since TIMESTAMPTZ, until TIMESTAMPTZ)"
    )
    if held:
        con.executemany("INSERT INTO pins VALUES (?, ?, ?)", [list(span) for span in held])


def _predictions(expiry: Expiry) -> str:
    return f"lake.{expiry.family.table}_predictions"


def _labels(expiry: Expiry) -> str:
    return f"lake.{expiry.family.table}_labels"
