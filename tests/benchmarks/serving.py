"""What answering costs: the service as `driftloop up` runs it, under load, swaps and a kill.

The client runs on the same cores and its share counts. Latencies are open-loop: they begin when
a request was due, so that a stall counts for all who would have come.
"""

import os
import socket
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from math import isclose
from statistics import median

import psutil

from driftloop.features.replay import replayed
from driftloop.records import Head
from tests.benchmarks._batch import batch_figures, measure_batch
from tests.benchmarks._peers import measure_peers, peer_figures
from tests.benchmarks._raw import Figure, Line, Plan, Raw
from tests.benchmarks._served import (
    Served,
    load,
    seen,
    serve,
    service,
    spent,
    visits,
    write_places,
)
from tests.benchmarks._sidecar import gathered
from tests.benchmarks._streams import measure_streams, stream_figures
from tests.benchmarks._watch import free_port
from tests.benchmarks._world import world

TREES = 100
BODIES = 2000
CALLERS = 32
MOST_UNDER_WAY = 64
"""Connections of the paced client: more are due than that only if the service stands still."""
SHARE = 0.5
MANY, EVERY = 8, 20
"""While versions are swapped every twentieth request has eight rows, which one version answers."""
KILL_AFTER, KILL_FOR = 1.0, 3.0
RESTARTED_WITHIN = 20.0
REPLAYED = 100_000
"""Served rows whose features are made again, at most."""


def measure(raw: Raw, plan: Plan) -> None:
    """Write raw lines: load, swaps, kill, logged, and those of the parts that have their own."""
    os.environ.update(DO_NOT_TRACK="1", MLFLOW_DISABLE_TELEMETRY="true")
    models, swaps = (20, 10) if plan.quick else (200, 120)
    with world(
        seed=plan.seed, watched=models, trees=TREES, looked_up=True, online_port=free_port()
    ) as made:
        served = serve(made)
        write_places(made)
        # Versions that will be swapped in lie ready, as after a training.
        later = [
            served.head(served.family.models[n % models], 2 + n // models) for n in range(swaps)
        ]
        with service(served, "online", "stream") as process, visits(made.settings.online_port):
            rate = SHARE * _maxima(raw, plan, served, process)
            _paced(raw, plan, served, process, rate)
            _swaps(raw, served, process, rate, later)
            _kill(raw, served, process, rate)
        _logged(raw, served)
        _features(raw, served)
    measure_streams(raw, plan)
    measure_batch(raw, plan)
    _sidecar(raw, plan)
    if not plan.quick:
        measure_peers(raw, plan, trees=TREES)


def figures(lines: Sequence[Line]) -> dict[str, Figure]:
    """Return every figure, in the order they are shown; derived from raw lines alone."""
    return (
        _load_figures(lines)
        | _swap_figures(lines)
        | _kill_figures(lines)
        | _log_figures(lines)
        | _feature_figures(lines)
        | stream_figures(lines)
        | batch_figures(lines)
        | _sidecar_figures(lines)
        | peer_figures(lines)
    )


# -- load -----------------------------------------------------------------------------------


def _maxima(raw: Raw, plan: Plan, served: Served, process: psutil.Process) -> float:
    """Note rounds at the maximum; return how many requests a second it is, of all models."""
    home = served.made.settings.home
    requests = {
        "full": served.requests(home / "requests", many=BODIES),
        "one": served.requests(home / "alike", many=BODIES, models=1),
    }
    found = []
    for number in range(-1, 2 if plan.quick else 8):
        for kind, file in requests.items():
            flags = (f"--requests={file}", f"--callers={CALLERS}")
            seconds = 0.7 if plan.quick else 5.0
            run = f"{kind[0]}{number + 1}"
            line = _loaded(raw, served, process, kind, run, seconds, *flags)
            if number >= 0 and kind == "full":
                found.append(line["requests"] / line["wall_s"])
    return median(found)


def _paced(raw: Raw, plan: Plan, served: Served, process: psutil.Process, rate: float) -> None:
    requests = served.requests(
        served.made.settings.home / "mixed", many=BODIES, rows=MANY, every=EVERY
    )
    flags = (f"--requests={requests}", f"--callers={MOST_UNDER_WAY}", f"--rate={rate}")
    seconds = 3.0 if plan.quick else 30.0
    for number in range(1 if plan.quick else 3):
        _loaded(raw, served, process, "paced", f"p{number}", seconds, *flags, "--thousands")


def _loaded(
    raw: Raw,
    served: Served,
    process: psutil.Process,
    kind: str,
    run: str,
    seconds: float,
    *flags: str,
) -> Line:
    before = spent(process)
    line = seen(
        load(served.made.settings.online_port, *flags, f"--seconds={seconds}", f"--run={run}")
    )
    raw.note(
        "load",
        load=kind,
        # The first round warms connections, models and caches up.
        warm=run not in {"f0", "o0"},
        service_cpu_s=spent(process) - before,
        mib=[each.memory_info().rss / 2**20 for each in _workers(process)],
        resident=len(served.family.models),
        **line,
    )
    return line


def _load_figures(lines: Sequence[Line]) -> dict[str, Figure]:
    full = [line for line in _loads(lines, "full") if line["warm"]]
    one = [line for line in _loads(lines, "one") if line["warm"]]
    paced = _loads(lines, "paced")
    workers = len(full[0]["mib"]) if full else 0
    models = full[0]["resident"] if full else 0
    mib = [max(line["mib"]) for line in (*full, *paced)]
    return {
        "rps": Figure(
            _middle([line["requests"] / line["wall_s"] for line in full]),
            "requests/s",
            f"one row each, {models} models in turn, features looked up, logged;"
            f" {workers} workers, client included",
        ),
        "rps_one": Figure(
            _middle([line["requests"] / line["wall_s"] for line in one]),
            "requests/s",
            "the same, of requests that all ask one of these models",
        ),
        "service_cpu_us": Figure(
            _middle([line["service_cpu_s"] / line["requests"] * 1e6 for line in full]),
            "us",
            "CPU of the service for one of those that ask all in turn",
        ),
        "client_cpu_us": Figure(
            _middle([line["client_cpu_s"] / line["requests"] * 1e6 for line in full]),
            "us",
            "CPU of the client for one",
        ),
        "p99_full_ms": Figure(
            _middle([line["p99_ms"] for line in full]),
            "ms",
            f"at that maximum, {CALLERS} connections",
        ),
        "p99_ms": Figure(
            _middle([line["p99_ms"] for line in paced]),
            "ms",
            f"at {SHARE:.0%} of it, from when a request was due; one in {EVERY} has {MANY} rows",
        ),
        "p50_ms": Figure(_middle([line["p50_ms"] for line in paced]), "ms", "the same, the middle"),
        "p999_ms": Figure(
            _middle([line["p99.9_ms"] for line in paced]), "ms", "the same, one in a thousand"
        ),
        "worker_mib": Figure(max(mib, default=None), "MiB", "of the largest worker"),
    }


# -- swaps ----------------------------------------------------------------------------------


def _swaps(
    raw: Raw, served: Served, process: psutil.Process, rate: float, later: Sequence[Head]
) -> None:
    """Promote a version a second at the load of `_paced`."""
    flags = (f"--requests={served.made.settings.home / 'mixed'}", f"--rate={rate}")
    client = load(
        served.made.settings.online_port,
        *flags,
        f"--callers={MOST_UNDER_WAY}",
        f"--seconds={len(later) + 1.0}",
        "--run=s",
        "--thousands",
    )
    began = time.monotonic()
    for number, head in enumerate(later):
        time.sleep(max(0.0, began + 1.0 + number - time.monotonic()))
        version = head.version - 1
        served.move(head, replace(head, version=version, epoch=version))
    line = seen(client)
    raw.note("swaps", swaps=len(later), **line)


def _swap_figures(lines: Sequence[Line]) -> dict[str, Figure]:
    swaps = next((line for line in lines if line["what"] == "swaps"), None)
    quiet = _middle([line["p99_ms"] for line in _loads(lines, "paced")])
    if swaps is None or quiet is None:
        names = ("swap_seen", "swap_failed", "swap_mixed", "swap_p99_ratio")
        return {name: Figure(None, "", "no version was swapped") for name in names}
    what = f"{swaps['swaps']} swaps, one a second, at the same load"
    return {
        "swap_seen": Figure(
            swaps["versions"] - swaps["models"], "swaps", f"whose answers were seen, of {what}"
        ),
        "swap_failed": Figure(swaps["failed"], "requests", f"not answered with 200: {what}"),
        "swap_mixed": Figure(
            swaps["mixed"], "answers", "of two versions, or with another one's value"
        ),
        "swap_p99_ratio": Figure(
            swaps["p99_ms"] / quiet, "x", "p99 while versions are swapped beside p99_ms"
        ),
    }


# -- a worker dies ----------------------------------------------------------------------------


def _kill(raw: Raw, served: Served, process: psutil.Process, rate: float) -> None:
    """Kill a worker in the middle of a load, and see who suffers, and for how long."""
    workers = process.children()
    if len(workers) < 2:
        return  # there is nobody who could answer meanwhile
    victim = workers[-1]
    client = load(
        served.made.settings.online_port,
        f"--requests={served.made.settings.home / 'requests'}",
        f"--rate={rate}",
        f"--callers={MOST_UNDER_WAY}",
        f"--seconds={KILL_FOR}",
        "--run=k",
    )
    time.sleep(KILL_AFTER)
    # Its connections: more requests than these cannot have been in its hands.
    held = {each.raddr.port for each in victim.net_connections("tcp") if each.raddr}
    victim.kill()
    back = _seconds_until_back(process, workers, served.made.settings.online_port)
    line = seen(client)
    raw.note("kill", workers=len(workers), connections=sorted(held), back_s=back, **line)


def _seconds_until_back(
    process: psutil.Process, before: Sequence[psutil.Process], port: int
) -> float | None:
    """Return after how long as many as before have connections; new callers come all the time."""
    killed = time.monotonic()
    with ExitStack() as callers:
        while (passed := time.monotonic() - killed) < RESTARTED_WITHIN:
            callers.enter_context(socket.create_connection(("127.0.0.1", port), timeout=1.0))
            time.sleep(0.02)
            new = [each for each in process.children() if each not in before]
            if new and all(_is_called(each) for each in new):
                return passed
    return None


def _is_called(worker: psutil.Process) -> bool:
    try:
        return any(each.raddr for each in worker.net_connections("tcp"))
    except psutil.Error:  # it is not there yet, or gone already
        return False


def _workers(process: psutil.Process) -> list[psutil.Process]:
    """Return the processes that answer: those that the service has started, or itself."""
    return process.children() or [process]


def _kill_figures(lines: Sequence[Line]) -> dict[str, Figure]:
    kill = next((line for line in lines if line["what"] == "kill"), None)
    if kill is None:
        names = ("kill_failed", "kill_failed_elsewhere", "kill_back_s")
        return {name: Figure(None, "", "no worker was killed") for name in names}
    in_hand = [port for port in kill["dropped"] if port in kill["connections"]]
    return {
        "kill_failed": Figure(
            kill["failed"],
            "requests",
            f"failed as one of {kill['workers']} workers was killed with SIGKILL;"
            f" it had {len(kill['connections'])} connections",
        ),
        "kill_failed_elsewhere": Figure(
            kill["failed"] - len(in_hand), "requests", "of them not on its connections"
        ),
        "kill_back_s": Figure(
            kill["back_s"], "s", "until as many workers as before had connections again"
        ),
    }


# -- the log ----------------------------------------------------------------------------------


def _logged(raw: Raw, served: Served) -> None:
    """Note how many of the rows that were answered the log lacks, and has twice."""
    made = served.made
    made.ingest()
    sql = f"SELECT id FROM lake.{served.family.table}_predictions"
    found = made.system.log.query(sql).column("id").to_pylist()
    distinct = set(found)
    answered = missing = 0
    for line in raw.lines():
        if line["what"] not in ("load", "swaps", "kill"):
            continue
        mixed = line["run"][0] in "ps"
        lost = set(line["unanswered"])
        for number in range(line["sent"]):
            if number in lost:
                continue
            name = f"{line['run']}-{number:09d}"
            many = mixed and number % BODIES % EVERY == 0
            ids = {f"{name}.{n}" for n in range(MANY)} if many else {name}
            answered += len(ids)
            missing += len(ids - distinct)
    raw.note("logged", answered=answered, missing=missing, twice=len(found) - len(distinct))


def _log_figures(lines: Sequence[Line]) -> dict[str, Figure]:
    logged = next((line for line in lines if line["what"] == "logged"), None)
    if logged is None:
        return {"log_missing": Figure(None, "rows", "answered and not logged")}
    return {
        "log_missing": Figure(
            logged["missing"], "rows", f"of {logged['answered']:,} answered are not in the lake"
        ),
        "log_twice": Figure(logged["twice"], "rows", "are in it more than once"),
    }


# -- features -------------------------------------------------------------------------------


def _features(raw: Raw, served: Served) -> None:
    """Make the features of served rows again, of the events in the log, and count differences."""
    log, family = served.made.system.log, served.family
    rows = log.query(
        "SELECT row_number() OVER () AS row, epoch_us(event_time) AS at, * EXCLUDE (event_time)"
        f" FROM lake.{family.table}_predictions WHERE position IS NOT NULL LIMIT {REPLAYED}"
    ).sort_by("row")
    events = log.query(
        "SELECT DISTINCT ON (position) position, epoch_us(event_time) AS at, place, amount"
        " FROM lake.visits_events"
    )
    streamed = [name for name, feature in family.features.items() if feature.aggregate is not None]
    again = replayed(family, served.made.system.fleet, rows, {"visits": events}, looked_up=streamed)
    wrong = 0
    for name in again.column_names[1:]:
        pairs = zip(rows[name].to_pylist(), again[name].to_pylist(), strict=True)
        wrong += sum(not _same(one, other) for one, other in pairs)
    raw.note(
        "features",
        rows=rows.num_rows,
        events=events.num_rows,
        features=again.column_names[1:],
        filled=sum(len(again) - again[name].null_count for name in streamed),
        mismatches=wrong,
    )


def _same(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return isclose(one, other, rel_tol=1e-9)


def _feature_figures(lines: Sequence[Line]) -> dict[str, Figure]:
    found = next((line for line in lines if line["what"] == "features"), None)
    if found is None:
        return {"feature_mismatches": Figure(None, "values", "no features were replayed")}
    note = f"of {len(found['features'])} features of {found['rows']:,} served rows differ when"
    note += f" they are made again of {found['events']:,} logged events"
    return {"feature_mismatches": Figure(found["mismatches"], "values", note)}


# -- what cannot be lowered -----------------------------------------------------------------


def _sidecar(raw: Raw, plan: Plan) -> None:
    if not plan.quick:
        raw.note("sidecar", figures=gathered(seed=plan.seed))


def _sidecar_figures(lines: Sequence[Line]) -> dict[str, Figure]:
    found = next((line["figures"] for line in lines if line["what"] == "sidecar"), None)
    note = "of a scikit-learn model: one request at a time, and all that wait gathered, 16 callers"
    return {"sidecar": Figure(found, "", note)}


def _loads(lines: Sequence[Line], kind: str) -> list[Line]:
    return [line for line in lines if line["what"] == "load" and line["load"] == kind]


def _middle(found: Sequence[float]) -> float | None:
    return median(found) if found else None
