"""The parts of an installation that others are made of, each built when it is asked for."""

import os
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import cached_property, partial
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from driftloop.clock import SharedClock
from driftloop.errors import BadRequest
from driftloop.handover import Handover
from driftloop.ledger import SqlLedger
from driftloop.loop.notices import Places
from driftloop.loop.quarantine import Quarantine
from driftloop.loop.release import Releaser
from driftloop.loop.renew import Renewer
from driftloop.loop.tell import Teller
from driftloop.loop.watch import Watcher
from driftloop.ports import Measure, Trainer
from driftloop.records import (
    Head,
    ModelId,
    Moved,
)
from driftloop.settings import Settings
from driftloop.spec import Family, Fleet, load_fleet
from driftloop.wiring.training import IsolatedTrainer, read_table

if TYPE_CHECKING:
    from driftloop.page.slack import SlackPager
    from driftloop.prediction_log import (
        Lake,
        Place,
        RoutedLog,
        SegmentSpool,
    )
    from driftloop.registry import MlflowRegistry
    from driftloop.serve.sidecar import Sidecar


class Parts:
    """Stores, tools and the loop; see `System`."""

    def __init__(
        self, settings: Settings, *, trainer: Callable[[Any], Trainer] | None = None
    ) -> None:
        """Build nothing yet; `trainer` builds what trains, where fits are not made here."""
        self.settings = settings
        self._trainer = trainer

    @cached_property
    def fleet(self) -> Fleet:
        """The declared fleet, cut down to `settings.models` where that is given."""
        fleet = load_fleet(self.settings.monitors)
        chosen = tuple(
            ModelId(name) for part in self.settings.models.split(",") if (name := part.strip())
        )
        return fleet.only(chosen) if chosen else fleet

    @cached_property
    def clock(self) -> SharedClock:
        """The clock that all processes of this installation share."""
        return SharedClock(self.settings.clock)

    @cached_property
    def ledger(self) -> SqlLedger:
        """The ledger."""
        self.settings.home.mkdir(parents=True, exist_ok=True)
        return SqlLedger(self.settings.ledger_url)

    @cached_property
    def log(self) -> "Lake":
        """Our prediction log, read-only."""
        from driftloop.prediction_log import Lake

        return Lake(self.place, self.fleet.served, read_only=True)

    @property
    def place(self) -> "Place":
        """Where our prediction log is."""
        from driftloop.prediction_log import S3, Place

        settings = self.settings
        return Place.of(
            settings.lake,
            catalog=settings.catalog.get_secret_value(),
            files=settings.lake_files,
            s3=S3(
                endpoint=settings.s3_endpoint,
                region=settings.s3_region,
                key=settings.s3_key,
                secret=settings.s3_secret.get_secret_value(),
            )
            if settings.lake_files.startswith("s3://")
            else None,
        )

    @cached_property
    def logs(self) -> "RoutedLog":
        """Every family's prediction log: ours, and those that are only read."""
        from driftloop.prediction_log import ForeignLog, RoutedLog

        foreign = {
            family.name: ForeignLog(
                family,
                folder=self.fleet.folder,
                scratch=self.settings.lake,
                moves=lambda model: self.ledger.facts(Moved, model=model),
            )
            for family in self.fleet.families
            if family.log is not None
        }
        return RoutedLog(self.log, foreign)

    @cached_property
    def measure(self) -> Measure:
        """Evidently."""
        from driftloop.measure import EvidentlyMeasure

        return EvidentlyMeasure()

    @cached_property
    def pager(self) -> "SlackPager":
        """Slack, or the local stand-in."""
        from driftloop.page.asking import BURST
        from driftloop.page.slack import SlackPager

        # The stand-in that comes with us takes all it is sent.
        ours = self.settings.slack_token is None and not self.settings.slack_api
        return SlackPager(
            self.settings.bot_token, self.settings.slack_base, burst=inf if ours else BURST
        )

    @cached_property
    def registry(self) -> "MlflowRegistry":
        """MLflow."""
        from driftloop.registry import MlflowRegistry

        return MlflowRegistry(self.settings.mlflow_url, self.settings.mlflow_files, self.fleet)

    @cached_property
    def trainer(self) -> Trainer:
        """What makes candidates, here or elsewhere."""
        return self.isolated if self._trainer is None else self._trainer(self)

    @cached_property
    def isolated(self) -> "IsolatedTrainer":
        """Fits in processes of their own, here."""
        return IsolatedTrainer(
            self.fleet, self.logs, self.settings.artifacts, self.settings.logs / "fits"
        )

    @property
    def needs_sidecar(self) -> bool:
        """Whether a model answers as it was fitted, or may come to."""
        served = self.fleet.served
        return any(family.retrain.serve != "onnx" for family in served.families) or any(
            not head.lowered for head in self.ledger.heads() if head.model in served.models
        )

    @cached_property
    def sidecar(self) -> "Sidecar":
        """The process that answers for models which could not be lowered."""
        from driftloop.serve.frames import connect
        from driftloop.serve.sidecar import Sidecar

        return Sidecar(partial(connect, self.settings.home / "run"))

    @cached_property
    def handover(self) -> Handover:
        """What tells who serves a model elsewhere."""
        token = self.settings.handover_token
        return Handover(
            self.fleet.folder, token=token.get_secret_value() if token is not None else None
        )

    @cached_property
    def places(self) -> Places:
        """Addresses that pages link to."""
        return Places(
            pages=self.settings.pages_url, prefect=self.settings.prefect_api.removesuffix("/api")
        )

    @cached_property
    def teller(self) -> Teller:
        """What tells notices once; it remembers what it saw, so there is one in a process."""
        return Teller(fleet=self.fleet, ledger=self.ledger, pager=self.pager, clock=self.clock)

    @property
    def watcher(self) -> Watcher:
        """What measures and decides."""
        return Watcher(
            fleet=self.fleet,
            log=self.logs,
            measure=self.measure,
            ledger=self.ledger,
            clock=self.clock,
            places=self.places,
            budget=self.settings.renew_budget,
            reports=self.settings.reports,
            every=self.settings.snapshots == "all",
            quarantine=self.quarantine,
            charts=True,
        )

    @property
    def quarantine(self) -> Quarantine:
        """What keeps bad data from training."""
        return Quarantine(fleet=self.fleet, log=self.logs, ledger=self.ledger, clock=self.clock)

    def with_features(self, family: Family, rows: pa.Table) -> pa.Table:
        """Return rows of history with the features that the log's events make; see `filled`.

        Raises:
            LogError: there is no lake yet, or it cannot be read.
        """
        from driftloop.features.operator import windowed
        from driftloop.features.replay import filled

        groups = windowed(family)
        reach = max(
            (each.window for group in groups.values() for each in group),
            default=0,
        )
        after = pc.min(rows["event_time"]).as_py() - timedelta(microseconds=reach)
        events = {
            name: self.log.events(self.fleet.sources[name], after=after) for name, _ in groups
        }
        return filled(family, self.fleet, rows, events)

    @property
    def renewer(self) -> Renewer:
        """What carries orders out."""
        return Renewer(
            fleet=self.fleet,
            log=self.logs,
            trainer=self.trainer,
            registry=self.registry,
            handover=self.handover,
            ledger=self.ledger,
            clock=self.clock,
            teller=self.teller,
            table=read_table,
            quarantine=self.quarantine,
        )

    @property
    def releaser(self) -> Releaser:
        """What brings challengers to the front, or back."""
        from driftloop.prediction_log import LogTrials

        return Releaser(
            fleet=self.fleet,
            trials=LogTrials(self.log),
            registry=self.registry,
            ledger=self.ledger,
            clock=self.clock,
            teller=self.teller,
            verify=self._verify,
        )

    def spool(self, service: str) -> "SegmentSpool":
        """Return a spool of this process's own, named after the service that writes it."""
        from driftloop.prediction_log import SegmentSpool

        return SegmentSpool(
            self.settings.spool / f"{service}-{os.getpid()}",
            seal_rows=self.settings.seal_rows,
            seal_every=self.settings.seal_every,
        )

    def is_read(self, *, within: float) -> bool:
        """Return whether the ingester has read all that is sealed, waiting for it if it runs."""
        from driftloop.prediction_log import is_ingesting, sealed

        until = time.monotonic() + within
        while waiting := bool(sealed(self.settings.spool)):
            if time.monotonic() > until or not is_ingesting(self.settings.spool):
                break
            time.sleep(0.1)
        return not waiting

    def refuse_logged(self, family: Family, rows: pa.Table) -> None:
        """Refuse `rows` (id, model) of which some are in the log, or wait to be read into it.

        Raises:
            BadRequest: some are; says how many.
            LogError: the lake or the spool cannot be read.
        """
        from driftloop.prediction_log import waiting

        # The lake after the spool: what the ingester takes meanwhile is met twice, and not missed.
        held = [waiting(self.settings.spool, family, rows)]
        if self.log.is_made():
            held.append(self.log.logged(family, rows))
        found = {(row["model"], row["id"]) for table in held for row in table.to_pylist()}
        if found:
            model, id_ = min(found)
            raise BadRequest(
                f"{len(found)} of {rows.num_rows} rows are in the log already, or wait for the"
                f" ingester, as id {id_!r} of {model}; nothing was handed over",
                where=f"history of {family.name}",
                hint="leave these rows out; outcomes that came later go in with `driftloop labels`",
            )

    def roll_back(self, model: ModelId, *, to: int | None, who: str) -> Head:
        """Return the new head after making an earlier champion answer; see `Renewer.roll_back`.

        A rollout under way is ended first; where nobody names another version, that is all.
        """
        if self.releaser.has_open(model):
            self.releaser.roll_back(model, who=who)
            head = self.ledger.head(model)
            if head is not None and to in {None, head.version}:
                return head
        verify = self._verify
        return self.renewer.roll_back(
            model, to=to, who=who, verify=lambda head: verify(head, self.fleet.family(model))
        )

    def _verify(self, head: Head, family: Family) -> None:
        """Load and ask a version as serving does, or read it where it is served elsewhere.

        Raises:
            ArtifactError: it could not answer.
        """
        from driftloop.serve.model import read_checked
        from driftloop.serve.sidecar import loader, own_sidecar
        from driftloop.serve.slot import Slots

        if head.found:
            read_checked(Path(head.artifact), head.digest)
            return
        alone = replace(
            self.fleet.only((head.model,)), families=(family.model_copy(update={"log": None}),)
        )
        with own_sidecar() as sidecar:
            for failure in Slots(alone, load=loader(sidecar)).refresh([head])[1]:
                raise failure.error
