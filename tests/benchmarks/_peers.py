"""MLServer and MLflow's own server beside ours: one scikit-learn model, 25 numbers a row.

Each has an environment of its own. What they are given is what is kindest to them: the boosted
trees without the pipeline around them, fed with arrays. Neither logs what it answers; ours does.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

import joblib
import psutil

from tests.benchmarks._load import ID
from tests.benchmarks._raw import Figure, Line, Plan, Raw
from tests.benchmarks._served import Served, load, seen, serve, service, spent
from tests.benchmarks._watch import free_port
from tests.benchmarks._world import world

PLACE = Path("bench-results")
"""Their environments are kept from one run to the next: 1.4 GB."""
BODIES = 500
CALLERS = 16
MOST_UNDER_WAY = 64
SHARE = 0.5
PATIENCE = 120.0
MLFLOW_SAVES = """
import sys
import joblib, mlflow
mlflow.sklearn.save_model(
    joblib.load(sys.argv[1]), sys.argv[2], serialization_format="pickle",
    pip_requirements=["scikit-learn"],
)
"""


@dataclass(frozen=True, slots=True)
class Peer:
    """Another server: what it is installed from, how it is started, and how it is asked."""

    name: str
    wanted: tuple[str, ...]
    start: Callable[[Path, Path, int], list[str]]
    """Of its environment's folder, one with the model in `model.joblib`, and a port: a command."""
    ready: str
    path: str
    body: Callable[[list[float]], dict[str, object]]


def measure_peers(raw: Raw, plan: Plan, *, trees: int) -> None:
    """Note requests, CPU and latency of each peer and of ours; or why a peer has none."""
    with world(
        seed=plan.seed, watched=1, trees=trees, words="numeric", online_port=free_port()
    ) as made:
        served = serve(made)
        rates = {}
        for peer in PEERS:
            try:
                _install(peer)
                with _peer(peer, served) as (process, port):
                    asked = _requests(peer, served)
                    rates[peer.name] = SHARE * _full(raw, peer.name, process, port, asked)
                    _paced(raw, peer.name, process, port, asked, peer.name, rates[peer.name])
            except (OSError, RuntimeError, subprocess.SubprocessError) as error:
                said = getattr(error, "stderr", None) or error
                raw.note("peer_missing", by=peer.name, why=str(said).strip()[-500:])
        asked = served.requests(made.settings.home / "rows", many=BODIES)
        port = made.settings.online_port
        with service(served, "online") as process:
            _full(raw, "ours", process, port, asked)
            for name, rate in rates.items():
                _paced(raw, "ours", process, port, asked, name, rate)


def peer_figures(lines: Sequence[Line]) -> dict[str, Figure]:
    """Return the figure `peer_ratios`, and why a peer is not in it."""
    found = {(line["by"], line["load"]): line for line in lines if line["what"] == "peer"}
    ratios: dict[str, float] = {}
    for name in {by: None for by, kind in found if by == kind}:
        ours, theirs = found["ours", "full"], found[name, "full"]
        ratios[f"{name}_rps"] = _rate(ours) / _rate(theirs)
        ratios[f"{name}_cpu"] = _cpu(theirs) / _cpu(ours)
        ratios[f"{name}_p99"] = found[name, name]["p99_ms"] / found["ours", name]["p99_ms"]
    missing = [f"{line['by']}: {line['why']}" for line in lines if line["what"] == "peer_missing"]
    note = "ours answers so many times as much, for so many times less CPU, and so much sooner"
    note += f" at {SHARE:.0%} of the other's maximum; one model, 25 numbers a row"
    return {"peer_ratios": Figure(ratios or None, "x", "; ".join([note, *missing]))}


def _rate(line: Line) -> float:
    return float(line["requests"] / line["wall_s"])


def _cpu(line: Line) -> float:
    return float(line["service_cpu_s"] / line["requests"])


def _full(raw: Raw, by: str, process: psutil.Process, port: int, file: Path) -> float:
    """Return how many requests a second are answered at most."""
    callers = f"--callers={CALLERS}"
    _asked(raw, by, "warm-up", process, port, file, 2.0, callers)
    return _rate(_asked(raw, by, "full", process, port, file, 5.0, callers))


def _paced(
    raw: Raw, by: str, process: psutil.Process, port: int, file: Path, kind: str, rate: float
) -> None:
    """Note latencies at `rate`; what is of the same `kind` is compared."""
    flags = (f"--callers={MOST_UNDER_WAY}", f"--rate={rate}")
    _asked(raw, by, kind, process, port, file, 8.0, *flags)


def _asked(
    raw: Raw,
    by: str,
    kind: str,
    process: psutil.Process,
    port: int,
    file: Path,
    seconds: float,
    *flags: str,
) -> Line:
    before = spent(process)
    told = seen(
        load(port, f"--requests={file}", f"--seconds={seconds}", f"--run={by}-{kind}", *flags)
    )
    if told["failed"]:
        raise RuntimeError(f"{told['failed']} of {told['sent']} requests failed")
    raw.note("peer", by=by, load=kind, service_cpu_s=spent(process) - before, **told)
    return told


def _requests(peer: Peer, served: Served) -> Path:
    """Write the same rows as the peer takes them."""
    file = served.made.settings.home / f"requests-{peer.name}"
    told = served.told(BODIES)
    rows = zip(*(told[name].tolist() for name in served.family.numeric), strict=True)
    file.write_text("".join(f"{peer.path} {json.dumps(peer.body(list(row)))}\n" for row in rows))
    return file


def _install(peer: Peer) -> None:
    folder = PLACE / peer.name
    noted, wanted = folder / "installed", "\n".join(peer.wanted)
    if noted.exists() and noted.read_text() == wanted:
        return
    subprocess.run([sys.executable, "-m", "venv", folder], check=True, capture_output=True)
    pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", *peer.wanted]
    subprocess.run(pip, check=True, capture_output=True, text=True)
    noted.write_text(wanted)


@contextmanager
def _peer(peer: Peer, served: Served) -> Iterator[tuple[psutil.Process, int]]:
    """Start the peer with the model, and yield its process and its port once it is ready."""
    folder = served.made.settings.home / peer.name
    folder.mkdir()
    joblib.dump(served.fitted.pipeline[-1], folder / "model.joblib")
    port = free_port()
    argv = peer.start((PLACE / peer.name).absolute(), folder, port)
    own = {**os.environ, "DO_NOT_TRACK": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}
    # Threads for one row would wait for each other, and burn what the other worker needs.
    own["OMP_NUM_THREADS"] = "1"
    own["PATH"] = f"{(PLACE / peer.name / 'bin').absolute()}:{own.get('PATH', '')}"
    with (folder / "log").open("w") as log:
        process = psutil.Popen(
            argv, cwd=folder, env=own, stdout=log, stderr=log, start_new_session=True
        )
    try:
        _await(process, f"http://127.0.0.1:{port}{peer.ready}", folder / "log")
        yield process, port
    finally:
        # With all that it started: they share a session.
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with suppress(psutil.TimeoutExpired):
                process.wait(10.0)


def _await(process: psutil.Popen, url: str, log: Path) -> None:
    opener = build_opener(ProxyHandler({}))
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and process.is_running() and process.poll() is None:
        try:
            opener.open(url, timeout=2.0).close()
        except (URLError, OSError):
            time.sleep(0.2)
        else:
            return
    raise RuntimeError(f"it did not become ready: {log.read_text()[-400:]}")


def _start_mlserver(place: Path, folder: Path, port: int) -> list[str]:
    ports = {f"{name}_port": free_port() for name in ("grpc", "metrics")}
    settings = {"http_port": port, **ports, "host": "127.0.0.1", "debug": False}
    model = {
        "name": "m",
        "implementation": "mlserver_sklearn.SKLearnModel",
        "parameters": {"uri": str(folder / "model.joblib")},
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "model-settings.json").write_text(json.dumps(model))
    return [str(place / "bin" / "mlserver"), "start", str(folder)]


def _start_mlflow(place: Path, folder: Path, port: int) -> list[str]:
    python = str(place / "bin" / "python")
    saved = [python, "-c", MLFLOW_SAVES, str(folder / "model.joblib"), str(folder / "model")]
    subprocess.run(saved, check=True, capture_output=True, text=True, cwd=folder)
    served = ["models", "serve", "-m", str(folder / "model"), "--env-manager", "local"]
    # As many workers as this machine has cores, as ours.
    served += ["-h", "127.0.0.1", "-p", str(port), "-w", str(os.cpu_count())]
    return [python, "-m", "mlflow", *served]


PEERS = (
    Peer(
        name="mlserver",
        # Its workers do not start under a newer uvloop.
        wanted=(
            "mlserver==1.7.1",
            "mlserver-sklearn==1.7.1",
            "scikit-learn==1.9.1",
            "uvloop==0.21.0",
        ),
        start=_start_mlserver,
        ready="/v2/models/m/ready",
        path="/v2/models/m/infer",
        body=lambda row: {
            "id": ID.decode(),
            "inputs": [{"name": "x", "shape": [1, len(row)], "datatype": "FP32", "data": row}],
        },
    ),
    Peer(
        name="mlflow",
        wanted=("mlflow==3.17.2", "scikit-learn==1.9.1"),
        start=_start_mlflow,
        ready="/ping",
        path="/invocations",
        body=lambda row: {"inputs": [row]},
    ),
)
