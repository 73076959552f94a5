"""Settings of stores beyond one machine: what is taken, what is refused, and what is not shown."""

from pathlib import Path
from typing import Any

import pytest

from driftloop.errors import BadRequest
from driftloop.settings import Settings, explained, read_settings

LEDGER = "postgresql://ours:hush%2Fhush@db.example:5433/ledger"
SHARED: dict[str, Any] = {
    "ledger": LEDGER,
    "catalog": "postgres://ours:hush@db.example/lake?sslmode=require",
    "lake_files": "s3://bucket/lake/",
    "s3_endpoint": "https://s3.example:9000",
    "s3_key": "ours",
    "s3_secret": "hush-hush",
    "mlflow": "postgresql+psycopg://ours:hush@db.example/mlflow",
    "prefect_database": "postgresql://ours:hush@db.example/prefect?sslmode=require",
    "artifacts": "/shared/models",
}
SECOND = {
    "smtp": "smtp://ours:hush@mail.example:587",
    "webhook": "https://hooks.example/services/hush?token=hush",
}


def test_each_tool_gets_the_address_as_it_needs_it() -> None:
    """One way to write an address of PostgreSQL; each driver's own is ours to make."""
    settings = read_settings(**SHARED)
    assert settings.ledger_url == "postgresql+psycopg://ours:hush%2Fhush@db.example:5433/ledger"
    assert settings.mlflow_url == "postgresql+psycopg://ours:hush@db.example/mlflow"
    expected = "postgresql+asyncpg://ours:hush@db.example/prefect?ssl=require"
    assert settings.prefect_store == expected
    assert settings.lake_files == "s3://bucket/lake"
    assert settings.mlflow_files == Path("/shared/models/mlflow")
    named = ("ledger", "catalog", "lake_files", "mlflow", "artifacts")
    assert settings.elsewhere == named


def test_without_them_everything_is_in_the_home() -> None:
    """The default is one machine, and a home that is named otherwise takes all along."""
    settings = read_settings(home="/there")
    assert settings.ledger_url == "sqlite:////there/ledger.db"
    assert settings.mlflow_url == "sqlite:////there/mlflow/mlflow.db"
    assert settings.artifacts == Path("/there/artifacts")
    assert settings.mlflow_files == Path("/there/mlflow/artifacts")
    assert (settings.prefect_store, settings.elsewhere) == ("", ())
    assert read_settings(home="/there", **SHARED).embedded() == settings


def test_servers_that_run_already_are_named_by_their_address() -> None:
    """Pages and flows go there."""
    settings = read_settings(mlflow="https://mlflow.example/", prefect="http://p.example:4200/api/")
    assert settings.mlflow_runs
    assert settings.mlflow_page == "https://mlflow.example"
    assert settings.mlflow_url == "https://mlflow.example/"
    assert settings.prefect_api == "http://p.example:4200/api"


def test_a_child_reads_the_addresses_that_its_parent_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """Passwords too: the services need them."""
    parent = read_settings(**SHARED)
    for name, value in parent.environment().items():
        monkeypatch.setenv(name, value)
    assert read_settings() == parent
    assert read_settings().ledger.get_secret_value() == LEDGER


def test_no_password_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither by repr nor dump nor `driftloop settings`, which shows the rest of an address."""
    for name, value in {**SHARED, **SECOND}.items():
        monkeypatch.setenv(f"DRIFTLOOP_{name.upper()}", value)
    found = {each.name: each.value for each in explained()}
    settings = read_settings()
    assert "hush" not in f"{found}{settings!r}{settings.model_dump_json()}"
    assert found["ledger"] == "postgresql://ours:***@db.example:5433/ledger"
    assert found["s3_secret"] == "**********"
    assert found["smtp"] == "smtp://ours:***@mail.example:587"
    assert found["webhook"] == "https://hooks.example"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"ledger": "mysql://u:hush@h/d"}, "is not an address like postgresql://"),
        ({"ledger": "sqlite:////shared/ledger.db"}, "is not an address like postgresql://"),
        ({"ledger": "/some/where"}, "is not an address like postgresql://"),
        ({"ledger": "postgresql:///"}, "is not an address like postgresql://"),
        ({"ledger": "postgresql://u:hu/sh@h/d"}, "write :, /, @, # or [ in a password as %3A"),
        ({"catalog": "postgresql://u:hush@h/d"}, "catalog needs lake_files"),
        ({"lake_files": "gs://bucket/x"}, "neither a folder nor s3://bucket/prefix"),
        ({"lake_files": "s3://"}, "neither a folder nor s3://bucket/prefix"),
        ({"lake_files": "s3://bucket/x"}, "needs s3_key and s3_secret"),
        ({"lake_files": "s3://bucket/x", "s3_key": "k"}, "needs s3_key and s3_secret"),
        ({"s3_secret": "hush"}, "s3_secret is of no use without lake_files = s3://"),
        ({"s3_endpoint": "host:9000"}, "is not an address like https://host:9000"),
        ({"mlflow": "ftp://h/x"}, "is not http://host:port, or an address like postgresql://"),
        ({"mlflow": "http://u:hush@h"}, "has a password in it"),
        ({"smtp": "http://u:hush@h"}, "is not an address like smtp://user:password@host:587"),
        ({"smtp": "smtp://u:hush@"}, "is not an address like smtp://"),
        ({"smtp": "smtps://u:hush@h/x"}, "is not an address like smtp://"),
        ({"smtp": "smtp://u:hu/sh@h"}, "write :, /, @, # or [ in a password as %3A"),
        ({"smtp": "smtp://:hush@h"}, "has a user or a password without the other"),
        ({"smtp": "mail.example:587"}, "is not an address like smtp://"),
        ({"smtp_from": "ours"}, "Who these e-mails are from"),
        ({"smtp_from": "a@b\nBcc: c@d"}, "Who these e-mails are from"),
        ({"webhook": "ftp://h/hush"}, "is not an address like https://host/path"),
        ({"webhook": "https:///hush"}, "is not an address like https://host/path"),
        ({"prefect": "h:4200"}, "is not an address like http://host:4200/api"),
        ({"prefect": "http://u:hush@h/api"}, "has a password in it"),
        (
            {"prefect": "http://h/api", "prefect_database": "postgresql://u:hush@h/d"},
            "leave out prefect_database, or prefect",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(given: dict[str, Any], said: str) -> None:
    """With what is wrong, and without any password."""
    with pytest.raises(BadRequest) as refused:
        read_settings(**given)
    assert said in str(refused.value)
    assert "hush" not in str(refused.value)
    assert "hu/sh" not in str(refused.value)


def test_a_wrong_port_is_all_that_is_told() -> None:
    """The default of `artifacts`, which follows from the home, is no fault of its own."""
    with pytest.raises(BadRequest) as refused:
        read_settings(online_port=0)
    assert "artifacts" not in str(refused.value)


def test_folders_in_a_file_are_relative_to_it(tmp_path: Path) -> None:
    """`artifacts` and `lake_files` as `home` and `monitors`; an address is left as it is."""
    file = tmp_path / "ours.toml"
    file.write_text('home = "h"\nartifacts = "models"\nlake_files = "files"\n')
    settings = read_settings(config=file)
    assert settings.artifacts == tmp_path / "models"
    assert settings.lake_files == str(tmp_path / "files")
    file.write_text('lake_files = "s3://b/x"\ns3_key = "k"\ns3_secret = "s"\n')
    assert Settings.model_validate(read_settings(config=file)).lake_files == "s3://b/x"
