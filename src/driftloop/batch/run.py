"""A source scored by one version into a file and the log: part by part, as many as there are cores.

Reading, scoring and writing overlap, since each part goes through all three in a thread of its own.
"""

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from driftloop.batch.journal import Journal, Plan, folder_of
from driftloop.errors import BadRequest, DriftloopError, LogError
from driftloop.ports import Clock
from driftloop.prediction_log import Pieces, as_parquet, fingerprint, join, repeated_id
from driftloop.records import Head, ModelId
from driftloop.serve.batch import (
    ANSWER,
    INSTANT,
    Checker,
    Content,
    answer_table,
    log_table,
    shown_table,
    with_ids,
)
from driftloop.serve.slot import Held, Slots
from driftloop.spec import Family

PART = 100_000
"""Rows that are scored, written and logged as one."""
_Given = TypeVar("_Given")
_Made = TypeVar("_Made")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is to be scored: `source` (relative to `folder`) by `model` into the file `out`.

    `turn` tells what is else the same from turn to turn. `anew` throws away what an earlier run of
    the same left undone; `publish` lets the online service give the answers by id.
    """

    model: ModelId
    source: str
    out: Path
    folder: Path | None = None
    turn: str = ""
    anew: bool = False
    publish: bool = False


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a batch is: `done` of `rows` rows are `what`."""

    what: str
    done: int
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """A batch that is done: all of its rows by `head`, `before` of them by an earlier run.

    `champion` is who answers by now, where that is another. `seconds` are of wall time.
    """

    rows: int
    before: int
    head: Head
    champion: Head | None
    seconds: float


def is_begun(runs: Path, job: Job) -> bool:
    """Return whether `job` was begun here and is not done: it may be under way, or was stopped."""
    return _folder(runs, job).is_dir()


class Taker(Protocol):
    """A spool that takes a finished segment by renaming it; see `SegmentSpool.adopt`."""

    def adopt(self, family: str, file: Path) -> None:
        """Take `file`, predictions of `family`, whole or not at all."""
        ...


class Fill(Protocol):
    """Makes rows whole; see `serve.batch.completed`."""

    def __call__(self, rows: pa.Table, *, model: ModelId, first: int) -> pa.Table:
        """Return `rows` of `model`, the first being row `first` (from 0), with what they lack."""
        ...


class Hold(Protocol):
    """Refuses rows that cannot be made whole; see `serve.batch.check_found`."""

    def __call__(self, rows: pa.Table, *, model: ModelId, first: int) -> None:
        """Raise what refuses `rows` of `model`, the first being row `first` (from 0)."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Batches:
    """Scores batches of one family's models.

    Args:
        family: of the models.
        slots: what loads and checks a version.
        champion: who answers now for a model, if anybody does.
        spool: what logs the rows.
        clock: when they are predicted.
        runs: the folder that says what is done; on the file system of the spool.
        hold: refuses checked rows for which there is nothing to look up, before any is logged.
        fill: adds what is looked up to rows that are checked and have their ids.
        publish: makes answers readable by id: `ANSWER`, predicted_at, and `value`, which is logged.
        told: hears how far it is, from any thread.
        part_rows: rows of a part.
        at_once: parts that are worked on side by side.
    """

    family: Family
    slots: Slots
    champion: Callable[[ModelId], Head | None]
    spool: Taker
    clock: Clock
    runs: Path
    hold: Hold | None = None
    fill: Fill | None = None
    publish: Callable[[ModelId, pa.Table], None] | None = None
    told: Callable[[Progress], None] = lambda _: None
    part_rows: int = PART
    at_once: int = len(os.sched_getaffinity(0))

    def score(self, job: Job, *, settle: Callable[[Scored], None] = lambda _: None) -> Scored:
        """Return what came of `job`: its file is whole, and each of its rows in the spool, once.

        The whole source is checked before its first row is logged, and held to features that refuse
        rows for which nothing is found. After an error, a Ctrl-C or a
        kill the same job goes on where it stood, with the version it began with.

        `settle` hears of it before it is forgotten that the batch was begun: after a kill it may
        hear of it again.

        An id that is not given is made of the source's rows and the row's place among them.

        Raises:
            BadRequest: the source cannot be read, does not fit the family (names the column, and
                the row where one is at fault, the first being 1), or changed since it was begun;
                or another process is at the same job.
            NoChampion: the model has no champion yet.
            ArtifactError: the model failed.
            LogError: no more could be written, or looked up; says how many rows are logged.
        """
        began = time.monotonic()
        self._need_fill()
        with Journal(_folder(self.runs, job)) as journal:
            if job.anew:
                journal.forget()
            champion = self.champion(job.model)
            plan = journal.plan
            held = self._hand(job.model, champion if plan is None else plan.head)
            if plan is None:
                journal.forget()
                plan = self._begun(job, journal, held.head)
            elif plan.fingerprint != fingerprint(job.source, job.folder):
                raise _changed(job, plan, scored=len(journal.done()) * plan.part_rows)
            pieces = Pieces(as_parquet(job.source, job.folder, journal.copy))
            run = _Run(self, journal, plan, held)
            before = run.resume()
            run.score(pieces)
            if plan.fingerprint != fingerprint(job.source, job.folder):
                raise _changed(job, plan, scored=plan.rows)
            parts = tuple(journal.done().values())
            if job.publish and self.publish is not None:
                for part in parts:
                    self.publish(job.model, pq.read_table(part))
            join(parts, ANSWER, job.out, journal.folder)
            scored = Scored(
                rows=plan.rows,
                before=before,
                head=plan.head,
                champion=champion if champion != plan.head else None,
                seconds=time.monotonic() - began,
            )
            settle(scored)
            journal.close(done=True)
        return scored

    def checker(self, model: ModelId) -> Checker:
        """Return what holds the rows of `model` to the family."""
        return Checker(self.family, model, self.clock.now(), self.family.requested)

    def _need_fill(self) -> None:
        missing = [*self.family.looked_up, *self.family.computed]
        if missing and self.fill is None:
            raise BadRequest(
                f"nothing here looks up or computes {', '.join(missing)}",
                where=self.family.name,
                hint="such models are answered online",
            )

    def _hand(self, model: ModelId, head: Head | None) -> Held:
        self.slots.refresh([] if head is None else [head])
        return self.slots.slot(model).hand()

    def _begun(self, job: Job, journal: Journal, head: Head) -> Plan:
        """Return the plan of a new batch, once all of its source is checked."""
        seen = fingerprint(job.source, job.folder)
        self.told(Progress("read", 0, 0))
        files = as_parquet(job.source, job.folder, journal.copy)
        pieces = Pieces(files)
        content = self._checked(job.model, pieces)
        if any("id" in pq.read_schema(file).names for file in files):
            twice = repeated_id(files, journal.folder)
            if twice is not None:
                row, id_ = twice
                raise BadRequest(
                    f"{id_!r} stands twice", where=f"{job.model}: column id, row {row + 1}"
                )
        plan = Plan(
            model=job.model,
            source=job.source,
            out=str(job.out.absolute()),
            fingerprint=seen,
            stem=content.stem(),
            rows=pieces.rows,
            part_rows=self.part_rows,
            head=head,
            begun_at=self.clock.now(),
        )
        if seen != fingerprint(job.source, job.folder):
            raise _changed(job, plan, scored=0)
        journal.begin(plan)
        return plan

    def _checked(self, model: ModelId, pieces: Pieces) -> Content:
        checker, content = self.checker(model), Content(model)
        rows = pieces.rows
        if not rows:
            checker.check(pieces.schema.empty_table())
        with ThreadPoolExecutor(self.at_once, thread_name_prefix="check") as pool:

            def check(piece: tuple[int, pa.Table]) -> tuple[int, pa.Table]:
                first, rows = piece[0], checker.check(piece[1], first=piece[0])
                if self.hold is not None:
                    self.hold(rows, model=model, first=first)
                return first, rows

            for first, checked in _ahead(pool, check, pieces.read(), at_once=2 * self.at_once):
                content.add(checked)
                self.told(Progress("checked", first + checked.num_rows, rows))
        return content


class _Run:
    """One batch under way."""

    def __init__(self, batches: Batches, journal: Journal, plan: Plan, held: Held) -> None:
        self._of = batches
        self._journal = journal
        self._plan = plan
        self._held = held
        self._checker = batches.checker(plan.model)
        self._counting = threading.Lock()
        self._logged = 0

    def resume(self) -> int:
        """Hand over what an earlier run kept and could not; return how many rows it scored."""
        for part in self._journal.done():
            self._hand_over(part, self._span(part))
        return self._logged

    def score(self, pieces: Pieces) -> None:
        """Score the parts that are not done."""
        done = [self._span(part) for part in self._journal.done()]
        at_once = self._of.at_once
        with ThreadPoolExecutor(at_once, thread_name_prefix="score") as pool:
            parts = self._parts(pieces, done)
            for _ in _ahead(pool, self._score, parts, at_once=at_once + 1):
                pass

    def _span(self, part: int) -> range:
        size = self._plan.part_rows
        return range(part * size, min((part + 1) * size, self._plan.rows))

    def _parts(self, pieces: Pieces, done: list[range]) -> Iterator[tuple[int, list[pa.Table]]]:
        """Yield each part that is not done with its rows, in tables of one file."""
        if not self._plan.rows:
            yield from [] if self._journal.done() else [(0, [pieces.schema.empty_table()])]
            return
        skipped = {span.start for span in done}
        gathered: list[pa.Table] = []
        for start, piece in pieces.read(without=_joined(done)):
            first, stop = start, start + piece.num_rows
            while first < stop:
                part = first // self._plan.part_rows
                span = self._span(part)
                end = min(stop, span.stop)
                if span.start not in skipped:
                    gathered.append(piece.slice(first - start, end - first))
                    if end == span.stop:
                        yield part, gathered
                        gathered = []
                first = end

    def _score(self, given: tuple[int, list[pa.Table]]) -> None:
        part, tables = given
        of, held, span = self._of, self._held, self._span(given[0])
        now = of.clock.now()
        first, checked = span.start, []
        for table in tables:
            checked.append(self._checker.check(table, first=first))
            first += table.num_rows
        rows = with_ids(pa.concat_tables(checked), self._plan.stem, first=span.start)
        if of.fill is not None:
            try:
                rows = of.fill(rows, model=self._plan.model, first=span.start)
            except DriftloopError as error:  # it was there when the source was checked
                raise self._no_more(error) from error
        answers = pa.array(answer_table(held, of.family, rows))
        shown = shown_table(held, of.family, rows, answers)
        shown = shown.append_column("value", answers)
        at = pa.repeat(pa.scalar(now, INSTANT), rows.num_rows)
        shown = shown.append_column("predicted_at", at)
        try:
            self._journal.keep(part, shown, log_table(held, of.family, rows, answers, now=now))
        except (OSError, pa.ArrowException) as error:
            raise self._no_more(error) from error
        self._hand_over(part, span)

    def _hand_over(self, part: int, span: range) -> None:
        name = self._of.family.name
        try:
            self._journal.hand_over(part, lambda file: self._of.spool.adopt(name, file))
        except (OSError, LogError) as error:
            raise self._no_more(error) from error
        with self._counting:
            self._logged += len(span)
            done = self._logged
        self._of.told(Progress("scored", done, self._plan.rows))

    def _no_more(self, error: Exception) -> DriftloopError:
        return LogError(
            f"{self._logged:,} of {self._plan.rows:,} rows were logged, and then no more: {error}",
            where=self._plan.model,
            hint="run the same again: it goes on from there, with the same version",
        )


def _folder(runs: Path, job: Job) -> Path:
    return folder_of(runs, model=job.model, source=job.source, out=job.out, turn=job.turn)


def _ahead(
    pool: ThreadPoolExecutor,
    work: Callable[[_Given], _Made],
    given: Iterable[_Given],
    *,
    at_once: int,
) -> Iterator[_Made]:
    """Yield what `work` makes of each of `given`, in order, `at_once` being under way."""
    waiting: deque[Future[_Made]] = deque()
    try:
        for each in given:
            waiting.append(pool.submit(work, each))
            if len(waiting) >= at_once:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def _joined(spans: list[range]) -> list[range]:
    """Return spans, sorted, as few as cover the same rows.

    >>> _joined([range(0, 2), range(2, 4), range(6, 8)])
    [range(0, 4), range(6, 8)]
    """
    joined: list[range] = []
    for span in spans:
        if joined and joined[-1].stop == span.start:
            joined[-1] = range(joined[-1].start, span.stop)
        else:
            joined.append(span)
    return joined


def _changed(job: Job, plan: Plan, *, scored: int) -> BadRequest:
    done = f"{min(scored, plan.rows):,} of {plan.rows:,} rows"
    return BadRequest(
        f"it changed since this batch began, of which {done} are scored",
        where=job.source,
        hint="--anew begins again; what was logged stays in the log",
    )
