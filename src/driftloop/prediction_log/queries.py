"""The SQL that reads a window: the first arrival of each id, and the newest known label."""

from collections.abc import Sequence

from driftloop.prediction_log.tables import quoted
from driftloop.records import Window
from driftloop.spec import Family


def rows(family: Family, *more: str) -> str:
    """Return the query for one row for each id, with `more` columns in front."""
    return _rows(family, more, IN_WINDOW)


def sample(family: Family) -> str:
    """Return the query for those of `rows` whose id hashes to `$below` or less."""
    return _rows(family, (), f"{IN_WINDOW} AND hash(id) <= $below")


def counts(family: Family) -> str:
    """Return the query for each model's (model, rows, duplicates, labels, newest event)."""
    return f"""
        WITH {_first_arrivals(family, "id, version, event_time")},
             known AS ({newest_labels(family)})
        SELECT model, count(*), count(*) FILTER (turn > 1), count(label) FILTER (turn = 1),
               max(event_time)
        FROM arrived LEFT JOIN known USING (model, id)
        WHERE $version IS NULL OR version = $version
        GROUP BY model
    """  # noqa: S608 - identifiers come from the checked spec


def arrivals(family: Family) -> str:
    """Return the query for each model's (model, rows, distinct ids, newest event)."""
    return f"""
        SELECT model, count(*), count(DISTINCT id), max(event_time)
        FROM lake.{family.table}_predictions WHERE {IN_WINDOW} GROUP BY model
    """  # noqa: S608 - identifiers come from the checked spec


def single(family: Family, *more: str, corrected: bool) -> str:
    """Return what `rows` does where each id arrived once: at a third of its cost.

    It takes no `version`. If no label is `corrected` each is taken as it stands, which is cheaper
    still: where one is, its row comes as often as its labels.
    """
    newest = "arg_max(value, (arrived_at, rowid))" if corrected else "value"
    at = _TOLD.format("max(arrived_at)" if corrected else "arrived_at")
    return f"""
        WITH known AS (
            SELECT model, id, {newest} AS label, {at} AS labelled_at
            FROM lake.{family.table}_labels
            WHERE list_contains($models, model) AND arrived_at <= $known_at
            {"GROUP BY model, id" if corrected else ""}
        )
        SELECT {", ".join([*more, *_SHOWN, *quoted(family)])}
        FROM lake.{family.table}_predictions LEFT JOIN known USING (model, id)
        WHERE {IN_WINDOW}
    """  # noqa: S608 - identifiers come from the checked spec


def every_arrival(family: Family) -> str:
    """Return the query for all that arrived, and what tells the first of an id; no `version`.

    Written to a file it is what `FIRST`, `newest_labels`, `PLACES` and `COUNT` make `rows` of.
    """
    wanted = ", ".join([*_OF_ROWS, *quoted(family)])
    # No feature can be called so.
    return f"""
        SELECT {wanted}, rowid AS _rowid
        FROM lake.{family.table}_predictions WHERE {IN_WINDOW}
    """  # noqa: S608 - identifiers come from the checked spec


FIRST = """
    SELECT id, version, event_time, file_row_number AS place
    FROM read_parquet($file, file_row_number = true)
    QUALIFY row_number() OVER (PARTITION BY id ORDER BY arrived_at, _rowid) = 1
"""
"""The first arrival of each id in a file of one model, and its place there: the table `arrived`."""


def newest_labels(family: Family) -> str:
    """Return the query for the newest known label of each id in `arrived`: the table `known`."""
    return f"""
        SELECT model, id, value AS label, {_TOLD.format("arrived_at")} AS labelled_at
        FROM lake.{family.table}_labels
        WHERE list_contains($models, model) AND arrived_at <= $known_at
              AND id IN (SELECT id FROM arrived)
        QUALIFY row_number()
                OVER (PARTITION BY model, id ORDER BY arrived_at DESC, rowid DESC) = 1
    """  # noqa: S608 - identifiers come from the checked spec


PLACES = """
    SELECT place, label, labelled_at FROM arrived LEFT JOIN known USING (id)
    WHERE $version IS NULL OR version = $version ORDER BY event_time, id
"""
"""The place of each row in the file, in the order of `rows`, its label and when that arrived."""
COUNT = """
    SELECT count(*), max(event_time) FROM read_parquet($file)
    WHERE $version IS NULL OR version = $version
"""
"""How many rows arrived, and the newest event."""
_OF_ROWS = ("id", "version", "event_time", "arrived_at", "prediction")
_SHOWN = (*_OF_ROWS, "label", "labelled_at")
"""The columns of a window in their order; the features come after them."""
_TOLD = "CASE WHEN isfinite({0}) THEN {0} END"
"""A time, null where somebody else's log does not tell it."""
IN_WINDOW = """
    list_contains($models, model) AND event_time >= $start AND event_time < $end
    AND arrived_at <= $known_at
"""


def bound(window: Window) -> dict[str, object]:
    """Return the parameters that these queries take, for the one model of `window`."""
    return {
        "models": [window.model],
        "start": window.start,
        "end": window.end,
        "known_at": window.known_at,
        "version": window.version,
    }


def _rows(family: Family, more: Sequence[str], where: str) -> str:
    wanted = ", ".join([*_OF_ROWS, *quoted(family)])
    shown = [*more, *_SHOWN, *quoted(family)]
    return f"""
        WITH {_first_arrivals(family, wanted, where)}, known AS ({newest_labels(family)})
        SELECT {", ".join(shown)} FROM arrived LEFT JOIN known USING (model, id)
        WHERE turn = 1 AND ($version IS NULL OR version = $version)
    """  # noqa: S608 - identifiers come from the checked spec


def _first_arrivals(family: Family, columns: str, where: str = IN_WINDOW) -> str:
    # Within one ingestion the order of the rows tells: DuckLake's rowid keeps it for good.
    return f"""arrived AS MATERIALIZED (
        SELECT model, {columns},
               row_number() OVER (PARTITION BY model, id ORDER BY arrived_at, rowid) AS turn
        FROM lake.{family.table}_predictions
        WHERE {where}
    )"""  # noqa: S608 - identifiers come from the checked spec
