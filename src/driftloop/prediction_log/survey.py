"""What a log that somebody else writes holds, over all its rows, and what of it will bite."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from driftloop.prediction_log import queries
from driftloop.prediction_log.store import Reads, utc
from driftloop.prediction_log.tables import quoted
from driftloop.records import ModelId, Task
from driftloop.spec import Family

NAMED = 3
"""So many names of models that are not the family's are told."""
NO_CLASS = -1
"""Stands in a log for what is written there and is none of the family's classes."""
IMPOSSIBLE = {
    Task.BINARY: {
        "label": ("label NOT IN (0, 1)", "a label that is neither 0 nor 1"),
        "prediction": (
            "prediction NOT BETWEEN 0 AND 1",
            "a prediction that is no probability of 1",
        ),
    },
    Task.MULTICLASS: {
        name: (f"{name} = {NO_CLASS}", f"a {name} that is no class")
        for name in ("label", "prediction")
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What a log holds for one model: its rows, how many have a label, and when they were."""

    model: ModelId
    rows: int = 0
    labelled: int = 0
    first: datetime | None = None
    last: datetime | None = None

    def __str__(self) -> str:
        """Return the counts in a line."""
        counted = f"{self.model}: {self.rows or 'no'} rows"
        if self.first is None or self.last is None:
            return counted
        return (
            f"{counted}, {self.labelled} labelled,"
            f" {self.first:%Y-%m-%d %H:%M} to {self.last:%Y-%m-%d %H:%M} UTC"
        )


def contents(store: Reads, family: Family) -> tuple[Contents, ...]:
    """Return what `store` holds for each model of `family`; those without rows too.

    Raises:
        SpecError, LogError: as for `ForeignLog.rows`.
    """
    # Every column of every file is read: one that lacks some shows here, and not in a pass.
    every = ", ".join(f"count(p.{name})" for name in ("prediction", *quoted(family)))
    found = store.fetch(
        f"""
        SELECT p.model, count(*), count(l.id), min(event_time), max(event_time), {every}
        FROM lake.{family.table}_predictions p
        LEFT JOIN (SELECT DISTINCT id, model FROM lake.{family.table}_labels) l
        ON l.id = p.id AND l.model = p.model GROUP BY 1
        """,  # noqa: S608 - identifiers come from the checked spec
        {},
    )
    held = {
        model: Contents(model=model, rows=rows, labelled=labelled, first=utc(first), last=utc(last))
        for model, rows, labelled, first, last, *_ in found
    }
    return tuple(held.get(model, Contents(model=model)) for model in family.models)


def warnings(store: Reads, family: Family, left_out: Collection[ModelId] = ()) -> tuple[str, ...]:
    """Return what in `store` is passed over, counts as a fault or stops a model; a line for each.

    `store` shows the rows as given too, those of other models included: `lake.given`. Rows of
    models that a cut fleet has `left_out` are as they should be.

    Raises:
        SpecError, LogError: as for `ForeignLog.rows`.
    """
    return (*_misfits(store, family, left_out), *_impossible(store, family))


def as_written(store: Reads, name: str, id_: str) -> str | None:
    """Return a prediction or a label of a multiclass log as it is written there.

    Of several with that id it is the first that is no class.
    """
    source = "outcomes" if name == "label" and _apart(store) else "given"
    found = store.fetch(
        f"SELECT min(_{name}) FROM lake.{source} WHERE id = $id AND {name} = {NO_CLASS}",  # noqa: S608 - names of ours
        {"id": id_},
    )
    return str(found[0][0])


def _apart(store: Reads) -> bool:
    """Return whether labels come from another source than the rows."""
    return bool(store.fetch("SELECT 1 FROM duckdb_views() WHERE view_name = 'outcomes'", {}))


def _misfits(store: Reads, family: Family, left_out: Collection[ModelId]) -> list[str]:
    prefix = f"{family.name}-"
    left = {said for model in left_out for said in (str(model), model.removeprefix(prefix))}
    ((nameless, timeless, unanswered, repeating, repeated, strange, names, strangers),) = (
        store.fetch(
            f"""
        WITH given AS MATERIALIZED (
            SELECT id, model, _model, event_time, prediction FROM lake.given
        ),
        ours AS (SELECT * FROM given WHERE model IS NOT NULL),
        repeated AS (
            SELECT model, id, count(*) - 1 AS more FROM ours WHERE id <> ''
            GROUP BY model, id HAVING count(*) > 1
        ),
        strangers AS (
            SELECT _model AS name, count(*) AS rows FROM given WHERE model IS NULL
            AND NOT coalesce(list_contains($left_out::VARCHAR[], _model), false) GROUP BY 1
        )
        SELECT (SELECT count(*) FROM ours WHERE id = ''),
               (SELECT count(*) FROM ours WHERE event_time IS NULL),
               (SELECT count(*) FROM ours WHERE prediction IS NULL),
               (SELECT coalesce(sum(more), 0)::BIGINT FROM repeated),
               (SELECT min_by([id, model], (model, id)) FROM repeated),
               (SELECT coalesce(sum(rows), 0)::BIGINT FROM strangers),
               (SELECT list(name ORDER BY rows DESC, name)
                FROM (FROM strangers ORDER BY rows DESC, name LIMIT {NAMED})),
               (SELECT count(*) FROM strangers)
        """,  # noqa: S608 - a number of ours
            {"left_out": sorted(left)},
        )
    )
    found = []
    if nameless:
        found.append(
            f"{nameless} rows have no id: they count as duplicates of one another, and no label"
            " finds them"
        )
    if timeless:
        found.append(f"{timeless} rows have no {family.time}: they are in no window, ever")
    if unanswered:
        found.append(f"{unanswered} rows have no prediction: they never count for performance")
    if repeating:
        id_, model = repeated
        found.append(
            f"{repeating} rows repeat an id of their model, as {id_!r} of {model}: of each id one"
            " row counts, and the others are duplicates"
        )
    if strange:
        said = ", ".join("(no name)" if name is None else repr(name) for name in names)
        more = f" and {strangers - len(names)} names more" if strangers > len(names) else ""
        found.append(
            f"{strange} rows are of none of these models, and are passed over: {said}{more};"
            f" written as {family.markets[0]!r} or {str(family.models[0])!r} they would count"
        )
    return found


def _impossible(store: Reads, family: Family) -> list[str]:
    impossible = IMPOSSIBLE.get(family.task, {})
    if not impossible:
        return []
    counted = ", ".join(
        f"count(*) FILTER ({wrong}),"
        f" min_by({{'id': id, 'model': model, 'value': {name}}}, (model, id)) FILTER ({wrong})"
        for name, (wrong, _) in impossible.items()
    )
    ever = {
        "models": list(family.models),
        "start": datetime.min.replace(tzinfo=UTC),
        "end": datetime.max.replace(tzinfo=UTC),
        "known_at": datetime.max.replace(tzinfo=UTC),
        "version": None,
    }
    ((*found,),) = store.fetch(
        f"SELECT {counted} FROM ({queries.rows(family, 'model')})",  # noqa: S608 - from the checked spec
        ever,
    )

    def shown(name: str, one: dict[str, Any]) -> object:
        return as_written(store, name, one["id"]) if family.classes else one["value"]

    return [
        f"{rows} rows have {what}, as {shown(name, one)!r} of id {one['id']!r} of {one['model']}:"
        " a model is not judged while its window has such a row"
        for rows, one, (name, (_, what)) in zip(
            found[::2], found[1::2], impossible.items(), strict=True
        )
        if rows
    ]
