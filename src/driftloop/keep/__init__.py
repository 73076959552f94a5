"""What must not be lost, and what may go: backups, and retention with its pins."""

from driftloop.keep.backup import Backup, backup
from driftloop.keep.moved import settle
from driftloop.keep.restore import restore
from driftloop.keep.retention import Pin, Prune, expiries, pins, prune

__all__ = ["Backup", "Pin", "Prune", "backup", "expiries", "pins", "prune", "restore", "settle"]
