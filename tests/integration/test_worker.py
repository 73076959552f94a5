"""Real Prefect server, real warm worker, and a fleet that only notes what is asked of it."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from integration.house import flow_runs

from driftloop.settings import Settings
from driftloop.up import Supervisor, services, status

pytestmark = pytest.mark.long
PROCESS = Path(__file__).with_name("worker_process.py")
EVERY = 2.0


class House:
    """A supervised Prefect server and worker, asked over the API and the notes."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings = settings
        self.folder = folder

    def notes(self, what: str) -> list[list[Any]]:
        """Return the notes of one kind, oldest first."""
        file = self.folder / "notes"
        lines = file.read_text().splitlines() if file.exists() else []
        return [note for line in lines if (note := json.loads(line))[1] == what]

    def runs(self, flow: str) -> list[dict[str, Any]]:
        """Return the flow's runs that are not in the future, oldest first."""
        return flow_runs(self.settings.prefect_api, flow)

    def pid(self, name: str) -> int | None:
        """Return the service's process id, None while it has none."""
        return next(each.pid for each in status(self.settings.home) if each.name == name)

    def order(self, key: str) -> None:
        """Start a renewal, as a watch would, under another key than the one before."""
        order = self.runs("renew")[0]["parameters"]["order"] | {"key": key}
        url = f"{self.settings.prefect_api}/deployments"
        deployment = httpx.get(f"{url}/name/renew/driftloop", timeout=30).json()["id"]
        httpx.post(
            f"{url}/{deployment}/create_flow_run",
            json={"parameters": {"order": order}, "idempotency_key": key},
            timeout=30,
        ).raise_for_status()


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A running server and worker, with a watch every two seconds."""
    folder = tmp_path_factory.mktemp("house")
    settings = Settings(
        home=folder / "home", watch_every=EVERY, maintain_every=3600, prefect_port=free_port()
    )
    named = {service.name: service for service in services(settings)}
    worker = replace(
        named["worker"],
        argv=(sys.executable, str(PROCESS), str(folder)),
        after=(),
        needs=("prefect",),
    )
    with Supervisor(settings, (worker, named["prefect"])):
        yield House(settings, folder)


def test_scheduled_passes_come_at_their_cadence(house: House) -> None:
    """Watch runs come about every two seconds, though Prefect plans by the minute."""
    assert eventually(lambda: len(house.notes("watch")) >= 6, within=40)
    times = [note[0] for note in house.notes("watch")][-5:]
    gaps = [later - sooner for sooner, later in pairwise(times)]
    assert all(0.5 * EVERY < gap < 2.0 * EVERY for gap in gaps), gaps


def test_one_order_is_carried_out_once(house: House) -> None:
    """What pass after pass orders makes one renew run, named after what came of it."""
    (house.folder / "order").touch()
    passes = len(house.notes("watch"))
    assert eventually(lambda: len(house.notes("watch")) > passes + 3)
    assert eventually(lambda: house.notes("renewed"))
    (run,) = house.runs("renew")
    assert eventually(lambda: house.runs("renew")[0]["state_name"] == "Refused")
    assert house.runs("renew")[0]["name"] == "eta-de: refused"
    assert [note[2] for note in house.notes("renew")] == [run["parameters"]["order"]["key"]]
    (house.folder / "order").unlink()


def test_killed_worker_leaves_nothing_behind(house: House) -> None:
    """Its run is marked crashed, its renewal taken up by itself, late passes are skipped."""
    (house.folder / "hang").touch()
    house.order("eta-de/2")
    assert eventually(lambda: len(house.notes("renew")) == 2)
    first = house.pid("worker")
    assert first is not None
    os.kill(first, signal.SIGSTOP)
    time.sleep(4 * EVERY)
    os.kill(first, signal.SIGKILL)
    passes = len(house.notes("watch"))
    (house.folder / "hang").unlink()
    assert eventually(lambda: len(house.notes("watch")) > passes + 2, within=60)
    assert eventually(lambda: len(house.notes("renewed")) == 2)
    assert [note[2] for note in house.notes("let go")] == ["eta-de/2"]
    assert eventually(
        lambda: (
            [run["state_name"] for run in house.runs("renew")] == ["Refused", "Crashed", "Refused"]
        )
    )
    watches = house.runs("watch")
    assert any(run["state_name"] == "Skipped" for run in watches)
    assert any("skipped for this one" in str(run["state"]["message"]) for run in watches)
    assert not [run for run in watches[:-2] if run["state_type"] in {"RUNNING", "PENDING"}]


def test_worker_stops_in_time_on_sigterm(house: House) -> None:
    """SIGTERM ends the worker within five seconds; the renewal it was at is taken up again."""
    (house.folder / "hang").touch()
    house.order("eta-de/3")
    assert eventually(lambda: house.notes("renew")[-1][2] == "eta-de/3")
    pid = house.pid("worker")
    assert pid is not None
    begun = time.monotonic()
    os.kill(pid, signal.SIGTERM)
    assert eventually(lambda: house.pid("worker") not in {pid, None}, within=8)
    assert time.monotonic() - begun < 7
    (house.folder / "hang").unlink()
    assert eventually(lambda: house.notes("renewed")[-1][2] == "eta-de/3", within=60)
    assert [note[2] for note in house.notes("let go")] == ["eta-de/2", "eta-de/3"]
    passes = len(house.notes("watch"))
    assert eventually(lambda: len(house.notes("watch")) > passes + 1)


def test_cancel_ends_a_renewal_under_way(house: House) -> None:
    """Cancelled as the UI does it: called off and marked within ten seconds, its slot free."""
    (house.folder / "hang").touch()
    house.order("eta-de/4")
    assert eventually(lambda: house.notes("renew")[-1][2] == "eta-de/4")
    run = house.runs("renew")[-1]
    begun = time.monotonic()
    httpx.post(
        f"{house.settings.prefect_api}/flow_runs/{run['id']}/set_state",
        json={"state": {"type": "CANCELLING"}},
        timeout=30,
    ).raise_for_status()
    assert eventually(lambda: house.runs("renew")[-1]["state_type"] == "CANCELLED", within=12)
    assert time.monotonic() - begun < 10
    assert [note[2] for note in house.notes("called off")] == ["eta-de/4"]
    assert house.notes("why")[-1][2:] == ["eta-de/4", "cancelled in Prefect"]
    (house.folder / "hang").unlink()
    house.order("eta-de/5")
    assert eventually(lambda: house.notes("renewed")[-1][2] == "eta-de/5")
    assert "eta-de/4" not in [note[2] for note in house.notes("renewed")]


def test_old_runs_are_deleted_and_the_newest_kept(house: House) -> None:
    """Of the ended runs only as many of the newest stay as asked; what is planned stays too."""
    code = (
        "import asyncio; from prefect.client.orchestration import get_client;"
        "from flows.maintain import delete_old_runs\n"
        "async def main():\n"
        "    async with get_client() as client:\n"
        "        print(await delete_old_runs(client, keep_runs=2))\n"
        "asyncio.run(main())"
    )
    worker = next(each for each in services(house.settings) if each.name == "worker")
    before = len(house.runs("watch")) + len(house.runs("renew"))
    said = subprocess.run(
        (sys.executable, "-c", code),
        env={**os.environ, **worker.env},
        capture_output=True,
        text=True,
        check=True,
    )
    deleted = int(said.stdout.splitlines()[-1])
    after = len(house.runs("watch")) + len(house.runs("renew"))
    assert deleted >= before - 3
    assert after <= before - deleted + 5
    passes = len(house.notes("watch"))
    assert eventually(lambda: len(house.notes("watch")) > passes + 1)


def test_prefect_may_be_called_by_many_and_die(house: House) -> None:
    """Twenty calls at once all succeed on its SQLite file, which a killed server leaves whole."""

    async def created() -> list[int]:
        async with httpx.AsyncClient(base_url=house.settings.prefect_api, timeout=60) as client:
            flow = (await client.post("/flows/", json={"name": "many"})).json()["id"]
            call = {"flow_id": flow, "state": {"type": "COMPLETED"}}
            answers = await asyncio.gather(
                *(client.post("/flow_runs/", json=call) for _ in range(20))
            )
            return [answer.status_code for answer in answers]

    assert set(asyncio.run(created())) == {201}
    pid = house.pid("prefect")
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    passes = len(house.notes("watch"))
    assert eventually(lambda: len(house.notes("watch")) > passes + 2, within=120)
    assert len(house.runs("many")) == 20


def eventually(true: Callable[[], object], *, within: float = 30.0) -> bool:
    """Return whether it becomes true in time."""
    until = time.monotonic() + within
    while time.monotonic() < until:
        if true():
            return True
        time.sleep(0.2)
    return False


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
