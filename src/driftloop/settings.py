"""Settings of one installation: from the environment (`DRIFTLOOP_*`) or the command line."""

import os
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from driftloop.errors import BadRequest

Seconds = Annotated[float, Field(gt=0.0)]
Port = Annotated[int, Field(ge=1, le=65535)]


PORTS = ("online_port", "pages_port", "slack_port", "mlflow_port", "prefect_port")


class Settings(BaseSettings):
    """Where things are and how often they happen; durations are wall-clock seconds."""

    model_config = SettingsConfigDict(
        env_prefix="DRIFTLOOP_", env_ignore_empty=True, extra="ignore", frozen=True
    )

    home: Path = Path(".driftloop")
    """Everything this installation writes."""
    monitors: Path = Path("monitors")
    """The folder of monitor files."""
    models: str = ""
    """Comma-separated models to run; empty for the whole fleet."""

    host: str = "127.0.0.1"
    online_port: Port = 8400
    pages_port: Port = 8401
    slack_port: Port = 8402
    mlflow_port: Port = 8403
    prefect_port: Port = 8404

    slack_token: SecretStr | None = None
    """A bot token; without one a local Slack-compatible server is started and used."""
    slack_api: str = ""
    """Base address of Slack's Web API; empty for Slack itself, or the local server."""

    watch_every: Seconds = 600.0
    maintain_every: Seconds = 3600.0
    ingest_every: Seconds = 5.0
    seal_every: Seconds = 2.0
    seal_rows: Annotated[int, Field(ge=1)] = 5000
    watchdog_every: Seconds = 5.0
    """How often the watchdog looks at the loop itself."""
    poll_every: Seconds = 0.5
    """How often the online service looks for a new champion."""
    renew_slots: Annotated[int, Field(ge=1)] = 2
    """How many retrainings may run side by side."""
    restart: bool = True
    """Whether `driftloop up` restarts a service that died."""

    @model_validator(mode="after")
    def _ports_differ(self) -> Self:
        ports = [getattr(self, name) for name in PORTS]
        twice = [name for name, port in zip(PORTS, ports, strict=True) if ports.count(port) > 1]
        if twice:
            raise ValueError(f"{' and '.join(twice)} are the same port")
        return self

    @property
    def spool(self) -> Path:
        """Folder of the spools, one folder for each writing process."""
        return self.home / "spool"

    @property
    def lake(self) -> Path:
        """Folder of the prediction log: its catalog and its Parquet files."""
        return self.home / "lake"

    @property
    def artifacts(self) -> Path:
        """Folder of the model files."""
        return self.home / "artifacts"

    @property
    def reports(self) -> Path:
        """Folder of the rendered reports."""
        return self.home / "reports"

    @property
    def logs(self) -> Path:
        """Folder of the services' logs."""
        return self.home / "logs"

    @property
    def clock(self) -> Path:
        """File that the processes share their clock in."""
        return self.home / "clock.json"

    @property
    def ledger_url(self) -> str:
        """SQLAlchemy address of the ledger."""
        return f"sqlite:///{(self.home / 'ledger.db').absolute()}"

    @property
    def mlflow_url(self) -> str:
        """Address of the model registry's store."""
        return f"sqlite:///{(self.home / 'mlflow' / 'mlflow.db').absolute()}"

    @property
    def prefect_api(self) -> str:
        """Address of Prefect's API."""
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

    def environment(self) -> dict[str, str]:
        """Return the settings as `DRIFTLOOP_*` variables for a child process.

        Every setting is said, the token too where there is none: what this process's own
        environment holds must not come through.
        """
        shown = self.model_dump(mode="json", exclude={"slack_token"})
        said = {f"DRIFTLOOP_{name.upper()}": str(value) for name, value in shown.items()}
        token = self.slack_token
        said["DRIFTLOOP_SLACK_TOKEN"] = token.get_secret_value() if token is not None else ""
        return said


def read_settings(**given: object) -> Settings:
    """Return the settings, `given` ones (those that are not None) before the environment's.

    Raises:
        BadRequest: a value does not fit, or no setting has that name; names the variable.
    """
    known = {f"DRIFTLOOP_{name.upper()}" for name in Settings.model_fields}
    for variable in sorted(os.environ.keys() - known):
        if variable.startswith("DRIFTLOOP_"):
            near = get_close_matches(variable, known, n=1)
            hint = f"did you mean {near[0]}?" if near else "settings.py lists them"
            raise BadRequest("there is no such setting", where=variable, hint=hint)
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        faults = "; ".join(
            f"DRIFTLOOP_{'_'.join(str(part) for part in fault['loc']).upper()}: {fault['msg']}"
            if fault["loc"]
            else fault["msg"].removeprefix("Value error, ")
            for fault in error.errors()
        )
        raise BadRequest(faults, where="settings") from error
