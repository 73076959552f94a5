"""The prediction log: rows and late labels in, windows and summaries out. The door to DuckDB.

A service appends to its `SegmentSpool` before it answers; its home's `Ingester` moves sealed
segments into the `Lake` exactly once; everyone else reads the lake. Families that are served
elsewhere have a `ForeignLog`, which is read and never written.
"""

from driftloop.prediction_log.foreign import ForeignLog
from driftloop.prediction_log.ingest import Ingester, IngestReport, is_ingesting
from driftloop.prediction_log.lake import Lake
from driftloop.prediction_log.place import S3, Place
from driftloop.prediction_log.routed import RoutedLog
from driftloop.prediction_log.segments import DamagedSegment
from driftloop.prediction_log.source import (
    check_writable,
    history_columns,
    history_rows,
    read_labels,
    read_source,
    write_table,
)
from driftloop.prediction_log.spool import SegmentSpool, is_waiting, sealed, waiting
from driftloop.prediction_log.store import named_files
from driftloop.prediction_log.survey import Contents
from driftloop.prediction_log.tables import SCHEMA as LAYOUT
from driftloop.prediction_log.upkeep import Expired, Expiry

__all__ = [
    "LAYOUT",
    "S3",
    "Contents",
    "DamagedSegment",
    "Expired",
    "Expiry",
    "ForeignLog",
    "IngestReport",
    "Ingester",
    "Lake",
    "Place",
    "RoutedLog",
    "SegmentSpool",
    "check_writable",
    "history_columns",
    "history_rows",
    "is_ingesting",
    "is_waiting",
    "named_files",
    "read_labels",
    "read_source",
    "sealed",
    "waiting",
    "write_table",
]
