"""The picture of an incident in its message: it follows, and no page waits for it."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from driftloop.errors import PagerError
from driftloop.page.asking import Line, Refused
from driftloop.page.picture import alt_text, draw
from driftloop.page.standing import IN_THREAD, Standing, newest
from driftloop.records import Incident, Notice

_log = logging.getLogger(__name__)

UNREADY = (0.0, 1.0, 2.0, 4.0)
"""Seconds before each attempt to show a file: Slack does not know at once one uploaded just now."""
ELSEWHERE = 3.0
"""Seconds that another process is given to finish the picture that it may have begun."""

_TITLE = 200


class Show(Protocol):
    """Brings a message to what it should show; with `strictly` in no plainer way."""

    def __call__(self, standing: Standing, *, strictly: bool = False) -> None:
        """Raise `PagerError` where Slack does not take it."""
        ...


class Pictures:
    """Draws, uploads and shows pictures one after another, in a thread that ends with them.

    Args:
        slack: where to.
        read: learns what stands in Slack.
        show: brings a message to what it should show, its picture included.
    """

    def __init__(self, slack: Line, *, read: Callable[[Standing], None], show: Show) -> None:
        self._slack, self._read, self._show = slack, read, show
        self._files: dict[str, str] = {}
        self._jobs: deque[tuple[Standing, float]] = deque()
        self._idle = threading.Condition()
        self._running = False

    def add(self, standing: Standing, *, ours: bool) -> None:
        """Give the message of `standing` its incident's picture later; never raises.

        `ours` says that this process posted it, so that nobody else is at its picture.
        """
        standing.tried = True
        with self._idle:
            self._jobs.append((standing, time.monotonic() + (0.0 if ours else ELSEWHERE)))
            if self._running:
                return
            try:
                # Not a daemon: a process that ends waits for it.
                threading.Thread(target=self._work, name="pictures").start()
            except RuntimeError:  # it ends already: who updates the message next does it
                self._jobs.clear()
            else:
                self._running = True

    def settle(self, timeout: float) -> bool:
        """Wait until nothing is left to do; False if that takes longer."""
        with self._idle:
            return self._idle.wait_for(lambda: not self._running, timeout)

    def _work(self) -> None:
        while True:
            with self._idle:
                if not self._jobs:
                    self._running = False
                    self._idle.notify_all()
                    return
                standing, due = self._jobs.popleft()
            time.sleep(max(0.0, due - time.monotonic()))
            try:
                self._illustrate(standing)
            except PagerError as error:
                # Once more when the message changes next, unless nothing would be different.
                standing.tried = not error.retry or isinstance(error, Refused)
                _log.warning("no picture for %s: %s", standing.receipt.ts, error)
            except Exception:  # noqa: BLE001 - the next picture may be better
                _log.exception("no picture for %s", standing.receipt.ts)

    def _illustrate(self, standing: Standing) -> None:
        incident = standing.incident
        notice = None if incident is None else illustrated(incident)
        if incident is None or notice is None or not self._lacks(standing):
            return
        file = self._files.get(incident.id) or self._uploaded(notice)
        self._files[incident.id] = file
        for wait in UNREADY:
            time.sleep(wait)
            with standing.lock:
                if not self._lacks(standing):
                    return
                standing.picture = file
                try:
                    self._show(standing, strictly=True)
                except Refused as refused:
                    standing.picture = None
                    if refused.code != "invalid_blocks":
                        raise
                    _log.debug("%s is not to be shown yet: %s", file, refused.said)
                else:
                    return
        self._uploaded(notice, into=standing)
        with standing.lock:
            standing.picture = IN_THREAD
            self._show(standing)

    def _lacks(self, standing: Standing) -> bool:
        """Look whether it is for us to add a picture, and make good what was written over ours."""
        with standing.lock:
            self._read(standing)
            ours = newest(standing.incident) if standing.incident is not None else standing.at
            if standing.at is None or ours is None or standing.at == ours:
                return standing.picture is None
            if standing.at < ours and standing.picture is not None:
                self._show(standing)
            # Where something newer stands than we know of, its picture is its writer's.
            return standing.at < ours and standing.picture is None

    def _uploaded(self, notice: Notice, into: Standing | None = None) -> str:
        chart = notice.chart
        if chart is None:  # pragma: no cover - `illustrated` has one
            raise AssertionError
        place: dict[str, Any] = {}
        if into is not None:
            place = {"channel": into.receipt.channel, "thread_ts": into.receipt.ts}
        answer = self._slack.ask(
            "files_upload_v2",
            where="files.upload",
            filename=f"{notice.model}.png",
            content=draw(chart, since=notice.since),
            title=chart.title[:_TITLE],
            alt_txt=alt_text(chart, since=notice.since),
            **place,
        )
        files = answer.get("files") or [{}]
        return str(files[0].get("id"))


def illustrated(incident: Incident) -> Notice | None:
    """Return the newest notice of an incident that has something to draw, None if none has."""
    return next((one for one in reversed(incident.notices) if one.chart is not None), None)
