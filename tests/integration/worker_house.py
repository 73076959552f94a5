"""A real Prefect server, warm worker and local Slack over a home with rows, each started by hand.

No supervisor: what a test kills or stops stays so until the test starts it again.
"""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import psutil
import pyarrow as pa
import pytest
from integration.house import eventually, free_ports

from driftloop.clock import Clock
from driftloop.loop import notices
from driftloop.loop.watch import order
from driftloop.records import Decided, Decision, ModelId, Order, State, Window
from driftloop.settings import Settings
from driftloop.up import Service, services
from driftloop.up.services import READY, healthy
from driftloop.wiring import System

MONITORS = Path(__file__).parents[1] / "monitors"
NOW = datetime(2026, 3, 1, tzinfo=UTC)
STANDING = datetime(9999, 1, 1, tzinfo=UTC)
DE = ModelId("eta-de")
RECIPE = '''
"""Boosted trees, once nobody says `hang` any more; notes the process that it runs in."""
import os, time
from pathlib import Path
from driftloop.retrain.recipes import gradient_boosting

HERE = Path(__file__).parent

def patient(family, *, seed, **parameters):
    with (HERE / "pids").open("a") as pids:
        pids.write(f"{os.getpid()}\\n")
    print("fitting", flush=True)
    while (HERE / "hang").exists():
        time.sleep(0.02)
    return gradient_boosting(family, seed=seed, **parameters)
'''


class Home:
    """An installation's files and processes, asked over Prefect's API, the ledger and Slack."""

    def __init__(self, folder: Path, **given: object) -> None:
        self.code = folder / "code"
        self.code.mkdir()
        (self.code / "patient_recipes.py").write_text(RECIPE)
        monitors = folder / "monitors"
        shutil.copytree(MONITORS, monitors)
        with (monitors / "eta.toml").open("a") as file:
            file.write('\n[retrain]\nrecipe = "patient_recipes:patient"\n')
        online, pages, slack, desk, mlflow, prefect = free_ports(6)
        self.settings = Settings(
            home=folder / "home",
            monitors=monitors,
            online_port=online,
            pages_port=pages,
            slack_port=slack,
            desk_port=desk,
            mlflow_port=mlflow,
            prefect_port=prefect,
            maintain_every=3600,
            **given,  # type: ignore[arg-type]
        )
        self.settings.home.mkdir()
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        self.settings.logs.mkdir()
        self.system = System(self.settings)
        Clock(origin=NOW, started=STANDING, speed=1.0).write(self.settings.clock)
        self._services = {each.name: each for each in services(self.settings)}
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    # -- processes --------------------------------------------------------------------------

    def start(self, *names: str) -> None:
        """Start services, all at once, and wait until each is healthy."""
        said = {name: self.said(name) for name in names}
        for name in names:
            self._start(self._services[name])
        for name in names:
            eventually(lambda n=name: self._is_up(n, said[n]), f"{name} to be up", within=120)  # type: ignore[misc]

    def start_beside(self, name: str, *argv: str, **env: str) -> None:
        """Start what is no service of ours with our settings, and wait for nothing."""
        environment = self.settings.environment() | env
        self._start(Service(name=name, argv=(sys.executable, *argv), env=environment))

    def start_apart(self, name: str, *argv: str, **env: str) -> None:
        """Start what has nothing but its own environment, and wait for nothing."""
        self._start(Service(name=name, argv=(sys.executable, *argv), env=env))

    def pid(self, name: str) -> int:
        """Return the service's process id."""
        return self._running[name].pid

    def signal(self, name: str, number: int) -> None:
        """Send a signal to the service's process alone; wait for its death if it is SIGKILL."""
        os.kill(self.pid(name), number)
        if number == signal.SIGKILL:
            self._running[name].wait(10)

    def stop(self) -> None:
        """End whatever runs, with all that it started."""
        for process in self._running.values():
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            finally:
                process.wait(10)

    def said(self, name: str) -> str:
        """Return the service's log."""
        file = self.settings.logs / f"{name}.log"
        return file.read_text() if file.exists() else ""

    def _start(self, service: Service) -> None:
        path = os.pathsep.join(filter(None, (str(self.code), os.environ.get("PYTHONPATH"))))
        with (self.settings.logs / f"{service.name}.log").open("ab") as log:
            self._running[service.name] = subprocess.Popen(
                service.argv,
                env={
                    **os.environ,
                    **service.env,
                    "PYTHONPATH": path,
                    "TMPDIR": str(self.temporary),
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _is_up(self, name: str, said: str) -> bool:
        assert self._running[name].poll() is None, self.said(name)
        service = self._services[name]
        if service.path:
            return healthy(service)
        return READY.search(self.said(name)[len(said) :].encode()) is not None

    # -- rows, orders, incidents ------------------------------------------------------------

    def history(self, days: Sequence[int], *, model: ModelId = DE) -> None:
        """Log twenty labelled rows of a model of eta for each of `days` ago."""
        rng = np.random.default_rng(days[0])
        count = 20 * len(days)
        at = [NOW - timedelta(days=ago) + timedelta(hours=n) for ago in days for n in range(20)]
        distance, load = rng.uniform(0, 1000, count), rng.uniform(0, 1, count)
        table = pa.table(
            {
                "id": [f"{when:%m%d%H}" for when in at],
                "model": [model] * count,
                "asked_at": at,
                "distance": distance,
                "load": load,
                "vehicle": rng.choice(["van", "truck", "bike"], count),
                "label": 10 + distance / 20 + 20 * load + rng.normal(0, 2, count),
                "observed_at": at,
            }
        )
        with self.system.spool("history") as spool:
            spool.history(self.system.fleet.family_named("eta"), table)
        with self.system.ingester() as ingester:
            ingester.ingest()

    def made(self, key: str, *, incident: str | None = None, model: ModelId = DE) -> Order:
        """Return an order for a model of eta as of now."""
        eta = self.system.fleet.family_named("eta")
        made = order(eta, model, key=key, reason="by hand", now=NOW)
        return replace(made, incident=incident)

    def open_incident(self, key: str) -> None:
        """Record a decision that opened an incident, and tell it."""
        system = self.system
        decision = Decision(
            version=1,
            key=key,
            model=DE,
            at=NOW,
            state=State.DECAYING,
            reason="worse",
            window=Window(model=DE, start=NOW, end=NOW, known_at=NOW),
            verdicts=(),
            retrain=True,
            incident=key,
            opens=True,
        )
        system.ledger.append(Decided(model=DE, at=NOW, decision=decision), key=key)
        family, owner = system.fleet.family(DE), system.fleet.owner(DE)
        assert system.teller.tell(notices.opened(decision, family, owner, system.places)).told

    def hang(self, *, on: bool) -> None:
        """Let fits that come, or are under way, hang; or go on."""
        (self.code / "hang").touch() if on else (self.code / "hang").unlink()

    def fits(self) -> list[int]:
        """Return the process ids of all fits so far, oldest first."""
        file = self.code / "pids"
        return [int(line) for line in file.read_text().split()] if file.exists() else []

    @contextmanager
    def mlflow_locked(self) -> Iterator[None]:
        """Hold the lock of MLflow's database."""
        with closing(sqlite3.connect(self.settings.home / "mlflow" / "mlflow.db")) as database:
            database.execute("BEGIN EXCLUSIVE")
            yield

    def messages(self) -> str:
        """Return all that the local Slack was told, as JSON."""
        return json.dumps(
            httpx.get(f"http://127.0.0.1:{self.settings.slack_port}/messages.json").json()
        )

    def thread(self, incident: str) -> list[str]:
        """Return the keys of what the local Slack was told of an incident, its page first."""
        told = [
            (each["ts"], each.get("thread_ts"), each["metadata"]["event_payload"]["key"])
            for each in json.loads(self.messages())
        ]
        (page,) = (ts for ts, _, key in told if key == incident)
        return [key for ts, thread, key in told if page in (ts, thread)]

    # -- Prefect ----------------------------------------------------------------------------

    def call(self, path: str, **body: object) -> Any:
        """Return what Prefect's API answers to a POST."""
        answer = httpx.post(f"{self.settings.prefect_api}/{path}", json=body, timeout=30)
        answer.raise_for_status()
        return answer.json()

    def runs(self, flow: str) -> list[dict[str, Any]]:
        """Return the flow's runs that are not in the future, oldest first."""
        found = self.call(
            "flow_runs/filter", flows={"name": {"any_": [flow]}}, sort="EXPECTED_START_TIME_ASC"
        )
        return [run for run in found if run["state_name"] != "Scheduled"]

    def passes(self) -> set[tuple[str, str]]:
        """Return the passes that came to their end, and what each said."""
        ended = [each for each in self.runs("watch") if each["state_type"] == "COMPLETED"]
        return {(each["id"], each["state"]["message"]) for each in ended}

    def run(self, id_: str) -> dict[str, Any]:
        """Return a run."""
        answer = httpx.get(f"{self.settings.prefect_api}/flow_runs/{id_}", timeout=30)
        found: dict[str, Any] = answer.json()
        return found

    def order(self, made: Order) -> str:
        """Return the id of a run that carries the order out, as a pass would have started it."""
        url = f"{self.settings.prefect_api}/deployments/name/renew/driftloop"
        deployment = httpx.get(url, timeout=30).json()["id"]
        started = self.call(
            f"deployments/{deployment}/create_flow_run",
            parameters={"order": msgspec.to_builtins(made)},
            idempotency_key=made.key,
        )
        return str(started["id"])

    def cancel(self, id_: str) -> None:
        """Cancel a run as the UI does."""
        self.call(f"flow_runs/{id_}/set_state", state={"type": "CANCELLING"})


@contextmanager
def home(folder: Path, **given: object) -> Iterator[Home]:
    """Give an installation; end its processes afterwards."""
    with ExitStack() as stack:
        made = Home(folder, **given)
        # A recipe must be importable wherever the monitor files are read.
        stack.enter_context(pytest.MonkeyPatch.context()).syspath_prepend(str(made.code))
        stack.callback(made.stop)
        yield made
        if (made.settings.home / "lake").exists():
            made.system.log.close()
        made.system.ledger.close()


def alive(pid: int) -> bool:
    """Return whether there is such a process, and no mere zombie."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
