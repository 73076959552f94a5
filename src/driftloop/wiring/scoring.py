"""Batches: by hand and on a schedule."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from driftloop.errors import BadRequest
from driftloop.spec import Family
from driftloop.wiring.serving import Serving

if TYPE_CHECKING:
    from driftloop.batch import Due, Fill, Hold, Job, Progress, Scored


class Scoring(Serving):
    """Batches: by hand and on a schedule. See `System`."""

    def predict_batch(
        self,
        job: "Job",
        *,
        told: "Callable[[Progress], None]" = lambda _: None,
        settle: "Callable[[Scored], None]" = lambda _: None,
    ) -> "Scored":
        """Return what came of `job`: its file is whole, and each of its rows is in the spool, once.

        `told` hears how far it is; for `settle` see `Batches.score`.

        Raises:
            BadRequest: no such model, or the source cannot be read, lacks a column or is the file.
        """
        from driftloop.batch import Batches
        from driftloop.prediction_log import check_writable, files_of
        from driftloop.serve.sidecar import loader, own_sidecar
        from driftloop.serve.slot import Slots

        family = self.fleet.family(job.model)
        family.need_own_log()
        # Before a row is logged: what cannot be written must not have been answered.
        check_writable(job.out)
        out = Path(os.path.abspath(job.out))  # noqa: PTH100 - a source may not be there
        source = os.path.abspath((job.folder or Path()) / job.source)  # noqa: PTH100 - likewise
        if str(out) == source or out in files_of(job.source, job.folder):
            raise BadRequest("would overwrite its own source", where=str(job.out))
        # Not the sidecar that online asks: a large table would keep its requests waiting.
        with self.spool("batch") as spool, own_sidecar() as sidecar:
            return Batches(
                family=family,
                slots=Slots(self.fleet, load=loader(sidecar)),
                champion=self.ledger.head,
                spool=spool,
                clock=self.clock,
                runs=self.settings.batches,
                publish=self.answers.publish,
                told=told,
                hold=self._hold(family),
                fill=self._fill(family),
            ).score(job, settle=settle)

    def _fill(self, family: Family) -> "Fill | None":
        """Return what makes the rows of a batch whole, as those of a request are."""
        from driftloop.serve.batch import completed

        lookups = self.lookups
        if lookups is None or not (family.looked_up or family.computed):
            return None
        return partial(completed, family=family, complete=lookups.complete)

    def _hold(self, family: Family) -> "Hold | None":
        """Return what refuses rows of a batch that cannot be made whole, where any may be."""
        from driftloop.serve.batch import check_found

        lookups = self.lookups
        if lookups is None or not lookups.needs(family):
            return None
        return partial(check_found, family=family, look=lookups.look)

    def batches_due(self) -> "tuple[Due, ...]":
        """Return the newest turn of every batch that a monitor asks for, done or not."""
        from driftloop.batch import turns

        families = self.fleet.served.families
        return turns(families, now=self.clock.now(), folder=self.fleet.folder)

    def score_due(self, due: "Due") -> "Scored | None":
        """Return what came of a batch's turn; None when it is done, or others are at it.

        Raises:
            DriftloopError: as `predict_batch`; the turn stays open, and is tried again.
        """
        from driftloop.batch import is_begun

        claim = self.ledger.claim(due.key, lease=due.lease)
        # What was killed here goes on here: nobody else has what is done of it.
        if claim.outcome is not None or not (
            claim.mine or is_begun(self.settings.batches, due.job)
        ):
            return None

        def settle(scored: "Scored") -> None:
            said = f"{scored.rows} rows by version {scored.head.version}"
            self.ledger.finish(due.key, said)

        try:
            due.job.out.parent.mkdir(parents=True, exist_ok=True)
            return self.predict_batch(due.job, settle=settle)
        except BaseException:
            self.ledger.release(due.key)
            raise
