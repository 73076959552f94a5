"""The sign of life of a service that has no port to ask: a file that it touches as it works."""

from contextlib import suppress
from pathlib import Path


def beat(home: Path, service: str) -> None:
    """Show that `service` works: call it whenever a round of its work is done.

    The supervisor makes the file before it starts a service; touching it needs no free disk.
    """
    with suppress(OSError):
        _file(home, service).touch()


def beaten(home: Path, service: str) -> float | None:
    """Return when `service` last showed that it works, in seconds since 1970; None if never."""
    try:
        return _file(home, service).stat().st_mtime
    except OSError:
        return None


def _file(home: Path, service: str) -> Path:
    return home / "run" / f"{service}.beat"
