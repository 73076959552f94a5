"""The loop under load in real time: twelve models, a watch every ten minutes, six times.

`make soak`, or `python -m tests.soak --cycles 3 --every 60` for a short one. It starts an
installation of its own, sends real flights as if they departed now, makes some models worse in
each cycle, and ends with a table of cycles and a list of what held; exit code 1 if not all did.
"""

import argparse
import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from driftloop.demo.flights import flights
from driftloop.records import Decided, Failed, Gated, Moved, Ordered, Passed
from driftloop.settings import Settings
from driftloop.up import status
from driftloop.wiring import System
from tests.benchmarks._raw import Raw, machine
from tests.integration.house import free_ports
from tests.soak._table import COLUMNS, cycles, promises
from tests.soak._traffic import Harm, Model, Seen, busiest, drive, history, models

MONITORS = Path(__file__).parents[2] / "monitors"
COUNTS = {"air-time": 8, "late-arrival": 4}
SAMPLE = 10.0
UP_WITHIN = 400.0


def main() -> None:
    asked = _asked()
    raw = Raw(asked.out / f"soak-{datetime.now(UTC):%Y%m%dT%H%M%S}.jsonl")
    console = Console(width=None if sys.stdout.isatty() else 200)
    about = machine()
    raw.note("machine", **about)
    with tempfile.TemporaryDirectory(prefix="driftloop-soak-") as folder:
        settings = _settings(Path(folder), asked.every)
        frame = flights()
        _write_monitors(settings.monitors, frame, asked.every)
        system = System(settings)
        console.print(
            f"{len(system.fleet.models)} models, {asked.cycles} cycles of {asked.every:g} s"
        )
        with _up(settings, console) as process:
            fleet = _trained(system, frame, asked.every, console)
            asyncio.run(_soak(raw, console, system, fleet, process, asked))
            _note_ledger(raw, system)
            _note_end(raw, system)
    lines = raw.lines()
    table = Table(*COLUMNS, box=None, pad_edge=False)
    for row in cycles(lines):
        table.add_row(*row)
    console.print(table)
    held = promises(lines)
    for each in held:
        console.print(f"{'held ' if each.held else 'BROKE'}  {each.promise}: {each.figures}")
    console.print(
        f"{about['system']}, {about['cores']} cores, load {about['load']}; raw: {raw.file}"
    )
    sys.exit(0 if all(each.held for each in held) else 1)


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--cycles", type=int, default=6)
    parser.add_argument("--every", type=float, default=600.0, help="wall seconds of a cycle")
    parser.add_argument("--out", type=Path, default=Path("bench-results"))
    return parser.parse_args()


# -- the installation -----------------------------------------------------------------------


def _settings(folder: Path, every: float) -> Settings:
    names = ("online", "pages", "slack", "desk", "mlflow", "prefect")
    ports = {f"{name}_port": port for name, port in zip(names, free_ports(len(names)), strict=True)}
    return Settings(home=folder / "home", monitors=folder / "monitors", watch_every=every, **ports)  # type: ignore[arg-type]


def _write_monitors(folder: Path, frame: "pd.DataFrame", every: float) -> None:
    """Write the flights' monitors with policies for a world that changes within minutes."""
    folder.mkdir(parents=True)
    for file in ("owners.toml", "platform.toml"):
        if (MONITORS / file).exists():
            (folder / file).write_text((MONITORS / file).read_text())
    for name, count in COUNTS.items():
        text = (MONITORS / f"{name}.toml").read_text()
        parameters = tomllib.loads(text)["retrain"]["parameters"]
        shown = ", ".join(f"{key} = {json.dumps(value)}" for key, value in parameters.items())
        markets = json.dumps(busiest(frame, count))
        kept = re.sub(r"(?s)markets = \[.*?\n\]", f"markets = {markets}", text)
        # These flights depart now, and nothing has departed before them.
        kept = re.sub(r'(?m)^\w+ = \{.* from = "departures".*\n', "", kept)
        kept = kept[: kept.index("[retrain]")]
        harmed = name == "air-time"
        (folder / f"{name}.toml").write_text(
            f"{kept}\n[retrain]\nparameters = {{ {shown} }}\n"
            f'triggers = ["{"decay" if harmed else "age"}"]\n'
            # A little worse is let through where age alone asks for a new version.
            f"[gate]\nmargin = {0.0 if harmed else -0.2}\n"
        )
    defaults = (MONITORS / "defaults.toml").read_text()
    (folder / "defaults.toml").write_text(_paced(defaults, every))


def _paced(defaults: str, every: float) -> str:
    pace = {
        'span = "14d"': f'span = "{every:g}s"\nblock = "{every / 40:g}s"',
        'stale = "7d"': f'stale = "{every / 2:g}s"',
        'cadence = "10m"': f'cadence = "{every:g}s"',
        'cooldown = "12d"': f'cooldown = "{every:g}s"',
        'max_age = "21d"': f'max_age = "{every:g}s"',
        'span = "47d"': f'span = "{every * 1.25:g}s"',
        'holdout = "5d"': f'holdout = "{every / 4:g}s"',
    }
    for old, new in pace.items():
        if old not in defaults:
            raise ValueError(f"monitors/defaults.toml no longer says {old}")
        defaults = defaults.replace(old, new)
    return defaults


@contextmanager
def _up(settings: Settings, console: Console) -> "Iterator[subprocess.Popen[bytes]]":
    settings.home.mkdir(parents=True)
    env = {**os.environ, **settings.environment()}
    with (settings.home / "up.txt").open("wb") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "driftloop", "up"], env=env, stdout=said, stderr=said
        )
    try:
        until = time.monotonic() + UP_WITHIN
        while not _is_up(settings):
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError((settings.home / "up.txt").read_text())
            time.sleep(0.5)
        console.print("up")
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def _is_up(settings: Settings) -> bool:
    found = status(settings.home)
    return bool(found) and all(each.state == "healthy" for each in found)


def _trained(system: System, frame: "pd.DataFrame", every: float, console: Console) -> list[Model]:
    """Return the models of the fleet with a first version each, made of history."""
    fleet: list[Model] = []
    now = datetime.now(UTC)
    for family in system.fleet.families:
        mine = models(frame, family, lands_after=every / 20)
        span = timedelta(seconds=every * 1.25)
        rows = [row for model in mine for row in history(model, until=now, span=span, rows=1500)]
        file = system.settings.home / f"{family.name}.parquet"
        pq.write_table(pa.Table.from_pylist(rows), file)
        console.print(_driftloop(system.settings, "backfill", family.name, str(file)))
        fleet += mine
    console.print(_driftloop(system.settings, "train", *(model.id for model in fleet)))
    return fleet


def _driftloop(settings: Settings, *words: str) -> str:
    env = {**os.environ, **settings.environment()}
    done = subprocess.run(
        [sys.executable, "-m", "driftloop", *words],
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    if done.returncode:
        raise RuntimeError(f"driftloop {words[0]}: {done.stdout}{done.stderr}")
    return done.stdout.strip()


# -- the hour -------------------------------------------------------------------------------


async def _soak(
    raw: Raw, console: Console, system: System, fleet: Sequence[Model], process: Any, asked: Any
) -> None:
    every = asked.every
    first = (time.time() + every / 3) // every * every + every
    raw.note("plan", cycles=asked.cycles, every=every, first=first)
    seen, stop, harm = Seen(), asyncio.Event(), Harm(every=every, anchor=first)
    driving = asyncio.create_task(
        drive(fleet, url=system.settings.online_url, seen=seen, stop=stop, harm=harm)
    )
    supervisor = psutil.Process(process.pid)
    end = first + asked.cycles * every
    console.print(
        f"first cycle at {datetime.fromtimestamp(first, UTC):%H:%M:%S}, "
        f"end at {datetime.fromtimestamp(end, UTC):%H:%M:%S} UTC"
    )
    while time.time() < end and not driving.done():
        raw.note("sample", at=time.time(), **_sampled(supervisor, system.settings))
        await asyncio.sleep(SAMPLE)
    stop.set()
    await driving
    for at, took in seen.took:
        raw.note("request", at=at, s=round(took, 6))
    for at, failure in seen.failures:
        raw.note("failure", at=at, said=failure)
    for at, model in harm.turned:
        raw.note("harm", at=at, model=model)
    _note_answers(raw, system, seen)
    await _note_runs(raw, system, first)


def _sampled(supervisor: psutil.Process, settings: Settings) -> dict[str, Any]:
    """Return CPU seconds so far and private memory of everything that runs, by service."""
    memory: dict[str, float] = {}
    cpu = 0.0
    for each in status(settings.home):
        for process in _tree(each.pid):
            try:
                memory[each.name] = (
                    memory.get(each.name, 0.0) + process.memory_full_info().uss / 2**20
                )
                cpu += sum(process.cpu_times()[:4])
            except psutil.Error:
                continue
    own = supervisor.cpu_times()
    return {
        "cpu_s": cpu + own.user + own.system,
        "mib": sum(memory.values()),
        "by_service": {name: round(mib, 1) for name, mib in memory.items()},
        "spool_files": sum(1 for _ in settings.spool.rglob("*.ndjson")),
        "disk_mib": round(_disk(settings.home) / 2**20, 1),
    }


def _tree(pid: int | None) -> list[psutil.Process]:
    try:
        return [found := psutil.Process(pid), *found.children(recursive=True)] if pid else []
    except psutil.Error:
        return []


def _disk(folder: Path) -> int:
    total = 0
    for root, _, files in os.walk(folder):
        for name in files:
            try:
                total += (Path(root) / name).stat().st_size
            except OSError:
                continue
    return total


def _note_answers(raw: Raw, system: System, seen: Seen) -> None:
    system.is_read(within=60.0)
    time.sleep(system.settings.ingest_every + system.settings.seal_every + 2.0)
    system.is_read(within=60.0)
    logged: dict[str, list[tuple[int, int, float]]] = {}
    for family in system.fleet.families:
        sql = (
            "SELECT id, version, epoch, prediction FROM lake."
            f"{family.table}_predictions WHERE version > 0"
        )
        for row in system.log.query(sql).to_pylist():
            given = (row["version"], row["epoch"], row["prediction"])
            logged.setdefault(row["id"], []).append(given)
    raw.note(
        "answers",
        answered=len(seen.answered),
        in_log=sum(row_id in logged for row_id in seen.answered),
        twice=sum(len(rows) > 1 for rows in logged.values()),
        different=sum(
            row_id in logged and answer not in logged[row_id]
            for row_id, answer in seen.answered.items()
        ),
        mixed=len(seen.mixed),
    )
    for (model, epoch), at in seen.answers_since.items():
        raw.note("answering", at=at, model=model, epoch=epoch)


async def _note_runs(raw: Raw, system: System, first: float) -> None:
    """Note every run of `watch` since `first` as Prefect tells it."""
    asked = {
        "flows": {"name": {"any_": ["watch"]}},
        "flow_runs": {
            "expected_start_time": {
                "after_": datetime.fromtimestamp(first - 1.0, UTC).isoformat(),
                "before_": datetime.now(UTC).isoformat(),
            }
        },
        "sort": "EXPECTED_START_TIME_ASC",
        "limit": 200,
    }
    async with httpx.AsyncClient(timeout=30.0, trust_env=False) as client:
        url = f"{system.settings.prefect_api}/flow_runs/filter"
        for run in (await client.post(url, json=asked)).json():
            due = datetime.fromisoformat(run["expected_start_time"])
            began = run["start_time"] and datetime.fromisoformat(run["start_time"])
            raw.note(
                "watch",
                at=due.timestamp(),
                due=due.timestamp(),
                due_text=f"{due:%H:%M:%S}",
                late_s=(began - due).total_seconds() if began else float("inf"),
                took_s=run["total_run_time"],
                state=run["state_type"],
                name=run["state"]["name"],
            )


def _note_ledger(raw: Raw, system: System) -> None:
    ledger = system.ledger
    for passed in ledger.facts(Passed):
        raw.note("passed", at=passed.at.timestamp(), looked=passed.looked, seconds=passed.seconds)
    answering = {
        (line["model"], line["epoch"]): line["at"]
        for line in raw.lines()
        if line["what"] == "answering"
    }
    gated = {fact.order_key: fact for fact in ledger.facts(Gated)}
    failed = {fact.order_key: fact for fact in ledger.facts(Failed)}
    begun = {fact.order.key for fact in ledger.facts(Ordered)}
    epochs = {(fact.model, fact.head.version): fact.head.epoch for fact in ledger.facts(Moved)}
    for fact in ledger.facts(Decided):
        decision = fact.decision
        if not decision.retrain:
            continue
        key, at = decision.key, decision.at.timestamp()
        gate = gated.get(key)
        epoch = epochs.get((fact.model, gate.version)) if gate and gate.result.passed else None
        outcome = (
            "failed"
            if key in failed
            else "promoted"
            if epoch is not None
            else "refused"
            if gate is not None
            else "unended"
            if key in begun
            else "not begun"
        )
        shown = answering.get((fact.model, epoch)) if epoch is not None else None
        raw.note(
            "renewal",
            at=at,
            model=fact.model,
            key=key,
            outcome=outcome,
            said=failed[key].error if key in failed else gate.result.reason if gate else "",
            answers_s=shown - at if shown is not None else None,
        )


def _note_end(raw: Raw, system: System) -> None:
    answers = next(line for line in raw.lines() if line["what"] == "answers")
    url = f"http://{system.settings.host}:{system.settings.slack_port}/messages.json"
    messages = httpx.get(url, timeout=30, trust_env=False).json()
    keys = [str(message.get("metadata") or message.get("text")) for message in messages]
    raw.note(
        "end",
        at=time.time(),
        **{key: answers[key] for key in ("answered", "in_log", "twice", "different", "mixed")},
        restarts=sum(each.restarts for each in status(system.settings.home)),
        pages=len(keys),
        distinct_pages=len(set(keys)),
        passed=len(system.ledger.facts(Passed)),
    )


if __name__ == "__main__":
    main()
