"""Two serving machines and a loop, which share nothing but stores: PostgreSQL, S3, a folder.

A machine is a home of its own with its own services; all run here, and the stores are real: a
PostgreSQL server with a password, and S3 over a socket.
"""

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import stores
from integration.house import eventually, flow_runs, free_ports

from driftloop.records import Decided, Measured, ModelId, Passed
from driftloop.settings import Settings
from driftloop.up import status
from driftloop.wiring import System

if TYPE_CHECKING:
    from stores import Postgres

pytestmark = pytest.mark.timeout(600)  # what is waited for has limits of its own
MONITORS = Path(__file__).parents[1] / "monitors"
DE = ModelId("eta-de")
WATCHES = """
from driftloop.settings import read_settings
from driftloop.wiring import System
for seen in System(read_settings()).watcher.watch():
    print(seen.model, seen.problem)
"""


@dataclass
class Town:
    """What the machines share."""

    folder: Path
    shared: Mapping[str, Any]
    monitors: Path
    stack: ExitStack
    given: list[str] = field(default_factory=list)

    def machine(self, name: str, **given: Any) -> Settings:
        """Return the settings of a machine: a home of its own, and the stores."""
        names = ("online", "pages", "slack", "desk", "mlflow", "prefect")
        ports = {
            f"{name}_port": port for name, port in zip(names, free_ports(len(names)), strict=True)
        }
        paces = {"ingest_every": 0.2, "seal_every": 0.2, "poll_every": 0.2, "watchdog_every": 1.0}
        return Settings(
            home=self.folder / name,
            monitors=self.monitors,
            models=DE,
            **{**ports, **paces, **self.shared, **given},
        )

    def up(self, settings: Settings, only: str) -> None:
        """Start these services of a machine, and wait for them."""
        settings.home.mkdir(exist_ok=True)
        said = settings.home / "up.txt"
        with said.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "driftloop", "up", "--only", only],
                env=environment(settings),
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.stack.callback(end, process)
        eventually(
            lambda: "Ctrl-C stops everything" in said.read_text() or process.poll() is not None,
            f"{only} of {settings.home.name}",
            so_far=said.read_text,
        )
        assert process.poll() is None, said.read_text()

    def said(self) -> str:
        """Return everything that any machine wrote for people."""
        files = [*self.folder.rglob("*.log"), *self.folder.rglob("*.txt")]
        files += self.folder.rglob("run/*.json")
        return "\n".join(file.read_text(errors="replace") for file in files)


@pytest.fixture
def town(tmp_path: Path, postgresql: "Postgres", s3_endpoint: str, database: str) -> Iterator[Town]:
    """Empty stores, and the monitors of one model."""
    monitors = tmp_path / "monitors"
    shutil.copytree(MONITORS, monitors, ignore=shutil.ignore_patterns("churn.toml"))
    with (monitors / "eta.toml").open("a") as file:
        file.write('[gate]\nholdout = "3d"\n[retrain]\nspan = "28d"\ntime_limit = "150s"\n')
    shared = {
        "ledger": postgresql.database(),
        "catalog": database,
        "lake_files": f"s3://{stores.BUCKET}/{database.rpartition('/')[2]}",
        "s3_endpoint": s3_endpoint,
        "s3_key": stores.KEY,
        "s3_secret": stores.SECRET,
        "artifacts": tmp_path / "artifacts",
        "mlflow": postgresql.database(),
    }
    with ExitStack() as stack:
        yield Town(tmp_path, shared, monitors, stack)


@dataclass
class Traffic:
    """Somebody who asks one machine, over and over, and goes on when it is away."""

    name: str
    settings: Settings
    answered: dict[str, int] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Ask until the end of the block."""
        over = threading.Event()

        def ask() -> None:
            with httpx.Client(base_url=self.settings.online_url, timeout=10.0) as http:
                number = 0
                while not over.wait(0.01):
                    number += 1
                    body = asked(f"{self.name}-{number}", seed=number)
                    try:
                        answer = http.post(f"/v1/models/{DE}/predict", json=body)
                    except httpx.HTTPError:
                        continue  # nobody was promised anything
                    if answer.is_success:
                        self.answered[body["id"]] = answer.json()["version"]
                    else:
                        self.refused.append(answer.text)

        thread = threading.Thread(target=ask)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def label(self) -> None:
        """Hand in the outcome of all that was answered."""
        labels = [{"id": id_, "value": 20.0} for id_ in self.answered]
        url = f"{self.settings.online_url}/v1/models/{DE}/labels"
        assert httpx.post(url, json={"labels": labels}, timeout=30).status_code == 202


@pytest.mark.long
def test_two_machines_serve_and_one_loop_watches(town: Town, tmp_path: Path) -> None:
    """Every answered id is in the one lake exactly once, whoever is killed; all is decided on.

    A head that is moved in the one ledger is soon answered by both machines.
    """
    one, two, loop = (town.machine(name) for name in ("one", "two", "loop"))
    starting = [
        threading.Thread(target=town.up, args=(each, "online,ingester")) for each in (one, two)
    ]
    for thread in starting:
        thread.start()
    for thread in starting:
        thread.join()
    for each in (one, two):
        assert {service.name for service in status(each.home)} == {"online", "ingester"}
    pq.write_table(pa.Table.from_pylist(history(600)), tmp_path / "history.parquet")
    run(one, "backfill", "eta", str(tmp_path / "history.parquet"))
    assert "promoted: first version" in run(loop, "train")
    again = run(two, "backfill", "eta", str(tmp_path / "history.parquet"), code=2)
    assert "600 of 600 rows are in the log already" in again

    traffic = [Traffic("one", one), Traffic("two", two)]
    for each in (one, two):
        eventually(lambda s=each: version(s) == 1, "the first version answers")  # type: ignore[misc]
    with traffic[0].asking(), traffic[1].asking():
        eventually(lambda: all(len(each.answered) > 50 for each in traffic), "traffic")
        kill(one, "ingester")
        kill(two, "online")
        before = [len(each.answered) for each in traffic]
        eventually(
            lambda: all(
                len(each.answered) > count + 100
                for each, count in zip(traffic, before, strict=True)
            ),
            "traffic after the kills",
        )
    assert not traffic[0].refused
    for each in traffic:
        each.label()

    system = System(loop)
    promised = {id_ for each in traffic for id_ in each.answered}
    eventually(lambda: not promised - logged(system).keys(), "every answered id in the lake")
    eventually(lambda: labelled(system) >= len(promised), "every label in the lake")
    assert {id_: n for id_, n in logged(system).items() if n != 1} == {}

    watched = subprocess.run(
        [sys.executable, "-c", WATCHES],
        env=environment(loop),
        capture_output=True,
        text=True,
        check=True,
    )
    assert watched.stdout == f"{DE} None\n", watched.stderr
    measured = system.ledger.facts(Measured)[-1]
    assert measured.rows >= len(promised)
    assert measured.labels >= len(promised)
    assert system.ledger.facts(Decided)[-1].decision.version == 1

    head = system.ledger.heads()[0]
    system.ledger.move(
        replace(head, epoch=2, version=2), at=datetime.now(UTC), previous=head, reason="by hand"
    )
    for each in (one, two):
        eventually(lambda s=each: version(s) == 2, "the moved head answers")  # type: ignore[misc]

    told = run(loop, "trace", next(iter(traffic[1].answered)))
    assert "predicted" in told
    assert f"{DE}" in told
    assert "measurements" in run(loop, "prune", "--dry-run")
    refused = run(one, "backup", str(tmp_path / "home.tar"), code=2)
    assert "ledger, catalog, lake_files, mlflow, artifacts" in refused
    assert "pg_dump" in refused
    shown = run(one, "settings") + run(one, "status")
    assert "ours:***@127.0.0.1" in shown
    for secret in (stores.PASSWORD, stores.QUOTED, stores.SECRET):
        assert secret not in town.said() + shown
    assert not list((one.home).rglob("*.parquet"))


@pytest.mark.long
def test_the_loop_runs_on_a_prefect_that_runs_elsewhere(town: Town) -> None:
    """Prefect on PostgreSQL on one machine, the worker on another, where none is started."""
    binaries = stores.full()
    if binaries is None:
        pytest.skip("Debian's postgresql is not installed: Prefect needs its pg_trgm")
    with stores.postgres(binaries) as server, town.stack:
        database = server.database()
        servers = town.machine("servers", prefect_database=database)
        town.up(servers, "prefect,slack")
        with psycopg.connect(database) as con:
            found = con.execute("SELECT count(*) FROM pg_tables WHERE tablename = 'flow_run'")
            assert found.fetchone() == (1,)
        loop = town.machine(
            "loop",
            prefect=servers.prefect_api,
            slack_api=servers.slack_base,
            watch_every=2.0,
        )
        refused = run(loop, "up", "--only", "worker,prefect", code=2)
        assert "prefect runs elsewhere" in refused
        town.up(loop, "worker,ingester")
        system = System(loop)
        eventually(lambda: system.ledger.facts(Passed, last=1), "a pass")
        eventually(lambda: "COMPLETED" in ended(servers, "watch"), "a run of `watch` over there")
        for secret in (stores.PASSWORD, stores.QUOTED, stores.SECRET):
            assert secret not in town.said()


def kill(settings: Settings, name: str) -> None:
    """Kill a service at once; its supervisor starts it again."""
    (pid,) = (each.pid for each in status(settings.home) if each.name == name)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


def ended(settings: Settings, flow: str) -> set[str]:
    """Return how the runs of a flow stand in this machine's Prefect."""
    return {each["state_type"] for each in flow_runs(settings.prefect_api, flow)}


def end(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        process.terminate()
        process.wait(60)


def logged(system: System) -> Counter[str]:
    """Return how often each id stands in the lake, of those that were answered."""
    found = system.log.query("SELECT id FROM lake.eta_predictions WHERE version > 0")
    return Counter(found["id"].to_pylist())


def labelled(system: System) -> int:
    asked = "SELECT DISTINCT id FROM lake.eta_labels WHERE NOT starts_with(id, 'history')"
    return system.log.query(asked).num_rows


def version(settings: Settings) -> int | None:
    """Return which version a machine answers with."""
    try:
        shown = httpx.get(f"{settings.online_url}/v1/models", timeout=10).json()["models"]
    except httpx.HTTPError:
        return None
    found: int | None = next(each["version"] for each in shown if each["model"] == DE)
    return found


def run(settings: Settings, *words: str, code: int = 0) -> str:
    """Return what a command said."""
    done = subprocess.run(
        [sys.executable, "-m", "driftloop", *words],
        env=environment(settings),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def environment(settings: Settings) -> dict[str, str]:
    given = {"PYTHONUNBUFFERED": "1", "COLUMNS": "150"}
    return {**os.environ, **settings.environment(), **given}


def asked(id_: str, *, seed: int) -> dict[str, Any]:
    """Return a row as a client sends it."""
    random = np.random.default_rng(seed)
    return {
        "id": id_,
        "asked_at": (datetime.now(UTC) - timedelta(seconds=1)).isoformat(),
        "distance": float(random.uniform(0, 40)),
        "load": float(random.uniform(0, 1)),
        "vehicle": str(random.choice(["van", "bike"])),
    }


def history(rows: int) -> list[dict[str, Any]]:
    """Return rows of the last four weeks with their outcomes."""
    now = datetime.now(UTC)
    found = []
    for number in range(rows):
        at = now - timedelta(days=28) * (1 - number / rows)
        row = asked(f"history-{number}", seed=number)
        known = at + timedelta(hours=1)
        found.append(
            {
                **row,
                "asked_at": at,
                "model": DE,
                "label": 5 + row["distance"] * (1 + row["load"]),
                "observed_at": min(known, now),
            }
        )
    return found
