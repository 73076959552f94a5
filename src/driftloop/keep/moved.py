"""A home that was moved, or is called by another name now: what it names lies where it is."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from driftloop.ledger import SqlLedger
from driftloop.records import Head, Moved


def settle(ledger: SqlLedger, registry: Path, home: Path) -> tuple[Path, ...]:
    """Let `ledger` and the database `registry` name the files in `home`; return where they were.

    A home that is where it was is left as it is. Done again after a crash it comes to the same.

    Args:
        ledger: of the home, or a copy of it.
        registry: MLflow's database, if there is one, or a copy of it.
        home: where the home is now, in full.

    Raises:
        LedgerError: the ledger cannot be read or written.
        sqlite3.Error: the registry's database cannot be.
    """
    from driftloop.registry import re_root

    homes = earlier_homes((fact.head for fact in ledger.facts(Moved)), home)
    for old in homes:
        # The ledger last: by it the rest is found again.
        if registry.is_file():
            re_root(registry, old, home)
        ledger.re_root(old, home)
    return homes


def earlier_homes(heads: Iterable[Head], home: Path) -> tuple[Path, ...]:
    """Return the other homes whose model files, as `heads` name them, lie in `home`."""
    found: dict[Path, bool] = {}
    for head in heads:
        artifact = Path(head.artifact)
        at = artifact.parts[:-1]
        if artifact.is_relative_to(home) or at[-3:-2] != ("artifacts",):
            continue
        old = artifact.parents[3]
        if not found.get(old):
            found[old] = _is(home / artifact.relative_to(old), head.digest)
    return tuple(old for old, here in found.items() if here)


def _is(file: Path, digest: str) -> bool:
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest() == digest
    except OSError:
        return False
