"""Shards of a replay in processes of their own: judging is all computing, and cores are several."""

import multiprocessing
import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from multiprocessing.connection import Connection
from typing import Any

from driftloop.errors import DriftloopError, LedgerError
from driftloop.ledger import SqlLedger
from driftloop.loop.replay import Alone, Part, Shard, Shards
from driftloop.records import ModelId
from driftloop.spec import Fleet

WORTH = 20
"""Models for which a process of their own is worth its start."""


@contextmanager
def shards_of(fleet: Fleet, url: str, *, start: datetime, end: datetime) -> Iterator[Shards]:
    """Give the shards of a fleet: as many as there are cores, if its models are that many.

    Args:
        fleet: whose past it is.
        url: of the ledger.
        start: of the first pass.
        end: before it the last.
    """
    count = max(1, min(len(os.sched_getaffinity(0)), len(fleet.models) // WORTH))
    if count == 1:
        ledger = SqlLedger(url)
        try:
            yield Alone(Shard(fleet, fleet.models, ledger, start=start, end=end))
        finally:
            ledger.close()
        return
    context = multiprocessing.get_context("spawn")
    begun = []
    try:
        for turn in range(count):
            here, there = context.Pipe()
            asked = (there, fleet, fleet.models[turn::count], url, start, end)
            process = context.Process(target=_serve, args=asked, daemon=True)
            process.start()
            there.close()
            begun.append((process, here))
        yield _Beside(tuple(here for _, here in begun))
    finally:
        for process, here in begun:
            here.close()
            process.join(timeout=10)
            if process.is_alive():
                process.kill()


@dataclass(frozen=True, slots=True)
class _Beside:
    """Shards behind pipes; implements `loop.replay.Shards`."""

    pipes: tuple[Connection, ...]

    def at(self) -> Sequence[datetime | None]:
        return self._asked("at")

    def able(self, at: datetime) -> Sequence[Sequence[ModelId]]:
        return self._asked("able", at)

    def go(self, at: datetime, able: Collection[ModelId]) -> None:
        self._asked("go", at, able)

    def parts(self) -> Sequence[Part]:
        return self._asked("part")

    def _asked(self, what: str, *words: object) -> list[Any]:
        try:
            for pipe in self.pipes:
                pipe.send((what, words))
            answers = [pipe.recv() for pipe in self.pipes]
        except (EOFError, OSError) as error:
            raise LedgerError(
                "a process that read a part of it is gone",
                where="replay",
                hint="was memory short? --models takes a part of the fleet",
            ) from error
        for answer in answers:
            if isinstance(answer, DriftloopError):
                raise answer
        return answers


def _serve(
    pipe: Connection,
    fleet: Fleet,
    models: Sequence[ModelId],
    url: str,
    start: datetime,
    end: datetime,
) -> None:
    """Answer for one shard until nobody asks."""
    with suppress(EOFError, KeyboardInterrupt):
        try:
            shard = Shard(fleet, models, SqlLedger(url), start=start, end=end)
            while True:
                what, words = pipe.recv()
                found = getattr(shard, what)
                pipe.send(found(*words) if words else found)
        except DriftloopError as error:
            pipe.send(error)
