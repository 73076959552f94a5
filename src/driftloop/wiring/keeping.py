"""What keeps an installation whole: its writer, its versions, what is old."""

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from driftloop.errors import BadRequest
from driftloop.records import Moved
from driftloop.wiring.serving import Serving

if TYPE_CHECKING:
    from driftloop.keep import Pin, Prune
    from driftloop.prediction_log import Expired, Ingester


UNDONE = timedelta(days=30)
"""So long a batch that was stopped waits for somebody to go on with it, by the wall clock."""


class Keeping(Serving):
    """What keeps an installation whole: its writer, its versions, what is old. See `System`."""

    def ingester(self) -> "Ingester":
        """Return this home's writer of the lake, which it migrates first."""
        from driftloop.keep import expiries
        from driftloop.prediction_log import Ingester, Lake

        served = self.fleet.served
        lake = Lake(self.place, served, read_only=False)
        lake.migrate()
        return Ingester(
            self.settings.spool,
            lake,
            self.clock,
            expiries=lambda now: expiries(self.ledger, served, now),
        )

    def check_versions(self) -> None:
        """Bring an older ledger up; refuse one, or a lake, of a newer driftloop.

        Raises:
            TooNew: one was written by a newer driftloop; it was left as it is.
            LedgerError: the ledger could not be read, or not brought up.
            LogError: the lake cannot be read.
        """
        _ = self.ledger
        if self.log.is_made():
            self.log.layout()
            self.log.close()

    def settle(self) -> tuple[Path, ...]:
        """Bring the paths of a home that was moved up; return where it was.

        Raises:
            BadRequest: ledger or MLflow are shared: they are not this home's to change.
            LedgerError: the ledger could not be read or written.
            sqlite3.Error: MLflow's database could not be.
        """
        from driftloop.keep import earlier_homes, settle

        home = self.settings.home.absolute()
        if shared := [name for name in ("ledger", "mlflow") if name in self.settings.elsewhere]:
            if old := earlier_homes((move.head for move in self.ledger.facts(Moved)), home):
                raise BadRequest(
                    f"this home was {old[0]}, which is written in what is shared by"
                    f" {' and '.join(shared)}",
                    where=str(home),
                    hint="move it back; keep the model files outside of it with `artifacts`",
                )
            return ()
        return settle(self.ledger, home / "mlflow" / "mlflow.db", home)

    def prune(self, *, dry_run: bool = False) -> "tuple[Prune, ...]":
        """Return what was removed of old reports, model files and measurements, or would be.

        And of batches: what was left undone, and published answers that have expired.
        """
        from driftloop.batch import left_behind
        from driftloop.keep import Prune, prune

        left = left_behind(self.settings.batches, older=UNDONE, dry_run=dry_run)
        pruned = prune(
            ledger=self.ledger,
            fleet=self.fleet,
            now=self.clock.now(),
            artifacts=self.settings.artifacts,
            reports=self.settings.reports,
            copies=self.registry,
            dry_run=dry_run,
        )
        expired = timedelta(days=self.settings.answers_days)
        gone = self.answers.expire(self.clock.now() - expired, dry_run=dry_run)
        return (
            *pruned,
            Prune(what="batches left undone", count=left),
            Prune(what="published answers", count=gone),
        )

    def pins(self) -> "tuple[Pin, ...]":
        """Return the rows of the log that stay whatever their age, and why."""
        from driftloop.keep import pins

        return tuple(pin for family in self.fleet.families for pin in pins(self.ledger, family))

    def expiring(self) -> "Expired":
        """Return what the ingester will let go of the log at its next maintenance."""
        from driftloop.keep import expiries

        return self.log.expiring(expiries(self.ledger, self.fleet.served, self.clock.now()))
