"""What the loop itself costs, beside what it is made of wherever there is something to compare."""

import http.client
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from statistics import median
from typing import IO, Any

import psutil

from driftloop.loop.watch import order
from driftloop.records import Decided, Decision, Notice, Order, Stage, State, Window
from driftloop.spec import Family
from tests.benchmarks._evidently import presets
from tests.benchmarks._raw import Figure, Line, Plan, Raw, cost
from tests.benchmarks._renewal import PARTS, renewal
from tests.benchmarks._watch import DAY, free_port, watch_figure, watch_runs
from tests.benchmarks._world import (
    NOW,
    NUMBERS,
    RENEWED,
    WORDS,
    World,
    backfill,
    columns,
    environment,
    predictions,
    settle_quiet,
    world,
)

WATCHED = 12
WINDOW_ROWS = 2000
CALLERS = 8
MOST_UNDER_WAY = 64
"""Connections of the paced client: more are due than that only if the service stands still."""
SHARE = 0.7
BODIES = 1000


def measure(raw: Raw, plan: Plan) -> None:
    """Write raw lines: cli, renewal, online, ingest, watch, evidently, run."""
    # Before their first import: neither tells anybody of what is measured here.
    os.environ.update(DO_NOT_TRACK="1", MLFLOW_DISABLE_TELEMETRY="true")
    _cli(raw, runs=5)
    with world(seed=plan.seed, trees=60 if plan.quick else 100, slack_port=free_port()) as made:
        with _slack(made) as slack:
            _renewals(raw, plan, made, slack)
        _online(raw, plan, made)
    ports = {f"{name}_port": free_port() for name in ("prefect", "slack")}
    with world(seed=plan.seed, watched=WATCHED, watch_every=DAY, **ports) as made:
        _watch(raw, plan, made)
        if not plan.quick:  # its services alone take 15 s to start
            watch_runs(raw, made, models=WATCHED)
        _ingest(raw, plan, made)


def figures(lines: Sequence[Line]) -> dict[str, Figure]:
    """Return every figure, in the order they are shown; derived from raw lines alone."""
    return (
        _cli_figures(lines)
        | _renewal_figures(lines)
        | _ingest_figures(lines)
        | _online_figures(lines)
        | _watch_figures(lines)
    )


# -- the command line -----------------------------------------------------------------------


def _cli(raw: Raw, *, runs: int) -> None:
    driftloop = str(Path(sys.executable).with_name("driftloop"))
    for _ in range(runs):
        for name, argv in (
            ("driftloop --help", [driftloop, "--help"]),
            ("python", [sys.executable, "-c", "pass"]),
        ):
            process = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode:
                raise RuntimeError(f"{name} ended with {process.returncode}")
            raw.note("cli", command=name, cpu_s=used.ru_utime + used.ru_stime)


def _cli_figures(lines: Sequence[Line]) -> dict[str, Figure]:
    ours = _median(lines, "cli", "cpu_s", command="driftloop --help")
    bare = _median(lines, "cli", "cpu_s", command="python")
    return {
        "cli_import_cpu_s": Figure(ours, "s", "CPU of `driftloop --help`, median"),
        "cli_vs_python_ratio": Figure(_ratio(ours, bare), "x", "beside `python -c pass`"),
    }


# -- a renewal ------------------------------------------------------------------------------


def _renewals(raw: Raw, plan: Plan, made: World, slack: psutil.Process) -> None:
    system = made.system
    system.trainer.warm_up()
    system.registry.versions(RENEWED)  # imports MLflow, makes its tables
    backfill(made, plan.rows(quick=5000, full=50_000))
    family = system.fleet.family(RENEWED)
    for number in range(3 if plan.quick else 6):
        made.set_clock(NOW + timedelta(days=(number + 1) / 10))
        spent = renewal(system, _incident(made, family, number), slack)
        raw.note(
            "renewal",
            # The first has no champion to compare with, and pays for what is imported late.
            warm=number > 0,
            **spent,
        )


def _incident(made: World, family: Family, number: int) -> Order:
    """Return the order of an incident that is open and told, so that all that follows is told."""
    system, now = made.system, made.system.clock.now()
    key = f"{RENEWED}/{now:%Y%m%dT%H%M%S}"
    asked = order(family, RENEWED, key=key, reason="the error grew", now=now)
    champion = system.ledger.head(RENEWED)
    decision = Decision(
        version=champion.version if champion is not None else 0,
        key=key,
        model=RENEWED,
        at=now,
        state=State.DECAYING,
        reason="the error grew",
        window=Window(model=RENEWED, start=now - family.window.span, end=now, known_at=now),
        verdicts=(),
        retrain=True,
        incident=key,
        opens=True,
        since=now,
    )
    system.ledger.append(Decided(model=RENEWED, at=now, decision=decision), key=key)
    owner = system.fleet.owner(RENEWED)
    told = system.teller.tell(
        Notice(
            key=f"{key}/{Stage.OPENED}",
            incident=key,
            model=RENEWED,
            stage=Stage.OPENED,
            at=now,
            since=now,
            channel=owner.channel,
            mention=owner.mention,
            headline=f"{RENEWED} is decaying ({number})",
            doing="retraining",
        )
    )
    if not told.told:
        raise RuntimeError(f"the local Slack was not told: {told.why}")
    return replace(asked, incident=key)


@contextmanager
def _slack(made: World) -> Iterator[psutil.Process]:
    argv = [sys.executable, "-m", "driftloop", "_slack"]
    with _process(argv, made) as process:
        _await(made.settings.slack_port, "/healthz")
        yield psutil.Process(process.pid)


def _renewal_figures(lines: Sequence[Line]) -> dict[str, Figure]:
    warm = [line for line in lines if line["what"] == "renewal" and line["warm"]]

    def over(kind: str) -> list[float]:
        return [line[kind] - line["parts"]["fit"][kind] for line in warm]

    def parts(kind: str) -> dict[str, float] | None:
        if not warm:
            return None
        return {part: median(line["parts"][part][kind] for line in warm) for part in PARTS}

    cpu, wall = _middle(over("cpu_s")), _middle(over("wall_s"))
    fit = _middle([line["parts"]["fit"]["cpu_s"] for line in warm])
    rows = warm[0]["rows"] if warm else 0
    return {
        "renew_overhead_cpu_s": Figure(
            cpu, "s", f"order to new head minus the fit, {rows:,} rows x 25; CPU of all processes"
        ),
        "renew_overhead_wall_s": Figure(wall, "s", "the same, wall time"),
        "renew_vs_fit_ratio": Figure(_ratio(cpu, fit), "x", "that CPU beside the fit's own"),
        "renew_parts_cpu_s": Figure(
            parts("cpu_s"), "s", "start: fork, hand over; score: held-out rows, both models"
        ),
        "renew_parts_wall_s": Figure(parts("wall_s"), "s", "the same, wall time"),
    }


# -- ingestion ------------------------------------------------------------------------------


def _ingest(raw: Raw, plan: Plan, made: World) -> None:
    import duckdb

    rows, _ = predictions(made, RENEWED, plan.rows(quick=20_000, full=200_000), days=50.0)
    aside = made.settings.home / "aside"
    with made.system.ingester() as ingester:
        for number in range(4):
            with made.system.spool(f"round{number}") as spool:
                for start in range(0, len(rows), 500):
                    spool.predictions("renewed", rows[start : start + 500])
            aside.mkdir()
            sealed = sorted(made.settings.spool.rglob("*.ndjson"))
            for file in sealed:
                os.link(file, aside / file.name)
            files = [str(file) for file in sorted(aside.iterdir())]

            def bare(files: list[str] = files, number: int = number) -> None:
                with duckdb.connect(str(made.settings.home / f"bare{number}.db")) as con:
                    con.execute("SET threads = 2")
                    with cost() as spent:
                        con.execute("CREATE TABLE t AS SELECT * FROM read_ndjson($1)", [files])
                    _note_ingest(raw, "bare", len(rows), number, spent)

            def ours(number: int = number) -> None:
                with cost() as spent:
                    report = ingester.ingest()
                _note_ingest(raw, "ours", report.rows, number, spent)

            # Turn about: neither always finds the files in the page cache.
            for run in (bare, ours) if number % 2 else (ours, bare):
                run()
            shutil.rmtree(aside)


def _note_ingest(raw: Raw, by: str, rows: int, number: int, spent: Any) -> None:
    # The first round opens the lake and makes its tables.
    raw.note("ingest", by=by, rows=rows, warm=number > 0, wall_s=spent.wall_s, cpu_s=spent.cpu_s)


def _ingest_figures(lines: Sequence[Line]) -> dict[str, Figure]:
    def rate(by: str, kind: str) -> float | None:
        found = [
            line["rows"] / line[kind]
            for line in lines
            if line["what"] == "ingest" and line["by"] == by and line["warm"]
        ]
        return _middle(found)

    ours, bare = rate("ours", "wall_s"), rate("bare", "wall_s")
    return {
        "ingest_rows_per_s": Figure(ours, "rows/s", "sealed segments to lake, 25 features a row"),
        "ingest_vs_bare_ratio": Figure(
            _ratio(ours, bare), "x", "rows/s beside DuckDB's read_ndjson into a table, same files"
        ),
        "ingest_vs_bare_cpu_ratio": Figure(
            _ratio(rate("ours", "cpu_s"), rate("bare", "cpu_s")), "x", "the same, rows a CPU second"
        ),
    }


# -- answering ------------------------------------------------------------------------------


def _online(raw: Raw, plan: Plan, made: World) -> None:
    seconds, rounds, paced = (0.5, 5, 3) if plan.quick else (1.0, 15, 10)
    bodies = made.settings.home / "bodies.ndjson"
    told = {name: values.tolist() for name, values in columns(made.rng, BODIES).items()}
    rows = (
        {"id": f"b{n}", "asked_at": NOW.isoformat()}
        | {name: told[name][n] for name in (*NUMBERS, *WORDS)}
        for n in range(BODIES)
    )
    path = f"/v1/models/{RENEWED}/predict"
    bodies.write_text("".join(f"{path} {json.dumps(row)}\n" for row in rows))
    service_cpu, client_cpu = _two_cores()
    with ExitStack() as stack:
        services = {}
        for by, flags in (("log", ()), ("air", ("--without-log",))):
            argv = [sys.executable, "-m", "tests.benchmarks._service", *flags, *service_cpu]
            services[by] = stack.enter_context(_process(argv, made, stdout=subprocess.PIPE))
        ports = {}
        for by, process in services.items():
            ports[by] = int(_first_line(process.stdout))
            _await(ports[by], "/readyz")

        def note(what: str, by: str, number: int, *flags: str) -> float:
            process = psutil.Process(services[by].pid)
            before = sum(process.cpu_times()[:2])
            seen = _asked(ports[by], bodies, *flags, *client_cpu)
            used = sum(process.cpu_times()[:2]) - before
            if seen["failed"]:
                raise RuntimeError(f"{seen['failed']} of {seen['requests']} requests failed")
            raw.note(what, by=by, round=number, service_cpu_s=used, **seen)
            return float(seen["requests"] / seen["wall_s"])

        fastest = []
        for number in range(-1, rounds):
            for by in ("log", "air") if number % 2 else ("air", "log"):
                rate = note("online", by, number, f"--callers={CALLERS}", f"--seconds={seconds}")
                if by == "log" and number >= 0:
                    fastest.append(rate)
        rate = SHARE * median(fastest)
        for number in range(paced):
            flags = (f"--callers={MOST_UNDER_WAY}", f"--seconds={2 * seconds}", f"--rate={rate}")
            note("online_paced", "log", number, *flags)


def _two_cores() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the flags that give the service a core of its own, and the client another."""
    if sys.platform != "linux":
        return (), ()
    cores = sorted(os.sched_getaffinity(0))
    return (f"--cpu={cores[0]}",), (f"--cpu={cores[-1]}",)


def _asked(port: int, bodies: Path, *flags: str) -> Line:
    argv = [sys.executable, "-m", "tests.benchmarks._load", f"--port={port}", *flags]
    argv.append(f"--requests={bodies}")
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True)
    seen: Line = json.loads(done.stdout)
    return seen


def _online_figures(lines: Sequence[Line]) -> dict[str, Figure]:
    rounds: dict[int, dict[str, Line]] = {}
    for line in lines:
        # The first round, -1, warms the connections and the model up.
        if line["what"] == "online" and line["round"] >= 0:
            rounds.setdefault(line["round"], {})[line["by"]] = line
    logged = [pair["log"] for pair in rounds.values()]
    paced = [line for line in lines if line["what"] == "online_paced"]
    rate = _middle([line["requests"] / line["wall_s"] for line in paced])

    def beside(top: str, bottom: str) -> float | None:
        # Many short rounds, each for itself: whatever else the machine does hits both of one.
        return _middle(
            [
                (pair["log"][top] / pair["log"][bottom]) / (pair["air"][top] / pair["air"][bottom])
                for pair in rounds.values()
            ]
        )

    return {
        "online_rps": Figure(
            _middle([line["requests"] / line["wall_s"] for line in logged]),
            "requests/s",
            f"one row of 25 features each, {CALLERS} connections, service on one core, logged",
        ),
        "online_p99_ms": Figure(
            _middle([line["p99_ms"] for line in paced]),
            "ms",
            f"at {SHARE:.0%} of that, from when a request is due; median of {len(paced)} rounds",
        ),
        "online_p999_ms": Figure(
            _middle([line["p99.9_ms"] for line in paced]), "ms", "the same, one in a thousand"
        ),
        "online_paced_rps": Figure(rate, "requests/s", "how many were answered meanwhile"),
        "online_p99_full_ms": Figure(
            _middle([line["p99_ms"] for line in logged]), "ms", "at the maximum, connections busy"
        ),
        "online_cpu_us": Figure(
            _middle([line["service_cpu_s"] / line["requests"] * 1e6 for line in logged]),
            "us",
            "CPU of the service for a request",
        ),
        "logging_ratio": Figure(
            beside("requests", "wall_s"),
            "x",
            "requests/s beside the same service with a spool of air",
        ),
        "logging_cpu_ratio": Figure(
            beside("service_cpu_s", "requests"),
            "x",
            "CPU a request beside the same; above 1 is dearer",
        ),
    }


# -- watching -------------------------------------------------------------------------------


def _watch(raw: Raw, plan: Plan, made: World) -> None:
    family = settle_quiet(made, max(200, round(WINDOW_ROWS * plan.size)))
    watcher = replace(made.system.watcher, fleet=made.system.fleet.only(family.models))
    for number in range(4 if plan.quick else 6):
        made.set_clock(NOW + (number + 1) * timedelta(hours=1, seconds=1))
        with cost() as spent:
            seen = watcher.watch()
        said = {each.problem if each.decision is None else each.decision.state for each in seen}
        if said != {State.FRESH} or len(seen) != WATCHED:
            raise RuntimeError(f"{len(seen)} quiet models are {said}")
        raw.note(
            "watch",
            # The first pass imports Evidently.
            warm=number > 0,
            models=len(seen),
            rows=sum(each.rows for each in seen),
            wall_s=spent.wall_s,
            cpu_s=spent.cpu_s,
        )
    _evidently(raw, made, family, models=1 if plan.quick else WATCHED)


def _evidently(raw: Raw, made: World, family: Family, *, models: int) -> None:
    """Put the same rows through Evidently as it comes."""
    import pyarrow.parquet as pq

    now = made.system.clock.now()
    for number, model in enumerate((family.models[0], *family.models[:models])):
        window = Window(model=model, start=now - family.window.span, end=now, known_at=now)
        head = made.system.ledger.head(model)
        if head is None:
            raise RuntimeError(f"{model} has no champion")
        wanted = ["label", "prediction", *NUMBERS, *WORDS]
        current = made.system.log.rows(family, window).select(wanted).to_pandas()
        file = Path(head.artifact).with_name("reference.parquet")
        reference = pq.read_table(file).select(wanted).to_pandas()
        if not number:
            presets(current, reference, NUMBERS[:1], ())  # imports what it imports late
            continue
        with cost() as spent:
            presets(current, reference)
        raw.note("evidently", model=model, cpu_s=spent.cpu_s, wall_s=spent.wall_s)


def _watch_figures(lines: Sequence[Line]) -> dict[str, Figure]:
    passes = [line["cpu_s"] for line in lines if line["what"] == "watch" and line["warm"]]
    evidently = [line["cpu_s"] for line in lines if line["what"] == "evidently"]
    ours = _middle(passes)
    theirs = sum(evidently) / len(evidently) * WATCHED if evidently else None
    scaled = f"; {len(evidently)} x {WATCHED // len(evidently)}" if evidently else ""
    return {
        "watch_quiet_cpu_s": watch_figure(lines),
        "watch_pass_cpu_s": Figure(ours, "s", "CPU of the same pass, without Prefect"),
        "watch_vs_evidently_ratio": Figure(
            _ratio(ours, theirs),
            "x",
            "beside Evidently's DataDriftPreset and RegressionPreset on the same rows" + scaled,
        ),
    }


# -- all of them ----------------------------------------------------------------------------


def _middle(values: Sequence[float]) -> float | None:
    return median(values) if values else None


def _ratio(one: float | None, other: float | None) -> float | None:
    return one / other if one is not None and other else None


def _median(lines: Sequence[Line], what: str, key: str, **where: object) -> float | None:
    return _middle(
        [
            line[key]
            for line in lines
            if line["what"] == what and all(line[name] == value for name, value in where.items())
        ]
    )


@contextmanager
def _process(
    argv: list[str], made: World, *, stdout: int | None = None
) -> Iterator["subprocess.Popen[str]"]:
    """Run a service of this home until the block ends."""
    with subprocess.Popen(
        argv, env=environment(made.settings), stdout=stdout, text=True
    ) as process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(10.0)
            except subprocess.TimeoutExpired:
                process.kill()


def _first_line(said: IO[str] | None) -> str:
    line = said.readline() if said is not None else ""
    if not line:
        raise RuntimeError("the service ended before it said its port")
    return line


def _await(port: int, path: str, *, patience: float = 30.0) -> None:
    until = time.monotonic() + patience
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1.0)
        try:
            connection.request("GET", path)
            if connection.getresponse().status == http.client.OK:
                return
        except OSError:
            pass
        finally:
            connection.close()
        if time.monotonic() > until:
            raise TimeoutError(f"nothing answers {path} on port {port}")
        time.sleep(0.05)
