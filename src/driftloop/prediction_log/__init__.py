"""The prediction log: rows and late labels in, windows and summaries out. The door to DuckDB.

A service appends to its `SegmentSpool` before it answers; its home's `Ingester` moves sealed
segments into the `Lake` exactly once; everyone else reads the lake. Families that are served
elsewhere have a `ForeignLog`, which is read and never written.
"""

from driftloop.prediction_log.events import EventLog
from driftloop.prediction_log.foreign import ForeignLog
from driftloop.prediction_log.ingest import Ingester, IngestReport, is_ingesting
from driftloop.prediction_log.lake import Lake
from driftloop.prediction_log.past import past_events, past_mark, set_past_mark
from driftloop.prediction_log.place import S3, Place
from driftloop.prediction_log.routed import RoutedLog
from driftloop.prediction_log.segments import DamagedSegment
from driftloop.prediction_log.source import (
    check_writable,
    history_columns,
    history_rows,
    read_labels,
    read_source,
    without_made,
)
from driftloop.prediction_log.spool import SegmentSpool, is_waiting, own, sealed, waiting
from driftloop.prediction_log.store import named_files
from driftloop.prediction_log.stream import (
    Pieces,
    as_parquet,
    files_of,
    fingerprint,
    join,
    repeated_id,
)
from driftloop.prediction_log.survey import Contents
from driftloop.prediction_log.tables import SCHEMA as LAYOUT
from driftloop.prediction_log.trials import LogTrials
from driftloop.prediction_log.upkeep import Expired, Expiry

__all__ = [
    "LAYOUT",
    "S3",
    "Contents",
    "DamagedSegment",
    "EventLog",
    "Expired",
    "Expiry",
    "ForeignLog",
    "IngestReport",
    "Ingester",
    "Lake",
    "LogTrials",
    "Pieces",
    "Place",
    "RoutedLog",
    "SegmentSpool",
    "as_parquet",
    "check_writable",
    "files_of",
    "fingerprint",
    "history_columns",
    "history_rows",
    "is_ingesting",
    "is_waiting",
    "join",
    "named_files",
    "own",
    "past_events",
    "past_mark",
    "read_labels",
    "read_source",
    "repeated_id",
    "sealed",
    "set_past_mark",
    "waiting",
    "without_made",
]
