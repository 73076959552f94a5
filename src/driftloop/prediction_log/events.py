"""The events of a source as the log has them: in the lake, or sealed and about to be."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from heapq import merge
from pathlib import Path

import msgspec

from driftloop.errors import LogError
from driftloop.prediction_log.lake import Lake
from driftloop.prediction_log.past import past_mark
from driftloop.prediction_log.spool import sealed
from driftloop.records import Event
from driftloop.spec import Source

PAGE = 50_000
"""Events that are read from the lake at a time."""
FIRST, NO_MORE = -(2**63), 2**63 - 1
"""Before all positions, past ones too, and the last there can be."""
LATEST = datetime.max.replace(tzinfo=UTC)
_event = msgspec.json.Decoder(Event)


class EventLog:
    """Reads events back; nobody may write any of them meanwhile.

    Args:
        spool: the folder of the spools.
        lake: the log; it need not be there yet.
    """

    def __init__(self, spool: Path, lake: Lake) -> None:
        self._spool = spool
        self._lake = lake

    def newest(self, source: Source) -> int:
        """Return the largest position of the source's events, 0 where there are none.

        Raises:
            LogError: the log cannot be read.
        """
        # The lake after the spool: what the ingester takes meanwhile is met twice, and not missed.
        found = max((event.position for event in self._waiting(source)), default=0)
        if self._lake.is_made():
            sql = f"SELECT max(position) AS newest FROM lake.{source.table}_events"  # noqa: S608 - from the checked spec
            (row,) = self._lake.query(sql).to_pylist()
            found = max(found, row["newest"] or 0)
        return found

    def since(self, source: Source, time: datetime) -> Iterator[Event]:
        """Yield the source's events that happened at `time` or later, by position, each once.

        Past events come first: their positions are below 0.

        Raises:
            LogError: the log cannot be read.
        """
        return self._read(source, time, LATEST, NO_MORE)

    def past(self, source: Source, first: datetime, last: datetime) -> Iterator[Event]:
        """Yield the past events that happened from `first` to `last`, by position, each once.

        Raises:
            LogError: the log cannot be read.
        """
        return self._read(source, first, last, -1)

    def past_mark(self, source: Source) -> str | None:
        """Return what stands for all past events of the source; see `past_mark`."""
        return past_mark(self._spool, source)

    def _read(self, source: Source, first: datetime, last: datetime, upto: int) -> Iterator[Event]:
        # The lake after the spool, as above.
        waiting = sorted(
            (
                event
                for event in self._waiting(source)
                if first <= event.event_time <= last and event.position <= upto
            ),
            key=lambda event: event.position,
        )
        in_lake = self._in_lake(source, first, last, upto)
        before = FIRST
        for event in merge(in_lake, waiting, key=lambda each: each.position):
            if event.position > before:
                before = event.position
                yield event

    def _in_lake(
        self, source: Source, first: datetime, last: datetime, upto: int
    ) -> Iterable[Event]:
        if not self._lake.is_made():
            return
        fields = ", ".join(f'"{name}"' for name in source.fields)
        sql = f"""
            SELECT id, position, event_time, received_at, {fields}
            FROM lake.{source.table}_events
            WHERE position > $after AND position <= $upto
                  AND event_time BETWEEN $first AND $last
            ORDER BY position, arrived_at LIMIT {PAGE}
        """  # noqa: S608 - from the checked spec
        after, bounds = FIRST, {"upto": upto, "first": first, "last": last}
        while True:
            rows = self._lake.query(sql, {"after": after, **bounds}).to_pylist()
            for row in rows:
                head = {n: row.pop(n) for n in ("id", "position", "event_time", "received_at")}
                after = head["position"]
                yield Event(source=source.name, fields=row, **head)
            if len(rows) < PAGE:
                return

    def _waiting(self, source: Source) -> Iterator[Event]:
        for segment in sealed(self._spool, "events", source.name):
            try:
                lines = segment.read_bytes().splitlines()
            except FileNotFoundError:
                continue  # the lake has it now
            except OSError as error:
                raise LogError(f"the spool cannot be read: {error}", where=str(segment)) from error
            for line in lines:
                # The ingester sets such a line aside: it will not be in the log.
                with suppress(msgspec.MsgspecError):
                    yield _event.decode(line)
