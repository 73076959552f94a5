"""Kills its process at a named point, once somebody ordered it: no production code knows of it.

A process that has this folder on its PYTHONPATH and is told in KILL_AT of a folder looks there,
at each named point that it passes, for a file `<service>.<point>-before` or `-after`. It claims
the file by renaming it to `....hit` and ends by SIGKILL: one file, one death, however often the
process is started again. Without KILL_AT nothing is done.

KILL_LEASE, in seconds, makes leases of notices shorter, KILL_PAUSE the longest pause before a
service that died again and again is restarted, and KILL_ACK the time after which NATS sends again
what was not acknowledged, so that nobody waits long for any of them. KILL_BURST lets a channel take
so many messages at once.
"""

import functools
import importlib.abc
import importlib.machinery
import os
import signal
import sys
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any


def service() -> str:
    """Return what this process is called in orders: `online` for `python -m driftloop _online`."""
    given = sys.orig_argv[1:]
    if "flows" in given:
        return "worker"
    hidden = [word.removeprefix("_") for word in given if word.startswith("_")]
    return hidden[0] if hidden else Path(given[0] if given else "").stem


def _always(*_: Any, **__: Any) -> bool:
    return True


def _under(*prefixes: str) -> Callable[..., bool]:
    return lambda _, key, *__, **___: key.startswith(prefixes)


def _of(*kinds: str) -> Callable[..., bool]:
    return lambda _, fact, **__: type(fact).__name__ in kinds


def _all_of(kind: str) -> Callable[..., bool]:
    return lambda _, facts: any(type(fact).__name__ == kind for fact, _ in facts)


def _asked(method: str, *, thread: bool) -> Callable[..., bool]:
    def is_it(asks: Any, _: str, asked: dict[str, Any]) -> bool:
        return asks.__name__ == method and ("thread_ts" in asked) == thread

    return is_it


POINTS: dict[str, tuple[tuple[str, str, Callable[..., bool]], ...]] = {
    # What holds the function, as it is found in its module; the point's name; which calls.
    "driftloop.prediction_log.spool": (
        ("_Segment.append", "append", _always),
        ("_Segment.seal", "seal", _always),
        ("_rename", "rename", _always),
    ),
    "driftloop.prediction_log.lake": (
        ("Lake.append", "commit", _always),
        ("take_up", "insert", _always),
    ),
    "driftloop.prediction_log.ingest": (("Ingester._take", "take", _always),),
    "driftloop.ledger.sql": (
        ("SqlLedger.claim", "intent", _under("post/", "batch/")),
        ("SqlLedger.finish", "finish", _under("post/", "batch/")),
        ("SqlLedger.claim", "lease", _under("incident/")),
        ("SqlLedger.finish", "end", _under("incident/")),
        ("SqlLedger.append", "decided", _of("Decided")),
        ("SqlLedger.append", "stands", _of("Posted")),
        ("SqlLedger.claim", "click", _under("act/")),
        ("SqlLedger.append", "acted", _of("Acted")),
        ("SqlLedger.finish", "answered", _under("act/")),
        ("SqlLedger.append", "relayed", _of("Relayed")),
        ("SqlLedger.append_all", "grouped", _all_of("Grouped")),
        ("SqlLedger.append_all", "noted", _all_of("Noted")),
        ("SqlLedger.append_all", "record", _all_of("Paged")),
        ("SqlLedger.move", "move", _always),
    ),
    "driftloop.page.asking": (
        ("_asked", "act", _asked("chat_postMessage", thread=False)),
        ("_asked", "update", _asked("chat_update", thread=False)),
        ("_asked", "reply", _asked("chat_postMessage", thread=True)),
    ),
    "driftloop.page.second": (("Webhook.send", "send", _always),),
    "driftloop.page.sandbox.store": (("Store.add", "keep", _always),),
    "driftloop.registry": (
        ("MlflowRegistry.register", "register", _always),
        ("MlflowRegistry.point", "alias", _always),
    ),
    "driftloop.serve.stream": (
        # Before its transaction; in it, and at its end; between it and the log; after the log.
        ("Stream.take", "take", _always),
        ("Stream._finish", "commit", _always),
        ("Stream._append", "log", _always),
    ),
    "driftloop.serve.slot": (("Slot.take", "swap", _always),),
}
SHORTER: dict[str, tuple[str, str, Callable[[float], Any]]] = {
    # The module's constant, what says how long, and in which type.
    "driftloop.loop.settle": ("LEASE", "KILL_LEASE", lambda given: timedelta(seconds=given)),
    "driftloop.loop.relay": ("LEASE", "KILL_LEASE", lambda given: timedelta(seconds=given)),
    # Not shorter, but as good as: a channel takes all at once.
    "driftloop.page.asking": ("BURST", "KILL_BURST", int),
    "driftloop.serve.jetstream": ("ACKNOWLEDGE_WITHIN", "KILL_ACK", float),
    "driftloop.up.supervisor": ("LONGEST_PAUSE", "KILL_PAUSE", float),
}


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the modules that have points as everybody else does, and wraps what they define."""

    def __init__(self, orders: Path) -> None:
        self._orders = orders

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name not in POINTS and name not in SHORTER:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        found = (finder.find_spec(name, path, target) for finder in others)
        spec = next((each for each in found if each is not None), None)
        if spec is None or spec.loader is None:
            return None
        loader: Any = spec.loader
        load = loader.exec_module

        def load_and_wrap(module: ModuleType) -> None:
            load(module)
            for where, point, wanted in POINTS.get(name, ()):
                _wrap(module, where, point, wanted, self._orders)
            if name in SHORTER:
                constant, variable, as_type = SHORTER[name]
                if given := os.environ.get(variable):
                    setattr(module, constant, as_type(float(given)))

        loader.exec_module = load_and_wrap
        return spec


def _wrap(
    module: ModuleType, where: str, point: str, wanted: Callable[..., bool], orders: Path
) -> None:
    *holders, name = where.split(".")
    holder: Any = functools.reduce(getattr, holders, module)
    act = getattr(holder, name)
    before, after = (orders / f"{service()}.{point}-{when}" for when in ("before", "after"))

    @functools.wraps(act)
    def watched(*given: Any, **named: Any) -> Any:
        if not wanted(*given, **named):
            return act(*given, **named)
        _obey(before)
        answer = act(*given, **named)
        _obey(after)
        return answer

    setattr(holder, name, watched)


def _obey(order: Path) -> None:
    if not order.exists():
        return
    try:
        order.rename(order.with_name(f"{order.name}.hit"))
    except FileNotFoundError:  # another process was quicker
        return
    os.kill(os.getpid(), signal.SIGKILL)


if os.environ.get("KILL_AT"):
    sys.meta_path.insert(0, _Finder(Path(os.environ["KILL_AT"])))
