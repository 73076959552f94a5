"""A whole installation that `driftloop up` runs, to be killed piece by piece."""

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
from integration.house import eventually, free_ports
from kill.harness import Orders, Point
from kill.invariants import not_begun
from kill.traffic import Now, Traffic, drawn, spread

from driftloop.clock import Clock
from driftloop.records import Decided, ModelId, Moved, Ordered, Window
from driftloop.settings import Settings
from driftloop.up import status
from driftloop.wiring import System

MONITORS = Path(__file__).parents[1] / "monitors"
BEGIN = datetime(2026, 3, 1, tzinfo=UTC)
STANDING = datetime(9999, 1, 1, tzinfo=UTC)
"""A clock that is yet to start shows its origin for as long."""
DE, FR = ModelId("eta-de"), ModelId("eta-fr")
MODELS = (DE, FR)
POLICY = '\n[gate]\nholdout = "6d"\n[retrain]\nspan = "14d"\n[quality]\nstale = "30d"\n'
"""A candidate is trained and gated on the days of one harm; days without rows are no fault."""
A_DAY = 60
"""Labelled rows a day."""
AT_ONCE = 40
DAYS = 12
PATIENCE = 240.0
"""Seconds for what a machine with nothing else to do is done with in ten."""
LEASE = 15.0
UNDER_WAY = ("RUNNING", "PENDING", "CANCELLING")


@dataclass
class Town:
    """The installation, its clock, those who ask it, and orders to die."""

    settings: Settings
    system: System
    orders: Orders
    traffic: Traffic
    now: Now
    process: subprocess.Popen[bytes]
    said: Path
    killed: list[str]
    harms: int = 0
    factor: float = 1.0
    """How long all takes in the present world."""

    # -- what happens to it -----------------------------------------------------------------

    def step(self, days: float) -> None:
        """Let days pass at once."""
        self.now.shown += timedelta(days=days)
        stand_at(self.settings, self.now.shown)

    def decided(self) -> bool:
        """Return whether every model was decided on at the present moment."""
        ledger = self.system.ledger
        newest = [ledger.facts(Decided, model=model, last=1)[-1:] for model in MODELS]
        return all(facts and facts[0].at == self.now.shown for facts in newest)

    def days(self, factor: float) -> None:
        """Let days pass, with rows and labels of a world in which all takes `factor` as long.

        On return the log has them all, and no decision on them was taken yet.
        """
        self.step(DAYS)
        eventually(self.decided, "a decision without labels", PATIENCE)
        self.harm(factor)
        eventually(self.all_labelled, "all labels in the log", PATIENCE)

    def harm(self, factor: float) -> None:
        """Have rows of the last days answered, and labelled as of a world of that `factor`."""
        self.harms += 1
        before = self.now.shown - timedelta(days=DAYS)
        chance = random.Random(self.harms)
        with self.traffic.client() as http:
            for model in MODELS:
                times = spread(before, self.now.shown, A_DAY * DAYS)
                for first in range(0, len(times), AT_ONCE):
                    self._rows(http, model, times[first : first + AT_ONCE], chance, factor)

    def _rows(
        self,
        http: httpx.Client,
        model: ModelId,
        times: Sequence[datetime],
        chance: random.Random,
        factor: float,
    ) -> None:
        """Ask until rows are answered, under new ids each time, and hand in their labels."""
        outcomes: dict[str, float] = {}

        def answered() -> bool:
            tag = f"{model}-{self.harms}-{chance.randrange(16**8):08x}"
            made = [
                drawn(chance, id_=f"{tag}-{n}", at=at, factor=factor) for n, at in enumerate(times)
            ]
            outcomes.clear()
            outcomes.update({row["id"]: minutes for row, minutes in made})
            return self.traffic.ask(http, model, [row for row, _ in made])

        eventually(answered, "an answer", PATIENCE)
        self.traffic.label(http, model, outcomes)

    def all_labelled(self) -> bool:
        """Return whether the log has every label that was handed in."""
        whole = {"start": BEGIN, "end": self.now.shown, "known_at": self.now.shown}
        family = self.system.fleet.family(DE)
        wanted = self.harms * A_DAY * DAYS
        found = [
            self.system.log.summary(family, Window(model=model, **whole)).labels for model in MODELS
        ]
        return found == [wanted] * len(MODELS)

    def ended(self) -> bool:
        """Return whether nothing is left to renew: every order has its end."""
        ledger = self.system.ledger
        outcomes = {key: outcome for key, outcome, _ in claims(self.settings, "renew/")}
        ordered, decided = ledger.facts(Ordered), ledger.facts(Decided)
        begun = [fact.order.key for fact in ordered]
        waiting = [each.key for each in not_begun(decided, ordered, ledger.facts(Moved))]
        return all(outcomes.get(f"renew/{key}") for key in begun + waiting)

    # -- killing ----------------------------------------------------------------------------

    def kill_at(self, *names: str) -> None:
        """Let services die at points, as in `worker.move-before`, each once."""
        for name in names:
            service, _, point = name.partition(".")
            self.orders.give(Point(service, point))

    def died_at(self, *names: str) -> None:
        """Wait until each of the points was hit."""
        for name in names:
            service, _, point = name.partition(".")
            self._died_at(Point(service, point))
            self.killed.append(name)

    def _died_at(self, point: Point) -> None:
        eventually(lambda: self.orders.was_obeyed(point), f"a death at {point}", PATIENCE)

    def pids(self) -> dict[str, int]:
        """Return the process of each service that is healthy now."""
        return {
            each.name: each.pid
            for each in status(self.settings.home)
            if each.pid is not None and each.state == "healthy"
        }

    def kill(self, name: str) -> bool:
        """End the service's process by SIGKILL; False when it is not up just now."""
        pid = self.pids().get(name)
        if pid is None:
            return False
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return False
        self.killed.append(name)
        return True

    @contextmanager
    def dying(self, chance: random.Random, names: Sequence[str]) -> Iterator[None]:
        """Kill one of the services every second or so until the block ends."""
        over = threading.Event()

        def kill() -> None:
            while not over.wait(chance.uniform(0.2, 2.0)):
                self.kill(chance.choice(names))

        killer = threading.Thread(target=kill)
        killer.start()
        try:
            yield
        finally:
            over.set()
            killer.join()

    # -- Prefect ----------------------------------------------------------------------------

    def runs(self, flow: str) -> list[dict[str, Any]]:
        """Return all runs of a flow that are no longer merely planned."""
        found: list[dict[str, Any]] = []
        while True:
            answer = httpx.post(
                f"{self.settings.prefect_api}/flow_runs/filter",
                json={
                    "flows": {"name": {"any_": [flow]}},
                    "flow_runs": {"state": {"type": {"not_any_": ["SCHEDULED"]}}},
                    "sort": "EXPECTED_START_TIME_ASC",
                    "offset": len(found),
                },
                timeout=30,
            )
            page = answer.raise_for_status().json()
            if not page:
                return found
            found += page

    def logs(self) -> str:
        """Return the ends of the services' logs, for a failure's message."""
        files = sorted(self.settings.logs.glob("*.log"))
        tails = [f"== {file.name}\n{file.read_text()[-1500:]}" for file in files]
        return "\n".join([self.said.read_text()[-3000:], *tails])


def claims(settings: Settings, prefix: str) -> list[tuple[str, str | None, int]]:
    """Return key, outcome and attempts of the ledger's claims under `prefix`."""
    with closing(sqlite3.connect(settings.home / "ledger.db", timeout=30.0)) as db:
        return db.execute(
            "SELECT key, outcome, attempts FROM intents WHERE substr(key, 1, ?) = ? ORDER BY key",
            (len(prefix), prefix),
        ).fetchall()


@contextmanager
def town(folder: Path) -> Iterator[Town]:
    """Give an installation of two models with their first champions; stop it afterwards."""
    online, pages, slack, mlflow, prefect = free_ports(5)
    settings = Settings(
        home=folder / "home",
        monitors=_monitors(folder / "monitors"),
        online_port=online,
        pages_port=pages,
        slack_port=slack,
        mlflow_port=mlflow,
        prefect_port=prefect,
        watch_every=3.0,
        maintain_every=24 * 3600.0,
        ingest_every=0.5,
        seal_every=0.2,
        poll_every=0.25,
        # A process that is killed is then the service, which the supervisor starts anew.
        workers=1,
    )
    settings.home.mkdir()
    stand_at(settings, BEGIN)
    orders = Orders(folder / "orders", lease=LEASE)
    orders.folder.mkdir()
    system = System(settings)
    said = folder / "up.txt"
    with said.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "driftloop", "up"],
            env={**os.environ, **settings.environment(), **orders.environment()},
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        eventually(
            lambda: "Ctrl-C stops everything" in said.read_text() or process.poll() is not None,
            "everything up",
            PATIENCE,
        )
        assert process.poll() is None, said.read_text()
        made = Town(
            settings,
            system,
            orders,
            Traffic(settings.online_url),
            Now(BEGIN),
            process,
            said,
            killed=[],
        )
        _first_champions(made)
        with system.log:
            yield made
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(60)
        system.ledger.close()


def _first_champions(made: Town) -> None:
    chance = random.Random(0)
    rows: list[dict[str, Any]] = []
    for model in MODELS:
        for n, at in enumerate(spread(BEGIN - timedelta(days=14), BEGIN, 14 * A_DAY)):
            row, minutes = drawn(chance, id_=f"{model}-before-{n}", at=at)
            known = {"model": model, "label": minutes, "asked_at": at, "observed_at": at}
            rows.append({**row, **known})
    with made.system.spool("history") as spool:
        spool.history(made.system.fleet.family(DE), pa.Table.from_pylist(rows))
    assert made.system.is_read(within=PATIENCE)
    subprocess.run(
        [sys.executable, "-m", "driftloop", "train"],
        env={**os.environ, **made.settings.environment()},
        check=True,
        stdout=subprocess.DEVNULL,
        timeout=PATIENCE,
    )
    assert [head.version for head in made.system.ledger.heads()] == [1, 1]


def _monitors(folder: Path) -> Path:
    shutil.copytree(MONITORS, folder, ignore=shutil.ignore_patterns("churn.toml"))
    family = folder / "eta.toml"
    text = family.read_text()
    # What is harmed is ten times as bad; what a few days' chance makes of a model is no harm.
    for usual, wide in (("warn = 0.15", "warn = 0.7"), ("alarm = 0.3", "alarm = 1.0")):
        assert usual in text
        text = text.replace(usual, wide)
    family.write_text(text + POLICY)
    return folder


def stand_at(settings: Settings, at: datetime) -> None:
    """Let the installation's clock stand still at `at`."""
    Clock(origin=at, started=STANDING, speed=1.0).write(settings.clock)
