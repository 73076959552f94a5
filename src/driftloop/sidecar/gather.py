"""Requests that wait for their model: while a batch of a model runs, its next one gathers.

No timer: a model that is idle answers at once, and a busy one takes all that came meanwhile.
"""

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from driftloop.serve.frames import Reply, Request


@dataclass(frozen=True, slots=True, eq=False)
class Waiting:
    """A request, how many rows it asks for, and whom its reply goes to.

    `until` is when its asker gives up, by the monotonic clock.
    """

    request: Request
    rows: int
    until: float
    reply: Callable[[Reply], None]


class Gather:
    """Hands out batches, one at a time for each model, the models taking turns.

    Args:
        most_rows: of a batch; a larger request is a batch of its own.
        most_waiting: rows that may wait for one model.
    """

    def __init__(self, *, most_rows: int, most_waiting: int) -> None:
        """Begin with nothing waiting."""
        self._most_rows = most_rows
        self._most_waiting = most_waiting
        self._queues: dict[str, deque[Waiting]] = {}
        self._rows: dict[str, int] = {}
        self._turns: deque[str] = deque()
        self._changed = threading.Condition()
        self._closed = False

    def add(self, waiting: Waiting) -> bool:
        """Let a request wait for its turn; False when too much waits for its model already.

        However large, a request is taken where nothing waits.
        """
        digest = waiting.request.digest
        with self._changed:
            queued = self._rows.get(digest, 0)
            if self._closed or (queued and queued + waiting.rows > self._most_waiting):
                return False
            self._rows[digest] = queued + waiting.rows
            queue = self._queues.get(digest)
            if queue is None:
                self._queues[digest] = queue = deque()
                self._turns.append(digest)
                self._changed.notify()
            queue.append(waiting)
            return True

    def take(self) -> list[Waiting]:
        """Return the next batch, of the model whose turn it is; wait for one; empty at the end.

        The model has no other turn until `done` is called with its digest.
        """
        with self._changed:
            while not self._turns:
                if self._closed:
                    return []
                self._changed.wait()
            digest = self._turns.popleft()
            queue, rows = self._queues[digest], 0
            batch: list[Waiting] = []
            while queue and (not batch or rows + queue[0].rows <= self._most_rows):
                batch.append(queue.popleft())
                rows += batch[-1].rows
            self._rows[digest] -= rows
            return batch

    def done(self, digest: str) -> None:
        """Say that the model's batch is answered: it has its next turn after the others'."""
        with self._changed:
            if self._queues[digest]:
                self._turns.append(digest)
                self._changed.notify()
            else:
                del self._queues[digest], self._rows[digest]

    def close(self) -> None:
        """Take nothing more; what waits is still handed out."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
