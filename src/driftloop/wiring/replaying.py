"""The past, gone through again under other policies."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pyarrow as pa

from driftloop.errors import BadRequest
from driftloop.ledger import SqlLedger
from driftloop.loop.quarantine import Quarantine
from driftloop.loop.relive import (
    Nobody,
    Numbered,
    RelivedLog,
    Stepped,
    Unheard,
    relived,
    seeded,
)
from driftloop.loop.renew import Renewer
from driftloop.loop.replay import Outcome, refuse_other_readings, replayed
from driftloop.loop.tell import Teller
from driftloop.ports import Model
from driftloop.records import Head, Order
from driftloop.spec import Family, Fleet, load_fleet
from driftloop.wiring.parts import Parts
from driftloop.wiring.shards import shards_of
from driftloop.wiring.training import IsolatedTrainer, read_table
from driftloop.workshop import loaded

Say = Callable[[datetime, Order], object]


class Replaying(Parts):
    """The past, gone through again under other policies. See `System`."""

    def replay(self, policy: Path | None, *, start: datetime, end: datetime) -> Outcome:
        """Return what `policy`, or the present one, comes to on the readings that are kept.

        Raises:
            SpecError: the policy has faults; all of them are told.
            BadRequest: it needs other readings, or none are kept of that time.
        """
        fleet = self._under(policy)
        if policy is not None:
            refuse_other_readings(self.fleet, fleet, where=str(policy))
        with shards_of(fleet, self.settings.ledger_url, start=start, end=end) as shards:
            return replayed(shards)

    def relive(
        self,
        policy: Path | None,
        *,
        start: datetime,
        end: datetime,
        out: Path | None = None,
        say: Say = lambda *_: None,
    ) -> Outcome:
        """Return what `policy`, or the present one, comes to on the rows of the log, fits and all.

        A new version answers at once, without a rollout: there are no requests to be shared.

        Args:
            policy: a file; see `spec.load_fleet`.
            start: the time of the first look.
            end: before it the last look.
            out: where the replay's ledger and models are kept; else they are removed.
            say: is told when, and what is trained.

        Raises:
            SpecError: the policy has faults; all of them are told.
            BadRequest: there is nothing to look at, or what answered has no file.
            LogError: the log cannot be read.
        """
        fleet = _without_rollouts(self._under(policy))
        with _folder(out) as folder:
            own = SqlLedger(f"sqlite:///{folder / 'ledger.sqlite'}")
            try:
                if own.count():
                    raise BadRequest("holds a replay already", where=str(folder))
                newest = seeded(fleet, self.ledger, own, start=start)
                clock = Stepped(start)
                log = RelivedLog(self.logs, own, clock, start, _asked())
                trainer = IsolatedTrainer(fleet, log, folder / "artifacts")
                quarantine = Quarantine(fleet=fleet, log=log, ledger=own, clock=clock)
                watcher = replace(
                    self.watcher,
                    fleet=fleet,
                    log=log,
                    ledger=own,
                    clock=clock,
                    reports=None,
                    charts=False,
                    quarantine=quarantine,
                )
                renewer = Renewer(
                    fleet=fleet,
                    log=log,
                    trainer=trainer,
                    registry=Numbered(newest),
                    handover=Nobody(),
                    ledger=own,
                    clock=clock,
                    teller=Teller(fleet=fleet, ledger=own, pager=Unheard(), clock=clock),
                    table=read_table,
                    quarantine=quarantine,
                )
                step = min(family.window.cadence for family in fleet.families)
                return relived(watcher, renewer, clock, start=start, end=end, step=step, say=say)
            finally:
                own.close()

    def _under(self, policy: Path | None) -> Fleet:
        if policy is None:
            return self.fleet
        return load_fleet(self.settings.monitors, policy=policy).only(self.fleet.models)


def _without_rollouts(fleet: Fleet) -> Fleet:
    families = tuple(family.model_copy(update={"rollout": None}) for family in fleet.families)
    return replace(fleet, families=families)


@contextmanager
def _folder(out: Path | None) -> Iterator[Path]:
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        yield out.absolute()
        return
    with tempfile.TemporaryDirectory(prefix="driftloop-replay-") as folder:
        yield Path(folder)


def _asked() -> Callable[[Head, Family, pa.Table], Sequence[float]]:
    """Return what asks a version for its answers; each is loaded once."""
    held: dict[Head, Model] = {}

    def answer(head: Head, family: Family, rows: pa.Table) -> Sequence[float]:
        if head not in held:
            held[head] = loaded(head, family)
        return held[head].predict({name: rows[name].to_pylist() for name in family.inputs})

    return answer
