"""What is old enough to go, and what is pinned however old it is.

The rows that a version which can be rolled back to was trained on, and those that an open
incident was decided on, stay; so do the files of these versions.
"""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from driftloop.ledger import SqlLedger
from driftloop.records import Decided, ModelId, Moved, Trained, Window, version_key
from driftloop.spec import Family, Fleet, RetentionPolicy

if TYPE_CHECKING:
    from driftloop.prediction_log import Expiry

LEASE = timedelta(minutes=10)
DAY = timedelta(days=1)


class Copies(Protocol):
    """A registry that keeps a copy of each version's files."""

    def drop_files(self, model: ModelId, version: int) -> None:
        """Remove the copy of one version."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """Rows that stay, and why in words."""

    window: Window
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Prune:
    """What went, or would go: things of one kind, how many, and their bytes on the disk."""

    what: str
    count: int
    bytes: int = 0

    def __str__(self) -> str:
        """Return as much in words.

        >>> str(Prune(what="rendered reports", count=2, bytes=3_400_000))
        '2 rendered reports (3.4 MB)'
        """
        size = f" ({self.bytes / 1e6:.1f} MB)" if self.bytes else ""
        return f"{self.count} {self.what}{size}"


def pins(ledger: SqlLedger, family: Family) -> tuple[Pin, ...]:
    """Return the rows of a family that stay whatever their age."""
    return tuple(pin for model in family.models for pin in _pins(ledger, model, family.retention))


def expiries(ledger: SqlLedger, fleet: Fleet, now: datetime) -> "tuple[Expiry, ...]":
    """Return what of each family's log is old `now`, to the day, and what of it is pinned."""
    from driftloop.prediction_log import Expiry

    # By whole days: each time something goes files are written anew.
    today = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return tuple(
        Expiry(
            family=family,
            before=today - family.retention.log,
            pins=tuple(pin.window for pin in pins(ledger, family)),
        )
        for family in fleet.families
    )


def prune(
    *,
    ledger: SqlLedger,
    fleet: Fleet,
    now: datetime,
    artifacts: Path,
    reports: Path,
    copies: Copies,
    dry_run: bool = False,
) -> tuple[Prune, ...]:
    """Remove old reports, model files and measurements; return what went, or would go.

    The rows of the log are let go by the process that writes it: see `expiries`.

    Args:
        ledger: what says which version is kept.
        fleet: the families and their policies.
        now: the loop's time.
        artifacts: the folder that each model has a folder of candidates in.
        reports: the folder of the rendered reports, with one for each model.
        copies: told of each version whose files go.
        dry_run: only say what would go.
    """
    aged = _old_reports(reports, fleet)
    said = Prune(what="rendered reports", count=len(aged), bytes=sum(_size(one) for one in aged))
    if not dry_run:
        for file in aged:
            file.unlink(missing_ok=True)
    folders = size = measured = 0
    for family in fleet.families:
        policy = family.retention
        for model in family.models:
            with _turn(ledger, model, needed=not dry_run) as mine:
                for folder in _old_folders(ledger, model, policy, artifacts, now) if mine else ():
                    folders, size = folders + 1, size + _size(folder)
                    if not dry_run:
                        _remove(ledger, model, folder, copies)
            measured += ledger.thin(model=model, before=now - policy.measured, dry_run=dry_run)
    return (
        said,
        Prune(what="folders of model files", count=folders, bytes=size),
        Prune(what="measurements", count=measured),
    )


def kept_versions(moves: tuple[Moved, ...], policy: RetentionPolicy) -> frozenset[int]:
    """Return the versions whose files stay: the champion, the newest that answered, the first.

    The first is what a model would be had it never been retrained.
    """
    newest = list(dict.fromkeys(move.head.version for move in reversed(moves)))
    first = [moves[0].head.version] if moves else []
    return frozenset(newest[:1] + sorted(newest, reverse=True)[: policy.versions] + first)


def _kept(ledger: SqlLedger, model: ModelId, policy: RetentionPolicy) -> frozenset[int]:
    """Return the versions whose files stay, those of a rollout under way among them."""
    under_way = {
        version
        for rollout in ledger.rollouts()
        if rollout.model == model
        for version in (rollout.version, rollout.champion)
    }
    return kept_versions(ledger.facts(Moved, model=model), policy) | under_way


def _pins(ledger: SqlLedger, model: ModelId, policy: RetentionPolicy) -> Iterator[Pin]:
    for version in sorted(_kept(ledger, model, policy)):
        trained = ledger.fact(Trained, key=version_key(model, version))
        if trained is not None:
            window = trained.candidate.order.window
            yield Pin(window=window, why=f"version {version}, which is kept, was trained on them")
    last = ledger.facts(Decided, model=model, last=1)
    incident = last[0].decision.incident if last else None
    opened = ledger.fact(Decided, key=incident) if incident is not None else None
    if incident is not None and last:
        first = last[0] if opened is None else opened
        now = last[0].decision.window
        span = Window(
            model=model,
            start=first.decision.window.start,
            end=now.end,
            known_at=now.known_at,
        )
        yield Pin(window=span, why=f"the open incident {incident} was decided on them")


def _old_reports(reports: Path, fleet: Fleet) -> list[Path]:
    policies = {model: family.retention for family in fleet.families for model in family.models}
    old = []
    for file in (*reports.rglob("*.html"), *reports.rglob("*.json")):
        model = ModelId(file.relative_to(reports).parts[0])
        keep = policies.get(model, RetentionPolicy()).reports
        if file.stat().st_mtime < time.time() - keep.total_seconds():
            old.append(file)
    return old


def _old_folders(
    ledger: SqlLedger, model: ModelId, policy: RetentionPolicy, artifacts: Path, now: datetime
) -> list[Path]:
    """Return the folders of candidates that no kept version and no recent candidate is in."""
    kept = _kept(ledger, model, policy)
    young = now - policy.refused
    stays, named = set[str](), set[str]()
    for trained in ledger.facts(Trained, model=model):
        name = Path(trained.candidate.folder).name
        named.add(name)
        if trained.version in kept or trained.at >= young:
            stays.add(name)
    folder = artifacts / model
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    # One that no version names was made a moment ago, or never came to be registered.
    stale = time.time() - max(policy.refused, DAY).total_seconds()
    return [
        one
        for one in found
        if one.is_dir()
        and one.name not in stays
        and (one.name in named or one.stat().st_mtime < stale)
    ]


@contextmanager
def _turn(ledger: SqlLedger, model: ModelId, *, needed: bool) -> Iterator[bool]:
    """Give whether nothing else is done to the model's versions for now, as by a renewal."""
    claim = f"renewing/{model}"
    mine = not needed or ledger.claim(claim, lease=LEASE).mine
    try:
        yield mine
    finally:
        if needed and mine:
            ledger.release(claim)


def _remove(ledger: SqlLedger, model: ModelId, folder: Path, copies: Copies) -> None:
    """Remove a candidate's files, its copies first."""
    for trained in ledger.facts(Trained, model=model):
        if Path(trained.candidate.folder).name == folder.name:
            copies.drop_files(model, trained.version)
    # Whole or not there for whoever looks; what is left of it goes with the next training.
    gone = folder.with_name(f"{folder.name}.part")
    folder.rename(gone)
    shutil.rmtree(gone)


def _size(path: Path) -> int:
    files = [path] if path.is_file() else path.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file())
