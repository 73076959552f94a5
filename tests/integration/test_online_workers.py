"""The online service as `driftloop up` runs it: workers on one socket, killed and told to end."""

import hashlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from driftloop.prediction_log.spool import recover
from driftloop.records import Head, ModelId
from driftloop.settings import Settings
from driftloop.wiring import System

MONITORS = Path(__file__).parents[1] / "monitors"
DE = ModelId("eta-de")
ROW = {"asked_at": "2026-03-01T10:00:00Z", "distance": 12, "load": 0.5, "vehicle": "van"}


def constant(folder: Path, answer: float, epoch: int) -> Head:
    """Return the head of a model that answers one number to every row, as a file in `folder`."""
    from onnx import TensorProto, helper

    given = helper.make_tensor_value_info("distance", TensorProto.FLOAT, [None, 1])
    told = helper.make_tensor_value_info("answer", TensorProto.FLOAT, [None, 1])
    nodes = [
        helper.make_node("Mul", ["distance", "none"], ["zero"]),
        helper.make_node("Add", ["zero", "answer_"], ["answer"]),
    ]
    numbers = [
        helper.make_tensor(name, TensorProto.FLOAT, [1], [value])
        for name, value in (("none", 0.0), ("answer_", answer))
    ]
    graph = helper.make_graph(nodes, "constant", [given], [told], numbers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    content = model.SerializeToString()
    file = folder / f"{epoch}.onnx"
    file.write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    return Head(model=DE, epoch=epoch, version=epoch, digest=digest, artifact=str(file))


class Online:
    """The service in processes of its own."""

    def __init__(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.settings = Settings(
            home=folder / "home",
            monitors=MONITORS,
            online_port=self.port,
            workers=2,
            poll_every=0.05,
            drain_within=2.0,
        )
        self.system = System(self.settings)
        self.folder = folder
        self.head: Head | None = None
        self.swap(10.0)
        self.log = (folder / "log").open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "driftloop", "_online"],
            env={**os.environ, **self.settings.environment()},
            stdout=self.log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def swap(self, answer: float) -> Head:
        """Make another version champion."""
        before, epoch = self.head, (self.head.epoch if self.head else 0) + 1
        self.head = constant(self.folder, answer, epoch)
        self.system.ledger.move(self.head, at=datetime.now(UTC), previous=before, reason="a test's")
        return self.head

    def workers(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children()

    def both_accept(self) -> bool:
        """Return whether both workers have shown how many connections they have."""
        file = self.settings.workers_shown / "connections"
        counts = memoryview(file.read_bytes()).cast("i") if file.exists() else [2**31 - 1]
        return max(counts) < 2**31 - 1

    def get(self, path: str) -> Any:
        return httpx.get(f"http://127.0.0.1:{self.port}{path}", timeout=10).json()

    def end(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.log.close()
        self.system.ledger.close()


class Callers:
    """Threads that ask on kept connections, one request at a time, until told to stop."""

    def __init__(self, port: int, number: int, prefix: str) -> None:
        self._port, self._prefix = port, prefix
        self._stop = threading.Event()
        self.answered: set[str] = set()
        self.statuses: set[int] = set()
        self.failed = 0
        self.told_to_close = 0
        self._threads = [threading.Thread(target=self._ask, args=(n,)) for n in range(number)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(20)
            assert not thread.is_alive()

    def _ask(self, number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        count = 0
        while not self._stop.is_set():
            count += 1
            id_ = f"{self._prefix}-{number}-{count}"
            try:
                connection.request(
                    "POST", f"/v1/models/{DE}/predict", json.dumps({**ROW, "id": id_})
                )
                reply = connection.getresponse()
                said = json.loads(reply.read())
            except ConnectionRefusedError:
                time.sleep(0.01)  # nobody took this request in hand
                connection.close()
            except (OSError, http.client.HTTPException):
                self.failed += 1
                connection.close()
            else:
                self.statuses.add(reply.status)
                self.told_to_close += reply.headers.get("Connection") == "close"
                if reply.status == 200:
                    self.answered.add(said["predictions"][0]["id"])
        connection.close()


def until(true: Callable[[], Any]) -> None:
    patience = time.monotonic() + 60
    while not true():
        assert time.monotonic() < patience, "it did not become true in time"
        time.sleep(0.02)


def logged(online: Online) -> set[str]:
    """Return the ids that are in the spool, once what dead workers left is sealed."""
    found = set()
    for folder in online.settings.spool.iterdir():
        if folder.is_dir():
            if not psutil.pid_exists(int(folder.name.rpartition("-")[2])):
                recover(folder)
            for segment in (*folder.glob("*.ndjson"), *folder.glob("*.open")):
                found |= {json.loads(line)["id"] for line in segment.read_bytes().splitlines()}
    return found


@pytest.fixture
def online(tmp_path: Path) -> Iterator[Online]:
    running = Online(tmp_path)
    until(running.both_accept)
    yield running
    running.end()


def test_a_killed_worker_costs_what_it_had_in_hand(online: Online) -> None:
    """The other answers, no answered row is lost, another follows; told to end, none fails."""
    callers = Callers(online.port, 8, "kill")
    until(lambda: len(callers.answered) > 200)
    victim = online.workers()[0]
    victim.kill()
    before = len(callers.answered)
    until(lambda: len(callers.answered) > before + 200)
    until(lambda: len(online.workers()) == 2 and online.both_accept())
    newer = online.swap(20.0)
    until(lambda: online.get("/v1/models")["models"][1]["version"] == newer.version)
    callers.stop()
    assert callers.statuses == {200}
    assert callers.failed <= 8
    assert callers.answered <= logged(online)
    until(lambda: online.get("/v1/service")["requests"] > 200)
    assert online.get("/v1/service")["errors"] == 0
    counted = httpx.get(f"http://127.0.0.1:{online.port}/metrics").text
    assert "driftloop_online_workers 2.0" in counted

    callers = Callers(online.port, 8, "end")
    until(lambda: len(callers.answered) > 200)
    online.process.terminate()
    assert online.process.wait(20) == 0
    callers.stop()
    assert callers.statuses == {200}
    assert callers.failed == 0
    assert callers.told_to_close > 0
    assert callers.answered <= logged(online)


def test_workers_do_not_outlive_who_keeps_them(online: Online) -> None:
    """When it is killed they finish what they have and end, and the port is free again."""
    workers = online.workers()
    assert len(workers) == 2
    online.process.kill()
    online.process.wait()
    until(lambda: not any(worker.is_running() for worker in workers))
    with pytest.raises(httpx.ConnectError):
        online.get("/healthz")
    socket.create_server(("127.0.0.1", online.port)).close()
