"""Monitor files of models that are served elsewhere: [log] and [handover]."""

import shutil
from pathlib import Path

import pytest

from driftloop.errors import BadRequest, SpecError
from driftloop.spec import load_fleet

MONITORS = Path(__file__).parents[2] / "monitors"
LOG = '[log]\nsource = "scored/*.parquet"\n'
HANDOVER = '[handover]\ncommand = ["./take"]\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the tests' monitors that a test may add to."""
    return Path(shutil.copytree(MONITORS, tmp_path / "monitors"))


def add(folder: Path, text: str) -> None:
    with (folder / "eta.toml").open("a", encoding="utf-8") as file:
        file.write("\n" + text)


def test_a_log_of_somebody_elses(folder: Path) -> None:
    """Its families are left out of what is served here; what would write to it is refused."""
    add(
        folder,
        """
        [log]
        source = "serving.duckdb"
        table = "main.scored"
        columns = { id = "Request ID", asked_at = "ts", load = "fill" }
        [log.labels]
        source = "outcomes.parquet"
        columns = { label = "minutes" }
        [handover]
        url = "https://serving.example/versions"
        time_limit = "30s"
        """,
    )
    fleet = load_fleet(folder)
    eta = fleet.family_named("eta")
    assert eta.log is not None
    assert eta.log.columns["id"] == "Request ID"
    assert eta.handover is not None
    assert fleet.folder == folder
    assert [family.name for family in fleet.served.families] == ["churn"]
    assert fleet.only(eta.models).folder == folder
    with pytest.raises(BadRequest, match="served elsewhere"):
        eta.need_own_log()
    fleet.family_named("churn").need_own_log()


def test_watching_alone_needs_nobody_to_hand_to(folder: Path) -> None:
    """Where nothing is retrained."""
    add(folder, LOG + "[retrain]\ntriggers = []\n")
    assert load_fleet(folder).family_named("eta").handover is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (LOG, "handover: what retraining makes must be handed over"),
        (HANDOVER, "handover: only what is served elsewhere is handed over"),
        (LOG + "[handover]\n", "handover: give either command or url"),
        (LOG + HANDOVER + 'url = "https://x"\n', "handover: give either command or url"),
        (LOG + '[handover]\nurl = "serving/versions"\n', "handover.url"),
        (LOG + HANDOVER + 'time_limit = "soon"\n', "handover.time_limit: should be a duration"),
        (LOG + HANDOVER + '[rollout]\nshadow = "1h"\n', "rollout: what is served elsewhere is"),
        ("[log]\n" + HANDOVER, "log.source: missing"),
        ('[log]\nsource = ""\n' + HANDOVER, "log.source"),
        (LOG + 'tabel = "x"\n' + HANDOVER, "log.tabel: unknown key"),
        (LOG + 'table = "x"\n' + HANDOVER, "log.table: only a database has tables"),
        ('[log]\nsource = "a.duckdb"\n' + HANDOVER, "log.table: a database has tables and views"),
        (LOG + 'columns = { lod = "x" }\n' + HANDOVER, "log.columns.lod: is no column of ours"),
        (LOG + "columns = { load = 1 }\n" + HANDOVER, "log.columns.load"),
        (
            LOG + 'columns = { label = "y" }\n[log.labels]\nsource = "y.parquet"\n' + HANDOVER,
            "log.columns.label: is no column of ours",
        ),
        (
            LOG + '[log.labels]\nsource = "y.duckdb"\n' + HANDOVER,
            "log.labels.table: a database has tables and views",
        ),
        (
            LOG + '[log.labels]\ncolumns = { load = "x" }\n' + HANDOVER,
            "log.labels.columns.load: is no column of ours",
        ),
    ],
)
def test_each_fault_is_named(folder: Path, text: str, said: str) -> None:
    """File, key and what; one a case."""
    add(folder, text)
    with pytest.raises(SpecError) as caught:
        load_fleet(folder)
    assert f"eta.toml: {said}" in str(caught.value)
