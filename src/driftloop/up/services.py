"""What `driftloop up` runs: every service with its command, its port and how it shows health."""

import http.client
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

from driftloop.errors import BadRequest
from driftloop.serve.tokens import read_tokens
from driftloop.settings import Settings, nats_server, need_dask, need_nats, need_tokens
from driftloop.spec import Source

READY = re.compile(rb"\bready\s*$", re.MULTILINE)
"""A service without a port writes a line to its log that ends in this once it works."""
WEEK = 7 * 24 * 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A process to keep running.

    It is started once those in `after` are healthy, and stopped before those in `after` and
    `needs` are. `setting` names the setting that its port comes from. With `path` it is healthy
    when that path answers 2xx on its port, without when its log matches `READY`; one that `beats`
    shows from then on that it works (`driftloop.heartbeat`). When it is not `awaited`, it starts
    after all that are, and nobody waits for it.
    """

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    after: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    host: str = "127.0.0.1"
    port: int | None = None
    setting: str = ""
    path: str = ""
    awaited: bool = True
    patience: float = 60.0
    """Wall-clock seconds within which it must be healthy."""
    beats: bool = False
    silence: float = 30.0
    """Seconds without an answer, or a beat, after which it is taken to hang."""

    @property
    def url(self) -> str:
        """Its address for people, empty when it has no port."""
        if self.name in {"nats", "desk"}:
            return ""  # no browser opens it
        return f"http://{self.host}:{self.port}" if self.port is not None else ""


def services(
    settings: Settings,
    sources: Mapping[str, Source] = MappingProxyType({}),
    *,
    sidecar: bool = False,
) -> tuple[Service, ...]:
    """Return the services of one installation, in the order they are listed to people.

    What a setting names by address runs elsewhere, and is not among them. Where `sources` has
    streams of events there is the stream process, and NATS where one of them names a subject.
    `sidecar` says that there are, or may be, models that could not be lowered.

    Raises:
        BadRequest: they could not do what the settings ask for.
    """
    need_dask(settings)
    need_tokens(settings)
    if settings.tokens is not None:
        read_tokens(settings.tokens)  # before anything is started
    own = settings.environment() | {
        "PYTHONUNBUFFERED": "1",
        "DO_NOT_TRACK": "1",
        # What stays on this machine, a token for Slack included, is no proxy's business.
        "NO_PROXY": ",".join(
            filter(None, (os.environ.get("NO_PROXY"), settings.host, "localhost"))
        ),
    }
    prefect = own | _prefect_environment(settings)
    online = replace(
        _ours(settings, "online", own, port="online_port"), needs=("ingester", "sidecar")
    )
    pages = replace(
        _ours(settings, "pages", own, port="pages_port"),
        argv=_python("dashboards"),
        after=("ingester",),
    )
    ingester = Service(
        name="ingester",
        argv=_driftloop("_ingest"),
        env=own,
        beats=True,
        # A maintenance may write much of a large lake anew.
        silence=600.0 + settings.ingest_every,
    )
    worker = Service(
        name="worker",
        argv=_python("flows"),
        env=prefect,
        # It warms up while Prefect starts, and waits for it by itself.
        after=("ingester",),
        needs=("prefect", "slack"),
        patience=300.0,
        beats=True,
        # Prefect may let a call wait, and what it runs can hold it up.
        silence=120.0,
    )
    server = Service(
        name="prefect",
        argv=_python(
            "prefect", "server", "start", *_listening(settings.host, settings.prefect_port)
        ),
        env=prefect | _prefect_server(settings),
        host=settings.host,
        port=settings.prefect_port,
        setting="prefect_port",
        path="/api/health",
        patience=300.0,
    )
    watchdog = Service(
        name="watchdog",
        argv=_driftloop("_watchdog"),
        env=own,
        after=("ingester",),
        needs=(
            *("online", "sidecar", "pages", "prefect", "worker", "keeper", "slack", "stream"),
            "desk",
        ),
        beats=True,
        silence=120.0 + settings.watchdog_every,
    )
    events = [source for source in sources.values() if source.kind == "events"]
    bus = any(source.nats for source in events)
    if bus:
        need_nats(settings)
    own_bus = bus and not settings.nats.get_secret_value()
    stream = Service(
        name="stream",
        argv=_driftloop("_stream"),
        env=own,
        # Its states may have to be made anew from the log, which the ingester brings up to date.
        after=("ingester", *(("nats",) if own_bus else ())),
        patience=600.0,
        beats=True,
    )
    slack = (_ours(settings, "slack", own, port="slack_port"),)
    desk = replace(_ours(settings, "desk", own, port="desk_port"), needs=("ingester", "slack"))
    unlowered = Service(name="sidecar", argv=_driftloop("_sidecar"), env=own, beats=True)
    return (
        online,
        *((unlowered,) if sidecar else ()),
        pages,
        *(slack if settings.slack_is_local else ()),
        desk,
        *(() if settings.prefect else (server,)),
        *(() if settings.mlflow_runs else (_mlflow(settings, own),)),
        *((_nats(settings, own),) if own_bus else ()),
        *((stream,) if events else ()),
        # Prefect's own workers, on whatever machines, then run the flows.
        replace(worker, name="keeper") if settings.work_pool else worker,
        ingester,
        watchdog,
    )


def chosen(found: Sequence[Service], names: str) -> tuple[Service, ...]:
    """Return those of `found` that `names`, separated by commas, has.

    Raises:
        BadRequest: it has none, or one that is not among them.
    """
    wanted = [name for part in names.split(",") if (name := part.strip())]
    known = [service.name for service in found]
    if wrong := [name for name in wanted if name not in known]:
        away = [name for name in wrong if name in {"prefect", "mlflow", "slack", "nats"}]
        raise BadRequest(
            f"{', '.join(away)} runs elsewhere, as the settings have it"
            if away
            else f"there is no service {', '.join(wrong)}",
            where="--only",
            hint=f"known: {', '.join(known)}",
        )
    if not wanted:
        raise BadRequest("names no service", where="--only", hint=f"known: {', '.join(known)}")
    return tuple(service for service in found if service.name in wanted)


def healthy(service: Service, *, timeout: float = 1.0) -> bool:
    """Return whether the service's `path` answers 2xx within `timeout` seconds."""
    if service.port is None:
        raise ValueError(service.name)
    connection = http.client.HTTPConnection(service.host, service.port, timeout=timeout)
    try:
        connection.request("GET", service.path)
        return connection.getresponse().status in range(200, 300)
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _ours(settings: Settings, name: str, env: Mapping[str, str], *, port: str) -> Service:
    return Service(
        name=name,
        argv=_driftloop(f"_{name}"),
        env=env,
        needs=("ingester",),
        host=settings.host,
        port=getattr(settings, port),
        setting=port,
        path="/healthz",
    )


def _mlflow(settings: Settings, env: Mapping[str, str]) -> Service:
    return Service(
        name="mlflow",
        argv=_driftloop(
            "_mlflow",
            "--",
            # By way of the server: a worker on another machine has no such folder.
            *("--artifacts-destination", settings.mlflow_files.absolute().as_uri()),
            *_listening(settings.host, settings.mlflow_port),
            *("--workers", "1"),
        ),
        # Without its job runner it is two processes instead of ten.
        env=dict(env)
        | {
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            # Not as an argument: there everybody on the machine could read a password.
            "MLFLOW_BACKEND_STORE_URI": settings.mlflow_url,
        },
        host=settings.host,
        port=settings.mlflow_port,
        setting="mlflow_port",
        path="/health",
        awaited=False,
        patience=300.0,
    )


def _nats(settings: Settings, env: Mapping[str, str]) -> Service:
    return Service(
        name="nats",
        argv=(
            nats_server(),
            *("--jetstream", "--store_dir", str(settings.home.absolute() / "nats")),
            *("--addr", settings.host, "--port", str(settings.nats_port)),
        ),
        env=env,
        host=settings.host,
        port=settings.nats_port,
        setting="nats_port",
    )


def _prefect_environment(settings: Settings) -> dict[str, str]:
    folder = settings.home.absolute() / "prefect"
    return {
        "PREFECT_HOME": str(folder),
        "PREFECT_PROFILES_PATH": str(folder / "profiles.toml"),
        "PREFECT_API_URL": settings.prefect_api,
        "PREFECT_UI_URL": settings.prefect_api.removesuffix("/api"),
        "PREFECT_LOGGING_LEVEL": "INFO",
        "PREFECT_LOGGING_COLORS": "false",
        "PREFECT_CLI_COLORS": "false",
        "PREFECT_WORKER_QUERY_SECONDS": "1",
    }


def _prefect_server(settings: Settings) -> dict[str, str]:
    """Return what the server alone is told: its database's address may hold a password."""
    folder = settings.home.absolute() / "prefect"
    # A path with `:memory:` in it makes Prefect keep one connection to what is a file all the
    # same. With its usual pool two of three calls made three at a time fail, `database is
    # locked` (503); with one connection none of two hundred. Prefect is pinned to where it holds.
    database = folder / "one:memory:connection.db"
    return {
        "PREFECT_API_DATABASE_CONNECTION_URL": settings.prefect_store
        or f"sqlite+aiosqlite:///{database}",
        "PREFECT_SERVER_UI_API_URL": "/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
        # A short cadence has runs enough ahead: 100 at most, five minutes at least.
        "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "20",
        "PREFECT_SERVER_SERVICES_SCHEDULER_MIN_SCHEDULED_TIME": "PT5M",
        "PREFECT_SERVER_SERVICES_LATE_RUNS_AFTER_SECONDS": str(
            max(15, round(settings.watch_every))
        ),
        "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
        "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": str(WEEK),
        "PREFECT_SERVER_EVENTS_RETENTION_PERIOD": "P1D",
    }


def _listening(host: str, port: int) -> tuple[str, ...]:
    return ("--host", host, "--port", str(port))


def _driftloop(*words: str) -> tuple[str, ...]:
    return _python("driftloop", *words)


def _python(*arguments: str) -> tuple[str, ...]:
    return (str(Path(sys.executable)), "-m", *arguments)
