"""What the loop needs of the world, as Protocols; adapters stand in the rooms that name a tool."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol, TypeVar

import pyarrow as pa

from driftloop.errors import DriftloopError
from driftloop.records import (
    Address,
    Advanced,
    Answer,
    Candidate,
    Cause,
    Click,
    Counts,
    Decided,
    Digest,
    Entry,
    Event,
    Fact,
    FeatureValue,
    GateResult,
    Head,
    Incident,
    Intent,
    Label,
    LogSummary,
    Measured,
    ModelHistory,
    ModelId,
    Noted,
    Order,
    Partition,
    Prediction,
    Reading,
    Receipt,
    Rollout,
    Samples,
    Served,
    Shadow,
    Verdict,
    Window,
)
from driftloop.rows import Rows
from driftloop.spec import Family, Owner, Source

FactT = TypeVar("FactT", bound=Fact)


class Clock(Protocol):
    """The time that everything judged is in."""

    def now(self) -> datetime:
        """Return the time now, aware, in UTC."""
        ...


class Spool(Protocol):
    """Where a service writes before it answers, from any thread; it never opens the lake."""

    def predictions(self, family: str, rows: Sequence[Prediction]) -> None:
        """Append `rows` of one family; on return the operating system has them."""
        ...

    def labels(self, family: str, rows: Sequence[Label]) -> None:
        """Append `rows` of one family; on return the operating system has them."""
        ...

    def events(self, source: str, rows: Sequence[Event]) -> None:
        """Append `rows` of one source; on return the operating system has them."""
        ...

    def shadows(self, family: str, rows: Sequence[Shadow]) -> None:
        """Append `rows` of one family; on return the operating system has them."""
        ...

    def served(self, family: str, rows: Sequence[Served]) -> None:
        """Append `rows` of one family; on return the operating system has them."""
        ...


@dataclass(frozen=True, slots=True)
class Look:
    """What a window holds: its rows, and counts that no longer show in them.

    With a `fault` the rows hold what no log can, or could not be had, and must not be judged.
    """

    rows: Rows
    summary: LogSummary
    fault: DriftloopError | None = None


class PredictionLog(Protocol):
    """The lake, read: windows of rows, and counts of them."""

    def rows(self, family: Family, window: Window) -> pa.Table:
        """Return one row for each id, by event time.

        Columns: id, version (int32; 0 for history), event_time, arrived_at (when the row did),
        prediction (float64, null for history), label (float64, null when unknown at
        `window.known_at`), labelled_at (when that label arrived; null where there is none, or its
        log does not tell), then the family's features (float64 or string). Times are
        timestamp[us, UTC]. The first arrival of an id wins, and of labels the newest.
        Rows in `window.left_out` are not returned.
        """
        ...

    def sample(self, family: Family, window: Window) -> tuple[pa.Table, int]:
        """Return `rows`, or a part of them if they are many, and how many there are in all."""
        ...

    def summary(self, family: Family, window: Window) -> LogSummary:
        """Return counts over the window's rows as they arrived, duplicates included."""
        ...

    def looks(self, family: Family, windows: Sequence[Window]) -> Iterator[tuple[ModelId, Look]]:
        """Yield `rows` and `summary` of windows that differ in their models, some read together.

        What is wrong with one model's rows is the `fault` of its look alone.
        """
        ...

    def partitions(
        self, family: Family, windows: Sequence[Window]
    ) -> Mapping[ModelId, Sequence[Partition]]:
        """Return the partitions of many models, counted, oldest first; without rows it is none.

        The windows differ in their models alone, begin and end with a block of `window.block`.
        """
        ...

    def horizon(self, family: Family) -> datetime | None:
        """Return when the newest rows of `family` arrived; all before them can be read."""
        ...


class FeatureLog(Protocol):
    """The lake, read for what features were looked up of."""

    def events(
        self, source: Source, *, after: datetime | None = None, upto: int | None = None
    ) -> pa.Table:
        """Return `position`, `at` (microseconds since 1970) and the fields; each event once."""
        ...

    def served(
        self, family: Family, *, since: datetime | None, until: datetime, most: int
    ) -> pa.Table:
        """Return rows predicted in (since, until] that were served with events.

        Columns: row, id, at (microseconds since 1970), position, fallbacks, and the family's
        features.
        """
        ...

    def ask(self, sql: str, tables: Mapping[str, pa.Table]) -> pa.Table:
        """Return what a query answers over `tables` alone."""
        ...


@dataclass(frozen=True, slots=True)
class Trial:
    """What challenger and champion did side by side.

    `both` has the rows that the challenger answered in shadow since the rollout began: event_time,
    predicted_at, challenger, champion and label (float64, null while unknown). `apart` has those
    that one of the two answered: version, prediction and label.
    """

    challenger: Counts
    champion: Counts
    both: pa.Table
    apart: pa.Table


class Trials(Protocol):
    """What the log knows of a rollout."""

    def trial(self, family: Family, rollout: Rollout) -> Trial:
        """Return what was logged of `rollout` in its phase, and of its shadow since it began.

        Raises:
            LogError: the log cannot be read.
        """
        ...


class Measurement(Protocol):
    """What was measured of one model at one time."""

    @property
    def readings(self) -> tuple[Reading, ...]:
        """What a decision may rest on; a column that could not be measured says why."""
        ...

    def keep(self, file: Path, verdicts: Sequence[Verdict]) -> None:
        """Write Evidently's snapshot of all that was measured and judged, whole or not at all.

        Raises:
            MeasureError: it could not be made, or not be written.
        """
        ...


class Measure(Protocol):
    """A window against its reference, in numbers."""

    def measure(
        self,
        *,
        family: Family,
        current: Rows,
        own: Rows,
        reference: Path,
        summary: LogSummary,
        baselines: dict[str, float],
        now: datetime,
        window: Window | None = None,
    ) -> Measurement:
        """Return what is measured of one model.

        `current` holds the window's rows, for drift and quality; `own` those that the champion
        itself predicted, for decay; `reference` is the file of the champion's training rows. What
        arrived after `window.since` is measured by itself too.
        """
        ...

    def disputed(
        self,
        *,
        family: Family,
        readings: Sequence[Reading],
        current: Rows,
        own: Rows,
        reference: Path,
    ) -> tuple[str, ...]:
        """Return in words which of `readings` an independent measurement of the rows denies.

        The rows are those that `readings` were taken of.
        """
        ...

    def cause(
        self, *, family: Family, own: Rows, reference: Path, verdicts: Sequence[Verdict]
    ) -> Cause:
        """Return why the rows `own`, which the champion answered, are worse than it was made for.

        `reference` is the file of its training rows, beside which its held-out rows may lie;
        `verdicts` are those of the decision that is to be explained.
        """
        ...

    def report(
        self,
        *,
        family: Family,
        title: str,
        current: pa.Table,
        reference: pa.Table,
        file: Path,
        of: int | None = None,
    ) -> None:
        """Write Evidently's full report as one HTML file, whole or not at all.

        `current` is all rows of the window, or with `of` a sample of so many.
        """
        ...


class Pager(Protocol):
    """A channel where owners read."""

    def post(self, incident: Incident, to: Address, *, reconcile: bool) -> Receipt:
        """Post the incident's message; with `reconcile` look for it in the channel first.

        Raises:
            PagerError: it was not taken; with `retry` it may stand all the same: `reconcile`.
        """
        ...

    def update(self, incident: Incident, receipt: Receipt) -> Receipt:
        """Let the message at `receipt` show the incident as it is now; harmless when repeated.

        Raises:
            PagerError: it was not taken. `gone` says that somebody deleted the message.
        """
        ...

    def reply(self, entry: Entry, receipt: Receipt, *, reconcile: bool) -> None:
        """Write into the thread of `receipt`; with `reconcile` unless `entry.key` is there."""
        ...

    def summarize(self, digest: Digest, to: Address, *, reconcile: bool) -> Receipt:
        """Post a digest; with `reconcile` look for its key in the channel first."""
        ...


class People(Protocol):
    """Who is who where owners read."""

    def members(self, group: str) -> frozenset[str]:
        """Return the ids of the users in a user group, as it is now.

        Raises:
            PagerError: it cannot be asked.
        """
        ...

    def name(self, user: str) -> str:
        """Return what a user is called; the id itself where that cannot be told."""
        ...


class SecondWay(Protocol):
    """Another way to reach an owner, for when the pager is out of reach."""

    name: str

    def reaches(self, owner: Owner) -> str:
        """Return where it would reach them, "" where it cannot."""
        ...

    def send(self, incident: Incident, owner: Owner, *, why: str) -> None:
        """Tell the incident as it is.

        Raises:
            PagerError: it was not taken.
        """
        ...


class Desk(Protocol):
    """Where clicks are taken."""

    def take(self, click: Click) -> Answer:
        """Do what is asked, if who asks may and it still makes sense; the same click once."""
        ...

    def refusal(self, click: Click) -> str:
        """Return why nothing would be done, as it stands now; "" if it would."""
        ...


class Trainer(Protocol):
    """Makes candidates, in a process of their own."""

    @property
    def patience(self) -> timedelta:
        """How long a fit may wait for its turn, in wall time beside its family's time limit."""
        ...

    def train(self, order: Order, champion: Head | None) -> Candidate:
        """Return a trained, lowered and scored candidate.

        Raises:
            TrainingFailed: too few rows; or the recipe raised, hung, or ate memory.
            ParityError: the lowered model answers otherwise than the fitted one.
        """
        ...

    def find(self, order: Order) -> Candidate:
        """Return what answers already, where we do not serve, as the log shows it.

        Raises:
            TrainingFailed: too few rows have both an answer and a label.
        """
        ...

    def call_off(self, order: Order, *, why: str = "was called off") -> None:
        """End the training of `order` wherever it stands; one yet to begin does not begin."""
        ...

    def warm_up(self) -> None:
        """Get ready, so that the first fit does not wait."""
        ...


class Handover(Protocol):
    """Who serves the models that driftloop does not."""

    def hand_over(self, family: Family, head: Head, *, previous: Head | None, key: str) -> None:
        """Let `head` answer in place of `previous`; the same `key` again must change nothing.

        Raises:
            HandoverFailed: it was not taken.
        """
        ...


class Registry(Protocol):
    """Versions and where they came from; its alias is a copy of the ledger's head."""

    def register(self, candidate: Candidate) -> int:
        """Return the candidate's version; the same order registered again gets the same one."""
        ...

    def record_gate(self, model: ModelId, version: int, result: GateResult) -> None:
        """Note at the version whether the gate let it through, and why."""
        ...

    def point(self, model: ModelId, version: int) -> bool:
        """Point the alias `champion` at `version`; True when it stood elsewhere before."""
        ...


@dataclass(frozen=True, slots=True)
class Changes:
    """Incidents that facts were appended to, and models whose champion or rollout changed.

    `upto` is what to ask after the next time.
    """

    upto: int
    incidents: frozenset[str] = frozenset()
    models: frozenset[ModelId] = frozenset()


class Ledger(Protocol):
    """Append-only facts; intents make outward acts safe to repeat."""

    def append(self, fact: Fact, *, key: str | None = None) -> bool:
        """Append `fact`; False, and nothing written, when its kind already has `key`."""
        ...

    def facts(
        self,
        kind: type[FactT],
        *,
        model: ModelId | None = None,
        since: datetime | None = None,
        before: datetime | None = None,
        last: int | None = None,
    ) -> tuple[FactT, ...]:
        """Return facts of one kind, oldest first; `last` keeps only that many newest.

        `since` and `before` bound when they were found, `since` included.
        """
        ...

    def passes(
        self, since: datetime, before: datetime, models: Collection[ModelId] | None = None
    ) -> Iterator[Measured | Decided]:
        """Yield what was measured of `models`, or all, in a span, in the order in which it was.

        Of models that could not be looked at the decision that says so stands for it.
        """
        ...

    def fact(self, kind: type[FactT], *, key: str) -> FactT | None:
        """Return the fact of one kind that was appended under `key`, None when there is none."""
        ...

    def appended(self, kind: type[Fact], keys: Collection[str]) -> frozenset[str]:
        """Return those of `keys` that a fact of one kind was appended under."""
        ...

    def history(self, model: ModelId) -> ModelHistory:
        """Return what judge and renew need of the past of `model`."""
        ...

    def head(self, model: ModelId) -> Head | None:
        """Return the champion of `model` in the epoch of now, None when it never had one."""
        ...

    def heads(self) -> tuple[Head, ...]:
        """Return every champion."""
        ...

    def move(self, head: Head, *, at: datetime, previous: Head | None, reason: str) -> None:
        """Make `head` champion if `previous` still is.

        Raises:
            StaleHead: somebody else moved first; nothing was changed.
        """
        ...

    def advances(self) -> tuple[Advanced, ...]:
        """Return the newest step of every model that ever had a rollout."""
        ...

    def rollouts(self) -> tuple[Rollout, ...]:
        """Return every rollout that has yet to come to its end, at most one of a model."""
        ...

    def advance(self, advanced: Advanced) -> None:
        """Append a rollout's step, if nothing took its epoch meanwhile.

        Raises:
            StaleHead: somebody else moved or advanced first; nothing was changed.
        """
        ...

    def claim(self, key: str, *, lease: timedelta, body: str = "") -> Intent:
        """Claim an act for `lease` of wall time; `body` is kept for whoever must redo it."""
        ...

    def finish(self, key: str, outcome: str) -> None:
        """Record that the act happened."""
        ...

    def release(self, key: str) -> None:
        """Give a claim back without having acted: the next claim gets it at once."""
        ...

    def unfinished(self, prefix: str) -> tuple[tuple[str, str], ...]:
        """Return (key, body) of claims under `prefix` that nobody holds and nobody finished."""
        ...

    def incident(self, incident: str) -> tuple[Fact, ...]:
        """Return every fact of a page's incident, oldest first: noted, posted, acted, relayed."""
        ...

    def live(self, prefix: str) -> tuple[tuple[str, str], ...]:
        """Return (key, body) of claims under `prefix` that nobody finished, held or not."""
        ...

    def finished(self, prefix: str) -> int:
        """Return how many claims under `prefix` are finished."""
        ...

    def reopen(self, key: str) -> None:
        """Let what was finished be claimed again."""
        ...

    def append_all(self, facts: Sequence[tuple[Fact, str]]) -> None:
        """Append each fact under its key, all at once; those whose kind has the key are left."""
        ...

    def untold(self) -> tuple[Noted, ...]:
        """Return what was noted and not told yet, oldest first."""
        ...

    def changes(self, after: int) -> Changes:
        """Return what of incidents, and of what answers, changed since `after`; -1: from now on."""
        ...


class Model(Protocol):
    """A loaded model that answers; see `serve`."""

    where: str
    """What errors call it."""

    @property
    def digest(self) -> str:
        """SHA-256 of the file it was loaded from."""
        ...

    @property
    def size(self) -> int:
        """Bytes of memory that it takes in this process; an estimate."""
        ...

    @property
    def inline(self) -> bool:
        """Whether it answers a row in microseconds; what does not is asked in a thread."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """What it was trained to tell apart, in its order; empty if it does not say."""
        ...

    @property
    def samples(self) -> Samples | None:
        """What it answered to some rows when it was made; None if it does not say."""
        ...

    def predict(self, columns: dict[str, list[FeatureValue]]) -> list[float]:
        """Return one answer a row: the target, the probability of 1, or the class's index."""
        ...
