"""Events a second through the operator and its store, and through NATS; and how soon one is seen.

All on this machine, whose cores the sender and the NATS server use as well.
"""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import numpy as np
import psutil

from driftloop.features.operator import layouts
from driftloop.prediction_log import SegmentSpool
from driftloop.serve.events import Posted
from driftloop.serve.stream import Post, Stream
from driftloop.settings import Settings, nats_server
from driftloop.up import Supervisor, services
from driftloop.wiring import System
from tests.benchmarks._raw import Figure, Line, Plan, Raw, cost
from tests.benchmarks._watch import free_port
from tests.fakes.streamed import write_monitors, written_model

KEYS = 1_000
BATCH = 500
SUBJECT = "bench.departures"
PATIENCE = 120.0
WARM = 20
"""Events that are awaited in an answer before those that count: connections, and the model."""
BESIDE = 500
"""Events a second that come beside them."""


def measure_streams(raw: Raw, plan: Plan) -> None:
    """Note events through the operator alone and through NATS, and the ages of events."""
    count = plan.rows(quick=20_000, full=400_000)
    with TemporaryDirectory() as folder:
        _operator(raw, plan, Path(folder), count)
    with TemporaryDirectory() as folder, _house(Path(folder)) as house:
        _through_nats(raw, plan, house, count)
    with TemporaryDirectory() as folder, _house(Path(folder)) as house:
        _ages(raw, house, probes=50 if plan.quick else 300)


def stream_figures(lines: Sequence[Line]) -> dict[str, Figure]:
    """Return the figures of streams; None where the run did not measure one."""
    nats = [each for each in lines if each["what"] == "stream_nats"]
    alone = [each for each in lines if each["what"] == "stream_operator"]
    ages = [each["ms"] for each in lines if each["what"] == "stream_age" and not each["warm"]]

    def rate(found: Sequence[Line], of: str) -> float | None:
        return sum(e["events"] for e in found) / sum(e[of] for e in found) if found else None

    return {
        "stream_events_per_s": Figure(
            rate(nats, "wall_s"), "events/s", "through NATS into states and log, durable, in order"
        ),
        "stream_cpu_us": Figure(
            None if not nats else 1e6 / (rate(nats, "cpu_s") or 1.0),
            "us/event",
            "CPU of the stream process of that",
        ),
        "stream_operator_per_s": Figure(
            rate(alone, "wall_s"), "events/s", "through operator, store and spool alone, one core"
        ),
        "stream_age_p99_ms": Figure(
            float(np.quantile(ages, 0.99)) if ages else None,
            "ms",
            f"from sending an event to an answer that has it, {BESIDE} a second beside it",
        ),
    }


# -- what runs ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _House:
    settings: Settings
    system: System

    @property
    def position(self) -> int:
        with self.system.states.reading() as view:
            return view.position


@contextmanager
def _house(folder: Path) -> Iterator[_House]:
    """Yield a home whose source of events names a subject; nothing of it runs."""
    settings = Settings(
        home=folder / "home",
        monitors=write_monitors(folder / "monitors", nats=SUBJECT),
        online_port=free_port(),
        nats_port=free_port(),
    )
    settings.home.mkdir()
    system = System(settings)
    yield _House(settings, system)
    system.states.close()
    system.tables.close()


def _operator(raw: Raw, plan: Plan, folder: Path, count: int) -> None:
    system = System(Settings(home=folder / "home", monitors=write_monitors(folder / "monitors")))
    events = [
        Posted(id=each["id"], given=False, time=each["at"], fields=(each["origin"], each["delay"]))
        for each in _departures(plan, count)
    ]
    with SegmentSpool(folder / "spool" / "stream") as spool:
        stream = Stream(
            sources={"departures": system.fleet.sources["departures"]},
            layouts=layouts(system.fleet),
            store=system.states,
            spool=spool,
            clock=system.clock,
        )
        with cost() as spent:
            for start in range(0, count, BATCH):
                stream.take([Post("departures", events[start : start + BATCH])])
    system.states.close()
    raw.note("stream_operator", events=count, wall_s=spent.wall_s, cpu_s=spent.cpu_s)


def _through_nats(raw: Raw, plan: Plan, house: _House, count: int) -> None:
    """All is published before the stream process starts: it alone is measured."""
    settings = house.settings
    server = _started(
        *(nats_server(), "--jetstream", "--store_dir", str(settings.home / "nats")),
        *("--addr", settings.host, "--port", str(settings.nats_port)),
    )
    try:
        asyncio.run(_publish(settings, plan, count))
        stream = _started(
            *(sys.executable, "-m", "driftloop", "_stream"), env=settings.environment()
        )
        try:
            process = psutil.Process(stream.pid)
            first = _await_position(house, 1)
            began, spent = time.perf_counter(), _cpu(process)
            _await_position(house, count)
            raw.note(
                "stream_nats",
                events=count - first,
                wall_s=time.perf_counter() - began,
                cpu_s=_cpu(process) - spent,
            )
        finally:
            stream.terminate()
            stream.wait(30)
    finally:
        server.terminate()
        server.wait(30)


async def _publish(settings: Settings, plan: Plan, count: int) -> None:
    import nats
    from nats.js.api import StorageType, StreamConfig

    client = await nats.connect(settings.nats_url, connect_timeout=30, max_reconnect_attempts=-1)
    context = client.jetstream()
    config = StreamConfig(name="bench", subjects=[SUBJECT], storage=StorageType.FILE)
    await context.add_stream(config)
    for number, each in enumerate(_departures(plan, count), start=1):
        body = {"departed_at": each["at"].isoformat(), "origin": each["origin"]}
        await client.publish(SUBJECT, json.dumps(body | {"delay": each["delay"]}).encode())
        if number % 10_000 == 0:
            await client.flush(30)
    await client.flush(30)
    for _ in range(600):
        if (await context.stream_info("bench")).state.messages == count:
            break
        await asyncio.sleep(0.05)
    await client.close()


def _ages(raw: Raw, house: _House, *, probes: int) -> None:
    """Post events, and ask until an answer has each, while others come beside them."""
    system, settings = house.system, house.settings
    model = settings.artifacts / "eta-de"
    model.mkdir(parents=True)
    head = written_model(model / "model.onnx")
    system.ledger.move(head, at=system.clock.now(), previous=None, reason="benchmark")
    wanted = tuple(
        each
        for each in services(settings, system.fleet.sources)
        if each.name in ("online", "stream", "nats", "ingester")
    )
    with Supervisor(settings, wanted):
        asyncio.run(_probe(raw, settings.online_url, probes))


async def _probe(raw: Raw, url: str, probes: int) -> None:
    limits = httpx.Limits(max_connections=4)
    async with httpx.AsyncClient(base_url=url, timeout=30.0, limits=limits) as http:
        while (await http.get("/readyz")).status_code != httpx.codes.OK:  # noqa: ASYNC110 - in another process
            await asyncio.sleep(0.05)
        beside = asyncio.create_task(_come_beside(http))
        for number in range(probes + WARM):
            key, now = f"probe-{number}", datetime.now(UTC).isoformat()
            began = time.perf_counter()
            event = {"departed_at": now, "origin": key, "delay": 5.0}
            (await http.post("/v1/events/departures", json=event)).raise_for_status()
            row = {"asked_at": now, "distance": 100.0, "origin": key}
            while True:
                answer = await http.post("/v1/models/eta-de/predict", json=row)
                if answer.raise_for_status().json()["predictions"][0]["prediction"] > 100.0:
                    break
            raw.note("stream_age", ms=(time.perf_counter() - began) * 1000, warm=number < WARM)
        beside.cancel()


async def _come_beside(http: httpx.AsyncClient) -> None:
    size = 50
    while True:
        now = datetime.now(UTC).isoformat()
        events = [
            {"departed_at": now, "origin": f"key-{n % KEYS}", "delay": 1.0} for n in range(size)
        ]
        await http.post("/v1/events/departures", json={"events": events})
        await asyncio.sleep(size / BESIDE)


def _departures(plan: Plan, count: int) -> Iterator[dict[str, Any]]:
    """Yield departures of so many keys, ten thousand a second of their own time."""
    rng = np.random.default_rng(plan.seed)
    keys, delays = rng.integers(0, KEYS, count).tolist(), rng.normal(10, 20, count).tolist()
    first = datetime.now(UTC) - timedelta(microseconds=100 * count)
    for number in range(count):
        yield {
            "id": f"d{number}",
            "at": first + timedelta(microseconds=100 * number),
            "origin": f"key-{keys[number]}",
            "delay": delays[number],
        }


def _await_position(house: _House, wanted: int) -> int:
    until = time.monotonic() + PATIENCE
    while (found := house.position) < wanted:
        if time.monotonic() > until:
            raise RuntimeError(f"waited {PATIENCE:g} s for position {wanted}, it is {found}")
        time.sleep(0.01)
    return found


def _started(*argv: str, env: dict[str, str] | None = None) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        argv,
        env={**os.environ, **(env or {})},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _cpu(process: psutil.Process) -> float:
    return sum(process.cpu_times()[:2])
