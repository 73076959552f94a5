"""What must not be lost, and what may go: backups, and retention with its pins."""

from driftloop.keep.backup import Backup, backup, refuse_elsewhere
from driftloop.keep.moved import earlier_homes, settle
from driftloop.keep.restore import restore
from driftloop.keep.retention import Pin, Prune, expiries, pins, prune

__all__ = [
    "Backup",
    "Pin",
    "Prune",
    "backup",
    "earlier_homes",
    "expiries",
    "pins",
    "prune",
    "refuse_elsewhere",
    "restore",
    "settle",
]
