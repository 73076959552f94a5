"""What the workers of one online service show each other, in a small file each."""

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from driftloop.records import Head
from driftloop.serve.metrics import Counts
from driftloop.serve.recent import Lately

_log = logging.getLogger(__name__)


class RefusedHead(msgspec.Struct, frozen=True):
    """A version that a worker could not take up."""

    model: str
    version: int
    digest: str
    error: str


class Shown(msgspec.Struct, kw_only=True):
    """What one worker counted, whom it answers with, loaded or not, and what it refused."""

    counts: Counts = msgspec.field(default_factory=Counts)
    lately: Lately = msgspec.field(default_factory=Lately)
    heads: tuple[Head, ...] = ()
    refused: tuple[RefusedHead, ...] = ()


class Peers:
    """The workers beside this one; a file that cannot be read or written is passed over.

    Args:
        folder: where each has its file, or None for one that is alone.
        place: which of them this one is, counted from 0; one that dies leaves its place to the
            next.
    """

    def __init__(self, folder: Path | None = None, place: int = 0) -> None:
        self._folder = folder
        self._file = folder / f"{place}.json" if folder is not None else None

    def before(self) -> Shown | None:
        """Return what who had this place before showed last, if anybody did."""
        return _read(self._file) if self._file is not None else None

    def show(self, mine: Shown) -> None:
        """Show the others `mine`; whole, or as it was. The file's time says that we live."""
        if self._file is None:
            return
        part = self._file.with_suffix(".part")
        try:
            part.write_bytes(msgspec.json.encode(mine))
            part.replace(self._file)
        except OSError as error:
            _log.warning("the other workers are not shown anything: %s", error)

    def others(self) -> list[Shown]:
        """Return what the others showed last."""
        if self._folder is None:
            return []
        files = sorted(file for file in self._folder.glob("*.json") if file != self._file)
        return [shown for file in files if (shown := _read(file)) is not None]


def oldest_heads(shown: Iterable[Shown]) -> Mapping[str, Head]:
    """Return by model who answers: of several that do, the one of the oldest epoch.

    So a new version is said to answer once none answers otherwise.
    """
    found: dict[str, Head] = {}
    for each in shown:
        for head in each.heads:
            if head.model not in found or head.epoch < found[head.model].epoch:
                found[head.model] = head
    return found


def _read(file: Path) -> Shown | None:
    try:
        return msgspec.json.decode(file.read_bytes(), type=Shown)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        _log.warning("what another worker shows cannot be read: %s", error)
        return None
