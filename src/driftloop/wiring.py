"""The composition root: settings in, everything built out; it alone knows every adapter."""

import os
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from driftloop.clock import SharedClock
from driftloop.errors import ArtifactError, BadRequest, CalledOff, UnknownSource
from driftloop.handover import Handover
from driftloop.judge import judged, window_at
from driftloop.ledger import SqlLedger
from driftloop.loop.consistency import Consistency
from driftloop.loop.notices import Places
from driftloop.loop.release import Releaser
from driftloop.loop.renew import Renewer
from driftloop.loop.tell import Teller
from driftloop.loop.watch import Watcher, measurement_of
from driftloop.ports import Measure, PredictionLog, Trainer
from driftloop.records import (
    REFERENCE_FILE,
    Candidate,
    Decided,
    Decision,
    Head,
    ModelId,
    Moved,
    Order,
    Reading,
    Trained,
    Window,
    version_key,
)
from driftloop.settings import Settings
from driftloop.spec import Family, Fleet, Source, load_fleet
from driftloop.trace import (
    Logged,
    Step,
    in_order,
    labelled,
    predicted,
    steps,
    that_judged,
)
from driftloop.workshop import PRELOADED, build_candidate, found_candidate

if TYPE_CHECKING:
    import socket

    from fastapi import FastAPI

    from driftloop.batch import Due, Job, Progress, Scored
    from driftloop.keep import Pin, Prune
    from driftloop.page.slack import SlackPager
    from driftloop.prediction_log import (
        Contents,
        Expired,
        Ingester,
        Lake,
        Place,
        RoutedLog,
        SegmentSpool,
    )
    from driftloop.registry import MlflowRegistry
    from driftloop.serve.answers import Answers
    from driftloop.serve.jetstream import JetStream
    from driftloop.serve.lookup import Lookups
    from driftloop.serve.sidecar import Sidecar
    from driftloop.serve.sources import Sources
    from driftloop.serve.store import StateStore, TableStore
    from driftloop.serve.stream import Post, Taken
    from driftloop.serve.worker import Worker


SETTLED = timedelta(minutes=1)
"""So long after it was served, by the wall clock, a row's events are in the log."""
UNDONE = timedelta(days=30)
"""So long a batch that was stopped waits for somebody to go on with it, by the wall clock."""
LOOK_EVERY = timedelta(minutes=1)
"""How long a table that is due waits at most."""


class System:
    """One installation, built part by part as each is asked for.

    Nothing is opened before it is needed, so that a process pays for what it uses alone.
    """

    def __init__(
        self, settings: Settings, *, trainer: "Callable[[System], Trainer] | None" = None
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
        from driftloop.page.slack import SlackPager

        token = self.settings.slack_token
        return SlackPager(
            token.get_secret_value() if token is not None else "xoxb-local",
            self.settings.slack_base,
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

    @property
    def teller(self) -> Teller:
        """What tells notices once."""
        return Teller(ledger=self.ledger, pager=self.pager, clock=self.clock)

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
        )

    @property
    def consistency(self) -> Consistency:
        """What compares features as they were served with the log."""
        return Consistency(fleet=self.fleet, log=self.log, ledger=self.ledger, clock=self.clock)

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

    def compare_features(self) -> tuple[Reading, ...]:
        """Return how far served features are from the log's; see `Consistency.check`.

        Rows of the last minute wait for the next time: their events may not be in the log yet.
        """
        settled = datetime.now(UTC) - SETTLED
        return self.consistency.check(until=self.clock.clock.at(settled))

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

    @cached_property
    def answers(self) -> "Answers":
        """The answers of batches that are readable by id."""
        from driftloop.serve.answers import Answers

        return Answers(self.settings.answers, gib=self.settings.answers_gib)

    @cached_property
    def tables(self) -> "TableStore":
        """The copies of batch tables that features are looked up in."""
        from driftloop.serve.store import TableStore

        return TableStore(self.settings.online_store / "tables", most_bytes=self._store_bytes)

    @cached_property
    def states(self) -> "StateStore":
        """The state of streams that features are looked up in."""
        from driftloop.serve.store import StateStore

        return StateStore(self.settings.online_store / "streams", most_bytes=self._store_bytes)

    @property
    def _store_bytes(self) -> int:
        return int(self.settings.store_gib * 2**30)

    @cached_property
    def lookups(self) -> "Lookups | None":
        """What makes rows whole; None where no family has anything looked up or computed."""
        if not any(family.looked_up or family.computed for family in self.fleet.served.families):
            return None
        from driftloop.serve.lookup import Lookups

        return Lookups(self.fleet.served, tables=self.tables, states=self.states, clock=self.clock)

    @property
    def refresh_every(self) -> timedelta | None:
        """How often to look for tables that are due, None where there are none."""
        every = [each.refresh for each in self.fleet.sources.values() if each.refresh is not None]
        # One that could not be read, or is new, does not wait long.
        return min(*every, LOOK_EVERY) if every else None

    def due_tables(self) -> tuple[str, ...]:
        """Return the sources whose copies in the online store are older than their `refresh`.

        Raises:
            StoreError: the store cannot be read.
        """
        now = self.clock.now()
        due = []
        with self.tables.reading() as view:
            for name, source in self.fleet.sources.items():
                if source.refresh is not None:
                    loaded = view.loaded(name)
                    # Who asks comes a moment early now and then.
                    if loaded is None or now - loaded.loaded_at >= source.refresh * 0.95:
                        due.append(name)
        return tuple(due)

    def refresh(self, name: str) -> int:
        """Return how many keys of the table `name` are in the online store, read anew.

        Raises:
            UnknownSource: there is no such table.
            BadRequest: it cannot be read, or does not fit; the store keeps what it had.
            StoreError: the store could not be written; it keeps what it had.
        """
        from driftloop.prediction_log import read_source
        from driftloop.serve.refresh import current_rows, wanted_columns

        source = self.fleet.sources.get(name)
        if source is None or source.source is None:
            known = [each.name for each in self.fleet.sources.values() if each.kind == "table"]
            raise UnknownSource(
                f"there is no table {name!r}",
                where="sources.toml",
                hint=f"known: {', '.join(known) or 'none'}",
            )
        now = self.clock.now()
        wanted = wanted_columns(self.fleet, name)
        table = read_source(source.source, folder=self.fleet.folder)
        rows = current_rows(source, wanted, table, now=now)
        return self.tables.replace(name, tuple(wanted), rows, loaded_at=now)

    def run_stream(self, *, ready: Callable[[], None], alive: Callable[[], None]) -> None:
        """Take events until SIGTERM or SIGINT.

        Raises:
            ServiceError: it cannot listen.
            LogError: another process takes the events of this home, or the log cannot be read.
            StoreError: the online store cannot be read or written.
        """
        from driftloop.features.operator import layouts
        from driftloop.prediction_log import EventLog, SegmentSpool
        from driftloop.serve.process import run_stream
        from driftloop.serve.stream import Stream

        settings, fleet = self.settings, self.fleet.served
        events = {n: source for n, source in fleet.sources.items() if source.kind == "events"}
        # Always the same folder: it is the stream process's lock, and what a death left in it is
        # sealed before the log is asked.
        folder = settings.spool / "stream"
        with SegmentSpool(
            folder, seal_rows=settings.seal_rows, seal_every=settings.seal_every
        ) as spool:
            stream = Stream(
                sources=events,
                layouts=layouts(fleet),
                store=self.states,
                spool=spool,
                clock=self.clock,
            )
            stream.agree(EventLog(settings.spool, self.log))
            self.log.close()
            named = any(each.nats for each in events.values())
            bus = (lambda take: self._jetstream(events, take)) if named else None
            run_stream(stream, settings.home, bus=bus, ready=ready, alive=alive)

    def _jetstream(
        self, events: Mapping[str, Source], take: "Callable[[Post], Awaitable[Taken]]"
    ) -> "JetStream":
        from driftloop.serve.jetstream import JetStream

        return JetStream(
            url=self.settings.nats_url,
            sources=events,
            clock=self.clock,
            aside=self.settings.spool / "quarantine",
            take=take,
        )

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

    def online_app(self, place: int | None = None) -> "FastAPI":
        """Return the online service; with a `place`, one of its several workers."""
        from driftloop.serve.exchange import Bounds
        from driftloop.serve.online import online_app
        from driftloop.serve.peers import Peers
        from driftloop.serve.rollouts import Challengers
        from driftloop.serve.service import Service
        from driftloop.serve.sidecar import loader
        from driftloop.serve.slot import Memory, Slots
        from driftloop.serve.tokens import Guard, own_token

        settings = self.settings
        tokens = settings.tokens
        fleet, spool = self.fleet.served, self.spool("online")
        memory, load = Memory(settings.models_mib * 2**20), loader(self.sidecar)
        challengers = Challengers(
            slots=Slots(fleet, memory=memory, load=load),
            rollouts=self.ledger.rollouts,
            spool=spool,
            clock=self.clock,
        )

        def closing() -> None:
            challengers.close()
            spool.close()

        service = Service(
            fleet=fleet,
            slots=Slots(fleet, memory=memory, lazy=True, load=load),
            spool=spool,
            clock=self.clock,
            bounds=Bounds(
                requests=settings.most_requests,
                body=settings.most_body_mib * 2**20,
                seconds=settings.answer_within,
            ),
            peers=Peers() if place is None else Peers(settings.workers_shown, place),
            rollouts=challengers,
            complete=self.lookups.complete if self.lookups is not None else None,
            sources=self._sources() if fleet.sources else None,
        )
        return online_app(
            service,
            heads=self.ledger.heads,
            poll_every=settings.poll_every,
            closing=closing,
            guard=None if tokens is None else Guard(tokens, own=own_token(settings.own_token)),
            answers=self.answers.get,
        )

    def online_worker(
        self, door: "socket.socket", *, place: int | None = None, alive: int | None = None
    ) -> "Worker":
        """Return what answers online on `door`, alone or, with a `place`, beside others."""
        from driftloop.serve.door import COUNTED, Counted
        from driftloop.serve.worker import Patience, Worker

        settings = self.settings
        return Worker(
            self.online_app(place),
            door,
            patience=Patience(arrival=settings.arrive_within, drain=settings.drain_within),
            alive=alive,
            counted=None if place is None else Counted(settings.workers_shown / COUNTED, place),
        )

    def _sources(self) -> "Sources":
        from driftloop.serve.channel import StreamClient, socket_path
        from driftloop.serve.sources import Sources

        return Sources(
            self.fleet.served,
            tables=self.tables,
            states=self.states,
            stream=StreamClient(socket_path(self.settings.home)),
            clock=self.clock,
        )

    def trace(self, id_: str) -> tuple[Step, ...]:
        """Return all that belongs to `id_`, in order of time.

        `id_` is a prediction's id, the key of a decision, an order or an incident, or
        `model#version`.

        Raises:
            BadRequest: nothing has that id.
        """
        families = self.fleet.families  # a wrong folder is told before anything is made in it
        ledger = self.ledger
        if (trained := ledger.fact(Trained, key=id_)) is not None:
            return self._of_version(trained)
        if facts := ledger.trace(id_):
            return steps(facts)
        found: list[Step] = []
        rows = self._logged(id_, families)
        for row in rows:
            made = ledger.fact(Trained, key=version_key(ModelId(row.model), row.version))
            found += self._of_version(made) if made is not None else ()
            found.append(predicted(row))
            decided = ledger.facts(Decided, model=ModelId(row.model), since=row.event_time)
            for decision in that_judged(row, [fact.decision for fact in decided]):
                found += steps(ledger.trace(decision.key))
        found += self._labelled(id_, families, {row.model: row.predicted_at for row in rows})
        if not found:
            raise BadRequest("nothing has that id", where=id_, hint=self._why_unknown())
        return in_order(found)

    def _why_unknown(self) -> str:
        from driftloop.prediction_log import is_waiting

        if is_waiting(self.settings.spool):
            return "rows wait for the ingester, and it may be one of them: `driftloop up` runs it"
        return "give a prediction's id, the key of a decision, or model#version"

    def _of_version(self, trained: Trained) -> tuple[Step, ...]:
        return steps(self.ledger.trace(trained.candidate.order.key)) or steps((trained,))

    def _logged(self, id_: str, families: tuple[Family, ...]) -> list[Logged]:
        rows: list[Logged] = []
        for family in families:
            sql = f"""
                SELECT id, model, version, event_time, predicted_at, prediction
                FROM lake.{family.table}_predictions WHERE id = $id
                QUALIFY row_number() OVER (PARTITION BY model ORDER BY arrived_at, rowid) = 1
            """  # noqa: S608 - identifiers come from the checked spec
            found = self.logs.of(family).query(sql, {"id": id_})
            for row in found.to_pylist():
                answer = row.pop("prediction")
                shown = None if answer is None else family.shown(answer)
                rows.append(Logged(**row, prediction=shown))
        return rows

    def _labelled(
        self, id_: str, families: tuple[Family, ...], asked: Mapping[str, datetime]
    ) -> list[Step]:
        """Return every label of `id_`; `asked` is when each model predicted it."""
        found: list[Step] = []
        for family in families:
            for model, labels in self.logs.of(family).label_history(family, id_).items():
                # What a log of others does not tell was known when it was asked for.
                since = asked.get(model) or self.clock.now()
                known = [(at or since, family.shown(value)) for at, value in labels]
                found += labelled(id_, model, known, asked=model in asked)
        return found

    def decision(self, key: str) -> Decision:
        """Return the decision with `key` (`model/YYYYMMDDThhmmss`).

        Raises:
            BadRequest: there is none.
        """
        fact = self.ledger.fact(Decided, key=key)
        if fact is None:
            raise BadRequest(
                "there is no such decision", where=key, hint="the model's page has them"
            )
        return fact.decision

    def report(self, model: ModelId, *, key: str | None = None) -> Path:
        """Return the file of Evidently's full report on `model`.

        With `key` the rows are those of that decision, as known then, and the file is made once;
        without, those of now. Performance is that of the champion's own rows.

        Raises:
            BadRequest: no such model or decision, or the model has no champion.
            MeasureError: the window holds nothing to report on.
        """
        family, head, window = self._looked_at(model, key)
        said = self.decision(key).reason if key else f"at {window.end:%Y-%m-%d %H:%M} UTC"
        file = self.settings.reports / f"{key or f'{model}/now'}.html"
        if key is None or not file.exists():
            rows, of = self.logs.sample(family, window)
            own = pc.equal(rows["version"], head.version)
            label = pc.if_else(own, rows["label"], pa.scalar(None, pa.float64()))
            self.measure.report(
                family=family,
                title=f"{model}: {said}" if key else f"{model} {said}",
                current=rows.set_column(rows.schema.get_field_index("label"), "label", label),
                reference=read_table(Path(head.artifact).with_name(REFERENCE_FILE)),
                file=file,
                of=of,
            )
        return file

    def snapshot(self, model: ModelId, *, key: str | None = None) -> Path:
        """Return the file of Evidently's snapshot: every number and verdict, as JSON.

        With `key` it is that decision's, kept at the time or made of the same rows; without, of
        the rows of now.

        Raises:
            BadRequest: no such model or decision, or the model has no champion.
            ArtifactError: the champion's reference is lost or damaged.
        """
        family, head, window = self._looked_at(model, key)
        file = self.settings.reports / f"{key or f'{model}/now'}.json"
        if key is not None and file.exists():
            return file
        ((_, look),) = self.logs.looks(family, [window])
        if look.fault is not None:
            raise look.fault
        trained = self.ledger.fact(Trained, key=version_key(model, head.version))
        measurement = measurement_of(self.measure, family, head, trained, window, look)
        measurement.keep(file, judged(measurement.readings, family))
        return file

    def _looked_at(self, model: ModelId, key: str | None) -> tuple[Family, Head, Window]:
        """Return what a decision looked at, or what one would look at now."""
        family = self.fleet.family(model)
        head = self.ledger.head(model)
        if head is None:
            raise BadRequest("has no champion yet", where=model, hint="driftloop train")
        if key is None:
            known_at = self.logs.of(family).horizon(family)
            return family, head, window_at(family, model, now=self.clock.now(), known_at=known_at)
        decision = self.decision(key)
        moves = self.ledger.facts(Moved, model=model)
        head = next(m.head for m in moves if m.head.version == decision.version)
        return family, head, decision.window

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

    def contents(self, family: Family) -> "tuple[Contents, ...]":
        """Return what the log of a family that is served elsewhere holds, model by model.

        Raises:
            SpecError: the source lacks a column, or one is of the wrong type.
            LogError: it cannot be read.
        """
        from driftloop.prediction_log import ForeignLog

        log = self.logs.of(family)
        return log.contents() if isinstance(log, ForeignLog) else ()

    def warnings(self, family: Family) -> tuple[str, ...]:
        """Return what will bite in the log of a family that is served elsewhere; see `contents`."""
        from driftloop.prediction_log import ForeignLog

        log = self.logs.of(family)
        return log.warnings(self.fleet.left_out) if isinstance(log, ForeignLog) else ()

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
                fill=self._fill(family),
            ).score(job, settle=settle)

    def _fill(self, family: Family) -> "Callable[[pa.Table], pa.Table] | None":
        """Return what makes the rows of a batch whole, as those of a request are."""
        from driftloop.serve.batch import completed

        lookups = self.lookups
        if lookups is None or not (family.looked_up or family.computed):
            return None
        return lambda rows: completed(rows, family, lookups.complete)

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


def read_table(file: Path) -> pa.Table:
    """Return the rows of a Parquet file that a fit left behind.

    Raises:
        ArtifactError: it is not there, or is damaged.
    """
    try:
        return pq.read_table(file)
    except (OSError, pa.ArrowException) as error:
        raise ArtifactError.unreadable(file, error) from error


class IsolatedTrainer:
    """Trains in a child process with limits on time and memory; implements `ports.Trainer`."""

    patience = timedelta(0)

    def __init__(
        self, fleet: Fleet, log: PredictionLog, artifacts: Path, outputs: Path | None = None
    ) -> None:
        """Start nothing yet; the first fit starts the server that fits are forked from.

        What a model's last fit printed is kept in a file of `outputs`, or nowhere.
        """
        self._fleet = fleet
        self._log = log
        self._artifacts = artifacts.absolute()
        self._outputs = outputs
        self._off: dict[str, threading.Event] = {}
        self._why: dict[str, str] = {}

    def call_off(self, order: Order, *, why: str = "was called off") -> None:
        """End the training of `order` wherever it stands; one yet to begin does not begin."""
        self._why[order.key] = why
        self._off.setdefault(order.key, threading.Event()).set()

    def warm_up(self) -> None:
        """Start the server that fits are forked from, so that the first fit does not wait."""
        from driftloop.retrain.isolate import warm_up

        warm_up(PRELOADED)

    def train(self, order: Order, champion: Head | None) -> Candidate:
        """Return a candidate made in a child process; see `ports.Trainer`."""
        return self._made(order, build_candidate, champion)

    def find(self, order: Order) -> Candidate:
        """Return what answers already, elsewhere; see `ports.Trainer`."""
        return self._made(order, found_candidate)

    def _made(self, order: Order, make: Callable[..., Candidate], *more: object) -> Candidate:
        from driftloop.retrain.isolate import run_isolated

        self.warm_up()
        family = self._fleet.family(order.model)
        # Read here, where the lake is open: opening it costs more than a small fit.
        rows = self._log.rows(family, order.window)
        try:
            return run_isolated(
                make,
                family,
                order,
                *more,
                rows,
                self._artifacts,
                time_limit=family.retrain.time_limit.total_seconds(),
                memory_gib=family.retrain.memory_gib,
                name=f"fit {order.model}",
                log=self._output(order.model),
                called_off=self._off.setdefault(order.key, threading.Event()),
            )
        except CalledOff as error:
            why = self._why.get(order.key, error.what)
            raise CalledOff(why, where=f"fit {order.model}") from error
        finally:
            self._off.pop(order.key, None)
            self._why.pop(order.key, None)

    def _output(self, model: ModelId) -> Path | None:
        if self._outputs is None:
            return None
        self._outputs.mkdir(parents=True, exist_ok=True)
        file = self._outputs / f"{model}.log"
        # A model has one renewal at a time.
        file.unlink(missing_ok=True)
        return file
