"""The warm worker in a process of its own, on a fleet that only notes what is asked of it.

Usage: python worker_process.py FOLDER
"""

import json
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import flows.system
from driftloop.loop.renew import Renewed
from driftloop.loop.watch import Watched
from driftloop.records import ModelId, Order, Window

NOW = datetime(2026, 3, 1, tzinfo=UTC)
ORDER = Order(
    key="eta-de/1",
    model=ModelId("eta-de"),
    at=NOW,
    reason="decay",
    window=Window(model=ModelId("eta-de"), start=NOW - timedelta(days=9), end=NOW, known_at=NOW),
    holdout_from=NOW - timedelta(days=1),
    seed=1,
)


class NotingSystem:
    """Stands for the watcher, the renewer and the teller alike.

    Passes order a renewal of eta-de for as long as it has not begun. The renewal hangs for as
    long as there is a file `hang` in the folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.off: set[str] = set()
        self.watcher = self.renewer = self.teller = self.trainer = self
        self.fleet = self.ledger = self.log = self.measure = self.registry = self.pager = None

    def warm_up(self) -> None:
        """Warm nothing up."""

    def watch(self) -> tuple[Watched, ...]:
        """Return one model with an order, once `order` is there and until it has begun."""
        self.note("watch")
        if not (self.folder / "order").exists() or self.noted("renew", ORDER.key):
            return ()
        return (Watched(model=ORDER.model, order=ORDER),)

    def renew(self, order: Order) -> Renewed:
        """Promote nothing, after hanging as asked."""
        self.note("renew", order.key)
        while (self.folder / "hang").exists():
            time.sleep(0.05)
            if order.key in self.off:
                self.note("called off", order.key)
                return Renewed(replace(order), "cancelled", "was called off")
        self.note("renewed", order.key)
        return Renewed(replace(order), "refused", "no better")

    def call_off(self, order: Order, *, why: str) -> None:
        """Let its renewal end."""
        self.off.add(order.key)
        self.note("why", order.key, why)

    def cancel(self, order: Order, why: str) -> None:
        """Note it."""
        self.note("cancel", order.key, why)

    def let_go(self, order: Order) -> None:
        """Note it."""
        self.note("let go", order.key)

    def tell_unsent(self) -> tuple[object, ...]:
        """Have nothing to tell."""
        return ()

    def noted(self, *what: str) -> bool:
        """Return whether there is such a line."""
        file = self.folder / "notes"
        lines = file.read_text().splitlines() if file.exists() else []
        return any(json.loads(line)[1:] == list(what) for line in lines)

    def note(self, *what: str) -> None:
        """Append a line to the folder's notes."""
        with (self.folder / "notes").open("a") as notes:
            notes.write(json.dumps([time.time(), *what]) + "\n")


if __name__ == "__main__":
    SYSTEM = NotingSystem(Path(sys.argv[1]))
    flows.system.the_system = lambda: SYSTEM  # type: ignore[assignment,return-value]
    from flows.worker import main

    main()
