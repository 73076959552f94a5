"""`driftloop simulate` as a person meets it: a fleet from nothing to its first decay."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from driftloop.loop.watch import first_orders
from driftloop.records import State
from driftloop.settings import Settings
from driftloop.wiring import System

SHAPE = ("--models", "2", "--numeric", "4", "--rows-per-day", "200", "--label-delay", "2h")
TIME = ("--days", "6", "--history-days", "20")


@dataclass(frozen=True)
class Site:
    """A folder that commands are typed in."""

    folder: Path

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "driftloop", *words],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    @property
    def system(self) -> System:
        return System(Settings(home=self.folder / ".driftloop", monitors=self.folder / "monitors"))

    def ingest(self) -> int:
        with self.system.ingester() as ingester:
            return ingester.ingest().rows

    def train(self) -> list[str]:
        """Do what `driftloop train` does, in this process: its libraries are needed here anyway."""
        system = self.system
        orders = first_orders(system.fleet, system.ledger.heads(), system.clock.now())
        return [system.renewer.renew(order).outcome for order in orders]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """An empty folder."""
    return Site(tmp_path)


@pytest.mark.filterwarnings("ignore:R.2 score is not well-defined")
def test_from_nothing_to_the_first_decay(site: Site) -> None:
    """History trains first versions; the flipped model decays in the log, the other stays fresh."""
    ran = site.run("simulate", "history", *SHAPE, *TIME)
    assert ran.returncode == 0, ran.stderr
    assert "8000 rows of 2 models, 7967 labels: handed over" in ran.stdout
    assert "the clock of .driftloop shows 2026-03-01 00:00 UTC" in ran.stdout
    assert site.ingest() == 8000
    assert site.train() == ["promoted", "promoted"]
    fault = "concept-flip:1.0@2026-03-04/m001"
    ran = site.run("simulate", "rows", *SHAPE, *TIME, "--fault", fault)
    assert ran.returncode == 0, ran.stderr
    assert "2400 rows of 2 models, 2400 labels: handed over" in ran.stdout
    assert f"injected: {fault}\nthe clock of .driftloop shows 2026-03-07 00:00 UTC" in ran.stdout
    assert site.ingest() == 2400
    watched = {each.model: each.decision for each in site.system.watcher.watch()}
    states = {model: decision.state for model, decision in watched.items() if decision}
    assert states == {"simulated-m000": State.FRESH, "simulated-m001": State.DECAYING}


def test_monitors_alone_make_no_installation(site: Site) -> None:
    """`driftloop check` takes them; other options are refused, and change nothing."""
    ran = site.run("simulate", "monitors", *SHAPE, "--task", "binary")
    assert ran.returncode == 0, ran.stderr
    assert not (site.folder / ".driftloop").exists()
    ran = site.run("check")
    assert ran.returncode == 0, ran.stderr
    assert "simulated: 2 models, 5 features, binary, owner simulation" in ran.stdout
    ran = site.run("simulate", "history", *SHAPE)
    assert ran.returncode == 2
    assert "monitors/simulated.toml: already there, and not what these options make" in ran.stderr
    assert not (site.folder / ".driftloop" / "spool").exists()


def test_an_installation_in_use_is_left_alone(site: Site) -> None:
    """Its clock is the wall's; no monitor file is written beside it either."""
    home = site.folder / ".driftloop"
    home.mkdir()
    (home / "ledger.db").touch()
    ran = site.run("simulate", "history", *SHAPE)
    assert ran.returncode == 2
    assert ".driftloop: is in use, and what is simulated would set its clock" in ran.stderr
    assert [file.name for file in home.iterdir()] == ["ledger.db"]
    assert not (site.folder / "monitors").exists()


def test_another_time_than_the_clocks_is_refused(site: Site) -> None:
    """A second family may be simulated beside the first, at the same time alone."""
    quick = ("--models", "1", "--rows-per-day", "10")
    assert site.run("simulate", "history", *quick).returncode == 0
    ran = site.run("simulate", "history", *quick, "--family", "more", "--start", "2026-04-01")
    assert ran.returncode == 2
    assert "its clock shows 2026-03-01 00:0" in ran.stderr
    ran = site.run("simulate", "history", *quick, "--family", "more")
    assert ran.returncode == 0, ran.stderr
    assert site.ingest() == 560


def test_rows_are_written_once(site: Site) -> None:
    """Whether they are in the log already, or wait for the ingester."""
    quick = ("--models", "1", "--rows-per-day", "10", "--history-days", "4")
    assert site.run("simulate", "history", *quick).returncode == 0
    for _ in range(2):
        ran = site.run("simulate", "history", *quick, "--seed", "2")
        assert ran.returncode == 2
        assert "simulated: these rows are in the log already, or wait for" in ran.stderr
        site.ingest()
    assert list((site.folder / ".driftloop" / "spool").rglob("*.ndjson")) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "monitors,"),
        (("rows",), "first `driftloop simulate history` with the same options"),
        (("rows", "--fault", "drift:x00:1@2026-03-02"), "kinds: mean-shift, scale, category-mix"),
        (("history", "--fault", "volume-drop:1@2027-01-01"), "outside the plan's time"),
        (("history", "--label-delay", "3"), "--label-delay: '3' should be a duration"),
        (("history", "--days", "0"), "ends before it begins"),
        (("history", "--days", "-1"), "--days: '-1.0d' should be a duration"),
        (("history", "--start", "soon"), "--start: 'soon' is not a date or time"),
        (("history", "--models", "0"), "models: should be at least 1"),
        (("history", "--task", "ranking"), "'ranking' is not one of"),
        (("history", "--task", "score"), "task: scores are served elsewhere"),
        (("history", "--task", "multiclass", "--classes", "1"), "classes: should be at least 2"),
        (
            ("history", "--task", "multiclass", "--classes", "1001"),
            "classes: should be at most 1000",
        ),
        (("history", "--family", "a b"), "family: 'a b' should be lower case"),
    ],
)
def test_bad_input_exits_2_with_a_line(site: Site, words: tuple[str, ...], said: str) -> None:
    """No traceback, and nothing is written."""
    ran = site.run("simulate", *words)
    assert ran.returncode == 2, ran.stderr
    assert said in ran.stderr
    assert "Traceback" not in ran.stderr
    assert list(site.folder.iterdir()) == []
