"""The command line as a person meets it: real processes, exit codes, what they print."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fakes.streamed import write_monitors
from typer.testing import CliRunner

from driftloop.cli import app
from driftloop.errors import BadRequest, LogError
from driftloop.ledger import SqlLedger
from driftloop.records import Act, Acted
from driftloop.settings import Settings
from driftloop.wiring import System

MONITORS = Path(__file__).parents[2] / "monitors"


@pytest.fixture
def monitors(tmp_path: Path) -> Path:
    """A copy of the tests' monitors that a test may change."""
    return Path(shutil.copytree(MONITORS, tmp_path / "monitors"))


def driftloop(
    *words: str, home: Path, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "driftloop",
            "--home",
            str(home),
            "--monitors",
            str(MONITORS),
            *words,
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, **(env or {})},
    )


def test_a_faulty_option_is_told_in_plain_words(tmp_path: Path) -> None:
    """What it may be, and nothing of what checks it."""
    ran = driftloop("route", "eta-de", "--severity", "bad", home=tmp_path)
    assert ran.returncode == 2
    assert "'bad' is not one of 'info', 'warning', 'critical'" in ran.stderr
    assert "Value error" not in ran.stderr


def test_check_lists_the_fleet(tmp_path: Path) -> None:
    """A sound folder exits 0 and says what it declares."""
    ran = driftloop("check", home=tmp_path)
    assert ran.returncode == 0
    assert "eta: 2 models, 3 features, regression, owner logistics" in ran.stdout
    assert "\n  eta-de, eta-fr\n" in ran.stdout
    assert "owner logistics (#ml-logistics)\n" in ran.stdout
    assert "warning: logistics lists no members: nobody may press its buttons\n" in ran.stdout
    assert ran.stdout.endswith("3 models in 2 families: 2 warnings\n")


@pytest.mark.parametrize(
    "words",
    [
        ("rollout",),
        ("trace", "eta-de#1"),
        ("report", "eta-de"),
        ("prune", "--dry-run"),
        ("consistency",),
        ("incidents",),
        ("ack", "eta-de"),
    ],
    ids=lambda words: words[0],
)
def test_what_only_reads_makes_no_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    """A mistyped --home is said, and not made."""
    monkeypatch.setattr("driftloop.cli._given", {})
    home = tmp_path / "hmoe"
    ran = CliRunner().invoke(app, ["--home", str(home), "--monitors", str(MONITORS), *words])
    assert isinstance(ran.exception, BadRequest)
    assert str(home) in str(ran.exception)
    assert not home.exists()


def test_check_says_which_pages_people_denied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is a ledger; where there is none it makes none; one that is broken is told."""
    monkeypatch.setattr("driftloop.cli._given", {})
    words = ["--home", str(tmp_path), "--monitors", str(MONITORS), "check"]
    ran = CliRunner().invoke(app, words)
    assert "denied" not in ran.output
    assert list(tmp_path.iterdir()) == []
    file = tmp_path / "ledger.db"
    ledger, now = SqlLedger(f"sqlite:///{file}"), datetime.now(UTC)
    act = {"model": "eta-de", "at": now, "incident": "eta-de/1", "act": Act.NO_PROBLEM}
    ledger.append(Acted(who="ada", models=("eta-de",), **act))
    ledger.close()
    assert "people denied 1 page in 28 days" in CliRunner().invoke(app, words).output
    file.write_bytes(b"no database" * 1000)
    ran = CliRunner().invoke(app, words)
    assert isinstance(ran.exception, LogError)
    assert "the ledger cannot be read" in str(ran.exception)


def test_check_wraps_the_names_of_many_models(tmp_path: Path, monitors: Path) -> None:
    """No name is broken, at its hyphens neither."""
    markets = [f"no-{number}" for number in range(40)]
    text = (monitors / "eta.toml").read_text().replace('["de", "fr"]', str(markets))
    (monitors / "eta.toml").write_text(text)
    ran = driftloop("--monitors", str(monitors), "check", home=tmp_path / "home")
    assert ran.returncode == 0, ran.stderr
    lines = [line for line in ran.stdout.splitlines() if line.startswith("  eta-")]
    assert max(len(line) for line in lines) <= 100
    names = [name.strip() for line in lines for name in line.strip(" ,").split(",")]
    assert names == [f"eta-{market}" for market in markets]


def test_check_reads_the_log_of_others_and_warns(tmp_path: Path, monitors: Path) -> None:
    """What will bite stands on lines of its own; the exit code is 0."""
    with (monitors / "eta.toml").open("a") as file:
        file.write('[log]\nsource = "scored.parquet"\n[handover]\ncommand = ["cat"]\n')
    at = datetime(2026, 2, 1, tzinfo=UTC)
    rows = [
        {"id": id_, "model": market, "asked_at": at, "prediction": 1.0, "label": 1.0}
        | {"distance": 1.0, "load": 0.5, "vehicle": "van"}
        for id_, market in (("a", "de"), ("a", "de"), (None, "fr"), ("b", "it"))
    ]
    pq.write_table(pa.Table.from_pylist(rows), monitors / "scored.parquet")
    ran = driftloop("--monitors", str(monitors), "check", home=tmp_path / "home")
    assert ran.returncode == 0, ran.stderr
    assert "  eta-de: 2 rows, 2 labelled, 2026-02-01 00:00 to 2026-02-01 00:00 UTC\n" in ran.stdout
    warnings = [line for line in ran.stdout.splitlines() if line.startswith("  warning: ")]
    assert [line.partition(": ")[2][:13] for line in warnings] == [
        "1 rows have n",
        "1 rows repeat",
        "1 rows are of",
    ]
    assert ran.stdout.endswith("3 models in 2 families: 5 warnings\n")
    cut = driftloop("--monitors", str(monitors), "--models", "eta-fr", "check", home=tmp_path)
    (strange,) = (line for line in cut.stdout.splitlines() if "none of these" in line)
    assert strange.startswith("  warning: 1 rows are of none of these models, and are passed over")


def test_check_refuses_a_handover_that_cannot_be_run(tmp_path: Path, monitors: Path) -> None:
    """With the faults of the log, all at once; a fleet is loaded all the same."""
    with (monitors / "eta.toml").open("a") as file:
        file.write('[log]\nsource = "scored.parquet"\n[handover]\ncommand = ["./roll-out"]\n')
    pq.write_table(pa.table({"id": ["a"]}), monitors / "scored.parquet")
    ran = driftloop("--monitors", str(monitors), "check", home=tmp_path / "home")
    assert ran.returncode == 2
    assert "eta.toml: handover.command: there is no program './roll-out' (hint: " in ran.stderr
    assert "eta.toml: log.columns.model: the source has no column 'model'" in ran.stderr
    assert "all well" not in ran.stdout
    ran = driftloop("--monitors", str(monitors), "rollback", "eta-de", home=tmp_path / "home")
    assert "has never had a champion" in ran.stderr


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("none.parquet", "none.parquet: there is no such file"),
        ("FROM planes.csv WHERE", "cannot be read: "),
        ("FROM 'planes.csv' SELECT tailnum", "it has no column age (hint: it has tailnum)"),
        ("FROM 'planes.csv'", ""),
    ],
)
def test_check_reads_the_tables_that_are_looked_up_in(
    tmp_path: Path, source: str, said: str
) -> None:
    """One that is not there, a query that does not parse, a column that it lacks: exit code 2."""
    monitors = write_monitors(tmp_path / "monitors")
    text = (monitors / "sources.toml").read_text()
    (monitors / "sources.toml").write_text(text.replace('"planes.csv"', f'"{source}"'))
    ran = driftloop("--monitors", str(monitors), "check", home=tmp_path / "home")
    assert ran.returncode == (2 if said else 0)
    assert said in ran.stderr
    assert ("sources.toml: planes, " in ran.stderr) == bool(said)


def test_check_tells_of_every_log_that_cannot_be_read(tmp_path: Path, monitors: Path) -> None:
    """Exit code 1 where the files are sound, 2 where they are not; no log hides another fault."""
    for family in ("churn", "eta"):
        with (monitors / f"{family}.toml").open("a") as file:
            file.write(f'[log]\nsource = "{family}.parquet"\n[handover]\ncommand = ["cat"]\n')
    words = ("--monitors", str(monitors), "check")
    ran = driftloop(*words, home=tmp_path / "home")
    assert ran.returncode == 1
    for family in ("churn", "eta"):
        assert f"{family}.toml: log: the log cannot be read: " in ran.stderr
    assert ran.stderr.count(f"(hint: files in [log] are looked for from {monitors} on") == 2
    assert "all well" not in ran.stdout
    text = (monitors / "churn.toml").read_text()
    (monitors / "churn.toml").write_text(text.replace('["cat"]', '["./roll-out"]'))
    ran = driftloop(*words, home=tmp_path / "home")
    assert ran.returncode == 2
    assert "churn.toml: handover.command: there is no program './roll-out'" in ran.stderr
    assert ran.stderr.count(": the log cannot be read: ") == 2


def test_check_reports_faults_with_exit_code_2(tmp_path: Path) -> None:
    """A missing folder is bad input: a line on stderr, nothing on stdout."""
    ran = driftloop("--monitors", str(tmp_path / "none"), "check", home=tmp_path)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "there is no such folder" in ran.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("rollback", "eta-xx"), "no monitor declares the model 'eta-xx'"),
        (("rollback", "eta-de"), "has never had a champion"),
        (("report", "eta-de"), "has no champion yet"),
        (("labels", "nowhere.csv"), "nowhere.csv"),
        (("backfill", "eta", "nowhere.parquet"), "nowhere.parquet"),
        (("backfill", "none", "nowhere.parquet"), "no monitor declares the family 'none'"),
        (("predict-batch", "eta-de", "nowhere.csv", "--out", "x.parquet"), "nowhere.csv"),
        (("--models", "eta-de,eta-xx", "check"), "eta-xx"),
        (("predict-batch", "eta-de", "a.csv", "--out", "no/x.csv"), "no such folder"),
        (("predict-batch", "eta-de", "a.csv", "--out", "."), "ending"),
        (("predict-batch", "eta-de", "a.csv", "--out", "a.csv"), "overwrite its own source"),
        (("--home", "/dev/null", "train"), "/dev/null"),
    ],
)
def test_bad_input_exits_2_with_a_line(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    """No traceback; the line names what was wrong."""
    ran = driftloop(*words, home=tmp_path)
    assert ran.returncode == 2, ran.stderr
    assert said in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.fixture
def history(tmp_path: Path) -> Path:
    """Three rows of eta, with a column too many and a feature that nobody filled in."""
    file = tmp_path / "history.csv"
    file.write_text(
        "id,model,asked_at,distance,load,vehicle,label,observed_at,note\n"
        "a,eta-de,2026-02-01,3.5,,van,7,2026-02-01,x\n"
        "b,eta-de,2026-02-01,4.5,,van,9,2026-02-01,x\n"
        "c,eta-fr,2026-02-01,4.5,,van,,,x\n"
    )
    return file


def test_backfill_says_what_it_does_not_use(tmp_path: Path, history: Path) -> None:
    """On stderr: a column nobody knows, a feature without a value; the rest is handed over."""
    ran = driftloop("backfill", "eta", str(history), home=tmp_path / "home")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("3 rows, 2 of them labelled: handed over")
    assert ran.stderr == (
        "ignored: note (known: id, model, asked_at, distance, load, vehicle, label, observed_at)\n"
        "null in every row: load\n"
    )


def test_backfill_refuses_what_waits_for_the_ingester(tmp_path: Path, history: Path) -> None:
    """The same file again before any ingester ran is the same rows; others are taken."""
    home = tmp_path / "home"
    assert driftloop("backfill", "eta", str(history), home=home).returncode == 0
    waiting = sorted((home / "spool").rglob("*.ndjson"))
    history.write_text(history.read_text().replace("b,eta-de", "new,eta-de"))
    ran = driftloop("backfill", "eta", str(history), home=home)
    assert ran.returncode == 2
    assert (
        "history of eta: 2 of 3 rows are in the log already, or wait for the ingester, as id 'a' of"
        " eta-de; nothing was handed over (hint: leave these rows out"
    ) in ran.stderr
    assert sorted((home / "spool").rglob("*.ndjson")) == waiting
    history.write_text(history.read_text().replace("\na,", "\nd,").replace("\nc,", "\ne,"))
    ran = driftloop("backfill", "eta", str(history), home=home)
    assert ran.returncode == 0, ran.stderr


def test_backfill_refuses_what_is_in_the_log_already(tmp_path: Path, history: Path) -> None:
    """One such row is enough, and nothing is written; other rows are taken."""
    home = tmp_path / "home"
    assert driftloop("backfill", "eta", str(history), home=home).returncode == 0
    system = System(Settings(home=home, monitors=MONITORS))
    with system.ingester() as ingester:
        assert ingester.ingest().rows == 3
    text = history.read_text()
    history.write_text(text.replace("b,eta-de", "new,eta-de"))
    ran = driftloop("backfill", "eta", str(history), home=home)
    assert ran.returncode == 2
    assert (
        "history of eta: 2 of 3 rows are in the log already, or wait for the ingester, as id 'a' of"
        " eta-de; nothing was handed over (hint: leave these rows out"
    ) in ran.stderr
    assert list((home / "spool").rglob("*.ndjson")) == []
    # The same ids of other models are other rows.
    swapped = {"eta-de": "eta-fr", "eta-fr": "eta-de"}
    history.write_text(re.sub("eta-de|eta-fr", lambda found: swapped[found[0]], text))
    ran = driftloop("backfill", "eta", str(history), home=home)
    assert ran.returncode == 0, ran.stderr
    assert len(list((home / "spool").rglob("*.ndjson"))) == 2


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("b,eta-de", "a,eta-de", "row 2, column id: 'a' stands twice"),
        (",load,", ",lode,", "it has no column load (hint: it has id, model"),
    ],
)
def test_backfill_of_a_file_that_does_not_fit(
    tmp_path: Path, history: Path, old: str, new: str, said: str
) -> None:
    """Exit code 2, and not even a folder is made."""
    history.write_text(history.read_text().replace(old, new))
    ran = driftloop("backfill", "eta", str(history), home=tmp_path / "home")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert said in ran.stderr
    assert not (tmp_path / "home").exists()


def test_backfill_of_an_empty_file(tmp_path: Path) -> None:
    """Nothing at all, and a header alone."""
    file = tmp_path / "history.csv"
    for text, said in (("", "it is empty"), ("id,model\n", "a header but no rows")):
        file.write_text(text)
        ran = driftloop("backfill", "eta", str(file), home=tmp_path / "home")
        assert ran.returncode == 2
        assert said in ran.stderr


HANGS = """
import os, pathlib, time
def hangs(family, *, seed, **parameters):
    pathlib.Path(__file__).with_name("pid").write_text(str(os.getpid()))
    time.sleep(600)
"""


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_in_a_training_ends_it_with_a_line(tmp_path: Path, monitors: Path) -> None:
    """Exit code 130; a terminal sends the signal to the whole group, and nobody is left of it."""
    (tmp_path / "hangs_test_recipe.py").write_text(HANGS)
    with (monitors / "eta.toml").open("a") as file:
        file.write('[retrain]\nrecipe = "hangs_test_recipe:hangs"\n')
    now = datetime.now(UTC)
    rows = [
        {"id": str(n), "model": "eta-de", "asked_at": now - timedelta(hours=n), "observed_at": now}
        | {"distance": 1.0, "load": 0.5, "vehicle": "van", "label": 1.0}
        for n in range(1, 1000)
    ]
    system = System(Settings(home=tmp_path / "home", monitors=MONITORS))
    with system.spool("history") as spool:
        spool.history(system.fleet.family_named("eta"), pa.Table.from_pylist(rows))
    with system.ingester() as ingester:
        assert ingester.ingest().rows == 999
    words = ["--home", str(tmp_path / "home"), "--monitors", str(monitors)]
    pythonpath = f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"
    with subprocess.Popen(
        [sys.executable, "-m", "driftloop", *words, "train", "eta-de"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": pythonpath},
    ) as training:
        until = time.monotonic() + 60.0
        while not (tmp_path / "pid").exists():
            assert training.poll() is None, training.communicate()
            assert time.monotonic() < until
            time.sleep(0.02)
        os.killpg(training.pid, signal.SIGINT)
        assert training.communicate(timeout=30.0) == ("", "stopped\n")
    assert training.returncode == 130
    fit = Path("/proc") / (tmp_path / "pid").read_text() / "cmdline"
    assert not fit.exists() or fit.read_bytes() == b""


def test_a_setting_that_does_not_fit_names_its_variable(tmp_path: Path) -> None:
    """The environment is an outer door too."""
    ran = driftloop("status", home=tmp_path, env={"DRIFTLOOP_ONLINE_PORT": "99999"})
    assert ran.returncode == 2
    assert "DRIFTLOOP_ONLINE_PORT" in ran.stderr


def test_status_of_nothing_says_nothing_runs(tmp_path: Path) -> None:
    """Exit code 1, and how to start."""
    ran = driftloop("status", home=tmp_path)
    assert ran.returncode == 1
    assert "driftloop up" in ran.stdout


def test_up_on_a_taken_port_exits_2_and_starts_nothing(tmp_path: Path) -> None:
    """Which port, which setting, and what to do; no service was begun, and none runs."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ran = driftloop("up", home=tmp_path / "home", env={"DRIFTLOOP_ONLINE_PORT": port})
    assert ran.returncode == 2, ran.stderr
    assert f"port {port} (online_port, for online)" in ran.stderr
    assert "DRIFTLOOP_ONLINE_PORT=..." in ran.stderr
    assert "Traceback" not in ran.stderr
    # Each service begins by having a log.
    assert [log.name for log in (tmp_path / "home" / "logs").iterdir()] == ["up.log"]
    assert driftloop("status", home=tmp_path / "home").returncode == 1


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    """`--help` answers without the libraries that take seconds to import."""
    code = (
        "import sys\n"
        "from driftloop.cli import app\n"
        "from typer.testing import CliRunner\n"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0\n"
        "heavy = {'sklearn', 'mlflow', 'evidently', 'pandas', 'pyarrow', 'duckdb', 'prefect'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert ran.stdout.strip() == "[]"


def test_check_refuses_a_recipe_that_takes_no_weights_where_a_memory_needs_them(
    tmp_path: Path, monitors: Path
) -> None:
    """Found before the first fit; the other memories need none."""
    recipes = tmp_path / "recipes"
    recipes.mkdir()
    (recipes / "near.py").write_text(
        "def near(family, *, seed):\n"
        "    from sklearn.neighbors import KNeighborsRegressor\n"
        "    return KNeighborsRegressor()\n"
    )
    env = {"PYTHONPATH": os.pathsep.join([str(recipes), os.environ.get("PYTHONPATH", "")])}
    text = (monitors / "eta.toml").read_text()
    recipe = '\n[retrain]\nrecipe = "near:near"\nmemory = ["recent", "%s"]\n'
    plain = (MONITORS / "defaults.toml").read_text().replace("parameters = { max_iter = 20 }\n", "")
    (monitors / "defaults.toml").write_text(plain)
    for memory, code in (("decayed", 2), ("all", 0)):
        (monitors / "eta.toml").write_text(text + recipe % memory)
        ran = driftloop("--monitors", str(monitors), "check", home=tmp_path / "home", env=env)
        assert ran.returncode == code, ran.stderr
        told = "the recipe's KNeighborsRegressor takes no weights of rows" in ran.stderr
        assert told == (code == 2)
