"""Append-only facts and the intents behind outward acts. The door to SQLAlchemy."""

from driftloop.ledger.migrations import SCHEMA_VERSION
from driftloop.ledger.sql import KINDS, SqlLedger

__all__ = ["KINDS", "SCHEMA_VERSION", "SqlLedger"]
