"""An SQLite file as of one moment, while others write to it."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

PATIENCE = 30.0
"""Seconds to wait for a writer."""


def copy_sqlite(file: Path, to: Path) -> None:
    """Copy the database in `file` to `to`, whole or not at all, as it is at one moment.

    Raises:
        OSError: `file` is not there, or `to` cannot be written.
        sqlite3.Error: `file` is no database, or the disk is full.
    """
    part = to.with_name(f"{to.name}.part")
    part.unlink(missing_ok=True)
    address = f"{file.absolute().as_uri()}?mode=rw"
    try:
        with (
            closing(sqlite3.connect(address, uri=True, timeout=PATIENCE)) as old,
            closing(sqlite3.connect(part)) as new,
        ):
            old.backup(new)
        with part.open("rb") as written:
            os.fsync(written.fileno())
        part.replace(to)
    finally:
        part.unlink(missing_ok=True)
