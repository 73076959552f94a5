"""Whether what was served is what the log says: features made again, in two ways, and compared."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from driftloop.errors import DriftloopError, LogError
from driftloop.features.compare import Difference, worst
from driftloop.features.operator import windowed
from driftloop.features.replay import replayed
from driftloop.ports import Clock, FeatureLog, Ledger
from driftloop.records import Compared, Kind, Reading
from driftloop.spec import Family, Fleet

MOST = 20_000
"""Rows of a family that are compared at a time; of more, those whose ids hash lowest."""
METRIC = "consistency"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Consistency:
    """Compares what features were served with what the log makes of the same events."""

    fleet: Fleet
    log: FeatureLog
    ledger: Ledger
    clock: Clock
    most: int = MOST
    whole_from: Callable[[str], int | None] = lambda _: 0
    """From which position on rows were served of all past events of a source; None: not yet."""

    def check(self, *, until: datetime) -> tuple[Reading, ...]:
        """Return a reading for each family that is made of events, and keep them in the ledger.

        Its value is the worst relative difference of a feature as it was served from the same
        feature by the operator's replay and by SQL (but for what fell back, which the rows say),
        over the rows predicted since the last check
        and up to `until`: by then all that they were made of has to be in the log. Rows that were
        served before states had all past events that the log has are passed over. Without rows it
        is None, and says so.
        """
        last = self.ledger.facts(Compared, last=1)
        since = last[-1].until if last else None
        families = [family for family in self.fleet.families if windowed(family)]
        readings, done = [], until
        for family in families:
            try:
                readings.append(self._reading(family, since, until))
            except DriftloopError as error:
                readings.append(_reading(family, None, 0, str(error)))
                done = since or EPOCH  # what could not be compared is, the next time
        if readings:
            now = self.clock.now()
            self.ledger.append(Compared(at=now, until=done, readings=tuple(readings)))
        return tuple(readings)

    def _reading(self, family: Family, since: datetime | None, until: datetime) -> Reading:
        rows = self.log.served(family, since=since, until=until, most=self.most)
        if not rows.num_rows:
            return _reading(family, None, 0, "no row was served with events since the last check")
        events = self._events(family, rows)
        # After the events were read: of past ones that came meanwhile it tells.
        whole = rows.filter(pc.greater_equal(rows["position"], self._whole(family)))
        if not whole.num_rows:
            said = f"{rows.num_rows} rows were served before past events were in the states"
            return _reading(family, None, 0, said)
        size, said = self._worst(family, whole, events)
        return _reading(family, size, whole.num_rows, said or None)

    def _whole(self, family: Family) -> int:
        found = 0
        for source, _ in windowed(family):
            position = self.whole_from(source)
            if position is None:
                raise LogError(
                    "the states are not made of all past events yet",
                    where=source,
                    hint="the stream process does it; a `backfill-events` that was broken off has"
                    " to be done again",
                )
            found = max(found, position)
        return found

    def _worst(
        self, family: Family, rows: pa.Table, events: Mapping[str, pa.Table]
    ) -> tuple[float, str]:
        from driftloop.features.bulk import bulk_sql

        streamed = tuple(each.name for group in windowed(family).values() for each in group)
        sql = bulk_sql(family, self.fleet, looked_up=streamed)
        tables = {f"{self.fleet.sources[name].table}_events": each for name, each in events.items()}
        made = {
            "replayed": replayed(family, self.fleet, rows, events, looked_up=streamed),
            "in SQL": self.log.ask(sql, {"rows": rows, **tables}),
        }
        fell_back = _fell_back(family, rows, streamed)
        found = {how: worst(rows, again, fell_back) for how, again in made.items()}
        how = max(found, key=lambda each: found[each].size)
        return found[how].size, _said(found[how], rows, how, made[how])

    def _events(self, family: Family, rows: pa.Table) -> dict[str, pa.Table]:
        """Return the events of each source that any of `rows` can have been made of."""
        earliest = min(rows["at"].to_pylist())
        upto = max(rows["position"].to_pylist())
        found: dict[str, pa.Table] = {}
        for (name, _), features in windowed(family).items():
            reach = max(feature.window for feature in features)
            after = EPOCH + timedelta(microseconds=earliest - reach)
            before = found.get(name)
            read = self.log.events(self.fleet.sources[name], after=after, upto=upto)
            found[name] = read if before is None or len(read) > len(before) else before
        return found


def _fell_back(
    family: Family, rows: pa.Table, streamed: Sequence[str]
) -> dict[str, NDArray[np.bool_]]:
    """Return which rows a fallback stood in for a feature, or for one that it is computed of.

    They say so themselves: as while the states of a stream were made anew.
    """
    fallbacks = [set(each or ()) for each in rows["fallbacks"].to_pylist()]
    found = {name: np.array([name in each for each in fallbacks], bool) for name in streamed}
    nowhere = np.zeros(len(fallbacks), bool)
    for name, feature in family.computed.items():
        of = [found[need] for need in feature.needs if need in found]
        found[name] = np.logical_or.reduce([nowhere, *of])
    return found


def _said(found: Difference, rows: pa.Table, how: str, again: pa.Table) -> str:
    if not found.size:
        return ""
    was, now = (table[found.feature][found.place].as_py() for table in (rows, again))
    row = rows["id"][found.place].as_py()
    return f"{found.feature} of row {row} was served as {was!r}, and is {now!r} {how}"


def _reading(family: Family, value: float | None, n: int, problem: str | None) -> Reading:
    return Reading(
        kind=Kind.QUALITY, metric=METRIC, column=family.name, value=value, n=n, problem=problem
    )
