"""What people ask of an installation: traces, decisions, reports."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from driftloop.errors import BadRequest
from driftloop.judge import judged, window_at
from driftloop.loop.watch import measurement_of
from driftloop.records import (
    REFERENCE_FILE,
    Acted,
    Decided,
    Decision,
    Fact,
    Grouped,
    Head,
    Memory,
    ModelId,
    Moved,
    Paged,
    Quarantined,
    Relayed,
    Released,
    Stage,
    Trained,
    Window,
    version_key,
)
from driftloop.spec import Family
from driftloop.trace import (
    Logged,
    Step,
    in_order,
    labelled,
    predicted,
    steps,
    that_judged,
)
from driftloop.wiring.parts import Parts
from driftloop.wiring.training import read_table

if TYPE_CHECKING:
    from driftloop.prediction_log import Contents


class Asking(Parts):
    """What people ask of an installation: traces, decisions, reports. See `System`."""

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
            return in_order(steps((*facts, *self._acts(facts))))
        found: list[Step] = []
        rows = self._logged(id_, families)
        for row in rows:
            made = ledger.fact(Trained, key=version_key(ModelId(row.model), row.version))
            found += self._of_version(made) if made is not None else ()
            found.append(predicted(row))
            found += self._kept_out(row)
            decided = ledger.facts(Decided, model=ModelId(row.model), since=row.event_time)
            for decision in that_judged(row, [fact.decision for fact in decided]):
                facts = ledger.trace(decision.key)
                found += steps((*facts, *self._acts(facts)))
        found += self._labelled(id_, families, {row.model: row.predicted_at for row in rows})
        if not found:
            raise BadRequest("nothing has that id", where=id_, hint=self._why_unknown())
        return in_order(found)

    def _acts(self, facts: tuple[Fact, ...]) -> tuple[Fact, ...]:
        """Return what people did about what was told, and whom else it reached another way."""
        opened = [
            fact.notice.incident
            for fact in facts
            if isinstance(fact, Paged) and fact.notice.stage is Stage.OPENED
        ]
        homes = [self.ledger.fact(Grouped, key=alert) for alert in dict.fromkeys(opened)]
        return tuple(
            fact
            for home in homes
            if home is not None
            for fact in self.ledger.incident(home.incident)
            if isinstance(fact, Acted | Relayed)
        )

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

    def _kept_out(self, row: Logged) -> tuple[Step, ...]:
        """Return when the row's partition came into quarantine, and out of it."""
        model = ModelId(row.model)
        facts: tuple[Quarantined | Released, ...] = (
            *self.ledger.facts(Quarantined, model=model),
            *self.ledger.facts(Released, model=model),
        )
        return steps(fact for fact in facts if fact.start <= row.event_time < fact.end)

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

    def check_recipe(self, family: Family) -> None:
        """Check that the recipe takes weights of rows where one of the memories needs them.

        Raises:
            TrainingFailed: it takes none, or gives no estimator at all.
        """
        from driftloop.retrain import unfitted, weight_name

        trained = family.log is None or family.handover is not None
        if trained and Memory.DECAYED in family.retrain.memory:
            weight_name(family, unfitted(family, seed=family.retrain.seed))
