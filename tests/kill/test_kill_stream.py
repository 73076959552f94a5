"""The stream process is killed at named points and at random: no event twice, and none lost.

Who sends events sends each until it is acknowledged; what was acknowledged, and nothing else, is
counted by the states and is in the log, once. With a real NATS server it does so too.
"""

import asyncio
import json
import random
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from time import monotonic

import pytest
from conftest import StoppedClock
from fakes.streamed import NOON, departure, write_monitors
from integration.house import eventually, free_ports
from kill.harness import HERE, Life, Lives, Orders, Point, killed

from driftloop.clock import Clock
from driftloop.features.operator import layouts, windowed
from driftloop.prediction_log import Ingester, Lake
from driftloop.serve.channel import StreamClient, socket_path
from driftloop.serve.store.states import Named
from driftloop.serve.stream import NotTaken, state_of
from driftloop.settings import Settings, nats_server
from driftloop.wiring import System

POINTS = ("take-before", "commit-before", "commit-after", "log-before", "log-after", "take-after")
KEYS = ("JFK", "LGA", "EWR")
RANDOMLY = 4
SUBJECT = "flights.departures"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """An installation of which nothing runs yet; its clock stands at noon, nearly."""
    (port,) = free_ports(1)
    home = tmp_path / "home"
    made = Settings(
        home=home,
        monitors=write_monitors(tmp_path / "monitors", nats=SUBJECT),
        nats_port=port,
        seal_every=0.05,
        store_gib=0.1,
    )
    home.mkdir()
    now = NOON + timedelta(minutes=1)
    Clock(origin=now, started=now, speed=1e-6).write(made.clock)
    return made


@pytest.fixture
def orders(tmp_path: Path) -> Orders:
    """Nobody is to die yet."""
    return Orders(tmp_path / "orders")


@pytest.fixture
def nats_at(settings: Settings, tmp_path: Path) -> Iterator[str]:
    """Return the address of a real NATS server with JetStream, in files."""
    server = subprocess.Popen(
        [
            *(nats_server(), "--jetstream", "--store_dir", str(tmp_path / "nats")),
            *("--addr", "127.0.0.1", "--port", str(settings.nats_port)),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    yield settings.nats_url
    server.terminate()
    server.wait(10)


class Sender:
    """Sends departures one batch after another, each until it is acknowledged."""

    def __init__(self, settings: Settings) -> None:
        self._path = socket_path(settings.home)
        self._client = StreamClient(self._path)
        self.sent: Counter[str] = Counter()
        self.ids: list[str] = []
        self.again = 0

    async def send(self, size: int) -> None:
        """Send so many new events; return once they are acknowledged."""
        events = []
        for _ in range(size):
            number = len(self.ids) + len(events)
            events.append(departure(f"e{number}", KEYS[number % len(KEYS)], float(number % 7)))
        until = monotonic() + 30
        while True:
            try:
                await self._client.post("departures", events)
                break
            except NotTaken:
                assert monotonic() < until
                self.again += 1
                await asyncio.sleep(0.005)
        self.ids += [event.id for event in events]
        self.sent.update(str(event.fields[0]) for event in events)


def test_every_acknowledged_event_counts_once_wherever_the_process_dies(
    settings: Settings, orders: Orders
) -> None:
    """Before, in and after its transaction, before and after the log has it; and anywhere."""
    write_monitors(settings.monitors.with_name("plain"))
    settings = settings.model_copy(update={"monitors": settings.monitors.with_name("plain")})
    lives = Lives(settings, orders.environment(), HERE / "command.py", "_stream")
    seeded = random.Random(5)

    async def campaign() -> Sender:
        sender = Sender(settings)
        life = lives.begin("")
        await sender.send(3)
        for point in POINTS:
            orders.give(Point("stream", point))
            sending = asyncio.create_task(sender.send(5))
            await asyncio.to_thread(died_at, Point("stream", point), orders, life)
            life = lives.begin("")
            await sending
        for _ in range(RANDOMLY):
            stop = asyncio.Event()
            sending = asyncio.create_task(send_until(stop, sender, seeded))
            await asyncio.sleep(seeded.uniform(0.02, 0.2))
            await asyncio.to_thread(life.kill)
            life = lives.begin("")
            stop.set()
            await sending
        return sender

    try:
        sender = asyncio.run(campaign())
    finally:
        lives.kill()
    assert sender.again > len(POINTS)
    counted, logged = states_and_log(settings)
    assert counted == sender.sent
    assert logged == Counter(sender.ids)


async def send_until(stop: asyncio.Event, sender: Sender, seeded: random.Random) -> None:
    """Send small batches; one that is under way is acknowledged before the end."""
    while not stop.is_set():
        await sender.send(seeded.randrange(1, 9))


def test_every_message_of_nats_counts_once_wherever_the_process_dies(
    settings: Settings, orders: Orders, nats_at: str
) -> None:
    """Those that are delivered again are known; what cannot be used is set aside, once told."""
    lives = Lives(settings, orders.environment(), HERE / "command.py", "_stream")
    points = ("commit-before", "log-before", "take-after")
    published = 0

    async def campaign() -> None:
        nonlocal published
        import nats

        life = lives.begin("")
        client = await nats.connect(nats_at)
        jetstream = client.jetstream()
        await asyncio.to_thread(eventually, socket_path(settings.home).exists, "the process")
        await until_stream(jetstream)
        for number, point in enumerate((*points, "")):
            if point:
                orders.give(Point("stream", point))
            for _ in range(40):
                body = {
                    "departed_at": NOON.isoformat(),
                    "origin": KEYS[published % len(KEYS)],
                    "delay": 1.0,
                }
                await jetstream.publish(SUBJECT, json.dumps(body).encode())
                published += 1
            await jetstream.publish(SUBJECT, b"nonsense %d" % number)
            if point:
                await asyncio.to_thread(died_at, Point("stream", point), orders, life)
                life = lives.begin("")
        for _ in range(400):
            info = await jetstream.consumer_info("driftloop-departures", "driftloop-departures")
            if not (info.num_pending or info.num_ack_pending):
                break
            await asyncio.sleep(0.1)
        await client.close()

    try:
        asyncio.run(campaign())
    finally:
        lives.kill()
    counted, logged = states_and_log(settings)
    assert sum(counted.values()) == published == len(logged)
    assert set(logged.values()) == {1}
    aside = settings.spool / "quarantine"
    said = b"".join(file.read_bytes() for file in aside.glob("nats.departures.*.messages"))
    assert {b"nonsense %d" % n for n in range(len(points) + 1)} == set(said.splitlines())


async def until_stream(jetstream: object) -> None:
    """Wait until the stream process has made the stream."""
    from nats.js.errors import NotFoundError

    for _ in range(200):
        with suppress(NotFoundError):
            await jetstream.stream_info("driftloop-departures")  # type: ignore[attr-defined]
            return
        await asyncio.sleep(0.05)
    pytest.fail("no stream was made")


def died_at(point: Point, orders: Orders, victim: Life) -> None:
    """Wait until `victim` has died where it was ordered to, and nowhere else."""
    assert killed(victim.ends()), f"it ended by itself, not at {point}"
    assert orders.was_obeyed(point), f"{point} was not what killed it"


def states_and_log(settings: Settings) -> tuple[Counter[str], Counter[str]]:
    """Return how many events each key's state counts, and how often the log has each id."""
    system = System(settings)
    fleet = system.fleet
    counted: Counter[str] = Counter()
    (layout,) = layouts(fleet).values()
    (features,) = windowed(fleet.families[0]).values()
    with system.states.reading() as view:
        for key in KEYS:
            stored = view.state(Named("departures", "origin", key))
            if stored is not None:
                state = state_of(layout, stored)
                at = round(NOON.timestamp() * 1e6)
                made = state.values(at, features)
                counted[key] = int(made["departures_60m"])  # type: ignore[arg-type]
    # What only the outbox has is logged by the next start.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("driftloop.serve.process.run_stream", lambda *_, **__: None)
        system.run_stream(ready=lambda: None, alive=lambda: None)
    lake = Lake(system.place, fleet, read_only=False)
    with Ingester(settings.spool, lake, StoppedClock(NOON)) as ingester:
        ingester.ingest()
    sql = "SELECT id, min(position) AS p FROM lake.departures_events GROUP BY id, position"
    rows = lake.query(sql).to_pylist()
    lake.close()
    system.states.close()
    assert len({row["p"] for row in rows}) == len(rows), "a position was given twice"
    return counted, Counter(row["id"] for row in rows)
