"""Which services run here: all, those that are asked for, none that runs elsewhere already."""

import shutil
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest
from fakes.streamed import write_monitors

from driftloop.errors import BadRequest
from driftloop.records import Head, ModelId
from driftloop.settings import Settings, read_settings
from driftloop.spec import Source, load_fleet
from driftloop.up import chosen, services
from driftloop.up.status import ServiceStatus, write_status
from driftloop.up.watchdog import Watchdog
from driftloop.wiring import System

MONITORS = Path(__file__).parents[2] / "monitors"


def names(settings: Settings) -> list[str]:
    return [service.name for service in services(settings)]


def test_what_is_named_by_address_is_not_started() -> None:
    """Prefect, MLflow's server and Slack run here unless settings say where they are."""
    away = ("prefect", "mlflow", "slack")
    here = [name for name in names(read_settings()) if name not in away]
    assert set(names(read_settings())) == {*here, *away}
    elsewhere = read_settings(
        prefect="http://p:4200/api", mlflow="http://m:5000", slack_api="http://s/api/"
    )
    assert names(elsewhere) == here
    database = read_settings(prefect_database="postgresql://u@h/p", mlflow="postgresql://u@h/m")
    assert names(database) == names(read_settings())


@pytest.mark.parametrize(
    ("held", "why"),
    [
        (None, "the tokens cannot be read"),
        (f'[ci]\nsha256 = "{"0" * 64}"\nscopes = ["predcit"]\n', "scopes should be some of"),
    ],
)
def test_tokens_that_cannot_be_used_start_nothing(
    tmp_path: Path, held: str | None, why: str
) -> None:
    """Said at once, and not by a service that dies again and again."""
    file = tmp_path / "tokens.toml"
    if held is not None:
        file.write_text(held)
    with pytest.raises(BadRequest, match=why):
        services(Settings(tokens=file))


def test_a_sidecar_runs_where_a_model_may_need_one(tmp_path: Path) -> None:
    """A family that lets pipelines answer as they were fitted, or a champion that does."""
    assert "sidecar" not in names(Settings())
    assert "sidecar" in [each.name for each in services(Settings(), sidecar=True)]
    system = System(Settings(home=tmp_path / "home", monitors=MONITORS))
    assert not system.needs_sidecar
    head = Head(
        model=ModelId("eta-de"), epoch=1, version=1, digest="d", artifact="/m/1/pipeline.skops"
    )
    system.ledger.move(head, at=datetime(2026, 3, 1, tzinfo=UTC), previous=None, reason="first")
    assert system.needs_sidecar
    system.ledger.close()
    shutil.copytree(MONITORS, tmp_path / "monitors")
    with (tmp_path / "monitors" / "eta.toml").open("a") as file:
        file.write('\n[retrain]\nserve = "either"\n')
    asked = System(Settings(home=tmp_path / "other", monitors=tmp_path / "monitors"))
    assert asked.needs_sidecar


def test_a_server_elsewhere_gets_no_database_of_ours() -> None:
    """The worker knows where Prefect is, and nothing of how it is run."""
    settings = read_settings(prefect="http://p:4200/api")
    (worker,) = (each for each in services(settings) if each.name == "worker")
    assert worker.env["PREFECT_API_URL"] == "http://p:4200/api"
    assert not any(name.startswith("PREFECT_SERVER_") for name in worker.env)
    assert "PREFECT_API_DATABASE_CONNECTION_URL" not in worker.env


def test_no_password_is_in_a_command() -> None:
    """Everybody on a machine can read what processes were started with."""
    settings = read_settings(
        ledger="postgresql://u:hush@h/l",
        mlflow="postgresql://u:hush@h/m",
        prefect_database="postgresql://u:hush@h/p",
    )
    found = services(settings)
    assert "hush" not in str([service.argv for service in found])
    (mlflow,) = (each for each in found if each.name == "mlflow")
    assert mlflow.env["MLFLOW_BACKEND_STORE_URI"] == "postgresql+psycopg://u:hush@h/m"
    (prefect,) = (each for each in found if each.name == "prefect")
    assert prefect.env["PREFECT_API_DATABASE_CONNECTION_URL"] == "postgresql+asyncpg://u:hush@h/p"


def test_only_those_that_are_asked_for() -> None:
    """In the order they are listed, whatever the order they are asked for in."""
    found = chosen(services(read_settings()), " ingester,online ,")
    assert [service.name for service in found] == ["online", "ingester"]


@pytest.mark.parametrize(
    ("only", "said"),
    [
        ("onlin", "there is no service onlin"),
        ("online,ingster,dog", "there is no service ingster, dog"),
        ("mlflow", "mlflow runs elsewhere"),
        (" , ", "names no service"),
    ],
)
def test_a_service_that_is_not_there_is_refused(only: str, said: str) -> None:
    """With those that there are."""
    with pytest.raises(BadRequest, match=said) as refused:
        chosen(services(read_settings(mlflow="http://m:5000")), only)
    assert "online, pages, slack, desk, prefect, worker, ingester, watchdog" in refused.value.hint


def test_the_command_refuses_it_before_anything_is_made(tmp_path: Path) -> None:
    """Exit code 2, and no home."""
    argv = [sys.executable, "-m", "driftloop", "--home", str(tmp_path / "home")]
    argv += ["--monitors", str(MONITORS), "up", "--only", "onlin"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, "there is no service onlin" in done.stderr) == (2, True)
    assert not (tmp_path / "home").exists()


def test_the_watchdog_asks_no_service_that_does_not_run_here(tmp_path: Path) -> None:
    """Where only the worker runs, the online service's figures are not missed."""
    settings = Settings(home=tmp_path / "home", monitors=MONITORS)
    dog = Watchdog(System(settings))
    assert "p99_ms" in {reading.metric for reading in dog.readings()}
    write_status(settings.home, [ServiceStatus(name="worker", state="healthy")])
    assert "p99_ms" not in {reading.metric for reading in dog.readings()}


def test_streams_have_a_process_and_nats_where_a_subject_is_named(tmp_path: Path) -> None:
    """Neither runs for a fleet without events; of NATS none is started that runs already."""
    plain, named = (
        load_fleet(write_monitors(tmp_path / (subject or "plain"), nats=subject)).sources
        for subject in ("", "flights")
    )
    settings = read_settings()
    assert {"stream", "nats"}.isdisjoint(names(settings))

    def more(settings: Settings, sources: Mapping[str, Source]) -> set[str]:
        found = services(settings, sources)
        return {each.name for each in found} - set(names(settings))

    tables = {name: source for name, source in plain.items() if source.kind == "table"}
    assert more(settings, tables) == set()
    assert more(settings, plain) == {"stream"}
    assert more(settings, named) == {"stream", "nats"}
    elsewhere = read_settings(nats="nats://u:hush@h:4222")
    assert more(elsewhere, named) == {"stream"}
    (stream,) = (each for each in services(elsewhere, named) if each.name == "stream")
    assert "hush" not in str(stream.argv)
    assert stream.env["DRIFTLOOP_NATS"] == "nats://u:hush@h:4222"


def test_nats_that_is_not_installed_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is started, with what to install."""
    sources = load_fleet(write_monitors(tmp_path / "monitors", nats="flights")).sources
    monkeypatch.setattr("driftloop.settings.find_spec", lambda _: None)
    with pytest.raises(BadRequest, match=r"driftloop\[nats\]"):
        services(read_settings(), sources)
