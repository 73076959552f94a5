"""Partitions of a family's rows, counted where they lie: few queries, however many models."""

from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any

from driftloop.prediction_log import queries
from driftloop.prediction_log.store import Reads, faults
from driftloop.prediction_log.survey import IMPOSSIBLE
from driftloop.prediction_log.tables import quoted
from driftloop.records import Agreement, ColumnCounts, ModelId, Partition, Task
from driftloop.spec import Family

RECENT = 7
"""A level is as good as seen once so many partitions ago it was there already."""
WARM = 14
"""What first appears in so many of the oldest partitions is not new: nobody knows what was before.
"""
SLOTS = 24
AT_ONCE = 25
"""So many columns are counted by one query: its cost grows with the square of them."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def counted(
    store: Reads, family: Family, asked: Mapping[str, Any], *, once: bool
) -> dict[ModelId, list[Partition]]:
    """Return the partitions of each model in a window, oldest first; one without rows is none.

    `asked` is what the queries of windows take, whose span begins and ends with a block; `once`
    says that each id arrived a single time, which is cheaper to count.

    Raises:
        LogError: it cannot be read.
    """
    length = family.window.block
    given = {name: value for name, value in asked.items() if name != "version"}
    with store.cursor() as con:
        try:
            # Read once: those below ask it, and it is gone with the cursor.
            con.execute(
                f"CREATE OR REPLACE TEMP TABLE placed AS {_placed(family, once=once)}", given
            )
            parts = [con.execute(query).fetchall() for query in _plain(family)]
            unseen = con.execute(_unseen(family)).fetchall() if family.categorical else []
            agreed = [] if family.task is Task.SCORE else con.execute(_agreed(family)).fetchall()
            con.execute("DROP TABLE placed")
        except faults() as error:
            raise store.unread(error) from error
    news = {(model, place, name): rows or 0 for model, name, place, rows in unseen}
    agreements: dict[tuple[str, int], list[Agreement]] = defaultdict(list)
    for model, place, batch, n, *sums in agreed:
        agreements[model, place].append(
            Agreement(batch=batch, n=n, equal=sums[0], **dict(zip(_SUMS, sums[1:], strict=True)))
        )
    found: dict[ModelId, list[Partition]] = defaultdict(list)
    for (model, place, *figures), *more in zip(*parts, strict=True):
        start = _EPOCH + place * length
        whole = figures[: len(_WHOLE)]
        columns = chain(figures[len(_WHOLE) :], *(rest for _, _, *rest in more))
        found[model].append(
            Partition(
                model=model,
                start=start,
                end=start + length,
                columns=tuple(
                    _column(name, values, news.get((model, place, name), 0))
                    for name, values in zip(_watched(family), columns, strict=True)
                ),
                agreements=tuple(agreements[model, place]),
                **dict(zip(_WHOLE, whole, strict=True)),
            )
        )
    return found


_WHOLE = (
    *("rows", "duplicates", "late", "slots", "impossible"),
    *("labels", "label_low", "label_high", "label_mean"),
)
_SUMS = ("y", "p", "yy", "pp", "yp")


def _placed(family: Family, *, once: bool) -> str:
    """Return the query for the rows, each id once, with the block that they and labels are in."""
    block = family.window.block // _MICROSECOND
    names = ", ".join(["prediction", *quoted(family)])
    stale = family.quality.stale // _MICROSECOND
    turn, again = "1", "0"
    if not once:
        turn = "row_number() OVER (PARTITION BY model, id ORDER BY arrived_at, rowid)"
        again = "count(*) OVER (PARTITION BY model, id) - 1"
    return f"""
        WITH arrived AS MATERIALIZED (
            SELECT model, id, event_time, predicted_at, arrived_at, {names},
                   {turn} AS turn, {again} AS again
            FROM lake.{family.table}_predictions
            WHERE {queries.IN_WINDOW}
        ), known AS (
            SELECT model, id, value AS label, arrived_at AS label_at
            FROM lake.{family.table}_labels
            WHERE list_contains($models, model) AND arrived_at <= $known_at
                  AND id IN (SELECT id FROM arrived)
            QUALIFY row_number()
                    OVER (PARTITION BY model, id ORDER BY arrived_at DESC, rowid DESC) = 1
        )
        SELECT model, again, label, {names},
               floor(epoch_us(event_time) / {block})::BIGINT AS place,
               floor(epoch_us(event_time) / {block / SLOTS})::BIGINT AS slot,
               CASE WHEN isfinite(label_at) THEN floor(epoch_us(label_at) / {block})::BIGINT
                    ELSE 0 END AS batch,
               prediction IS NOT NULL
               AND epoch_us(arrived_at) - epoch_us(predicted_at) > {stale} AS late
        FROM arrived LEFT JOIN known USING (model, id) WHERE turn = 1
    """  # noqa: S608 - identifiers come from the checked spec


def _plain(family: Family) -> list[str]:
    """Return the queries for (model, place, what `_WHOLE` names, a structure for each column).

    What the first has no room for the others give as (model, place, structures), in the same order.
    """
    found = IMPOSSIBLE.get(family.task, {}).values()
    impossible = [f"coalesce({wrong}, false)" for wrong, _ in found]
    wrong = f"count(*) FILTER ({' OR '.join(impossible)})" if impossible else "0"
    whole = f"""
        count(*), coalesce(sum(again), 0)::BIGINT, count(*) FILTER (late), count(DISTINCT slot),
        {wrong}, count(label), min(label), max(label), avg(label)
    """
    columns = [_sql(family, name) for name in _watched(family)]
    parts = [columns[at : at + AT_ONCE] for at in range(0, len(columns), AT_ONCE)]
    parts[0].insert(0, whole)
    return [
        f"SELECT model, place, {', '.join(part)} FROM placed "  # noqa: S608 - from the checked spec
        "GROUP BY model, place ORDER BY model, place"
        for part in parts
    ]


def _watched(family: Family) -> list[str]:
    """Return the columns that are counted: what is measured and, of numbers, the label."""
    return [*family.measured, *(["label"] if family.task is Task.REGRESSION else [])]


def _sql(family: Family, name: str) -> str:
    """Return the structure that one column's counts come in."""
    feature = family.features.get(name)
    column = f'"{name}"'
    if feature is not None and feature.kind != "numeric":
        return f"{{'nulls': count(*) FILTER ({column} IS NULL), 'outside': 0, 'ends': NULL}}"
    bounds = feature.range if feature is not None else None
    beyond = f" OR {column} NOT BETWEEN {bounds[0]!r} AND {bounds[1]!r}" if bounds else ""
    share = family.quality.out_of_range
    share = share if share < 1 / 2 else 0.0  # a half of them are no ends
    ends = f"quantile_disc({column}, [{share!r}, {1 - share!r}]) FILTER (isfinite({column}))"
    return f"""{{
        'nulls': count(*) FILTER ({column} IS NULL OR isnan({column})),
        'outside': count(*) FILTER ((isinf({column}){beyond}) AND NOT isnan({column})),
        'ends': {ends}}}"""


def _column(name: str, counts: Mapping[str, Any], unseen: int) -> ColumnCounts:
    low, high = counts["ends"] or (None, None)
    return ColumnCounts(
        name=name,
        nulls=counts["nulls"],
        outside=counts["outside"],
        unseen=unseen,
        low=low,
        high=high,
    )


def _unseen(family: Family) -> str:
    """Return the query for (model, column, place, rows whose level is new there)."""
    levels = " UNION ALL ".join(
        f"SELECT model, '{name}' AS name, \"{name}\" AS level, place, count(*) AS n FROM placed"  # noqa: S608 - from the checked spec
        f' WHERE "{name}" IS NOT NULL GROUP BY ALL'
        for name in family.categorical
    )
    return f"""
        SELECT model, name, place,
               (sum(n) FILTER (since > place - {RECENT} AND since >= began + {WARM}))::BIGINT
        FROM (SELECT *, min(place) OVER (PARTITION BY model, name, level) AS since,
                     min(place) OVER (PARTITION BY model) AS began FROM ({levels}))
        GROUP BY model, name, place
    """  # noqa: S608 - identifiers come from the checked spec


def _agreed(family: Family) -> str:
    """Return the query for how labels and answers agree, by when the labels arrived."""
    equal = "count(*) FILTER (label = prediction)" if family.task is Task.MULTICLASS else "0"
    return f"""
        SELECT model, place, batch, count(*), {equal}, sum(label), sum(prediction),
               sum(label * label), sum(prediction * prediction), sum(label * prediction)
        FROM placed WHERE label IS NOT NULL AND prediction IS NOT NULL
        GROUP BY model, place, batch ORDER BY model, place, batch
    """  # noqa: S608 - {family.task} has no say in identifiers
