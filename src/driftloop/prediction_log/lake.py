"""The prediction log itself: DuckLake tables, written by ingesters, read by everyone else.

For a family called `air-time` there are `lake.air_time_predictions` (id, model, version, epoch,
event_time, predicted_at, arrived_at, prediction, then a column for each feature) and
`lake.air_time_labels` (id, model, value, observed_at, arrived_at); `lake.air_time_shadows` has what
challengers would have answered, `lake.air_time_served` how each version did, and
`lake.departures_events` what happened in a source called `departures`. `lake.segments` (name, rows,
ingested_at) tells what came in. `arrived_at` is the loop's time of ingestion: what was known
when. History, known before driftloop was, has version 0, epoch 0 and no prediction.
"""

from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa

from driftloop.prediction_log import tables, upkeep
from driftloop.prediction_log.lookups import Lookups
from driftloop.prediction_log.place import Place
from driftloop.prediction_log.segments import (
    BadLine,
    DamagedSegment,
    bad_lines,
    kind_and_owner,
    take_up,
)
from driftloop.prediction_log.store import Store, faults, utc
from driftloop.prediction_log.tables import Table
from driftloop.prediction_log.upkeep import REPLACED, Expired, Expiry
from driftloop.prediction_log.windows import Windows
from driftloop.records import Label, ModelId
from driftloop.spec import Family, Fleet


class Lake(Windows, Lookups):
    """The lake at `place`, opened at first use; safe to use from several threads.

    Args:
        place: where; a folder holds `catalog.sqlite`, and the Parquet files under `data`.
        fleet: the families whose tables are meant.
        read_only: False for an ingester; everybody else reads.
    """

    _store: Store

    def __init__(self, place: Path | Place, fleet: Fleet, *, read_only: bool) -> None:
        self._fleet = fleet
        self._store = Store(place, read_only=read_only)
        self.shared = self._store.place.catalog.shared

    def migrate(self) -> None:
        """Bring an older lake up, then make what tables and columns the fleet needs.

        Doing it again changes nothing. The catalog of an older lake is kept beside it, as
        `catalog.sqlite.v1`, or as the schema `ducklake_v1` in PostgreSQL. A feature that is new
        in the spec becomes a column, null in older rows. One that left it keeps its column.

        Raises:
            TooNew: the lake was written by a newer driftloop; nothing was changed.
            LogError: a feature changed its kind, or the lake cannot be written.
        """
        with self.turn():
            found = self.layout()
            if found is not None and found < tables.SCHEMA:
                self._store.keep_catalog(f"v{found}")
                for version in range(found, tables.SCHEMA):
                    with self._store.transaction() as con:
                        tables.step(con, version)
            with self._store.transaction() as con:
                tables.make(con, self._fleet)

    def is_made(self) -> bool:
        """Return whether there is a lake yet: the first ingester makes it.

        Raises:
            LogError: the database of its catalog cannot be reached.
        """
        return self._store.place.catalog.is_made()

    def layout(self) -> int | None:
        """Return the version of the lake's layout, None for a lake without tables.

        Raises:
            TooNew: it was written by a newer driftloop.
            LogError: as for `rows`.
        """
        with self._store.cursor() as con:
            try:
                return tables.layout(con, where=self._store.place.catalog.where)
            except faults() as error:
                raise self._store.unread(error) from error

    # -- reading more ------------------------------------------------------------------------

    def unmatched(self, family: Family, labels: Sequence[Label]) -> int:
        """Return how many of `labels` are for a prediction that has not come, or never will.

        They hurt nothing: each counts from the moment its prediction is there.

        Raises:
            LogError: as for `rows`.
        """
        sql = f"""
            SELECT count(*) FROM (SELECT unnest($models) AS model, unnest($ids) AS id) given
            ANTI JOIN lake.{family.table}_predictions USING (model, id)
        """  # noqa: S608 - identifiers come from the checked spec
        asked = {"models": [each.model for each in labels], "ids": [each.id for each in labels]}
        return int(self._store.fetch(sql, asked)[0][0])

    def logged(self, family: Family, rows: pa.Table) -> pa.Table:
        """Return id and model of those of `rows` that are in the log already, by model and id.

        A family whose tables are yet to be made has none.

        Raises:
            LogError: as for `rows`.
        """
        name = f"{family.table}_predictions"
        made = """
            SELECT count(*) FROM information_schema.tables
            WHERE table_catalog = 'lake' AND table_name = $name
        """
        asked = rows.select(["id", "model"])
        if self._store.fetch(made, {"name": name}) == [(0,)]:
            return asked.slice(0, 0)
        with self._store.cursor() as con:
            try:
                con.register("asked", asked)
                return con.execute(
                    f"FROM asked SEMI JOIN lake.{name} USING (id, model) ORDER BY model, id"
                ).to_arrow_table()
            except faults() as error:
                raise self._store.unread(error) from error

    def models(self, family: Family) -> dict[ModelId, int]:
        """Return how many rows arrived for each model that has any, history included.

        Raises:
            LogError: as for `rows`.
        """
        sql = f"SELECT model, count(*) FROM lake.{family.table}_predictions GROUP BY 1 ORDER BY 1"  # noqa: S608 - from the checked spec
        return dict(self._store.fetch(sql, {}))

    def sizes(self) -> dict[str, int]:
        """Return how many rows each table has, those of families that are gone too.

        Raises:
            LogError: as for `rows`.
        """
        listed = """
            SELECT table_name FROM information_schema.tables WHERE table_catalog = 'lake'
            AND (suffix(table_name, '_predictions') OR suffix(table_name, '_labels'))
            ORDER BY table_name
        """
        return {
            name: self._store.fetch(f'SELECT count(*) FROM lake."{name}"', {})[0][0]  # noqa: S608 - as DuckDB names it
            for (name,) in self._store.fetch(listed, {})
        }

    def horizon(self, family: Family | None = None) -> datetime | None:  # noqa: ARG002 - one for all
        """Return the loop's time up to which everything that will ever have arrived is readable.

        A window whose `known_at` is not after it reads the same until its rows are old, also
        when the clock is set back: arrivals go on from here. Several ingesters stamp and commit
        in turns, each after the one before it. None before the first ingestion.

        Raises:
            LogError: as for `rows`.
        """
        return utc(self._store.fetch("SELECT max(ingested_at) FROM lake.segments", {})[0][0])

    def snapshot(self) -> int:
        """Return the number of the lake's newest snapshot.

        Raises:
            LogError: as for `rows`.
        """
        return int(self._store.fetch("SELECT id FROM ducklake_current_snapshot('lake')", {})[0][0])

    # -- writing: for the ingester ----------------------------------------------------------

    def turn(self) -> AbstractContextManager[None]:
        """Return a block in which no other ingester writes.

        Raises:
            LogError: others were at it for too long, or the turn was lost; nothing was committed.
        """
        return self._store.place.catalog.turn()

    def holds(self, names: Sequence[str]) -> frozenset[str]:
        """Return which of the segments called `names` have come in already.

        Raises:
            LogError: the lake cannot be read.
        """
        found = self._store.fetch(
            "SELECT name FROM lake.segments WHERE name IN (SELECT unnest($names))",
            {"names": list(names)},
        )
        return frozenset(name for (name,) in found)

    def append(self, segments: Sequence[Path], *, arrived_at: datetime) -> tuple[int, int]:
        """Take up all rows of sealed `segments`, and their names, in one transaction.

        Return the numbers of predictions and of labels.

        Raises:
            DamagedSegment: one cannot be parsed, or names a family or model unknown here;
                nothing was taken up.
            LogError: the lake could not be written.
        """
        groups: dict[tuple[str, str], list[Path]] = {}
        for path in segments:
            groups.setdefault(kind_and_owner(path), []).append(path)
        counts: Counter[str] = Counter()
        with self._store.transaction() as con:
            for (kind, _), files in sorted(groups.items()):
                counts[kind] += take_up(con, self._table(files[0]), files, arrived_at)
        return counts["predictions"], counts["labels"]

    def damage(self, segment: Path) -> tuple[BadLine, ...]:
        """Return the lines for which `append` refuses `segment`; without them it is taken up.

        Raises:
            DamagedSegment: it is not a segment of this fleet, or bad as a whole.
            LogError: it could not be read.
        """
        table = self._table(segment)
        with self._store.cursor() as con:
            try:
                return bad_lines(con, table, segment)
            except faults() as error:
                raise self._store.unread(error) from error

    def maintain(
        self,
        *,
        pending: frozenset[str],
        expiries: Sequence[Expiry] = (),
        replaced: timedelta = REPLACED,
        spool: str = "",
    ) -> Expired:
        """Let old rows go, write small commits out, merge small files, delete replaced ones.

        Return how many rows went. Their files, and those that merging replaced, are deleted when
        they are out of use for `replaced` of wall time, together with the snapshots that need
        them. Names of segments are forgotten a week after they came in, unless `pending`; with
        several ingesters each forgets those of its own `spool`: it knows what is pending there.

        Raises:
            LogError: the lake could not be written; what was done so far stays.
        """
        gone = Expired(rows=0, labels=0, pinned=0)
        for expiry in expiries:
            with self._store.transaction() as con:
                gone += upkeep.expire(con, expiry)
        if expiries:
            events = [each for each in tables.tables(self._fleet) if each.kind == "events"]
            with self._store.transaction() as con:
                upkeep.expire_beside(con, expiries, events)
        with self._store.cursor() as con:
            try:
                upkeep.forget(con, pending, spool=spool if self.shared else "")
                upkeep.tidy(con, replaced)
            except faults() as error:
                raise self._store.unwritten(error) from error
        return gone

    def expiring(self, expiries: Sequence[Expiry]) -> Expired:
        """Return what `maintain` would let go now, and how many old rows are pinned.

        Raises:
            LogError: as for `rows`.
        """
        total = Expired(rows=0, labels=0, pinned=0)
        with self._store.cursor() as con:
            try:
                for expiry in expiries:
                    total += upkeep.expiring(con, expiry)
            except faults() as error:
                raise self._store.unread(error) from error
        return total

    def close(self) -> None:
        """Close the lake; the next use opens it again."""
        self._store.close()

    def __enter__(self) -> Self:
        """Return the lake, to be closed at the end of the block."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the lake."""
        self.close()

    # -- inside -----------------------------------------------------------------------------

    def _table(self, segment: Path) -> Table:
        kind, of = kind_and_owner(segment)
        table = tables.table_of(self._fleet, kind, of)
        if table is None:
            what = "source" if kind == "events" else "family"
            raise DamagedSegment(f"no monitor declares the {what} {of!r}", where=segment.name)
        return table
