"""Versions and where they came from, in MLflow. The door to it.

The ledger's head is the truth about who is champion; the alias here is a copy for people and
other tools, and can be repaired from it at any time.
"""

import fcntl
import logging
import os
import shutil
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from driftloop.errors import BadRequest, DriftloopError, RegistryError
from driftloop.records import Candidate, GateResult, ModelId, Window
from driftloop.settings import masked
from driftloop.spec import Fleet

CONNECT_WITHIN = 10
"""Seconds that MLflow's server, or its database, may take to answer at all."""
ALIAS = "champion"
ORDER = "driftloop.order"
"""Tag of runs and versions: the key of the order they were made for."""
DIGEST = "driftloop.digest"
"""Tag of runs and versions: the SHA-256 of the model file."""
PARAMETER = 6000
"""Characters that MLflow keeps of a parameter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """A registered version as MLflow tells it; `gate` is "passed", "refused" or "" before it."""

    version: int
    created_at: datetime
    order: str
    digest: str
    gate: str
    reason: str
    champion: bool


class MlflowRegistry:
    """Implements `ports.Registry`. MLflow is imported, and its database made, at the first call.

    Args:
        url: address of MLflow's store, as in `sqlite:////path/mlflow.db`, or of its server.
        artifacts: folder that MLflow keeps its copies of the model files in; a server keeps them
            where it likes.
        fleet: what an order's model is: its family names the experiment.
    """

    def __init__(self, url: str, artifacts: Path, fleet: Fleet) -> None:
        """Connect to nothing yet."""
        self._url = url
        self._served = url.startswith("http")
        self._artifacts = artifacts.absolute()
        self._fleet = fleet
        self._connected: Any = None

    def prepare(self) -> None:
        """Make the store's database where it is not made yet; waits for whoever is making it.

        MLflow's server makes it too, without looking right or left: of two that make it at once
        each finds tables of the other's and fails.

        Raises:
            RegistryError: MLflow failed.
        """
        with self._locked():
            if self._served or _is_made(self._url):
                return
        with self._asked("could not make the database", ModelId("")):
            pass

    def register(self, candidate: Candidate) -> int:
        """Return the candidate's version; the same one registered again gets the same.

        A run with its parameters, metrics, lineage and files is logged first, then the version:
        a call that died in between is taken up at the run it left behind.

        Raises:
            RegistryError: MLflow failed, or the candidate's folder is not there.
            UnknownModel: the fleet does not declare the model.
        """
        order = candidate.order
        family = self._fleet.family(order.model)
        folder = Path(candidate.folder)
        if not (file := Path(candidate.artifact)).is_file():
            raise RegistryError(
                f"there is no {file.name}", where=str(folder), hint="train the candidate again"
            )
        with self._asked("could not register", order.model) as client, self._locked():
            # A recipe may come to other bytes at its second try: those are another version.
            made_of = f"tags.`{DIGEST}` = '{candidate.digest}'"
            wanted = f"tags.`{ORDER}` = '{order.key}' and {made_of}"
            known = client.search_model_versions(f"name = '{order.model}' and {wanted}")
            if known:
                return int(known[0].version)
            experiment = self._experiment(client, family.name)
            tags = {
                ORDER: order.key,
                "driftloop.model": order.model,
                DIGEST: candidate.digest,
                "driftloop.incident": order.incident or "",
            }
            left = client.search_runs([experiment], wanted, max_results=1)
            run = left[0] if left else client.create_run(experiment, tags=tags, run_name=order.key)
            self._log(client, run.info.run_id, candidate, family.retrain)
            client.log_artifacts(run.info.run_id, str(folder))
            client.set_terminated(run.info.run_id)
            _ensure_model(client, order.model)
            made = client.create_model_version(
                order.model,
                run.info.artifact_uri,
                run.info.run_id,
                tags=tags,
                description=order.reason,
                await_creation_for=0,
            )
            return int(made.version)

    def record_gate(self, model: ModelId, version: int, result: GateResult) -> None:
        """Note at the version whether the gate let it through, and why.

        Raises:
            RegistryError: MLflow failed, or has no such version.
        """
        # Each tag is a transaction of its own: two, whose reason has the figures in words.
        tags = {"gate": "passed" if result.passed else "refused", "gate.reason": result.reason}
        with self._asked(f"could not note the gate's result at version {version}", model) as client:
            for name, value in tags.items():
                client.set_model_version_tag(model, str(version), name, value)

    def point(self, model: ModelId, version: int) -> bool:
        """Point the alias `champion` at `version`; True when it stood elsewhere, or nowhere.

        Raises:
            RegistryError: MLflow failed, or has no such version.
        """
        with self._asked(f"could not point {ALIAS!r} at version {version}", model) as client:
            before = client.get_registered_model(model).aliases.get(ALIAS)
            if before is not None and int(before) == version:
                return False
            client.set_registered_model_alias(model, ALIAS, str(version))
            return True

    def versions(self, model: ModelId) -> tuple[Version, ...]:
        """Return every version of `model`, newest first; none when it was never registered.

        Raises:
            RegistryError: MLflow failed.
        """
        with self._asked("could not list the versions", model) as client:
            found = client.search_model_versions(
                f"name = '{model}'", order_by=["version_number DESC"], max_results=1000
            )
            champion = client.get_registered_model(model).aliases.get(ALIAS) if found else None
        return tuple(
            Version(
                version=int(each.version),
                created_at=datetime.fromtimestamp(each.creation_timestamp / 1000, UTC),
                order=each.tags.get(ORDER, ""),
                digest=each.tags.get(DIGEST, ""),
                gate=each.tags.get("gate", ""),
                reason=each.tags.get("gate.reason", ""),
                champion=champion is not None and int(each.version) == int(champion),
            )
            for each in found
        )

    def drop_files(self, model: ModelId, version: int) -> None:
        """Remove MLflow's copy of a version's files; its parameters, metrics and tags stay.

        Raises:
            RegistryError: MLflow failed, or has no such version.
        """
        with self._asked(f"could not drop the files of version {version}", model) as client:
            run = client.get_run(client.get_model_version(model, str(version)).run_id)
            if self._served:
                from mlflow.store.artifact.artifact_repository_registry import (
                    get_artifact_repository,
                )

                get_artifact_repository(
                    run.info.artifact_uri, tracking_uri=self._url
                ).delete_artifacts()
                return
            folder = _local(run.info.artifact_uri)
            if folder.is_relative_to(self._artifacts):
                shutil.rmtree(folder, ignore_errors=True)

    # -- private ----------------------------------------------------------------------------

    @contextmanager
    def _asked(self, failed: str, model: ModelId) -> Iterator[Any]:
        """Give the client, and tell whatever it raises as a RegistryError."""
        try:
            yield self._client()
        except DriftloopError:
            raise
        except Exception as error:  # MLflow lets errors of its database and files through
            raise RegistryError(
                f"{failed}: {_first_line(error)}",
                where=model,
                hint="see DRIFTLOOP_HOME/mlflow: it must be writable and not full"
                if self._url.startswith("sqlite:")
                else f"see {masked(self._url)}: does it run, and let this user in?",
            ) from error

    def _client(self) -> Any:  # noqa: ANN401 - MLflow is not imported before it is asked
        if self._connected is None:
            os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
            os.environ.setdefault("DO_NOT_TRACK", "true")
            from mlflow import MlflowClient

            # Two processes that make the database at once would each find half of it.
            with self._locked(), _quiet("alembic", "mlflow.store.db.utils"):
                _probe(self._url)
                client = MlflowClient(tracking_uri=self._url, registry_uri=self._url)
                client.search_experiments(max_results=1)
                client.search_registered_models(max_results=1)
                self._connected = client
        return self._connected

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the lock of this store against other threads and processes."""
        self._artifacts.mkdir(parents=True, exist_ok=True)
        with (self._artifacts / ".lock").open("wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _experiment(self, client: Any, name: str) -> str:  # noqa: ANN401 - as above
        known = client.get_experiment_by_name(name)
        if known is not None:
            return str(known.experiment_id)
        at = None if self._served else (self._artifacts / name).as_uri()
        return str(client.create_experiment(name, at))

    def _log(self, client: Any, run: str, candidate: Candidate, policy: Any) -> None:  # noqa: ANN401 - as above
        from mlflow.entities import Metric, Param

        order, window = candidate.order, candidate.order.window
        parameters = {
            "recipe": policy.recipe,
            **{f"recipe.{name}": value for name, value in policy.parameters.items()},
            "seed": order.seed,
            "order": order.key,
            "reason": order.reason,
            "ordered_at": order.at.isoformat(),
            "window.start": window.start.isoformat(),
            "window.end": window.end.isoformat(),
            "window.known_at": window.known_at.isoformat(),
            "holdout_from": order.holdout_from.isoformat(),
            "digest": candidate.digest,
            "folder": candidate.folder,
            **({"unlowered": candidate.unlowered} if candidate.unlowered else {}),
            **_left_out(window),
        }
        figures = {
            "rows": candidate.rows,
            "holdout_rows": candidate.holdout_rows,
            "parity": candidate.parity,
            "fit_seconds": candidate.fit_seconds,
            "lower_seconds": candidate.lower_seconds,
            **{metric.name: metric.value for metric in candidate.metrics},
        }
        at = int(order.at.timestamp() * 1000)
        client.log_batch(
            run,
            params=[Param(name, str(value)[:6000]) for name, value in parameters.items()],
            metrics=[Metric(name, float(value), at, 0) for name, value in figures.items()],
        )


def version_folders(database: Path) -> tuple[Path, ...]:
    """Return where MLflow's `database` says that the files of registered versions are.

    Raises:
        sqlite3.Error: it is not MLflow's.
    """
    with closing(sqlite3.connect(database)) as connection:
        found = connection.execute("SELECT DISTINCT source FROM model_versions").fetchall()
    return tuple(sorted(_local(source) for (source,) in found if source))


def re_root(database: Path, old: Path, new: Path) -> None:
    """Let what MLflow's `database` says lies under `old` lie under `new`: a home that has moved.

    Raises:
        sqlite3.Error: it is not MLflow's, or cannot be written.
    """
    with closing(sqlite3.connect(database)) as connection, connection:
        for table, column in _ADDRESSES:
            for before, after in ((old.as_uri(), new.as_uri()), (str(old), str(new))):
                connection.execute(
                    f"UPDATE {table} SET {column} = ?2 || substr({column}, length(?1) + 1)"  # noqa: S608 - names of ours
                    f" WHERE {column} = ?1 OR substr({column}, 1, length(?1) + 1) = ?1 || '/'",
                    (before, after),
                )


_ADDRESSES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("logged_models", "artifact_location"),
    ("params", "value"),
)
"""Where MLflow 3.17 keeps addresses; our parameter `folder` is one too."""


def _local(uri: str) -> Path:
    return Path(unquote(urlparse(uri).path))


def _ensure_model(client: Any, model: ModelId) -> None:  # noqa: ANN401 - as above
    if not client.search_registered_models(f"name = '{model}'", max_results=1):
        client.create_registered_model(model)


def _is_made(url: str) -> bool:
    file = Path(url.removeprefix("sqlite:///"))
    if not (url.startswith("sqlite:///") and file.exists()):
        return False
    with closing(sqlite3.connect(file)) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE name = 'model_versions'")
        return tables.fetchone() is not None


def _probe(url: str) -> None:
    """Make sure that there is somebody to ask: MLflow itself would try for 100 seconds."""
    if url.startswith("http"):
        parts = urlparse(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname or "", port), timeout=CONNECT_WITHIN).close()
    elif not url.startswith("sqlite:///"):
        _probe_postgresql(url)
    else:
        file = Path(url.removeprefix("sqlite:///"))
        file.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(file)) as connection:
            connection.execute("PRAGMA schema_version")


def _probe_postgresql(url: str) -> None:
    try:
        import psycopg
    except ImportError as error:
        raise BadRequest(
            "psycopg is not installed", where="mlflow", hint="pip install 'driftloop[postgres]'"
        ) from error
    plain = f"postgresql:{url.partition(':')[2]}"
    psycopg.connect(plain, connect_timeout=CONNECT_WITHIN).close()


@contextmanager
def _quiet(*names: str) -> Iterator[None]:
    """Keep the chatter of making a database out of our services' logs."""
    loggers = [logging.getLogger(name) for name in names]
    before = [each.level for each in loggers]
    for each in loggers:
        each.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for each, level in zip(loggers, before, strict=True):
            each.setLevel(level)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".strip().split("\n", 1)[0][:300]


def _left_out(window: Window) -> dict[str, str]:
    """Return how many rows of a window are in quarantine, and which; nothing if none are."""
    spans = window.left_out
    said = ", ".join(f"{span.start.isoformat()}/{span.end.isoformat()}" for span in spans)
    rows = sum(span.rows for span in spans)
    return {"left_out.rows": str(rows), "left_out.spans": said[:PARAMETER]} if spans else {}
