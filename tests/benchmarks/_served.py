"""A fleet that answers: real ONNX champions in a home, and their service as people start it.

Version n answers n * 1000 and what the model says, which lies within 500 of 0: an answer whose
version and value disagree would show.
"""

import hashlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from driftloop.records import MODEL_FILE, Head, ModelId
from driftloop.spec import Family
from driftloop.up import Supervisor, services, status
from tests.benchmarks._load import ID
from tests.benchmarks._raw import Line
from tests.benchmarks._world import NOW, PLACES, WORDS, World, columns, times

THOUSAND = 1000.0
FITTED = 20_000
"""Rows that the one model under all of them is fitted on."""
AT = 200
"""Places that are looked up."""
BEFORE = 50
"""Events of each before the first request."""
VISITS, VISITS_EVERY = 20, 0.1
"""Events in one request, and seconds between two."""


@dataclass(frozen=True, slots=True)
class Served:
    """A home whose family `quiet` has a champion for each model."""

    made: World
    family: Family
    fitted: Any
    lowered: bytes

    def head(self, model: ModelId, version: int) -> Head:
        """Return a head whose file, unlike any other's, is written."""
        own = self.family.models.index(model) / 1000.0
        content = _answering(self.lowered, version * THOUSAND + own)
        digest = hashlib.sha256(content).hexdigest()
        folder = self.made.settings.artifacts / model / digest[:16]
        folder.mkdir(parents=True)
        (folder / MODEL_FILE).write_bytes(content)
        file = str(folder / MODEL_FILE)
        return Head(model=model, epoch=version, version=version, digest=digest, artifact=file)

    def move(self, head: Head, previous: Head | None) -> None:
        """Make `head` the champion, as a deployment does."""
        self.made.system.ledger.move(head, at=NOW, previous=previous, reason="benchmark")

    def told(self, count: int) -> dict[str, np.ndarray]:
        """Return the features of `count` rows, and the outcome `label`."""
        return told(self.made, self.family, count)

    def requests(
        self, file: Path, *, many: int, rows: int = 1, every: int = 1, models: int | None = None
    ) -> Path:
        """Write `many` requests for the models in turn; each `every`-th has `rows` rows.

        With `models` only so many of them are asked.

        The bodies rotate: one row again and again would flatter the caches.
        """
        told = {name: values.tolist() for name, values in self.told(many).items()}
        told["place"] = [place(int(number)) for number in self.made.rng.integers(0, AT, many)]
        sent = [name for name, feature in self.family.features.items() if feature.requested]
        asked = self.family.models[:models]
        at = NOW.isoformat()

        def row(number: int, part: str) -> dict[str, Any]:
            given = {name: told[name][number % many] for name in sent}
            return {"id": f"{ID.decode()}{part}", "asked_at": at, **given}

        with file.open("w") as lines:
            for number in range(many):
                model = asked[number % len(asked)]
                body: Any = row(number, "")
                if rows > 1 and number % every == 0:
                    body = {"rows": [row(number + n, f".{n}") for n in range(rows)]}
                lines.write(f"/v1/models/{model}/predict {json.dumps(body)}\n")
        return file


def place(number: int) -> str:
    """Return the name of a place."""
    return f"place-{number:03}"


def write_places(made: World) -> None:
    """Write the table of places, and read it into the online store."""
    table = {"place": [place(n) for n in range(AT)], "size": [float(n) for n in range(AT)]}
    pq.write_table(pa.table(table), made.settings.home / PLACES)
    made.system.refresh("places")


@contextmanager
def visits(port: int) -> Iterator[None]:
    """Send events for as long as the block takes, once each place has some."""
    ended = threading.Event()
    counted = count()

    def send(caller: HTTPConnection, many: int) -> None:
        at = (NOW - timedelta(minutes=20) + timedelta(milliseconds=next(counted))).isoformat()
        events = [{"at": at, "place": place(n % AT), "amount": n % 7 + 0.1} for n in range(many)]
        caller.request("POST", "/v1/events/visits", json.dumps({"events": events}))
        answer = caller.getresponse()
        if answer.read() and answer.status != HTTPStatus.ACCEPTED:
            raise RuntimeError(f"events were answered with {answer.status}")

    def trickle() -> None:
        while not ended.wait(VISITS_EVERY):
            try:
                send(caller, VISITS)
            except (OSError, HTTPException):
                caller.close()  # its worker was killed; the next request connects anew

    with closing(HTTPConnection("127.0.0.1", port, timeout=10.0)) as caller:
        for _ in range(BEFORE):
            send(caller, AT)
        with ThreadPoolExecutor(1) as thread:
            sending = thread.submit(trickle)
            try:
                yield
            finally:
                ended.set()
                sending.result()


@contextmanager
def service(served: Served, *names: str) -> Iterator[psutil.Process]:
    """Run the service as `driftloop up` does, and yield its process, those of `names` beside it."""
    made = served.made
    known = services(made.settings, made.system.fleet.sources)
    wanted = tuple(each for each in known if each.name in names)
    with Supervisor(made.settings, wanted):
        pids = {each.name: each.pid for each in status(made.settings.home)}
        yield psutil.Process(pids["online"])


def serve(made: World) -> Served:
    """Fit and lower one model, and make it, each time a bit otherwise, everybody's champion."""
    from driftloop.optimize import lower
    from driftloop.retrain import fit

    family = made.system.fleet.family_named("quiet")
    table: dict[str, Any] = {"event_time": pa.array(times(FITTED, days=55.5))}
    fitted = fit(family, pa.table(table | told(made, family, FITTED)), seed=7)
    lowered = lower(fitted.pipeline, family)
    served = Served(made, family, fitted, lowered)
    for model in family.models:
        served.move(served.head(model, 1), None)
    return served


def told(made: World, family: Family, count: int) -> dict[str, np.ndarray]:
    """Return the family's features of `count` rows, and the outcome `label`."""
    found = columns(made.rng, count)
    for name in set(WORDS) & set(family.numeric):
        found[name] = np.array([float(word.removeprefix("kind-")) for word in found[name]])
    return found


def load(port: int, *flags: str) -> "subprocess.Popen[str]":
    """Start a client of what listens on `port`; `seen` is what it saw."""
    argv = [sys.executable, "-m", "tests.benchmarks._load", f"--port={port}", *flags]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)


def seen(client: "subprocess.Popen[str]") -> Line:
    """Return what a client saw, once it has ended."""
    said, _ = client.communicate(timeout=300.0)
    if client.returncode:
        raise RuntimeError(f"the client ended with {client.returncode}")
    found: Line = json.loads(said)
    return found


def spent(process: psutil.Process) -> float:
    """Return the CPU seconds of a process and of all that it started, ended ones included."""
    return sum(sum(each.cpu_times()[:4]) for each in (process, *process.children(recursive=True)))


def _answering(lowered: bytes, more: float) -> bytes:
    """Return the model, whose answers are `more` higher."""
    import onnx
    from onnx import TensorProto, helper

    model = onnx.load_from_string(lowered)
    graph = model.graph
    answer = graph.output[0].name
    for node in graph.node:
        node.output[:] = ["before" if name == answer else name for name in node.output]
    graph.initializer.append(helper.make_tensor("more", TensorProto.FLOAT, [], [more]))
    graph.node.append(helper.make_node("Add", ["before", "more"], [answer]))
    return model.SerializeToString()
