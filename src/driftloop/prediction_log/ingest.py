"""The one process of a home that writes the lake: sealed segments in, exactly once."""

import fcntl
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

from driftloop.errors import DriftloopError, LogError
from driftloop.ports import Clock
from driftloop.prediction_log.lake import Lake
from driftloop.prediction_log.segments import DamagedSegment
from driftloop.prediction_log.spool import BULK, ENDINGS, QUARANTINE, identity, own, recover
from driftloop.prediction_log.upkeep import SILENCE, Expiry

SKEW = timedelta(seconds=1)
"""How far clocks may be apart before it is worth a word."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestReport:
    """What came into the lake: segments, predictions, labels.

    `bad` counts the segments of which something was set aside: all of it, or some lines.
    """

    segments: int
    rows: int
    labels: int
    bad: int


def is_ingesting(spool: Path) -> bool:
    """Return whether an ingester has this spool now."""
    try:
        lock = os.open(spool / "ingester.lock", os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


class Ingester:
    """Moves the sealed segments of every folder under `spool` into `lake`.

    It brings the lake's tables up to date when it starts.

    Args:
        spool: the folder that holds one folder for each writing process.
        lake: a lake opened for writing; the caller closes it.
        clock: its time is when rows are known to have arrived.
        maintain_every: wall-clock seconds between two maintenances of the lake in `run`.
        batch_bytes: roughly how much of the segments goes into one transaction.
        expiries: what is old at a time, and what of it is pinned; asked at each maintenance.

    Raises:
        LogError: another process ingests this spool, or the lake cannot be written.
    """

    def __init__(
        self,
        spool: Path,
        lake: Lake,
        clock: Clock,
        *,
        maintain_every: float = 600.0,
        batch_bytes: int = 64 * 2**20,
        expiries: Callable[[datetime], Sequence[Expiry]] = lambda now: (),  # noqa: ARG005 - nothing is old
    ) -> None:
        self._spool = spool
        self._lake = lake
        self._clock = clock
        self._maintain_every = maintain_every
        self._batch_bytes = batch_bytes
        self._expiries = expiries
        self._newest: datetime | None = None
        self._lock: int | None = _lock(spool)
        try:
            lake.migrate()
            self._newest = lake.horizon()
        except BaseException:
            self.close()
            raise

    def ingest(self) -> IngestReport:
        """Take up every sealed segment, recovering those of dead writers first.

        A segment that is in the lake already, as after a crash, is only deleted. The damaged
        lines of a segment are moved to `quarantine` under the spool, beside a `.reason` file with
        a line for each, and cost no other line; so is a segment that cannot be read at all.

        Times of arrival never go back: while the clock shows less than it did, or than that of
        another ingester of the same lake, rows arrive just after those before them.

        Raises:
            LogError: the lake could not be written, or the spool not read; do it again.
        """
        try:
            self._recover_dead()
            done = IngestReport(segments=0, rows=0, labels=0, bad=0)
            for batch in self._batches():
                done = _sum(done, self._ingest_new(batch))
        except OSError as error:
            raise LogError(f"the spool cannot be read: {error}", where=str(self._spool)) from error
        return done

    def maintain(self) -> None:
        """Let go what is old, and merge what small commits left in the lake: `Lake.maintain`.

        Nothing goes while nothing has arrived for long: see `SILENCE`.

        Raises:
            LogError: the lake could not be written.
            DriftloopError: what is pinned could not be read; nothing was let go.
        """
        now, newest = self._clock.now(), self._lake.horizon()
        # By a clock that was set ahead all would be old.
        quiet = newest is None or now - newest > SILENCE
        expiries = () if quiet else self._expiries(now)
        with self._lake.turn():
            gone = self._lake.maintain(
                pending=frozenset(path.stem for path in self._sealed()),
                expiries=expiries,
                spool=identity(self._spool),
            )
        # DuckLake keeps statistics of every snapshot that it saw, for as long as it is open.
        self._lake.close()
        if gone.rows or gone.labels:
            _log.info("%d rows and %d labels were old and left the log", gone.rows, gone.labels)

    def run(
        self,
        stop: threading.Event,
        every: float,
        *,
        alive: Callable[[], None] = lambda: None,
    ) -> None:
        """Ingest `every` so many seconds until `stop` is set, and a last time then.

        An error is logged and tried again: nothing is lost by it. `alive` is called after each.
        """
        maintained = time.monotonic()
        while True:
            last = stop.is_set()
            try:
                self.ingest()
                if time.monotonic() - maintained >= self._maintain_every and not last:
                    maintained = time.monotonic()
                    self.maintain()
            except DriftloopError as error:
                _log.error("%s", error)
            alive()
            if last:
                return
            stop.wait(every)

    def close(self) -> None:
        """Let another ingester take over."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        """Return the ingester, to be closed at the end of the block."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the ingester."""
        self.close()

    def _folders(self) -> list[Path]:
        return sorted(
            path for path in self._spool.iterdir() if path.is_dir() and path.name != QUARANTINE
        )

    def _sealed(self) -> list[Path]:
        found = [
            path
            for folder in self._folders()
            for ending in ENDINGS
            for path in folder.glob(f"*{ending}")
        ]
        return sorted(found, key=lambda path: (path.stem.rpartition(".")[2], path.name))

    def _recover_dead(self) -> None:
        """Seal what dead writers left open, and remove their folders once empty."""
        for folder in self._folders():
            owner = own(folder)
            if owner is None:
                continue  # its writer lives
            try:
                if recover(folder):
                    _log.info("recovered the segments of a dead writer in %s", folder)
                if [path.name for path in folder.iterdir()] == ["owner.lock"]:
                    (folder / "owner.lock").unlink()
                    folder.rmdir()
            finally:
                os.close(owner)

    def _batches(self) -> Iterator[list[Path]]:
        batch: list[Path] = []
        size = 0
        for path in self._sealed():
            batch.append(path)
            size += path.stat().st_size
            if size >= self._batch_bytes:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch

    def _ingest_new(self, batch: Sequence[Path]) -> IngestReport:
        held = self._lake.holds([path.stem for path in batch])
        for path in batch:
            if path.stem in held:
                path.unlink()
        return self._take([path for path in batch if path.stem not in held])

    def _take(self, batch: Sequence[Path]) -> IngestReport:
        """Take up `batch`; halve it for as long as something in it is damaged."""
        if not batch:
            return IngestReport(segments=0, rows=0, labels=0, bad=0)
        try:
            done = self._append(batch)
        except DamagedSegment as error:
            if len(batch) == 1:
                return self._salvage(batch[0], error)
            half = len(batch) // 2
            return _sum(self._take(batch[:half]), self._take(batch[half:]))
        for path in batch:
            path.unlink()
        return done

    def _append(self, batch: Sequence[Path]) -> IngestReport:
        # Stamp and commit as one: who reads up to a stamp must never see less than all of it.
        with self._lake.turn():
            if self._lake.shared:
                self._newest = self._lake.horizon()
            at = self._arrival()
            rows, labels = self._lake.append(batch, arrived_at=at)
            self._newest = at
        return IngestReport(segments=len(batch), rows=rows, labels=labels, bad=0)

    def _arrival(self) -> datetime:
        """Return the time now, or just after the newest arrival where the clock was set back."""
        now, newest = self._clock.now(), self._newest
        # Others may have read up to the newest arrival: what comes in another turn is later.
        if newest is None or now > newest or (now == newest and not self._lake.shared):
            return now
        if newest - now > SKEW or not self._lake.shared:
            _log.warning(
                "the clock shows %s, and rows arrived at %s already: it was set back", now, newest
            )
        return newest + timedelta(microseconds=1)

    def _salvage(self, path: Path, error: DamagedSegment) -> IngestReport:
        """Take up what is whole of a damaged segment, and set aside what is not."""
        if path.suffix == BULK:
            self._reason(path, [str(error)])
            path.replace(self._spool / QUARANTINE / path.name)
            return IngestReport(segments=0, rows=0, labels=0, bad=1)
        lines = path.read_bytes().splitlines(keepends=True)
        done = IngestReport(segments=0, rows=0, labels=0, bad=0)
        try:
            bad = self._lake.damage(path)
            wrong = {line.number for line in bad}
            good = [line for number, line in enumerate(lines, start=1) if number not in wrong]
            if not bad or not good:
                raise error
            # Set aside first: after a crash in between it is done again, and comes to the same.
            self._set_aside(path, [line.text for line in bad], [str(line) for line in bad])
            # Under the segment's name: that is what says in the lake that it came in.
            whole = self._spool / QUARANTINE / f"{path.stem}.part"
            whole.write_bytes(b"".join(good))
            done = self._append([whole])
            whole.unlink()
        except DamagedSegment as worse:
            self._set_aside(path, lines, [str(worse)])
        path.unlink()
        return _sum(done, IngestReport(segments=0, rows=0, labels=0, bad=1))

    def _set_aside(self, path: Path, lines: Sequence[bytes], reasons: Sequence[str]) -> None:
        self._reason(path, reasons)
        aside = self._spool / QUARANTINE
        part = aside / f"{path.stem}.part"
        with part.open("wb") as file:
            file.writelines(lines)
            file.flush()
            os.fsync(file.fileno())
        part.replace(aside / path.name)

    def _reason(self, path: Path, reasons: Sequence[str]) -> None:
        _log.error("set aside of %s: %s", path.name, reasons[0])
        aside = self._spool / QUARANTINE
        aside.mkdir(exist_ok=True)
        (aside / f"{path.stem}.reason").write_text("\n".join(reasons) + "\n", encoding="utf-8")


def _lock(spool: Path) -> int:
    try:
        spool.mkdir(parents=True, exist_ok=True)
        lock = os.open(spool / "ingester.lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise LogError(f"cannot be written: {error}", where=str(spool)) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise LogError(
            "another ingester has this spool",
            where=str(spool),
            hint="`driftloop status` tells what runs",
        ) from error
    return lock


def _sum(one: IngestReport, other: IngestReport) -> IngestReport:
    return IngestReport(
        segments=one.segments + other.segments,
        rows=one.rows + other.rows,
        labels=one.labels + other.labels,
        bad=one.bad + other.bad,
    )
